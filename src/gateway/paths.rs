//! Paths as Go's router takes them: one that goes a long way round is answered with where it leads.

use super::not_found;
use axum::{
    extract::Request,
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONTENT_TYPE, LOCATION},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::borrow::Cow;

/// Answers a request whose path has empty parts, `.` or `..` in it with the path that this means. Nobody else sees it.
pub(super) async fn shortened(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // As in etcd, the former name stands for the present one before anybody looks.
    let path = path.strip_prefix("/v3beta/").map_or(Cow::Borrowed(path), |rest| format!("/v3/{rest}").into());
    if is_short(&path) { next.run(request).await } else { moved(&request, &shortest(&path)) }
}

/// `/v3` is not the gateway, but its door.
pub(super) async fn to_the_gateway(request: Request) -> Response {
    moved(&request, "/v3/")
}

/// Sends the client to another path, with the same question. By this status it asks there with the same method and body.
fn moved(request: &Request, path: &str) -> Response {
    let to = request.uri().query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let Ok(location) = HeaderValue::from_str(&to) else { return not_found() };
    let head = (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]);
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return head.into_response();
    }
    let kind = [(CONTENT_TYPE, "text/html; charset=utf-8")];
    (head.0, head.1, kind, format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", in_html(&to))).into_response()
}

/// What is no path, as the `*` of `OPTIONS`, is as short as it can be.
fn is_short(path: &str) -> bool {
    !path.starts_with('/') || !path.contains("//") && path.split('/').all(|part| part != "." && part != "..")
}

/// It begins with one slash, so that it never names another host.
fn shortest(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

fn in_html(text: &str) -> String {
    let escapes = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&#34;"), ('\'', "&#39;")];
    escapes.iter().fold(text.to_owned(), |text, (sign, escape)| text.replace(*sign, escape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_goes_a_long_way_round_has_a_short_form() {
        for (path, short) in [
            ("//health", "/health"),
            ("/./health", "/health"),
            ("/a/../health", "/health"),
            ("/../../health/.", "/health"),
            ("/v3//kv/", "/v3/kv/"),
            ("//evil.example/%2e%2e", "/evil.example/%2e%2e"),
            ("/livez/..", "/"),
            ("//", "/"),
            ("/a/../", "/"),
        ] {
            assert!(!is_short(path), "{path}");
            assert_eq!(shortest(path), short, "{path}");
            assert!(is_short(short), "{short}");
        }
        for path in ["/", "/v3/", "/.well-known/...", "*", ""] {
            assert!(is_short(path), "{path}");
        }
    }

    #[test]
    fn what_a_client_writes_is_text_in_the_answer() {
        assert_eq!(in_html(r#"/a?"'<>&amp;"#), "/a?&#34;&#39;&lt;&gt;&amp;amp;");
    }
}
