//! The question that everything that is answered here has to pass: may this caller have it from this proxy?
//!
//! There is one, and it is asked for each read and for each watcher, before a copy is looked for, and again before what was found is told.

use super::{Copies, trust::Word};
use crate::{
    auth::Author,
    server::{Identity, RingProxies},
    types::KeyRange,
};
use std::sync::{Arc, OnceLock};
use tonic::{Extensions, metadata::MetadataMap};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This proxy may.
    Here,
    /// Upstream: it alone knows.
    Upstream,
}

/// Who asks: what a call carried, and who that is once it has been found out.
#[derive(Debug, Default)]
pub struct Caller {
    pub(super) identity: Identity,
    /// Whom the token has proven. What proves it may end; what that user may do is looked at each time.
    pub(super) author: OnceLock<Author>,
}

impl Caller {
    /// Somebody with this.
    pub(super) fn of(identity: Identity) -> Caller {
        Caller { identity, author: OnceLock::new() }
    }

    /// Who was found when a call came in ([`receive`](super::trust::Trust::receive)); else whoever its metadata alone say.
    pub(super) fn known_by(extensions: &Extensions, metadata: &MetadataMap) -> Arc<Caller> {
        extensions.get::<Arc<Caller>>().cloned().unwrap_or_else(|| {
            Arc::new(Caller::of(Identity::of(metadata, &Extensions::new(), &RingProxies::default())))
        })
    }
}

impl Copies {
    /// Whether `caller` may be answered here what is in `range`, as far as this proxy can tell. Cheap.
    ///
    /// If it is trusted with users and permissions, it decides by them. Else it can tell as long as upstream asks nobody who they are: then
    /// everybody may do everything. What a token is worth, or a user may, only upstream knows; so who brings one is left to upstream,
    /// and everybody is once upstream has asked.
    pub(super) fn may(&self, caller: &Caller, range: &KeyRange) -> Verdict {
        let ground = &self.shared.ground;
        if ground.fence.is_locked() {
            return Verdict::Upstream;
        }
        match ground.trust.may_read(caller, range) {
            Word::Granted => Verdict::Here,
            Word::Open if caller.identity.token.is_none() => Verdict::Here,
            Word::Open | Word::Withheld => Verdict::Upstream,
        }
    }
}
