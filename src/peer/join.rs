//! What a member asks before it belongs to a cluster.

use super::{
    convert::member_from_wire,
    dial::{Dialer, KeepAlive},
    tls::Tls,
};
use crate::{
    membership::Member,
    pb::henge::peer::{ClusterRequest, ClusterResponse, peer_client::PeerClient},
    types::{ClusterId, MemberId},
};
use std::time::Duration;

/// How long one URL may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cluster, as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// For life.
    pub id: ClusterId,
    /// Whoever answered.
    pub member_id: MemberId,
    /// All members, by id.
    pub members: Vec<Member>,
}

/// Asks the members at `urls`, one after the other, who belongs to their cluster; the first answer that `is_good` counts.
///
/// # Errors
/// etcd's text, if nobody gives a good answer; why is in the log.
pub async fn ask_cluster(urls: &[String], tls: &Tls, is_good: impl Fn(&Cluster) -> bool) -> Result<Cluster, String> {
    for url in urls {
        match tokio::time::timeout(PATIENCE, ask(url, tls))
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
        {
            Ok(cluster) if is_good(&cluster) => return Ok(cluster),
            Ok(_) => tracing::warn!(address = url, "a member gave an answer that does not help"),
            Err(error) => tracing::warn!(address = url, error, "failed to get cluster response"),
        }
    }
    Err("could not retrieve cluster information from the given URLs".to_owned())
}

async fn ask(url: &str, tls: &Tls) -> Result<Cluster, String> {
    let dialer = Dialer { tls: tls.clone(), patience: PATIENCE };
    let channel = dialer.dial(url, KeepAlive { interval: PATIENCE, timeout: PATIENCE }).await?;
    let answer = PeerClient::new(channel).cluster(ClusterRequest {}).await;
    let ClusterResponse { cluster_id, member_id, members } =
        answer.map_err(|status| status.message().to_owned())?.into_inner();
    let members = members.into_iter().map(member_from_wire).collect();
    Ok(Cluster { id: ClusterId(cluster_id), member_id: MemberId(member_id), members })
}
