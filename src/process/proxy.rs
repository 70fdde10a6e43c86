//! Life and death of what stands before a cluster: the proxy, and the gateway.

use super::{
    DRAIN, Signals, access, bind_all, give_up, limits::Limits, runtime, sabotage, secured, standby::Post, supervisor,
    texts, tls,
};
use crate::{
    client::ConnectOptions,
    config::{GatewayConfig, LimitFlags, ProxyConfig},
    dns::Dns,
    io::{
        Disk,
        real::{DirLock, RealDisk, lock_dir},
    },
    proxy::{self, Own, Resolver, Ring, Shelf, Standby, Trusted, Upstream, WatchSettings, tcp::Gateway},
    server::{ConnectionSettings, RingProxies},
};
use std::{path::Path, process::ExitCode, sync::Arc};
use tokio::{net::TcpListener, sync::watch};

/// Runs a proxy until it is told to stop.
pub fn run_proxy(config: ProxyConfig, warnings: &[String]) -> ExitCode {
    run(warnings, live_proxy(config))
}

/// Runs a gateway until it is told to stop.
pub fn run_gateway(config: GatewayConfig, warnings: &[String]) -> ExitCode {
    run(warnings, live_gateway(config))
}

fn run(warnings: &[String], life: impl Future<Output = Result<(), String>>) -> ExitCode {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match runtime().and_then(|runtime| {
        let end = runtime.block_on(life);
        runtime.shutdown_background();
        end
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => give_up(&why),
    }
}

async fn live_proxy(config: ProxyConfig) -> Result<(), String> {
    let mut signals = Signals::listen()?;
    let clients = bind_all(&config.listen_client_urls, config.socket_reuse_port).await?;
    let http = bind_all(&config.listen_metrics_urls, config.socket_reuse_port).await?;
    let urls = [&config.listen_client_urls, &config.listen_metrics_urls];
    let client_tls = tls::for_clients(&config.client_tls, &urls, &config.data_dir.join("fixtures").join("proxy"))?;
    let (clients, http) = (secured(clients, client_tls.as_ref()), secured(http, client_tls.as_ref()));
    let (endpoints, domain) = endpoints(&config).await?;
    let tls = tls::for_upstream(&config.upstream_tls, domain)?;
    let options = ConnectOptions { tls: Some(tls), ..ConnectOptions::default() };
    let upstream = Upstream::new(&endpoints, options.clone()).map_err(|error| error.to_string())?;
    // Held until the process ends: two proxies in one folder would write each other's files.
    let (_lock, shelf) = match config.saves_copies {
        true => {
            let (lock, shelf) = open_shelf(&config.data_dir)?;
            (Some(lock), Some(Arc::new(shelf)))
        }
        false => (None, None),
    };
    let copies = proxy::Settings {
        shelf,
        ranges: config.cache,
        hunger: config.cache_auto.then(proxy::Hunger::default),
        bytes_max: config.cache_bytes_max,
        trust: Trusted {
            has_identity: config.upstream_tls.is_ring_identity,
            proxies: RingProxies::new(config.client_tls.ring_proxy_cn),
        },
        sabotage: sabotage()?,
        ..proxy::Settings::default()
    };
    let name = if config.name.is_empty() { host_name() } else { config.name };
    let resolver = config.resolver.map(|(prefix, ttl_s)| Resolver { prefix, ttl_s });
    let standby = config.standby.as_ref().map(|flags| Standby::new(flags.peer_url.to_string()));
    let post = match config.standby.zip(standby.clone()) {
        Some((flags, told)) => Some(Post::new(flags, &name, &config.data_dir, (upstream.clone(), options), told)?),
        None => None,
    };
    let own =
        Own { name, urls: texts(&config.advertise_client_urls), is_listed: config.lists_itself, resolver, standby };
    let watch = WatchSettings { progress_interval: config.watch_progress_notify_interval, ..WatchSettings::default() };
    let ring = Ring::with(upstream, own, copies, watch)?;
    let connections = ConnectionSettings {
        streams_max: config.max_concurrent_streams,
        keepalive_interval: config.grpc_keepalive_interval,
        keepalive_timeout: config.grpc_keepalive_timeout,
        // By what the system has; a proxy has no flags for it.
        places: Limits::of(&LimitFlags::default()).places(),
        admission: None,
    };
    let (serving, http) = (
        ring.serve_to(clients, config.http.serves_json, access(&config.http), &connections),
        ring.serve_http(http, &connections),
    );
    for url in &config.listen_client_urls {
        tracing::info!(address = %url, ?endpoints, "started gRPC proxy");
    }
    tracing::info!("ready to serve client requests");
    supervisor::ready();
    let stop = watch::Sender::new(false);
    let (asked, stopping) = (ring.clone(), stop.subscribe());
    let holding = post.map(|post| tokio::spawn(post.hold(move || asked.report_interval(), stopping)));
    signals.told().await;
    supervisor::stopping();
    stop.send_replace(true);
    ring.stop();
    tokio::join!(serving.stop(DRAIN), http.stop(DRAIN), ring.left());
    if let Some(holding) = holding {
        // It may be waiting for the core, which is nothing to wait for.
        let _ = tokio::time::timeout(DRAIN, holding).await;
    }
    Ok(())
}

/// The folder of saved copies, for this process alone.
fn open_shelf(dir: &Path) -> Result<(DirLock, Shelf), String> {
    RealDisk::default().create_dir(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let lock = lock_dir(dir).map_err(|fault| fault.to_string())?;
    let shelf = Shelf::open(&dir.join("copies")).map_err(|error| format!("cannot use {}: {error}", dir.display()))?;
    Ok((lock, shelf))
}

/// What stands behind the proxy, and the domain to which certificates there are made out if it was DNS that named it.
async fn endpoints(config: &ProxyConfig) -> Result<(Vec<String>, Option<&str>), String> {
    let Some(srv) = &config.discovery_srv else { return Ok((config.endpoints.clone(), None)) };
    let mut found = Dns::system()?.client_urls(&srv.domain, &srv.name).await?;
    tracing::info!(endpoints = ?found, domain = srv.domain, "discovered endpoints");
    if config.insecure_discovery {
        return Ok((found, None));
    }
    found.retain(|endpoint| endpoint.starts_with("https://"));
    match found.is_empty() {
        true => Err(format!("DNS names no endpoints with TLS under {}; --insecure-discovery takes others", srv.domain)),
        false => Ok((found, Some(&srv.domain))),
    }
}

/// What the host calls itself.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn live_gateway(config: GatewayConfig) -> Result<(), String> {
    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(&config.listen_addr).await;
    let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", config.listen_addr))?;
    tracing::info!(endpoints = ?config.endpoints, "ready to proxy client requests");
    supervisor::ready();
    let gateway = Gateway::new(config.endpoints, config.retry_delay);
    // A connection has no end that the gateway knows of: there is nothing to wait for.
    tokio::select! {
        () = gateway.serve(listener) => {}
        () = signals.told() => {}
    }
    Ok(())
}
