//! The ring: a process on a host that serves the whole API from one upstream core.
//!
//! **Promises.** What is answered here is what upstream would answer.
//! **May not know** how upstream replicates, or what its store is.

mod watch;

pub use watch::{Local, Locals, ProxyWatch, Upstreams, WatchSettings};
