//! Every reason for an operation to end early.

use super::{Error, Fault};

/// Why something that works on the replicated state ends without a result. With it, one `?` carries both.
#[derive(Debug)]
pub enum Stop {
    /// Every member refuses this alike; the client hears it.
    Refused(Error),
    /// This member cannot go on.
    Fault(Fault),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Refused(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

impl Stop {
    /// A refusal is a result; a fault is not.
    ///
    /// # Errors
    /// The fault.
    pub fn apart<T>(result: Result<T, Stop>) -> Result<Result<T, Error>, Fault> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(Stop::Refused(error)) => Ok(Err(error)),
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }
}
