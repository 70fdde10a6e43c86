//! What an edge and its member have to tell of themselves: counted beside the work, or read when somebody asks.

use super::{Admission, Backend, MemberBackend, Version, admission::Standing, downgrade, rates::Rates};
use crate::{
    machine::AlarmKind,
    metrics::{Histogram, Kind, Source, Text, doubling},
    replica::Tally,
    types::Error,
    watch::Queued,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

/// etcd's, for walks over the whole store.
const HASH_BOUNDS_S: &[f64] = &doubling::<15>(0.01);

/// What an edge counts beside calls.
#[derive(Debug, Default)]
pub struct EdgeCounts {
    /// Answers of `/health`: those that say yes, and those that say no.
    pub healthy: AtomicU64,
    /// See `healthy`.
    pub unhealthy: AtomicU64,
    /// Events that were given to connections, of all watchers.
    pub events_sent: AtomicU64,
}

/// What an edge says at `/metrics` beside calls.
pub(super) struct EdgeSource {
    pub(super) counts: Arc<EdgeCounts>,
    pub(super) admission: Admission,
    pub(super) rates: Option<Arc<Rates>>,
    pub(super) version: Version,
}

impl Source for EdgeSource {
    fn write(&self, text: &mut Text) {
        let EdgeCounts { healthy, unhealthy, events_sent } = &*self.counts;
        text.counter("etcd_server_health_success", "The total number of successful health checks", healthy);
        text.counter("etcd_server_health_failures", "The total number of failed health checks", unhealthy);
        let help = "Total number of events sent by this member.";
        text.counter("etcd_debugging_mvcc_events_total", help, events_sent);
        let help = "Which version is running. 1 for 'server_version' label with current version.";
        let mut family = text.family("etcd_server_version", Kind::Gauge, help);
        family.sample(&[("server_version", &self.version.server)], true);
        let help = "Which version is running. 1 for 'cluster_version' label with current cluster version";
        let mut family = text.family("etcd_cluster_version", Kind::Gauge, help);
        let spoken = downgrade::spoken(Some(self.version.cluster.clone()));
        family.sample(&[("cluster_version", &spoken)], true);
        let help = "Which version henge itself has. 1 for the label 'version'.";
        let mut family = text.family("henge_build_info", Kind::Gauge, help);
        family.sample(&[("version", env!("CARGO_PKG_VERSION"))], true);
        self.write_admission(text);
        self.rates.iter().for_each(|rates| rates.write(text));
    }
}

/// What is told of a class.
type Number = fn(&Standing) -> u64;

impl EdgeSource {
    /// What is under way, of what may be.
    fn write_admission(&self, text: &mut Text) {
        let standings = self.admission.standings().collect::<Vec<_>>();
        let of_classes: [(_, _, _, Number); 5] = [
            ("henge_server_requests_admitted", Kind::Gauge, "Requests under way, by class.", |class| class.calls),
            (
                "henge_server_requests_admitted_bytes",
                Kind::Gauge,
                "Bytes of them, and of answers that clients have not read.",
                |class| class.bytes,
            ),
            (
                "henge_server_requests_max",
                Kind::Gauge,
                "Requests of all classes at which those of this class are shed.",
                |class| class.calls_max,
            ),
            (
                "henge_server_requests_bytes_max",
                Kind::Gauge,
                "Bytes of all classes at which those of this class are shed.",
                |class| class.bytes_max,
            ),
            ("henge_server_requests_shed_total", Kind::Counter, "Requests that were shed.", |class| class.shed),
        ];
        for (name, kind, help, number) in of_classes {
            let mut family = text.family(name, kind, help);
            standings.iter().for_each(|class| family.sample(&[("class", class.class)], number(class)));
        }
        let (waiting, closed) = self.admission.queue();
        text.gauge("henge_server_lists_waiting", "Large answers that wait for room.", waiting);
        let help = "Connections that were closed because they did not read their answers while others waited for room.";
        text.counter("henge_server_slow_readers_closed_total", help, closed);
        let (open, most, shed) = self.admission.streams();
        text.gauge("henge_server_streams", "Streams that are open: watches, keep-alives, ranges in pieces.", open);
        text.gauge("henge_server_streams_max", "Streams that may be open.", most);
        text.counter("henge_server_streams_shed_total", "Streams that were refused.", shed);
    }
}

/// What a member's backend counts.
#[derive(Debug)]
pub(super) struct MemberCounts {
    ranges: AtomicU64,
    proposals_failed: AtomicU64,
    reads_failed: AtomicU64,
    reads_slow: AtomicU64,
    promoted: AtomicU64,
    /// By why not. Nobody promotes often.
    not_promoted: Mutex<BTreeMap<String, u64>>,
    pub(super) hash: Histogram,
    pub(super) hash_at_revision: Histogram,
}

impl Default for MemberCounts {
    fn default() -> MemberCounts {
        MemberCounts {
            ranges: AtomicU64::default(),
            proposals_failed: AtomicU64::default(),
            reads_failed: AtomicU64::default(),
            reads_slow: AtomicU64::default(),
            promoted: AtomicU64::default(),
            not_promoted: Mutex::default(),
            hash: Histogram::of_seconds(HASH_BOUNDS_S),
            hash_at_revision: Histogram::of_seconds(HASH_BOUNDS_S),
        }
    }
}

impl MemberCounts {
    /// Counts a read, however it ended; what begins anew as a list is counted then.
    pub(super) fn ranges<T>(&self, read: &Result<T, Error>) {
        if !matches!(read, Err(Error::NoRoom)) {
            self.ranges.fetch_add(1, Relaxed);
        }
    }

    /// Counts an outcome that is not known, or a proposal that was not made. What was refused because it was too much never was one.
    pub(super) fn proposed<T>(&self, result: &Result<T, Error>) {
        let is_shed = |error: &Error| {
            matches!(error, Error::RequestTooManyRequests | Error::RequestTooLarge | Error::TooOften { .. })
        };
        if result.as_ref().is_err_and(|error| !is_shed(error)) {
            self.proposals_failed.fetch_add(1, Relaxed);
        }
    }

    /// Counts what came of a read that asked the leader, as etcd does: a timeout was slow, anything else failed.
    pub(super) fn confirmed(&self, result: &Result<(), Error>) {
        let count = match result {
            Ok(()) => return,
            Err(Error::Timeout | Error::TimeoutWaitAppliedIndex) => &self.reads_slow,
            Err(_) => &self.reads_failed,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(super) fn promoted<T>(&self, result: &Result<T, Error>) {
        match result {
            Ok(_) => drop(self.promoted.fetch_add(1, Relaxed)),
            Err(error) => *self.not_promoted.lock().entry(error.text().to_owned()).or_default() += 1,
        }
    }
}

impl Source for MemberBackend {
    fn write(&self, text: &mut Text) {
        self.write_consensus(text);
        self.write_store(text);
        self.write_watches(text);
        self.write_leases(text);
        self.write_stages(text);
    }
}

impl MemberBackend {
    /// Who leads, how far the log is, and who belongs to the cluster.
    fn write_consensus(&self, text: &mut Text) {
        let (handle, view, counts) = (self.handle(), self.handle().view(), self.counts());
        let (status, tally) = (self.status(), handle.tally());
        let own = handle.member_id();
        let help = "Whether or not a leader exists. 1 is existence, 0 is not.";
        text.gauge("etcd_server_has_leader", help, status.leader.is_some());
        let help = "Whether or not this member is a leader. 1 if is, 0 otherwise.";
        text.gauge("etcd_server_is_leader", help, status.leader == Some(own));
        let help = "Whether or not this member is a learner. 1 if is, 0 otherwise.";
        text.gauge("etcd_server_is_learner", help, status.is_learner);
        let help = "The number of leader changes seen.";
        text.counter("etcd_server_leader_changes_seen_total", help, &tally.leader_changes);
        let help = "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.";
        text.family("etcd_server_id", Kind::Gauge, help).sample(&[("server_id", &own.to_string())], true);
        let mut family = text.family("etcd_network_known_peers", Kind::Gauge, "The current number of known peers.");
        for member in view.members() {
            family.sample(&[("Local", &own.to_string()), ("Remote", &member.id.to_string())], true);
        }

        let help = "The total number of consensus proposals committed.";
        text.gauge("etcd_server_proposals_committed_total", help, status.committed.0);
        let help = "The total number of consensus proposals applied.";
        text.gauge("etcd_server_proposals_applied_total", help, status.applied.0);
        let help = "The current number of pending proposals to commit.";
        text.gauge("etcd_server_proposals_pending", help, handle.status().proposals_pending);
        let help = "The total number of failed proposals seen.";
        text.counter("etcd_server_proposals_failed_total", help, &counts.proposals_failed);
        let help = "The total number of slow apply requests (likely overloaded from slow disk).";
        text.counter("etcd_server_slow_apply_total", help, &tally.slow_applies);
        let help =
            "The total number of pending read indexes not in sync with leader's or timed out read index requests.";
        text.counter("etcd_server_slow_read_indexes_total", help, &counts.reads_slow);
        let help = "The total number of failed read indexes seen.";
        text.counter("etcd_server_read_indexes_failed_total", help, &counts.reads_failed);
        let help = "The total number of successful learner promotions while this member is leader.";
        text.counter("etcd_server_learner_promote_successes", help, &counts.promoted);
        let help =
            "The total number of failed learner promotions (likely learner not ready) while this member is leader.";
        let mut family = text.family("etcd_server_learner_promote_failures", Kind::Counter, help);
        for (why, count) in &*counts.not_promoted.lock() {
            family.sample(&[("Reason", why)], *count);
        }
        let help = "1 if the server is applying the incoming snapshot. 0 if none.";
        text.gauge("etcd_server_snapshot_apply_in_progress_total", help, handle.is_taking_over());
        let help = "1 while this member's state differs from the others', so that nobody may see it.";
        text.gauge("henge_server_quarantined", help, handle.is_quarantined());

        let help = "The current revision of auth store.";
        text.gauge("etcd_debugging_auth_revision", help, view.auth_revision());
        let mut family = text.family("etcd_debugging_server_alarms", Kind::Gauge, "Alarms that are active.");
        for (member, kind) in self.alarms() {
            let kind = match kind {
                AlarmKind::NoSpace => "NOSPACE",
                AlarmKind::Corrupt => "CORRUPT",
            };
            family.sample(&[("server_id", &member.to_string()), ("alarm_type", kind)], true);
        }
    }

    /// Log and store, and what was done to them.
    fn write_store(&self, text: &mut Text) {
        let (handle, counts) = (self.handle(), self.counts());
        let (status, reader, tally) = (self.status(), handle.reader(), handle.tally());
        let help = "Current backend storage quota size in bytes.";
        text.gauge("etcd_server_quota_backend_bytes", help, status.quota_bytes);
        let help = "Total size of the underlying database physically allocated in bytes.";
        text.gauge("etcd_mvcc_db_total_size_in_bytes", help, status.size.file_bytes);
        let help = "Total size of the underlying database logically in use in bytes.";
        text.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, status.size.used_bytes);
        let help = "Bytes that were written and are not in the database yet; a restart reads them from the log.";
        text.gauge("henge_store_unflushed_bytes", help, handle.view().engine().pending());
        let help = "Bytes of all keys and values that can be read now.";
        text.gauge("henge_store_live_bytes", help, handle.view().live_bytes());

        let help = "The latency distributions of fsync called by WAL.";
        text.histogram("etcd_disk_wal_fsync_duration_seconds", help, &tally.wal_fsync);
        let help = "The latency distributions of write called by WAL.";
        text.histogram("etcd_disk_wal_write_duration_seconds", help, &tally.wal_write);
        let help = "Total number of bytes written in WAL.";
        text.gauge("etcd_disk_wal_write_bytes_total", help, &tally.wal_bytes);
        let help = "The latency distributions of commit called by backend.";
        text.histogram("etcd_disk_backend_commit_duration_seconds", help, &tally.flush);
        let help = "The latency distribution of storage hash operation.";
        text.histogram("etcd_mvcc_hash_duration_seconds", help, &counts.hash);
        let help = "The latency distribution of storage hash by revision operation.";
        text.histogram("etcd_mvcc_hash_rev_duration_seconds", help, &counts.hash_at_revision);

        text.counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", &tally.puts);
        text.counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", &tally.deletes);
        let ranges = tally.ranges.load(Relaxed) + counts.ranges.load(Relaxed);
        text.counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.", ranges);
        text.counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.", &tally.txns);
        let help = "The total size of put kv pairs seen by this member.";
        text.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", help, &tally.put_bytes);
        text.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", reader.keys_total());
        let (held, held_max) = reader.rows_held();
        let help = "Memory that values take which were lately written or read, in bytes.";
        text.gauge("henge_value_cache_bytes", help, held);
        let help = "Memory that values may take which were lately written or read, in bytes.";
        text.gauge("henge_value_cache_max_bytes", help, held_max);
        let help = "The current revision of store.";
        text.gauge("etcd_debugging_mvcc_current_revision", help, reader.current().0);
        let help = "The revision of the last compaction in store.";
        text.gauge("etcd_debugging_mvcc_compact_revision", help, reader.compacted().0);
        let help = "Total number of db keys compacted.";
        text.counter("etcd_debugging_mvcc_db_compaction_keys_total", help, reader.swept_rows());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let last = handle.swept_ago().map_or(Duration::ZERO, |ago| now.saturating_sub(ago));
        let help = "The unix time of the last db compaction. Resets to 0 on start.";
        text.gauge("etcd_debugging_mvcc_db_compaction_last", help, last.as_secs());
        let help = "Bucketed histogram of db compaction pause duration.";
        text.histogram("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", help, &tally.sweep_step);
        let help = "Bucketed histogram of db compaction total duration.";
        text.histogram("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", help, &tally.sweep);
    }

    fn write_watches(&self, text: &mut Text) {
        let hub = self.handle().hub();
        let (counts, Queued { events, bytes }) = (hub.counts(), hub.queued());
        text.gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", counts.streams);
        text.gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", counts.watchers);
        let help = "Total number of unsynced slow watchers.";
        text.gauge("etcd_debugging_mvcc_slow_watcher_total", help, counts.behind);
        let help = "Total number of pending events to be sent.";
        text.gauge("etcd_debugging_mvcc_pending_events_total", help, events);
        text.gauge("henge_watch_queued_bytes", "Bytes of events that wait for clients, of all streams.", bytes);
    }

    fn write_leases(&self, text: &mut Text) {
        let Tally { lease_ttl, leases_revoked, leases_expired, .. } = self.handle().tally();
        let granted = lease_ttl.read().count;
        text.counter("etcd_debugging_lease_granted_total", "The total number of granted leases.", granted);
        text.counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", leases_revoked);
        let help = "The number of renewed leases seen by the leader.";
        text.counter("etcd_debugging_lease_renewed_total", help, self.handle().leases_renewed());
        text.histogram("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", lease_ttl);
        let help = "The total number of expired leases.";
        text.counter("etcd_debugging_server_lease_expired_total", help, leases_expired);
    }

    /// Where the time of a write goes, and what waits where.
    fn write_stages(&self, text: &mut Text) {
        let Tally { queued, agreed, apply, .. } = self.handle().tally();
        let help = "Time that proposals of this member's clients waited until consensus took them.";
        text.histogram("henge_proposal_queued_seconds", help, queued);
        let help = "Time from then until a quorum had them on disk, and their turn came to be applied.";
        text.histogram("henge_proposal_agreed_seconds", help, agreed);
        text.histogram("henge_apply_batch_seconds", "Time that batches of entries took to be applied.", apply);
        let help = "What waits now: for consensus, to be applied, for an answer.";
        let mut family = text.family("henge_queue_length", Kind::Gauge, help);
        for (queue, length) in self.handle().waiting() {
            family.sample(&[("queue", queue)], length);
        }
    }
}
