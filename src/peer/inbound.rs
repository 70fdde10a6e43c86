//! The member behind the wire.

use crate::{
    engine::Table,
    membership::Member,
    replica::{Handle, Incoming, PeerMessage, Row},
    types::{ClusterId, Error, Fault, MemberId, SnapshotMeta},
};
use bytes::Bytes;

/// What comes in from peers goes here. A trait, because what the wire does is tested without a member behind it.
pub trait Inbound: Send + Sync + 'static {
    /// Whose member this is.
    fn cluster_id(&self) -> ClusterId;

    /// Which member this is.
    fn member_id(&self) -> MemberId;

    /// All members that this one knows of.
    fn members(&self) -> Vec<Member>;

    /// Whether the cluster is on its way to an older version, as far as this member knows.
    fn is_downgrading(&self) -> bool;

    /// Messages of `from`, in their order. Never waits: what has no room is dropped.
    fn deliver(&self, from: MemberId, messages: Vec<PeerMessage>);

    /// `from` offers the state after `meta`. What came of the same snapshot before stays. Blocks on the disk.
    ///
    /// # Errors
    /// The member does not want it, or not now.
    fn receive_snapshot(&self, from: MemberId, meta: SnapshotMeta) -> Result<Box<dyn Arriving>, Error>;

    /// A peer has said that this member was removed from the cluster for good.
    fn expelled(&self, by: MemberId);
}

/// A snapshot on its way in.
pub trait Arriving: Send {
    /// The last row that is here already: the sender goes on after it.
    fn position(&self) -> Option<(Table, Bytes)>;

    /// Keeps rows. Blocks on the disk.
    ///
    /// # Errors
    /// A broken store.
    fn write(&mut self, rows: Vec<Row>) -> Result<(), Fault>;

    /// Everything came: makes it durable and gives it to the member. Blocks on the disk.
    ///
    /// # Errors
    /// A broken store.
    fn finish(self: Box<Self>) -> Result<(), Fault>;
}

impl Inbound for Handle {
    fn cluster_id(&self) -> ClusterId {
        Handle::cluster_id(self)
    }

    fn member_id(&self) -> MemberId {
        Handle::member_id(self)
    }

    fn members(&self) -> Vec<Member> {
        self.view().members()
    }

    fn is_downgrading(&self) -> bool {
        self.view().downgrade().is_some()
    }

    fn deliver(&self, from: MemberId, messages: Vec<PeerMessage>) {
        Handle::deliver(self, from, messages);
    }

    fn receive_snapshot(&self, from: MemberId, meta: SnapshotMeta) -> Result<Box<dyn Arriving>, Error> {
        Ok(Box::new(Handle::receive_snapshot(self, from, meta)?))
    }

    fn expelled(&self, by: MemberId) {
        Handle::expelled(self, by);
    }
}

impl Arriving for Incoming {
    fn position(&self) -> Option<(Table, Bytes)> {
        Incoming::position(self)
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), Fault> {
        Incoming::write(self, rows)
    }

    fn finish(self: Box<Self>) -> Result<(), Fault> {
        Incoming::finish(*self)
    }
}
