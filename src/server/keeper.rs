//! Who a caller is: tokens, certificates and passwords, made into an [`Author`].
//!
//! What a user may do is asked of the state ([`View`]). Passwords are compared and hashed on threads that may block, few at once: each
//! takes tens of milliseconds of a processor.

use super::{Identity, Jwt, JwtCheck};
use crate::{
    auth::{self, Author},
    machine::View,
    types::{Error, Index},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

/// Logins and new passwords that may wait for a thread; more are told to come back.
const WAITING_MAX: usize = 1_024;

/// How users prove who they are.
#[derive(Clone, Default)]
pub struct AuthSettings {
    /// `bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// `--auth-token=jwt,…`; else tokens are simple.
    pub jwt: Option<Arc<Jwt>>,
    /// `client-cert-auth`: the common name of a certificate is a user, for calls that carry no token.
    pub names_are_users: bool,
}

/// What a member knows of simple tokens, of time and of chance.
pub trait Means: Send + Sync {
    /// Whose simple token this is, and at which auth revision that was proven.
    fn token(&self, token: &str) -> Option<(Arc<str>, u64)>;
    /// Since 1970.
    fn now(&self) -> Duration;
    /// The next 64 random bits.
    fn chance(&self) -> u64;
    /// [`View::auth_stamp`], and a wake-up when it changes.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// Knows who callers are. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
}

struct Shared {
    view: View,
    means: Box<dyn Means>,
    settings: AuthSettings,
    /// Threads for passwords, and places for those who wait for one.
    threads: Semaphore,
    places: Semaphore,
}

/// What a token is worth to a member that may be behind.
pub(super) enum Found {
    /// Somebody, or nobody.
    Author(Author),
    /// Not known here before this entry is applied.
    After(Index),
}

impl Keeper {
    /// For a member whose state is `view`.
    pub fn new(view: View, means: impl Means + 'static, settings: AuthSettings) -> Keeper {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = Semaphore::new(processors.div_ceil(2));
        let places = Semaphore::new(WAITING_MAX);
        Keeper { shared: Arc::new(Shared { view, means: Box::new(means), settings, threads, places }) }
    }

    /// The state that says who may do what.
    pub fn view(&self) -> &View {
        &self.shared.view
    }

    /// [`View::auth_stamp`], and a wake-up when it changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.means.changed()
    }

    /// Who that is. While auth is off nobody is anybody, whatever they carry.
    ///
    /// # Errors
    /// [`Error::InvalidAuthToken`]
    pub(super) fn find(&self, identity: &Identity) -> Result<Found, Error> {
        let Shared { view, means, settings, .. } = &*self.shared;
        if !view.auth_enabled() {
            return Ok(Found::Author(Author::Nobody));
        }
        // The one place where it is decided what a trusted proxy is for itself: somebody who may read everything, and do nothing.
        if identity.for_copies {
            return Ok(Found::Author(Author::Proxy));
        }
        let Some(token) = &identity.token else {
            let name = identity.common_name.as_ref().filter(|_| settings.names_are_users);
            return Ok(Found::Author(match name {
                Some(name) => Author::User { name: Arc::clone(name), revision: view.auth_revision() },
                None => Author::Nobody,
            }));
        };
        let found = match &settings.jwt {
            Some(jwt) => jwt.find(token, means.now()),
            None => means.token(token),
        };
        match found {
            // Those of users who are gone, or have another password by now, are as good as none.
            Some((name, revision)) if view.is_current(&name, revision) => {
                Ok(Found::Author(Author::User { name, revision }))
            }
            Some(_) => Err(Error::InvalidAuthToken),
            None if settings.jwt.is_some() => Err(Error::InvalidAuthToken),
            None => match auth::index_of(token).filter(|index| *index > view.applied().0) {
                Some(index) => Ok(Found::After(index)),
                None => Err(Error::InvalidAuthToken),
            },
        }
    }

    /// Compares a password: who it is then.
    ///
    /// # Errors
    /// [`Error::AuthNotEnabled`]; [`Error::AuthFailed`], also for users who do not exist or have no password, after as long a time;
    /// [`Error::RequestTooManyRequests`]
    pub(super) async fn check_password(&self, name: &str, password: String) -> Result<Author, Error> {
        if !self.shared.view.auth_enabled() {
            return Err(Error::AuthNotEnabled);
        }
        let (hash, revision) = self.shared.view.password(name);
        let cost = self.shared.settings.bcrypt_cost;
        let is_right = self.blocking(move || auth::matches(password.as_bytes(), hash.as_deref(), cost)).await?;
        match is_right {
            true => Ok(Author::user(name, revision)),
            false => Err(Error::AuthFailed),
        }
    }

    /// How somebody else can tell whose token one is: whether names in certificates are users, and how signed tokens are checked; `None` if
    /// only this keeper can, because tokens are simple, or signed with a secret.
    pub(super) fn proofs(&self) -> (bool, Option<JwtCheck>) {
        let AuthSettings { jwt, names_are_users, .. } = &self.shared.settings;
        (*names_are_users, jwt.as_ref().and_then(|jwt| jwt.check().cloned()))
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is too long, [`Error::RequestTooManyRequests`]
    pub(super) async fn hash(&self, password: String) -> Result<Bytes, Error> {
        let mut salt = [0; 16];
        salt.as_chunks_mut::<8>().0.iter_mut().for_each(|half| *half = self.shared.means.chance().to_le_bytes());
        let cost = self.shared.settings.bcrypt_cost;
        self.blocking(move || auth::hash(password.as_bytes(), cost, salt)).await?
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let _place = self.shared.places.try_acquire().map_err(|_| Error::RequestTooManyRequests)?;
        let _thread = self.shared.threads.acquire().await.map_err(|_| Error::Stopped)?;
        crate::runtime::spawn_blocking(work).await.map_err(|_| Error::Stopped)
    }

    /// A token that this member signs; `None` if tokens are issued through the log.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a key to sign with.
    pub(super) fn sign(&self, author: &Author) -> Option<Result<String, Error>> {
        let jwt = self.shared.settings.jwt.as_ref()?;
        let (name, revision) = author.to_header();
        Some(jwt.sign(name, revision, self.shared.means.now()))
    }

    /// The part of a simple token that nobody can guess.
    pub(super) fn prefix(&self) -> String {
        auth::prefix(|| self.shared.means.chance())
    }
}
