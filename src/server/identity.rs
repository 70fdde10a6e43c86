//! What a call carries to prove who asks.

use std::{collections::BTreeSet, sync::Arc};
use tonic::{
    Extensions,
    metadata::{KeyAndValueRef, MetadataMap, MetadataValue},
};

/// Metadata by which a trusted proxy says which name the certificate of its client has. From anybody else it says nothing.
pub const CLIENT_NAME: &str = "henge-client-name-bin";
/// Metadata by which a trusted proxy says that a call is its own, for its copies. From anybody else it says nothing.
pub const FOR_COPIES: &str = "henge-for-copies";
/// Metadata of calls that a gateway makes: the certificate is then the gateway's, and who shows it is not who asks. etcd knows it, too.
pub const BY_GATEWAY: &str = "grpcgateway-accept";

/// Who may speak for others: the common names of proxies (`--ring-proxy-cn`) that are believed what they say of their clients, may know
/// the users and roles, and may read everything for their copies. Nobody, unless somebody was named. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RingProxies(Arc<BTreeSet<String>>);

impl RingProxies {
    /// These.
    pub fn new(names: impl IntoIterator<Item = String>) -> RingProxies {
        RingProxies(Arc::new(names.into_iter().collect()))
    }

    /// Whether the connection of a call with these extensions is one of them: its certificate was checked, and has such a name.
    pub fn know(&self, extensions: &Extensions) -> bool {
        extensions.get::<CommonName>().is_some_and(|name| self.0.contains(&*name.0))
    }

    /// Whether one of them makes a call of its own, and does not pass it on: what it passes on says so ([`Identity::convey`]).
    pub fn hear(&self, metadata: &MetadataMap, extensions: &Extensions) -> bool {
        self.know(extensions) && !metadata.contains_key(BY_GATEWAY)
    }
}

/// Who asks: what the call carried to prove it. Which user that is `keeper` finds out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// From the metadata key `token`, or else `authorization`.
    pub token: Option<String>,
    /// From the client's certificate, where the listener asks for one, or where a proxy did that is trusted.
    pub common_name: Option<Arc<str>>,
    /// A trusted proxy asks, for its copies.
    pub for_copies: bool,
}

/// The common name of the certificate that a connection was opened with; in the extensions of its requests.
#[derive(Clone, Debug)]
pub(super) struct CommonName(pub(super) Arc<str>);

impl Identity {
    /// Reads what a call carries. What it says of somebody else's certificate counts only if it comes from one of `proxies`, whose own names
    /// are no users.
    pub fn of(metadata: &MetadataMap, extensions: &Extensions, proxies: &RingProxies) -> Identity {
        // One walk over the few entries is cheaper than a lookup for each name.
        let (mut token, mut authorization, mut by_gateway, mut for_copies) = (None, None, false, false);
        let mut client_name = None;
        for entry in metadata.iter() {
            match entry {
                KeyAndValueRef::Ascii(key, value) => match key.as_str() {
                    // Of several the first counts, as in etcd.
                    "token" => token = token.or(value.to_str().ok()),
                    "authorization" => authorization = authorization.or(value.to_str().ok()),
                    BY_GATEWAY => by_gateway = true,
                    FOR_COPIES => for_copies = true,
                    _ => {}
                },
                KeyAndValueRef::Binary(key, value) if key.as_str() == CLIENT_NAME => client_name = Some(value),
                KeyAndValueRef::Binary(..) => {}
            }
        }
        // As libraries of HTTP write a token; the scheme is not part of it, whichever of the two it stands in.
        let token = token.or(authorization).map(|token| token.strip_prefix("Bearer ").unwrap_or(token).to_owned());
        if proxies.know(extensions) {
            let name = client_name.and_then(|name| String::from_utf8(name.to_bytes().ok()?.to_vec()).ok());
            return Identity { token, common_name: name.map(Arc::from), for_copies };
        }
        let common_name = extensions.get::<CommonName>().filter(|_| !by_gateway).map(|name| Arc::clone(&name.0));
        Identity { token, common_name, for_copies: false }
    }

    /// The same for a proxy, which passes the call on: what the call says of somebody else's certificate is taken out of it.
    pub fn taken_from(metadata: &mut MetadataMap, extensions: &Extensions, proxies: &RingProxies) -> Identity {
        let identity = Identity::of(metadata, extensions, proxies);
        metadata.remove_bin(CLIENT_NAME);
        metadata.remove(FOR_COPIES);
        identity
    }

    /// Says to upstream, in the name of a proxy that it may trust, what this is but for the token, which travels as it came. Who does not
    /// trust the proxy is told not to take its name for the caller's.
    pub fn convey(&self, metadata: &mut MetadataMap) {
        if !metadata.contains_key(BY_GATEWAY) {
            metadata.insert(BY_GATEWAY, MetadataValue::from_static("henge-proxy"));
        }
        if let Some(name) = &self.common_name {
            metadata.insert_bin(CLIENT_NAME, MetadataValue::from_bytes(name.as_bytes()));
        }
        if self.for_copies {
            metadata.insert(FOR_COPIES, MetadataValue::from_static("1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_before_the_authorization() {
        let mut metadata = MetadataMap::new();
        let of = |metadata: &MetadataMap| Identity::of(metadata, &Extensions::new(), &RingProxies::default());
        metadata.insert("authorization", "second".parse().unwrap());
        assert_eq!(of(&metadata).token.as_deref(), Some("second"));
        metadata.insert("token", "first".parse().unwrap());
        assert_eq!(of(&metadata).token.as_deref(), Some("first"));
        metadata.append("token", "another".parse().unwrap());
        assert_eq!(of(&metadata).token.as_deref(), Some("first"));
    }

    #[test]
    fn the_scheme_is_not_part_of_a_token() {
        for key in ["authorization", "token"] {
            for (said, token) in [("Bearer abc.1", "abc.1"), ("abc.1", "abc.1"), ("bearer abc.1", "bearer abc.1")] {
                let mut metadata = MetadataMap::new();
                metadata.insert(key, said.parse().unwrap());
                let identity = Identity::of(&metadata, &Extensions::new(), &RingProxies::default());
                assert_eq!(identity.token.as_deref(), Some(token), "{key}: {said}");
            }
        }
    }

    #[test]
    fn a_gateway_shows_a_certificate_of_its_own() {
        let (mut metadata, mut extensions) = (MetadataMap::new(), Extensions::new());
        extensions.insert(CommonName("alice".into()));
        let nobody = RingProxies::default();
        assert_eq!(Identity::of(&metadata, &extensions, &nobody).common_name.as_deref(), Some("alice"));
        metadata.insert("grpcgateway-accept", "application/json".parse().unwrap());
        assert_eq!(Identity::of(&metadata, &extensions, &nobody).common_name, None);
    }

    fn shown(name: &str) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(CommonName(name.into()));
        extensions
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others_and_never_for_itself() {
        let proxies = RingProxies::new(["proxy".to_owned()]);
        let said = Identity { common_name: Some("älice".into()), for_copies: true, token: None };
        let mut metadata = MetadataMap::new();
        said.convey(&mut metadata);
        assert_eq!(Identity::of(&metadata, &shown("proxy"), &proxies), said);
        assert!(!proxies.hear(&metadata, &shown("proxy")), "it is not a call of its own");
        assert!(proxies.hear(&MetadataMap::new(), &shown("proxy")));
        assert!(!proxies.hear(&MetadataMap::new(), &shown("mallory")));
        // Its own name is no user's.
        assert_eq!(Identity::of(&MetadataMap::new(), &shown("proxy"), &proxies), Identity::default());
        for extensions in [Extensions::new(), shown("mallory")] {
            let found = Identity::of(&metadata, &extensions, &proxies);
            assert_eq!(found, Identity::default(), "what it says counts for nothing");
        }
        // Somebody who trusts nobody does not take a proxy's name for that of its clients.
        assert_eq!(Identity::of(&metadata, &shown("proxy"), &RingProxies::default()), Identity::default());
    }

    #[test]
    fn a_proxy_takes_out_what_its_clients_have_forged() {
        let mut metadata = MetadataMap::new();
        Identity { common_name: Some("root".into()), for_copies: true, token: None }.convey(&mut metadata);
        let proxies = RingProxies::new(["proxy".to_owned()]);
        let found = Identity::taken_from(&mut metadata, &shown("mallory"), &proxies);
        assert_eq!(found.common_name, None, "it came by a gateway, as far as anybody knows");
        assert!(!metadata.contains_key(FOR_COPIES) && metadata.get_bin(CLIENT_NAME).is_none());
        found.convey(&mut metadata);
        assert_eq!(Identity::of(&metadata, &shown("proxy"), &proxies), Identity::default());
    }
}
