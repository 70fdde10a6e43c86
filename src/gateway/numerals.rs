//! Whole numbers in the spellings that etcd's reader of JSON takes and ours does not: `"1e3"` in a string, `1.0` for an enum.
//!
//! Hardly anybody writes them so. A message is looked at here only after it was refused, and is read once more if there was something to
//! spell otherwise.

use prost_reflect::{Kind, MessageDescriptor};
use serde_json::Value;

/// A message of this kind with its whole numbers as they are mostly spelled. `None`, if that changes nothing, or it is no JSON.
pub(super) fn spelled_plainly(text: &[u8], kind: &MessageDescriptor) -> Option<Value> {
    let mut message = serde_json::from_slice(text).ok()?;
    spell_fields(&mut message, kind).then_some(message)
}

/// Whether anything is spelled otherwise now. It goes no deeper than a message may be, which its reader has seen to.
fn spell_fields(message: &mut Value, kind: &MessageDescriptor) -> bool {
    let mut is_changed = false;
    for (name, value) in message.as_object_mut().into_iter().flatten() {
        let field = kind.get_field_by_name(name).or_else(|| kind.get_field_by_json_name(name));
        let Some(field) = field.filter(|field| !field.is_map()) else { continue };
        let kind = field.kind();
        match value {
            Value::Array(values) if field.is_list() => {
                values.iter_mut().for_each(|value| is_changed |= spell(value, &kind));
            }
            value => is_changed |= spell(value, &kind),
        }
    }
    is_changed
}

fn spell(value: &mut Value, kind: &Kind) -> bool {
    let plain = match (kind, &*value) {
        (Kind::Message(kind), _) => return spell_fields(value, kind),
        (Kind::Enum(_), Value::Number(number)) => plain(&number.to_string()).and_then(|text| text.parse().ok()),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32, Value::String(text))
        | (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64, Value::String(text)) => {
            plain(text).map(Value::String)
        }
        _ => None,
    };
    match plain {
        Some(plain) if plain != *value => {
            *value = plain;
            true
        }
        _ => false,
    }
}

/// Longest whole number of 64 bits, with its sign.
const DIGITS_MAX: usize = 20;

/// A number of JSON without point and exponent, if it is a whole one that may fit into 64 bits.
fn plain(number: &str) -> Option<String> {
    let (sign, rest) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || whole.len() > 1 && whole.starts_with('0') {
        return None;
    }
    // Where the point goes, counted from the first digit.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent.parse::<i32>().ok()?.into())?;
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let point =
        usize::try_from(point).ok().filter(|point| (significant.len()..=digits.len() + DIGITS_MAX).contains(point))?;
    let padded = format!("{significant:0<point$}");
    let shortest = padded.trim_start_matches('0');
    (shortest.len() <= DIGITS_MAX).then(|| format!("{sign}{shortest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_whole_however_it_is_spelled() {
        for (spelled, expected) in [
            ("7", "7"),
            ("1e3", "1000"),
            ("1.5E+1", "15"),
            ("-2.50e1", "-25"),
            ("1200e-2", "12"),
            ("0.001e3", "1"),
            ("0.0", "0"),
            ("-0e9", "0"),
            ("9223372036854775807.000", "9223372036854775807"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(plain(spelled).as_deref(), Some(expected), "{spelled}");
        }
        let many = format!("1{}", "0".repeat(1_000));
        for wrong in
            ["", "-", "1.5", "1e-1", "1e", "e3", ".5", "5.", "01", "+1", " 1", "1 ", "0x1", "1e999999999", "NaN", &many]
        {
            assert_eq!(plain(wrong), None, "{wrong}");
        }
    }
}
