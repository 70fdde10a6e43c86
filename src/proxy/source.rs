//! Where upstream is, as far as copies, fences and watchers need to know.

use crate::{client::Endpoints, types::Term};
use tonic::transport::Channel;

/// Several ways to the same cluster, of which one is asked until it fails.
pub trait Source: Send + Sync + 'static {
    /// The turn to ask at now, and the channel to its address.
    fn pick(&self) -> (usize, Channel);

    /// Says that the address of `turn` failed, or is of no use. Later calls go to another.
    fn leave(&self, turn: usize);

    /// How many addresses there are; at least one.
    fn ways(&self) -> usize;

    /// The way to the member that leads, if that is known: it answers a linearizable read without asking anybody for the lead's index.
    fn lead(&self) -> Option<Channel> {
        None
    }

    /// An answer came from `term`: whoever led another one does not lead any more.
    fn heard(&self, _term: Term) {}

    /// The member that [`Source::lead`] names did not answer.
    fn lost_lead(&self) {}
}

impl Source for Endpoints {
    fn pick(&self) -> (usize, Channel) {
        Endpoints::pick(self)
    }

    fn leave(&self, turn: usize) {
        Endpoints::leave(self, turn);
    }

    fn ways(&self) -> usize {
        self.len()
    }
}
