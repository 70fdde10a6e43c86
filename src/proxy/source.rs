//! Where upstream is, as far as copies, fences and watchers need to know.

use crate::{client::Endpoints, server::FOR_COPIES, types::Term};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

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

    /// Whether users count there and this proxy, which is trusted with them, has to say of its own calls that they are its own.
    fn is_guarded(&self) -> bool {
        false
    }

    /// From now on [`Source::is_guarded`] says this.
    fn set_guarded(&self, _is_guarded: bool) {}
}

/// A call for copies, which are to have everything: what of it is told to whom is decided when it is told. As long as users do not count it
/// is a call like anybody's, so that whoever is upstream ends what goes on when they begin to.
pub(super) fn own<T>(source: &dyn Source, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if source.is_guarded() {
        request.metadata_mut().insert(FOR_COPIES, MetadataValue::from_static("1"));
    }
    request
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
