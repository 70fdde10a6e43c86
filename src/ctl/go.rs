//! Values as the library of Go reads them, and its words for what went wrong: scripts for etcdctl rely on both.

use super::quote::quote;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::{
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

/// A whole number of a flag: decimal, or `0x1f`, `0b11`, `0o17` or `017`, with `_` between digits.
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
    let quoted = quote(text.as_bytes());
    let bad = || format!("time: invalid duration {quoted}");
    let is_negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos = 0.0;
    while rest != "0" && !rest.is_empty() {
        let number_end = end_of_number(rest);
        let (number, after) = rest.split_at(number_end);
        let number = number.parse::<f64>().map_err(|_| bad())?;
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        nanos += number
            * match unit {
                "ns" => 1.0,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "" => return Err(format!("time: missing unit in duration {quoted}")),
                _ => return Err(format!("time: unknown unit {} in duration {quoted}", quote(unit.as_bytes()))),
            };
        rest = after;
        // A nought without a unit is a time by itself alone.
        if rest == "0" {
            return Err(format!("time: missing unit in duration {quoted}"));
        }
    }
    if nanos >= i64::MAX as f64 {
        return Err(bad());
    }
    Ok(if is_negative { Duration::ZERO } else { Duration::from_nanos(nanos.round() as u64) })
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

/// A path, which may be empty: the system has its own word for that.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Why the system refused.
pub fn cause(error: &io::Error) -> String {
    of_system(error.to_string())
}

/// What other rooms say of the system's refusals, without what Go's library does not say: numbers, and capitals.
pub fn of_system(text: String) -> String {
    let Some((before, after)) = text.split_once(" (os error ") else { return text };
    let Some((_, after)) = after.split_once(')') else { return text };
    let start = before.rfind([':', '(']).map_or(0, |at| at + 1);
    format!("{}{}{after}", &before[..start], before[start..].to_lowercase())
}

/// Why the system refused to do `what` with a file.
pub fn refused(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{what} {}: {}", path.display(), cause(error))
}

/// Why a program could not be started.
pub fn not_started(program: &std::ffi::OsStr, error: &io::Error) -> String {
    let (name, is_path) = (program.to_string_lossy(), program.as_bytes().contains(&b'/'));
    match error.kind() {
        ErrorKind::NotFound if !is_path => {
            format!("exec: {}: executable file not found in $PATH", quote(program.as_bytes()))
        }
        _ => format!("fork/exec {name}: {}", cause(error)),
    }
}

/// How a program ended that did not succeed.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            let name = SIGNALS.iter().find(|(number, _)| *number == signal);
            let name = name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned());
            format!("signal: {name}{core}")
        }
        (None, None) => status.to_string(),
    }
}

const SIGNALS: [(i32, &str); 15] = [
    (1, "hangup"),
    (2, "interrupt"),
    (3, "quit"),
    (4, "illegal instruction"),
    (5, "trace/breakpoint trap"),
    (6, "aborted"),
    (7, "bus error"),
    (8, "floating point exception"),
    (9, "killed"),
    (10, "user defined signal 1"),
    (11, "segmentation fault"),
    (12, "user defined signal 2"),
    (13, "broken pipe"),
    (14, "alarm clock"),
    (15, "terminated"),
];

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
            ("0x_1f", 31),
            ("0_7", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, number) in table {
            assert_eq!(int(text), Ok(number), "{text}");
        }
        for text in ["", "-", "x", "08", "0x", "1__0", "_1", "1_", "0b2", "1.0", " 1", "--1"] {
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
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            (".5s", 500),
            ("5.s", 5_000),
            ("100ms", 100),
            ("+5s", 5_000),
            ("1h0m1s", 3_601_000),
            ("0", 0),
            ("-0", 0),
            ("-1s", 0),
        ];
        for (text, ms) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-", ".s", "1s.", "9999999999h", "x"] {
            assert_eq!(duration(bad), Err(format!("time: invalid duration {bad:?}")));
        }
        for bad in ["5", "1.5.s", "1s0"] {
            assert_eq!(duration(bad), Err(format!("time: missing unit in duration {bad:?}")));
        }
        assert_eq!(duration("5x1s"), Err("time: unknown unit \"x\" in duration \"5x1s\"".to_owned()));
    }

    #[test]
    fn what_the_system_refuses_is_told_in_gos_words() {
        let missing = std::fs::File::open("/no/such/file").expect_err("nothing there");
        assert_eq!(refused("open", Path::new("/a"), &missing), "open /a: no such file or directory");
        assert_eq!(of_system(format!("cannot (/A: {missing})")), "cannot (/A: no such file or directory)");
        assert_eq!(of_system("Nothing of it".to_owned()), "Nothing of it");
        assert_eq!(not_started("a b".as_ref(), &missing), "exec: \"a b\": executable file not found in $PATH");
        assert_eq!(not_started("/a".as_ref(), &missing), "fork/exec /a: no such file or directory");
        assert_eq!(ended(ExitStatus::from_raw(15)), "signal: terminated");
        assert_eq!(ended(ExitStatus::from_raw(134)), "signal: aborted (core dumped)");
        assert_eq!(ended(ExitStatus::from_raw(2 << 8)), "exit status 2");
    }
}
