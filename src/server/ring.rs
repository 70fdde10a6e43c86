//! Which proxies there are: what the Ring service asks of a member.

use super::{Backend, Edge, identity::Access};
use crate::{
    pb::henge::ring::{Listed, Source},
    ring::Host,
    types::Revision,
};
use tokio::sync::watch;
use tonic::{Status, metadata::MetadataMap};

impl<B: Backend> Host for Edge<B> {
    fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        Ok(self.enter(metadata, true)?.may(Access::Admin, None)?)
    }

    fn source(&self) -> Source {
        let header = self.backend.header();
        Source {
            cluster_id: header.cluster_id.0,
            id: header.member_id.0,
            is_proxy: false,
            revision: header.revision.0,
            healing: self.healing.now(),
            ..Source::default()
        }
    }

    fn own(&self) -> Option<Listed> {
        None
    }

    fn seek(&self, _goal: Revision) {}

    fn stopping(&self) -> watch::Receiver<bool> {
        self.backend.stopping()
    }
}
