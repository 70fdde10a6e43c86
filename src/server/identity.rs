//! Who asks, and whether they may.

use crate::types::{Error, KeyRange};
use tonic::metadata::{KeyAndValueRef, MetadataMap};

/// Who asks: what the call carried to prove it. Resolving a token to a user is the business of `auth`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// From the metadata key `token`, or else `authorization`.
    pub token: Option<String>,
    /// From the client's certificate, where the listener asks for one.
    pub common_name: Option<String>,
}

/// What somebody wants to do with keys, or with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// See values.
    Read,
    /// Change values.
    Write,
    /// What only root may.
    Admin,
}

impl Identity {
    /// Reads what a call carries.
    pub fn of(metadata: &MetadataMap) -> Identity {
        // One walk over the few entries is cheaper than a lookup for each name.
        let (mut token, mut authorization) = (None, None);
        for entry in metadata.iter() {
            if let KeyAndValueRef::Ascii(key, value) = entry {
                match key.as_str() {
                    "token" => token = value.to_str().ok(),
                    "authorization" => authorization = value.to_str().ok(),
                    _ => {}
                }
            }
        }
        Identity { token: token.or(authorization).map(str::to_owned), common_name: None }
    }

    /// Whether this caller may do that with the keys of `range` (`None`: with the cluster).
    ///
    /// Auth can't be enabled in this version, and while it is off everybody may do everything, whatever token they carry.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`], [`Error::InvalidAuthToken`], [`Error::UserEmpty`]: none while auth is off.
    pub fn may(&self, _access: Access, _range: Option<&KeyRange>) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_before_the_authorization() {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", "second".parse().unwrap());
        assert_eq!(Identity::of(&metadata).token.as_deref(), Some("second"));
        metadata.insert("token", "first".parse().unwrap());
        assert_eq!(Identity::of(&metadata).token.as_deref(), Some("first"));
    }
}
