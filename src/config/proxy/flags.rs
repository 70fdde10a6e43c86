//! The tables of flags of these programs.

use super::Program;
use crate::config::{
    flags::{FLAGS, Flag, Kind, Standing, flag},
    standby::{STANDBY, STANDBY_TLS},
};
use Kind::{Bool, Duration, Int, Text, Urls};
use Standing::{Later, Meaningless, Works};

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
pub(super) const DATA_DIR: Flag = flag(
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
const PROBED: &str =
    "connections to the cluster are probed while they carry calls, and given up when that stays without an answer";

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
pub(super) const GRPC_PROXY: &[Flag] = &[
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
    flag("dial-keepalive-time", Duration, "0s", "Cluster", "Time between two pings to a silent cluster.", Meaningless(PROBED)),
    flag("dial-keepalive-timeout", Duration, "20s", "Cluster", "Time to wait for the answer to a ping.", Meaningless(PROBED)),
    flag("permit-without-stream", Bool, "false", "Cluster", "Pings without calls as well.", Meaningless(PROBED)),
    flag("endpoints-auto-sync-interval", Duration, "0s", "Cluster", "Time between two looks at who the members are.", Meaningless("the proxy follows the members by itself")),
    flag("enable-grpc-logging", Bool, "false", "Proxy", "Logs requests and answers.", Meaningless("calls are counted in /metrics; what they carry is in no log")),
    flag("serializable-ordering", Bool, "false", "Proxy", "Serializable reads never go back in time.", Later("sessions that never go back are not there yet")),
    flag("leasing-prefix", Text, "", "Proxy", "Prefix for the metadata of leased keys.", Later("the proxy writes nothing of its own into the cluster")),
    flag("namespace", Text, "", "Proxy", "Prefix that is put before all keys.", Later("keys pass through as they are")),
    RESOLVER_PREFIX,
    RESOLVER_TTL,
];

#[rustfmt::skip]
pub(super) const GATEWAY: &[Flag] = &[
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
    /// The flags that it takes.
    pub(in crate::config) fn flags(self) -> Vec<Flag> {
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
}
