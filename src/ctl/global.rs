//! The flags that every command takes, and what they make: a client and a printer.

use super::{
    failure::Failure,
    output::{Format, Printer},
};
use crate::{
    client::{Client, ConnectOptions, TlsOptions},
    dns::Dns,
};
use clap::{ArgAction, Args};
use std::{path::PathBuf, time::Duration};

/// Flags for all commands; each is also read from the variable that its help names.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// gRPC endpoints, separated by commas
    #[arg(long, global = true, env = "ETCDCTL_ENDPOINTS", default_value = "127.0.0.1:2379")]
    endpoints: String,
    /// Set the output format: fields, json, protobuf, simple, table
    #[arg(short, long, global = true, env = "ETCDCTL_WRITE_OUT", default_value = "simple")]
    write_out: String,
    /// Print byte strings as hex encoded strings
    #[arg(long, global = true, env = "ETCDCTL_HEX", num_args = 0..=1, require_equals = true, action = ArgAction::Set,
        default_value = "false", default_missing_value = "true")]
    hex: bool,
    /// Timeout for short running commands, such as 5s or 1m30s
    #[arg(long, global = true, env = "ETCDCTL_COMMAND_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub command_timeout: Duration,
    /// Whether somebody chose the timeout: commands that may take long, such as `snapshot save`, have none otherwise.
    #[arg(skip)]
    pub command_timeout_chosen: bool,
    /// Timeout for one connection
    #[arg(long, global = true, env = "ETCDCTL_DIAL_TIMEOUT", default_value = "2s", value_parser = duration)]
    dial_timeout: Duration,
    /// Probe connections this often
    #[arg(long, global = true, env = "ETCDCTL_KEEPALIVE_TIME", default_value = "2s", value_parser = duration)]
    keepalive_time: Duration,
    /// Give up a connection whose probe is not answered for so long
    #[arg(long, global = true, env = "ETCDCTL_KEEPALIVE_TIMEOUT", default_value = "6s", value_parser = duration)]
    keepalive_timeout: Duration,
    /// Print the settings in use to standard error
    #[arg(long, global = true, env = "ETCDCTL_DEBUG", num_args = 0..=1, require_equals = true, action = ArgAction::Set,
        default_value = "false", default_missing_value = "true")]
    pub debug: bool,
    /// Disable transport security for endpoints without a scheme, unless a certificate is given
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_TRANSPORT", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, default_value = "true", default_missing_value = "true")]
    insecure_transport: bool,
    /// Skip server certificate verification (CAUTION: only for tests)
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, default_value = "false", default_missing_value = "true")]
    insecure_skip_tls_verify: bool,
    /// Accept insecure SRV records describing cluster endpoints
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_DISCOVERY", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, default_value = "true", default_missing_value = "true")]
    insecure_discovery: bool,
    /// CA bundle to verify servers with, instead of what the system trusts
    #[arg(long, global = true, env = "ETCDCTL_CACERT", default_value = "", hide_default_value = true)]
    cacert: String,
    /// Client certificate, for servers that ask for one
    #[arg(long, global = true, env = "ETCDCTL_CERT", default_value = "", hide_default_value = true)]
    cert: String,
    /// Key of the client certificate
    #[arg(long, global = true, env = "ETCDCTL_KEY", default_value = "", hide_default_value = true)]
    key: String,
    /// User and password as name[:password]; without a password it is asked for
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_USER",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    user: String,
    /// Password of the user; then --user is the name alone
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_PASSWORD",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    password: String,
    /// A signed token, instead of a user
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_AUTH_JWT_TOKEN",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    auth_jwt_token: String,
    /// Largest request to send, in bytes; 0 means 2 MiB
    #[arg(long, global = true, env = "ETCDCTL_MAX_REQUEST_BYTES", default_value_t = 0)]
    max_request_bytes: usize,
    /// Largest answer to take, in bytes; 0 means 2 GiB
    #[arg(long, global = true, env = "ETCDCTL_MAX_RECV_BYTES", default_value_t = 0)]
    max_recv_bytes: usize,
    /// Domain whose SRV records name the endpoints
    #[arg(short, long, global = true, env = "ETCDCTL_DISCOVERY_SRV", default_value = "", hide_default_value = true)]
    discovery_srv: String,
    /// Suffix of the service to ask for under that domain
    #[arg(long, global = true, env = "ETCDCTL_DISCOVERY_SRV_NAME", default_value = "", hide_default_value = true)]
    discovery_srv_name: String,
}

impl Global {
    /// Refuses what cannot be done, before anything is sent in the clear that was meant to be secret.
    pub fn checked(self) -> Result<Global, Failure> {
        if self.cert.is_empty() != self.key.is_empty() {
            let (key, cert) = (&self.key, &self.cert);
            let text = format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
            return Err(Failure::args(text));
        }
        Format::parse(&self.write_out)?;
        Ok(self)
    }

    /// Asks for a password where only a user is named.
    pub fn asked(mut self) -> Result<Global, Failure> {
        if !self.user.is_empty() && self.password.is_empty() && !self.user.contains(':') {
            self.password = rpassword::prompt_password("Password: ").map_err(Failure::error)?;
        }
        Ok(self)
    }

    /// Who is to be logged in. As in etcdctl a name may hold a colon if the password has a flag of its own, and nobody logs in with an empty
    /// password.
    fn login(&self) -> Option<(String, String)> {
        let own = |(name, password): (&str, &str)| (name.to_owned(), password.to_owned());
        match (self.user.as_str(), self.password.as_str()) {
            ("", _) => None,
            (user, "") => user.split_once(':').filter(|(_, password)| !password.is_empty()).map(own),
            both => Some(own(both)),
        }
    }

    /// With `--discovery-srv` the endpoints come from DNS; then those that were given do not count.
    pub async fn located(mut self) -> Result<Global, Failure> {
        if !self.discovery_srv.is_empty() {
            let dns = Dns::system().map_err(Failure::error)?;
            self.endpoints = self.discovered(&dns).await?.join(",");
        }
        Ok(self)
    }

    /// The endpoints by DNS, in the order to try them.
    async fn discovered(&self, dns: &Dns) -> Result<Vec<String>, Failure> {
        let found = dns.client_urls(&self.discovery_srv, &self.discovery_srv_name).await;
        let mut found = found.map_err(Failure::error)?;
        if !self.insecure_discovery {
            found.retain(|endpoint| {
                let secure = endpoint.starts_with("https://");
                if !secure {
                    eprintln!("ignoring discovered insecure endpoint {endpoint:?}");
                }
                secure
            });
        }
        Ok(found)
    }

    /// The endpoints, in the order given.
    pub fn endpoints(&self) -> Vec<String> {
        let given = self.endpoints.split(',').map(|endpoint| endpoint.trim().to_string());
        given.filter(|endpoint| !endpoint.is_empty()).collect()
    }

    /// How the client is to connect and wait.
    pub fn options(&self) -> ConnectOptions {
        ConnectOptions {
            connect_timeout: self.dial_timeout,
            request_timeout: Some(self.command_timeout),
            // etcd hangs up on clients that probe more often.
            keepalive_time: Some(self.keepalive_time.max(Duration::from_secs(10))),
            keepalive_timeout: self.keepalive_timeout,
            tls: self.tls(),
            user: self.login(),
            token: Some(self.auth_jwt_token.clone()).filter(|token| !token.is_empty()),
            send_bytes_max: or_default(self.max_request_bytes, SEND_BYTES_MAX),
            receive_bytes_max: or_default(self.max_recv_bytes, RECEIVE_BYTES_MAX),
            ..ConnectOptions::default()
        }
    }

    /// How TLS is to be spoken, if anything says that it is: a certificate, a CA, or a flag. Only then have endpoints without a scheme TLS.
    fn tls(&self) -> Option<TlsOptions> {
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        // Names under a domain that DNS was asked for are certified as that domain, as etcdctl has it.
        let domain = !self.discovery_srv.is_empty() && !self.insecure_discovery;
        let options = TlsOptions {
            identity: path(&self.cert).zip(path(&self.key)),
            trusted_ca_file: path(&self.cacert),
            server_name: domain.then(|| self.discovery_srv.clone()),
            insecure_skip_verify: self.insecure_skip_tls_verify,
            ..TlsOptions::default()
        };
        (options != TlsOptions::default() || !self.insecure_transport).then_some(options)
    }

    /// A client for the whole cluster.
    pub async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.endpoints(), self.options()).await?)
    }

    /// A client for one member.
    pub async fn client_of(&self, endpoint: &str) -> Result<Client, Failure> {
        Ok(Client::connect([endpoint], self.options()).await?)
    }

    /// The printer for the chosen format.
    pub fn printer(&self) -> Result<Printer, Failure> {
        Ok(Printer { format: Format::parse(&self.write_out)?, hex: self.hex, values_only: false })
    }
}

/// etcd's client sends no more than this unless it is told otherwise.
const SEND_BYTES_MAX: usize = 2 << 20;
/// The most that gRPC in Go takes.
const RECEIVE_BYTES_MAX: usize = i32::MAX as usize;

fn or_default(bytes: usize, default: usize) -> usize {
    if bytes == 0 { default } else { bytes }
}

/// Reads a duration as Go programs write it: `1m30s`, `1.5s`, `100ms`, `0`.
///
/// # Errors
/// In the words of Go's library.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let number = number.parse::<f64>().map_err(|_| bad())?;
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(format!("time: missing unit in duration {text:?}")),
                _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
            };
        rest = after;
    }
    if text.is_empty() { Err(bad()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        global: Global,
    }

    #[tokio::test]
    async fn endpoints_are_found_under_a_domain() {
        let dns = crate::dns::tests::example(&[
            ("etcd-client", 0, 1, 2379, "a.example.com."),
            ("etcd-client", 0, 0, 2379, "b.example.com."),
            ("etcd-client-blue", 0, 0, 2379, "c.example.com."),
        ])
        .await;
        let found = async |flags: &[&str]| {
            let flags = ["hengectl", "--discovery-srv=example.com"].iter().chain(flags);
            Flags::parse_from(flags).global.discovered(&dns).await.map_err(|failure| failure.text().to_owned())
        };
        let both = ["http://a.example.com:2379".to_owned(), "http://b.example.com:2379".to_owned()];
        assert_eq!(found(&[]).await.expect("two"), both);
        assert_eq!(found(&["--discovery-srv-name=blue"]).await.expect("one"), ["http://c.example.com:2379"]);
        assert_eq!(found(&["--insecure-discovery=false"]).await.expect("none that is secure"), [""; 0]);
        let none = found(&["--discovery-srv-name=red"]).await.expect_err("none");
        assert!(none.starts_with("dns lookup errors: lookup _etcd-client-ssl-red._tcp.example.com: "), "{none}");
    }

    #[test]
    fn endpoints_without_a_scheme_have_tls_if_a_flag_says_so() {
        let tls = |flags: &[&str]| {
            let flags = Flags::parse_from(["hengectl"].iter().chain(flags)).global.checked();
            flags.map(|global| global.tls()).map_err(|failure| failure.text().to_owned())
        };
        assert_eq!(tls(&[]), Ok(None));
        assert_eq!(tls(&["--insecure-transport=false"]), Ok(Some(TlsOptions::default())));
        let trusted_ca_file = Some("ca.pem".into());
        assert_eq!(tls(&["--cacert=ca.pem"]), Ok(Some(TlsOptions { trusted_ca_file, ..TlsOptions::default() })));
        let skips = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
        assert_eq!(tls(&["--insecure-skip-tls-verify"]), Ok(Some(skips)));
        let identity = Some(("c.pem".into(), "k.pem".into()));
        assert_eq!(tls(&["--cert=c.pem", "--key=k.pem"]), Ok(Some(TlsOptions { identity, ..TlsOptions::default() })));
        let half = "KeyFile and CertFile must both be present[key: , cert: c.pem]";
        assert_eq!(tls(&["--cert=c.pem"]), Err(half.to_owned()));
        let named = tls(&["--discovery-srv=example.com", "--insecure-discovery=false"]).unwrap().unwrap();
        assert_eq!(named.server_name.as_deref(), Some("example.com"));
    }

    #[test]
    fn a_user_and_a_password_are_told_apart_as_in_etcdctl() {
        let login = |flags: &[&str]| Flags::parse_from(["hengectl"].iter().chain(flags)).global.login();
        let own = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(login(&[]), None);
        assert_eq!(login(&["--user=root:a:b"]), own("root", "a:b"));
        assert_eq!(login(&["--user=root:a", "--password=b"]), own("root:a", "b"));
        assert_eq!(login(&["--user=root:"]), None);
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "-1s", "1..s", "1s."] {
            assert_eq!(duration(bad), Err(format!("time: invalid duration {bad:?}")));
        }
        assert_eq!(duration("5"), Err("time: missing unit in duration \"5\"".to_owned()));
        assert_eq!(duration("5x1s"), Err("time: unknown unit \"x\" in duration \"5x1s\"".to_owned()));
    }
}
