//! The flags that every command takes, and what they make: a client and a printer.

use super::{
    failure::Failure,
    output::{Format, Printer},
};
use crate::{
    client::{Client, ConnectOptions},
    dns::Dns,
};
use clap::{ArgAction, Args};
use std::time::Duration;

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
    debug: bool,
    /// Disable transport security (the only transport so far)
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_TRANSPORT", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, default_value = "true", default_missing_value = "true")]
    insecure_transport: bool,
    /// Skip server certificate verification (no effect without TLS)
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, default_value = "false", default_missing_value = "true")]
    insecure_skip_tls_verify: bool,
    /// Accept insecure SRV records (no effect without --discovery-srv)
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_DISCOVERY", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, default_value = "true", default_missing_value = "true")]
    insecure_discovery: bool,
    /// CA bundle to verify servers with (not supported yet)
    #[arg(long, global = true, env = "ETCDCTL_CACERT", default_value = "", hide_default_value = true)]
    cacert: String,
    /// Client certificate (not supported yet)
    #[arg(long, global = true, env = "ETCDCTL_CERT", default_value = "", hide_default_value = true)]
    cert: String,
    /// Key of the client certificate (not supported yet)
    #[arg(long, global = true, env = "ETCDCTL_KEY", default_value = "", hide_default_value = true)]
    key: String,
    /// User and password as name[:password] (not supported yet)
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_USER",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    user: String,
    /// Password (not supported yet)
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_PASSWORD",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    password: String,
    /// JWT token (not supported yet)
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_AUTH_JWT_TOKEN",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    auth_jwt_token: String,
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
        let missing = [
            ("cacert", &self.cacert),
            ("cert", &self.cert),
            ("key", &self.key),
            ("user", &self.user),
            ("password", &self.password),
            ("auth-jwt-token", &self.auth_jwt_token),
        ];
        if let Some((flag, _)) = missing.iter().find(|(_, value)| !value.is_empty()) {
            return Err(Failure::unsupported(format!("--{flag} is not supported yet")));
        }
        if !self.insecure_transport || self.insecure_skip_tls_verify {
            return Err(Failure::unsupported("transport security (TLS) is not supported yet"));
        }
        Format::parse(&self.write_out)?;
        if self.debug {
            eprintln!("{self:#?}");
        }
        Ok(self)
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
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for (service, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
            let service = match self.discovery_srv_name.as_str() {
                "" => service.to_owned(),
                name => format!("{service}-{name}"),
            };
            match dns.srv(&service, &self.discovery_srv).await {
                Ok(targets) => found.extend(targets.into_iter().map(|target| format!("{scheme}://{target}"))),
                Err(error) => errors.push(error),
            }
        }
        if found.is_empty() {
            return Err(Failure::error(format!("dns lookup errors: {}", errors.join(" and "))));
        }
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
            ..ConnectOptions::default()
        }
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

/// Reads a duration as Go programs write it: `1m30s`, `1.5s`, `100ms`, `0`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        seconds += number
            * match &rest[digits..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &rest[unit_end..];
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
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "5x", "-1s", "1..s"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
