//! TLS between members: who is believed, and who is not.

use super::double::{Node, Odd, hash, until};
use crate::{
    peer::{Tls, TlsSettings, TlsVersion, self_signed},
    replica::Transport,
    types::MemberId,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const ANY: &str = "https://127.0.0.1:0";

/// An authority, and a folder for what it signs.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { dir, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Certificate and key for a member of this name, at these addresses.
    fn sign(&self, name: &str, hosts: &[&str], serial: u64) -> (PathBuf, PathBuf) {
        let hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let pair = KeyPair::generate().unwrap();
        let (cert, key) =
            (self.dir.path().join(format!("{name}.pem")), self.dir.path().join(format!("{name}-key.pem")));
        fs::write(&cert, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        (cert, key)
    }

    fn revoke(&self, serial: u64) -> PathBuf {
        let now = time::OffsetDateTime::now_utc();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.dir.path().join("crl.pem");
        fs::write(&file, params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        file
    }

    /// What a member of this authority says, that asks others for certificates as well.
    fn mutual(&self, name: &str) -> TlsSettings {
        TlsSettings {
            identity: Some(self.sign(name, &["127.0.0.1", "localhost"], 1)),
            client_cert_auth: true,
            trusted_ca_file: Some(self.ca()),
            ..TlsSettings::default()
        }
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
    assert!(talks(ours.mutual("a"), ours.mutual("b")).await);
    assert!(!talks(theirs.mutual("a"), ours.mutual("b")).await);
    // It trusts the server, and has a certificate that the server does not trust.
    let impostor = TlsSettings { client_identity: Some(theirs.sign("x", &["127.0.0.1"], 1)), ..ours.mutual("a") };
    assert!(!talks(impostor, ours.mutual("b")).await);
}

#[tokio::test]
async fn a_member_without_a_certificate_is_refused_where_one_is_asked_for() {
    let ours = Authority::new();
    let without = || TlsSettings { trusted_ca_file: Some(ours.ca()), ..TlsSettings::default() };
    let server = |name| TlsSettings { identity: Some(ours.sign(name, &["127.0.0.1"], 1)), ..TlsSettings::default() };
    // A node that serves needs a certificate; what it shows when it dials is another matter.
    let dial = |settings: TlsSettings| Tls::new(settings).unwrap();
    for (to, may) in [(server("s"), true), (ours.mutual("m"), false)] {
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
    let (right, wrong) = (|| ours.mutual("right"), || ours.mutual("wrong"));
    let asks_cn = || TlsSettings { allowed_cn: vec!["other".to_owned(), "right".to_owned()], ..ours.mutual("right") };
    assert!(talks(right(), asks_cn()).await);
    assert!(!talks(wrong(), asks_cn()).await);
    assert!(!talks(asks_cn(), wrong()).await, "of the one that is dialled as well");
    let asks_host = |host: &str| TlsSettings { allowed_hostname: vec![host.to_owned()], ..ours.mutual("asks") };
    assert!(talks(right(), asks_host("localhost")).await);
    assert!(!talks(right(), asks_host("example.com")).await);
}

#[tokio::test]
async fn a_certificate_for_another_address_is_refused_unless_that_is_not_to_be_checked() {
    let ours = Authority::new();
    let stray = || TlsSettings { client_identity: Some(ours.sign("stray", &["10.9.8.7"], 1)), ..ours.mutual("a") };
    let named = || TlsSettings { client_identity: Some(ours.sign("named", &["localhost"], 1)), ..ours.mutual("a") };
    assert!(!talks(stray(), ours.mutual("b")).await);
    assert!(talks(named(), ours.mutual("b")).await, "the name leads to the address");
    let lenient = TlsSettings { skip_client_san_verification: true, ..ours.mutual("b") };
    assert!(talks(stray(), lenient).await);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let ours = Authority::new();
    let client =
        |serial| TlsSettings { client_identity: Some(ours.sign("c", &["127.0.0.1"], serial)), ..ours.mutual("a") };
    let asks = || TlsSettings { crl_file: Some(ours.revoke(77)), ..ours.mutual("b") };
    assert!(talks(client(78), asks()).await);
    assert!(!talks(client(77), asks()).await);
}

#[tokio::test]
async fn versions_of_tls_may_be_narrowed() {
    let ours = Authority::new();
    let old = || TlsSettings { versions: (None, Some(TlsVersion::Tls12)), ..ours.mutual("a") };
    let new = || TlsSettings { versions: (Some(TlsVersion::Tls13), None), ..ours.mutual("b") };
    assert!(talks(old(), ours.mutual("c")).await);
    assert!(talks(new(), ours.mutual("c")).await);
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
