//! What the tests share: exact comparison as a value, bounded waiting, the server.

use std::{
    env,
    fmt::Debug,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// How a test ended: the error is the line that is shown.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn variable(key: &str) -> String {
    env::var(key).unwrap_or_else(|_| panic!("{key} is not set; run tests/interop.sh"))
}

/// The server's address, `host:port`.
pub fn endpoint() -> String {
    variable("INTEROP_ENDPOINT")
}

/// This client's name in the report.
pub fn name() -> String {
    variable("INTEROP_CLIENT")
}

/// `start`, `stop` or `restart`; returns once it is done.
pub async fn server(command: &str) -> Outcome {
    let status = Command::new(variable("INTEROP_SERVER")).arg(command).status().await?;
    if status.success() { Ok(()) } else { Err(format!("server {command}: {status}").into()) }
}

/// Refuses unless both are equal.
pub fn same<T: PartialEq + Debug>(what: &str, actual: T, expected: T) -> Outcome {
    if actual == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {actual:?}").into()) }
}

/// Refuses unless `result` is an error that says `part`.
pub fn refused<T: Debug, E: ToString>(part: &str, result: Result<T, E>) -> Outcome<E> {
    match result {
        Ok(value) => Err(format!("succeeded with {value:?}, but should fail with {part:?}").into()),
        Err(error) if error.to_string().contains(part) => Ok(error),
        Err(error) => Err(format!("expected an error with {part:?}, got {:?}", error.to_string()).into()),
    }
}

/// Polls until `holds` says so, for up to `seconds`.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, seconds: u64, mut holds: F) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        if Instant::now() > deadline {
            return Err(format!("not within {seconds} s: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
