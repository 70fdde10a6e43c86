//! Who belongs to the cluster, and changes of that.
//!
//! One change at a time: a member that was added must have started before the next one is.

use super::{ASK, ASK_CORE, Client, Error, Repeat};
use crate::pb::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    cluster_client::ClusterClient,
};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

fn stub(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// The members of the core, also if a proxy is asked. `linearizable` asks the leader; otherwise the member that answers says what it knows.
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
        self.listed(linearizable, true).await
    }

    /// The members of the core if `of_core`, else whom a proxy that is asked wants clients to know.
    pub(super) async fn listed(&self, linearizable: bool, of_core: bool) -> Result<MemberListResponse, Error> {
        let request = MemberListRequest { linearizable };
        let send = async |channel, mut request: Request<MemberListRequest>| {
            if of_core {
                request.metadata_mut().insert(ASK, MetadataValue::from_static(ASK_CORE));
            }
            stub(channel).member_list(request).await
        };
        self.call(Repeat::Freely, request, send).await
    }

    /// Adds a voter that other members reach at `peer_urls`. It counts for the quorum at once, so start it right away; a learner is
    /// safer.
    ///
    /// # Errors
    /// What the member refuses with, or [`Error::Deadline`]; [`Error::may_have_been_applied`] tells whether it may be a member all the
    /// same.
    pub async fn member_add<I, S>(&self, peer_urls: I) -> Result<MemberAddResponse, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.add(peer_urls.into_iter().map(Into::into).collect(), false).await
    }

    /// Adds a learner: it receives the log, but has no vote before [`Client::member_promote`].
    ///
    /// # Errors
    /// As [`Client::member_add`].
    pub async fn member_add_as_learner<I, S>(&self, peer_urls: I) -> Result<MemberAddResponse, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.add(peer_urls.into_iter().map(Into::into).collect(), true).await
    }

    async fn add(&self, peer_ur_ls: Vec<String>, is_learner: bool) -> Result<MemberAddResponse, Error> {
        let request = MemberAddRequest { peer_ur_ls, is_learner };
        self.call(Repeat::IfNotApplied, request, async |channel, request| stub(channel).member_add(request).await).await
    }

    /// Removes a member for good: it stops, and its id never comes back.
    ///
    /// # Errors
    /// As [`Client::member_add`].
    pub async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, Error> {
        let request = MemberRemoveRequest { id };
        self.call(Repeat::IfNotApplied, request, async |channel, request| stub(channel).member_remove(request).await)
            .await
    }

    /// Says that other members reach this one at `peer_urls` from now on. Saying it twice is saying it once.
    ///
    /// # Errors
    /// As [`Client::member_add`].
    pub async fn member_update<I, S>(&self, id: u64, peer_urls: I) -> Result<MemberUpdateResponse, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let request = MemberUpdateRequest { id, peer_ur_ls: peer_urls.into_iter().map(Into::into).collect() };
        self.call(Repeat::Freely, request, async |channel, request| stub(channel).member_update(request).await).await
    }

    /// Gives a learner a vote. Refused until it has caught up with the leader.
    ///
    /// # Errors
    /// As [`Client::member_add`].
    pub async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, Error> {
        let request = MemberPromoteRequest { id };
        self.call(Repeat::IfNotApplied, request, async |channel, request| stub(channel).member_promote(request).await)
            .await
    }
}
