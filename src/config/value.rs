//! Texts into values: numbers and durations in Go's spelling, URLs.

use std::time::Duration;

/// A URL to listen on or to be reached at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// `http`, `https`, `unix` or `unixs`.
    pub scheme: String,
    /// `host:port`, or a path for unix sockets.
    pub address: String,
}

impl Url {
    /// Whether TLS is spoken there.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "unixs")
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.address)
    }
}

/// Reads one URL as etcd's flags have them.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn url(text: &str) -> Result<Url, String> {
    let (scheme, address) =
        text.split_once("://").ok_or(format!("{text:?} is not a URL such as http://localhost:2379"))?;
    let address = address.trim_end_matches('/');
    match scheme {
        "unix" | "unixs" if !address.is_empty() => {}
        "http" | "https" => {
            let (host, port) = address.rsplit_once(':').ok_or(format!("URL {text:?} must have a port"))?;
            if host.is_empty() && !address.starts_with(':') || port.parse::<u16>().is_err() {
                return Err(format!("URL {text:?} must have a host and a port number"));
            }
            if address.contains('/') {
                return Err(format!("URL {text:?} must not contain a path"));
            }
        }
        _ => return Err(format!("URL scheme of {text:?} must be http, https, unix or unixs")),
    }
    Ok(Url { scheme: scheme.to_owned(), address: address.to_owned() })
}

/// URLs separated by commas, each once, with blanks around them or without.
///
/// # Errors
/// As [`url`].
pub(super) fn urls(text: &str) -> Result<Vec<Url>, String> {
    let mut urls = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let url = url(part)?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Ok(urls)
}

/// As Go reads a boolean.
pub(super) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Reads a whole number in Go's spelling: `0x80`, `0b11`, `0o17`, `017` (octal as well), `1_000`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn int(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a whole number");
    let (sign, number) = match text.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match number.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &number[2..]),
        [b'0', b'b' | b'B', ..] => (2, &number[2..]),
        [b'0', b'o' | b'O', ..] => (8, &number[2..]),
        [b'0', _, ..] => (8, &number[1..]),
        _ => (10, number),
    };
    // A single underscore stands between two digits, or between what says the base and a digit.
    let digits = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|digit| digit.is_digit(base));
    if !digits.split('_').all(is_number) {
        return Err(wrong());
    }
    let size = i128::from_str_radix(&digits.replace('_', ""), base).map_err(|_| wrong())?;
    i64::try_from(sign * size).map_err(|_| wrong())
}

/// Reads a duration in Go's spelling: numbers with units, one after the other, such as `1h30m` or `1.5s`; `0` needs no unit. There is none
/// that ends before it begins.
///
/// # Errors
/// A sentence that says what is wrong; as in Go, more than 292 years are: no clock overflows if what is left is added.
pub fn duration(text: &str) -> Result<Duration, String> {
    let nanos = duration_ns(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text:?} is a duration below 0"))
}

/// As [`duration`], with those that Go has below 0: nanoseconds.
pub(super) fn duration_ns(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a duration such as 100ms or 1h30m");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_ns = match unit {
            "ns" => 1,
            // Either of the letters that Unicode has for it.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(wrong()),
        };
        total = times(number, unit_ns).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    i64::try_from(sign * total).map_err(|_| wrong())
}

/// A number with a point or without, times `unit`. What is smaller than one is dropped, as in Go.
fn times(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if fraction.contains('.') {
        return None;
    }
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
    fn durations_are_spelled_as_in_go() {
        for (text, nanos) in [
            ("100ms", 100_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("+5s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.s.5s", 1_500_000_000),
            ("7\u{b5}s7\u{3bc}s7us7ns", 21_007),
            ("1.0000000000000000000000001s", 1_000_000_000),
            ("0", 0),
            ("-0", 0),
            ("100000000ns", 100_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text:?}");
        }
        assert_eq!(duration_ns("-1.5s"), Ok(-1_500_000_000));
        for wrong in ["", "5", "s", ".s", "1x", "1..5s", "1.5.5s", "+", "-", "+-5s", "1_000s", "5 s"] {
            assert!(duration_ns(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(duration("-1s"), Err("\"-1s\" is a duration below 0".to_owned()));
    }

    #[test]
    fn numbers_are_spelled_as_in_go() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("+5", 5),
            ("-5", -5),
            ("0x80000000", 1 << 31),
            ("-0X7f", -127),
            ("0b11", 3),
            ("0o17", 15),
            ("017", 15),
            ("0_17", 15),
            ("0x_f_f", 255),
            ("1_000", 1_000),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(int(text), Ok(number), "{text:?}");
        }
        for wrong in [
            "",
            "-",
            "x",
            "5 ",
            "1e9",
            "1.0",
            "_1",
            "1_",
            "1__0",
            "0x",
            "0b2",
            "08",
            "0x_",
            "+-5",
            "9223372036854775808",
        ] {
            assert_eq!(int(wrong), Err(format!("{wrong:?} is not a whole number")));
        }
    }

    /// A member added such an interval to the time of now, and stopped.
    #[test]
    fn a_duration_beyond_all_clocks_is_none() {
        assert!(duration("2562047h").is_ok());
        for wrong in ["2562048h", "5124095576030431h", "1e9h", &format!("{}s", "9".repeat(400))] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn urls_of_a_list_may_have_blanks_around_them_and_count_once() {
        let list = urls(" http://a:1, http://b:2 ,http://a:1,").unwrap();
        assert_eq!(list, [url("http://a:1").unwrap(), url("http://b:2").unwrap()]);
        assert_eq!(urls(""), Ok(Vec::new()));
        assert!(urls("http://a:1,b").is_err());
    }

    #[test]
    fn urls_have_a_scheme_a_host_and_a_port() {
        assert_eq!(url("http://127.0.0.1:2379/").unwrap().address, "127.0.0.1:2379");
        assert_eq!(url("http://[::1]:2379").unwrap().address, "[::1]:2379");
        assert_eq!(url("unix:///run/henge.sock").unwrap().address, "/run/henge.sock");
        for wrong in ["localhost:2379", "http://localhost", "ftp://a:1", "http://a:99999", "http://a:1/path"] {
            assert!(url(wrong).is_err(), "{wrong:?}");
        }
    }
}
