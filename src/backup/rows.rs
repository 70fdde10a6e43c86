//! etcd's encodings of what our rows say in other words.

use crate::{
    alarm::AlarmKind,
    lease::Terms,
    membership::Member,
    pb::etcdserverpb::AlarmMember,
    types::{ConfState, LeaseId, MemberId},
};
use prost::Message;
use serde::{Deserialize, Serialize};

/// etcd's `leasepb.Lease`.
#[derive(Clone, PartialEq, Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

pub(super) fn lease(terms: Terms) -> ([u8; 8], Vec<u8>) {
    let lease = Lease { id: terms.id.0, ttl: terms.ttl_s, remaining_ttl: terms.remaining_s };
    (terms.id.0.to_be_bytes(), lease.encode_to_vec())
}

/// `None` if key and value are no lease, or disagree.
pub(super) fn parse_lease(key: &[u8], value: &[u8]) -> Option<Terms> {
    let Lease { id, ttl, remaining_ttl } = Lease::decode(value).ok()?;
    (id != 0 && key == id.to_be_bytes()).then_some(Terms { id: LeaseId(id), ttl_s: ttl, remaining_s: remaining_ttl })
}

/// An alarm is all key.
pub(super) fn alarm(member: MemberId, kind: AlarmKind) -> Vec<u8> {
    AlarmMember { member_id: member.0, alarm: kind as i32 }.encode_to_vec()
}

/// `Some(None)` is the alarm "none", which etcd may keep; `None` is none at all.
pub(super) fn parse_alarm(key: &[u8]) -> Option<Option<(MemberId, AlarmKind)>> {
    let AlarmMember { member_id, alarm } = AlarmMember::decode(key).ok()?;
    match (alarm, AlarmKind::from_number(alarm)) {
        (0, _) => Some(None),
        (_, kind) => kind.map(|kind| Some((MemberId(member_id), kind))),
    }
}

/// etcd's JSON of a member, in etcd's order of fields.
#[derive(Serialize, Deserialize)]
struct MemberJson {
    id: u64,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
}

/// Key and value of a member.
pub(super) fn member(member: &Member) -> (Vec<u8>, Vec<u8>) {
    let urls = |urls: &[String]| (!urls.is_empty()).then(|| urls.to_vec());
    let json = MemberJson {
        id: member.id.0,
        peer_urls: urls(&member.peer_urls),
        is_learner: member.is_learner,
        name: member.name.clone(),
        client_urls: urls(&member.client_urls),
    };
    (member_key(member.id), to_json(&json))
}

/// A member's number as etcd names its row.
pub(super) fn member_key(id: MemberId) -> Vec<u8> {
    id.to_string().into_bytes()
}

pub(super) fn parse_member_key(key: &[u8]) -> Option<MemberId> {
    u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok().map(MemberId)
}

pub(super) fn parse_member(key: &[u8], value: &[u8]) -> Option<Member> {
    let json = serde_json::from_slice::<MemberJson>(value).ok()?;
    let id = parse_member_key(key).filter(|id| id.0 == json.id)?;
    Some(Member {
        id,
        name: json.name,
        peer_urls: json.peer_urls.unwrap_or_default(),
        client_urls: json.client_urls.unwrap_or_default(),
        is_learner: json.is_learner,
    })
}

/// etcd's JSON of `raftpb.ConfState`; versions differ in what they leave out.
#[derive(Default, Serialize, Deserialize)]
struct ConfStateJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voters: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    learners: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voters_outgoing: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    learners_next: Option<Vec<u64>>,
    #[serde(default)]
    auto_leave: Option<bool>,
}

pub(super) fn conf_state(state: &ConfState) -> Vec<u8> {
    let ids = |ids: &[MemberId]| (!ids.is_empty()).then(|| ids.iter().map(|id| id.0).collect());
    to_json(&ConfStateJson {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: Some(state.auto_leave),
    })
}

pub(super) fn parse_conf_state(json: &[u8]) -> Option<ConfState> {
    let json = serde_json::from_slice::<ConfStateJson>(json).ok()?;
    let ids = |ids: Option<Vec<u64>>| ids.unwrap_or_default().into_iter().map(MemberId).collect();
    Some(ConfState {
        voters: ids(json.voters),
        learners: ids(json.learners),
        voters_outgoing: ids(json.voters_outgoing),
        learners_next: ids(json.learners_next),
        auto_leave: json.auto_leave.unwrap_or(false),
    })
}

/// etcd's JSON of a downgrade under way.
#[derive(Serialize)]
struct DowngradeJson<'a> {
    #[serde(rename = "target-version")]
    target_version: &'a str,
    enabled: bool,
}

pub(super) fn downgrade(target_version: &str) -> Vec<u8> {
    to_json(&DowngradeJson { target_version, enabled: true })
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, strings and lists of them are always JSON")
}

/// A revision as etcd's marks of compaction have it: like the key of a row, with sub 0.
pub(super) fn revision(main: i64) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[..8].copy_from_slice(&main.to_be_bytes());
    bytes[8] = b'_';
    bytes
}

pub(super) fn parse_revision(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [main @ .., b'_', _, _, _, _, _, _, _, _] => main.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_etcds_to_the_byte_and_are_read_back() {
        let terms = Terms { id: LeaseId(0x0102), ttl_s: 60, remaining_s: 7 };
        let (key, value) = lease(terms);
        assert_eq!((&key[..], &value[..]), (&b"\0\0\0\0\0\0\x01\x02"[..], &b"\x08\x82\x02\x10\x3c\x18\x07"[..]));
        assert_eq!(parse_lease(&key, &value), Some(terms));
        assert_eq!(parse_lease(b"\0\0\0\0\0\0\x01\x03", &value), None);

        let row = alarm(MemberId(5), AlarmKind::NoSpace);
        assert_eq!(row, b"\x08\x05\x10\x01");
        assert_eq!(parse_alarm(&row), Some(Some((MemberId(5), AlarmKind::NoSpace))));
        assert_eq!((parse_alarm(b""), parse_alarm(b"\x10\x09"), parse_alarm(b"\xff")), (Some(None), None, None));

        assert_eq!(revision(300), *b"\0\0\0\0\0\0\x01\x2c_\0\0\0\0\0\0\0\0");
        assert_eq!(parse_revision(&revision(300)), Some(300));
        assert_eq!(parse_revision(b"_"), None);
    }

    #[test]
    fn members_and_voters_are_etcds_json() {
        let founder = Member {
            id: MemberId(0x8e9e_05c5_2164_694d),
            name: "default".to_owned(),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            client_urls: vec!["http://localhost:2379".to_owned()],
            is_learner: false,
        };
        let (key, value) = member(&founder);
        assert_eq!(key, b"8e9e05c52164694d");
        let json = r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default","clientURLs":["http://localhost:2379"]}"#;
        assert_eq!(String::from_utf8_lossy(&value), json);
        assert_eq!(parse_member(&key, &value), Some(founder));
        assert_eq!(parse_member(b"1", &value), None);
        let bare = parse_member(b"7", br#"{"id":7,"peerURLs":null,"isLearner":true}"#).expect("a member");
        assert!(bare.is_learner && bare.peer_urls.is_empty());

        let state = ConfState { voters: vec![MemberId(1), MemberId(2)], ..ConfState::default() };
        assert_eq!(conf_state(&state), br#"{"voters":[1,2],"auto_leave":false}"#);
        assert_eq!(parse_conf_state(&conf_state(&state)), Some(state.clone()));
        assert_eq!(parse_conf_state(br#"{"voters":[1,2]}"#), Some(state));
        assert_eq!(downgrade("3.6.0"), br#"{"target-version":"3.6.0","enabled":true}"#);
    }
}
