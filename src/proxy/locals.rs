//! Copies, as the Watch service sees them.

use super::{
    Copies, Copy,
    permit::Verdict,
    watch::{Local, Locals},
};
use crate::{
    runtime,
    server::Identity,
    types::{KeyRange, Revision},
};
use std::sync::Arc;

impl Locals for Copies {
    fn local(&self, caller: &Identity, range: &KeyRange, start: Revision) -> Option<Local> {
        if self.may(caller) == Verdict::Upstream {
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
