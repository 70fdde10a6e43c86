//! Work of a snapshot beside the traffic: on a thread that gives way.

use crate::io::real::give_way;
use std::thread;
use tokio::sync::oneshot;
use tonic::Status;

/// Runs `work`, which may block. The calls of clients come first: each of its steps is long beside one of them.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let (done, result) = oneshot::channel();
    let run = move || {
        give_way();
        let _ = done.send(work());
    };
    let started = thread::Builder::new().name("snapshot".to_owned()).spawn(run);
    started.map_err(|error| Status::unavailable(format!("cannot start a thread: {error}")))?;
    result.await.map_err(|_| Status::internal("a thread of the snapshot panicked"))
}
