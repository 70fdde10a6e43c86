//! Texts into values: durations in Go's spelling, URLs.

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

/// The longest duration that Go has, 292 years: no clock overflows if it is added.
const DURATION_MAX: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// Reads a duration in Go's spelling: numbers with units, one after the other, such as `1h30m` or `1.5s`; `0` needs no unit.
///
/// # Errors
/// A sentence that says what is wrong; as in Go, more than 292 years are.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 100ms or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0_f64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_s = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * unit_s;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok().filter(|duration| *duration <= DURATION_MAX).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelled_as_in_go() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "1x", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
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
    fn urls_have_a_scheme_a_host_and_a_port() {
        assert_eq!(url("http://127.0.0.1:2379/").unwrap().address, "127.0.0.1:2379");
        assert_eq!(url("http://[::1]:2379").unwrap().address, "[::1]:2379");
        assert_eq!(url("unix:///run/henge.sock").unwrap().address, "/run/henge.sock");
        for wrong in ["localhost:2379", "http://localhost", "ftp://a:1", "http://a:99999", "http://a:1/path"] {
            assert!(url(wrong).is_err(), "{wrong:?}");
        }
    }
}
