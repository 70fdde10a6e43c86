//! Certificates that a member makes for itself.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Certificate and key in `dir`: those that are there, else new ones for `hosts`, valid for `years`.
///
/// # Errors
/// A text that names the file that can't be written.
pub fn self_signed(dir: &Path, hosts: &[String], years: u32) -> Result<(PathBuf, PathBuf), String> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    let fail = |error: rcgen::Error| format!("cannot make a certificate for {hosts:?}: {error}");
    let mut params = CertificateParams::new(hosts).map_err(fail)?;
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "henge");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = time::OffsetDateTime::now_utc();
    params.not_after = params.not_before + time::Duration::days(i64::from(years) * 365);
    let pair = KeyPair::generate().map_err(fail)?;
    let made = params.self_signed(&pair).map_err(fail)?;
    let write = |file: &Path, text: &str| {
        write_private(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| format!("{}: {error}", dir.display()))?;
    // The key first: a certificate without one would be taken for whole by nobody.
    write(&key, &pair.serialize_pem())?;
    write(&cert, &made.pem())?;
    tracing::info!(cert = %cert.display(), key = %key.display(), years, "created a self-signed certificate");
    Ok((cert, key))
}

fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    open.write_all(text.as_bytes())?;
    open.sync_all()
}
