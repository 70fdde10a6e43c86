//! A proxy's flags of the member that its host volunteers to become.

use super::{
    check::Config,
    flags::{Flag, Kind, Standing, flag},
    parse::{Invocation, parse},
    reader::Reader,
    value::{Url, url},
};
use Kind::Text;
use Standing::Works;

#[rustfmt::skip]
pub(super) const STANDBY: [Flag; 3] = [
    flag("standby-peer-url", Text, "", "Standby", "Volunteers to replace a voter of a core that heals itself (--core-size of its members), and says where members would reach the member that this proxy would start. Needs --standby-client-url and --data-dir.", Works),
    flag("standby-client-url", Text, "", "Standby", "Where clients would reach that member.", Works),
    flag("standby-flags", Text, "", "Standby", "More flags for that member, separated by spaces: those that all members have, --core-size above all. It has the certificates of this proxy for clients, and those of --peer-… for members.", Works),
];

/// Rows of the member's table that are for that member alone.
pub(super) const STANDBY_TLS: &[&str] = &[
    "peer-cert-file",
    "peer-key-file",
    "peer-client-cert-auth",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-trusted-ca-file",
    "peer-crl-file",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-auto-tls",
    "peer-skip-client-san-verification",
];

/// Flags of the proxy that the member gets as well, if they are set.
const SHARED: &[&str] = &[
    "cert-file",
    "key-file",
    "client-cert-auth",
    "trusted-ca-file",
    "client-crl-file",
    "client-cert-allowed-cn",
    "client-cert-allowed-hostname",
    "auto-tls",
    "self-signed-cert-validity",
    "cipher-suites",
    "tls-min-version",
    "tls-max-version",
    "log-level",
    "log-format",
];

/// What the proxy decides for the member, so that it can look after it.
const OWN: &[&str] = &[
    "name",
    "data-dir",
    "wal-dir",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-state",
    "discovery-srv",
    "force-new-cluster",
    "config-file",
];

/// The member that a host volunteers to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyFlags {
    /// Where members reach it.
    pub peer_url: Url,
    /// Where clients reach it.
    pub client_url: Url,
    /// Flags, those that somebody gave for it last.
    more: Vec<String>,
}

impl StandbyFlags {
    /// Its command line, but for the program and `--data-dir`.
    pub fn words(&self, name: &str, initial_cluster: &str) -> Vec<String> {
        let StandbyFlags { peer_url, client_url, more } = self;
        let own = [
            format!("--name={name}"),
            format!("--listen-peer-urls={}", bindable(peer_url)),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--listen-client-urls={}", bindable(client_url)),
            format!("--advertise-client-urls={client_url}"),
            format!("--initial-cluster={initial_cluster}"),
            "--initial-cluster-state=existing".to_owned(),
        ];
        own.into_iter().chain(more.iter().cloned()).collect()
    }

    /// What a member would say of these flags.
    fn mistakes(&self) -> Vec<String> {
        let mut words = self.words("standby", &format!("standby={}", self.peer_url));
        words.push("--data-dir=standby".to_owned());
        match parse(words, []) {
            Ok(Invocation::Run { settings, .. }) => {
                Config::from_settings(&settings, &mut Vec::new()).err().unwrap_or_default()
            }
            Ok(_) => vec!["these are no flags of a member".to_owned()],
            Err(mistakes) => mistakes,
        }
    }
}

/// A place to listen on: that of the URL, or of all addresses if it has a name, which others resolve.
fn bindable(url: &Url) -> Url {
    let (host, port) = url.address.rsplit_once(':').unwrap_or((&url.address, ""));
    let is_numeric = host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    match is_numeric {
        true => url.clone(),
        false => Url { scheme: url.scheme.clone(), address: format!("0.0.0.0:{port}") },
    }
}

impl Reader<'_> {
    /// The member that the host volunteers to become, if it does. `listen`: where the proxy itself listens.
    pub(super) fn standby(&mut self, listen: &[Url]) -> Option<StandbyFlags> {
        let given = STANDBY.iter().map(|flag| flag.name).chain(STANDBY_TLS.iter().copied());
        let given = given.filter(|name| self.is_set(name)).collect::<Vec<_>>();
        if self.text("standby-peer-url").is_empty() {
            if let Some(name) = given.iter().find(|name| **name != "standby-peer-url") {
                self.wrong(format!("--{name} needs --standby-peer-url: it is for a host that volunteers for the core"));
            }
            return None;
        }
        if self.text("standby-client-url").is_empty() {
            self.wrong("--standby-peer-url needs --standby-client-url".to_owned());
        }
        if !self.is_set("data-dir") || self.text("data-dir").is_empty() {
            self.wrong("--standby-peer-url needs --data-dir: the member's data will be in it".to_owned());
        }
        let (peer_url, client_url) = (self.member_url("standby-peer-url")?, self.member_url("standby-client-url")?);
        if let Some(taken) =
            [&peer_url, &client_url].into_iter().find(|own| listen.iter().any(|url| url.address == own.address))
        {
            self.wrong(format!("{taken} is where the proxy itself listens; the member needs a port of its own"));
        }
        if peer_url.address == client_url.address {
            self.wrong("--standby-peer-url and --standby-client-url must differ".to_owned());
        }
        let carried = SHARED.iter().chain(STANDBY_TLS).filter(|name| self.is_set(name)).copied().collect::<Vec<_>>();
        let mut more = carried.into_iter().map(|name| format!("--{name}={}", self.text(name))).collect::<Vec<_>>();
        let extra = self.text("standby-flags").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let decided = OWN.iter().filter(|name| extra.iter().any(|word| names(word, name))).collect::<Vec<_>>();
        if !decided.is_empty() {
            for name in decided {
                self.wrong(format!("--standby-flags must not have --{name}: the proxy decides that"));
            }
            return None;
        }
        more.extend(extra);
        let standby = StandbyFlags { peer_url, client_url, more };
        self.mistakes_of_member(&standby);
        Some(standby)
    }

    fn member_url(&mut self, name: &str) -> Option<Url> {
        let text = self.text(name);
        match url(&text) {
            Ok(url) if url.scheme.starts_with("http") && !url.address.starts_with(':') => Some(url),
            Ok(_) => {
                self.wrong(format!("invalid value for --{name}: {text:?} is no URL of one host, http or https"));
                None
            }
            Err(_) if text.is_empty() => None,
            Err(why) => {
                self.wrong(format!("invalid value for --{name}: {why}"));
                None
            }
        }
    }

    /// Those that the proxy's own flags have too are told once.
    fn mistakes_of_member(&mut self, standby: &StandbyFlags) {
        for mistake in standby.mistakes() {
            if !self.mistakes.contains(&mistake) {
                self.wrong(format!("the member of --standby-peer-url: {mistake}"));
            }
        }
    }
}

/// Whether a word of a command line is the flag `name`, by its old spelling too.
fn names(word: &str, name: &str) -> bool {
    let word = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
    let flag = word.and_then(|word| word.strip_prefix("experimental-").unwrap_or(word).split('=').next());
    flag == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "--standby-peer-url http://10.0.0.9:2380 --standby-client-url http://10.0.0.9:2379";

    fn parsed(words: &str) -> Result<Option<StandbyFlags>, Vec<String>> {
        match parse(format!("proxy {words}").split(' ').map(str::to_owned), [])? {
            Invocation::Proxy { config, .. } => Ok(config.standby),
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn a_host_volunteers_with_both_urls_and_a_folder() {
        assert_eq!(parsed("--data-dir d"), Ok(None));
        let standby = parsed(&format!("{BOTH} --data-dir d")).unwrap().expect("it volunteers");
        let words = standby.words("me", "me=http://10.0.0.9:2380,1=http://10.0.0.1:2380");
        let expected = [
            "--name=me",
            "--listen-peer-urls=http://10.0.0.9:2380",
            "--initial-advertise-peer-urls=http://10.0.0.9:2380",
            "--listen-client-urls=http://10.0.0.9:2379",
            "--advertise-client-urls=http://10.0.0.9:2379",
            "--initial-cluster=me=http://10.0.0.9:2380,1=http://10.0.0.1:2380",
            "--initial-cluster-state=existing",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_name_is_advertised_and_all_addresses_are_listened_on() {
        let urls = "--standby-peer-url https://nine:2380 --standby-client-url http://nine:2379";
        let standby = parsed(&format!("{urls} --data-dir d --peer-auto-tls")).unwrap().expect("it volunteers");
        let words = standby.words("me", "x");
        for word in ["--listen-peer-urls=https://0.0.0.0:2380", "--initial-advertise-peer-urls=https://nine:2380"] {
            assert!(words.contains(&word.to_owned()), "{words:?}");
        }
    }

    #[test]
    fn certificates_and_flags_are_carried_over() {
        let tls = "--cert-file c --key-file k --peer-cert-file pc --peer-key-file pk --log-level debug";
        let words = format!("{BOTH} --data-dir d {tls} --standby-flags=--core-size=3");
        let standby = parsed(&words).unwrap().expect("it volunteers");
        let expected = [
            "--cert-file=c",
            "--key-file=k",
            "--log-level=debug",
            "--peer-cert-file=pc",
            "--peer-key-file=pk",
            "--core-size=3",
        ];
        assert_eq!(standby.more, expected);
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_said() {
        let secure = "--standby-peer-url https://10.0.0.9:2380 --standby-client-url http://10.0.0.9:2379 --data-dir d";
        let extra = |flags: &str| format!("{BOTH} --data-dir d --standby-flags={flags}");
        for (words, expected) in [
            (BOTH.to_owned(), "--standby-peer-url needs --data-dir"),
            ("--data-dir d --standby-peer-url http://a:1".into(), "--standby-peer-url needs --standby-client-url"),
            ("--standby-client-url http://a:1".into(), "--standby-client-url needs --standby-peer-url"),
            ("--peer-cert-file c".into(), "--peer-cert-file needs --standby-peer-url"),
            ("--data-dir d --standby-peer-url a:1 --standby-client-url http://a:2".into(), "is not a URL"),
            ("--data-dir d --standby-peer-url unix://a --standby-client-url http://a:2".into(), "no URL of one host"),
            ("--data-dir d --standby-peer-url http://a:1 --standby-client-url http://a:1".into(), "must differ"),
            (format!("{BOTH} --data-dir d --listen-client-urls http://10.0.0.9:2379"), "the proxy itself listens"),
            (secure.into(), "the member of --standby-peer-url: cannot listen on TLS"),
            (extra("--core-size=4"), "the member of --standby-peer-url: invalid value for --core-size"),
            (extra("-name=x"), "--standby-flags must not have --name"),
            (extra("--experimental-name=x"), "--standby-flags must not have --name"),
            (extra("--help"), "these are no flags of a member"),
        ] {
            let mistakes = parsed(&words).expect_err(&words);
            assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{words}: {mistakes:?}");
        }
    }
}
