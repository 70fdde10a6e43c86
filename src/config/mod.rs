//! Flags, environment and file, in one typed struct.
//!
//! **Promises.** Every etcd flag is known: it works, is accepted because it has no meaning here, or is refused with the reason.
//! All complaints about a command line are reported at once. **May not know** what the settings do.
//!
//! `flags` is the one table from which parser, environment, file and help are derived; `parse` puts together what `words` of the
//! command line and a `file` have `said`; `check` turns texts, which a `reader` reads, into the typed [`Config`]; `bootstrap` reads who founds the cluster; `proxy` has the tables of the programs that are no member
//! (`standby`: of the member that one of them may start);
//! `pages` makes completion scripts and manual pages of them; `log` sets up the log lines that supervisors of etcd read.

mod auth;
mod bootstrap;
mod check;
mod file;
mod flags;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod http;
mod limits;
mod log;
mod pages;
mod parse;
mod proxy;
mod reader;
mod said;
mod standby;
mod tls;
mod tracing;
mod value;
mod words;

pub use auth::{AuthFlags, TokenKind};
pub use bootstrap::{ClusterState, DiscoverySrv, initial_cluster, lead_alike};
pub use check::{Compaction, Config, LogFormat, LogSettings, StorageEngine};
pub use flags::{FLAGS, Flag, Kind, Standing};
pub use http::HttpFlags;
pub use limits::LimitFlags;
pub use log::init as init_log;
pub use parse::{Invocation, failing_code_of_own, parse, parse_own};
pub use proxy::{GatewayConfig, ProxyConfig, UpstreamTls};
pub use standby::StandbyFlags;
pub use tls::TlsFlags;
pub use tracing::TracingFlags;
pub use value::{Url, url as parse_url};

/// The etcd version whose API and behaviour this build claims.
pub const ETCD_VERSION: &str = "3.7.1";

/// The version that is told to clients: [`ETCD_VERSION`], or what `ETCD_HENGE_CLAIM_VERSION` says for clients that insist on
/// another one.
pub fn claimed_version() -> String {
    std::env::var("ETCD_HENGE_CLAIM_VERSION").unwrap_or_else(|_| ETCD_VERSION.to_owned())
}

/// What `--version` prints: etcd's four lines first, because scripts read them, then henge's own.
pub fn version_text() -> String {
    format!(
        "etcd Version: {}\nGit SHA: {}\nGo Version: none (henge is written in Rust)\nGo OS/Arch: {}/{}\nhenge Version: {}\n",
        claimed_version(),
        option_env!("HENGE_GIT_SHA").unwrap_or("unknown"),
        std::env::consts::OS,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        env!("CARGO_PKG_VERSION"),
    )
}
