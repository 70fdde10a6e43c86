//! The network: what one member says to another is lost, held up, and (what raft says) doubled; snapshots go in portions, and break off.

use super::{
    clock::Time,
    plan::{Lie, MS},
    world::{Event, World},
};
use crate::{
    engine::Table,
    io::Rng,
    membership::Member,
    raft,
    replica::{Incoming, Letter, Outgoing, PeerMessage, Transport},
    sim::Chance,
    types::MemberId,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// What the network does to messages, in parts of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Held up for long, so that later ones overtake.
    pub late: u64,
    /// Longest ordinary travel, in microseconds.
    pub delay_max: u64,
    /// Portions of a snapshot after which it breaks off.
    pub breaks: u64,
}

impl Weather {
    /// No faults.
    pub const FINE: Weather = Weather { lost: 0, doubled: 0, late: 0, delay_max: 2 * MS, breaks: 0 };

    /// Any weather.
    pub fn draw(chance: &mut Chance) -> Weather {
        let part = |chance: &mut Chance| [0, 0, 0, 10, 50, 200][chance.below(6) as usize];
        Weather {
            lost: part(chance),
            doubled: part(chance),
            late: part(chance),
            delay_max: [MS, 5 * MS, 40 * MS, 150 * MS][chance.below(4) as usize],
            breaks: part(chance),
        }
    }
}

/// What a member has given to the network and the world has not taken yet.
#[derive(Default)]
struct Out {
    letters: Vec<Letter>,
    snapshots: Vec<(MemberId, Outgoing)>,
    /// Receivers of snapshots under way.
    sending: BTreeSet<MemberId>,
    known: BTreeSet<MemberId>,
    /// Who has spoken to it: whoever lags learns so where newer members are, as with etcd's peers.
    heard: BTreeSet<MemberId>,
    removed: BTreeSet<MemberId>,
}

/// One member's way out.
#[derive(Default)]
pub struct Way {
    out: Mutex<Out>,
    links: Arc<Mutex<Links>>,
    time: Time,
    /// This member, once it is known.
    pub own: Mutex<MemberId>,
}

/// Which links lose everything, by members; and since when the others work.
#[derive(Default)]
pub struct Links {
    cut: BTreeSet<(MemberId, MemberId)>,
    /// The end of the last cut.
    joined_us: BTreeMap<(MemberId, MemberId), u64>,
}

impl Way {
    /// A way into the network.
    pub fn new(links: Arc<Mutex<Links>>, time: Time) -> Way {
        Way { links, time, ..Way::default() }
    }

    fn take(&self) -> (Vec<Letter>, Vec<(MemberId, Outgoing)>) {
        let mut out = self.out.lock();
        (std::mem::take(&mut out.letters), std::mem::take(&mut out.snapshots))
    }

    /// Whether it does not speak with `id` any more.
    pub fn has_removed(&self, id: MemberId) -> bool {
        self.out.lock().removed.contains(&id)
    }
}

impl Transport for Way {
    fn send(&self, letters: Vec<Letter>) {
        let mut out = self.out.lock();
        let is_known = |letter: &Letter| out.known.contains(&letter.to) || out.heard.contains(&letter.to);
        let known = letters.into_iter().filter(is_known).collect::<Vec<_>>();
        out.letters.extend(known);
    }

    fn set_members(&self, members: Vec<Member>, removed: Vec<MemberId>) {
        let mut out = self.out.lock();
        out.known = members.into_iter().map(|member| member.id).collect();
        out.removed = removed.into_iter().collect();
    }

    fn send_snapshot(&self, to: MemberId, snapshot: Outgoing) {
        let mut out = self.out.lock();
        if out.sending.insert(to) {
            out.snapshots.push((to, snapshot));
        }
    }

    fn is_sending_snapshot(&self, to: MemberId) -> bool {
        self.out.lock().sending.contains(&to)
    }

    fn connected_for(&self, to: MemberId) -> Option<Duration> {
        let links = self.links.lock();
        let link = (*self.own.lock(), to);
        let since = links.joined_us.get(&link).copied().unwrap_or(0);
        (!links.cut.contains(&link)).then(|| Duration::from_micros(self.time.now_us() - since))
    }
}

/// A snapshot on its way.
pub struct Transfer {
    from: (usize, u64),
    to: MemberId,
    snapshot: Outgoing,
    /// At the receiver, in one of its lives.
    incoming: Option<(usize, u64, Incoming)>,
    last: Option<(Table, Bytes)>,
}

impl Transfer {
    /// Whether it comes from this machine.
    pub fn is_from(&self, at: usize) -> bool {
        self.from.0 == at
    }
}

impl World {
    /// Whether what `from` says gets to `to`.
    fn is_open(&self, from: MemberId, to: MemberId) -> bool {
        !self.links.lock().cut.contains(&(from, to))
    }

    /// Cuts the links for which `is_cut` says so; all others work.
    pub fn cut(&mut self, is_cut: impl Fn(MemberId, MemberId) -> bool) {
        let ids = self.hosts.iter().map(|host| host.id).collect::<Vec<_>>();
        let now = self.time.now_us();
        let mut links = self.links.lock();
        for from in &ids {
            for to in &ids {
                if from != to && is_cut(*from, *to) {
                    links.cut.insert((*from, *to));
                } else if links.cut.remove(&(*from, *to)) {
                    links.joined_us.insert((*from, *to), now);
                }
            }
        }
    }

    /// Cuts one more link.
    pub fn cut_one(&mut self, from: MemberId, to: MemberId) {
        self.links.lock().cut.insert((from, to));
    }

    /// Whether any link is cut.
    pub fn is_cut(&self) -> bool {
        !self.links.lock().cut.is_empty()
    }

    /// Takes what a member has to send.
    pub fn collect(&mut self, at: usize) {
        let Some(up) = &self.hosts[at].up else { return };
        let (letters, snapshots) = up.way.take();
        let from = self.hosts[at].id;
        for letter in letters {
            self.post(from, letter);
        }
        for (to, snapshot) in snapshots {
            let (life, index) = (self.hosts[at].life, snapshot.meta.index);
            self.next_transfer += 1;
            self.note(|| format!("m{} sends its state after {index} to {to}", at + 1));
            let transfer = Transfer { from: (at, life), to, snapshot, incoming: None, last: None };
            self.transfers.insert(self.next_transfer, transfer);
            let delay = self.travel();
            self.after(delay, Event::Transfer { number: self.next_transfer });
        }
    }

    fn travel(&mut self) -> u64 {
        let Weather { late, delay_max, .. } = self.weather;
        let held_up = if self.chance.hits(late, 1_000) { 2_000 * MS } else { 0 };
        self.chance.between(MS / 10, delay_max + held_up)
    }

    fn post(&mut self, from: MemberId, letter: Letter) {
        let Letter { to, message } = letter;
        if self.plan.lie == Some(Lie::MutesHashes) && matches!(message, PeerMessage::Hash { .. }) {
            return;
        }
        if self.plan.lie == Some(Lie::ForgesHeartbeats) {
            self.forge(from, to, &message);
        }
        let Weather { lost, doubled, .. } = self.weather;
        if !self.is_open(from, to) || self.chance.hits(lost, 1_000) {
            return;
        }
        let Some(at) = self.hosts.iter().position(|host| host.id == to) else { return };
        let is_raft = matches!(message, PeerMessage::Raft(_));
        let doubles = is_raft && self.chance.hits(doubled, 1_000)
            || self.plan.lie == Some(Lie::DoublesForwards) && matches!(message, PeerMessage::Forward { .. });
        // What must not come twice goes with the connection that it was sent on.
        let life = (!is_raft).then_some(self.hosts[at].life);
        for _ in 0..1 + u64::from(doubles) {
            let delay = self.travel();
            self.after(delay, Event::Deliver { at, life, from, message: message.clone() });
        }
    }

    /// The lie that a quorum hears a leader.
    fn forge(&mut self, leader: MemberId, follower: MemberId, message: &PeerMessage) {
        let PeerMessage::Raft(raft::Message { term, body: raft::Body::Heartbeat { round, .. } }) = message else {
            return;
        };
        let Some(at) = self.hosts.iter().position(|host| host.id == leader) else { return };
        let reply = raft::Message { term: *term, body: raft::Body::HeartbeatReply { round: *round } };
        self.after(MS, Event::Deliver { at, life: None, from: follower, message: PeerMessage::Raft(reply) });
    }

    /// A letter arrives.
    pub fn deliver(&mut self, at: usize, life: Option<u64>, from: MemberId, message: PeerMessage) {
        let host = &self.hosts[at];
        let Some(up) = host.up.as_ref().filter(|_| life.is_none_or(|life| life == host.life)) else { return };
        if up.way.has_removed(from) {
            // It is told, if it can hear that.
            let (by, is_open) = (host.id, self.is_open(host.id, from));
            let sender = self.hosts.iter().find(|host| host.id == from && is_open);
            if let Some(sender) = sender.and_then(|host| host.up.as_ref()) {
                sender.handle.expelled(by);
            }
            return;
        }
        up.way.out.lock().heard.insert(from);
        up.handle.deliver(from, vec![message]);
    }

    /// The next step of a snapshot's way.
    pub fn transfer(&mut self, number: u64) {
        let Some(mut transfer) = self.transfers.remove(&number) else { return };
        if self.carry(&mut transfer) {
            self.transfers.insert(number, transfer);
            let delay = self.travel();
            self.after(delay, Event::Transfer { number });
            return;
        }
        // What has come stays with the receiver, if it is still the same.
        let (at, life) = transfer.from;
        if let Some(up) = self.hosts[at].up.as_ref().filter(|_| self.hosts[at].life == life) {
            up.way.out.lock().sending.remove(&transfer.to);
        }
    }

    /// One portion; false at the end, whatever it is.
    fn carry(&mut self, transfer: &mut Transfer) -> bool {
        let (at, life) = transfer.from;
        let (sender, to) = (self.hosts[at].id, transfer.to);
        let is_whole = self.hosts[at].life == life && self.hosts[at].up.is_some();
        let breaks = self.chance.hits(self.weather.breaks, 1_000);
        // A wrong state is found by comparison; one that is handed on first is not for this world to judge.
        let is_wrong = self.hosts[at].is_suspect;
        if !is_whole || is_wrong || breaks || !self.is_open(sender, to) || !self.is_open(to, sender) {
            return false;
        }
        let Some(receiver) = self.hosts.iter().position(|host| host.id == to) else { return false };
        let host = &self.hosts[receiver];
        let Some(up) = &host.up else { return false };
        if host.paused_until_us > self.time.now_us() {
            return true;
        }
        let Some((_, taken_in, incoming)) = &mut transfer.incoming else {
            let incoming = match up.handle.receive_snapshot(sender, transfer.snapshot.meta.clone()) {
                Ok(incoming) => incoming,
                Err(error) => {
                    self.note(|| format!("m{} does not take it: {error}", receiver + 1));
                    return false;
                }
            };
            transfer.last = incoming.position();
            self.stats.resumed += u64::from(transfer.last.is_some());
            transfer.incoming = Some((receiver, host.life, incoming));
            return true;
        };
        if *taken_in != host.life {
            return false;
        }
        let after = transfer.last.as_ref().map(|(table, key)| (*table, &key[..]));
        let rows = transfer.snapshot.rows(after, 600).expect("a store in memory is sound");
        let Some((table, key, _)) = rows.last() else {
            let (at, _, incoming) = transfer.incoming.take().expect("looked at just now");
            let finished = incoming.finish();
            self.stats.snapshots += u64::from(finished.is_ok());
            self.note(|| format!("m{} has all of it: {finished:?}", at + 1));
            if finished.is_err() {
                self.lose_power(at);
            }
            self.arm(at);
            return false;
        };
        transfer.last = Some((*table, key.clone()));
        let written = incoming.write(rows);
        if written.is_err() {
            self.lose_power(receiver);
        }
        true
    }
}
