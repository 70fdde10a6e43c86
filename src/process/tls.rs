//! Certificates for clients: those that are given, or one that is made first.

use crate::{
    client::TlsOptions,
    config::{TlsFlags, UpstreamTls, Url},
    tls::{Identity, ServerSettings, ServerTls, common_name, self_signed},
};
use std::path::Path;

/// What listeners for clients show, and whom they let in; `None` where nothing is served with TLS. A certificate that has to be made
/// is kept in `dir`.
///
/// # Errors
/// A text that names the file.
pub(super) fn for_clients(flags: &TlsFlags, urls: &[&Vec<Url>], dir: &Path) -> Result<Option<ServerTls>, String> {
    let secure = urls.iter().flat_map(|urls| urls.iter()).filter(|url| url.is_secure()).collect::<Vec<_>>();
    if secure.is_empty() {
        return Ok(None);
    }
    let identity = identity(flags, &secure, dir)?;
    let settings = ServerSettings {
        identity,
        client_cert_auth: flags.client_cert_auth,
        trusted_ca_file: flags.trusted_ca_file.clone(),
        crl_file: flags.crl_file.clone(),
        allowed_cn: flags.cert_allowed_cn.clone(),
        allowed_hostname: flags.cert_allowed_hostname.clone(),
        protocol: flags.protocol.clone(),
        alpn: &["h2", "http/1.1"],
    };
    ServerTls::new(settings).map(Some)
}

/// The certificate that the flags name, or one that is made for the hosts of `urls` and kept in `dir`.
///
/// # Errors
/// A text that names the file.
pub(super) fn identity(flags: &TlsFlags, urls: &[&Url], dir: &Path) -> Result<Identity, String> {
    match &flags.identity {
        Some(identity) => Ok(identity.clone()),
        None => {
            let host = |url: &&Url| {
                url.address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']).to_owned()
            };
            let hosts = urls.iter().map(host).filter(|host| !host.is_empty()).collect::<Vec<_>>();
            self_signed(dir, &hosts, flags.validity_years)
        }
    }
}

/// How a proxy speaks with what stands behind it. If DNS named that, certificates are made out to `domain`.
///
/// # Errors
/// A text that names the file: its certificate names somebody, whom all clients of the proxy would then be taken for; or nobody, where the
/// cluster is to trust it by its name.
pub(super) fn for_upstream(flags: &UpstreamTls, domain: Option<&str>) -> Result<TlsOptions, String> {
    if let Some((cert, _)) = &flags.identity {
        match (common_name(cert)?, flags.is_ring_identity) {
            (Some(name), false) => {
                return Err(format!("cert has non empty Common Name ({name}): {}", cert.display()));
            }
            (None, true) => {
                return Err(format!("cert has no Common Name, which --ring-identity needs: {}", cert.display()));
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    Ok(TlsOptions {
        identity: flags.identity.clone(),
        trusted_ca_file: flags.trusted_ca_file.clone(),
        server_name: domain.map(str::to_owned),
        insecure_skip_verify: flags.skip_verify,
        protocol: flags.protocol.clone(),
    })
}
