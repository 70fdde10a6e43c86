//! The client edge: etcd's gRPC services over a [`Backend`].
//!
//! **Promises.** A service checks, calls and answers, nothing more; what a client may send is decided in one place (`check`), how
//! an error looks on the wire in another (`status`). Everything is written once over [`Backend`], so a proxy cannot drift from a
//! member. What is under way is bounded, and what is over the bound is refused at once with a code that says "try again".
//! **May not know** how a command is replicated, or what a revision costs.
//!
//! ```text
//!   listen ── serve ─┬─ kv lease watch cluster maintenance auth ring ─┬─ Edge ── Backend (member, proxy)
//!                    ├─ lock election ── contest ─────────────────────┘  admission · trace
//!                    └─ the gateway (plain HTTP)      check · convert · identity · keeper
//! ```

mod admission;
mod auth;
mod authority;
mod backend;
mod calls;
pub(crate) mod check;
mod cluster;
mod contest;
pub(crate) mod convert;
mod downgrade;
mod edge;
mod election;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gauges;
mod guard;
mod header;
mod heal;
mod health;
mod identity;
mod jwt;
mod keeper;
mod kv;
mod lease;
mod listen;
mod lock;
mod made;
mod maintenance;
mod member;
mod rates;
mod read_txn;
mod reconfig;
mod ring;
mod sent;
mod serve;
mod services;
mod snapshot;
mod spans;
mod status;
mod telemetry;
mod trace;
mod upkeep;
mod watch;

pub use admission::{Admission, Bounds, Ticket};
pub use backend::{Backend, Header, LeaseLeft, Listed, Pinned, Status};
pub use check::Limits;
pub use downgrade::Downgrade;
pub use edge::{Edge, Settings, StreamEnd, Version};
pub use gauges::EdgeCounts;
pub use heal::{Healing, HealingNews};
pub use identity::{BY_GATEWAY, CLIENT_NAME, FOR_COPIES, Identity, RingProxies};
pub use jwt::{Jwt, JwtCheck, JwtOptions};
pub use keeper::{AuthSettings, Keeper, Means};
pub use listen::{ListenError, Listener};
pub use member::MemberBackend;
pub use rates::RateSettings;
pub use read_txn::read_txn;
pub use reconfig::Rules;
pub use ring::auth_facts;
pub(crate) use sent::Sent;
pub(crate) use serve::{Answer, Front, KeptPlace, OverTls, is_grpc, serve_front};
pub use serve::{ConnectionSettings, Serving, serve, serve_http};
pub(crate) use services::CallBody;
pub use services::Services;
pub use spans::Spans;
pub use status::code;
pub use telemetry::Telemetry;
pub use trace::Trace;
pub(crate) use watch::{WatchCodec, WatchReply, discard, interval, run, spec};

#[cfg(test)]
pub(crate) use serve::{member_front, serve_connection};
#[cfg(test)]
pub(crate) mod tests;
