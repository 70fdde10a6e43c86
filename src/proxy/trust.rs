//! What a proxy knows of users and permissions, if whoever is upstream trusts it: so that it can say who may read what of its copies.
//!
//! A proxy is trusted that shows a certificate with a common name which upstream lists (`--ring-proxy-cn`), and says that it does
//! (`--ring-identity`). It is told the users, roles and permissions, by one stream ([`follow`]), and who is meant by a token either by a public
//! key or by asking ([`tokens`]). What they mean is decided by `machine`, as on a member.
//!
//! ```text
//!   no identity           as if there were no users: who carries a token passes through, and everybody once upstream asks who they are
//!   nothing heard         everything passes through: upstream may take the proxy's name for a user's, and answer it more than its clients may know
//!   nobody is asked       as if there were no users
//!   users count, current  each answer is decided here, by the caller; what is not granted passes through, and upstream refuses it
//!   users count, lapsed   everything passes through: a permission may have been taken back
//! ```
//!
//! *Current*: upstream has said that this is still so, to a question that was asked no longer than [`CURRENT_MAX`] ago.

mod follow;
mod tokens;

use super::{Caller, Source, copies::Ground};
use crate::{
    auth::{Author, Table},
    machine,
    pb::henge::ring::{AuthState, TokenCheck, WhoseRequest, WhoseResponse, ring_client::RingClient},
    runtime,
    server::{Identity, Jwt, JwtCheck, RingProxies, auth_facts},
    types::{Error, KeyRange},
};
use http::{HeaderMap, Request};
use parking_lot::RwLock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokens::Tokens;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tonic::{Status, metadata::MetadataMap};

/// Whoever has heard nothing for so long decides nothing: so late at most a permission that was taken back stops answers and watches here.
pub(super) const CURRENT_MAX: Duration = Duration::from_secs(3);
/// Longest wait for upstream to say whose a token is.
const WHOSE_MAX: Duration = Duration::from_secs(2);
/// Tokens that upstream is asked about at once; who comes with others waits.
const ASKING_MAX: usize = 16;
/// Longest wait for a proof, for somebody behind this proxy.
const PROOF_MAX: Duration = Duration::from_secs(2);

/// Who trusts a proxy, and whom it trusts.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// Upstream knows it by the name in its certificate.
    pub has_identity: bool,
    /// Those behind it that it knows so.
    pub proxies: RingProxies,
}

/// See the module. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Trust {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Trusted,
    source: Arc<dyn Source>,
    /// `None` until upstream has told, and while it refuses to.
    known: RwLock<Option<Arc<Known>>>,
    /// Counts changes of `known`, and lapses.
    changed: watch::Sender<u64>,
    /// `known` was still so at this moment, if not later.
    proven: watch::Sender<Option<Instant>>,
    /// Somebody wants a later one.
    wanted: Notify,
    /// Something was decided here lately.
    is_used: AtomicBool,
    tokens: Tokens,
    asking: Semaphore,
}

/// What upstream has told.
struct Known {
    table: Table,
    names_are_users: bool,
    /// What checks tokens; `None`: upstream is asked.
    jwt: Option<Arc<Jwt>>,
    /// As it was told, for those behind this proxy.
    state: AuthState,
}

/// What can be said here to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It depends on no user, as far as this proxy can tell.
    Open,
    /// The caller may.
    Granted,
    /// The caller may not, or is not known, or what was known may be over: upstream has to say.
    Withheld,
}

impl Trust {
    /// Knows nothing yet.
    pub(super) fn new(settings: Trusted, source: Arc<dyn Source>) -> Trust {
        Trust {
            shared: Arc::new(Shared {
                settings,
                source,
                known: RwLock::default(),
                changed: watch::Sender::new(0),
                proven: watch::Sender::new(None),
                wanted: Notify::new(),
                is_used: AtomicBool::new(false),
                tokens: Tokens::default(),
                asking: Semaphore::new(ASKING_MAX),
            }),
        }
    }

    /// Begins to follow what upstream says, for the copies of `ground`, if there is a reason to expect that it says anything.
    pub(super) fn start(&self, ground: &Arc<Ground>) -> Vec<AbortHandle> {
        if !self.shared.settings.has_identity {
            return Vec::new();
        }
        let following = runtime::spawn(follow::follow(self.clone(), Arc::clone(ground)));
        let lapsing = runtime::spawn(follow::lapse(self.clone()));
        vec![following.abort_handle(), lapsing.abort_handle()]
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.shared.known.read().clone()
    }

    /// Whether users count, as far as was last heard, and this proxy knows them.
    pub(super) fn is_guarded(&self) -> bool {
        self.shared.known.read().as_ref().is_some_and(|known| known.table.is_enabled())
    }

    /// Whether it is certain, as far as anybody can tell here, that nothing depends on who asks: not if upstream may know this proxy by its name and
    /// has not said that users do not count.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.settings.has_identity || self.known().is_some_and(|known| !known.table.is_enabled())
    }

    /// Whether upstream trusts this proxy, as far as was last heard; none if nobody said that it does.
    pub(super) fn is_trusted(&self) -> Option<bool> {
        self.shared.settings.has_identity.then(|| self.known().is_some())
    }

    fn is_current(&self) -> bool {
        self.shared.proven.borrow().is_some_and(|proven| proven.elapsed() <= CURRENT_MAX)
    }

    /// Another number after each change, also by mere time: what was granted before has to be asked again.
    pub(super) fn stamp(&self) -> u64 {
        let is_lapsed = self.shared.settings.has_identity && self.is_guarded() && !self.is_current();
        (*self.shared.changed.borrow() << 1) | u64::from(is_lapsed)
    }

    /// A wake-up when [`Trust::stamp`] changes; none if it never does.
    pub(super) fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.shared.settings.has_identity.then(|| self.shared.changed.subscribe())
    }

    /// Whether `caller` may read all of `range`.
    pub(super) fn may_read(&self, caller: &Caller, range: &KeyRange) -> Word {
        self.judge(caller, |table, author| machine::authorize_read(table, author, range))
    }

    /// Whether `caller` may do what only root may.
    pub(super) fn may_admin(&self, caller: &Caller) -> Word {
        self.judge(caller, machine::authorize_admin)
    }

    fn judge(&self, caller: &Caller, may: impl FnOnce(&Table, &Author) -> Result<(), Error>) -> Word {
        if !self.shared.settings.has_identity {
            return Word::Open;
        }
        let Some(known) = self.known() else { return Word::Withheld };
        if !known.table.is_enabled() {
            return Word::Open;
        }
        self.shared.is_used.store(true, Relaxed);
        if !self.is_current() {
            self.shared.wanted.notify_one();
            return Word::Withheld;
        }
        match self.author(&known, caller) {
            Some(author) if may(&known.table, &author).is_ok() => Word::Granted,
            _ => Word::Withheld,
        }
    }

    /// Who that is; `None` if it is not known here.
    fn author(&self, known: &Known, caller: &Caller) -> Option<Author> {
        let Identity { token, common_name, for_copies } = &caller.identity;
        if *for_copies {
            return Some(Author::Proxy);
        }
        let Some(token) = token else {
            let name = common_name.as_ref().filter(|_| known.names_are_users)?;
            return Some(Author::User { name: Arc::clone(name), revision: known.table.revision() });
        };
        // A stream is somebody's to its end: a token that ends meanwhile has said what it had to say.
        if let Some(author) = caller.author.get() {
            return Some(author.clone());
        }
        let (name, revision) = match &known.jwt {
            Some(jwt) => jwt.find(token, SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?),
            None => self.shared.tokens.find(token, Instant::now()),
        }?;
        let author = known.table.is_current(&name, revision).then_some(Author::User { name, revision })?;
        Some(caller.author.get_or_init(|| author).clone())
    }

    /// Finds out who `caller` is, if upstream has to be asked for that. Ends in bounded time, also if it cannot be had.
    pub(super) async fn meet(&self, caller: &Caller) {
        let (Some(token), Some(known)) = (&caller.identity.token, self.known()) else { return };
        let is_known = || self.author(&known, caller).is_some();
        if !known.table.is_enabled() || known.jwt.is_some() || !self.is_current() || is_known() {
            return;
        }
        let asked = timeout(WHOSE_MAX, async {
            let _permit = self.shared.asking.acquire().await.ok()?;
            // Somebody else may have asked meanwhile.
            if is_known() { None } else { self.ask_whose(token.clone()).await.ok() }
        });
        if let Ok(Some(WhoseResponse { user, revision })) = asked.await {
            self.shared.tokens.remember(token, user.into(), revision, Instant::now());
        }
    }

    async fn ask_whose(&self, token: String) -> Result<WhoseResponse, Status> {
        let (_, channel) = self.shared.source.pick();
        Ok(RingClient::new(channel).whose(WhoseRequest { token }).await?.into_inner())
    }

    /// Takes out of a request what it says of other people's certificates, which counts only if it comes from a proxy that is trusted here, and
    /// leaves who its caller is in its extensions.
    pub(super) fn receive<R>(&self, mut request: Request<R>) -> Request<R> {
        let mut metadata = MetadataMap::from_headers(std::mem::take(request.headers_mut()));
        let identity = Identity::taken_from(&mut metadata, request.extensions(), &self.shared.settings.proxies);
        *request.headers_mut() = metadata.into_headers();
        request.extensions_mut().insert(Arc::new(Caller::of(identity)));
        request
    }

    /// Tells upstream who the caller is of a request that is about to be passed on, if it may trust this proxy.
    pub(super) fn convey(&self, caller: &Caller, headers: &mut HeaderMap) {
        if !self.shared.settings.has_identity {
            return;
        }
        let mut metadata = MetadataMap::from_headers(std::mem::take(headers));
        caller.identity.convey(&mut metadata);
        *headers = metadata.into_headers();
    }

    /// Takes in what upstream says. False if it cannot be decided by: then upstream has to.
    fn learn(&self, state: AuthState, ground: &Ground) -> bool {
        let Some(facts) = auth_facts(&state) else { return false };
        let check = state.token_check.clone().and_then(|TokenCheck { sign_method, public_key }| {
            let check = JwtCheck { sign_method, public_key: public_key.to_vec() };
            // As long as the key is the same, what it has checked already holds.
            let present = self.known().and_then(|known| known.jwt.clone());
            let present = present.filter(|jwt| jwt.check() == Some(&check));
            present.or_else(|| Jwt::of_check(check).ok().map(Arc::new))
        });
        let (was_guarded, is_guarded) = (self.is_guarded(), facts.enabled);
        self.shared.source.set_guarded(is_guarded);
        if !is_guarded {
            self.shared.tokens.forget();
        }
        if was_guarded && !is_guarded {
            // They are followed with more rights than their readers may have tomorrow, and upstream would not end that then.
            ground.lock();
        }
        let table = Table::of_facts(facts);
        let known = Known { table, names_are_users: state.names_are_users, jwt: check, state };
        *self.shared.known.write() = Some(Arc::new(known));
        self.note();
        true
    }

    /// Upstream does not trust this proxy, or not any more.
    fn forget(&self) {
        *self.shared.known.write() = None;
        self.shared.tokens.forget();
        self.note();
    }

    /// What is known was still so at `moment`.
    fn prove(&self, moment: Instant) {
        self.shared.proven.send_replace(Some(moment));
    }

    /// Everybody has to ask again.
    fn note(&self) {
        self.shared.changed.send_modify(|count| *count += 1);
    }
}

/// What those behind this proxy may know.
impl Trust {
    /// Whether that may be told to whoever makes a call that carries this.
    ///
    /// # Errors
    /// What the caller is told.
    pub(super) fn admits(&self, metadata: &MetadataMap, extensions: &tonic::Extensions) -> Result<(), Status> {
        let Shared { settings, .. } = &*self.shared;
        match (settings.proxies.hear(metadata, extensions), settings.has_identity && self.known().is_some()) {
            (false, _) => Err(Error::PermissionDenied.into()),
            (true, false) => Err(Status::unavailable("henge proxy: upstream has not trusted it with users and roles")),
            (true, true) => Ok(()),
        }
    }

    /// As it was told here; none while upstream does not tell.
    pub(super) fn state(&self) -> Option<AuthState> {
        self.known().map(|known| known.state.clone())
    }

    /// Counts changes, and wakes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// True once upstream has said, after this call, that all is still so.
    pub(super) async fn is_still_so(&self) -> bool {
        let (asked, mut proven) = (Instant::now(), self.shared.proven.subscribe());
        self.shared.wanted.notify_one();
        let proof = proven.wait_for(|proven| proven.is_some_and(|proven| proven > asked));
        let is_proven = matches!(timeout(PROOF_MAX, proof).await, Ok(Ok(_)));
        is_proven && self.known().is_some()
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// What upstream says.
    pub(super) async fn whose(&self, token: String) -> Result<WhoseResponse, Status> {
        let asked = timeout(WHOSE_MAX, self.ask_whose(token)).await;
        asked.unwrap_or_else(|_| Err(Error::Timeout.into()))
    }
}

#[cfg(test)]
mod tests;
