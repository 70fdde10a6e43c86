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

/// Reads a literal from the start of `text` (double quotes with escapes, or back quotes without); gives it and the rest.
pub fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inside, rest) = raw.split_once('`')?;
        return Some((inside.as_bytes().to_vec(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut out = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((out, rest)),
            '\\' => rest = escape(rest, &mut out)?,
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// One escape, after its backslash.
fn escape<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    let simple = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '"' | '\'' => c as u8,
        'x' => {
            out.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
            return rest.get(2..);
        }
        '0'..='7' => {
            out.push(u8::from_str_radix(text.get(..3)?, 8).ok()?);
            return text.get(3..);
        }
        'u' | 'U' => {
            let digits = if c == 'u' { 4 } else { 8 };
            let code = char::from_u32(u32::from_str_radix(rest.get(..digits)?, 16).ok()?)?;
            out.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
            return rest.get(digits..);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_quoting() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unquote(&quote(&all)), Some((all, "")));
        assert_eq!(quote("a\"\n\té".as_bytes()), r#""a\"\n\té""#);
        assert_eq!(quote(b"\xff\x00"), r#""\xff\x00""#);
    }

    #[test]
    fn broken_literals_are_refused() {
        for bad in ["", "a", "\"a", r#""\x1""#, r#""\q""#, "`a", r#""\ud800""#] {
            assert_eq!(unquote(bad), None, "{bad}");
        }
        assert_eq!(unquote(r#"`a\n` x"#), Some((b"a\\n".to_vec(), " x")));
    }
}
