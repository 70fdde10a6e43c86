//! Parts of answers on their way out: what they hold is free when they have left, or nobody wants them any more.

use super::{CallPlace, Ticket};
use bytes::{Buf, Bytes};
use std::sync::Arc;

/// A part of an answer. The connection drops it when it has written it, however long a client takes to read what was before it.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    data: Bytes,
    _place: Option<CallPlace>,
    _share: Option<Share>,
}

/// A part of what a ticket is for.
#[derive(Debug)]
struct Share {
    ticket: Arc<Ticket>,
    bytes: usize,
}

impl Piece {
    /// `data`, which holds a place, and its part of what a ticket is for.
    pub(in crate::server) fn new(data: Bytes, place: Option<CallPlace>, ticket: Option<Arc<Ticket>>) -> Piece {
        let share = ticket.map(|ticket| Share { ticket, bytes: data.len() });
        Piece { data, _place: place, _share: share }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.ticket.is_taken(self.bytes);
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.data.copy_to_bytes(length)
    }
}
