//! An app as the server's runner: in this process, or in its group's.

use std::sync::Arc;

use std::time::Duration;

use anyhow::anyhow;
use wasgi_config::Isolation;
use wasgi_engine::{App, Report, Request, RewindError, Rewound, StartError};
use wasgi_group::Remote;
use wasgi_server::Runner;

use crate::failure::Failure;

/// An app for the server's workers.
pub(crate) enum Hosted {
    /// In this process.
    Here(Here),
    /// In the process of its group.
    There(Arc<Remote>),
}

/// An app of this process's engine.
pub(crate) struct Here {
    pub app: App,
    pub isolation: Isolation,
    /// Whether each rewind is checked, which takes milliseconds.
    pub verify_rewind: bool,
}

/// An instance, wherever it is.
pub(crate) enum Instance {
    Here(Box<wasgi_engine::Instance>),
    There(Box<wasgi_group::Instance>),
}

/// Why an app does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    #[error(transparent)]
    Here(#[from] StartError),
    #[error("{0}")]
    There(String),
}

impl Runner for Hosted {
    type Instance = Instance;
    type Error = NotStarted;

    fn name(&self) -> &str {
        match self {
            Hosted::Here(here) => here.app.name(),
            Hosted::There(remote) => remote.name(),
        }
    }

    async fn start(&self) -> Result<Instance, NotStarted> {
        match self {
            Hosted::Here(here) => Ok(Instance::Here(Box::new(here.app.start().await?))),
            Hosted::There(remote) => match remote.start().await {
                Ok(instance) => Ok(Instance::There(Box::new(instance))),
                Err(why) => Err(NotStarted::There(why)),
            },
        }
    }

    async fn prepare(&self) -> Result<(), NotStarted> {
        match self {
            Hosted::Here(here) => Ok(here.app.prepare().await?),
            Hosted::There(remote) => remote.prepare().await.map_err(NotStarted::There),
        }
    }

    async fn probe(instance: &mut Instance, path: &str) -> Result<(), String> {
        let (request, keeper) = Request::local(path, "probe", 0);
        let report = Self::handle(instance, request).await;
        let kept = keeper.take();
        let answered = match (kept.failure, kept.head, report.why_not) {
            (Some(failure), ..) => failure.to_string(),
            (None, _, Some(why)) => why.to_string(),
            (None, Some(head), None) if head.status < 500 => return Ok(()),
            (None, Some(head), None) => format!("it answered {}", head.status),
            (None, None, None) => "it did not answer".to_owned(),
        };
        Err(format!("probe {path}: {answered}"))
    }

    fn is_copy(instance: &Instance) -> bool {
        match instance {
            Instance::Here(instance) => instance.is_copy(),
            Instance::There(instance) => instance.is_copy(),
        }
    }

    fn memory(instance: &mut Instance) -> u64 {
        match instance {
            Instance::Here(instance) => instance.memory(),
            Instance::There(instance) => instance.memory(),
        }
    }

    fn cpu_wait(&self) -> Option<Duration> {
        match self {
            Hosted::Here(here) => here.app.cpu_wait(),
            Hosted::There(remote) => remote.cpu_wait(),
        }
    }

    async fn renew(&self, instance: &mut Instance) -> Result<Option<Rewound>, RewindError> {
        match (self, instance) {
            (Hosted::Here(here), Instance::Here(instance)) => match here.isolation {
                Isolation::Worker => Ok(None),
                Isolation::Request => instance.rewind(here.verify_rewind).await.map(Some),
            },
            // It knows of its isolation there.
            (_, Instance::There(instance)) => instance.renew().await,
            (Hosted::There(_), Instance::Here(_)) => Err(RewindError::NoSnapshot),
        }
    }

    async fn handle(instance: &mut Instance, request: Request) -> Report {
        match instance {
            Instance::Here(instance) => instance.handle(request).await,
            Instance::There(instance) => instance.handle(request).await,
        }
    }
}

/// What the user reads when the app did not start; its traceback is in the log by then.
pub(crate) fn not_started(label: &str, error: impl Into<NotStarted>) -> Failure {
    let error = error.into();
    let hint = match &error {
        NotStarted::Here(error) => hint(error),
        NotStarted::There(_) => None,
    };
    Failure::Failed(anyhow!(error).context(label.to_owned()), hint)
}

fn hint(error: &StartError) -> Option<String> {
    let StartError::Import(last_line) = error else {
        return None;
    };
    let module = last_line
        .strip_prefix("ModuleNotFoundError: No module named '")?
        .split('\'')
        .next()?;
    Some(format!(
        "if {module} is a package, name the folder it is installed in: python-path = [\"packages\"] after \
         pip install --target packages, or venv = \"venv\"; if it is the app's own, see that root is its folder"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_package_is_explained() {
        let said = |line: &str| not_started("hello:app", StartError::Import(line.to_owned())).to_string();
        let said_of_flask = said("ModuleNotFoundError: No module named 'flask'");
        assert!(
            said_of_flask.starts_with("wasgi: hello:app: the app cannot be loaded: "),
            "{said_of_flask}"
        );
        assert!(
            said_of_flask.contains("\nhint: if flask is a package, "),
            "{said_of_flask}"
        );
        assert!(!said("ValueError: 1").contains("hint"));
    }
}
