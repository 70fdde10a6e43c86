//! The Ring service: whoever is reported to, and asked, be it a member or a proxy.

use super::{Ledger, Roster, ledger};
use crate::runtime;
use crate::{
    pb::henge::ring::{
        AuthNews, AuthTick, ListRequest, ListResponse, Listed, Pace, Reports, Source, WhoseRequest, WhoseResponse,
        ring_server::{Ring, RingServer},
    },
    types::{Error, Revision},
};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status, Streaming, metadata::MetadataMap};

/// A stream that says nothing for so many intervals is no more, and a little time on top.
const SILENT_INTERVALS: u32 = 3;
const SILENT_MIN: Duration = Duration::from_secs(20);
/// Largest message: a few hundred proxies.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Proxies in one message of a list.
const LISTED_MAX: usize = 256;

/// What the service asks of its member or proxy.
pub trait Host: Ledger {
    /// Whether a call that carries this may see the list.
    ///
    /// # Errors
    /// What the caller is told.
    fn admit(&self, metadata: &MetadataMap, extensions: &Extensions)
    -> impl Future<Output = Result<(), Status>> + Send;
    /// Who answers, but for what the roster knows.
    fn source(&self) -> Source;
    /// What a proxy says of itself; a member is not in the list.
    fn own(&self) -> Option<Listed>;
    /// Somebody waits for copies of the host itself to come to `goal`.
    fn seek(&self, goal: Revision);
    /// Becomes `true` when streams have to end.
    fn stopping(&self) -> watch::Receiver<bool>;
}

/// The Ring service.
pub struct RingService<H> {
    host: H,
    roster: Roster,
}

impl<H: Host> RingService<H> {
    /// What answers calls, for `host`.
    pub fn server(host: H, roster: Roster) -> RingServer<RingService<H>> {
        RingServer::new(RingService { host, roster }).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl<H: Host> Ring for RingService<H> {
    type ReportStream = ReceiverStream<Result<Pace, Status>>;
    type AuthStream = ReceiverStream<Result<AuthNews, Status>>;
    type ListStream = tokio_stream::Iter<std::vec::IntoIter<Result<ListResponse, Status>>>;

    async fn report(&self, request: Request<Streaming<Reports>>) -> Result<Response<Self::ReportStream>, Status> {
        let line =
            self.roster.line().ok_or_else(|| Status::resource_exhausted(Error::RequestTooManyRequests.text()))?;
        let (sender, paces) = mpsc::channel(1);
        let (mut pace, mut stopping) = (self.roster.pace(), self.host.stopping());
        let mut reports = request.into_inner();
        runtime::spawn(async move {
            let (mut heard, mut said) = (Instant::now(), None);
            loop {
                let now = *pace.borrow_and_update();
                // Full: it has not even taken the last one; it gets this one when it speaks next.
                if said != Some(now) && sender.try_send(Ok(now)).is_ok() {
                    said = Some(now);
                }
                let interval = Duration::from_millis(u64::from(now.interval_ms));
                let silent_at = heard + SILENT_MIN.max(interval * SILENT_INTERVALS);
                tokio::select! {
                    // Reports that never stop keep neither the end nor a new pace waiting. The last one counts, though whoever sent it is gone.
                    biased;
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                    Ok(()) = pace.changed() => {}
                    report = reports.message() => match report {
                        Ok(Some(report)) => {
                            heard = Instant::now();
                            line.heard(report);
                        }
                        Ok(None) | Err(_) => return,
                    },
                    () = sender.closed() => return,
                    () = sleep_until(silent_at) => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(paces)))
    }

    async fn auth(&self, request: Request<Streaming<AuthTick>>) -> Result<Response<Self::AuthStream>, Status> {
        let (metadata, extensions, ticks) = request.into_parts();
        self.host.trust(&metadata, &extensions)?;
        let (sender, news) = mpsc::channel(1);
        runtime::spawn(ledger::tell(self.host.clone(), ticks, sender, self.host.stopping()));
        Ok(Response::new(ReceiverStream::new(news)))
    }

    async fn whose(&self, request: Request<WhoseRequest>) -> Result<Response<WhoseResponse>, Status> {
        let (metadata, extensions, WhoseRequest { token }) = request.into_parts();
        self.host.trust(&metadata, &extensions)?;
        Ok(Response::new(self.host.whose(token).await?))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let (metadata, extensions, ListRequest { goal }) = request.into_parts();
        self.host.admit(&metadata, &extensions).await?;
        let source = self.host.source();
        // What upstream has not come to nobody can have.
        if goal > 0 && goal <= source.revision {
            self.roster.aim(Revision(goal));
            self.host.seek(Revision(goal));
        }
        let ((mut all, is_partial), (listening, settled)) = (self.roster.list(), self.roster.listening());
        all.extend(self.host.own());
        let listening_ms = super::roster::millis(listening);
        let source = Source { listening_ms, settled_ms: super::roster::millis(settled), is_partial, ..source };
        let mut pages = vec![Ok(ListResponse { source: Some(source), proxies: Vec::new() })];
        let mut all = all.into_iter().peekable();
        while all.peek().is_some() {
            pages.push(Ok(ListResponse { source: None, proxies: all.by_ref().take(LISTED_MAX).collect() }));
        }
        Ok(Response::new(tokio_stream::iter(pages)))
    }
}
