//! Life and death of the process: bind, open, serve, stop.
//!
//! **Promises.** Nothing of the disk is touched before every port is bound; the line "ready to serve client requests" is written
//! once every listener accepts. A signal lets calls in flight finish, within a deadline, and makes everything durable; a fault
//! ends the process with one clear line and a failing exit. **May not know** what a request means.

mod auth;
mod discovery;
mod limits;
mod peers;
mod proxy;
mod standby;
mod supervisor;
mod tls;

pub use proxy::{run_gateway, run_proxy};

use crate::{
    config::{Compaction, Config, HttpFlags, StorageEngine, Url},
    engine,
    gateway::{self, Access, Json},
    io::{
        Disk,
        real::{DirLock, RealDisk, lock_dir},
    },
    peer::Network,
    replica::{self, AutoCompaction, Handle, Settings, StartAs},
    server::{
        self, ConnectionSettings, Edge, Healing, Listener, MemberBackend, RingProxies, Rules, Services, Telemetry,
        Version,
    },
    tls::ServerTls,
    types::{Fault, Sabotage},
    watch as hub,
};
use limits::{LimitSource, Limits};
use peers::Peers;
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How long calls in flight may take to finish once the process has been told to stop.
const DRAIN: Duration = Duration::from_millis(900);
/// Space that a member may use if nobody says otherwise (etcd's default).
const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;

/// Runs a member until it is told to stop, or cannot go on.
pub fn run(config: Config, warnings: &[String]) -> ExitCode {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => return give_up(&why),
    };
    let end = runtime.block_on(live(config));
    runtime.shutdown_timeout(Duration::from_millis(100));
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => give_up(&why),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    limits::raise_files_max();
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| format!("cannot start the runtime: {error}"))
}

/// The signals that end a process in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        // These mean nothing here, and would end a process that had not asked for them once; etcd goes on, too.
        for idle in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(listen(idle)?);
        }
        Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    async fn told(&mut self) {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupt",
        };
        tracing::info!(signal, "received signal; shutting down");
    }
}

fn give_up(why: &str) -> ExitCode {
    tracing::error!(error = %why, "henge stops");
    // The log may be JSON, or a file: whoever stands at the terminal gets one plain line.
    eprintln!("henge: {why}");
    ExitCode::FAILURE
}

async fn live(config: Config) -> Result<(), String> {
    let mut signals = Signals::listen()?;
    tracing::info!(
        version = crate::config::claimed_version(),
        name = config.name,
        data_dir = %config.data_dir.display(),
        "starting henge"
    );
    let auth_settings = auth::settings(&config)?;
    let config = discovery::complete(config).await?;
    let bind = async |urls: &[Url]| bind_all(urls, config.socket_reuse_port).await;
    let clients = bind(&config.listen_client_urls).await?;
    let http = bind(&config.listen_client_http_urls).await?;
    let metrics = bind(&config.listen_metrics_urls).await?;
    let peers = Peers::bind(&config).await?;
    let _lock = claim(&config).map_err(|fault| fault.to_string())?;
    let client_urls = [&config.listen_client_urls, &config.listen_client_http_urls, &config.listen_metrics_urls];
    let fixtures = config.data_dir.join("fixtures").join("client");
    let client_tls = tls::for_clients(&config.client_tls, &client_urls, &fixtures)?;
    // Members that start at the same time ask each other: somebody has to answer.
    let peers = peers.serve(&config)?;
    let start_as = peers.start_as(&config).await?;
    let handle = open(&config, start_as, sabotage()?, peers.network()).map_err(|fault| fault.to_string())?;
    peers.begin(&handle);

    let stopping = Arc::new(watch::Sender::new(false));
    let rules = Rules { strict: config.strict_reconfig_check, learners_max: config.max_learners };
    let backend =
        MemberBackend::new(handle.clone(), quota_bytes(&config).max(0), rules, auth_settings, Arc::clone(&stopping));
    backend.upkeep(config.auto_promote);
    let limits = Limits::of(&config.limits);
    let telemetry = config.tracing.as_ref().map(Telemetry::start).transpose()?;
    let edge = Edge::new(backend, edge_settings(&config, &limits, telemetry.as_ref()));
    edge.metrics.add(edge.backend.clone());
    edge.metrics.add(peers.network().clone());
    if config.core_size > 0 {
        let healing = Healing { core_size: config.core_size, after: config.core_heal_after };
        edge.backend.heal(healing, edge.roster.clone(), edge.healing.clone());
    }
    let connections = ConnectionSettings {
        streams_max: config.max_concurrent_streams,
        keepalive_interval: config.grpc_keepalive_interval,
        keepalive_timeout: config.grpc_keepalive_timeout,
        places: limits.places(),
        admission: Some(edge.admission()),
    };
    let aside = ConnectionSettings { places: limits.places_aside(), ..connections.clone() };
    let registry = edge.metrics.clone();
    let health = gateway::health_routes(edge.clone());
    let metrics = server::serve_http(secured(metrics, client_tls.as_ref()), health, &aside);
    let message_bytes_max = edge.settings.limits.message_bytes_max();
    let json = config.http.serves_json.then(|| Json::new(Services::of(&edge), message_bytes_max));
    let routes = gateway::with_json(gateway::routes(edge.clone()), json, access(&config.http));
    let http = server::serve_http(secured(http, client_tls.as_ref()), routes.clone(), &aside);
    // HTTP with ports of its own leaves the others to gRPC.
    let beside = if config.listen_client_http_urls.is_empty() { routes } else { axum::Router::new() };
    let serving = server::serve(secured(clients, client_tls.as_ref()), edge, beside, &connections);
    let places = [("clients", serving.places()), ("http", http.places()), ("metrics", metrics.places())].into();
    registry.add(LimitSource { limits, places });
    tracing::info!("ready to serve client requests");
    for url in &config.listen_client_urls {
        tracing::info!(address = %url, "serving client traffic");
    }
    greet(&config);
    supervisor::ready();

    let (mut fault, mut removed) = (handle.fault(), handle.removed());
    let end = tokio::select! {
        () = signals.told() => Ok(()),
        found = fault.wait_for(Option::is_some) => {
            Err(found.ok().and_then(|found| found.clone()).unwrap_or_else(|| "the member is gone".to_owned()))
        }
        () = left(&mut removed) => Ok(()),
    };
    supervisor::stopping();
    stopping.send_replace(true);
    // Clients get their answers first, and the lead goes to somebody else; then nobody is left to ask the member for anything.
    let hand_over = tokio::time::timeout(DRAIN, handle.hand_over());
    let _ = tokio::join!(serving.stop(DRAIN), http.stop(DRAIN), metrics.stop(DRAIN), hand_over);
    let last_spans = telemetry.map(|telemetry| tokio::spawn(telemetry.stop()));
    let stopped = handle.clone();
    let joined = tokio::task::spawn_blocking(move || stopped.stop()).await;
    if joined.is_err() {
        return Err("the member panicked while it stopped".to_owned());
    }
    peers.stop().await;
    if let Some(last_spans) = last_spans {
        // It bounds itself, and what it could not do is lost in any case.
        let _ = last_spans.await;
    }
    // The last flush can still have failed.
    let last = handle.fault().borrow().clone();
    end.and(last.map_or(Ok(()), Err))
}

/// Waits until this member has been removed from the cluster, and a little longer: who asked for it gets the answer, and the others hear
/// that it is done.
async fn left(removed: &mut watch::Receiver<bool>) {
    if removed.wait_for(|removed| *removed).await.is_err() {
        // The member is gone, which shows elsewhere.
        std::future::pending::<()>().await;
    }
    tracing::warn!(
        "the member has been permanently removed from the cluster; the data-dir used by this member must be removed"
    );
    tokio::time::sleep(DRAIN).await;
}

/// Binds each address once: where a URL comes with `http` and with `https`, both are spoken.
async fn bind_all(urls: &[Url], share_port: bool) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<(&Url, Listener)> = Vec::new();
    for url in urls {
        let is_same = |other: &Url| other.address == url.address && other.scheme != url.scheme;
        let same = listeners.iter_mut().find(|(other, _)| url.scheme.starts_with("http") && is_same(other));
        if let Some((_, listener)) = same {
            listener.speak_both();
            continue;
        }
        let bound = Listener::bind_shared(&url.to_string(), share_port).await;
        listeners.push((url, bound.map_err(|error| error.to_string())?));
    }
    Ok(listeners.into_iter().map(|(_, listener)| listener).collect())
}

/// Who may use plain HTTP.
fn access(flags: &HttpFlags) -> Access {
    Access::new(flags.origins.iter().cloned(), flags.hosts.iter().cloned())
}

fn secured(listeners: Vec<Listener>, tls: Option<&ServerTls>) -> Vec<Listener> {
    listeners.into_iter().map(|listener| listener.with_tls(tls)).collect()
}

/// Makes a folder, and sees to it that a power cut can't take it away again with what will be in it.
fn make_durably(dir: &Path) -> Result<(), Fault> {
    let disk = RealDisk::default();
    disk.create_dir(dir).map_err(|source| Fault::io("create", dir, source))?;
    // The folder's own entry, and that of the one around it, which may be new as well.
    for parent in dir.ancestors().skip(1).take(2) {
        disk.sync_dir(parent).map_err(|source| Fault::io("fsync folder", parent, source))?;
    }
    Ok(())
}

/// redb and sled panic where they meet damage that they did not expect. Whoever stands at the terminal is told what that means.
fn name_the_store_in_panics(store: PathBuf) {
    let log = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log(panic);
        let within = |store: &str| panic.location().is_some_and(|location| location.file().contains(store));
        if within("/redb-") || within("/sled-") {
            let what = panic.payload_as_str().unwrap_or("its code panicked");
            eprintln!(
                "henge: {} is damaged: {what}; this member must be restored from a backup or replaced",
                store.display()
            );
            // A library that has panicked halfway is not asked to tidy up.
            std::process::exit(1);
        }
    }));
}

/// URLs as everybody but the flags has them.
fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// The data directory, made and locked. The lock lives as long as the process serves it.
fn claim(config: &Config) -> Result<DirLock, Fault> {
    make_durably(&config.data_dir.join("member"))?;
    lock_dir(&config.data_dir)
}

/// Opens log and store and starts the member.
fn open(config: &Config, start_as: StartAs, sabotage: Option<Sabotage>, network: &Network) -> Result<Handle, Fault> {
    let member_dir = config.data_dir.join("member");
    name_the_store_in_panics(member_dir.join("store"));
    let kind = match config.storage_engine {
        StorageEngine::Redb => engine::Kind::Redb,
        StorageEngine::Sled => engine::Kind::Sled,
    };
    let (wake, woken) = flume::bounded(1);
    let options = engine::Options {
        cache_bytes: config.storage_cache_bytes,
        // Full: the flush thread has been woken already.
        wake: Some(Arc::new(move || {
            let _ = wake.try_send(());
        })),
        ..engine::Options::default()
    };
    let home = Arc::new(engine::DirHome::new(&member_dir, kind, options));
    replica::start(settings(config, wal_dir(config), start_as, sabotage), home, Arc::new(network.clone()), woken)
}

fn wal_dir(config: &Config) -> PathBuf {
    config.wal_dir.clone().unwrap_or_else(|| config.data_dir.join("member").join("wal"))
}

fn quota_bytes(config: &Config) -> i64 {
    match config.quota_backend_bytes {
        0 => QUOTA_BYTES_DEFAULT,
        bytes => bytes,
    }
}

fn edge_settings(config: &Config, limits: &Limits, telemetry: Option<&Telemetry>) -> server::Settings {
    server::Settings {
        bounds: limits.bounds,
        rates: limits::rates(&config.limits),
        limits: server::Limits { txn_ops_max: config.max_txn_ops, request_bytes_max: config.max_request_bytes },
        watch_progress_interval: config.watch_progress_notify_interval,
        version: Version::claiming(&crate::config::claimed_version()),
        slow_call: config.warning_unary_request_duration,
        times_calls: config.extensive_metrics,
        spans: telemetry.map(Telemetry::spans),
        leaderless_max: config.election_timeout * 3,
        // Beside the store: the same disk, and nobody else's.
        spool_dir: config.data_dir.clone(),
        ring_proxies: RingProxies::new(config.client_tls.ring_proxy_cn.iter().cloned()),
    }
}

/// The rule that this process is to break. A build that keeps all rules refuses: whoever wants to see one broken would wait for it in vain.
fn sabotage() -> Result<Option<Sabotage>, String> {
    const VARIABLE: &str = "HENGE_SABOTAGE";
    match std::env::var(VARIABLE) {
        Err(_) => Ok(None),
        Ok(_) if !Sabotage::POSSIBLE => {
            Err(format!("{VARIABLE} is set, but this build breaks no rules: it lacks the feature \"sabotage\""))
        }
        Ok(name) => {
            let rule = name.parse().map_err(|why| format!("{VARIABLE}: {why}"))?;
            tracing::warn!(?rule, "this process breaks a rule on purpose, and will lose data or tell lies");
            Ok(Some(rule))
        }
    }
}

fn settings(config: &Config, wal_dir: PathBuf, start_as: StartAs, sabotage: Option<Sabotage>) -> Settings {
    let election_ticks = config.election_timeout.as_millis() / config.heartbeat_interval.as_millis().max(1);
    Settings {
        auth_token_ttl: config.auth.token_ttl,
        wal_dir,
        name: config.name.clone(),
        peer_urls: texts(&config.initial_advertise_peer_urls),
        client_urls: texts(&config.advertise_client_urls),
        cluster_token: config.initial_cluster_token.clone(),
        initial_cluster: config.initial_cluster.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect(),
        start_as,
        force_new_cluster: config.force_new_cluster,
        heartbeat: config.heartbeat_interval,
        election_ticks: u32::try_from(election_ticks).unwrap_or(u32::MAX),
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        request_bytes_max: config.max_request_bytes,
        quota_bytes: quota_bytes(config),
        value_cache_bytes: config.value_cache_bytes,
        flush_interval: config.backend_batch_interval,
        sweep_step: (config.compaction_batch_limit, config.compaction_sleep_interval),
        auto_compaction: config.auto_compaction.map(|mode| match mode {
            Compaction::Periodic(keep) => AutoCompaction::Periodic(keep),
            Compaction::Revisions(keep) => AutoCompaction::Revisions(keep),
        }),
        watch: hub::Options {
            reply_bytes_max: config.max_request_bytes,
            bytes_max: Limits::of(&config.limits).watch_bytes_max,
            ..hub::Options::default()
        },
        warn_apply_after: config.warning_apply_duration,
        unsafe_no_fsync: config.unsafe_no_fsync,
        wal_keep_all: config.wal_keep_all,
        sabotage,
    }
}

/// Tells a newcomer at a terminal how to talk to the member. Where its output goes elsewhere, the log is all there is to say, as in etcd.
fn greet(config: &Config) {
    let mut output = std::io::stdout();
    let Some(url) = config.advertise_client_urls.first().filter(|_| output.is_terminal()) else { return };
    let text = format!(
        "henge serves etcd's v3 API on {url}, data in {}\n  hengectl --endpoints {url} put greeting hello\n  hengectl --endpoints {url} get greeting\n",
        config.data_dir.display(),
    );
    // The terminal is gone? Then nobody needs the hint.
    let _ = output.write_all(text.as_bytes());
}
