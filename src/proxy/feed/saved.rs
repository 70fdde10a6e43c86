//! A feed begins with what is on disk, if there is something.

use super::Feed;
use crate::{
    proxy::{budget::Held, copy::Writer, fence::Refusal},
    runtime,
};
use std::sync::Arc;

impl Feed {
    /// The copy that is on disk: in its place, and of use.
    ///
    /// Upstream is asked first. If it answers, the copy is that of a little while ago, and goes on from there; if it can't be asked, it is what
    /// was known last, and says so to each who allows that.
    pub(super) async fn take_saved(&self, held: &mut Held) -> Option<Writer> {
        let shelf = Arc::clone(self.shelf.as_ref()?);
        let (range, keep, hub) = (self.range.clone(), self.rules.keep, self.rules.hub.clone());
        let writer = runtime::spawn_blocking(move || shelf.load(&range, keep, hub)).await.ok()??;
        if !held.resize(writer.bytes()).await {
            tracing::info!(range = ?self.range, bytes = writer.bytes(), "a saved copy does not fit into the budget");
            return None;
        }
        let copy = writer.copy();
        let revision = writer.revision();
        match self.fence.pass().await {
            Ok(proof) if copy.agrees(revision, &proof) => {
                tracing::info!(range = ?self.range, %revision, upstream = %proof.header.revision, "a saved copy goes on");
                self.place.fill(copy, self.fence.now());
                Some(writer)
            }
            Ok(proof) => {
                self.discard_saved(&copy.disagreement(&proof)).await;
                None
            }
            // The keeper removes what is on disk.
            Err(Refusal::Locked) => None,
            Err(refusal) => {
                tracing::warn!(
                    range = ?self.range, %revision, %refusal,
                    "upstream cannot be asked: what was known last is served to those who allow it"
                );
                self.place.fill_with_old(copy);
                Some(writer)
            }
        }
    }

    /// Removes what is on disk: it is of another history.
    pub(super) async fn discard_saved(&self, why: &str) {
        let Some(shelf) = self.shelf.clone() else { return };
        tracing::warn!(range = ?self.range, why, "the saved copy is discarded");
        let range = self.range.clone();
        // Who fails to remove it says so; a runtime that ends has no use for the outcome.
        let _ = runtime::spawn_blocking(move || shelf.remove(&range)).await;
    }
}
