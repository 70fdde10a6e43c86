//! Entries of etcd's log in the words of our own.
//!
//! etcd up to 3.5 told the names of members and the cluster's version by requests of its second API, whose store is gone. They come as
//! `etcdserverpb.Request`, and mean what newer commands mean; what else came that way was for that store alone.

use crate::{
    auth::{Author, Request},
    machine::{Command, RequestId, codec},
    types::MemberId,
};
use bytes::Bytes;
use prost::Message;
use serde::Deserialize;

/// What is needed of `etcdserverpb.Request`.
#[derive(Clone, PartialEq, Message)]
struct OldRequest {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
    #[prost(string, tag = "4")]
    value: String,
}

/// What is needed of `InternalRaftRequest` beside what the codec knows.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(message, optional, tag = "2")]
    old: Option<OldRequest>,
    #[prost(bytes = "bytes", optional, tag = "9900")]
    downgrade_version_test: Option<Bytes>,
}

/// etcd's JSON of what a member tells of itself.
#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
}

/// The data of a normal entry as `machine` reads it; empty if the entry changes nothing here.
///
/// # Errors
/// Says what the entry holds that can't be read.
pub(super) fn translate(data: Bytes) -> Result<Bytes, String> {
    if data.is_empty() {
        return Ok(data);
    }
    let unreadable = match codec::decode(data.clone()) {
        Ok((_, _, Command::Auth(request))) => return about_users(&request),
        Ok(_) => return Ok(data),
        Err(text) => text,
    };
    let old = match Envelope::decode(data.clone()) {
        Ok(Envelope { downgrade_version_test: Some(_), .. }) => return Ok(Bytes::new()),
        Ok(Envelope { old: Some(old), .. }) => Some(old),
        _ => OldRequest::decode(data).ok(),
    };
    match old {
        Some(old) if !old.method.is_empty() => translate_old(&old),
        _ => Err(unreadable),
    }
}

/// A look changes nothing. Whether a change was allowed depends on what etcd made of all before it: that it has to tell itself.
fn about_users(request: &Request) -> Result<Bytes, String> {
    match request {
        Request::Status
        | Request::Authenticate { .. }
        | Request::UserGet { .. }
        | Request::UserList
        | Request::RoleGet { .. }
        | Request::RoleList => Ok(Bytes::new()),
        change => Err(format!(
            "the log entry's command {} changes users or roles; start etcd once more and stop it cleanly",
            change.name()
        )),
    }
}

/// Whether a translated entry is what members tell of themselves, which needs nobody's permission.
pub(super) fn is_of_the_cluster(data: &Bytes) -> bool {
    let command = codec::decode(data.clone()).map(|(_, _, command)| command);
    matches!(
        command,
        Ok(Command::MemberAttributes { .. } | Command::ClusterVersionSet { .. } | Command::DowngradeInfo { .. })
    )
}

fn translate_old(old: &OldRequest) -> Result<Bytes, String> {
    let parts = old.path.split('/').collect::<Vec<_>>();
    let command = match (&old.method[..], &parts[..]) {
        ("PUT", ["", "0", "members", id, "attributes"]) => {
            let member = u64::from_str_radix(id, 16).map(MemberId);
            let attributes = serde_json::from_str::<Attributes>(&old.value);
            let (Ok(member), Ok(Attributes { name, client_urls })) = (member, attributes) else {
                return Err(format!("the attributes of a member are malformed: {} {}", old.path, old.value));
            };
            Command::MemberAttributes { member, name, client_urls: client_urls.unwrap_or_default() }
        }
        // The version is that of etcd; whoever goes on sets its own.
        _ => return Ok(Bytes::new()),
    };
    Ok(codec::encode(RequestId(old.id), &Author::Member, &command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(method: &str, path: &str, value: &str) -> Bytes {
        let (method, path, value) = (method.to_owned(), path.to_owned(), value.to_owned());
        OldRequest { id: 7, method, path, value }.encode_to_vec().into()
    }

    #[test]
    fn names_of_members_told_the_old_way_are_taken_over() {
        let value = r#"{"name":"m1","clientURLs":["http://localhost:2379"]}"#;
        let data = translate(old("PUT", "/0/members/8e9e05c52164694d/attributes", value)).expect("readable");
        let expected = Command::MemberAttributes {
            member: MemberId(0x8e9e_05c5_2164_694d),
            name: "m1".to_owned(),
            client_urls: vec!["http://localhost:2379".to_owned()],
        };
        assert_eq!(codec::decode(data), Ok((RequestId(7), Author::Member, expected)));
        let broken = translate(old("PUT", "/0/members/zz/attributes", value)).expect_err("no member");
        assert!(broken.contains("malformed"), "{broken}");
    }

    #[test]
    fn what_was_for_the_old_store_changes_nothing() {
        for data in [old("PUT", "/0/version", "3.5.0"), old("SYNC", "", ""), old("PUT", "/1/key", "v"), Bytes::new()] {
            assert_eq!(translate(data), Ok(Bytes::new()));
        }
        let wrapped = Envelope { old: OldRequest::decode(old("SYNC", "", "")).ok(), ..Envelope::default() };
        assert_eq!(translate(wrapped.encode_to_vec().into()), Ok(Bytes::new()));
    }

    #[test]
    fn commands_go_through_and_bytes_that_are_none_are_told() {
        let data = codec::encode(RequestId(1), &Author::Nobody, &Command::LeaseRevoke { id: crate::types::LeaseId(5) });
        assert_eq!(translate(data.clone()), Ok(data));
        let text = translate(Bytes::from_static(b"\xff\xff")).expect_err("garbage");
        assert!(text.contains("malformed"), "{text}");
        // AuthEnable, field 1000.
        let text = translate(Bytes::from_static(b"\xc2\x3e\x00")).expect_err("a change of auth");
        assert!(text.contains("auth_enable"), "{text}");
    }
}
