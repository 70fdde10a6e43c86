//! Members without a member behind them, and what is between them, over loopback sockets.

mod double;
mod links;
mod plain;
mod snapshots;
mod strangers;
mod tls;
