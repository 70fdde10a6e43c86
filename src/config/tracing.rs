//! Where spans of calls go, if they go anywhere: `enable-distributed-tracing` and its neighbours.

use super::{reader::Reader, value::url};

/// The flags of the group, if it is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingFlags {
    /// `distributed-tracing-address`: `host:port` of an OTLP collector.
    pub address: String,
    /// `distributed-tracing-service-name`
    pub service_name: String,
    /// `distributed-tracing-instance-id`
    pub instance_id: Option<String>,
    /// `distributed-tracing-sampling-rate`: of a million calls without a sampled parent, so many are kept.
    pub sampling_per_million: u32,
}

impl TracingFlags {
    /// What was said of each is looked at whether or not it is enabled.
    pub(super) fn of(read: &mut Reader<'_>) -> Option<TracingFlags> {
        let is_enabled = read.bool("enable-distributed-tracing");
        let address = read.value("distributed-tracing-address", |text| match url(&format!("http://{text}")) {
            Ok(url) if !url.address.starts_with(':') => Ok(url.address),
            _ => Err(format!("{text:?} is not host:port")),
        });
        let flags = TracingFlags {
            address,
            service_name: read.text("distributed-tracing-service-name"),
            instance_id: Some(read.text("distributed-tracing-instance-id")).filter(|id| !id.is_empty()),
            sampling_per_million: read.int("distributed-tracing-sampling-rate", 0, 1_000_000) as u32,
        };
        is_enabled.then_some(flags)
    }
}
