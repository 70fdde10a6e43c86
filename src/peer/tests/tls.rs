//! TLS between members: who is believed, and who is not.

use super::double::{Node, Odd, hash, until};
use crate::{
    peer::{Tls, TlsSettings},
    replica::Transport,
    tls::{Protocol, TlsVersion, self_signed, tests::authority::Authority},
    types::MemberId,
};
use std::{fs, path::Path};

const ANY: &str = "https://127.0.0.1:0";

/// What a member of this authority says, that asks others for certificates as well.
fn mutual(ours: &Authority, name: &str) -> TlsSettings {
    TlsSettings {
        identity: Some(ours.sign(name, &["127.0.0.1", "localhost"], 1)),
        client_cert_auth: true,
        trusted_ca_file: Some(ours.ca()),
        ..TlsSettings::default()
    }
}

async fn node(id: u64, settings: TlsSettings) -> Node {
    let tls = Tls::new(settings).expect("usable certificates");
    Node::start_odd(id, ANY, Odd { tls, ..Odd::default() }).await
}

/// Whether `from` can talk to `to`.
async fn talks(from: TlsSettings, to: TlsSettings) -> bool {
    let (from, mut to) = (node(1, from).await, node(2, to).await);
    from.meet(&[to.as_member()]);
    from.send(to.id, [hash(1)]);
    let failed = || from.network.counts()[0].1.failures >= 2;
    let talks = || from.network.connected_for(MemberId(2)).is_some();
    until("an answer", || failed() || talks()).await;
    let talks = talks();
    if talks {
        assert_eq!(to.received().await, (from.id, hash(1)));
    }
    talks
}

#[tokio::test]
async fn members_of_one_authority_talk_and_those_of_another_do_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    assert!(talks(mutual(&ours, "a"), mutual(&ours, "b")).await);
    assert!(!talks(mutual(&theirs, "a"), mutual(&ours, "b")).await);
    // It trusts the server, and has a certificate that the server does not trust.
    let impostor = TlsSettings { client_identity: Some(theirs.sign("x", &["127.0.0.1"], 1)), ..mutual(&ours, "a") };
    assert!(!talks(impostor, mutual(&ours, "b")).await);
}

#[tokio::test]
async fn a_member_without_a_certificate_is_refused_where_one_is_asked_for() {
    let ours = Authority::new();
    let without = || TlsSettings { trusted_ca_file: Some(ours.ca()), ..TlsSettings::default() };
    let server = |name| TlsSettings { identity: Some(ours.sign(name, &["127.0.0.1"], 1)), ..TlsSettings::default() };
    // A node that serves needs a certificate; what it shows when it dials is another matter.
    let dial = |settings: TlsSettings| Tls::new(settings).unwrap();
    for (to, may) in [(server("s"), true), (mutual(&ours, "m"), false)] {
        let mut to = node(2, to).await;
        let from = Node::start_odd(1, "http://127.0.0.1:0", Odd { tls: dial(without()), ..Odd::default() }).await;
        from.meet(&[to.as_member()]);
        from.send(to.id, [hash(1)]);
        let failed = || from.network.counts()[0].1.failures >= 2;
        until("an answer", || failed() || from.network.connected_for(to.id).is_some()).await;
        assert_eq!(from.network.connected_for(to.id).is_some(), may);
        if may {
            to.received().await;
        }
    }
}

#[tokio::test]
async fn a_common_name_or_a_host_name_may_be_asked_for() {
    let ours = Authority::new();
    let (right, wrong) = (|| mutual(&ours, "right"), || mutual(&ours, "wrong"));
    let asks_cn = || TlsSettings { allowed_cn: vec!["other".to_owned(), "right".to_owned()], ..mutual(&ours, "right") };
    assert!(talks(right(), asks_cn()).await);
    assert!(!talks(wrong(), asks_cn()).await);
    assert!(!talks(asks_cn(), wrong()).await, "of the one that is dialled as well");
    let asks_host = |host: &str| TlsSettings { allowed_hostname: vec![host.to_owned()], ..mutual(&ours, "asks") };
    assert!(talks(right(), asks_host("localhost")).await);
    assert!(!talks(right(), asks_host("example.com")).await);
}

#[tokio::test]
async fn a_certificate_for_another_address_is_refused_unless_that_is_not_to_be_checked() {
    let ours = Authority::new();
    let stray = || TlsSettings { client_identity: Some(ours.sign("stray", &["10.9.8.7"], 1)), ..mutual(&ours, "a") };
    let named = || TlsSettings { client_identity: Some(ours.sign("named", &["localhost"], 1)), ..mutual(&ours, "a") };
    assert!(!talks(stray(), mutual(&ours, "b")).await);
    assert!(talks(named(), mutual(&ours, "b")).await, "the name leads to the address");
    let lenient = TlsSettings { skip_client_san_verification: true, ..mutual(&ours, "b") };
    assert!(talks(stray(), lenient).await);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let ours = Authority::new();
    let client =
        |serial| TlsSettings { client_identity: Some(ours.sign("c", &["127.0.0.1"], serial)), ..mutual(&ours, "a") };
    let asks = || TlsSettings { crl_file: Some(ours.revoke(&[77])), ..mutual(&ours, "b") };
    assert!(talks(client(78), asks()).await);
    assert!(!talks(client(77), asks()).await);
}

#[tokio::test]
async fn versions_of_tls_may_be_narrowed() {
    let speaks = |versions| Protocol { versions, ..Protocol::default() };
    let ours = Authority::new();
    let old = || TlsSettings { protocol: speaks((None, Some(TlsVersion::Tls12))), ..mutual(&ours, "a") };
    let new = || TlsSettings { protocol: speaks((Some(TlsVersion::Tls13), None)), ..mutual(&ours, "b") };
    assert!(talks(old(), mutual(&ours, "c")).await);
    assert!(talks(new(), mutual(&ours, "c")).await);
    assert!(!talks(old(), new()).await);
}

#[tokio::test]
async fn certificates_that_members_make_themselves_are_enough() {
    let own = |dir: &Path| {
        let identity = self_signed(dir, &["127.0.0.1".to_owned()], 1).unwrap();
        TlsSettings { identity: Some(identity), is_self_signed: true, ..TlsSettings::default() }
    };
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let again = own(a.path());
    let before = fs::read(a.path().join("cert.pem")).unwrap();
    assert!(talks(again, own(b.path())).await);
    own(a.path());
    assert_eq!(fs::read(a.path().join("cert.pem")).unwrap(), before, "made once");
}

#[test]
fn a_missing_file_is_named_at_once() {
    let settings = TlsSettings { identity: Some(("no-such.pem".into(), "key.pem".into())), ..TlsSettings::default() };
    let error = Tls::new(settings).err().unwrap();
    assert!(error.contains("no-such.pem"), "{error}");
}
