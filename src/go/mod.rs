//! Values as the library of Go spells them, and its words for what is wrong with them: etcd's flags and files and etcdctl's arguments are
//! written so.
//!
//! **Promises.** What Go reads is read, to the same value; what it refuses is refused. Values only: nothing here does I/O.
//! **May not know** what a value is for.

mod quote;

pub use quote::{quote, unquote};
use std::time::Duration;

/// A whole number: decimal, or `0x1f`, `0b11`, `0o17` or `017`, with `_` between digits.
///
/// # Errors
/// In the words of Go's library, as everywhere here.
pub fn int(text: &str) -> Result<i64, String> {
    int_of(text, 0)
}

/// As [`int`], from 0 on.
pub fn uint(text: &str) -> Result<u64, String> {
    digits(text, 0).map_err(|why| refusal("ParseUint", text, why))
}

/// A whole number to the base `radix`; 0: to the one that its beginning says.
pub fn int_of(text: &str, radix: u32) -> Result<i64, String> {
    let (is_negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let refused = |why| refusal("ParseInt", text, why);
    let size = i128::from(digits(rest, radix).map_err(refused)?);
    i64::try_from(if is_negative { -size } else { size }).map_err(|_| refused(OUT_OF_RANGE))
}

/// As [`int_of`], from 0 on.
pub fn uint_of(text: &str, radix: u32) -> Result<u64, String> {
    digits(text, radix).map_err(|why| refusal("ParseUint", text, why))
}

const NO_SYNTAX: &str = "invalid syntax";
const OUT_OF_RANGE: &str = "value out of range";

fn refusal(function: &str, text: &str, why: &str) -> String {
    format!("strconv.{function}: parsing {}: {why}", quote(text.as_bytes()))
}

fn digits(text: &str, radix: u32) -> Result<u64, &'static str> {
    if text.is_empty() {
        return Err(NO_SYNTAX);
    }
    let is_free = radix == 0;
    let (radix, rest) = if is_free { prefixed(text) } else { (radix, text) };
    let mut value = 0u64;
    // What is for the eye alone stands between digits, or behind what says the base.
    let mut after_digit = rest.len() != text.len();
    for c in rest.chars() {
        if c == '_' && is_free && after_digit {
            after_digit = false;
            continue;
        }
        let digit = c.to_digit(radix).ok_or(NO_SYNTAX)?;
        let next = value.checked_mul(radix.into()).and_then(|value| value.checked_add(digit.into()));
        value = next.ok_or(OUT_OF_RANGE)?;
        after_digit = true;
    }
    if after_digit { Ok(value) } else { Err(NO_SYNTAX) }
}

/// The base that the beginning of a number says, and the rest of it.
fn prefixed(text: &str) -> (u32, &str) {
    let mut chars = text.chars();
    match (chars.next(), chars.next().map(|c| c.to_ascii_lowercase()), text.len()) {
        (Some('0'), Some('x'), 3..) => (16, &text[2..]),
        (Some('0'), Some('b'), 3..) => (2, &text[2..]),
        (Some('0'), Some('o'), 3..) => (8, &text[2..]),
        (Some('0'), ..) => (8, &text[1..]),
        _ => (10, text),
    }
}

/// Yes or no.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(refusal("ParseBool", text, NO_SYNTAX)),
    }
}

/// A time such as `1m30s`, `1.5s`, `100ms`, `0`. Less than none is none: what has so long is over at once.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration_ns(text).map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// As [`duration`], and those below none too: nanoseconds, 292 years of them at most.
pub fn duration_ns(text: &str) -> Result<i64, String> {
    let quoted = || quote(text.as_bytes());
    let bad = || format!("time: invalid duration {}", quoted());
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    // By itself, and only so, nought needs no unit.
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(end_of_number(rest));
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let unit_ns = match unit {
            _ if number.is_empty() || number == "." => return Err(bad()),
            "ns" => 1,
            // Either of the letters that Unicode has for it.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {}", quoted())),
            _ => return Err(format!("time: unknown unit {} in duration {}", quote(unit.as_bytes()), quoted())),
        };
        total = times(number, unit_ns).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = after;
    }
    i64::try_from(sign * total).map_err(|_| bad())
}

/// Where the number ends that `text` begins with: digits, and among them one point at most.
fn end_of_number(text: &str) -> usize {
    let mut points = 0;
    let is_part = |c: char| {
        points += usize::from(c == '.');
        c.is_ascii_digit() || c == '.' && points == 1
    };
    text.len() - text.trim_start_matches(is_part).len()
}

/// A number with a point or without, times `unit`. What is smaller than one is dropped, as in Go.
fn times(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok().map(i128::from) };
    // No unit is so large that more of them could count.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let part = digits(fraction)?.checked_mul(unit)? / 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let table = [
            ("0", 0),
            ("-1", -1),
            ("+7", 7),
            ("0x1F", 31),
            ("-0X1f", -31),
            ("0b11", 3),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
            ("0x_f_f", 255),
            ("-0", 0),
            ("0_7", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, number) in table {
            assert_eq!(int(text), Ok(number), "{text}");
        }
        for text in ["", "-", "x", "08", "0x", "1__0", "_1", "1_", "0b2", "0x_", "+-5", "1e9", "1.0", " 1", "--1"] {
            assert_eq!(int(text), Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")));
        }
        for text in ["9223372036854775808", "-9223372036854775809", "99999999999999999999"] {
            assert_eq!(int(text), Err(format!("strconv.ParseInt: parsing {text:?}: value out of range")));
        }
        assert_eq!(uint("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(uint("-1"), Err("strconv.ParseUint: parsing \"-1\": invalid syntax".to_owned()));
    }

    #[test]
    fn without_a_choice_of_base_there_are_digits_alone() {
        assert_eq!(int_of("-1f", 16), Ok(-31));
        assert_eq!(int_of("010", 10), Ok(10));
        for (text, radix) in [("0x1f", 16), ("1_0", 10), ("1_0", 16)] {
            assert_eq!(int_of(text, radix), Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")));
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let table = [
            ("1m30s", 90_000_000_000),
            ("1h0m1s", 3_601_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1.s.5s", 1_500_000_000),
            ("100ms", 100_000_000),
            ("+5s", 5_000_000_000),
            ("7\u{b5}s7\u{3bc}s7us7ns", 21_007),
            ("1.0000000000000000000000001s", 1_000_000_000),
            ("1.9ns", 1),
            ("0", 0),
            ("-0", 0),
            ("-1.5s", -1_500_000_000),
            ("-9223372036854775808ns", i64::MIN),
        ];
        for (text, nanos) in table {
            assert_eq!(duration_ns(text), Ok(nanos), "{text}");
            assert_eq!(duration(text), Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))), "{text}");
        }
        for bad in ["", "s", "-", "+", "+-5s", ".s", "1s.", "9999999999h", "9223372036854775808ns", "x"] {
            assert_eq!(duration(bad), Err(format!("time: invalid duration {bad:?}")));
        }
        for bad in ["5", "1.5.s", "1s0", "1..5s", "1.5.5s"] {
            assert_eq!(duration(bad), Err(format!("time: missing unit in duration {bad:?}")));
        }
        for (bad, unit) in [("5x1s", "x"), ("1_000s", "_"), ("5 s", " s"), ("1e9h", "e")] {
            let says = format!("time: unknown unit {unit:?} in duration {bad:?}");
            assert_eq!(duration(bad), Err(says));
        }
    }
}
