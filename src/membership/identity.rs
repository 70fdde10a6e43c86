//! Who a member is, and to which cluster it belongs: numbers that follow from flags, and stand at the head of its log.

use crate::types::{ClusterId, MemberId};
use prost::Message;
use sha1::{Digest, Sha1};

/// A member, and its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
}

/// etcd's `Metadata`, the first record of a log.
#[derive(Clone, Copy, PartialEq, Message)]
struct Metadata {
    #[prost(uint64, tag = "1")]
    node_id: u64,
    #[prost(uint64, tag = "2")]
    cluster_id: u64,
}

impl Identity {
    /// The metadata of a log.
    pub fn encode(self) -> Vec<u8> {
        Metadata { node_id: self.member.0, cluster_id: self.cluster.0 }.encode_to_vec()
    }

    /// Reads the metadata of a log; `None` if it is none, or names nobody.
    pub fn decode(metadata: &[u8]) -> Option<Identity> {
        let Metadata { node_id, cluster_id } = Metadata::decode(metadata).ok()?;
        (node_id != 0).then_some(Identity { member: MemberId(node_id), cluster: ClusterId(cluster_id) })
    }
}

/// etcd's number of a member that is there when the cluster is founded: of its peer URLs and the cluster's token.
pub fn member_id(peer_urls: &[String], token: &str) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    MemberId(first_eight((urls.concat() + token).as_bytes()))
}

/// etcd's number of a cluster: of its founders, in any order.
pub fn cluster_id(founders: &[MemberId]) -> ClusterId {
    let mut ids = founders.to_vec();
    ids.sort_unstable();
    let bytes = ids.iter().flat_map(|id| id.0.to_be_bytes()).collect::<Vec<_>>();
    ClusterId(first_eight(&bytes))
}

fn first_eight(bytes: &[u8]) -> u64 {
    let hash = Sha1::digest(bytes);
    u64::from_be_bytes(hash[..8].try_into().expect("a SHA-1 has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_gives_for_the_same_flags() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn metadata_is_read_as_it_was_written() {
        let identity = Identity { member: MemberId(7), cluster: ClusterId(u64::MAX) };
        assert_eq!(Identity::decode(&identity.encode()), Some(identity));
        assert_eq!(Identity::decode(b""), None);
        assert_eq!(Identity::decode(b"\xff"), None);
    }
}
