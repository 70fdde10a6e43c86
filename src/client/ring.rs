//! Which proxies there are, as one member or proxy knows them.

use super::{ASK, ASK_CORE, Client, Error};
use crate::pb::henge::ring::{ListRequest, Listed, Source, ring_client::RingClient};
use tonic::{Request, metadata::MetadataValue};

impl Client {
    /// The proxies behind whoever is asked now, and who that is: a member, or a proxy, which is in its own list. `of_core`: a proxy passes
    /// the question on. `goal`: whoever has copies below this revision is to say at once when it comes to it; 0: none.
    ///
    /// Asked once, of one address.
    ///
    /// # Errors
    /// UNIMPLEMENTED from a server that keeps no list, as etcd's; what the server refuses with; [`Error::Deadline`].
    pub async fn ring(&self, of_core: bool, goal: i64) -> Result<(Source, Vec<Listed>), Error> {
        let (_, channel) = self.endpoints().pick();
        let mut request = Request::new(ListRequest { goal });
        if of_core {
            request.metadata_mut().insert(ASK, MetadataValue::from_static(ASK_CORE));
        }
        let read = async {
            self.shared.proof(&channel).await?.put(&mut request);
            let mut pages = RingClient::new(channel).list(request).await?.into_inner();
            let (mut source, mut proxies) = (Source::default(), Vec::new());
            while let Some(page) = pages.message().await? {
                source = page.source.unwrap_or(source);
                proxies.extend(page.proxies);
            }
            Ok((source, proxies))
        };
        match self.options().request_timeout {
            Some(limit) => tokio::time::timeout(limit, read).await.unwrap_or(Err(Error::Deadline)),
            None => read.await,
        }
    }
}
