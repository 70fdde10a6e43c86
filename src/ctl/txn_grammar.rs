//! The language of `txn`: conditions, then requests for success and for failure, each part ended by an empty line.

use super::{failure::Failure, flags, kv};
use crate::{
    client::{Compare, Op, Txn},
    go::{self, quote, unquote},
    pb::etcdserverpb::{RequestOp, compare::CompareResult, request_op::Request},
};
use bytes::Bytes;
use clap::{CommandFactory as _, Parser};
use std::{ffi::OsString, io::BufRead, os::unix::ffi::OsStringExt as _};

/// Reads a whole transaction from `input`; `prompt` is called before each part.
pub fn read(input: &mut impl BufRead, mut prompt: impl FnMut(&str)) -> Result<Txn, Failure> {
    prompt("compares:");
    let compares = part(input, compare)?;
    prompt("success requests (get, put, del):");
    let success = part(input, request)?;
    prompt("failure requests (get, put, del):");
    let failure = part(input, request)?;
    Ok(Txn::new().when(compares).then(success).otherwise(failure))
}

/// The lines up to an empty one. The end of the input is no end of a part: a cut-off transaction must not run.
fn part<T>(input: &mut impl BufRead, parse: fn(&[u8]) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut parsed = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).map_err(|error| Failure::input(format!("standard input: {error}")))?;
        let Some(line) = line.strip_suffix(b"\n") else { return Err(Failure::input("EOF")) };
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(parsed);
        }
        parsed.push(parse(line)?);
    }
}

/// One condition, such as `mod("key") > "0"`: the blanks around the operator must be there, and what follows the value is not looked at.
fn compare(line: &[u8]) -> Result<Compare, Failure> {
    let text = String::from_utf8_lossy(line);
    let Some(open) = line.iter().position(|byte| *byte == b'(') else {
        return Err(Failure::input(format!("malformed comparison: {text}")));
    };
    let (target, rest) = (String::from_utf8_lossy(&line[..open]), &line[open + 1..]);
    let malformed = |key: &[u8], op: &[u8]| {
        let got = format!("{target}({}) {} \"\"", quote(key), String::from_utf8_lossy(op));
        Failure::input(format!("malformed comparison: {text}; got {got}"))
    };
    let (key, rest) = unquote(rest.trim_ascii_start()).ok_or_else(|| malformed(b"", b""))?;
    let rest = rest.strip_prefix(b")").and_then(after_blanks).ok_or_else(|| malformed(&key, b""))?;
    let (op, rest) = word(rest);
    let value = after_blanks(rest).and_then(unquote);
    let (value, _) = value.ok_or_else(|| malformed(&key, op))?;
    let invalid = || Failure::input(format!("invalid txn compare request: {text}"));
    let result = match op {
        b"=" => CompareResult::Equal,
        b"!=" => CompareResult::NotEqual,
        b">" => CompareResult::Greater,
        b"<" => CompareResult::Less,
        _ => return Err(invalid()),
    };
    let number = |radix: u32| {
        let text = std::str::from_utf8(&value).map_err(|_| invalid())?;
        go::int_of(text, radix).map_err(|_| invalid())
    };
    Ok(match &*target {
        "ver" | "version" => Compare::version(key).is(result, number(10)?),
        "c" | "create" => Compare::create_revision(key).is(result, number(10)?),
        "m" | "mod" => Compare::mod_revision(key).is(result, number(10)?),
        "val" | "value" => Compare::value(key).is(result, Bytes::from(value)),
        // Leases are hex everywhere else that etcdctl takes them.
        "lease" => Compare::lease(key).is(result, number(16)?),
        other => return Err(Failure::input(format!("malformed comparison: {text} (unknown target {other})"))),
    })
}

/// What follows one blank or more; `None` if there is none.
fn after_blanks(text: &[u8]) -> Option<&[u8]> {
    let after = text.trim_ascii_start();
    (after.len() < text.len()).then_some(after)
}

/// What there is up to a blank, and the rest.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len()))
}

#[derive(Parser)]
#[command(
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true,
    args_override_self = true,
    infer_subcommands = true
)]
enum Line {
    Get(kv::Get),
    Put(kv::Put),
    Del(kv::Del),
}

/// One request, in the words of the command of that name.
fn request(line: &[u8]) -> Result<Op, Failure> {
    let invalid = |what: &str| Failure::input(format!("invalid txn {what}: {}", String::from_utf8_lossy(line)));
    let words = split(line)?;
    if words.len() < 2 {
        // etcdctl's words for it.
        return Err(invalid("compare request"));
    }
    let words = flags::normal(&Line::command(), words.into_iter()).map_err(|_| invalid("request"))?;
    let parsed = Line::try_parse_from(words).map_err(|_| invalid("request"))?;
    let wire = match parsed {
        Line::Get(args) => Request::RequestRange(args.request()?),
        // Standard input is taken by the transaction itself.
        Line::Put(args) => Request::RequestPut(args.request(|| Ok(Bytes::new()))?),
        Line::Del(args) => Request::RequestDeleteRange(args.request()?),
    };
    Ok(Op(RequestOp { request: Some(wire) }))
}

/// Splits a line at blanks. Words in double quotes are Go literals, those in single quotes are as they are; a quote within a word is part of it,
/// and one that does not end is passed over.
///
/// # Errors
/// A literal is none.
pub fn split(line: &[u8]) -> Result<Vec<OsString>, Failure> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let quoted = match first {
            b'"' => end_of_literal(rest),
            b'\'' => rest[1..].iter().position(|byte| *byte == b'\'').map(|at| at + 2),
            _ => Some(word(rest).0.len()),
        };
        let (part, after) = rest.split_at(quoted.unwrap_or(1));
        match (first, quoted) {
            (_, None) => {}
            (b'"', _) => words.push(unquote(part).ok_or_else(|| Failure::input("invalid syntax"))?.0),
            (b'\'', _) => words.push(part[1..part.len() - 1].to_vec()),
            _ => words.push(part.to_vec()),
        }
        rest = after.trim_ascii_start();
    }
    Ok(words.into_iter().map(OsString::from_vec).collect())
}

/// How long the literal is that `text` begins with, in double quotes.
fn end_of_literal(text: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    let ends = |byte: &u8| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    };
    text[1..].iter().position(ends).map(|at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Txn, Failure> {
        read(&mut text.as_bytes(), |_| {})
    }

    fn words(line: &str) -> Result<Vec<OsString>, Failure> {
        split(line.as_bytes())
    }

    #[test]
    fn the_three_parts_become_one_transaction() {
        let text = "mod(\"foo\") > \"0\"\nvalue(\"a b\") = \"x\\ty\"\n\nput foo \"a\\nb c\" --prev-kv\nget f --prefix\n\ndel foo\n\n";
        let put = crate::client::PutOptions { prev_kv: true, ..Default::default() };
        let expected = Txn::new()
            .when([Compare::mod_revision("foo").greater(0), Compare::value("a b").equal("x\ty")])
            .then([Op::put_with("foo", "a\nb c", put), Op::get_with("f", crate::client::GetOptions::prefix("f"))])
            .otherwise([Op::delete("foo")]);
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse("\n\n\n"), Ok(Txn::new()));
    }

    #[test]
    fn a_transaction_that_is_cut_off_does_not_run() {
        for text in ["", "\n", "\n\n", "\nput a b\n\nget a", "\nput a b\n\nget a\n"] {
            assert_eq!(parse(text), Err(Failure::input("EOF")), "{text:?}");
        }
    }

    #[test]
    fn complaints_are_etcdctls() {
        let table = [
            ("bogus", "malformed comparison: bogus"),
            ("mod(\"foo\") > 0", "malformed comparison: mod(\"foo\") > 0; got mod(\"foo\") > \"\""),
            ("zzz(\"foo\") > \"0\"", "malformed comparison: zzz(\"foo\") > \"0\" (unknown target zzz)"),
            ("mod(foo) > \"0\"", "malformed comparison: mod(foo) > \"0\"; got mod(\"\")  \"\""),
            ("mod(\"foo\") > \"a\"", "invalid txn compare request: mod(\"foo\") > \"a\""),
            ("mod(\"foo\")>\"0\"", "malformed comparison: mod(\"foo\")>\"0\"; got mod(\"foo\")  \"\""),
            ("mod(\"foo\") >\"0\"", "malformed comparison: mod(\"foo\") >\"0\"; got mod(\"foo\") >\"0\" \"\""),
            ("mod(\"a\" ) > \"0\"", "malformed comparison: mod(\"a\" ) > \"0\"; got mod(\"a\")  \"\""),
            ("mod (\"a\") > \"0\"", "malformed comparison: mod (\"a\") > \"0\" (unknown target mod )"),
            ("mod(\"foo\") ~ \"1\"", "invalid txn compare request: mod(\"foo\") ~ \"1\""),
        ];
        for (line, text) in table {
            assert_eq!(parse(&format!("{line}\n\n\n\n")), Err(Failure::input(text)));
        }
        assert_eq!(parse("\nzut a\n\n\n"), Err(Failure::input("invalid txn request: zut a")));
        assert_eq!(parse("\nput a \"\\q\"\n\n\n"), Err(Failure::input("invalid syntax")));
        let few = "put command needs 1 argument and input from stdin or 2 arguments";
        assert_eq!(parse("\nput a\n\n\n"), Err(Failure::args(few)));
    }

    #[test]
    fn quotes_are_those_of_etcdctl() {
        let table = [
            ("put `a b` 'c d' \"e\\tf\"", &["put", "`a", "b`", "c d", "e\tf"][..]),
            ("put a\"b c\" x'y z'", &["put", "a\"b", "c\"", "x'y", "z'"]),
            ("put k \"unfinished", &["put", "k", "unfinished"]),
            ("\"a\"b 'c'd", &["a", "b", "c", "d"]),
            ("put \"\" ''", &["put", "", ""]),
            ("a \"b\\\"c\\\\\" d", &["a", "b\"c\\", "d"]),
        ];
        for (line, expected) in table {
            assert_eq!(words(line), Ok(expected.iter().map(OsString::from).collect()), "{line}");
        }
    }

    #[test]
    fn what_is_no_text_is_taken_as_it_is() {
        let text = b"value(\"\xff\") = \"\xfe\xff\"\n\nput \xff \xfe\n\n\n";
        let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let expected = Txn::new()
            .when([Compare::value(bytes(b"\xff")).equal(bytes(b"\xfe\xff"))])
            .then([Op::put(bytes(b"\xff"), bytes(b"\xfe"))]);
        assert_eq!(read(&mut &text[..], |_| {}), Ok(expected));
    }

    #[test]
    fn a_request_has_the_flags_of_its_command() {
        let limited = crate::client::GetOptions { limit: -1, ..Default::default() };
        assert_eq!(parse("\nge a --limit -1 --prefix=false\n\n\n"), Ok(Txn::new().then([Op::get_with("a", limited)])));
        assert_eq!(parse("\nput a -1\n\n\n"), Err(Failure::input("invalid txn request: put a -1")));
        assert_eq!(parse("\nput -- a -1\n\n\n"), Ok(Txn::new().then([Op::put("a", "-1")])));
    }
}
