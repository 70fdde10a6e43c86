//! What `/proxy/metrics` says: the numbers that a proxy tells of itself, for Prometheus.

use super::sight::{Sight, Standby};
use crate::{
    metrics::{CONTENT_TYPE as TEXT, Process, Registry, Source, Text},
    pb::henge::ring::{Duty, State},
    ring::Site,
};
use bytes::Bytes;
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use tonic::body::Body;

/// The state of the proxy as it is when somebody asks.
#[derive(Debug)]
struct Shown {
    state: State,
    /// Of a host that volunteers: how often its member was started.
    starts: Option<u64>,
    /// Of a proxy that is known to upstream by name: whether that trusts it.
    is_trusted: Option<bool>,
}

impl Source for Shown {
    fn write(&self, text: &mut Text) {
        let state = &self.state;
        let lag = state.copies.iter().map(|copy| copy.lag).max().unwrap_or(0);
        let age_s = state.copies.iter().map(|copy| copy.age_ms).max().unwrap_or(0) as f64 / 1e3;
        // etcd calls these gauges, and gives them the end of a counter's name.
        text.gauge("etcd_grpc_proxy_cache_hits_total", "Reads that copies have answered.", state.hits);
        text.gauge("etcd_grpc_proxy_cache_misses_total", "Reads that were passed on.", state.misses);
        text.gauge("henge_proxy_clients", "Connections of clients.", state.clients);
        let help = "Watchers of clients on streams that are looked at.";
        text.gauge("henge_proxy_watchers", help, state.watches);
        text.gauge("henge_proxy_copies", "Ranges that are copied now.", state.copies.len());
        text.gauge("henge_proxy_copies_bytes", "Memory of all copies.", state.bytes);
        text.gauge("henge_proxy_copies_bytes_max", "Memory that copies may take.", state.bytes_max);
        let help = "Highest revision of upstream that is known.";
        text.gauge("henge_proxy_upstream_revision", help, state.upstream_revision);
        text.gauge("henge_proxy_lag_revisions", "Revisions that the copy furthest behind lacks.", lag);
        text.gauge("henge_proxy_age_seconds", "Upper bound of the age of the oldest copy.", age_s);
        text.counter("henge_proxy_renewals_total", "Renewals of leases that were answered.", state.renewals);
        let help = "Linearizable reads of upstream on behalf of copies.";
        text.counter("henge_proxy_fences_total", help, state.fences);
        if let Some(is_trusted) = self.is_trusted {
            let help = "1 while upstream trusts this proxy with users and roles; else everything passes through.";
            text.gauge("henge_proxy_trusted", help, is_trusted);
        }
        if let Some(starts) = self.starts {
            let help = "1 while the core has asked for this host, and its member runs.";
            text.gauge("henge_proxy_standby_serves", help, state.duty() == Duty::Serves);
            let help = "Times that the member of this host was started.";
            text.counter("henge_proxy_standby_starts_total", help, starts);
        }
    }
}

/// The numbers as text.
fn text(state: State, starts: Option<u64>, is_trusted: Option<bool>) -> String {
    let registry = Registry::default();
    registry.add(Process);
    registry.add(Shown { state, starts, is_trusted });
    registry.text()
}

/// Answers a request for `/proxy/metrics`.
pub(super) fn answer(sight: &Sight) -> Response<Body> {
    let text = text(Site::state(sight), sight.own().standby.as_ref().map(Standby::starts), sight.is_trusted());
    let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from(text))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::henge::ring::Copy;

    #[test]
    fn the_numbers_are_those_of_the_state() {
        let copy = Copy { lag: 3, age_ms: 1_500, ..Copy::default() };
        let state = State { hits: 7, fences: 9, bytes: 11, copies: vec![Copy::default(), copy], ..State::default() };
        let plain = text(state.clone(), None, None);
        assert!(!plain.contains("standby"), "it does not volunteer: {plain}");
        assert!(!plain.contains("trusted"), "nobody is to trust it: {plain}");
        let text = text(State { duty: Duty::Serves.into(), ..state }, Some(2), Some(true));
        for line in [
            "henge_proxy_trusted 1",
            "# TYPE etcd_grpc_proxy_cache_hits_total gauge",
            "etcd_grpc_proxy_cache_hits_total 7",
            "henge_proxy_fences_total 9",
            "henge_proxy_copies_bytes 11",
            "henge_proxy_copies 2",
            "henge_proxy_lag_revisions 3",
            "henge_proxy_age_seconds 1.5",
            "henge_proxy_standby_serves 1",
            "henge_proxy_standby_starts_total 2",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
