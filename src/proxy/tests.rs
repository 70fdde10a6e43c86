//! Proxies before servers in the same process.

mod copies;
mod demand;
mod front;
mod saved;
mod sight;
