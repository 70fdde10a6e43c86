//! How users prove who they are, from the flags and the files that they name.

use crate::{
    config::{Config, TokenKind},
    server::{AuthSettings, Jwt, JwtOptions},
};
use std::{path::PathBuf, sync::Arc};

/// Reads the keys, if tokens are signed.
///
/// # Errors
/// A text that names the file, or says what does not fit.
pub(super) fn settings(config: &Config) -> Result<AuthSettings, String> {
    let jwt = match &config.auth.token {
        TokenKind::Simple => None,
        TokenKind::Jwt { sign_method, public_key, private_key, ttl } => {
            let options = JwtOptions {
                sign_method: sign_method.clone(),
                public_key: public_key.as_ref().map(read).transpose()?,
                private_key: private_key.as_ref().map(read).transpose()?,
                ttl: *ttl,
            };
            Some(Arc::new(Jwt::new(&options).map_err(|why| format!("--auth-token: {why}"))?))
        }
    };
    let names_are_users = config.client_tls.client_cert_auth;
    Ok(AuthSettings { bcrypt_cost: config.auth.bcrypt_cost, jwt, names_are_users })
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("--auth-token: {}: {error}", path.display()))
}
