//! Texts into values, with a sentence for whoever wrote one that is none.

use crate::go;
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

/// Yes or no in Go's spelling.
///
/// # Errors
/// A sentence that says what is wrong, as below.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    go::boolean(text).map_err(|_| format!("{text:?} is neither true nor false"))
}

/// A whole number in Go's spelling.
pub(super) fn int(text: &str) -> Result<i64, String> {
    go::int(text).map_err(|_| format!("{text:?} is not a whole number"))
}

/// A duration in Go's spelling. Here there is none that ends before it begins, and none longer than Go's 292 years: no clock overflows if
/// what is left is added.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = duration_ns(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text:?} is a duration below 0"))
}

/// As [`duration`], with those that Go has below 0: nanoseconds.
pub(super) fn duration_ns(text: &str) -> Result<i64, String> {
    go::duration_ns(text).map_err(|_| format!("{text:?} is not a duration such as 100ms or 1h30m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        assert_eq!(boolean("yes"), Err("\"yes\" is neither true nor false".to_owned()));
        assert_eq!(int("08"), Err("\"08\" is not a whole number".to_owned()));
        assert_eq!(duration("5"), Err("\"5\" is not a duration such as 100ms or 1h30m".to_owned()));
        assert_eq!(duration("-1s"), Err("\"-1s\" is a duration below 0".to_owned()));
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
