//! Texts into the typed [`Config`], with all complaints at once.

use super::auth::AuthFlags;
use super::bootstrap::{ClusterState, DiscoverySrv, initial_cluster};
use super::flags::FLAGS;
use super::http::HttpFlags;
use super::limits::LimitFlags;
use super::reader::Reader;
use super::tls::TlsFlags;
use super::tracing::TracingFlags;
use super::value::{Url, boolean, duration, duration_ns, int};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Everything that a member can be told.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each field is the flag of the same name; `flags.rs` says what it does
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    pub snapshot_count: u64,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub listen_peer_urls: Vec<Url>,
    /// What stands in `peer-cert-file` and its like.
    pub peer_tls: TlsFlags,
    /// What stands in `cert-file` and its like.
    pub client_tls: TlsFlags,
    pub auth: AuthFlags,
    pub http: HttpFlags,
    pub limits: LimitFlags,
    /// What stands in `distributed-tracing-address` and its like; `None` without `enable-distributed-tracing`.
    pub tracing: Option<TracingFlags>,
    pub listen_client_urls: Vec<Url>,
    pub listen_client_http_urls: Vec<Url>,
    pub listen_metrics_urls: Vec<Url>,
    pub initial_advertise_peer_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
    /// Who founds the cluster, in the flag's order; this member alone if nothing was said. Empty while only DNS knows it.
    pub initial_cluster: Vec<(String, Vec<Url>)>,
    pub initial_cluster_state: ClusterState,
    pub initial_cluster_token: String,
    pub discovery_srv: Option<DiscoverySrv>,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub force_new_cluster: bool,
    pub auto_promote: bool,
    /// 0: the core does not heal itself.
    pub core_size: usize,
    pub core_heal_after: Duration,
    pub quota_backend_bytes: i64,
    pub backend_batch_interval: Duration,
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub max_concurrent_streams: u32,
    pub grpc_keepalive_interval: Duration,
    pub grpc_keepalive_timeout: Duration,
    pub socket_reuse_port: bool,
    pub pre_vote: bool,
    pub auto_compaction: Option<Compaction>,
    pub log: LogSettings,
    /// `metrics` is `extensive`.
    pub extensive_metrics: bool,
    pub warning_unary_request_duration: Duration,
    pub warning_apply_duration: Duration,
    pub compaction_batch_limit: usize,
    pub compaction_sleep_interval: Duration,
    pub watch_progress_notify_interval: Duration,
    pub snapshot_catchup_entries: u64,
    pub snapshot_send_bytes_per_s: u64,
    pub unsafe_no_fsync: bool,
    pub storage_engine: StorageEngine,
    pub storage_cache_bytes: usize,
    pub value_cache_bytes: usize,
    pub wal_keep_all: bool,
}

/// How history is forgotten by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compaction {
    /// Keep what is younger than this.
    Periodic(Duration),
    /// Keep this many revisions.
    Revisions(i64),
}

/// What is logged, how, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each field is the flag of the same name with `log-` before it
pub struct LogSettings {
    pub level: String,
    pub format: LogFormat,
    pub outputs: Vec<String>,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, as etcd's default.
    Json,
    /// For people.
    Console,
}

/// The store under the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageEngine {
    /// The default.
    Redb,
    /// Selectable, experimental.
    Sled,
}

impl Config {
    /// Checks `settings` (flag name to text) and fills in defaults. Warnings are pushed to `warnings`.
    ///
    /// # Errors
    /// One sentence for each mistake.
    pub fn from_settings(
        settings: &BTreeMap<&'static str, String>,
        warnings: &mut Vec<String>,
    ) -> Result<Config, Vec<String>> {
        let mut read = Reader::new(FLAGS, settings);
        read.standings(warnings);
        let config = read.config();
        warnings.extend(config.peer_tls.warnings(&config.listen_peer_urls));
        warnings.extend(config.client_tls.warnings(&config.client_listeners()));
        if read.mistakes.is_empty() { Ok(config) } else { Err(read.mistakes) }
    }
}

impl Config {
    /// All URLs where clients are served, whatever they may ask for there.
    fn client_listeners(&self) -> Vec<Url> {
        [&self.listen_client_urls, &self.listen_client_http_urls, &self.listen_metrics_urls]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

impl Reader<'_> {
    fn config(&mut self) -> Config {
        let name = self.text("name");
        let data_dir = match self.text("data-dir") {
            empty if empty.is_empty() => PathBuf::from(format!("{name}.etcd")),
            dir => PathBuf::from(dir),
        };
        let initial_advertise_peer_urls = self.urls("initial-advertise-peer-urls");
        let (grpc_keepalive_interval, grpc_keepalive_timeout) = self.keepalive();
        let config = Config {
            data_dir,
            wal_dir: self.path("wal-dir"),
            snapshot_count: self.int_or_default("snapshot-count", 0, i64::MAX) as u64,
            heartbeat_interval: Duration::from_millis(self.int("heartbeat-interval", 1, 10_000) as u64),
            election_timeout: Duration::from_millis(self.int("election-timeout", 1, 50_000) as u64),
            listen_peer_urls: self.urls("listen-peer-urls"),
            peer_tls: TlsFlags::of_peers(self),
            client_tls: TlsFlags::of_clients(self),
            auth: AuthFlags::of(self),
            http: HttpFlags::of(self),
            limits: LimitFlags::of(self),
            tracing: TracingFlags::of(self),
            listen_client_urls: self.urls("listen-client-urls"),
            listen_client_http_urls: self.urls("listen-client-http-urls"),
            listen_metrics_urls: self.urls("listen-metrics-urls"),
            advertise_client_urls: self.urls("advertise-client-urls"),
            initial_cluster: self.initial_cluster(&name, &initial_advertise_peer_urls),
            initial_advertise_peer_urls,
            initial_cluster_state: match self.one_of("initial-cluster-state", CLUSTER_STATES).as_str() {
                "existing" => ClusterState::Existing,
                _ => ClusterState::New,
            },
            initial_cluster_token: self.text("initial-cluster-token"),
            discovery_srv: self.discovery_srv(),
            strict_reconfig_check: self.bool("strict-reconfig-check"),
            max_learners: self.int("max-learners", 0, 1_000) as usize,
            force_new_cluster: self.bool("force-new-cluster"),
            auto_promote: self.bool("auto-promote"),
            core_size: self.value("core-size", |text| match int(text) {
                Ok(size) if size == 0 || size >= 3 && size % 2 == 1 => Ok(size as usize),
                _ => Err(format!("{text:?} is no size that heals: an odd number of voters, at least 3, or 0 for off")),
            }),
            core_heal_after: self.duration("core-heal-after"),
            quota_backend_bytes: self.int("quota-backend-bytes", i64::MIN, i64::MAX),
            backend_batch_interval: self.duration("backend-batch-interval"),
            max_txn_ops: self.int("max-txn-ops", 0, i64::from(u32::MAX)) as usize,
            max_request_bytes: self.int("max-request-bytes", 1, 1 << 30) as usize,
            max_concurrent_streams: self.int_or_default("max-concurrent-streams", 0, i64::from(u32::MAX)) as u32,
            grpc_keepalive_interval,
            grpc_keepalive_timeout,
            socket_reuse_port: self.bool("socket-reuse-port"),
            pre_vote: self.bool("pre-vote"),
            auto_compaction: self.compaction(),
            log: self.log(),
            extensive_metrics: self.one_of("metrics", &["basic", "extensive", ""]) == "extensive",
            warning_unary_request_duration: self.duration("warning-unary-request-duration"),
            warning_apply_duration: self.duration("warning-apply-duration"),
            compaction_batch_limit: self.int_or_default("compaction-batch-limit", i64::MIN, 1_000_000) as usize,
            compaction_sleep_interval: self.duration("compaction-sleep-interval"),
            watch_progress_notify_interval: self.duration("watch-progress-notify-interval"),
            snapshot_catchup_entries: self.int("snapshot-catchup-entries", 0, i64::MAX) as u64,
            snapshot_send_bytes_per_s: self.int("snapshot-send-bytes-per-s", 0, i64::MAX) as u64,
            unsafe_no_fsync: self.bool("unsafe-no-fsync"),
            storage_engine: match self.one_of("storage-engine", &["redb", "sled"]).as_str() {
                "sled" => StorageEngine::Sled,
                _ => StorageEngine::Redb,
            },
            storage_cache_bytes: self.int("storage-cache-bytes", 1 << 20, 1 << 40) as usize,
            value_cache_bytes: self.int("value-cache-bytes", 0, 1 << 40) as usize,
            wal_keep_all: self.bool("wal-keep-all"),
            name,
        };
        self.mistakes.extend(config.peer_tls.mistakes(&config.listen_peer_urls));
        self.mistakes.extend(config.client_tls.mistakes(&config.client_listeners()));
        self.protocol_mistakes(&config.client_tls.protocol);
        self.feature_gates();
        self.combinations(&config);
        config
    }

    /// Where DNS is asked, if it is.
    pub(super) fn discovery_srv(&mut self) -> Option<DiscoverySrv> {
        let domain = Some(self.text("discovery-srv")).filter(|domain| !domain.is_empty())?;
        Some(DiscoverySrv { domain, name: self.text("discovery-srv-name") })
    }

    pub(super) fn log(&mut self) -> LogSettings {
        self.one_of("logger", &["zap"]);
        LogSettings {
            level: self.value("log-level", log_level),
            format: match self.one_of("log-format", &["json", "console", ""]).as_str() {
                "console" => LogFormat::Console,
                _ => LogFormat::Json,
            },
            outputs: self.text("log-outputs").split(',').map(str::to_owned).collect(),
        }
    }

    /// They change nothing here.
    fn feature_gates(&mut self) {
        for what in gate_mistakes(&self.text("feature-gates")) {
            self.wrong(format!("invalid value for --feature-gates: {what}"));
        }
    }

    /// What only several settings together can get wrong.
    fn combinations(&mut self, config: &Config) {
        if config.election_timeout < config.heartbeat_interval * 5 {
            self.wrong(format!(
                "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
                config.election_timeout.as_millis(),
                config.heartbeat_interval.as_millis()
            ));
        }
        if config.core_size > 0 {
            if config.core_heal_after < config.election_timeout {
                self.wrong("--core-heal-after must be at least --election-timeout".to_owned());
            }
            if config.max_learners == 0 {
                self.wrong(
                    "--core-size needs --max-learners of at least 1: a standby learns before it votes".to_owned(),
                );
            }
        } else if self.is_set("core-heal-after") {
            self.wrong("--core-heal-after needs --core-size".to_owned());
        }
        if self.is_set("listen-client-urls") && !self.is_set("advertise-client-urls") {
            self.wrong("--advertise-client-urls is required when --listen-client-urls is set explicitly".to_owned());
        }
        let (clients, http) = (&config.listen_client_urls, &config.listen_client_http_urls);
        if let Some(url) = http.iter().find(|url| clients.iter().any(|client| client.address == url.address)) {
            self.wrong(format!(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
            ));
        }
        if clients.is_empty() {
            self.wrong("--listen-client-urls must name at least one URL".to_owned());
        }
        self.bindable(clients.iter().chain(http).chain(&config.listen_metrics_urls).chain(&config.listen_peer_urls));
        let hostless = |urls: &[Url]| urls.iter().find(|url| url.address.starts_with(':')).map(ToString::to_string);
        let joined = |urls: &[Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if let Some(url) = hostless(&config.initial_advertise_peer_urls) {
            let all = joined(&config.initial_advertise_peer_urls);
            self.wrong(format!(
                "--initial-advertise-peer-urls {all:?} must be \"host:port\" (unexpected empty host ({url}))"
            ));
        }
        if let Some(url) = hostless(&config.advertise_client_urls) {
            let all = joined(&config.advertise_client_urls);
            self.wrong(format!(
                "--advertise-client-urls {all:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host ({url}))"
            ));
        }
        if config.discovery_srv.is_some() {
            if !self.text("initial-cluster").is_empty() {
                self.wrong(
                    "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\""
                        .to_owned(),
                );
            }
        } else if !config.initial_cluster.is_empty() && !config.is_founded() {
            self.mistakes.extend(config.bootstrap_mistakes());
        }
    }

    /// Names are resolved by whoever calls; one listens on addresses.
    pub(super) fn bindable<'u>(&mut self, urls: impl IntoIterator<Item = &'u Url>) {
        for url in urls {
            let host = url.address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
            let numeric = host.is_empty() || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok();
            if url.scheme.starts_with("http") && !numeric {
                self.wrong(format!("expected IP in URL for binding ({url})"));
            }
        }
    }

    /// The founders by the flag; by default this member alone, at the URLs that it advertises.
    fn initial_cluster(&mut self, name: &str, advertised: &[Url]) -> Vec<(String, Vec<Url>)> {
        match initial_cluster(&self.text("initial-cluster")) {
            Ok(members) if !members.is_empty() => members,
            Ok(_) if !self.text("discovery-srv").is_empty() => Vec::new(),
            Ok(_) => vec![(name.to_owned(), advertised.to_vec())],
            Err(why) => {
                self.wrong(format!("error setting up initial cluster: {why}"));
                Vec::new()
            }
        }
    }

    /// `grpc-keepalive-interval` and `grpc-keepalive-timeout`; no interval, if one of them is nothing or less: then nobody is asked.
    pub(super) fn keepalive(&mut self) -> (Duration, Duration) {
        let or_zero = |text: &str| Ok(Duration::from_nanos(u64::try_from(duration_ns(text)?).unwrap_or(0)));
        let interval = self.value("grpc-keepalive-interval", or_zero);
        let timeout = self.value("grpc-keepalive-timeout", or_zero);
        (if timeout.is_zero() { Duration::ZERO } else { interval }, timeout)
    }

    fn compaction(&mut self) -> Option<Compaction> {
        let by_revision = self.one_of("auto-compaction-mode", &["periodic", "revision"]) == "revision";
        self.value("auto-compaction-retention", |text| match (text, by_revision) {
            ("0" | "", _) => Ok(None),
            // A duration is a number, too: etcd keeps as many revisions as it has nanoseconds.
            (_, true) => match text.parse::<i64>().or_else(|_| duration_ns(text)) {
                Ok(0) => Ok(None),
                Ok(count) if count > 0 => Ok(Some(Compaction::Revisions(count))),
                _ => Err(format!("{text:?} is not a number of revisions")),
            },
            // A bare number is hours, from the days when retention had no units.
            (_, false) => match text.parse::<u32>() {
                Ok(hours) => Ok(Some(Compaction::Periodic(Duration::from_secs(u64::from(hours) * 3600)))),
                Err(_) => duration(text).map(|keep| (!keep.is_zero()).then_some(Compaction::Periodic(keep))),
            },
        })
    }
}

/// As zap reads a level: in small letters or large ones, and nothing is `info`.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok("info".to_owned()),
        "warning" => Ok("warn".to_owned()),
        level @ ("debug" | "info" | "warn" | "error" | "dpanic" | "panic" | "fatal") => Ok(level.to_owned()),
        _ => Err(format!("{text:?} is none of debug, info, warn, error, panic, fatal")),
    }
}

/// Whether etcd has the feature gates that are named; what is wrong with them in its words.
pub(super) fn gate_mistakes(text: &str) -> Vec<String> {
    let mistake = |pair: &str| {
        let (gate, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (gate, value) = (gate.trim(), value.trim());
        match boolean(value) {
            _ if value.is_empty() => Some(format!("missing bool value for {gate}")),
            Err(what) => Some(format!("invalid value of {gate}: {what}")),
            Ok(_) if !FEATURE_GATES.contains(&gate) => Some(format!("unrecognized feature gate: {gate}")),
            Ok(_) => None,
        }
    };
    text.split(',').filter(|pair| !pair.is_empty()).filter_map(mistake).collect()
}

/// What `initial-cluster-state` may be.
pub(super) const CLUSTER_STATES: &[&str] = &["new", "existing"];

/// etcd v3.7's, and those of v3.6.
const FEATURE_GATES: &[&str] = &[
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "PriorityRequest",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];

#[cfg(test)]
mod tests;
