//! JSON to the bytes of a message, and back, as the descriptor of the message says.
//!
//! As in etcd: names of fields as in the definitions (those of JavaScript's style are read too), bytes in base64 of either alphabet, 64-bit
//! integers as strings (numbers are read too), enums by name (numbers too), what is not set is left out, what is not known is passed over.

use super::numerals;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::{Code, Status};

const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
const WRITE: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// What precedes a message of gRPC: one byte that tells whether it is compressed, and its length in four.
pub(super) const PREFIX_BYTES: usize = 5;

/// A message of this kind, as gRPC sends it, from one JSON object.
///
/// # Errors
/// `InvalidArgument`, with what is wrong.
pub(super) fn read(text: &[u8], kind: &MessageDescriptor) -> Result<Bytes, Status> {
    let invalid = |error| Status::new(Code::InvalidArgument, format!("proto: {error}"));
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut deserializer, &READ);
    let message = message.or_else(|error| match numerals::spelled_plainly(text, kind) {
        // If it is refused all the same, then for what was wrong with it as it came.
        Some(plain) => DynamicMessage::deserialize_with_options(kind.clone(), plain, &READ).map_err(|_| error),
        None => Err(error),
    });
    frame(&message.map_err(invalid)?)
}

/// A message as gRPC sends it.
///
/// # Errors
/// `ResourceExhausted`, if it is longer than a message can be.
pub(super) fn frame(message: &impl Message) -> Result<Bytes, Status> {
    let bytes = message.encoded_len();
    let length =
        u32::try_from(bytes).map_err(|_| Status::resource_exhausted("the message is longer than one can be"))?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    framed.put_u8(0);
    framed.put_u32(length);
    message.encode_raw(&mut framed);
    Ok(framed.freeze())
}

/// Adds the JSON of a message of this kind.
///
/// # Errors
/// `Internal`, if it is none: then whoever answered has a mistake.
pub(super) fn write(message: Bytes, kind: &MessageDescriptor, out: &mut Vec<u8>) -> Result<(), Status> {
    let message = DynamicMessage::decode(kind.clone(), message)
        .map_err(|error| Status::internal(format!("the answer is no {}: {error}", kind.full_name())))?;
    message
        .serialize_with_options(&mut serde_json::Serializer::new(out), &WRITE)
        .map_err(|error| Status::internal(format!("the answer has no JSON: {error}")))
}

/// Finds where the first JSON object of a text ends that comes bit by bit. No byte is looked at twice.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// So much of the text has been seen.
    seen: usize,
    /// Brackets that are open. Which ones does not matter here: whoever reads the object looks closer.
    depth: usize,
    in_string: bool,
    /// A backslash was the last character.
    is_escaped: bool,
}

impl Splitter {
    /// The length of the first object, if the whole of it is there. The text is what it was before, or longer. Afterwards another begins.
    ///
    /// # Errors
    /// `InvalidArgument`: it does not begin with an object.
    pub(super) fn end(&mut self, text: &[u8]) -> Result<Option<usize>, Status> {
        for (at, byte) in text.iter().enumerate().skip(self.seen) {
            self.seen = at + 1;
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' => self.depth += 1,
                byte if self.depth == 0 && byte.is_ascii_whitespace() => {}
                byte if self.depth == 0 => {
                    let text = format!("proto: syntax error: unexpected {:?}, for {{", char::from(*byte));
                    return Err(Status::new(Code::InvalidArgument, text));
                }
                b'[' => self.depth += 1,
                b'"' => self.in_string = true,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.seen = 0;
                        return Ok(Some(at + 1));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
