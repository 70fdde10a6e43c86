//! Entries of etcd's log in the words of our own.
//!
//! etcd up to 3.5 told the names of members and the cluster's version by requests of its second API, whose store is gone. They come as
//! `etcdserverpb.Request`, and mean what newer commands mean; what else came that way was for that store alone.

use crate::{
    auth::Author,
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
        // A look changes nothing, and nobody waits for the answer.
        Ok((_, _, Command::Auth(request))) if !request.is_change() => return Ok(Bytes::new()),
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
    use crate::auth::Request;

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
    }

    #[test]
    fn changes_of_users_go_through_and_looks_at_them_are_left_out() {
        let encode = |request| codec::encode(RequestId(1), &Author::user("root", 3), &Command::Auth(request));
        assert_eq!(translate(encode(Request::Enable)), Ok(encode(Request::Enable)));
        let login = Request::Authenticate { user: "a".to_owned(), prefix: "p".to_owned() };
        for look in [login, Request::UserList, Request::Status, Request::RoleGet { name: "r".to_owned() }] {
            assert_eq!(translate(encode(look)), Ok(Bytes::new()));
        }
        // As etcd 3.4 adds a user (field 1100) "u" with the password "p": each member hashed it for itself.
        let plain = Bytes::from_static(b"\xe2\x44\x06\x0a\x01u\x12\x01p");
        let text = translate(plain).expect_err("no hash");
        assert!(text.contains("auth_user_add") && text.contains("not hashed"), "{text}");
    }
}
