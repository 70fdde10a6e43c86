//! Proxies before servers in the same process.

mod copies;
mod front;
mod sight;
