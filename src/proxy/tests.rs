//! Proxies before servers in the same process.

mod copies;
mod demand;
mod fence;
mod front;
mod saved;
mod sight;
