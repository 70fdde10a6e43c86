//! Watchers that move between upstream and hubs here, as copies come and go.

use super::{Home, Homes, Merger, Place, Watcher, progress_request};
use crate::{pb::etcdserverpb::watch_request::RequestUnion, types::Revision};

impl<H: Homes> Merger<H> {
    /// For from time to time. Asks each hub how far it is, so that watchers without events can go on elsewhere from there.
    pub(in crate::proxy::watch) fn probe(&mut self) {
        let is_due = |place: &Place| *place != Place::Upstream && !self.progress.hub_owes(*place);
        let places: Vec<Place> = self.crowds.keys().copied().filter(is_due).collect();
        places.into_iter().for_each(|place| self.ask(place));
    }

    /// Whether there are watchers that went upstream for want of a copy.
    pub(in crate::proxy::watch) fn has_watchers_away(&self) -> bool {
        self.crowds.contains_key(&Place::Upstream)
    }

    /// For from time to time. Has watchers that went upstream for want of a copy come home, if there is one now. It may begin after what
    /// they are known to have seen: then upstream is asked how far they are.
    pub(in crate::proxy::watch) fn come_home(&mut self) {
        if self.bring_home() && self.link.is_up && self.link.requests.is_empty() {
            self.link.is_homesick = true;
            self.link.requests.push_back(progress_request());
        }
    }

    /// A hub is about to be no more: asks how far it has come, so that its watchers go on elsewhere from as late as can be.
    pub(in crate::proxy::watch) fn ask_before_the_end(&mut self, home: Home) {
        let place = Place::Home(home);
        if self.crowds.contains_key(&place) && !self.progress.hub_owes(place) {
            self.ask(place);
        }
    }

    /// The hub is no more: its watchers go elsewhere.
    pub(in crate::proxy::watch) fn home_ended(&mut self, home: Home) {
        let place = Place::Home(home);
        self.take_back_creates(place);
        let at_home = |watcher: &&i64| self.watchers[watcher].place == place;
        let serials: Vec<i64> = self.watchers.keys().filter(at_home).copied().collect();
        for serial in serials {
            let Some(watcher) = self.take_out(serial) else { continue };
            let place = self.place_for(&watcher.range, watcher.next);
            self.settle(Watcher { place, ..watcher });
        }
        let verdict = self.progress.lost(place);
        self.act_on(place, verdict);
        self.advance();
    }

    /// Who may watch what here may be another matter now: watchers that may not be served by hubs any more go upstream, from where they are.
    /// What a hub has for them still is not told.
    pub(in crate::proxy::watch) fn reconsider(&mut self) {
        let is_barred = |watcher: &Watcher| watcher.place != Place::Upstream && !self.homes.allows(&watcher.range);
        let barred = self.watchers.iter().filter(|(_, watcher)| is_barred(watcher));
        let barred: Vec<i64> = barred.map(|(serial, _)| *serial).collect();
        if barred.is_empty() {
            return;
        }
        // Creates that are not answered are at one place, and in order there: all of them are requests again.
        if self.pending.iter().any(|serial| barred.contains(serial)) {
            while let Some(serial) = self.pending.pop_back() {
                let watcher = self.withdraw(serial).expect("a create that is not answered has a watcher");
                self.waiting.push_front(RequestUnion::CreateRequest(watcher.create));
            }
        }
        for serial in barred {
            if let Some(watcher) = self.withdraw(serial) {
                self.settle(Watcher { place: Place::Upstream, ..watcher });
            }
        }
        self.advance();
    }

    /// Whether there are some who could come if they were further on.
    pub(super) fn bring_home(&mut self) -> bool {
        let is_away = |watcher: &Watcher| watcher.place == Place::Upstream && watcher.id.is_some();
        let away = self.watchers.iter().filter(|(_, watcher)| is_away(watcher));
        let away: Vec<i64> = away.map(|(serial, _)| *serial).collect();
        let mut has_others = false;
        for serial in away {
            let watcher = &self.watchers[&serial];
            if !self.homes.has(&watcher.range) {
                continue;
            }
            let Some(home) = self.homes.find(&watcher.range, Revision(watcher.next)) else {
                has_others = true;
                continue;
            };
            if let Some(watcher) = self.withdraw(serial) {
                self.settle(Watcher { place: Place::Home(home), ..watcher });
            }
        }
        has_others
    }
}
