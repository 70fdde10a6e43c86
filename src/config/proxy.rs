//! The programs that stand before a cluster: `henge proxy`, and `henge gateway`, each with its own table of flags and with etcd's
//! spelling (`grpc-proxy start`, `gateway start`).
//!
//! Their flags come from the command line alone: a proxy often stands beside a member whose variables are not meant for it.

use super::{
    bootstrap::DiscoverySrv,
    check::{LogSettings, Reader},
    flags::{FLAGS, Flag, Kind, Standing, flag},
    http::HttpFlags,
    parse::Invocation,
    said::Said,
    standby::{STANDBY, STANDBY_TLS, StandbyFlags},
    tls::{TlsFlags, pair},
    value::{Url, url},
    words::{self, Asked},
};
use crate::{
    tls::{Identity, Protocol},
    types::KeyRange,
};
use Kind::{Bool, Duration, Int, Text, Urls};
use Standing::{Later, Meaningless, Works};
use bytes::Bytes;
use clap::Command;
use std::{path::PathBuf, time::Duration as Time};

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
    pub watch_progress_notify_interval: Time,
    /// `max-concurrent-streams` of one connection.
    pub max_concurrent_streams: u32,
    /// `grpc-keepalive-interval`
    pub grpc_keepalive_interval: Time,
    /// `grpc-keepalive-timeout`
    pub grpc_keepalive_timeout: Time,
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
    pub retry_delay: Time,
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

const NO_SRV: Standing = Later("a gateway does not look for its endpoints in DNS yet; name them with --endpoints");
const UPSTREAM: [Flag; 8] = [
    flag(
        "cert",
        Text,
        "",
        "Cluster",
        "Certificate to show to the cluster; it must have no common name, unless there is --ring-identity.",
        Works,
    ),
    flag("key", Text, "", "Cluster", "Key of that certificate.", Works),
    flag(
        "ring-identity",
        Bool,
        "false",
        "Cluster",
        "The cluster, or the proxy behind this one, trusts this proxy by the common name of --cert (its --ring-proxy-cn): this proxy then answers users from its copies, each what they may read, and tells the cluster whose certificate a call came with.",
        Works,
    ),
    flag("cacert", Text, "", "Cluster", "CA of the cluster, instead of those that the system trusts.", Works),
    flag(
        "insecure-skip-tls-verify",
        Bool,
        "false",
        "Cluster",
        "Takes every certificate of the cluster for good.",
        Works,
    ),
    flag("discovery-srv", Text, "", "Cluster", "DNS domain whose SRV records name the endpoints.", Works),
    flag("discovery-srv-name", Text, "", "Cluster", "Suffix of the service that is asked for.", Works),
    flag("insecure-discovery", Bool, "false", "Cluster", "Takes endpoints without TLS from DNS as well.", Works),
];
const DATA_DIR: Flag = flag(
    "data-dir",
    Text,
    "default.proxy",
    "Proxy",
    "Folder of what the proxy makes: the certificate of --auto-tls and, only if this flag is given, copies, so that a proxy that starts while the cluster is away has what was last known; and the data of its host's member (--standby-peer-url).",
    Works,
);
const NAME: Flag =
    flag("name", Text, "", "Proxy", "Name of this proxy in `hengectl ring` (default: the name of the host).", Works);
const RESOLVER_PREFIX: Flag = flag(
    "resolver-prefix",
    Text,
    "",
    "Proxy",
    "Prefix under which this proxy registers as etcd's do: a key with a lease. Needs --resolver-ttl and an advertised URL.",
    Works,
);
const RESOLVER_TTL: Flag =
    flag("resolver-ttl", Int, "0", "Proxy", "Seconds that a registration outlives its proxy.", Works);
const CACHE_PREFIX: Flag = flag(
    "cache-prefix",
    Text,
    "",
    "Copies",
    "Prefixes of keys, separated by commas, that the proxy keeps a copy of: reads and watches of them cost the cluster next to nothing. --cache-prefix= copies all keys.",
    Works,
);
const CACHE_BYTES: Flag = flag(
    "cache-bytes",
    Int,
    "536870912",
    "Copies",
    "Memory for all copies, in bytes; a range that does not fit passes through.",
    Works,
);
const CACHE_AUTO: Flag = flag(
    "cache-auto",
    Bool,
    "true",
    "Copies",
    "Also copies ranges that are watched or read often, as long as they are and as they fit.",
    Works,
);
const UNDECODED: &str = "messages pass through without being looked at";

#[rustfmt::skip]
const PROXY: &[Flag] = &[
    flag("endpoints", Text, "127.0.0.1:2379", "Proxy", "What stands behind the proxy: members of a cluster, or another proxy; URLs or host:port, separated by commas.", Works),
    flag("listen-client-urls", Urls, "http://127.0.0.1:23790", "Proxy", "URLs to listen on for clients (gRPC and HTTP).", Works),
    NAME,
    flag("advertise-client-urls", Urls, "", "Proxy", "URLs at which clients reach this proxy. If given, clients that ask for the members get them in place of the cluster's (default: those it listens on, and the members' for who asks).", Works),
    flag("listen-metrics-urls", Urls, "", "Proxy", "More URLs for HTTP alone.", Works),
    RESOLVER_PREFIX,
    RESOLVER_TTL,
    CACHE_PREFIX,
    CACHE_AUTO,
    CACHE_BYTES,
    DATA_DIR,
    STANDBY[0],
    STANDBY[1],
    STANDBY[2],
];

#[rustfmt::skip]
const GRPC_PROXY: &[Flag] = &[
    flag("endpoints", Text, "127.0.0.1:2379", "Proxy", "What stands behind the proxy, separated by commas.", Works),
    flag("listen-addr", Text, "127.0.0.1:23790", "Proxy", "Address to listen on.", Works),
    NAME,
    flag("advertise-client-url", Text, "", "Proxy", "Address at which clients reach this proxy. If given, clients that ask for the members get it in place of the cluster's (default: the one it listens on, and the members' for who asks).", Works),
    flag("metrics-addr", Text, "", "Proxy", "One more URL for HTTP alone.", Works),
    CACHE_PREFIX,
    CACHE_AUTO,
    CACHE_BYTES,
    DATA_DIR,
    flag("listen-cipher-suites", Text, "", "Security", "Cipher suites of TLS 1.2 to allow, as --cipher-suites.", Works),
    flag("debug", Bool, "false", "Proxy", "Logs more, as --log-level=debug.", Works),
    flag("max-send-bytes", Int, "1572864", "Proxy", "Largest message to the cluster.", Meaningless(UNDECODED)),
    flag("max-recv-bytes", Int, "2147483647", "Proxy", "Largest message from the cluster.", Meaningless(UNDECODED)),
    flag("serializable-ordering", Bool, "false", "Proxy", "Serializable reads never go back in time.", Later("sessions that never go back are not there yet")),
    flag("leasing-prefix", Text, "", "Proxy", "Prefix for the metadata of leased keys.", Later("the proxy writes nothing of its own into the cluster")),
    flag("namespace", Text, "", "Proxy", "Prefix that is put before all keys.", Later("keys pass through as they are")),
    RESOLVER_PREFIX,
    RESOLVER_TTL,
];

#[rustfmt::skip]
const GATEWAY: &[Flag] = &[
    flag("endpoints", Text, "127.0.0.1:2379", "Gateway", "Where connections go, in turn; URLs or host:port, separated by commas.", Works),
    flag("listen-addr", Text, "127.0.0.1:23790", "Gateway", "Address to listen on.", Works),
    flag("retry-delay", Duration, "1m0s", "Gateway", "How long an endpoint that failed is left alone.", Works),
    flag("discovery-srv", Text, "", "Discovery", "DNS domain whose SRV records name the endpoints.", NO_SRV),
    flag("discovery-srv-name", Text, "", "Discovery", "Suffix of the service that is asked for.", NO_SRV),
    flag("insecure-discovery", Bool, "false", "Discovery", "Accepts SRV records of plain HTTP.", NO_SRV),
    flag("trusted-ca-file", Text, "", "Discovery", "CA of endpoints that were discovered.", NO_SRV),
];

/// Rows that a member's table has too, and that mean the same here.
const CONNECTIONS: &[&str] = &[
    "watch-progress-notify-interval",
    "max-concurrent-streams",
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
    "enable-grpc-gateway",
    "cors",
    "host-whitelist",
    "socket-reuse-port",
    "socket-reuse-address",
    "enable-pprof",
    "cert-file",
    "key-file",
    "client-cert-auth",
    "trusted-ca-file",
    "client-crl-file",
    "client-cert-allowed-cn",
    "client-cert-allowed-hostname",
    "ring-proxy-cn",
    "auto-tls",
    "self-signed-cert-validity",
    "cipher-suites",
    "tls-min-version",
    "tls-max-version",
];
const LOGGING: &[&str] =
    &["logger", "log-outputs", "log-level", "log-format", "enable-log-rotation", "log-rotation-config-json"];

impl Program {
    pub(super) fn named(word: &str) -> Option<Program> {
        match word {
            "proxy" => Some(Program::Proxy),
            "grpc-proxy" => Some(Program::GrpcProxy),
            "gateway" => Some(Program::Gateway),
            _ => None,
        }
    }

    pub(super) fn flags(self) -> Vec<Flag> {
        let (own, shared): (_, &[&[&str]]) = match self {
            Program::Proxy => (PROXY, &[CONNECTIONS, STANDBY_TLS, LOGGING]),
            Program::GrpcProxy => (GRPC_PROXY, &[CONNECTIONS, LOGGING]),
            Program::Gateway => (GATEWAY, &[LOGGING]),
        };
        let upstream: &[Flag] = if self == Program::Gateway { &[] } else { &UPSTREAM };
        let shared = shared.iter().flat_map(|names| names.iter());
        let row = |name: &&str| FLAGS.iter().find(|flag| flag.name == *name).expect("a row of the member's table");
        own.iter().chain(upstream).chain(shared.map(row)).copied().collect()
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
        let Said { settings, mistakes, mut warnings } = match words::read(args, &flags, Said::default()) {
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
            data_dir: self.path("data-dir").unwrap_or_else(|| PathBuf::from(DATA_DIR.default)),
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
            max_concurrent_streams: self.int("max-concurrent-streams", 1, i64::from(u32::MAX)) as u32,
            grpc_keepalive_interval: self.duration("grpc-keepalive-interval"),
            grpc_keepalive_timeout: self.duration("grpc-keepalive-timeout"),
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
