//! Certificates by which a core trusts its proxies: these answer users from their copies, each what they may read.

#[path = "../../src/tls/tests/authority.rs"]
mod authority;

use crate::processes::flags;
use authority::Authority;
use henge::client::TlsOptions;
use std::path::{Path, PathBuf};

/// Where all processes are.
const LOOPBACK: &[&str] = &["127.0.0.1"];

/// Certificate and key.
type Pair = (PathBuf, PathBuf);

/// The certificates of a ring, in a folder that goes with them.
pub struct Trust {
    authority: Authority,
    member: Pair,
    /// One a proxy, with a name that is no user's.
    proxies: Vec<Pair>,
    /// Of whoever else speaks with the core, without a name: a token says who that is.
    nobody: Pair,
}

impl Trust {
    pub fn new(proxies: usize) -> Trust {
        let authority = Authority::new();
        let member = authority.sign("member", LOOPBACK, 1);
        let nobody = authority.sign_nameless("nobody", LOOPBACK, 2);
        let proxies = (0..proxies).map(|at| authority.sign(&name(at), LOOPBACK, 3 + at as u64)).collect();
        Trust { authority, member, proxies, nobody }
    }

    /// What a member has to be told.
    pub fn member_flags(&self) -> Vec<String> {
        let names = (0..self.proxies.len()).map(name).collect::<Vec<_>>();
        flags(&[
            ("cert-file", text(&self.member.0)),
            ("key-file", text(&self.member.1)),
            ("trusted-ca-file", text(&self.authority.ca())),
            ("client-cert-auth", "true".to_owned()),
            ("ring-proxy-cn", names.join(",")),
        ])
    }

    /// What proxy `at` has to be told.
    pub fn proxy_flags(&self, at: usize) -> Vec<String> {
        let (cert, key) = &self.proxies[at];
        flags(&[
            ("cacert", text(&self.authority.ca())),
            ("cert", text(cert)),
            ("key", text(key)),
            ("ring-identity", "true".to_owned()),
        ])
    }

    /// How others speak with the core.
    pub fn tls(&self) -> TlsOptions {
        TlsOptions {
            identity: Some(self.nobody.clone()),
            trusted_ca_file: Some(self.authority.ca()),
            ..TlsOptions::default()
        }
    }
}

fn name(proxy: usize) -> String {
    format!("bench-proxy-{proxy}")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
