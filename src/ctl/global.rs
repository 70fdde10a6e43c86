//! The flags that every command takes, and what they make: a client and a printer.

use super::{
    failure::Failure,
    output::{Format, Printer},
    password, system,
};
use crate::{
    client::{self, Client, ConnectOptions, TlsOptions},
    dns::Dns,
    go,
};
use clap::{ArgAction, Args};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

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
    #[arg(long, global = true, env = "ETCDCTL_HEX", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = go::boolean,
        default_value = "false", default_missing_value = "true")]
    hex: bool,
    /// Timeout for short running commands, such as 5s or 1m30s
    #[arg(long, global = true, env = "ETCDCTL_COMMAND_TIMEOUT", default_value = "5s", value_parser = go::duration)]
    pub command_timeout: Duration,
    /// Whether somebody chose the timeout: commands that may take long, such as `snapshot save`, have none otherwise.
    #[arg(skip)]
    pub command_timeout_chosen: bool,
    /// Timeout for one connection
    #[arg(long, global = true, env = "ETCDCTL_DIAL_TIMEOUT", default_value = "2s", value_parser = go::duration)]
    dial_timeout: Duration,
    /// Probe connections this often
    #[arg(long, global = true, env = "ETCDCTL_KEEPALIVE_TIME", default_value = "2s", value_parser = go::duration)]
    keepalive_time: Duration,
    /// Give up a connection whose probe is not answered for so long
    #[arg(long, global = true, env = "ETCDCTL_KEEPALIVE_TIMEOUT", default_value = "6s", value_parser = go::duration)]
    keepalive_timeout: Duration,
    /// Print the settings in use to standard error
    #[arg(long, global = true, env = "ETCDCTL_DEBUG", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = go::boolean,
        default_value = "false", default_missing_value = "true")]
    pub debug: bool,
    /// Disable transport security for endpoints without a scheme, unless a certificate is given
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_TRANSPORT", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, value_parser = go::boolean, default_value = "true", default_missing_value = "true")]
    insecure_transport: bool,
    /// Skip server certificate verification (CAUTION: only for tests)
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, value_parser = go::boolean, default_value = "false", default_missing_value = "true")]
    insecure_skip_tls_verify: bool,
    /// Accept insecure SRV records describing cluster endpoints
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_DISCOVERY", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, value_parser = go::boolean, default_value = "true", default_missing_value = "true")]
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
    #[arg(long, global = true, env = "ETCDCTL_MAX_REQUEST_BYTES", default_value_t = 0, value_parser = go::int)]
    max_request_bytes: i64,
    /// Largest answer to take, in bytes; 0 means 2 GiB
    #[arg(long, global = true, env = "ETCDCTL_MAX_RECV_BYTES", default_value_t = 0, value_parser = go::int)]
    max_recv_bytes: i64,
    /// Domain whose SRV records name the endpoints
    #[arg(short, long, global = true, env = "ETCDCTL_DISCOVERY_SRV", default_value = "", hide_default_value = true)]
    discovery_srv: String,
    /// Suffix of the service to ask for under that domain
    #[arg(long, global = true, env = "ETCDCTL_DISCOVERY_SRV_NAME", default_value = "", hide_default_value = true)]
    discovery_srv_name: String,
    /// The password that somebody typed, once it was needed: nobody is asked for it twice.
    #[arg(skip)]
    typed: OnceLock<String>,
}

impl Global {
    /// Refuses what cannot be done, before anything is sent in the clear that was meant to be secret.
    pub fn checked(self) -> Result<Global, Failure> {
        if self.cert.is_empty() != self.key.is_empty() {
            let (key, cert) = (&self.key, &self.cert);
            let text = format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
            return Err(Failure::args(text));
        }
        // What the client would find out later, and tell as if it were the connection's fault.
        for file in [&self.cert, &self.key, &self.cacert].into_iter().filter(|file| !file.is_empty()) {
            readable(Path::new(file)).map_err(Failure::args)?;
        }
        let (receive, send) = (self.max_recv_bytes, self.max_request_bytes);
        if receive > 0 && send > receive {
            let text =
                format!("gRPC message recv limit ({receive} bytes) must be greater than send limit ({send} bytes)");
            return Err(Failure::connection(text));
        }
        Format::parse(&self.write_out)?;
        Ok(self)
    }

    /// Who is to be logged in; where only a user is named, the password is asked for. As in etcdctl a name may hold a colon if the password
    /// has a flag of its own, nobody logs in with an empty name or password, and a token is shown instead of any user.
    fn login(&self) -> Result<Option<(String, String)>, Failure> {
        if self.user.is_empty() || !self.auth_jwt_token.is_empty() {
            return Ok(None);
        }
        let (user, password) = match (self.password.as_str(), self.user.split_once(':')) {
            ("", Some(both)) => both,
            ("", None) => (self.user.as_str(), self.typed()?),
            (password, _) => (self.user.as_str(), password),
        };
        let can = !user.is_empty() && !password.is_empty();
        Ok(can.then(|| (user.to_owned(), password.to_owned())))
    }

    fn typed(&self) -> Result<&str, Failure> {
        if let Some(typed) = self.typed.get() {
            return Ok(typed);
        }
        let typed = password::ask("Password: ").map_err(|error| Failure::error(system::cause(&error)))?;
        Ok(self.typed.get_or_init(|| typed))
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
        let mut found = found.map_err(|text| Failure::error(without_query(&text)))?;
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

    /// How the client is to connect and wait, and who it is.
    pub fn options(&self) -> Result<ConnectOptions, Failure> {
        Ok(ConnectOptions { user: self.login()?, ..self.connection() })
    }

    /// How to connect and wait, whoever it is.
    pub fn connection(&self) -> ConnectOptions {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        ConnectOptions {
            connect_timeout: some(self.dial_timeout).unwrap_or(CONNECT_TIMEOUT),
            request_timeout: Some(self.command_timeout),
            // etcd hangs up on clients that probe more often.
            keepalive_time: some(self.keepalive_time).map(|time| time.max(Duration::from_secs(10))),
            keepalive_timeout: some(self.keepalive_timeout).unwrap_or(KEEPALIVE_TIMEOUT),
            tls: self.tls(),
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

    /// A client for the whole cluster, which has logged in.
    pub async fn client(&self) -> Result<Client, Failure> {
        let endpoints = self.endpoints();
        if endpoints.is_empty() {
            return Err(Failure::connection("etcdclient: no available endpoints"));
        }
        let client = Client::connect(endpoints, self.options()?).await?;
        self.logged_in(client).await
    }

    /// A client for one member, which has logged in there. That nobody answers is for the command to tell, which may have others to ask;
    /// etcdctl ends there.
    pub async fn client_of(&self, endpoint: &str) -> Result<Client, Failure> {
        let client = self.stranger_to(endpoint).await?;
        match client.log_in(self.login_limit()).await {
            Err(refusal @ client::Error::Status { .. }) => Err(Failure::connection(refusal)),
            Ok(()) | Err(_) => Ok(client),
        }
    }

    /// A client for one member, which logs in with its first call.
    pub async fn stranger_to(&self, endpoint: &str) -> Result<Client, Failure> {
        Ok(Client::connect([endpoint], self.options()?).await?)
    }

    /// As etcdctl does it: who can't log in has no connection, whatever was to be done with it.
    pub async fn logged_in(&self, client: Client) -> Result<Client, Failure> {
        client.log_in(self.login_limit()).await.map_err(Failure::connection)?;
        Ok(client)
    }

    fn login_limit(&self) -> Option<Duration> {
        (!self.dial_timeout.is_zero()).then_some(self.dial_timeout)
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

/// What Go's library waits for a connection, and for the answer to a probe, if nobody says how long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

fn or_default(bytes: i64, default: usize) -> usize {
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(default)
}

/// What is said of a name that DNS does not know, without the question as the library below keeps it.
fn without_query(text: &str) -> String {
    let mut parts = text.split(UNKNOWN_NAME);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |said, part| said + "no such host" + part.split_once(" }").map_or("", |(_, after)| after))
}

/// How that begins; it ends with a brace.
const UNKNOWN_NAME: &str = "DNS error: no records found for Query {";

/// Refuses a file that can't be read.
fn readable(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| system::refused("open", path, &error))?;
    file.read(&mut [0]).map(drop).map_err(|error| system::refused("read", path, &error))
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
        let expected = "dns lookup errors: lookup _etcd-client-ssl-red._tcp.example.com: no such host and \
                        lookup _etcd-client-red._tcp.example.com: no such host";
        assert_eq!(none, expected);
    }

    #[test]
    fn endpoints_without_a_scheme_have_tls_if_a_flag_says_so() {
        let global = |flags: &[&str]| Flags::parse_from(["hengectl"].iter().chain(flags)).global;
        let tls = |flags: &[&str]| global(flags).tls();
        assert_eq!(tls(&[]), None);
        assert_eq!(tls(&["--insecure-transport=false"]), Some(TlsOptions::default()));
        let trusted_ca_file = Some("ca.pem".into());
        assert_eq!(tls(&["--cacert=ca.pem"]), Some(TlsOptions { trusted_ca_file, ..TlsOptions::default() }));
        let skips = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
        assert_eq!(tls(&["--insecure-skip-tls-verify"]), Some(skips));
        let identity = Some(("c.pem".into(), "k.pem".into()));
        assert_eq!(tls(&["--cert=c.pem", "--key=k.pem"]), Some(TlsOptions { identity, ..TlsOptions::default() }));
        let named = tls(&["--discovery-srv=example.com", "--insecure-discovery=false"]).expect("TLS");
        assert_eq!(named.server_name.as_deref(), Some("example.com"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_before_anything_is_sent() {
        let refused = |flags: &[&str]| {
            let checked = Flags::parse_from(["hengectl"].iter().chain(flags)).global.checked();
            checked.map(drop).expect_err("refused")
        };
        let half = "KeyFile and CertFile must both be present[key: , cert: c.pem]";
        assert_eq!(refused(&["--cert=c.pem"]), Failure::args(half));
        let missing = "open /no/such.pem: no such file or directory";
        assert_eq!(refused(&["--cacert=/no/such.pem"]), Failure::args(missing));
        assert_eq!(refused(&["--cacert=/"]), Failure::args("read /: is a directory"));
        let small = "gRPC message recv limit (2 bytes) must be greater than send limit (5 bytes)";
        assert_eq!(refused(&["--max-request-bytes=5", "--max-recv-bytes=2"]), Failure::connection(small));
        assert_eq!(refused(&["--write-out=yaml"]), Failure::unsupported("unsupported output format"));
    }

    #[test]
    fn less_than_nothing_is_what_nobody_chose() {
        let flags = ["--max-recv-bytes=-1", "--max-request-bytes=-1", "--dial-timeout=-1s", "--keepalive-time=-1s"];
        let connection = Flags::parse_from(["hengectl"].iter().chain(&flags)).global.connection();
        assert_eq!((connection.receive_bytes_max, connection.send_bytes_max), (RECEIVE_BYTES_MAX, SEND_BYTES_MAX));
        assert_eq!((connection.connect_timeout, connection.keepalive_time), (CONNECT_TIMEOUT, None));
    }

    #[test]
    fn a_user_and_a_password_are_told_apart_as_in_etcdctl() {
        let login =
            |flags: &[&str]| Flags::parse_from(["hengectl"].iter().chain(flags)).global.login().expect("not asked");
        let own = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(login(&[]), None);
        assert_eq!(login(&["--user=root:a:b"]), own("root", "a:b"));
        assert_eq!(login(&["--user=root:a", "--password=b"]), own("root:a", "b"));
        assert_eq!(login(&["--user=root:"]), None);
        assert_eq!(login(&["--user=:a"]), None);
        assert_eq!(login(&["--user=root", "--auth-jwt-token=a"]), None);
    }
}
