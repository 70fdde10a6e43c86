//! The client edge: etcd's gRPC services over a [`Backend`].
//!
//! **Promises.** A service checks, calls and answers, nothing more; what a client may send is decided in one place (`check`), how
//! an error looks on the wire in another (`status`). Everything is written once over [`Backend`], so a proxy cannot drift from a member.
//! **May not know** how a command is replicated, or what a revision costs.

mod backend;
mod status;

pub use backend::{Backend, Header, LeaseLeft, Member, Pinned, Status};
pub use status::code;
