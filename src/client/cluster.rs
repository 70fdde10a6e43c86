//! Who belongs to the cluster.

use super::{Client, Error, Repeat};
use crate::pb::etcdserverpb::{MemberListRequest, MemberListResponse, cluster_client::ClusterClient};

impl Client {
    /// The members. `linearizable` asks the leader; otherwise the member that answers says what it knows.
    ///
    /// ```no_run
    /// # async fn example(client: henge::client::Client) -> Result<(), henge::client::Error> {
    /// for member in client.member_list(true).await?.members {
    ///     println!("{:x} {}", member.id, member.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the member refuses with, or [`Error::Deadline`].
    pub async fn member_list(&self, linearizable: bool) -> Result<MemberListResponse, Error> {
        self.call(Repeat::Freely, MemberListRequest { linearizable }, async |channel, request| {
            ClusterClient::new(channel).max_decoding_message_size(usize::MAX).member_list(request).await
        })
        .await
    }
}
