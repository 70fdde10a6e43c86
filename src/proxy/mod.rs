//! The ring: a process on a host that serves the whole API from one upstream core.

mod watch;

pub use watch::{Local, Locals, ProxyWatch, Upstreams, WatchSettings};
