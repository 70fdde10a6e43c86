//! Any command line, variables and file: they become settings, or sentences about what is wrong.

use super::{Config, FLAGS, Invocation, bootstrap::initial_cluster, file::of_text, parse::parse, said::Settings};

/// The first byte says what the others are.
const FILE: u8 = b'f';
const ARGUMENTS: u8 = b'a';
/// A line of a command line that begins with this is a variable.
const VARIABLE: char = '$';

/// Reads what `data` is.
pub(crate) fn target(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let read = match *how {
        FILE => of_file(&text).map(Some),
        _ => arguments(&text),
    };
    match read {
        Ok(Some(settings)) => {
            if *how == FILE {
                could_be_said_by_flags(&settings);
            }
            checked(settings);
        }
        Ok(None) => {}
        Err(mistakes) => assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.is_empty())),
    }
}

fn of_file(text: &str) -> Result<Settings, Vec<String>> {
    of_text(text).or_mistakes(|_| Vec::new()).map(|said| said.settings)
}

/// A word in each line.
fn arguments(text: &str) -> Result<Option<Settings>, Vec<String>> {
    // What other files hold is no part of the input.
    let words = text.lines().filter(|word| !word.contains("config-file") && !word.contains("CONFIG_FILE"));
    let (variables, words): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with(VARIABLE));
    let variables = variables.iter().filter_map(|word| word.trim_start_matches(VARIABLE).split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(match parse(words.into_iter().map(str::to_owned), variables)? {
        Invocation::Run { settings, .. } => Some(settings),
        Invocation::Proxy { .. } | Invocation::Gateway { .. } => None,
        Invocation::Print(text) => {
            assert!(!text.is_empty());
            None
        }
    })
}

/// A file says nothing that flags could not.
fn could_be_said_by_flags(settings: &Settings) {
    if settings.contains_key("config-file") || settings.values().any(String::is_empty) {
        return;
    }
    let words = settings.iter().map(|(name, text)| format!("--{name}={text}"));
    match parse(words, []) {
        Ok(Invocation::Run { settings: said, .. }) => assert_eq!(&said, settings),
        other => panic!("{other:?}"),
    }
}

/// The settings as a member takes them.
fn checked(mut settings: Settings) {
    // Names in it would be looked up.
    if let Some(text) = settings.remove("initial-cluster") {
        let _ = initial_cluster(&text);
    }
    let mut warnings = Vec::new();
    match Config::from_settings(&settings, &mut warnings) {
        Ok(config) => {
            // What is counted in somebody's clock must leave it running.
            for interval in
                [config.watch_progress_notify_interval, config.core_heal_after, config.grpc_keepalive_interval]
            {
                let end = std::time::Instant::now().checked_add(interval);
                assert!(
                    end.is_some_and(|end| end.checked_add(interval).is_some()),
                    "{interval:?} is beyond all clocks"
                );
            }
        }
        Err(mistakes) => assert!(!mistakes.is_empty()),
    }
}

/// Each flag once by its default, command lines of all programs, and files with all there is in them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut file = String::from("# all of them\n");
    let (mut words, mut variables) = (String::new(), String::new());
    for flag in FLAGS.iter().filter(|flag| !flag.default.is_empty()) {
        file += &format!("{}: {:?}\n", flag.name, flag.default);
        words += &format!("--{}={}\n", flag.name, flag.default);
        variables += &format!("{VARIABLE}{}={}\n", flag.variable(), flag.default);
    }
    let sections = "name: m1\ninitial-cluster: [m1=http://10.0.0.1:2380, m2=http://10.0.0.2:2380]\nquota-backend-bytes: 0x10\n\
                    client-transport-security:\n  cert-file: c\n  key-file: k\n  auto-tls: true\npeer-transport-security: {client-cert-auth: yes}\n";
    let formers = "experimental-compaction-batch-limit: 7\nexperimental-initial-corrupt-check: true\nsocket-options: {reuse-port: true}\n";
    let tokens =
        "auth-token: jwt,pub-key=a.pub,priv-key=a.pem,sign-method=RS256,ttl=10m\nauto-compaction-retention: 1h30m\n";
    let lines = [
        "-name\nm1\n--data-dir\nd\n--listen-client-urls=http://127.0.0.1:1,unix:///run/h\n--advertise-client-urls\nhttp://a:1\n",
        "--discovery-srv=example.com\n--experimental-compaction-batch-limit=7\n--core-size=3\n--core-heal-after=1m0.5s\n",
        "proxy\n--endpoints=a:1,b:2\n--cache-prefix=/x,/y\n--advertise-client-urls=http://a:9\n--resolver-prefix=p\n--resolver-ttl=5\n",
        "proxy\n--data-dir\nd\n--standby-peer-url\nhttp://10.0.0.9:2380\n--standby-client-url\nhttp://10.0.0.9:2379\n--standby-flags=--core-size=3 --name=x\n",
        "grpc-proxy\nstart\n--endpoints=https://a:1\n--cert=c\n--key=k\n--listen-addr=:2\n",
        "gateway\n--endpoints=a:1\n--retry-delay=1m\n",
        "completion\nbash\n",
        "--help\n",
    ];
    let files = [&*file, sections, formers, tokens].map(|text| [&[FILE], text.as_bytes()].concat());
    let lines =
        lines.iter().copied().chain([&*words, &*variables]).map(|text| [&[ARGUMENTS], text.as_bytes()].concat());
    files.into_iter().chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_understood() {
        let understood = |seed: &[u8]| {
            let text = std::str::from_utf8(&seed[1..]).unwrap();
            if seed[0] == FILE { of_file(text).is_ok() } else { arguments(text).is_ok() }
        };
        let wrong: Vec<_> = seeds().into_iter().filter(|seed| !understood(seed)).collect();
        // The member's name is the proxy's to give.
        assert_eq!(wrong.len(), 1, "{:?}", wrong.iter().map(|seed| String::from_utf8_lossy(seed)).collect::<Vec<_>>());
    }
}
