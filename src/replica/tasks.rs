//! Where a member's short jobs run, beside its own threads: on the runtime, or in the simulator's hands.

use std::{future::Future, pin::Pin};

/// A job that waits without blocking.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs jobs.
pub trait Tasks: Send + Sync + 'static {
    /// Runs a job that waits for other parts of the member.
    fn spawn(&self, task: Task);

    /// Runs a job that may block on the disk.
    fn block(&self, work: Box<dyn FnOnce() + Send>);
}

/// On a tokio runtime.
pub struct OnRuntime(pub tokio::runtime::Handle);

impl Tasks for OnRuntime {
    fn spawn(&self, task: Task) {
        drop(self.0.spawn(task));
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(work));
    }
}
