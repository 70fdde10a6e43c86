//! Looking after members: status, hashes, alarms, defragmentation, snapshots, the lead.
//!
//! Status, hash and defragmentation are about one member. A client with several endpoints asks whichever answers; to ask a
//! given one, connect a client to it alone.

use super::{Client, Error, Repeat};
use crate::pb::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse, alarm_request::AlarmAction, downgrade_request::DowngradeAction,
    maintenance_client::MaintenanceClient,
};
use std::time::Duration;
use tonic::{Streaming, transport::Channel};

fn stub(channel: Channel) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// How the member is: version, sizes, leader, Raft's term and indexes. Needs no quorum.
    ///
    /// # Errors
    /// What the member refuses with, or [`Error::Deadline`].
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        self.call(Repeat::Freely, StatusRequest {}, async |channel, request| stub(channel).status(request).await).await
    }

    /// The hash of the member's records up to `revision` (0: the current one). Equal on all healthy members.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Error> {
        let request = HashKvRequest { revision };
        self.call(Repeat::Freely, request, async |channel, request| stub(channel).hash_kv(request).await).await
    }

    /// The alarms that are raised.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn alarms(&self) -> Result<AlarmResponse, Error> {
        self.alarm(AlarmAction::Get, 0, AlarmType::None).await
    }

    /// Lowers one alarm; member 0 with [`AlarmType::None`] lowers all. Lowering twice is lowering once.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn alarm_disarm(&self, member: u64, alarm: AlarmType) -> Result<AlarmResponse, Error> {
        if member != 0 || alarm != AlarmType::None {
            return self.alarm(AlarmAction::Deactivate, member, alarm).await;
        }
        // The server lowers one at a time, so "all" is a list and a loop here.
        let mut lowered = AlarmResponse::default();
        for raised in self.alarms().await?.alarms {
            let answer = self.alarm(AlarmAction::Deactivate, raised.member_id, raised.alarm()).await?;
            lowered.header = answer.header;
            lowered.alarms.extend(answer.alarms);
        }
        Ok(lowered)
    }

    async fn alarm(&self, action: AlarmAction, member_id: u64, alarm: AlarmType) -> Result<AlarmResponse, Error> {
        let request = AlarmRequest { action: action as i32, member_id, alarm: alarm as i32 };
        self.call(Repeat::Freely, request, async |channel, request| stub(channel).alarm(request).await).await
    }

    /// Hands the lead to member `to`; answers when that leads. Only the leader can, so with several endpoints they are asked in turn.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn move_leader(&self, to: u64) -> Result<MoveLeaderResponse, Error> {
        let request = MoveLeaderRequest { target_id: to };
        self.call(Repeat::IfNotApplied, request, async |channel, request| stub(channel).move_leader(request).await)
            .await
    }

    /// Asks whether the cluster could be downgraded to `version` (`3.6`), begins that, or (without a version) ends it.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn downgrade(&self, action: DowngradeAction, version: &str) -> Result<DowngradeResponse, Error> {
        let request = DowngradeRequest { action: action as i32, version: version.to_owned() };
        let repeat = if action == DowngradeAction::Validate { Repeat::Freely } else { Repeat::IfNotApplied };
        self.call(repeat, request, async |channel, request| stub(channel).downgrade(request).await).await
    }

    /// Gives free space back to the file system, where the member's store needs that. `limit` replaces the usual time limit,
    /// which is too short for etcd members with large stores.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn defragment(&self, limit: Option<Duration>) -> Result<DefragmentResponse, Error> {
        self.call_within(limit, Repeat::IfNotApplied, DefragmentRequest {}, async |channel, request| {
            stub(channel).defragment(request).await
        })
        .await
    }

    /// The member's whole store, in chunks.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let stream = self
            .call(Repeat::Freely, SnapshotRequest {}, async |channel, request| stub(channel).snapshot(request).await)
            .await?;
        Ok(Snapshot { stream, remaining: None })
    }
}

/// A snapshot on its way.
///
/// ```no_run
/// # async fn example(client: henge::client::Client) -> Result<(), henge::client::Error> {
/// let mut snapshot = client.snapshot().await?;
/// let mut bytes = 0;
/// while let Some(chunk) = snapshot.next().await? {
///     bytes += chunk.blob.len();
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Snapshot {
    stream: Streaming<SnapshotResponse>,
    remaining: Option<u64>,
}

impl Snapshot {
    /// The next chunk; `None` after the last. The last bytes are a SHA-256 of all before them.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the stream ended while the member still announced more.
    pub async fn next(&mut self) -> Result<Option<SnapshotResponse>, Error> {
        match self.stream.message().await? {
            Some(chunk) => {
                self.remaining = Some(chunk.remaining_bytes);
                Ok(Some(chunk))
            }
            None if self.remaining == Some(0) => Ok(None),
            None => Err(Error::Truncated("snapshot")),
        }
    }
}
