//! The language of `txn`: conditions, then requests for success and for failure, each part ended by an empty line.

use super::{
    failure::Failure,
    kv,
    quote::{quote, unquote},
};
use crate::{
    client::{Compare, Op, Txn},
    pb::etcdserverpb::{RequestOp, compare::CompareResult, request_op::Request},
};
use bytes::Bytes;
use clap::Parser;
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
fn part<T>(input: &mut impl BufRead, parse: fn(&str) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut parsed = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).map_err(|error| Failure::input(format!("standard input: {error}")))?;
        let Some(line) = line.strip_suffix('\n') else { return Err(Failure::input("EOF")) };
        let line = line.trim();
        if line.is_empty() {
            return Ok(parsed);
        }
        parsed.push(parse(line)?);
    }
}

/// One condition, such as `mod("key") > "0"`.
fn compare(line: &str) -> Result<Compare, Failure> {
    let Some((target, rest)) = line.split_once('(') else {
        return Err(Failure::input(format!("malformed comparison: {line}")));
    };
    let target = target.trim();
    let malformed = |key: &[u8], op: &str| {
        let got = format!("{target}({}) {op} \"\"", quote(key));
        Failure::input(format!("malformed comparison: {line}; got {got}"))
    };
    let (key, rest) = unquote(rest.trim_start()).ok_or_else(|| malformed(b"", ""))?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(|| malformed(&key, ""))?.trim_start();
    let op_end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '`').unwrap_or(rest.len());
    let (op, rest) = rest.split_at(op_end);
    let (value, rest) = unquote(rest.trim_start()).ok_or_else(|| malformed(&key, op))?;
    if !rest.trim().is_empty() {
        return Err(malformed(&key, op));
    }
    let invalid = || Failure::input(format!("invalid txn compare request: {line}"));
    let result = match op {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(invalid()),
    };
    let number = |radix: u32| {
        let text = std::str::from_utf8(&value).map_err(|_| invalid())?;
        i64::from_str_radix(text, radix).map_err(|_| invalid())
    };
    Ok(match target {
        "ver" | "version" => Compare::version(key).is(result, number(10)?),
        "c" | "create" => Compare::create_revision(key).is(result, number(10)?),
        "m" | "mod" => Compare::mod_revision(key).is(result, number(10)?),
        "val" | "value" => Compare::value(key).is(result, Bytes::from(value)),
        // Leases are hex everywhere else that etcdctl takes them.
        "lease" => Compare::lease(key).is(result, number(16)?),
        other => return Err(Failure::input(format!("malformed comparison: {line} (unknown target {other})"))),
    })
}

#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true, args_override_self = true)]
enum Line {
    Get(kv::Get),
    Put(kv::Put),
    Del(kv::Del),
}

/// One request, in the words of the command of that name.
fn request(line: &str) -> Result<Op, Failure> {
    let invalid = || Failure::input(format!("invalid txn request: {line}"));
    let words = split(line).ok_or_else(invalid)?;
    if words.len() < 2 {
        // etcdctl's words for it.
        return Err(Failure::input(format!("invalid txn compare request: {line}")));
    }
    let parsed = Line::try_parse_from(words).map_err(|_| invalid())?;
    let wire = match parsed {
        Line::Get(args) => Request::RequestRange(args.request()?),
        Line::Put(args) => {
            Request::RequestPut(args.request(|| Err(Failure::input("put in txn needs a key and a value")))?)
        }
        Line::Del(args) => Request::RequestDeleteRange(args.request()?),
    };
    Ok(Op(RequestOp { request: Some(wire) }))
}

/// Splits a line at blanks; words in quotes are Go literals. `None` if a quote does not end.
pub fn split(line: &str) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let word = match rest.chars().next() {
            Some('"' | '`') => {
                let (word, after) = unquote(rest)?;
                rest = after;
                word
            }
            Some('\'') => {
                let (word, after) = rest[1..].split_once('\'')?;
                rest = after;
                word.as_bytes().to_vec()
            }
            _ => {
                let (word, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
                rest = after;
                word.as_bytes().to_vec()
            }
        };
        words.push(OsString::from_vec(word));
        rest = rest.trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Txn, Failure> {
        read(&mut text.as_bytes(), |_| {})
    }

    #[test]
    fn the_three_parts_become_one_transaction() {
        let text = "mod(\"foo\") > \"0\"\nvalue(\"a b\")=\"x\\ty\"\n\nput foo \"a\\nb c\" --prev-kv\nget f --prefix\n\ndel foo\n\n";
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
            ("mod(\"foo\") ~ \"1\"", "invalid txn compare request: mod(\"foo\") ~ \"1\""),
        ];
        for (line, text) in table {
            assert_eq!(parse(&format!("{line}\n\n\n\n")), Err(Failure::input(text)));
        }
        assert_eq!(parse("\nzut a\n\n\n"), Err(Failure::input("invalid txn request: zut a")));
        assert_eq!(parse("\nput a \"b\n\n\n"), Err(Failure::input("invalid txn request: put a \"b")));
    }
}
