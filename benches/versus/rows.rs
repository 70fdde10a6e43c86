//! The workloads, and what each is measured against.

use super::servers::Product;

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Names it, also for `--rows`.
    pub id: &'static str,
    pub title: &'static str,
    /// What `hengectl bench` is told.
    pub load: &'static [&'static str],
    /// What no server that does the work can beat.
    pub limit: Product,
    /// The most that one member and three may cost, as multiples of the limit's CPU time for an operation.
    pub bars: [Option<f64>; 2],
}

impl Row {
    /// Whether all servers must be one cluster for it, which servers that do nothing are not: an event is told by each of them.
    pub fn is_for_one_cluster(&self) -> bool {
        self.load.contains(&"watch")
    }
}

const SYNCED: Product = Product::LimitSynced;
const MEMORY: Product = Product::Limit;

const fn row(
    id: &'static str,
    title: &'static str,
    load: &'static [&'static str],
    limit: Product,
    bars: [Option<f64>; 2],
) -> Row {
    Row { id, title, load, limit, bars }
}

/// All of them, in the order of the table.
pub const ROWS: &[Row] = &[
    row("put-1", "put, 1 client", &["--clients=1", "put"], SYNCED, [None, None]),
    row("put-32", "put, 32 clients", &["--clients=32", "put"], SYNCED, [None, None]),
    row("put-256", "put, 256 clients", &["--clients=256", "put"], SYNCED, [Some(1.4), Some(3.0)]),
    row("put-1000", "put, 1,000 clients", &["--clients=1000", "put"], SYNCED, [None, None]),
    row("txn-256", "compare-and-swap, 256 clients", &["--clients=256", "txn"], SYNCED, [Some(1.4), None]),
    row("get-256", "linearizable get, 256 clients", &["--clients=256", "range"], MEMORY, [Some(1.25), Some(1.5)]),
    row(
        "serializable-256",
        "serializable get, 256 clients",
        &["--clients=256", "range", "--serializable"],
        MEMORY,
        [None, None],
    ),
    row("mixed-256", "9 gets : 1 put, 256 clients", &["--clients=256", "mixed"], SYNCED, [Some(1.4), None]),
    row(
        "range-1000",
        "range of 1,000 keys, 32 clients",
        // From keys that have so many behind them.
        &["--clients=32", "--key-space=9000", "range", "--limit=1000"],
        MEMORY,
        [Some(1.3), None],
    ),
    row(
        "watch-shared",
        "an event to 1,000 watchers on 32 streams, 100 puts/s",
        &["--rate=100", "--conns=8", "watch", "--watchers=1000", "--streams=32"],
        MEMORY,
        [Some(1.5), None],
    ),
    row(
        "watch-streams",
        "an event to 1,000 watchers, a stream each, 100 puts/s",
        &["--rate=100", "--conns=8", "watch", "--watchers=1000"],
        MEMORY,
        [Some(1.3), None],
    ),
    row("grant-32", "lease grant, 32 clients", &["--clients=32", "lease"], MEMORY, [Some(2.0), None]),
    // A grant is on disk when it is answered: this is what no server can beat that keeps that promise.
    row("grant-synced", "the same, beside a limit that syncs", &["--clients=32", "lease"], SYNCED, [None, None]),
    row(
        "renew-256",
        "lease keep-alive, 256 clients",
        &["--clients=256", "lease", "--keep-alive"],
        MEMORY,
        [Some(1.4), Some(2.0)],
    ),
];
