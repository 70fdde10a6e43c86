//! Which proxies there are: what the Ring service asks of a member.

use super::{Backend, Edge, keeper::Found};
use crate::{
    pb::henge::ring::{Listed, Source},
    ring::Host,
    types::{Error, Revision},
};
use tokio::sync::watch;
use tonic::{Extensions, Status, metadata::MetadataMap};

impl<B: Backend> Host for Edge<B> {
    fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let identity = self.open(metadata, &Extensions::new(), true)?;
        match self.backend.keeper().find(&identity)? {
            Found::Author(author) => Ok(self.view().authorize_admin(&author)?),
            Found::After(_) => Err(Error::InvalidAuthToken.into()),
        }
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
