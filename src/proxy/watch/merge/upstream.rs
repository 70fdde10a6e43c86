//! Replies from upstream: to whom they belong, and what of them the client has not seen.

use super::{Homes, Merger, Nonsense, Place, Watcher, as_request};
use crate::pb::{
    etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion},
    mvccpb::Event,
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
    pub(super) fn upstream_created(&mut self, reply: WatchResponse) -> Result<(), Nonsense> {
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

    fn upstream_refused(&mut self, serial: i64, reply: WatchResponse) {
        let Some(watcher) = self.take_out(serial) else { return };
        match watcher.id {
            None => {
                let head = self.pending.pop_front();
                assert_eq!(head, Some(serial), "creates that are not answered are in the order in which they are sent");
                self.say(reply);
            }
            // It exists for the client: it ends.
            Some(id) => self.say(WatchResponse { watch_id: id, created: false, ..reply }),
        }
    }

    pub(super) fn upstream_canceled(&mut self, reply: WatchResponse) {
        // What this end cancelled is gone already.
        let Some(watcher) = self.served_upstream(reply.watch_id) else { return };
        let Some(id) = watcher.id else { return };
        self.take_out(reply.watch_id);
        self.say(WatchResponse { watch_id: id, ..reply });
    }

    pub(super) fn upstream_is_at(&mut self, reply: &WatchResponse) {
        // Whoever is about to be created may be behind.
        if !self.link.unanswered.is_empty() {
            self.link.ask_again = true;
            return;
        }
        let Some(header) = reply.header else { return };
        let verdict = self.progress.answered(Place::Upstream, header);
        self.act_on(Place::Upstream, verdict);
    }

    pub(super) fn upstream_events(&mut self, reply: WatchResponse) -> Result<(), Nonsense> {
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
