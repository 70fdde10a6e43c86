//! Keys and values: get, put, delete, transactions, compaction.

use super::{Client, Error, Repeat, Txn};
use crate::{
    pb::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
        RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_client::KvClient, request_op::Request as Wire,
    },
    types::prefix_end,
};
use bytes::Bytes;
use prost::Message;
use tonic::{Code, transport::Channel};

/// The end of the range that holds every key from its start on.
pub const OPEN_END: &[u8] = b"\0";

/// What a get reads besides one key. The default is one key, linearizable, at the current revision.
///
/// ```
/// use henge::client::GetOptions;
/// let ten_names = GetOptions { limit: 10, keys_only: true, ..GetOptions::prefix("users/") };
/// ```
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// End of the range, exclusive; empty: one key; `"\0"`: every key from the first on.
    pub range_end: Bytes,
    /// At most this many keys; 0: all.
    pub limit: i64,
    /// As of this revision; 0: now.
    pub revision: i64,
    /// A `RangeRequest.SortOrder`.
    pub sort_order: i32,
    /// A `RangeRequest.SortTarget`.
    pub sort_target: i32,
    /// May be stale: any member answers from what it has.
    pub serializable: bool,
    /// Leave out the values.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Drop keys last changed before this revision; 0: off.
    pub min_mod_revision: i64,
    /// Drop keys last changed after this revision; 0: off.
    pub max_mod_revision: i64,
    /// Drop keys created before this revision; 0: off.
    pub min_create_revision: i64,
    /// Drop keys created after this revision; 0: off.
    pub max_create_revision: i64,
}

impl GetOptions {
    /// Every key that starts with `prefix`, which must also be the key of the call; for the empty prefix the key is `"\0"`.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> GetOptions {
        GetOptions { range_end: end_of_prefix(prefix.as_ref()), ..GetOptions::default() }
    }

    /// The request for `key`.
    pub fn request(self, key: impl Into<Bytes>) -> RangeRequest {
        RangeRequest {
            key: key.into(),
            range_end: self.range_end,
            limit: self.limit,
            revision: self.revision,
            sort_order: self.sort_order,
            sort_target: self.sort_target,
            serializable: self.serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_revision,
            max_mod_revision: self.max_mod_revision,
            min_create_revision: self.min_create_revision,
            max_create_revision: self.max_create_revision,
        }
    }
}

/// What a put does besides setting the value.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Attach to this lease; 0: to none.
    pub lease: i64,
    /// Answer with what was there before.
    pub prev_kv: bool,
    /// Keep the present value; the key must exist.
    pub ignore_value: bool,
    /// Keep the present lease; the key must exist.
    pub ignore_lease: bool,
}

impl PutOptions {
    /// The request that sets `key` to `value`.
    pub fn request(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
        PutRequest {
            key: key.into(),
            value: value.into(),
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        }
    }
}

/// What a delete removes besides one key.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// As in [`GetOptions::range_end`].
    pub range_end: Bytes,
    /// Answer with what was removed.
    pub prev_kv: bool,
}

impl DeleteOptions {
    /// Every key that starts with `prefix`; see [`GetOptions::prefix`].
    pub fn prefix(prefix: impl AsRef<[u8]>) -> DeleteOptions {
        DeleteOptions { range_end: end_of_prefix(prefix.as_ref()), ..DeleteOptions::default() }
    }

    /// The request that removes `key`.
    pub fn request(self, key: impl Into<Bytes>) -> DeleteRangeRequest {
        DeleteRangeRequest { key: key.into(), range_end: self.range_end, prev_kv: self.prev_kv }
    }
}

/// The wire's end for a prefix: a prefix of 0xff bytes alone has no successor and runs to the end of all keys.
pub fn end_of_prefix(prefix: &[u8]) -> Bytes {
    prefix_end(prefix).unwrap_or_else(|| Bytes::from_static(OPEN_END))
}

impl Client {
    /// A service stub. Requests were measured before ([`Client::fits`]); of answers the member's own limit is mostly the one that counts.
    fn stub(&self, channel: Channel) -> KvClient<Channel> {
        let receive_bytes_max = self.options().receive_bytes_max;
        KvClient::new(channel).max_decoding_message_size(receive_bytes_max).max_encoding_message_size(usize::MAX)
    }

    /// Refuses what is larger than this client may send, in the words of etcd's.
    fn fits<T: Message>(&self, request: T) -> Result<T, Error> {
        let (bytes, most) = (request.encoded_len(), self.options().send_bytes_max);
        match bytes <= most {
            true => Ok(request),
            false => Err(Error::Status {
                code: Code::ResourceExhausted,
                text: format!("trying to send message larger than max ({bytes} vs. {most})"),
            }),
        }
    }

    /// Reads `key`, or the range that `options` spans from it.
    ///
    /// # Errors
    /// What the member refuses with, or [`Error::Deadline`].
    pub async fn get(&self, key: impl Into<Bytes>, options: GetOptions) -> Result<RangeResponse, Error> {
        self.range(options.request(key)).await
    }

    /// [`Client::get`] for a request that is already built.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.call(Repeat::Freely, request, async |channel, request| self.stub(channel).range(request).await).await
    }

    /// [`Client::range`] in pieces that the member sends as it reads, put together here. For ranges that are too large to be one message.
    ///
    /// # Errors
    /// As [`Client::get`]; members refuse requests that are sorted or filtered by revision.
    pub async fn range_in_pieces(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let limit = self.options().request_timeout;
        let whole = async {
            let open = async |channel, request| self.stub(channel).range_stream(request).await;
            let mut pieces = self.call(Repeat::Freely, request, open).await?;
            let mut whole = RangeResponse::default();
            while let Some(piece) = pieces.message().await? {
                let piece = piece.range_response.unwrap_or_default();
                // Only one piece has the header, and the last one the count of all.
                whole.header = whole.header.or(piece.header);
                whole.kvs.extend(piece.kvs);
                whole.more |= piece.more;
                whole.count = if piece.count == 0 { whole.count } else { piece.count };
            }
            Ok(whole)
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, whole).await.unwrap_or(Err(Error::Deadline)),
            None => whole.await,
        }
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// As [`Client::get`]; [`Error::may_have_been_applied`] tells whether the value may be there all the same.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<PutResponse, Error> {
        let request = self.fits(options.request(key, value))?;
        self.call(Repeat::IfNotApplied, request, async |channel, request| self.stub(channel).put(request).await).await
    }

    /// Removes `key`, or the range that `options` spans from it.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete(&self, key: impl Into<Bytes>, options: DeleteOptions) -> Result<DeleteRangeResponse, Error> {
        let request = options.request(key);
        self.call(Repeat::IfNotApplied, request, async |channel, request| {
            self.stub(channel).delete_range(request).await
        })
        .await
    }

    /// Runs a transaction; see [`Txn`]. One that only reads is repeated as freely as a get.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        let request = self.fits(txn.into_request())?;
        let repeat = if only_reads(&request) { Repeat::Freely } else { Repeat::IfNotApplied };
        self.call(repeat, request, async |channel, request| self.stub(channel).txn(request).await).await
    }

    /// Forgets history below `revision`. With `physical` the answer comes once the space is swept.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn compact(&self, revision: i64, physical: bool) -> Result<CompactionResponse, Error> {
        let request = CompactionRequest { revision, physical };
        self.call(Repeat::IfNotApplied, request, async |channel, request| self.stub(channel).compact(request).await)
            .await
    }
}

fn only_reads(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Wire::RequestRange(_)) => true,
        Some(Wire::RequestTxn(inner)) => only_reads(inner),
        Some(Wire::RequestPut(_) | Wire::RequestDeleteRange(_)) => false,
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Compare, Op};

    #[test]
    fn a_prefix_ends_at_its_successor_or_never() {
        assert_eq!(end_of_prefix(b"ab"), "ac");
        assert_eq!(end_of_prefix(b"a\xff"), "b");
        assert_eq!(end_of_prefix(b"\xff\xff"), OPEN_END);
        assert_eq!(end_of_prefix(b""), OPEN_END);
    }

    #[test]
    fn a_put_hidden_in_a_nested_txn_is_a_write() {
        let nested = Txn::new().then([Op::put("a", "b")]);
        let txn = Txn::new().when([Compare::version("a").equal(0)]).then([Op::get("a")]).otherwise([Op::txn(nested)]);
        assert!(!only_reads(&txn.into_request()));
        assert!(only_reads(&Txn::new().then([Op::get("a")]).into_request()));
    }
}
