//! Where upstream is, as far as copies, fences and watchers need to know.

use crate::client::Endpoints;
use tonic::transport::Channel;

/// Several ways to the same cluster, of which one is asked until it fails.
pub trait Source: Send + Sync + 'static {
    /// The turn to ask at now, and the channel to its address.
    fn pick(&self) -> (usize, Channel);

    /// Says that the address of `turn` failed, or is of no use. Later calls go to another.
    fn leave(&self, turn: usize);

    /// How many addresses there are; at least one.
    fn ways(&self) -> usize;
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
