//! An authority for tests: a folder, and certificates in it. Integration tests use this file as well.

#![allow(dead_code)] // each user takes its own part

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// Signs what it is asked to. All files go with it.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that nobody trusts yet.
    pub fn new() -> Authority {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { dir, issuer: Issuer::new(params, key) }
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }

    /// Certificate and key for somebody of this name, at these addresses.
    pub fn sign(&self, name: &str, hosts: &[&str], serial: u64) -> (PathBuf, PathBuf) {
        self.sign_with(name, hosts, serial, |params| params.distinguished_name.push(DnType::CommonName, name))
    }

    /// The same, without the name in the certificate.
    pub fn sign_nameless(&self, file: &str, hosts: &[&str], serial: u64) -> (PathBuf, PathBuf) {
        self.sign_with(file, hosts, serial, |_| {})
    }

    /// The same, and its time is over.
    pub fn sign_expired(&self, name: &str, hosts: &[&str], serial: u64) -> (PathBuf, PathBuf) {
        self.sign_with(name, hosts, serial, |params| {
            params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
        })
    }

    fn sign_with(
        &self,
        file: &str,
        hosts: &[&str],
        serial: u64,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let pair = KeyPair::generate().unwrap();
        let (cert, key) = (self.dir().join(format!("{file}.pem")), self.dir().join(format!("{file}-key.pem")));
        fs::write(&cert, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        (cert, key)
    }

    /// A list of what it has revoked, always the same file.
    pub fn revoke(&self, serials: &[u64]) -> PathBuf {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.dir().join("crl.pem");
        fs::write(&file, params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        file
    }
}
