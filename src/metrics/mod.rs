//! Numbers about this process: how they are kept, and how Prometheus reads them.
//!
//! **Promises.** Whoever counts pays for one relaxed atomic, and never waits. Whatever can be read when somebody asks is read then, and
//! costs nothing between. The text is what etcd's servers give (Prometheus' text format 0.0.4), with etcd's spelling of numbers.
//! **May not know** what is counted: each room that has numbers is a [`Source`], and names them itself.
//!
//! ```text
//!   hot paths ──▶ atomics, histograms ─┐
//!   what is known anyway ──────────────┴─ Source (a member, an edge, the peers, the process) ──▶ Registry ──▶ /metrics
//! ```

mod histogram;
mod process;
mod text;

pub use histogram::{Histogram, Observations, doubling};
pub use process::Process;
pub use text::{CONTENT_TYPE, Family, Kind, Number, Text};

use parking_lot::Mutex;
use std::sync::Arc;

/// Something that has numbers. Asked with each scrape, on a thread where it may block for a moment.
pub trait Source: Send + Sync {
    /// Adds what it has. A name belongs to one source.
    fn write(&self, text: &mut Text);
}

/// All sources of a process. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Registry {
    sources: Arc<Mutex<Vec<Arc<dyn Source>>>>,
}

impl Registry {
    /// Has `source` asked from now on.
    pub fn add(&self, source: impl Source + 'static) {
        self.sources.lock().push(Arc::new(source));
    }

    /// What all sources have now, sorted by name.
    pub fn text(&self) -> String {
        // Not under the lock: a source may take its time.
        let sources = self.sources.lock().clone();
        let mut text = Text::default();
        for source in sources {
            source.write(&mut text);
        }
        text.finish()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} sources)", self.sources.lock().len())
    }
}
