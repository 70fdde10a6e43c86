//! What `/proxy/metrics` says: the numbers that a proxy tells of itself, for Prometheus.

use super::sight::{Sight, Standby};
use crate::{
    pb::henge::ring::{Duty, State},
    ring::Site,
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use std::fmt;
use tonic::body::Body;

/// The state of the proxy as it is when somebody asks.
#[derive(Debug)]
struct Shown {
    state: State,
    /// Of a host that volunteers: how often its member was started.
    starts: Option<u64>,
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = &self.state;
        let keys = i64::try_from(state.copies.len()).unwrap_or(i64::MAX);
        let lag = state.copies.iter().map(|copy| copy.lag).max().unwrap_or(0);
        let age_s = state.copies.iter().map(|copy| copy.age_ms).max().unwrap_or(0) as f64 / 1e3;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let gauges = [
            ("etcd_grpc_proxy_cache_hits", "Reads that copies have answered.", number(state.hits)),
            ("etcd_grpc_proxy_cache_misses", "Reads that were passed on.", number(state.misses)),
        ];
        for (name, help, value) in gauges {
            // etcd calls these gauges, and gives them the end of a counter's name.
            gauge(&mut encoder, &format!("{name}_total"), help, &ConstGauge::new(value))?;
        }
        let gauges = [
            ("henge_proxy_clients", "Connections of clients.", number(state.clients)),
            ("henge_proxy_watchers", "Watchers of clients on streams that are looked at.", number(state.watches)),
            ("henge_proxy_copies", "Ranges that are copied now.", keys),
            ("henge_proxy_copies_bytes", "Memory of all copies.", number(state.bytes)),
            ("henge_proxy_copies_bytes_max", "Memory that copies may take.", number(state.bytes_max)),
            ("henge_proxy_upstream_revision", "Highest revision of upstream that is known.", state.upstream_revision),
            ("henge_proxy_lag_revisions", "Revisions that the copy furthest behind lacks.", lag),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, &ConstGauge::new(value))?;
        }
        let age = ConstGauge::new(age_s);
        gauge(&mut encoder, "henge_proxy_age_seconds", "Upper bound of the age of the oldest copy.", &age)?;
        let counters = [
            ("henge_proxy_renewals", "Renewals of leases that were answered.", state.renewals),
            ("henge_proxy_fences", "Linearizable reads of upstream on behalf of copies.", state.fences),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        if let Some(starts) = self.starts {
            let serves = ConstGauge::new(i64::from(state.duty() == Duty::Serves));
            let help = "1 while the core has asked for this host, and its member runs.";
            gauge(&mut encoder, "henge_proxy_standby_serves", help, &serves)?;
            let (name, help) = ("henge_proxy_standby_starts", "Times that the member of this host was started.");
            let counter = ConstCounter::new(starts);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, gauge: &impl EncodeMetric) -> fmt::Result {
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// The numbers as text.
fn text(state: State, starts: Option<u64>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Shown { state, starts }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Answers a request for `/proxy/metrics`.
pub(super) fn answer(sight: &Sight) -> Response<Body> {
    const OPEN_METRICS: HeaderValue =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    match text(sight.state(), sight.own().standby.as_ref().map(Standby::starts)) {
        Ok(text) => {
            let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from(text))));
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
            response
        }
        Err(error) => super::pass::said(StatusCode::INTERNAL_SERVER_ERROR, &format!("henge proxy: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::henge::ring::Copy;

    #[test]
    fn the_numbers_are_those_of_the_state() {
        let copy = Copy { lag: 3, age_ms: 1_500, ..Copy::default() };
        let state = State { hits: 7, fences: 9, bytes: 11, copies: vec![Copy::default(), copy], ..State::default() };
        let plain = text(state.clone(), None).expect("text");
        assert!(!plain.contains("standby"), "it does not volunteer: {plain}");
        let text = text(State { duty: Duty::Serves.into(), ..state }, Some(2)).expect("text");
        for line in [
            "# TYPE etcd_grpc_proxy_cache_hits_total gauge",
            "etcd_grpc_proxy_cache_hits_total 7",
            "henge_proxy_fences_total 9",
            "henge_proxy_copies_bytes 11",
            "henge_proxy_copies 2",
            "henge_proxy_lag_revisions 3",
            "henge_proxy_age_seconds 1.5",
            "henge_proxy_standby_serves 1",
            "henge_proxy_standby_starts_total 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
