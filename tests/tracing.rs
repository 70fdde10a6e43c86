//! Spans of calls, as a collector gets them: a real one over OTLP, and a member that sends what it did.

mod common;

use common::{Server, eventually, free_url};
use henge::pb::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span, span::SpanKind, status::StatusCode},
};
use std::sync::{Arc, Mutex};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// All that has come, until somebody takes it.
#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<ResourceSpans>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.got.lock().expect("no panic").extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves on a port of the system's choice: `host:port`.
    fn serve(&self, runtime: &Runtime) -> String {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let service = TraceServiceServer::new(self.clone());
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        address
    }

    fn take(&self) -> Vec<ResourceSpans> {
        std::mem::take(&mut *self.got.lock().expect("no panic"))
    }

    /// Those of one method.
    fn spans(got: &[ResourceSpans], name: &str) -> Vec<Span> {
        let scopes = got.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).filter(|span| span.name == name).cloned().collect()
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.clone()
}

fn text(of: &str) -> Option<Value> {
    Some(Value::StringValue(of.to_owned()))
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A request whose caller has a span, that is kept or not.
fn within_a_span<T>(message: T, is_sampled: bool) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{PARENT}-0{}", u8::from(is_sampled));
    request.metadata_mut().insert("traceparent", parent.parse().expect("ASCII"));
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A put and a range, each in a span of the caller's, then a refused put in none.
async fn call(url: &str, is_sampled: bool) {
    let mut kv = KvClient::new(Server::channel(url).await.expect("a connection"));
    let put = PutRequest { key: b"k".to_vec().into(), value: b"v".to_vec().into(), ..PutRequest::default() };
    kv.put(within_a_span(put, is_sampled)).await.expect("a put");
    let range = RangeRequest { key: b"k".to_vec().into(), ..RangeRequest::default() };
    kv.range(within_a_span(range, is_sampled)).await.expect("a range");
    kv.put(PutRequest::default()).await.expect_err("a key is missing");
}

#[test]
fn a_collector_gets_the_span_of_each_call_and_whose_child_it_is() {
    let (runtime, collector) = (Runtime::new().expect("a runtime"), Collector::default());
    let address = collector.serve(&runtime);
    let address = format!("--distributed-tracing-address={address}");
    // In etcd 3.5's spelling, too.
    let mut server = Server::start_with(&[
        "--experimental-enable-distributed-tracing",
        &address,
        "--distributed-tracing-service-name=config-store",
        "--distributed-tracing-instance-id=member-7",
        "--distributed-tracing-sampling-rate=1000000",
    ]);
    runtime.block_on(call(server.url(), true));
    // What waits is sent before the process ends.
    assert!(server.stop().success());
    let got = collector.take();

    let resource = got[0].resource.as_ref().expect("whose spans these are");
    assert_eq!(attribute(&resource.attributes, "service.name"), text("config-store"));
    assert_eq!(attribute(&resource.attributes, "service.instance.id"), text("member-7"));
    let puts = Collector::spans(&got, "etcdserverpb.KV/Put");
    let ranges = Collector::spans(&got, "etcdserverpb.KV/Range");
    let child_of_ours = |span: &&Span| hex(&span.parent_span_id) == PARENT && hex(&span.trace_id) == TRACE;
    for (spans, method) in [(&puts, "Put"), (&ranges, "Range")] {
        let ours = spans.iter().filter(child_of_ours).collect::<Vec<_>>();
        let [span] = ours[..] else { panic!("one child: {spans:?}") };
        assert_eq!(span.kind(), SpanKind::Server);
        for (key, value) in [
            ("rpc.system", text("grpc")),
            ("rpc.service", text("etcdserverpb.KV")),
            ("rpc.method", text(method)),
            ("rpc.grpc.status_code", Some(Value::IntValue(0))),
            ("network.peer.address", text("127.0.0.1")),
        ] {
            assert_eq!(attribute(&span.attributes, key), value, "{key}");
        }
        assert!(matches!(attribute(&span.attributes, "network.peer.port"), Some(Value::IntValue(1..=65535))));
        assert_eq!(span.status.clone().unwrap_or_default().code(), StatusCode::Unset);
        assert!(span.start_time_unix_nano > 0 && span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    let [refused] = &puts.iter().filter(|span| !child_of_ours(span)).collect::<Vec<_>>()[..] else {
        panic!("one more put: {puts:?}");
    };
    assert!(refused.parent_span_id.is_empty(), "it is nobody's child");
    assert_eq!(attribute(&refused.attributes, "rpc.grpc.status_code"), Some(Value::IntValue(3)));
}

#[test]
fn without_a_rate_only_children_of_spans_that_are_kept_are_kept() {
    let (runtime, collector) = (Runtime::new().expect("a runtime"), Collector::default());
    let address = format!("--distributed-tracing-address={}", collector.serve(&runtime));
    let mut server = Server::start_with(&["--enable-distributed-tracing", &address]);
    runtime.block_on(call(server.url(), false));
    runtime.block_on(call(server.url(), true));
    assert!(server.stop().success());
    let got = collector.take();
    for name in ["etcdserverpb.KV/Put", "etcdserverpb.KV/Range"] {
        let spans = Collector::spans(&got, name);
        assert_eq!(spans.len(), 1, "{name}: {spans:?}");
        assert_eq!(hex(&spans[0].trace_id), TRACE);
    }
    let resource = got[0].resource.as_ref().expect("whose spans these are");
    assert_eq!(attribute(&resource.attributes, "service.name"), text("etcd"));
}

#[test]
fn a_collector_that_is_away_is_told_of_once_and_holds_nobody_up() {
    let nobody = free_url();
    let address = format!("--distributed-tracing-address={}", nobody.trim_start_matches("http://"));
    let rate = "--distributed-tracing-sampling-rate=1000000";
    let mut server = Server::start_with(&["--enable-distributed-tracing", &address, rate]);
    let lost = "spans are lost while their collector takes none";
    // More than the queue holds, and several batches.
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut kv = KvClient::new(Server::channel(server.url()).await.expect("a connection"));
        for _ in 0..3_000 {
            let range = RangeRequest { key: b"k".to_vec().into(), serializable: true, ..RangeRequest::default() };
            kv.range(range).await.expect("a range");
        }
    });
    eventually("the log tells of it", || server.log().contains(lost).then_some(()));
    server.put("k", "last");
    assert!(server.stop().success());
    assert_eq!(server.log().matches(lost).count(), 1, "{}", server.log());
}

#[test]
fn mistakes_in_the_flags_are_told_all_at_once() {
    let server = Server::start_with(&[]);
    let output = server.try_start_once_with(&[
        "--enable-distributed-tracing",
        "--distributed-tracing-address=http://collector:4317",
        "--distributed-tracing-sampling-rate=1000001",
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("--distributed-tracing-address") && said.contains("is not host:port"), "{said}");
    assert!(said.contains("--distributed-tracing-sampling-rate") && said.contains("0 to 1000000"), "{said}");
}
