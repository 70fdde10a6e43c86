//! How users prove who they are: `auth-token` and its neighbours.

use super::reader::Reader;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What a member issues to users who have logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Through the log.
    Simple,
    /// Signed.
    Jwt {
        /// As `RS256`.
        sign_method: String,
        /// A PEM file.
        public_key: Option<PathBuf>,
        /// A PEM file; without it tokens are checked only.
        private_key: Option<PathBuf>,
        /// How long they are good.
        ttl: Duration,
    },
}

/// The flags of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthFlags {
    /// `auth-token`
    pub token: TokenKind,
    /// `auth-token-ttl`, of simple tokens.
    pub token_ttl: Duration,
    /// `bcrypt-cost`
    pub bcrypt_cost: u32,
}

/// etcd's, if nothing is said.
const JWT_TTL: Duration = Duration::from_secs(300);

impl AuthFlags {
    pub(super) fn of(read: &mut Reader<'_>) -> AuthFlags {
        let text = read.text("auth-token");
        let token = token_kind(&text).unwrap_or_else(|why| {
            read.wrong(format!("--auth-token={text}: {why}"));
            TokenKind::Simple
        });
        AuthFlags {
            token,
            token_ttl: Duration::from_secs(read.int_or_default("auth-token-ttl", 0, 1 << 40) as u64),
            bcrypt_cost: read.int("bcrypt-cost", 4, 31) as u32,
        }
    }
}

fn token_kind(text: &str) -> Result<TokenKind, String> {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options = BTreeMap::new();
    for part in parts {
        let (name, value) = part
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| format!("{part:?} is no option; options are name=value"))?;
        if options.insert(name, value).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    match kind {
        "simple" => Ok(TokenKind::Simple),
        "jwt" => jwt(options),
        other => Err(format!("unknown kind of token {other:?}; there are \"simple\" and \"jwt\"")),
    }
}

fn jwt(mut options: BTreeMap<&str, &str>) -> Result<TokenKind, String> {
    let mut text = |name: &str| options.remove(name).filter(|value| !value.is_empty());
    let sign_method = text("sign-method").ok_or("sign-method is missing")?.to_owned();
    let (public_key, private_key) = (text("pub-key").map(PathBuf::from), text("priv-key").map(PathBuf::from));
    let ttl = match text("ttl") {
        Some(ttl) => super::value::duration(ttl).map_err(|_| format!("ttl {ttl:?} is no duration"))?,
        None => JWT_TTL,
    };
    match options.keys().next() {
        Some(name) => Err(format!("unknown option {name:?}; there are sign-method, pub-key, priv-key and ttl")),
        None if public_key.is_none() && private_key.is_none() => Err("pub-key or priv-key is missing".to_owned()),
        None => Ok(TokenKind::Jwt { sign_method, public_key, private_key, ttl }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_tokens_are_spelled_as_in_etcd() {
        assert_eq!(token_kind("simple"), Ok(TokenKind::Simple));
        let jwt = "jwt,pub-key=a.pub,priv-key=a.pem,sign-method=RS256,ttl=10m";
        let expected = TokenKind::Jwt {
            sign_method: "RS256".to_owned(),
            public_key: Some("a.pub".into()),
            private_key: Some("a.pem".into()),
            ttl: Duration::from_secs(600),
        };
        assert_eq!(token_kind(jwt), Ok(expected));
        for (bad, text) in [
            ("", "unknown kind"),
            ("rot13", "unknown kind"),
            ("jwt", "sign-method is missing"),
            ("jwt,sign-method=RS256", "pub-key or priv-key"),
            ("jwt,sign-method=RS256,pub-key=a,ttl=x", "no duration"),
            ("jwt,sign-method=RS256,pub-key=a,pub-key=b", "twice"),
            ("jwt,sign-method=RS256,pub-key=a,colour=blue", "unknown option"),
            ("jwt,sign-method", "no option"),
        ] {
            let why = token_kind(bad).expect_err(bad);
            assert!(why.contains(text), "{bad}: {why}");
        }
    }
}
