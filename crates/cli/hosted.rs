//! The engine's app as the server's runner.

use std::time::Duration;

use anyhow::anyhow;
use wasgi_config::Isolation;
use wasgi_engine::{App, Instance, Report, Request, RewindError, Rewound, StartError};
use wasgi_server::Runner;

use crate::failure::Failure;

/// An app of the engine, for the server's workers.
pub(crate) struct Hosted {
    pub app: App,
    pub isolation: Isolation,
    /// Whether each rewind is checked, which takes milliseconds.
    pub verify_rewind: bool,
}

impl Runner for Hosted {
    type Instance = Instance;
    type Error = StartError;

    fn name(&self) -> &str {
        self.app.name()
    }

    async fn start(&self) -> Result<Instance, StartError> {
        self.app.start().await
    }

    async fn prepare(&self) -> Result<(), StartError> {
        self.app.prepare().await
    }

    async fn probe(instance: &mut Instance, path: &str) -> Result<(), String> {
        let (request, keeper) = Request::local(path, "probe", 0);
        let report = instance.handle(request).await;
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
        instance.is_copy()
    }

    fn memory(instance: &mut Instance) -> u64 {
        instance.memory()
    }

    fn cpu_wait(&self) -> Option<Duration> {
        self.app.cpu_wait()
    }

    async fn renew(&self, instance: &mut Instance) -> Result<Option<Rewound>, RewindError> {
        match self.isolation {
            Isolation::Worker => Ok(None),
            Isolation::Request => instance.rewind(self.verify_rewind).await.map(Some),
        }
    }

    async fn handle(instance: &mut Instance, request: Request) -> Report {
        instance.handle(request).await
    }
}

/// What the user reads when the app did not start; its traceback is in the log by then.
pub(crate) fn not_started(label: &str, error: StartError) -> Failure {
    let hint = hint(&error);
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
