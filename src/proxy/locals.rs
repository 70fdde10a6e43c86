//! Copies, as the Watch service sees them.

use super::{
    Copies, Copy,
    watch::{Local, Locals},
};
use crate::{
    runtime,
    types::{KeyRange, Revision},
};
use std::sync::Arc;

impl Locals for Copies {
    fn local(&self, range: &KeyRange, start: Revision) -> Option<Local> {
        // Who may watch is then upstream's to say.
        if self.fence().is_locked() {
            return None;
        }
        let copy = self.covering(range).filter(|copy| copy.has_history(start))?;
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
        let (copies, copy) = (self.clone(), Arc::clone(copy));
        runtime::spawn(async move {
            // If it does not come so far, whoever waits for it goes on waiting, or finds it ended.
            copies.be_level(&copy).await
        });
    }
}
