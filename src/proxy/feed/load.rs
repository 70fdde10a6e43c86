//! A feed begins: the range as it is at one revision.

use super::{End, Feed, fault, replies::key_value, sound, to_wire};
use crate::{
    mvcc::KeyValue,
    pb::{
        etcdserverpb::{self as pb, kv_client::KvClient},
        mvccpb,
    },
    proxy::{
        budget::Held,
        copy::{Loading, Writer},
        fence::{asks_who, header},
        source::own,
    },
};
use tonic::{Code, Status, transport::Channel};

/// Keys of the first page; later ones follow the size of what came.
const PAGE_KEYS_FIRST: usize = 64;
const PAGE_KEYS_MAX: usize = 10_000;
/// What a page should weigh, about.
const PAGE_BYTES: usize = 1 << 20;

/// Why a part of a range did not come.
enum Part {
    Ends(End),
    /// Upstream does not know this call.
    Unknown,
}

impl From<End> for Part {
    fn from(end: End) -> Part {
        Part::Ends(end)
    }
}

impl Feed {
    /// A copy of the range as it is at some moment from now on.
    pub(super) async fn load(&self, held: &mut Held) -> Result<Writer, End> {
        let proof = self.fence.pass().await.map_err(|refusal| End::Lost(refusal.to_string()))?;
        let mut loading = Loading::new(self.range.clone(), proof);
        let mut limit = PAGE_KEYS_FIRST;
        let mut failures_left = 2 * self.source.ways();
        // A page of the past makes upstream count all that is left of the range; a stream does not.
        let mut streams = self.rules.streams;
        loop {
            let (turn, channel) = self.source.pick();
            let client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
            let part = match streams {
                true => self.stream(client, &mut loading, held).await,
                false => self.page(client, &mut loading, held, &mut limit).await,
            };
            match part {
                Ok(true) => return loading.finish(self.rules.keep, self.rules.hub.clone()).map_err(fault),
                Ok(false) => {}
                Err(Part::Unknown) if streams => streams = false,
                Err(Part::Ends(End::Lost(why))) if failures_left > 0 => {
                    tracing::debug!(why, "the rest of a range is asked for again");
                    failures_left -= 1;
                    self.source.leave(turn);
                }
                Err(Part::Ends(end)) => return Err(end),
                Err(Part::Unknown) => return Err(End::Lost("upstream knows no ranges".into())),
            }
        }
    }

    /// Takes the rest of the range in as it streams by: true at the end.
    async fn stream(
        &self,
        mut client: KvClient<Channel>,
        loading: &mut Loading,
        held: &mut Held,
    ) -> Result<bool, Part> {
        let request = own(&*self.source, rest_of(loading, 0));
        let mut chunks = self.in_time(client.range_stream(request)).await?.into_inner();
        let mut is_of_cluster = false;
        while let Some(chunk) = self.in_time(chunks.message()).await? {
            let chunk = chunk.range_response.unwrap_or_default();
            if let Some(header) = header(chunk.header) {
                is_of_cluster = loading.is_of(&header);
            }
            self.take(loading, held, chunk.kvs).await?;
        }
        // The last chunk has the header: without it something broke off.
        if is_of_cluster { Ok(true) } else { Err(Part::Ends(End::Lost("a stream without its end".into()))) }
    }

    /// Takes the next page in: true at the end.
    async fn page(
        &self,
        mut client: KvClient<Channel>,
        loading: &mut Loading,
        held: &mut Held,
        limit: &mut usize,
    ) -> Result<bool, Part> {
        let page = self.in_time(client.range(own(&*self.source, rest_of(loading, *limit)))).await?.into_inner();
        if header(page.header).is_none_or(|header| !loading.is_of(&header)) {
            return Err(Part::Ends(End::Over("pages came from several clusters".into())));
        }
        let (keys, more) = (page.kvs.len(), page.more && !page.kvs.is_empty());
        let bytes = self.take(loading, held, page.kvs).await?;
        *limit = (keys * PAGE_BYTES / bytes.max(1)).clamp(1, PAGE_KEYS_MAX);
        Ok(!more)
    }

    /// The outcome of one call, or of one step of a stream.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Part> {
        let result = tokio::time::timeout(self.rules.call_max, call).await;
        result.unwrap_or_else(|_| Err(crate::types::Error::Timeout.into())).map_err(|status| match status.code() {
            Code::Unimplemented => Part::Unknown,
            // Compacted meanwhile, or locked: begin again.
            _ if status.code() == Code::OutOfRange || asks_who(&status) => {
                Part::Ends(End::Over(status.message().to_owned()))
            }
            _ => Part::Ends(End::Lost(status.message().to_owned())),
        })
    }

    /// Takes keys in, if there is room; their bytes.
    async fn take(&self, loading: &mut Loading, held: &mut Held, kvs: Vec<mvccpb::KeyValue>) -> Result<usize, End> {
        let kvs: Vec<KeyValue> = kvs.into_iter().map(key_value).collect();
        sound(loading.page(&kvs))?;
        let bytes = loading.bytes();
        if self.is_more_than_it_is_worth(bytes) || !held.resize(bytes).await {
            return Err(End::TooLarge);
        }
        Ok(kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum())
    }

    fn is_more_than_it_is_worth(&self, bytes: usize) -> bool {
        let worth = self.bytes_per_point.map(|of_one| of_one as f32 * self.place.rank().points());
        worth.is_some_and(|worth| bytes as f32 > worth)
    }
}

fn rest_of(loading: &Loading, limit: usize) -> pb::RangeRequest {
    let (key, range_end) = to_wire(&loading.rest());
    pb::RangeRequest { key, range_end, limit: limit as i64, revision: loading.revision().0, ..Default::default() }
}
