//! What a task takes from the process around it: other tasks, threads that may block, chance, and connections.
//!
//! **Promises.** In a program these are tokio's and the system's, and cost what they cost there. In the simulator's tests they are the
//! world's, all from one seed: so edges, clients and proxies run there as they are. What is not asked for here (a listener, a thread of
//! one's own) does not happen in the simulated world.
//! **May not know** who asks, or what for.

use std::{io, ops::Range};
#[cfg(feature = "server")]
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint, Error};

/// A connection to somebody, both ways.
#[cfg(not(all(test, feature = "server")))]
pub type Stream = tokio::net::TcpStream;
#[cfg(all(test, feature = "server"))]
pub use simulated::Stream;

/// As [`tokio::spawn`].
#[cfg(feature = "server")]
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    #[cfg(test)]
    if let Some(world) = simulated::world() {
        return simulated::spawn(&*world, task);
    }
    tokio::spawn(task)
}

/// As [`tokio::task::spawn_blocking`].
#[cfg(feature = "server")]
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if let Some(world) = simulated::world() {
        return simulated::spawn(&*world, async move { work() });
    }
    tokio::task::spawn_blocking(work)
}

/// A number in `range`, by chance: so that those who do something at the same time do it again at another.
pub fn chance(range: Range<f64>) -> f64 {
    #[cfg(all(test, feature = "server"))]
    if let Some(world) = simulated::world() {
        return range.start + (range.end - range.start) * (world.draw() >> 11) as f64 / (1_u64 << 53) as f64;
    }
    rand::random_range(range)
}

/// A number of `0..bound`, by chance; `bound` must not be 0.
pub fn below(bound: usize) -> usize {
    #[cfg(all(test, feature = "server"))]
    if let Some(world) = simulated::world() {
        return (world.draw() % bound as u64) as usize;
    }
    rand::random_range(0..bound)
}

/// A connection to `host:port`, without delay for small writes.
///
/// # Errors
/// The system's.
pub async fn connect(authority: &str) -> io::Result<Stream> {
    #[cfg(all(test, feature = "server"))]
    if let Some(dialled) = simulated::world().map(|world| world.connect(authority)) {
        return dialled.await;
    }
    let stream = tokio::net::TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    #[cfg(all(test, feature = "server"))]
    let stream: Stream = Box::pin(stream);
    Ok(stream)
}

/// As [`Endpoint::connect_lazy`].
pub fn channel(endpoint: &Endpoint) -> Channel {
    #[cfg(all(test, feature = "server"))]
    if simulated::world().is_some() {
        return endpoint.clone().executor(Executor).connect_with_connector_lazy(simulated::connector());
    }
    endpoint.connect_lazy()
}

/// As [`Endpoint::connect`].
///
/// # Errors
/// There is no connection.
pub async fn reach(endpoint: &Endpoint) -> Result<Channel, Error> {
    #[cfg(all(test, feature = "server"))]
    if simulated::world().is_some() {
        return endpoint.clone().executor(Executor).connect_with_connector(simulated::connector()).await;
    }
    endpoint.connect().await
}

/// Has connections run where their tasks do.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug)]
pub struct Executor;

#[cfg(feature = "server")]
impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        // Nobody waits for it.
        drop(spawn(task));
    }
}

#[cfg(all(test, feature = "server"))]
pub(crate) mod simulated;
