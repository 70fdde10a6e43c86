//! Where spans go: over OTLP to a collector, in batches, from a thread of the SDK's own.
//!
//! Between calls and that thread is a bounded queue (2,048 spans); what finds no room in it is dropped, and so is a batch that the collector
//! does not take. The variables of OpenTelemetry (`OTEL_BSP_SCHEDULE_DELAY`, `OTEL_RESOURCE_ATTRIBUTES` and their like) count where no flag says
//! otherwise.

use super::Spans;
use crate::config::TracingFlags;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter as Export},
};
use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tonic::transport::Endpoint;

/// How long a collector may take for a batch. Meanwhile others are dropped, and not calls held up.
const EXPORT_MAX: Duration = Duration::from_secs(5);
/// How long the last batch may take when the process ends.
const LAST_MAX: Duration = Duration::from_millis(300);
/// How long a connection to a collector may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// The export of spans, as long as the process serves.
pub struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// Begins; whether the collector is there shows with the first batch. To be called within the runtime, which carries the connection.
    ///
    /// # Errors
    /// A text, if the address cannot be one.
    pub fn start(flags: &TracingFlags) -> Result<Telemetry, String> {
        let wrong = |error: &dyn fmt::Display| format!("--distributed-tracing-address={}: {error}", flags.address);
        let endpoint = Endpoint::from_shared(format!("http://{}", flags.address)).map_err(|error| wrong(&error))?;
        let channel = endpoint.connect_timeout(CONNECT_MAX).timeout(EXPORT_MAX).connect_lazy();
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_timeout(EXPORT_MAX)
            // The next batch is the next attempt.
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| wrong(&error))?;
        let exporter = Told { exporter, address: flags.address.clone(), is_away: AtomicBool::new(false) };
        let mut resource = Resource::builder().with_service_name(flags.service_name.clone());
        if let Some(id) = &flags.instance_id {
            resource = resource.with_attribute(KeyValue::new("service.instance.id", id.clone()));
        }
        let rate = f64::from(flags.sampling_per_million) / 1e6;
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(rate))))
            .with_resource(resource.build())
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .build();
        tracing::info!(
            address = flags.address,
            service_name = flags.service_name,
            sampling_per_million = flags.sampling_per_million,
            "distributed tracing enabled"
        );
        Ok(Telemetry { provider })
    }

    /// What makes the spans of calls.
    pub fn spans(&self) -> Spans {
        Spans::new(self.provider.tracer("henge"))
    }

    /// Sends what waits, if that is soon done, and ends.
    pub async fn stop(self) {
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_MAX));
        // What fails here has been told already, or is late.
        let _ = ended.await;
    }
}

/// Exports, and tells the log once when the collector goes, and once when it is back.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    address: String,
    is_away: AtomicBool,
}

impl<E: Export> Export for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        match &result {
            Err(error) if !self.is_away.swap(true, Relaxed) => {
                tracing::warn!(address = self.address, spans, %error, "spans are lost while their collector takes none");
            }
            Ok(()) if self.is_away.swap(false, Relaxed) => {
                tracing::info!(address = self.address, "the collector takes spans again");
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
