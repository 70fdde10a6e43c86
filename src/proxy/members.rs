//! Who serves, as clients of a proxy are told: the core's members, or the proxy itself if it was told where clients reach it.
//!
//! Clients that follow the list (`clientv3.Sync`) would otherwise leave the proxy for the core behind it. Whoever needs the members of the core,
//! as an operator's tools do, says so ([`ASK`]).

use super::{Own, Upstream, local, register};
use crate::{
    pb::etcdserverpb::{Member, MemberListResponse, ResponseHeader},
    server::CallBody,
};
use http::{HeaderMap, Request, Response};
use tonic::body::Body;

/// Metadata by which a call says that it is for the core, and not for the proxies before it.
pub(super) const ASK: &str = crate::client::ASK;

/// Whether a call is for the core alone.
pub(super) fn asks_core(headers: &HeaderMap) -> bool {
    headers.get(ASK).is_some_and(|whom| whom.as_bytes() == crate::client::ASK_CORE.as_bytes())
}

/// The list of all that are registered where `own` is, or of `own` alone.
///
/// As etcd's proxy answers: with names and addresses and without ids, for they are no members.
pub(super) async fn list<R: CallBody>(own: &Own, upstream: &Upstream, request: Request<R>) -> Response<Body> {
    if let Err(status) = local::whole(request).await {
        return status.into_http();
    }
    let mut members = match &own.resolver {
        Some(resolver) => register::all(upstream, resolver).await,
        None => Vec::new(),
    };
    if members.is_empty() {
        members.push(Member { name: own.name.clone(), client_ur_ls: own.urls.clone(), ..Member::default() });
    }
    // Clients of etcd's that print the header take for granted that there is one.
    let answer = MemberListResponse { header: Some(ResponseHeader::default()), members };
    local::to_http(tonic::Response::new(answer))
}
