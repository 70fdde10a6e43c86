//! Copies, as the Watch service sees them.

use super::{
    Caller, Copies, Copy,
    permit::Verdict,
    watch::{Local, Locals},
};
use crate::{
    runtime,
    types::{KeyRange, Revision},
};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

impl Locals for Copies {
    fn local(&self, caller: &Caller, range: &KeyRange, start: Revision) -> Option<Local> {
        if !self.allows(caller, range) {
            return None;
        }
        let copy = match self.shared.ground.find(range) {
            Some(found) => found.copy.filter(|copy| copy.has_history(start))?,
            None => {
                self.shared.ground.note_watch(range);
                return None;
            }
        };
        let (hub, ended) = (copy.hub().clone(), copy.ended());
        let (asked, copies) = (Arc::clone(&copy), self.clone());
        let header = Arc::new(move || copy.header());
        let refresh = Arc::new(move || copies.ask(&asked));
        Some(Local { hub, header, refresh, ended })
    }

    fn allows(&self, caller: &Caller, range: &KeyRange) -> bool {
        self.may(caller, range) == Verdict::Here
    }

    fn stamp(&self) -> u64 {
        self.trust().stamp()
    }

    fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.trust().changed()
    }

    async fn meet(&self, caller: &Caller) {
        self.trust().meet(caller).await;
    }

    fn convey(&self, caller: &Caller, metadata: MetadataMap) -> MetadataMap {
        let mut headers = metadata.into_headers();
        self.trust().convey(caller, &mut headers);
        MetadataMap::from_headers(headers)
    }
}

impl Copies {
    /// Has `copy` come as far as upstream is now. Does not wait.
    fn ask(&self, copy: &Arc<Copy>) {
        if copy.is_over() {
            return;
        }
        let (copies, copy) = (self.clone(), Arc::clone(copy));
        runtime::spawn(async move {
            // If it does not come so far, whoever waits for it goes on waiting, or finds it ended.
            copies.be_level(&copy).await
        });
    }
}
