//! `/metrics`: the numbers of this process, as Prometheus reads them from etcd.

use crate::{
    metrics,
    server::{Backend, Edge},
};
use axum::{
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use std::io::{self, Write};

pub(super) async fn numbers<B: Backend>(State(edge): State<Edge<B>>, headers: HeaderMap) -> Response {
    let compress = prefers_gzip(&headers);
    // It looks at the store and at the system, and compresses a large text, which may take a moment: not where others wait.
    let making = tokio::task::spawn_blocking(move || {
        let text = edge.metrics.text();
        if compress { gzip(&text) } else { Ok(text.into_bytes()) }
    });
    let kind = [(CONTENT_TYPE, metrics::CONTENT_TYPE)];
    match making.await.unwrap_or_else(|stopped| Err(stopped.into())) {
        Ok(text) if compress => (kind, [(CONTENT_ENCODING, "gzip")], text).into_response(),
        Ok(text) => (kind, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Whether the client would rather have the text compressed. As in etcd, it is not if both are as good, as for `*`.
fn prefers_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    let (mut gzip, mut plain) = (0.0_f32, 0.0_f32);
    for entry in lists.flat_map(|list| list.split(',')) {
        let mut words = entry.split(';').map(str::trim);
        let name = words.next().unwrap_or_default();
        // What is no weight is none.
        let weight = words.find_map(|word| word.strip_prefix("q=")).map_or(1.0, |text| text.parse().unwrap_or(0.0));
        match name {
            "*" | "identity" => plain = plain.max(weight),
            name if name.eq_ignore_ascii_case("gzip") => gzip = gzip.max(weight),
            _ => {}
        }
    }
    gzip > plain
}

fn gzip(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_compressed_for_whoever_would_rather_have_that() {
        for (accepted, expected) in [
            (&["gzip"][..], true),
            (&["deflate, GZIP;q=0.5"], true),
            (&["br", "gzip;q=1.0, identity; q=0.5"], true),
            (&["gzip;q=0.5, *;q=0"], true),
            (&["gzip;q=0"], false),
            (&["gzip;q=many"], false),
            (&["gzip;q=0.5, identity"], false),
            (&["*"], false),
            (&["br"], false),
            (&[], false),
        ] {
            let named = accepted.iter().map(|list| (ACCEPT_ENCODING, list.parse().unwrap()));
            assert_eq!(prefers_gzip(&named.collect()), expected, "{accepted:?}");
        }
    }
}
