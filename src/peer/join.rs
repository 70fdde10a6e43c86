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
const PATIENCE: Duration = Duration::from_secs(2);
/// What etcd says of members that cannot be asked.
const NO_ANSWER: &str =
    "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs";

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

/// Asks the members at `urls`, one after the other, who belongs to their cluster, until `judge` makes something of an answer.
///
/// # Errors
/// What `judge` said of the last answer; etcd's text if there was none, and why is in the log.
pub async fn ask_cluster<T>(
    urls: &[String],
    tls: &Tls,
    mut judge: impl FnMut(Cluster) -> Result<T, String>,
) -> Result<T, String> {
    let mut failure = NO_ANSWER.to_owned();
    for url in urls {
        let answer = tokio::time::timeout(PATIENCE, ask(url, tls)).await;
        match answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))).map(&mut judge) {
            Ok(Ok(made)) => return Ok(made),
            Ok(Err(why)) => failure = why,
            Err(error) => tracing::warn!(address = url, error, "failed to get cluster response"),
        }
    }
    Err(failure)
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
