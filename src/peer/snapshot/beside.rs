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
        // The thread's own on Linux, where it cannot be taken back: hence a thread for each step. Elsewhere it is the whole process's.
        if cfg!(target_os = "linux") {
            let _ = rustix::process::nice(NICE); // as good as it gets
        }
        let _ = done.send(work());
    };
    let started = thread::Builder::new().name("snapshot".to_owned()).spawn(run);
    started.map_err(|error| Status::unavailable(format!("cannot start a thread: {error}")))?;
    result.await.map_err(|_| Status::internal("a thread of the snapshot panicked"))
}
