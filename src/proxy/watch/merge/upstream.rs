//! The stream upstream: what is asked there, to whom a reply belongs, and what of it the client has not seen.

use super::{Homes, Link, Merger, Nonsense, Place, Watcher, as_request, progress_request};
use crate::{
    pb::{
        etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion},
        mvccpb::Event,
    },
    types::Error,
    watch::NO_WATCHER,
};

impl Watcher {
    /// Asks for this watcher from where it stands.
    pub(super) fn upstream_create(&self, serial: i64) -> WatchRequest {
        let create = WatchCreateRequest {
            watch_id: serial,
            start_revision: self.next,
            // Whoever has no events for long must still know where to go on when the link is lost.
            progress_notify: true,
            ..self.create.clone()
        };
        as_request(RequestUnion::CreateRequest(create))
    }
}

impl<H: Homes> Merger<H> {
    /// There is a new link upstream: everything that goes there is asked for again.
    pub(in crate::proxy::watch) fn link_up(&mut self) {
        let header = self.link.header.take();
        self.link = Link { is_up: true, header, ..Link::default() };
        if self.progress.link_is_new() {
            self.link.requests.push_back(progress_request());
        }
    }

    /// The link upstream is lost. The client's watchers stay.
    pub(in crate::proxy::watch) fn link_down(&mut self) {
        let header = self.link.header.take();
        self.link = Link { header, ..Link::default() };
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.place == Place::Upstream) {
            watcher.is_there = false;
        }
        self.take_back_creates(Place::Upstream);
        self.advance();
    }

    /// The next request to send on the link.
    pub(in crate::proxy::watch) fn next_upstream(&mut self) -> Option<WatchRequest> {
        if !self.link.is_up {
            return None;
        }
        let from = self.link.cursor;
        let next = self.watchers.range(from..).find(|(_, watcher)| watcher.place == Place::Upstream);
        if let Some((serial, watcher)) = next {
            self.link.cursor = serial + 1;
            self.link.unanswered.push_back(*serial);
            return Some(watcher.upstream_create(*serial));
        }
        self.link.cursor = self.next_serial;
        self.link.requests.pop_front()
    }

    /// Whether the client waits for upstream to say how far it is.
    pub(super) fn awaits_upstream_progress(&self) -> bool {
        self.progress.waits_for(Place::Upstream)
    }

    /// Asks upstream again how far it is: etcd does not answer while a watcher of the stream is behind, and does not say so.
    pub(in crate::proxy::watch) fn ask_upstream_again(&mut self) {
        // What stands there to be sent may be the cancellation of a watcher that has come home.
        let is_asked = self.link.requests.contains(&progress_request());
        if self.link.is_up && self.awaits_upstream_progress() && !is_asked {
            self.link.requests.push_back(progress_request());
        }
    }

    /// Takes a reply from upstream.
    ///
    /// # Errors
    /// [`Nonsense`]: the link has to be given up.
    pub(in crate::proxy::watch) fn replied(&mut self, reply: WatchResponse) -> Result<(), Nonsense> {
        if let Some(header) = &reply.header {
            self.link.header = Some(*header);
        }
        if reply.created {
            return self.upstream_created(reply);
        }
        if reply.canceled {
            self.upstream_canceled(reply);
        } else if reply.watch_id == NO_WATCHER && reply.events.is_empty() {
            self.upstream_is_at(&reply);
        } else {
            return self.upstream_events(reply);
        }
        Ok(())
    }

    fn upstream_created(&mut self, reply: WatchResponse) -> Result<(), Nonsense> {
        // A refusal does not say of whom; that creates are answered in order does.
        let Some(serial) = self.link.unanswered.pop_front() else {
            return Err(Nonsense("a watcher was created that nobody asked for"));
        };
        if !reply.canceled && reply.watch_id != serial {
            return Err(Nonsense("a watcher was created with another id"));
        }
        if reply.canceled {
            self.upstream_refused(serial, reply);
        } else {
            let revision = reply.header.map_or(0, |header| header.revision);
            if let Some(id) = self.created(serial, revision) {
                self.say(WatchResponse { watch_id: id, ..reply });
            }
        }
        if self.link.unanswered.is_empty() && std::mem::take(&mut self.link.ask_again) {
            self.ask_upstream_again();
        }
        self.advance();
        Ok(())
    }

    /// Whether watchers went upstream that upstream would serve, but for the token of this stream, which has ended: the client has to begin
    /// another one.
    pub(in crate::proxy::watch) fn is_unproven(&self) -> bool {
        self.is_unproven
    }

    fn upstream_refused(&mut self, serial: i64, reply: WatchResponse) {
        let Some(watcher) = self.take_out(serial) else { return };
        match watcher.id {
            None => {
                let head = self.pending.pop_front();
                assert_eq!(head, Some(serial), "creates that are not answered are in the order in which they are sent");
                self.say(reply);
            }
            // It exists for the client, which can prove who it is only with another stream: the token that this one began with has ended.
            Some(_) if reply.cancel_reason.ends_with(Error::InvalidAuthToken.text()) => self.is_unproven = true,
            // It exists for the client: it ends.
            Some(id) => self.say(WatchResponse { watch_id: id, created: false, ..reply }),
        }
        self.ask_nobody_upstream();
    }

    fn upstream_canceled(&mut self, reply: WatchResponse) {
        // What this end cancelled is gone already.
        let Some(watcher) = self.served_upstream(reply.watch_id) else { return };
        let Some(id) = watcher.id else { return };
        self.take_out(reply.watch_id);
        self.say(WatchResponse { watch_id: id, ..reply });
        self.ask_nobody_upstream();
    }

    fn upstream_is_at(&mut self, reply: &WatchResponse) {
        // Whoever is about to be created may be behind.
        if !self.link.unanswered.is_empty() {
            self.link.ask_again = true;
            return;
        }
        let Some(header) = reply.header else { return };
        // Said of all watchers of the stream: they have what is up to here. Between fragments some of it is still on its way.
        if self.link.fragments.is_empty() {
            let served = |watcher: &&mut Watcher| watcher.place == Place::Upstream && watcher.is_there;
            for watcher in self.watchers.values_mut().filter(served) {
                watcher.next = watcher.next.max(header.revision + 1);
            }
            if std::mem::take(&mut self.link.is_homesick) {
                self.bring_home();
            }
        }
        let verdict = self.progress.answered(Place::Upstream, header);
        self.act_on(Place::Upstream, verdict);
    }

    fn upstream_events(&mut self, reply: WatchResponse) -> Result<(), Nonsense> {
        let serial = reply.watch_id;
        if self.served_upstream(serial).is_none_or(|watcher| watcher.id.is_none()) {
            return Ok(());
        }
        if self.link.fragments.first().is_some_and(|part| part.watch_id != serial) {
            return Err(Nonsense("a reply stands between fragments of another"));
        }
        if reply.events.is_empty() && !reply.fragment && self.link.fragments.is_empty() {
            self.upstream_progress(reply);
            return Ok(());
        }
        let is_last = !reply.fragment;
        self.link.fragments.push(reply);
        if is_last {
            let parts = std::mem::take(&mut self.link.fragments);
            self.pass(serial, parts);
        }
        Ok(())
    }

    /// Passes a complete reply on, but for what the client has seen before the link was lost.
    fn pass(&mut self, serial: i64, mut parts: Vec<WatchResponse>) {
        let Some(watcher) = self.watchers.get_mut(&serial) else { return };
        let Some(id) = watcher.id else { return };
        let next = watcher.next;
        for part in &mut parts {
            part.watch_id = id;
            part.events.retain(|event| revision(event) >= next);
        }
        parts.retain(|part| !part.events.is_empty());
        let Some(last) = parts.last_mut() else { return };
        last.fragment = false;
        watcher.next = last.events.last().map_or(next, |event| revision(event) + 1);
        parts.into_iter().for_each(|part| self.say(part));
    }

    /// A watcher without events is told how far it is, if the client wants to know.
    fn upstream_progress(&mut self, reply: WatchResponse) {
        let Some(watcher) = self.watchers.get_mut(&reply.watch_id) else { return };
        let revision = reply.header.map_or(0, |header| header.revision);
        // A member that lags would have the client go back.
        if !watcher.is_there || revision + 1 < watcher.next {
            return;
        }
        watcher.next = revision + 1;
        if let Some(id) = watcher.id.filter(|_| watcher.create.progress_notify) {
            self.say(WatchResponse { watch_id: id, ..reply });
        }
    }

    fn served_upstream(&self, serial: i64) -> Option<&Watcher> {
        self.watchers.get(&serial).filter(|watcher| watcher.place == Place::Upstream)
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
