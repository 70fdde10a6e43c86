//! How a command fails: a text for people and an exit code for scripts.

use super::system;
use crate::{client, types};
use std::process::ExitCode;

/// A failure, ready to report.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    text: String,
}

/// etcdctl's exit codes, one constructor each.
impl Failure {
    fn new(code: u8, text: impl ToString) -> Failure {
        Failure { code, text: system::of_system(text.to_string()) }
    }

    /// The request failed.
    pub fn error(text: impl ToString) -> Failure {
        Failure::new(1, text)
    }

    /// No usable connection.
    pub fn connection(text: impl ToString) -> Failure {
        Failure::new(2, text)
    }

    /// Input that does not parse (txn, watch).
    pub fn input(text: impl ToString) -> Failure {
        Failure::new(3, text)
    }

    /// A value or feature that is not supported.
    pub fn unsupported(text: impl ToString) -> Failure {
        Failure::new(4, text)
    }

    /// The server ended what was meant to go on.
    pub fn interrupted(text: impl ToString) -> Failure {
        Failure::new(5, text)
    }

    /// Reading or writing failed.
    pub fn io(text: impl ToString) -> Failure {
        Failure::new(6, text)
    }

    /// Bad arguments.
    pub fn args(text: impl ToString) -> Failure {
        Failure::new(128, text)
    }

    /// A command that was run failed; `code` is its own.
    pub fn of_child(code: u8, text: impl ToString) -> Failure {
        Failure::new(code, text)
    }

    /// What is said about it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Prints it as etcdctl does, and gives the code.
    pub fn report(self) -> ExitCode {
        // Without a text everything has been said already.
        if !self.text.is_empty() {
            eprintln!("Error: {}", self.text);
        }
        ExitCode::from(self.code)
    }

    /// The same failure with more said around its text.
    pub fn map(self, say: impl FnOnce(String) -> String) -> Failure {
        Failure { text: say(self.text), ..self }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        match error {
            client::Error::InvalidEndpoint(_) => Failure::args(error),
            client::Error::Unsupported(_) => Failure::unsupported(error),
            client::Error::Unreachable(_) | client::Error::Tls(_) => Failure::connection(error),
            // etcdctl logs in as it connects.
            _ if error.is(&types::Error::AuthFailed) => Failure::connection(error),
            _ => Failure::error(error),
        }
    }
}
