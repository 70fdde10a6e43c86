//! Who may use plain HTTP from where: pages of other origins, and names that browsers were led to.

use super::websocket;
use crate::server::OverTls;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HOST,
        ORIGIN, X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::Full;
use std::{collections::BTreeSet, sync::Arc};
use tonic::body::Body;

/// `cors` and `host-whitelist`. By default everybody may. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    origins: Arc<BTreeSet<String>>,
    hosts: Arc<BTreeSet<String>>,
}

impl Default for Access {
    fn default() -> Access {
        Access::new([], [])
    }
}

/// What goes with the answer to somebody who was let in: the origin that may read it.
pub struct Admitted(Option<HeaderValue>);

impl Access {
    /// Pages of `origins` may read answers, and requests without TLS must be for one of `hosts`. `*` among them, or nothing, means all.
    pub fn new(origins: impl IntoIterator<Item = String>, hosts: impl IntoIterator<Item = String>) -> Access {
        let set = |names: BTreeSet<String>| Arc::new(if names.contains("*") { BTreeSet::new() } else { names });
        Access { origins: set(origins.into_iter().collect()), hosts: set(hosts.into_iter().collect()) }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// The answer, if it goes no further: it is for a name that is not served here, or asks what a page may do.
    pub fn admit<B>(&self, request: &Request<B>) -> Result<Admitted, Box<Response<Body>>> {
        let has_tls = request.extensions().get::<OverTls>().is_some();
        let host = host(request);
        if !has_tls && !self.hosts.is_empty() && !self.hosts.contains(host) {
            tracing::warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
            return Err(misdirected(host).into());
        }
        let admitted = Admitted(self.origin(request.headers()));
        // A browser lets any page read what comes over a WebSocket.
        if admitted.0.is_none() && request.headers().contains_key(ORIGIN) && websocket::is_asked_for(request.headers())
        {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::FORBIDDEN;
            return Err(response.into());
        }
        if request.method() != Method::OPTIONS {
            return Ok(admitted);
        }
        let mut response = Response::new(Body::empty());
        admitted.mark(response.headers_mut());
        Err(response.into())
    }

    fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = headers.get(ORIGIN)?;
        self.origins.contains(origin.to_str().ok()?).then(|| origin.clone())
    }
}

impl Admitted {
    /// Says so in the headers of the answer.
    pub fn mark(self, headers: &mut HeaderMap) {
        let Some(origin) = self.0 else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        let allowed = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
}

/// The name that a request is for, without the port.
fn host<B>(request: &Request<B>) -> &str {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let named = named.or_else(|| request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default();
    match named.rsplit_once(':') {
        Some((host, _)) if host.starts_with('[') && host.ends_with(']') => &host[1..host.len() - 1],
        Some((host, _)) if !host.contains(':') => host,
        _ => named,
    }
}

fn misdirected(host: &str) -> Response<Body> {
    let text = format!(
        "\nhenge received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n\
         \x20 - e.g. henge --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n\n"
    );
    let mut response = Response::new(Body::new(Full::from(text)));
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn asked(host: &str, origin: &str) -> Request<()> {
        Request::builder().uri("/v3/kv/range").header(HOST, host).header(ORIGIN, origin).body(()).unwrap()
    }

    fn origin(access: &Access, origin: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        access.admit(&asked("here", origin)).unwrap_or_else(|_| panic!("let in")).mark(&mut headers);
        headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_page_may_read_answers_if_its_origin_is_named() {
        let some = Access::new(names(&["http://a", "http://b"]), []);
        assert_eq!(origin(&some, "http://b").as_deref(), Some("http://b"));
        assert_eq!(origin(&some, "http://c"), None);
        let all = Access::new(names(&["http://a", "*"]), []);
        assert_eq!(origin(&all, "http://c").as_deref(), Some("*"));
        assert_eq!(origin(&Access::default(), "http://c").as_deref(), Some("*"));
    }

    #[test]
    fn a_page_of_another_origin_gets_no_websocket() {
        let some = Access::new(names(&["http://a"]), []);
        for (access, origin, is_let_in) in
            [(&some, "http://a", true), (&some, "http://b", false), (&Access::default(), "http://b", true)]
        {
            let mut request = asked("here", origin);
            request.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
            request.headers_mut().insert("connection", HeaderValue::from_static("Upgrade"));
            assert_eq!(access.admit(&request).is_ok(), is_let_in, "{origin}");
            request.headers_mut().remove(ORIGIN);
            assert!(access.admit(&request).is_ok(), "a program is no page");
        }
    }

    #[test]
    fn without_tls_a_request_is_for_a_name_that_is_served() {
        let access = Access::new([], names(&["good", "::1"]));
        for (host, is_good) in [("good", true), ("good:2379", true), ("[::1]:2379", true), ("bad", false), ("", false)]
        {
            let admitted = access.admit(&asked(host, ""));
            assert_eq!(admitted.is_ok(), is_good, "{host}");
            if let Err(answer) = admitted {
                assert_eq!(answer.status(), 421);
            }
        }
        let mut over_tls = asked("bad", "");
        over_tls.extensions_mut().insert(OverTls);
        assert!(access.admit(&over_tls).is_ok());
    }

    #[test]
    fn a_question_what_a_page_may_do_is_answered_at_once() {
        let mut request = asked("here", "http://a");
        *request.method_mut() = Method::OPTIONS;
        let answer = Access::default().admit(&request).err().expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "accept, content-type, authorization");
    }
}
