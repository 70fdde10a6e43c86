//! Any message of etcd's becomes JSON and the same message again; any text becomes a message or a refusal.

use crate::gateway::{
    json::{self, PREFIX_BYTES, Splitter},
    table,
};
use ::rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// Kinds within kinds may go so deep.
const DEPTH_MAX: u32 = 4;

fn any_message(kind: &MessageDescriptor, chance: &mut StdRng, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for field in kind.fields() {
        let is_deep = depth >= DEPTH_MAX && matches!(field.kind(), Kind::Message(_));
        if is_deep || chance.random_bool(0.5) {
            continue;
        }
        let value = match field.is_list() {
            true => Value::List((0..chance.random_range(0..4)).map(|_| any_value(&field, chance, depth)).collect()),
            false => any_value(&field, chance, depth),
        };
        // Of those that exclude each other the last one stays.
        message.set_field(&field, value);
    }
    message
}

fn any_value(field: &FieldDescriptor, chance: &mut StdRng, depth: u32) -> Value {
    match field.kind() {
        Kind::Bool => Value::Bool(chance.random()),
        Kind::Int32 => Value::I32(chance.random()),
        Kind::Uint32 => Value::U32(chance.random()),
        Kind::Int64 => Value::I64(*[0, 1, -1, i64::MIN, i64::MAX, chance.random()].choose(chance).expect("some")),
        Kind::Uint64 => Value::U64(*[0, u64::MAX, chance.random()].choose(chance).expect("some")),
        Kind::String => Value::String((0..chance.random_range(0..6)).map(|_| chance.random::<char>()).collect()),
        Kind::Bytes => Value::Bytes((0..chance.random_range(0..9)).map(|_| chance.random::<u8>()).collect()),
        // Numbers without a name too: they are of somebody newer.
        Kind::Enum(_) => Value::EnumNumber(chance.random_range(-2..9)),
        Kind::Message(kind) => Value::Message(any_message(&kind, chance, depth + 1)),
        other => panic!("{} is a {other:?}, which etcd has none of", field.full_name()),
    }
}

proptest! {
    #[test]
    fn a_message_becomes_json_and_itself_again(seed: u64) {
        let chance = &mut StdRng::seed_from_u64(seed);
        for kind in table::pool().all_messages().filter(|kind| !kind.full_name().starts_with("google.")) {
            let message = any_message(&kind, chance, 0);
            // On the wire nobody can tell a field that is set to nothing from one that is not set.
            let message = DynamicMessage::decode(kind.clone(), &message.encode_to_vec()[..]).unwrap();
            let mut text = Vec::new();
            json::write(message.encode_to_vec().into(), &kind, &mut text).unwrap();
            let end = Splitter::default().end(&text).unwrap();
            prop_assert_eq!(end, Some(text.len()));
            let again = json::read(&text, &kind).unwrap();
            let again = DynamicMessage::decode(kind.clone(), &again[PREFIX_BYTES..]).unwrap();
            prop_assert_eq!(&again, &message, "{}: {}", kind.full_name(), String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn any_text_is_a_message_or_refused(text in r#"[{}\[\]",:\\a-z0-9 =/+_.-]{0,60}"#, name in r#"(key|success|limit|sort_order|compare)"#) {
        for text in [text.clone(), format!("{{\"{name}\":{text}}}"), format!("{{\"{name}\":\"{text}\"}}")] {
            for call in ["/v3/kv/range", "/v3/kv/txn"] {
                let kind = &table::method(call).unwrap().request;
                if let Ok(Some(end)) = Splitter::default().end(text.as_bytes()) {
                    let _ = json::read(&text.as_bytes()[..end], kind);
                }
                let _ = json::read(text.as_bytes(), kind);
            }
        }
    }

    /// Against a reader that sees everything at once.
    #[test]
    fn objects_are_told_apart_however_they_come(
        objects in prop::collection::vec(r#"\{("([a-z{}\[\]]|\\.){0,6}")?\}"#, 0..5),
        pieces in prop::collection::vec(1usize..7, 1..20),
    ) {
        let whole = objects.join(" \n");
        let expected: Vec<_> = split_at_once(whole.as_bytes());
        let (mut text, mut found, mut splitter, mut rest) = (Vec::new(), Vec::new(), Splitter::default(), whole.as_bytes());
        for piece in pieces.iter().cycle().take(whole.len()) {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            rest = later;
            text.extend_from_slice(now);
            while let Ok(Some(end)) = splitter.end(&text) {
                found.push(Bytes::from(text.drain(..end).collect::<Vec<_>>()).trim_ascii_start().to_vec());
            }
        }
        prop_assert_eq!(found, expected);
    }
}

fn split_at_once(text: &[u8]) -> Vec<Vec<u8>> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Ok(Some(end)) = Splitter::default().end(rest) {
        found.push(rest[..end].trim_ascii_start().to_vec());
        rest = &rest[end..];
    }
    found
}

#[test]
fn a_request_that_goes_too_deep_is_refused() {
    let deep = 5_000;
    let text = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(deep), "{}".to_owned() + &"}]}".repeat(deep));
    let kind = &table::method("/v3/kv/txn").unwrap().request;
    assert_eq!(json::read(text.as_bytes(), kind).unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(Splitter::default().end(text.as_bytes()).unwrap(), Some(text.len()));
}
