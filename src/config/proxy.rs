//! The programs that stand before a cluster: `henge proxy`, and `henge gateway`, each with its own table of flags and with etcd's
//! spelling (`grpc-proxy start`, `gateway start`).
//!
//! Their flags come from the command line alone: a proxy often stands beside a member whose variables are not meant for it.

mod flags;

use super::{
    bootstrap::DiscoverySrv,
    check::LogSettings,
    http::HttpFlags,
    parse::Invocation,
    reader::Reader,
    said::Said,
    standby::StandbyFlags,
    tls::{TlsFlags, pair},
    value::{Url, url},
    words::{self, Asked},
};
use crate::{
    tls::{Identity, Protocol},
    types::KeyRange,
};
use bytes::Bytes;
use clap::Command;
use std::{path::PathBuf, time::Duration};

/// What a proxy can be told.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// What stands behind it: URLs; at least one.
    pub endpoints: Vec<String>,
    /// Where DNS says what stands behind it, instead.
    pub discovery_srv: Option<DiscoverySrv>,
    /// Whether endpoints without TLS count that DNS names.
    pub insecure_discovery: bool,
    /// How it speaks with them.
    pub upstream_tls: UpstreamTls,
    /// Where it keeps what it makes.
    pub data_dir: PathBuf,
    /// Whether copies are saved there: if the folder was named.
    pub saves_copies: bool,
    /// Where it serves gRPC and HTTP.
    pub listen_client_urls: Vec<Url>,
    /// Certificates to show to clients, and whom to let in.
    pub client_tls: TlsFlags,
    /// Where it serves HTTP alone.
    pub listen_metrics_urls: Vec<Url>,
    /// Its name in lists of proxies; empty: the host's.
    pub name: String,
    /// Where clients reach it.
    pub advertise_client_urls: Vec<Url>,
    /// Whether these were named, and so stand in the list of members that clients get.
    pub lists_itself: bool,
    /// `resolver-prefix` and `resolver-ttl` (seconds), if it is to register there.
    pub resolver: Option<(String, i64)>,
    /// Ranges that it keeps copies of.
    pub cache: Vec<KeyRange>,
    /// Whether it also copies what is asked for often.
    pub cache_auto: bool,
    /// Memory for these copies, in bytes.
    pub cache_bytes_max: usize,
    /// What is there over plain HTTP, and for whom.
    pub http: HttpFlags,
    /// `watch-progress-notify-interval` of watchers that copies serve.
    pub watch_progress_notify_interval: Duration,
    /// `max-concurrent-streams` of one connection.
    pub max_concurrent_streams: u32,
    /// `grpc-keepalive-interval`
    pub grpc_keepalive_interval: Duration,
    /// `grpc-keepalive-timeout`
    pub grpc_keepalive_timeout: Duration,
    /// `socket-reuse-port`
    pub socket_reuse_port: bool,
    /// The member that its host volunteers to become.
    pub standby: Option<StandbyFlags>,
    /// What is logged.
    pub log: LogSettings,
}

/// TLS towards the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// `cert` and `key`.
    pub identity: Option<Identity>,
    /// `cacert`
    pub trusted_ca_file: Option<PathBuf>,
    /// `insecure-skip-tls-verify`
    pub skip_verify: bool,
    /// `ring-identity`
    pub is_ring_identity: bool,
    /// `tls-min-version`, `tls-max-version` and `cipher-suites`, of both sides.
    pub protocol: Protocol,
}

impl UpstreamTls {
    /// Whether anything was said about it: then endpoints without a scheme are meant to have TLS, as in etcd.
    fn is_wanted(&self) -> bool {
        self.identity.is_some() || self.trusted_ca_file.is_some() || self.skip_verify
    }
}

/// What a gateway can be told.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// `host:port` each; at least one.
    pub endpoints: Vec<String>,
    /// `host:port`
    pub listen_addr: String,
    /// How long an endpoint that failed is left alone.
    pub retry_delay: Duration,
    /// What is logged.
    pub log: LogSettings,
}

/// A program that is no member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Proxy,
    GrpcProxy,
    Gateway,
}

impl Program {
    pub(super) fn named(word: &str) -> Option<Program> {
        match word {
            "proxy" => Some(Program::Proxy),
            "grpc-proxy" => Some(Program::GrpcProxy),
            "gateway" => Some(Program::Gateway),
            _ => None,
        }
    }

    pub(super) fn command(self) -> Command {
        match self {
            Program::Proxy => Command::new("henge proxy")
                .about("Serves the whole API of a cluster, or of another proxy, from this host")
                .override_usage("henge proxy --endpoints URL,… --listen-client-urls URL,… [--flag value]…"),
            Program::GrpcProxy => Command::new("henge grpc-proxy start")
                .about("The same as `henge proxy`, with etcd's flags")
                .override_usage("henge grpc-proxy start --endpoints=… --listen-addr=… [--flag=value]…"),
            Program::Gateway => Command::new("henge gateway start")
                .about("Carries TCP connections to the endpoints in turn")
                .override_usage("henge gateway [start] --endpoints=… --listen-addr=… [--flag=value]…"),
        }
    }

    /// Reads what follows the program's name.
    pub(super) fn parse(self, args: impl Iterator<Item = String>) -> Result<Invocation, Vec<String>> {
        let mut args = args.peekable();
        let starts = args.next_if(|word| word == "start").is_some();
        let asks_for_help = |word: &String| ["-h", "--help", "-help", "help"].contains(&word.as_str());
        match self {
            Program::Proxy if starts => {
                return Err(vec!["it is `henge proxy`, or `henge grpc-proxy start`".to_owned()]);
            }
            Program::GrpcProxy if !starts && !args.peek().is_some_and(asks_for_help) => {
                return Err(vec!["it is `henge grpc-proxy start`".to_owned()]);
            }
            _ => {}
        }
        let flags = self.flags();
        let Said { settings, mistakes, mut warnings, .. } = match words::read(args, &flags, Said::default()) {
            Asked::Run(said) => said,
            Asked::Help => return Ok(Invocation::Print(self.whole().render_help().to_string())),
            Asked::Version => return Ok(Invocation::Print(super::version_text())),
        };
        let mut read = Reader::new(&flags, &settings);
        read.mistakes = mistakes;
        read.standings(&mut warnings);
        let invocation = match self {
            Program::Proxy | Program::GrpcProxy => {
                let config = if self == Program::Proxy { read.proxy() } else { read.grpc_proxy() };
                let listeners = config.listen_client_urls.iter().chain(&config.listen_metrics_urls);
                warnings.extend(config.client_tls.warnings(&listeners.cloned().collect::<Vec<_>>()));
                Invocation::Proxy { config: Box::new(config), warnings }
            }
            Program::Gateway => Invocation::Gateway { config: read.gateway(), warnings },
        };
        if read.mistakes.is_empty() { Ok(invocation) } else { Err(read.mistakes) }
    }
}

impl Reader<'_> {
    fn proxy(&mut self) -> ProxyConfig {
        let listen = self.urls("listen-client-urls");
        let advertised = self.urls("advertise-client-urls");
        let metrics = self.urls("listen-metrics-urls");
        let client_tls = TlsFlags::of_clients(self);
        let mut config = self.proxy_of(listen, advertised, metrics, client_tls);
        let own = [&config.listen_client_urls[..], &config.listen_metrics_urls].concat();
        config.standby = self.standby(&own);
        config
    }

    fn grpc_proxy(&mut self) -> ProxyConfig {
        // One address, and no scheme: it is https if there is a certificate to show.
        let client_tls = TlsFlags::of_clients(self);
        let scheme = if client_tls.has_identity() { "https" } else { "http" };
        let listen = self.value("listen-addr", |text| url(&format!("{scheme}://{text}")));
        let with_scheme = |text: &str| match text {
            "" => Ok(Vec::new()),
            _ if text.contains("://") => url(text).map(|url| vec![url]),
            _ => url(&format!("{scheme}://{text}")).map(|url| vec![url]),
        };
        let advertised = self.value("advertise-client-url", with_scheme);
        let metrics = self.value("metrics-addr", with_scheme);
        let mut config = self.proxy_of(vec![listen], advertised, metrics, client_tls);
        if self.bool("debug") {
            config.log.level = "debug".to_owned();
        }
        config
    }

    fn proxy_of(
        &mut self,
        listen: Vec<Url>,
        advertised: Vec<Url>,
        metrics: Vec<Url>,
        client_tls: TlsFlags,
    ) -> ProxyConfig {
        if listen.is_empty() {
            self.wrong("--listen-client-urls must name at least one URL".to_owned());
        }
        self.bindable(listen.iter().chain(&metrics));
        if let Some(url) = advertised.iter().find(|url| url.address.starts_with(':')) {
            self.wrong(format!("the advertised URL {url} must have a host"));
        }
        let all = listen.iter().chain(&metrics).cloned().collect::<Vec<_>>();
        self.mistakes.extend(client_tls.mistakes(&all));
        self.protocol_mistakes(&client_tls.protocol);
        let upstream_tls = UpstreamTls {
            identity: pair(self, "cert", "key", ""),
            trusted_ca_file: self.path("cacert"),
            skip_verify: self.bool("insecure-skip-tls-verify"),
            is_ring_identity: self.bool("ring-identity"),
            protocol: client_tls.protocol.clone(),
        };
        if upstream_tls.is_ring_identity && upstream_tls.identity.is_none() {
            self.wrong("--ring-identity needs --cert and --key: by them the cluster knows this proxy".to_owned());
        }
        let scheme = if upstream_tls.is_wanted() { "https" } else { "http" };
        let endpoints = self.endpoints(|text| match text.split_once("://") {
            None => url(&format!("{scheme}://{text}")),
            Some(("http" | "https", _)) => url(text),
            Some(_) => Err(format!("{text:?} is neither host:port nor http://host:port nor https://host:port")),
        });
        let (grpc_keepalive_interval, grpc_keepalive_timeout) = self.keepalive();
        let lists_itself = !advertised.is_empty();
        let resolver = self.resolver(lists_itself);
        let advertised = if lists_itself { advertised } else { listen.clone() };
        for own in endpoints.iter().filter(|endpoint| listen.contains(endpoint) || advertised.contains(endpoint)) {
            self.wrong(format!("--endpoints has {own}, which is this proxy itself"));
        }
        ProxyConfig {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            discovery_srv: self.discovery_srv(),
            insecure_discovery: self.bool("insecure-discovery"),
            upstream_tls,
            data_dir: self.path("data-dir").unwrap_or_else(|| PathBuf::from(flags::DATA_DIR.default)),
            saves_copies: self.is_set("data-dir") && !self.text("data-dir").is_empty(),
            client_tls,
            listen_client_urls: listen,
            listen_metrics_urls: metrics,
            name: self.text("name"),
            advertise_client_urls: advertised,
            lists_itself,
            resolver,
            cache: self.cache(),
            cache_auto: self.bool("cache-auto"),
            cache_bytes_max: self.int("cache-bytes", 0, i64::MAX) as usize,
            http: HttpFlags::of(self),
            watch_progress_notify_interval: self.duration("watch-progress-notify-interval"),
            max_concurrent_streams: self.int_or_default("max-concurrent-streams", 0, i64::from(u32::MAX)) as u32,
            grpc_keepalive_interval,
            grpc_keepalive_timeout,
            socket_reuse_port: self.bool("socket-reuse-port"),
            standby: None,
            log: self.log(),
        }
    }

    /// What belongs together is checked as etcd does.
    fn resolver(&mut self, has_url: bool) -> Option<(String, i64)> {
        let (prefix, ttl_s) = (self.text("resolver-prefix"), self.int("resolver-ttl", 0, 9_000_000_000));
        match (prefix.as_str(), ttl_s) {
            ("", 0) => return None,
            ("", _) => self.wrong("--resolver-ttl needs a --resolver-prefix".to_owned()),
            (_, 0) => self.wrong("--resolver-prefix needs a --resolver-ttl of at least 1".to_owned()),
            _ if !has_url => self.wrong("--resolver-prefix needs an advertised client URL".to_owned()),
            _ => {}
        }
        Some((prefix, ttl_s))
    }

    fn cache(&mut self) -> Vec<KeyRange> {
        if !self.is_set("cache-prefix") {
            return Vec::new();
        }
        let text = self.text("cache-prefix");
        text.split(',').map(|prefix| KeyRange::prefix(Bytes::copy_from_slice(prefix.trim().as_bytes()))).collect()
    }

    fn gateway(&mut self) -> GatewayConfig {
        let listen = self.value("listen-addr", |text| url(&format!("http://{text}")));
        self.bindable([&listen]);
        // What the bytes mean is nobody's business here, so a scheme says nothing. etcd adds its port where there is none.
        let endpoints = self.endpoints(|text| {
            let address = text.split_once("://").map_or(text, |(_, address)| address).trim_end_matches('/');
            let has_port =
                address.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
            let port = if has_port { "" } else { ":2379" };
            url(&format!("http://{address}{port}"))
        });
        if endpoints.contains(&listen) {
            self.wrong(format!("--endpoints has {}, which is this gateway itself", listen.address));
        }
        GatewayConfig {
            endpoints: endpoints.into_iter().map(|url| url.address).collect(),
            listen_addr: listen.address,
            retry_delay: self.duration("retry-delay"),
            log: self.log(),
        }
    }

    fn endpoints(&mut self, parse: impl Fn(&str) -> Result<Url, String>) -> Vec<Url> {
        let mut endpoints = Vec::new();
        for text in self.list("endpoints") {
            match parse(text.trim()) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(why) => self.wrong(format!("invalid value for --endpoints: {why}")),
            }
        }
        if endpoints.is_empty() && self.list("endpoints").is_empty() {
            self.wrong("--endpoints must name at least one".to_owned());
        }
        endpoints
    }
}

#[cfg(test)]
mod tests;
