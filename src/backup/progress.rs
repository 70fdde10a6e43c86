//! How far something long has come, for whoever waits for it.

use std::{fmt, sync::Arc};

/// Called now and then with the bytes that are done and those that there are, about.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Tell>>);

type Tell = dyn Fn(u64, u64) + Send + Sync;

impl Progress {
    /// Has `tell` called, on the thread that does the work.
    pub fn new(tell: impl Fn(u64, u64) + Send + Sync + 'static) -> Progress {
        Progress(Some(Arc::new(tell)))
    }

    pub(super) fn tell(&self, done_bytes: u64, bytes: u64) {
        if let Some(tell) = &self.0 {
            tell(done_bytes, bytes);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress" } else { "nobody waits" })
    }
}
