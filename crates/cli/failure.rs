//! Why a command failed, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

/// What went wrong, as the user reads it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration or the command line is wrong: exit code 2.
    Usage(String),
    /// The app or its surroundings failed: exit code 1. With a hint, if there is one.
    Failed(anyhow::Error, Option<String>),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Failed(..) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => f.write_str(text),
            // With the causes: `cannot listen on 127.0.0.1:80: permission denied`.
            Failure::Failed(error, None) => write!(f, "wasgi: {error:#}"),
            Failure::Failed(error, Some(hint)) => write!(f, "wasgi: {error:#}\nhint: {hint}"),
        }
    }
}

impl From<wasgi_config::Errors> for Failure {
    fn from(errors: wasgi_config::Errors) -> Self {
        Failure::Usage(errors.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Failed(error, None)
    }
}
