//! The one table of flags.

/// How a flag's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number.
    Int,
    /// `true` or `false`; bare means `true`.
    Bool,
    /// Go's spelling: `100ms`, `1h30m`.
    Duration,
    /// URLs, separated by commas.
    Urls,
}

/// What henge makes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does what it says.
    Works,
    /// Accepted without an effect, for the reason given.
    Meaningless(&'static str),
    /// Refused if it is set to anything but its default, for the reason given.
    Later(&'static str),
}

/// One row of the table. The variable is `ETCD_` and the name in capitals; the key in a file is the name.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// What holds if nobody sets it.
    pub default: &'static str,
    /// Heading in the help.
    pub group: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
    /// What henge makes of it.
    pub standing: Standing,
}

impl Flag {
    /// The environment variable that stands in for the flag.
    pub fn variable(&self) -> String {
        variable(self.name)
    }
}

/// With what all variables begin.
pub(super) const VARIABLE: &str = "ETCD_";

/// The variable of the flag `name`.
pub(super) fn variable(name: &str) -> String {
    format!("{VARIABLE}{}", name.replace('-', "_").to_uppercase())
}

pub(super) const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: &'static str,
    help: &'static str,
    standing: Standing,
) -> Flag {
    Flag { name, kind, default, group, help, standing }
}

use Kind::{Bool, Duration, Int, Text, Urls};
use Standing::{Later, Meaningless, Works};

/// etcd reaches itself as a client does, for its JSON gateway.
const NO_DETOUR: &str = "a member needs no connection to itself";

const COMPARED: &str = "members compare the hashes of what they have applied once a second";

/// Every flag, grouped as the help shows them.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag("name", Text, "default", "Member", "Human-readable name of this member.", Works),
    flag("data-dir", Text, "", "Member", "Folder of the member's data (default: ${name}.etcd).", Works),
    flag("wal-dir", Text, "", "Member", "Folder of the log, if it should be on a disk of its own.", Works),
    flag("snapshot-count", Int, "10000", "Member", "Entries between two marks in the log, before which segments may be released.", Works),
    flag("heartbeat-interval", Int, "100", "Member", "Milliseconds between two heartbeats.", Works),
    flag("election-timeout", Int, "1000", "Member", "Milliseconds without a heartbeat before an election.", Works),
    flag("initial-election-tick-advance", Bool, "true", "Member", "Shortens the first election of a member that restarts.", Meaningless("a lone voter elects itself at once")),
    flag("listen-peer-urls", Urls, "http://localhost:2380", "Member", "URLs to listen on for other members.", Works),
    flag("listen-client-urls", Urls, "http://localhost:2379", "Member", "URLs to listen on for clients (gRPC and HTTP).", Works),
    flag("listen-client-http-urls", Urls, "", "Member", "URLs for HTTP alone; then listen-client-urls serve gRPC alone.", Works),
    flag("max-snapshots", Int, "5", "Member", "Snapshot files to keep.", Meaningless("henge keeps no snapshot files: the store is always current")),
    flag("max-wals", Int, "5", "Member", "Log files to keep.", Meaningless("segments are released as soon as the store has what they hold")),
    flag("memory-mlock", Bool, "false", "Member", "Locks the process in memory.", Later("memory locking is not there yet")),
    flag("quota-backend-bytes", Int, "0", "Member", "Space quota in bytes; 0 means 2 GiB, negative means none.", Works),
    flag("backend-bbolt-freelist-type", Text, "map", "Member", "Free-list type of bbolt.", Meaningless("there is no bbolt")),
    flag("backend-batch-interval", Duration, "100ms", "Member", "Longest time between two flushes of the store.", Works),
    flag("backend-batch-limit", Int, "0", "Member", "Most operations between two flushes of the store.", Meaningless("flushes are bounded in bytes")),
    flag("max-txn-ops", Int, "128", "Member", "Most operations in one transaction.", Works),
    flag("max-request-bytes", Int, "1572864", "Member", "Largest request in bytes.", Works),
    flag("max-concurrent-streams", Int, "4294967295", "Member", "Most concurrent streams of one connection.", Works),
    flag("grpc-keepalive-min-time", Duration, "5s", "Member", "Shortest time between two pings of a client.", Meaningless("pings cost next to nothing and are never punished")),
    flag("grpc-keepalive-interval", Duration, "2h", "Member", "Time between two pings to a silent client.", Works),
    flag("grpc-keepalive-timeout", Duration, "20s", "Member", "Time to wait for the answer to a ping.", Works),
    flag("socket-reuse-port", Bool, "false", "Member", "Sets SO_REUSEPORT on listeners.", Works),
    flag("socket-reuse-address", Bool, "false", "Member", "Sets SO_REUSEADDR on listeners.", Meaningless("it is always set")),
    flag("enable-grpc-gateway", Bool, "true", "Member", "Serves the API as JSON under /v3/.", Works),
    flag("raft-read-timeout", Duration, "5s", "Member", "Read timeout between members.", Meaningless("connections between members are probed by pings, and given up when those stay without an answer")),
    flag("raft-write-timeout", Duration, "5s", "Member", "Write timeout between members.", Meaningless("connections between members are probed by pings, and given up when those stay without an answer")),
    flag("feature-gates", Text, "", "Member", "Feature gates, as Name=true,Name=false.", Meaningless("what they gate is always on, or does not exist here")),
    flag("initial-advertise-peer-urls", Urls, "http://localhost:2380", "Clustering", "URLs at which other members reach this one.", Works),
    flag("initial-cluster", Text, "", "Clustering", "Members to bootstrap with, as name=url,…; a name with several URLs is repeated (default: this member alone).", Works),
    flag("initial-cluster-state", Text, "new", "Clustering", "\"new\" founds a cluster, \"existing\" joins one.", Works),
    flag("initial-cluster-token", Text, "etcd-cluster", "Clustering", "Keeps clusters apart that are bootstrapped alike.", Works),
    flag("advertise-client-urls", Urls, "http://localhost:2379", "Clustering", "URLs at which clients reach this member.", Works),
    flag("discovery", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-token", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-endpoints", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-dial-timeout", Duration, "2s", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-request-timeout", Duration, "5s", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-keepalive-time", Duration, "2s", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-keepalive-timeout", Duration, "6s", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-insecure-transport", Bool, "true", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-insecure-skip-tls-verify", Bool, "false", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-cert", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-key", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-cacert", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-user", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-password", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-fallback", Text, "exit", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-proxy", Text, "", "Clustering", "Part of bootstrapping by discovery.", Later("the discovery service is not there yet; use --initial-cluster or --discovery-srv")),
    flag("discovery-srv", Text, "", "Clustering", "DNS domain whose SRV records name the members to bootstrap with.", Works),
    flag("discovery-srv-name", Text, "", "Clustering", "Suffix of the service that --discovery-srv asks for.", Works),
    flag("strict-reconfig-check", Bool, "true", "Clustering", "Refuses membership changes that would lose the quorum.", Works),
    flag("pre-vote", Bool, "true", "Clustering", "Asks for votes without a new term first, so that a member that was cut off disturbs nobody.", Works),
    flag("auto-compaction-retention", Text, "0", "Clustering", "History to keep: a duration (periodic; a bare number is hours) or a number of revisions; 0 turns it off.", Works),
    flag("auto-compaction-mode", Text, "periodic", "Clustering", "\"periodic\" or \"revision\".", Works),
    flag("v2-deprecation", Text, "write-only", "Clustering", "Phase of the v2 store's removal.", Meaningless("there is no v2 store")),
    flag("cert-file", Text, "", "Security", "Certificate to show to clients, for https listeners.", Works),
    flag("key-file", Text, "", "Security", "Key of that certificate.", Works),
    flag("client-cert-auth", Bool, "false", "Security", "Demands certificates from clients.", Works),
    flag("client-cert-file", Text, "", "Security", "Certificate to use towards this member itself.", Meaningless(NO_DETOUR)),
    flag("client-key-file", Text, "", "Security", "Key of that certificate.", Meaningless(NO_DETOUR)),
    flag("client-crl-file", Text, "", "Security", "Revoked certificates of clients.", Works),
    flag("client-cert-allowed-hostname", Text, "", "Security", "Host names of which clients must have one in their certificates, separated by commas.", Works),
    flag("trusted-ca-file", Text, "", "Security", "CA of the clients; if it is set, they must show certificates.", Works),
    flag("auto-tls", Bool, "false", "Security", "Makes a certificate to show to clients by itself.", Works),
    flag("peer-cert-file", Text, "", "Security", "Certificate for members.", Works),
    flag("peer-key-file", Text, "", "Security", "Key for members.", Works),
    flag("peer-client-cert-auth", Bool, "false", "Security", "Demands certificates from members.", Works),
    flag("peer-client-cert-file", Text, "", "Security", "Certificate to use towards members.", Works),
    flag("peer-client-key-file", Text, "", "Security", "Key to use towards members.", Works),
    flag("peer-trusted-ca-file", Text, "", "Security", "CA of the members.", Works),
    flag("peer-cert-allowed-cn", Text, "", "Security", "Common names of which members must have one, separated by commas.", Works),
    flag("peer-cert-allowed-hostname", Text, "", "Security", "Host names of which members must have one, separated by commas.", Works),
    flag("peer-auto-tls", Bool, "false", "Security", "Makes certificates for members by itself.", Works),
    flag("self-signed-cert-validity", Int, "1", "Security", "Years that self-made certificates are valid.", Works),
    flag("peer-crl-file", Text, "", "Security", "Revoked certificates of members.", Works),
    flag("cipher-suites", Text, "", "Security", "Cipher suites of TLS 1.2 to allow, as Go spells them, separated by commas.", Works),
    flag("tls-min-version", Text, "TLS1.2", "Security", "Lowest TLS version.", Works),
    flag("tls-max-version", Text, "", "Security", "Highest TLS version.", Works),
    flag("peer-skip-client-san-verification", Bool, "false", "Security", "Skips the check that members dial from the addresses in their certificates.", Works),
    flag("cors", Text, "*", "Security", "Origins whose pages may read answers over HTTP, separated by commas; * is all.", Works),
    flag("host-whitelist", Text, "*", "Security", "Host names that HTTP requests without TLS may be for, separated by commas; * is all.", Works),
    flag("auth-token", Text, "simple", "Auth", "Kind of auth token: \"simple\", or \"jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…\".", Works),
    flag("bcrypt-cost", Int, "10", "Auth", "Cost of a password hash, 4 to 31.", Works),
    flag("auth-token-ttl", Int, "300", "Auth", "Seconds that a simple token lives after it was last used.", Works),
    flag("enable-pprof", Bool, "false", "Profiling and Monitoring", "Serves Go profiles.", Meaningless("there is no Go runtime to profile")),
    flag("metrics", Text, "basic", "Profiling and Monitoring", "\"basic\", or \"extensive\": with the time of each call by its method.", Works),
    flag("listen-metrics-urls", Urls, "", "Profiling and Monitoring", "More URLs for metrics, health and version.", Works),
    flag("logger", Text, "zap", "Logging", "Log lines as zap writes them; the only choice.", Works),
    flag("log-outputs", Text, "default", "Logging", "\"default\" and \"stderr\", \"stdout\", or file paths, separated by commas.", Works),
    flag("log-level", Text, "info", "Logging", "debug, info, warn, error, panic or fatal.", Works),
    flag("log-format", Text, "json", "Logging", "\"json\" or \"console\".", Works),
    flag("enable-log-rotation", Bool, "false", "Logging", "Rotates log files.", Later("use the rotation of the system")),
    flag("log-rotation-config-json", Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", "Logging", "How log files are rotated.", Meaningless("log files are not rotated here")),
    flag("warning-unary-request-duration", Duration, "300ms", "Logging", "Requests slower than this are logged.", Works),
    flag("enable-distributed-tracing", Bool, "false", "Distributed tracing", "Sends a span of each gRPC call to an OpenTelemetry collector.", Works),
    flag("distributed-tracing-address", Text, "localhost:4317", "Distributed tracing", "host:port of the collector, which speaks OTLP over gRPC without TLS.", Works),
    flag("distributed-tracing-service-name", Text, "etcd", "Distributed tracing", "Name of the service in its spans; the same for all members.", Works),
    flag("distributed-tracing-instance-id", Text, "", "Distributed tracing", "What tells this member's spans from those of others.", Works),
    flag("distributed-tracing-sampling-rate", Int, "0", "Distributed tracing", "Of a million calls without a sampled parent so many are kept; of those with one, all.", Works),
    flag("corrupt-check-time", Duration, "0s", "Features", "Time between two comparisons of the members' hashes.", Meaningless(COMPARED)),
    flag("compact-hash-check-time", Duration, "1m", "Features", "Time between two comparisons of hashes after compaction.", Meaningless(COMPARED)),
    flag("compaction-batch-limit", Int, "1000", "Features", "Rows that one step of compaction may touch.", Works),
    flag("compaction-sleep-interval", Duration, "10ms", "Features", "Rest between two steps of compaction.", Works),
    flag("watch-progress-notify-interval", Duration, "10m", "Features", "Time between two progress notifications of a silent watcher.", Works),
    flag("warning-apply-duration", Duration, "100ms", "Features", "Applies slower than this are logged.", Works),
    flag("bootstrap-defrag-threshold-megabytes", Int, "0", "Features", "Free megabytes that cause a defragmentation at the start.", Meaningless("space is reused all the time")),
    flag("max-learners", Int, "1", "Features", "Most learners in the cluster.", Works),
    flag("downgrade-check-time", Duration, "5s", "Features", "Time between two checks of a downgrade.", Meaningless("there is no older version of the store")),
    flag("snapshot-catchup-entries", Int, "5000", "Features", "Entries that stay in memory for slow followers.", Works),
    flag("force-new-cluster", Bool, "false", "Unsafe", "Makes a cluster of this member alone, with its data: the others are forgotten.", Works),
    flag("unsafe-no-fsync", Bool, "false", "Unsafe", "Never waits for the disk: a crash of the machine loses acknowledged writes.", Works),
    flag("client-cert-allowed-cn", Text, "", "henge", "Common names of which clients must have one in their certificates, separated by commas.", Works),
    flag("config-file", Text, "", "henge", "YAML file with etcd's keys; all other flags and variables are then ignored.", Works),
    flag("ring-proxy-cn", Text, "", "henge", "Common names of proxies that are trusted, separated by commas: they may know users and roles, read everything for their copies, and say which client a call is from (their --ring-identity). Needs certificates of clients.", Works),
    flag("core-size", Int, "0", "henge", "Voters that the core is to have: one that is away for --core-heal-after is replaced by a proxy that volunteers (its --standby-peer-url). Odd, and at least 3; 0: the core does not heal itself. The same for all members.", Works),
    flag("core-heal-after", Duration, "5m0s", "henge", "How long a voter must have been away for --core-size to replace it.", Works),
    flag("auto-promote", Bool, "false", "henge", "A learner gets a vote by itself as soon as it has caught up.", Works),
    flag("snapshot-send-bytes-per-s", Int, "8388608", "henge", "Bytes that snapshots for other members may take in a second; 0: no limit. Up to 16 times as many once much of the log is kept for them.", Works),
    flag("storage-engine", Text, "redb", "henge", "Store under the data: \"redb\", or \"sled\" (experimental).", Works),
    flag("storage-cache-bytes", Int, "134217728", "henge", "Memory that the store may use for its cache.", Works),
    flag("value-cache-bytes", Int, "268435456", "henge", "Memory for keys' values that were lately written or read; 0: none.", Works),
    flag("memory-budget", Int, "0", "Limits", "Bytes of memory that the shares of requests, answers, streams and unread watches are taken from; 0: half of what the machine, or its container, has.", Works),
    flag("max-range-bytes", Int, "0", "Limits", "Bytes of the largest answer to one range or one transaction that reads; 0: a sixteenth of --memory-budget.", Works),
    flag("max-connections", Int, "0", "Limits", "Most connections of clients; 0: three quarters of the open files that the system allows.", Works),
    flag("max-connections-per-address", Int, "0", "Limits", "Most connections from one address; 0: no bound but --max-connections.", Works),
    flag("rate-limit-users", Text, "", "Limits", "Requests a second of users, as NAME=RATE,…; * is each who is not named, and all together who have no name.", Works),
    flag("rate-limit-prefixes", Text, "", "Limits", "Requests a second for keys that begin so, as PREFIX=RATE,…; a range counts for each prefix that it touches.", Works),
    flag("wal-keep-all", Bool, "false", "henge", "Keeps every segment of the log, for audits.", Works),
];
