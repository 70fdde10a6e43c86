//! Response headers.

use super::Header;
use crate::{pb::etcdserverpb as pb, types::Revision};

impl Header {
    /// The same, of another revision.
    pub fn at(self, revision: Revision) -> Header {
        Header { revision, ..self }
    }

    /// As the services of the cluster send it: members have no revision.
    pub fn without_revision(self) -> Header {
        self.at(Revision(0))
    }

    /// In the form that replies carry it.
    pub fn to_wire(self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.cluster_id.0,
            member_id: self.member_id.0,
            revision: self.revision.0,
            raft_term: self.term.0,
        })
    }
}
