//! What is decided here by what upstream has told.

use super::*;
use crate::{
    client::{ConnectOptions, Endpoints},
    pb::henge::ring::{AuthPermission, AuthRole, AuthUser},
    proxy::fence::Fence,
};
use bytes::Bytes;

/// A trusted proxy that has not heard anything.
fn trust() -> (Trust, Ground) {
    trust_of(Trusted { has_identity: true, ..Trusted::default() })
}

fn trust_of(trusted: Trusted) -> (Trust, Ground) {
    let source: Arc<dyn Source> = Arc::new(Endpoints::new(["127.0.0.1:1"], &ConnectOptions::default()).unwrap());
    let ground = Ground::new(Fence::new(Arc::clone(&source), CURRENT_MAX), 1 << 20, Vec::new(), None, None);
    (Trust::new(trusted, source), ground)
}

/// Alice, who may read what begins with "a" and has been alice since revision 3; and root.
fn users() -> AuthState {
    let permission = AuthPermission { kind: 0, key: "a".into(), range_end: "b".into() };
    let role = |name: &str, permissions| AuthRole { name: name.to_owned(), permissions };
    let user = |name: &str, role: &str| AuthUser { name: name.to_owned(), roles: vec![role.to_owned()], since: 3 };
    AuthState {
        enabled: true,
        revision: 9,
        users: vec![user("alice", "reader"), user("root", "root")],
        roles: vec![role("reader", vec![permission]), role("root", Vec::new())],
        names_are_users: true,
        token_check: None,
    }
}

fn named(name: &str) -> Caller {
    Caller::of(Identity { common_name: Some(name.into()), ..Identity::default() })
}

fn with_token(token: &str) -> Caller {
    Caller::of(Identity { token: Some(token.to_owned()), ..Identity::default() })
}

fn prefix(of: &'static str) -> KeyRange {
    KeyRange::prefix(Bytes::from_static(of.as_bytes()))
}

fn may(trust: &Trust, caller: &Caller) -> [Word; 2] {
    [trust.may_read(caller, &prefix("a")), trust.may_read(caller, &prefix("b"))]
}

use Word::{Granted, Open, Withheld};

#[tokio::test]
async fn without_an_identity_users_are_none_of_its_business() {
    let (trust, ground) = trust_of(Trusted::default());
    assert!(trust.start(&Arc::new(ground)).is_empty());
    assert_eq!(may(&trust, &named("alice")), [Open, Open]);
    assert!(trust.is_open() && !trust.is_guarded() && trust.changed().is_none());
}

#[tokio::test(start_paused = true)]
async fn each_may_read_what_the_core_would_let_them_for_as_long_as_that_is_certain() {
    let (trust, ground) = trust();
    let everybody = [named("alice"), named("root"), named("stranger"), Caller::default(), with_token("t.1")];
    for caller in &everybody {
        assert_eq!(may(&trust, caller), [Withheld, Withheld], "nothing was heard");
    }
    assert!(trust.learn(users(), &ground) && trust.is_guarded());
    assert_eq!(may(&trust, &named("root")), [Withheld, Withheld], "it may be of old");
    trust.prove(Instant::now());
    let certain = trust.stamp();
    let told: Vec<_> = everybody.iter().map(|caller| may(&trust, caller)).collect();
    let nothing = [Withheld, Withheld];
    assert_eq!(told, [[Granted, Withheld], [Granted, Granted], nothing, nothing, nothing]);
    assert_eq!(trust.may_admin(&named("alice")), Withheld);
    assert_eq!(trust.may_admin(&named("root")), Granted);
    tokio::time::advance(CURRENT_MAX).await;
    assert_eq!(may(&trust, &named("alice")), [Granted, Withheld], "just in time");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(may(&trust, &named("root")), [Withheld, Withheld]);
    assert_ne!(trust.stamp(), certain, "whoever was let in before is asked again");
    trust.prove(Instant::now());
    assert_eq!((may(&trust, &named("alice")), trust.stamp()), ([Granted, Withheld], certain));
}

#[tokio::test]
async fn a_proxy_behind_may_read_everything_for_its_copies() {
    let (trust, ground) = trust();
    trust.learn(users(), &ground);
    trust.prove(Instant::now());
    let child = Caller::of(Identity { for_copies: true, ..Identity::default() });
    assert_eq!(may(&trust, &child), [Granted, Granted]);
    assert_eq!(trust.may_admin(&child), Withheld);
}

#[tokio::test]
async fn a_token_is_worth_what_its_user_is_now() {
    let (trust, ground) = trust();
    trust.learn(users(), &ground);
    trust.prove(Instant::now());
    let now = Instant::now();
    for (token, user, revision) in [("good", "alice", 3), ("old", "alice", 2), ("gone", "bob", 9)] {
        trust.shared.tokens.remember(token, user.into(), revision, now);
    }
    let stream = with_token("good");
    assert_eq!(may(&trust, &stream), [Granted, Withheld]);
    for other in ["old", "gone", "unknown"] {
        assert_eq!(may(&trust, &with_token(other)), [Withheld, Withheld], "{other}");
    }
    // The role is taken from alice: also from whoever has proven to be her before.
    let mut state = users();
    state.users[0].roles.clear();
    trust.learn(state, &ground);
    assert_eq!(may(&trust, &stream), [Withheld, Withheld]);
    trust.learn(users(), &ground);
    assert_eq!(may(&trust, &stream), [Granted, Withheld]);
    // She gets another password.
    let mut state = users();
    (state.revision, state.users[0].since) = (10, 10);
    trust.learn(state, &ground);
    assert_eq!(may(&trust, &stream), [Withheld, Withheld]);
    // She is deleted.
    let mut state = users();
    state.users.remove(0);
    trust.learn(state, &ground);
    assert_eq!(may(&trust, &stream), [Withheld, Withheld]);
}

#[tokio::test]
async fn names_are_users_only_where_the_core_says_so() {
    let (trust, ground) = trust();
    trust.learn(AuthState { names_are_users: false, ..users() }, &ground);
    trust.prove(Instant::now());
    assert_eq!(may(&trust, &named("root")), [Withheld, Withheld]);
}

#[tokio::test]
async fn what_it_does_not_understand_and_who_does_not_trust_it_leave_it_without_a_word() {
    let (trust, ground) = trust();
    trust.learn(users(), &ground);
    trust.prove(Instant::now());
    let mut strange = users();
    strange.roles[0].permissions[0].kind = 9;
    assert!(!trust.learn(strange, &ground));
    let before = trust.stamp();
    trust.forget();
    assert_ne!(trust.stamp(), before);
    assert_eq!(may(&trust, &named("root")), [Withheld, Withheld]);
    assert!(!trust.is_open() && trust.state().is_none(), "whoever is behind is not told that nobody is asked");
}

#[tokio::test]
async fn once_users_do_not_count_everybody_is_as_before_and_tokens_are_forgotten() {
    let (trust, ground) = trust();
    trust.learn(users(), &ground);
    trust.shared.tokens.remember("t", "alice".into(), 9, Instant::now());
    trust.learn(AuthState { revision: 10, ..AuthState::default() }, &ground);
    assert_eq!(may(&trust, &named("stranger")), [Open, Open]);
    assert!(trust.is_open());
    assert_eq!(trust.shared.tokens.find("t", Instant::now()), None);
}

#[tokio::test]
async fn a_forged_word_of_a_client_is_taken_out_and_nothing_is_added_without_an_identity() {
    let (trust, _) = trust();
    let mut forged = MetadataMap::new();
    Identity { common_name: Some("root".into()), for_copies: true, token: None }.convey(&mut forged);
    let mut request = Request::new(());
    *request.headers_mut() = forged.into_headers();
    let mut request = trust.receive(request);
    let caller = request.extensions_mut().remove::<Arc<Caller>>().expect("somebody");
    assert_eq!(caller.identity, Identity::default());
    trust.convey(&caller, request.headers_mut());
    let names: Vec<_> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(names, [crate::server::BY_GATEWAY]);
    let (untrusted, _) = trust_of(Trusted::default());
    let mut headers = HeaderMap::new();
    untrusted.convey(&named("alice"), &mut headers);
    assert!(headers.is_empty());
}
