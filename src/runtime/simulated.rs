//! The world in place of the process, for as long as one thread says so.

use hyper_util::rt::TokioIo;
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::JoinHandle,
};
use tonic::codegen::http::Uri;

/// Both ways of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A connection: the system's, or one of the world.
pub type Stream = Pin<Box<dyn Duplex>>;

/// A task of the world.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection to come.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

/// What stands in for the process.
pub trait World: Send + Sync {
    /// Takes a task of the process that runs now.
    fn spawn(&self, task: Task);
    /// 64 bits by chance.
    fn draw(&self) -> u64;
    /// A connection from the place where the process runs.
    fn connect(&self, authority: &str) -> Dialled;
}

thread_local! {
    static WORLD: RefCell<Option<Arc<dyn World>>> = const { RefCell::new(None) };
}

/// The world that this thread is in.
pub(super) fn world() -> Option<Arc<dyn World>> {
    // None as well while the thread ends.
    WORLD.try_with(|world| world.borrow().clone()).ok().flatten()
}

/// Does something in `world`.
pub fn within<T>(world: Arc<dyn World>, act: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            WORLD.set(None);
        }
    }
    WORLD.set(Some(world));
    let _leave = Leave;
    act()
}

/// The world runs the task; tokio has a shell that ends with it, for whoever waits for it or ends it.
pub(super) fn spawn<F>(world: &dyn World, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let (mut done, result) = oneshot::channel();
    let shell = tokio::spawn(async move {
        match result.await {
            Ok(result) => result,
            // Its process is gone, and nobody in it waits any more.
            Err(_) => std::future::pending().await,
        }
    });
    world.spawn(Box::pin(async move {
        let mut task = pin!(task);
        let result = poll_fn(|context| {
            if done.poll_closed(context).is_ready() {
                return Poll::Ready(None);
            }
            task.as_mut().poll(context).map(Some)
        });
        if let Some(result) = result.await {
            // Whoever waited may have gone.
            let _ = done.send(result);
        }
    }));
    shell
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

/// Connections of the world, for channels.
pub(super) fn connector()
-> impl tower::Service<Uri, Response = TokioIo<Stream>, Error = io::Error, Future = Dialling> + Send + 'static {
    tower::service_fn(|uri: Uri| -> Dialling {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let dialled = world().map(|world| world.connect(&authority));
        Box::pin(async move {
            let dialled = dialled.ok_or_else(|| io::Error::other("the world is gone"))?;
            dialled.await.map(TokioIo::new)
        })
    })
}
