//! What is counted of each peer, for whoever watches over this member.

use super::{Counts, Network};
use crate::{
    metrics::{Histogram, Kind, Source, Text, doubling},
    replica::Transport as _,
    types::MemberId,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::time::Instant;

/// etcd's, for messages and for snapshots.
const ROUND_TRIP_BOUNDS_S: &[f64] = &doubling::<16>(0.000_1);
const SNAPSHOT_BOUNDS_S: &[f64] = &doubling::<10>(0.1);

/// What is counted of one peer. Whoever counts has found it once, when a connection came about.
#[derive(Debug)]
pub(super) struct PeerTally {
    /// There and back again on the connection that heartbeats take.
    pub(super) round_trip: Histogram,
    /// Connections that stood and were lost.
    pub(super) lost: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    /// Messages that could not be read.
    pub(super) malformed: AtomicU64,
    pub(super) sent: Snapshots,
    pub(super) received: Snapshots,
}

/// Snapshots in one direction.
#[derive(Debug)]
pub(super) struct Snapshots {
    under_way: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    time: Histogram,
}

/// A snapshot under way. Dropped before it is done it has failed.
pub(super) struct UnderWay<'a> {
    of: &'a Snapshots,
    began: Instant,
}

impl Default for PeerTally {
    fn default() -> PeerTally {
        PeerTally {
            round_trip: Histogram::of_seconds(ROUND_TRIP_BOUNDS_S),
            lost: AtomicU64::default(),
            received_bytes: AtomicU64::default(),
            malformed: AtomicU64::default(),
            sent: Snapshots::default(),
            received: Snapshots::default(),
        }
    }
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        let time = Histogram::of_seconds(SNAPSHOT_BOUNDS_S);
        Snapshots { under_way: 0.into(), done: 0.into(), failed: 0.into(), time }
    }
}

impl Snapshots {
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Relaxed);
        UnderWay { of: self, began: Instant::now() }
    }
}

impl UnderWay<'_> {
    pub(super) fn done(self) {
        self.of.time.observe(self.began.elapsed());
        self.of.done.fetch_add(1, Relaxed);
        self.of.under_way.fetch_sub(1, Relaxed);
        std::mem::forget(self);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.of.failed.fetch_add(1, Relaxed);
        self.of.under_way.fetch_sub(1, Relaxed);
    }
}

/// The counts of all peers that were ever spoken to.
#[derive(Debug, Default)]
pub(super) struct Tallies(Mutex<BTreeMap<MemberId, Arc<PeerTally>>>);

impl Tallies {
    /// Those of one peer.
    pub(super) fn of(&self, peer: MemberId) -> Arc<PeerTally> {
        Arc::clone(self.0.lock().entry(peer).or_default())
    }
}

/// One number of many.
type Of<T, N> = fn(&T) -> N;
type OfPeer<N> = for<'a> fn(&'a PeerTally) -> &'a N;

impl Source for Network {
    fn write(&self, text: &mut Text) {
        let own = self.inner.me.borrow().as_ref().map(|me| me.member_id.to_string()).unwrap_or_default();
        let links = self.counts();
        let links = links.iter().map(|(id, counts)| (id.to_string(), *id, counts)).collect::<Vec<_>>();
        let mut family =
            text.family("etcd_network_active_peers", Kind::Gauge, "The current number of active peer connections.");
        for (name, id, _) in &links {
            family.sample(&[("Local", &own), ("Remote", name)], self.connected_for(*id).is_some());
        }
        let of_links: [(_, _, Of<Counts, u64>); 3] = [
            ("etcd_network_peer_sent_bytes_total", "The total number of bytes sent to peers.", |counts| {
                counts.bytes_sent
            }),
            ("etcd_network_peer_sent_failures_total", "The total number of send failures from peers.", |counts| {
                counts.messages_dropped
            }),
            ("henge_peer_sent_messages_total", "Messages that were sent to a peer.", |counts| counts.messages_sent),
        ];
        for (name, help, count) in of_links {
            let mut family = text.family(name, Kind::Counter, help);
            links.iter().for_each(|(to, _, counts)| family.sample(&[("To", to)], count(counts)));
        }

        let places = self.inner.places.counts();
        let help = "Connections that peers have made, and those over which nobody was let in yet.";
        let mut family = text.family("henge_peer_connections", Kind::Gauge, help);
        family.sample(&[("state", "known")], places.all - places.silent);
        family.sample(&[("state", "silent")], places.silent);
        let help = "Connections to the peer URLs that were closed for others, because nobody was let in over them.";
        text.counter("henge_peer_connections_closed_total", help, places.taken_away);

        let tallies = self.inner.tallies.0.lock().clone();
        let tallies = tallies.into_iter().map(|(id, tally)| (id.to_string(), tally)).collect::<Vec<_>>();
        let help = "The total number of disconnected peers.";
        let mut family = text.family("etcd_network_disconnected_peers_total", Kind::Counter, help);
        for (name, tally) in &tallies {
            family.sample(&[("Local", &own), ("Remote", name)], &tally.lost);
        }
        let counts: [(_, _, _, OfPeer<AtomicU64>); 6] = [
            (
                "etcd_network_peer_received_bytes_total",
                "From",
                "The total number of bytes received from peers.",
                |peer| &peer.received_bytes,
            ),
            (
                "etcd_network_peer_received_failures_total",
                "From",
                "The total number of receive failures from peers.",
                |peer| &peer.malformed,
            ),
            ("etcd_network_snapshot_send_success", "To", "Total number of successful snapshot sends", |peer| {
                &peer.sent.done
            }),
            ("etcd_network_snapshot_send_failures", "To", "Total number of snapshot send failures", |peer| {
                &peer.sent.failed
            }),
            ("etcd_network_snapshot_receive_success", "From", "Total number of successful snapshot receives", |peer| {
                &peer.received.done
            }),
            ("etcd_network_snapshot_receive_failures", "From", "Total number of snapshot receive failures", |peer| {
                &peer.received.failed
            }),
        ];
        for (name, label, help, count) in counts {
            let mut family = text.family(name, Kind::Counter, help);
            tallies.iter().for_each(|(peer, tally)| family.sample(&[(label, peer)], count(tally)));
        }
        let help = "Total number of inflight snapshot sends";
        let mut family = text.family("etcd_network_snapshot_send_inflights_total", Kind::Gauge, help);
        tallies.iter().for_each(|(to, tally)| family.sample(&[("To", to)], &tally.sent.under_way));
        let help = "Total number of inflight snapshot receives";
        let mut family = text.family("etcd_network_snapshot_receive_inflights_total", Kind::Gauge, help);
        tallies.iter().for_each(|(from, tally)| family.sample(&[("From", from)], &tally.received.under_way));
        let times: [(_, _, _, OfPeer<Histogram>); 3] = [
            ("etcd_network_peer_round_trip_time_seconds", "To", "Round-Trip-Time histogram between peers", |peer| {
                &peer.round_trip
            }),
            (
                "etcd_network_snapshot_send_total_duration_seconds",
                "To",
                "Total latency distributions of v3 snapshot sends",
                |peer| &peer.sent.time,
            ),
            (
                "etcd_network_snapshot_receive_total_duration_seconds",
                "From",
                "Total latency distributions of v3 snapshot receives",
                |peer| &peer.received.time,
            ),
        ];
        for (name, label, help, time) in times {
            let mut family = text.family(name, Kind::Histogram, help);
            tallies.iter().for_each(|(peer, tally)| family.histogram(&[(label, peer)], time(tally)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_snapshot_that_is_not_done_has_failed() {
        let snapshots = Snapshots::default();
        let (first, second) = (snapshots.begin(), snapshots.begin());
        assert_eq!(snapshots.under_way.load(Relaxed), 2);
        first.done();
        drop(second);
        let counts = [&snapshots.under_way, &snapshots.done, &snapshots.failed];
        assert_eq!(counts.map(|count| count.load(Relaxed)), [0, 1, 1]);
        assert_eq!(snapshots.time.read().count, 1);
    }
}
