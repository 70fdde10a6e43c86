//! What a call carries to prove who asks.

use std::sync::Arc;
use tonic::{
    Extensions,
    metadata::{KeyAndValueRef, MetadataMap},
};

/// Who asks: what the call carried to prove it. Which user that is `keeper` finds out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// From the metadata key `token`, or else `authorization`.
    pub token: Option<String>,
    /// From the client's certificate, where the listener asks for one.
    pub common_name: Option<Arc<str>>,
}

/// The common name of the certificate that a connection was opened with; in the extensions of its requests.
#[derive(Clone, Debug)]
pub(super) struct CommonName(pub(super) Arc<str>);

impl Identity {
    /// Reads what a call carries.
    pub fn of(metadata: &MetadataMap, extensions: &Extensions) -> Identity {
        // One walk over the few entries is cheaper than a lookup for each name.
        let (mut token, mut authorization, mut by_gateway) = (None, None, false);
        for entry in metadata.iter() {
            if let KeyAndValueRef::Ascii(key, value) = entry {
                match key.as_str() {
                    "token" => token = value.to_str().ok(),
                    "authorization" => authorization = value.to_str().ok(),
                    // The certificate is the gateway's, and not that of who asks.
                    "grpcgateway-accept" => by_gateway = true,
                    _ => {}
                }
            }
        }
        let common_name = extensions.get::<CommonName>().filter(|_| !by_gateway).map(|name| Arc::clone(&name.0));
        Identity { token: token.or(authorization).map(str::to_owned), common_name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_before_the_authorization() {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", "second".parse().unwrap());
        assert_eq!(Identity::of(&metadata, &Extensions::new()).token.as_deref(), Some("second"));
        metadata.insert("token", "first".parse().unwrap());
        assert_eq!(Identity::of(&metadata, &Extensions::new()).token.as_deref(), Some("first"));
    }

    #[test]
    fn a_gateway_shows_a_certificate_of_its_own() {
        let (mut metadata, mut extensions) = (MetadataMap::new(), Extensions::new());
        extensions.insert(CommonName("alice".into()));
        assert_eq!(Identity::of(&metadata, &extensions).common_name.as_deref(), Some("alice"));
        metadata.insert("grpcgateway-accept", "application/json".parse().unwrap());
        assert_eq!(Identity::of(&metadata, &extensions).common_name, None);
    }
}
