//! Work of a snapshot beside the traffic: on a thread that gives way.

use std::thread;
use tokio::sync::oneshot;
use tonic::Status;

/// How much such a thread gives way, in steps of the system (0 is like everybody, 19 the most).
const NICE: i32 = 15;

/// Runs `work`, which may block. The calls of clients come first: each of its steps is long beside one of them.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let (done, result) = oneshot::channel();
    let run = move || {
        // On Linux it is the thread's own, and cannot be taken back; elsewhere nothing is lost. Hence a thread for each step.
        let _ = rustix::process::nice(NICE);
        let _ = done.send(work());
    };
    let started = thread::Builder::new().name("snapshot".to_owned()).spawn(run);
    started.map_err(|error| Status::unavailable(format!("cannot start a thread: {error}")))?;
    result.await.map_err(|_| Status::internal("a thread of the snapshot panicked"))
}
