//! Which call stands behind a path: as the options of the services in `proto/` say.

use crate::pb;
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

/// A call that has a path over plain HTTP.
#[derive(Debug)]
pub(super) struct Method {
    /// Its path over gRPC.
    pub(super) path: PathAndQuery,
    pub(super) request: MessageDescriptor,
    pub(super) reply: MessageDescriptor,
    pub(super) streams_requests: bool,
    pub(super) streams_replies: bool,
}

/// The option that names the paths of a call.
const OPTION: &str = "google.api.http";
const BUILT_IN: &str = "the descriptors are part of this program";

/// Made when the first request comes: a member that starts does not wait for it.
static METHODS: LazyLock<HashMap<String, Arc<Method>>> = LazyLock::new(all);

/// The call behind a path, which is compared as it stands.
pub(super) fn method(path: &str) -> Option<&'static Method> {
    METHODS.get(path).map(|method| &**method)
}

/// The messages of etcd's packages.
pub(super) fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(pb::DESCRIPTORS).expect(BUILT_IN));
    &POOL
}

fn all() -> HashMap<String, Arc<Method>> {
    let mut methods = HashMap::new();
    for service in pool().services() {
        for described in service.methods() {
            let paths = paths(&described);
            let method = Arc::new(Method {
                path: format!("/{}/{}", service.full_name(), described.name()).parse().expect(BUILT_IN),
                request: described.input(),
                reply: described.output(),
                streams_requests: described.is_client_streaming(),
                streams_replies: described.is_server_streaming(),
            });
            methods.extend(paths.into_iter().map(|path| (path, Arc::clone(&method))));
        }
    }
    methods
}

/// None, if the call is for gRPC alone.
fn paths(method: &MethodDescriptor) -> Vec<String> {
    let option = pool().get_extension_by_name(OPTION).expect(BUILT_IN);
    let options = method.options();
    if !options.has_extension(&option) {
        return Vec::new();
    }
    let rule = options.get_extension(&option);
    let rule = rule.as_message().expect(BUILT_IN);
    let more = rule.get_field_by_name("additional_bindings").expect(BUILT_IN);
    let more = more.as_list().unwrap_or_default().iter().filter_map(Value::as_message);
    std::iter::once(rule).chain(more).map(path).collect()
}

fn path(rule: &DynamicMessage) -> String {
    let field = |name| rule.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned));
    // What the gateway can do, and all that etcd's services ask for.
    assert_eq!(field("body").as_deref(), Some("*"), "the whole request is the body");
    field("post").filter(|path| path.starts_with("/v3/") && !path.contains('{')).expect("a path without variables")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_of_etcd_have_the_paths_that_they_have_there() {
        assert_eq!(METHODS.len(), 51, "48 calls, three of them twice");
        for (path, call, requests, replies) in [
            ("/v3/kv/range", "/etcdserverpb.KV/Range", false, false),
            ("/v3/watch", "/etcdserverpb.Watch/Watch", true, true),
            ("/v3/lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive", true, true),
            ("/v3/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke", false, false),
            ("/v3/kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke", false, false),
            ("/v3/kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive", false, false),
            ("/v3/kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases", false, false),
            ("/v3/maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot", false, true),
            ("/v3/maintenance/transfer-leadership", "/etcdserverpb.Maintenance/MoveLeader", false, false),
            ("/v3/auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword", false, false),
            ("/v3/lock/lock", "/v3lockpb.Lock/Lock", false, false),
            ("/v3/election/observe", "/v3electionpb.Election/Observe", false, true),
        ] {
            let method = method(path).unwrap_or_else(|| panic!("{path} is there"));
            assert_eq!(method.path, call, "{path}");
            assert_eq!((method.streams_requests, method.streams_replies), (requests, replies), "{path}");
        }
        assert!(METHODS.values().all(|method| method.path != "/etcdserverpb.KV/RangeStream"), "for gRPC alone");
    }
}
