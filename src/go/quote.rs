//! Go's string literals, which etcdctl prints (`fields`, watch variables) and reads (`txn`).

/// Writes `bytes` as a Go string literal in double quotes.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x0b' => out.push_str("\\v"),
                c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// Reads a literal from the start of `text` (double quotes with escapes, or back quotes without); gives it and the rest. Bytes that are no
/// text stay as they are.
pub fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (quote, mut rest) = text.split_first()?;
    if *quote == b'`' {
        let end = rest.iter().position(|byte| *byte == b'`')?;
        return Some((rest[..end].to_vec(), &rest[end + 1..]));
    }
    let mut out = Vec::new();
    loop {
        match (quote, rest) {
            (b'"', [b'"', after @ ..]) => return Some((out, after)),
            (b'"', [b'\\', after @ ..]) => rest = escape(after, &mut out)?,
            (b'"', [byte, after @ ..]) => {
                out.push(*byte);
                rest = after;
            }
            _ => return None,
        }
    }
}

/// One escape, after its backslash.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (c, rest) = text.split_first()?;
    let simple = match c {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' | b'"' => *c,
        b'x' => {
            out.push(u8::try_from(digits(rest, 2, 16)?).ok()?);
            return rest.get(2..);
        }
        b'0'..=b'7' => {
            out.push(u8::try_from(digits(text, 3, 8)?).ok()?);
            return text.get(3..);
        }
        b'u' | b'U' => {
            let count = if *c == b'u' { 4 } else { 8 };
            let code = char::from_u32(digits(rest, count, 16)?)?;
            out.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
            return rest.get(count..);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

/// A number of so many digits.
fn digits(text: &[u8], count: usize, radix: u32) -> Option<u32> {
    let digits = text.get(..count)?.iter().map(|byte| char::from(*byte).to_digit(radix));
    digits.into_iter().try_fold(0u32, |number, digit| number.checked_mul(radix)?.checked_add(digit?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_quoting() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unquote(quote(&all).as_bytes()), Some((all, &b""[..])));
        assert_eq!(quote("a\"\n\té".as_bytes()), r#""a\"\n\té""#);
        assert_eq!(quote(b"\xff\x00"), r#""\xff\x00""#);
    }

    #[test]
    fn broken_literals_are_refused() {
        for bad in ["", "a", "\"a", r#""\x1""#, r#""\x+1""#, r#""\q""#, r#""\'""#, r#""\400""#, "`a", r#""\ud800""#] {
            assert_eq!(unquote(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(unquote(br#"`a\n` x"#), Some((b"a\\n".to_vec(), &b" x"[..])));
        assert_eq!(unquote(b"\"\xff\" x"), Some((b"\xff".to_vec(), &b" x"[..])));
    }
}
