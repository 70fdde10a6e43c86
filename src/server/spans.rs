//! Spans of OpenTelemetry: one for each gRPC call, with the names and attributes that etcd's have.
//!
//! A call is a child of the span that its client names in `traceparent` (W3C Trace Context), and is kept if that one is; else chance
//! decides, by the rate that the tracer was made with. Whoever exports spans is behind the tracer, and never holds up a call.

use super::listen::Peer;
use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanKind, Status, Tracer as _},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, Span},
};
use std::borrow::Cow;

/// Makes spans of calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spans {
    tracer: SdkTracer,
}

/// The span of a call that is under way.
pub(super) struct CallSpan {
    span: Span,
}

/// Codes that are the server's fault, by number: Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable and DataLoss. With the
/// others a server has answered as it should.
const FAILURES: [usize; 6] = [2, 4, 12, 13, 14, 15];

impl Spans {
    /// Spans that `tracer` keeps or drops.
    pub fn new(tracer: SdkTracer) -> Spans {
        Spans { tracer }
    }

    /// A call of `path` (`/package.Service/Method`) begins; `None` if nobody wants to know. A stream has one span, to its end.
    pub(super) fn begin(&self, path: &'static str, headers: &HeaderMap, peer: Option<&Peer>) -> Option<CallSpan> {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let name = path.trim_start_matches('/');
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server);
        let mut span = builder.start_with_context(&self.tracer, &parent);
        if !span.is_recording() {
            return None;
        }
        let (service, method) = name.split_once('/').unwrap_or((name, ""));
        span.set_attribute(KeyValue::new("rpc.system", "grpc"));
        span.set_attribute(KeyValue::new("rpc.service", service));
        span.set_attribute(KeyValue::new("rpc.method", method));
        if let Some(Peer(peer)) = peer {
            span.set_attribute(KeyValue::new("network.peer.address", peer.ip().to_string()));
            span.set_attribute(KeyValue::new("network.peer.port", i64::from(peer.port())));
        }
        Some(CallSpan { span })
    }
}

impl CallSpan {
    /// The call has ended with `code`; `why` is what the client was told.
    pub(super) fn end(mut self, code: usize, why: Cow<'static, str>) {
        self.span.set_attribute(KeyValue::new("rpc.grpc.status_code", code as i64));
        if FAILURES.contains(&code) {
            self.span.set_status(Status::Error { description: why });
        }
        self.span.end();
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
