//! The question that everything that is answered here has to pass: may this caller have it from this proxy?
//!
//! There is one, and it is asked for each read and for each watcher, before a copy is looked for.

use super::Copies;
use crate::server::Identity;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This proxy may.
    Here,
    /// Upstream: it alone knows.
    Upstream,
}

impl Copies {
    /// Whether `caller` may be answered here, as far as this proxy can tell.
    ///
    /// It can as long as upstream asks nobody who they are: then everybody may do everything. What a token is worth, or a user may, only
    /// upstream knows; so who brings one is left to upstream, and everybody is once upstream has asked.
    pub(super) fn may(&self, caller: &Identity) -> Verdict {
        let is_anybody = caller.token.is_none() && caller.common_name.is_none();
        match is_anybody && !self.fence().is_locked() {
            true => Verdict::Here,
            false => Verdict::Upstream,
        }
    }
}
