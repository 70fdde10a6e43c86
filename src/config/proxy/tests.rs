use super::*;
use crate::config::{flags::Standing, reader::same, said::Meant};

fn parse(words: &str) -> Result<Invocation, Vec<String>> {
    super::super::parse(words.split(' ').map(str::to_owned), [("ETCD_NAME".to_owned(), "x".to_owned())])
}

fn proxy(words: &str) -> ProxyConfig {
    match parse(words) {
        Ok(Invocation::Proxy { config, .. }) => *config,
        other => panic!("{words}: {other:?}"),
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_are_those_of_etcds_proxy() {
    for words in ["proxy", "grpc-proxy start"] {
        let config = proxy(words);
        assert_eq!(config.endpoints, ["http://127.0.0.1:2379"], "{words}");
        assert_eq!(texts(&config.listen_client_urls), ["http://127.0.0.1:23790"], "{words}");
        assert_eq!(config.advertise_client_urls, config.listen_client_urls, "{words}");
        let folder = |config: &ProxyConfig| (config.data_dir.clone(), config.saves_copies);
        assert_eq!(folder(&config), (PathBuf::from("default.proxy"), false), "{words}");
        assert_eq!(folder(&proxy(&format!("{words} --data-dir=default.proxy"))), (config.data_dir, true), "{words}");
    }
    for words in ["gateway start", "gateway"] {
        let Ok(Invocation::Gateway { config, .. }) = parse(words) else { panic!("{words}") };
        assert_eq!((config.endpoints, config.listen_addr), (vec!["127.0.0.1:2379".into()], "127.0.0.1:23790".into()));
        assert_eq!(config.retry_delay, Duration::from_secs(60));
    }
}

#[test]
fn both_spellings_say_the_same() {
    let ours = proxy("proxy --endpoints a:1,http://b:2 --listen-client-urls http://127.0.0.1:3 --log-level debug");
    let etcds = proxy("grpc-proxy start -endpoints=a:1,http://b:2 --listen-addr=127.0.0.1:3 --debug");
    assert_eq!(format!("{ours:?}"), format!("{etcds:?}"));
    assert_eq!(ours.endpoints, ["http://a:1", "http://b:2"]);
}

#[test]
fn certificates_make_urls_without_a_scheme_https() {
    let plain = proxy("grpc-proxy start --endpoints=a:1 --listen-addr=127.0.0.1:3");
    assert_eq!(
        (plain.endpoints, texts(&plain.listen_client_urls)),
        (vec!["http://a:1".into()], vec!["http://127.0.0.1:3".into()])
    );
    let towards = "--cert=c --key=k --cacert=ca --insecure-skip-tls-verify";
    let from = "--cert-file=c --key-file=k --trusted-ca-file=ca --client-crl-file=crl --tls-min-version=TLS1.3";
    let etcds =
        proxy(&format!("grpc-proxy start --endpoints=a:1,http://b:2 --listen-addr=127.0.0.1:3 {towards} {from}"));
    let ours =
        proxy(&format!("proxy --endpoints=a:1,http://b:2 --listen-client-urls=https://127.0.0.1:3 {towards} {from}"));
    assert_eq!(format!("{ours:?}"), format!("{etcds:?}"));
    assert_eq!(ours.endpoints, ["https://a:1", "http://b:2"]);
    assert_eq!(texts(&etcds.advertise_client_urls), ["https://127.0.0.1:3"]);
    assert_eq!(etcds.upstream_tls.identity, Some(("c".into(), "k".into())));
    assert!(parse("proxy --listen-client-urls=https://127.0.0.1:3").is_err(), "there is nothing to show");
    assert!(proxy("proxy --listen-client-urls=https://127.0.0.1:3 --auto-tls").client_tls.auto_tls);
}

#[test]
fn a_proxy_lists_itself_if_it_was_told_its_address_and_registers_if_it_was_told_where() {
    let config = proxy("grpc-proxy start --advertise-client-url=a:1 --resolver-prefix=p --resolver-ttl=60");
    assert!(config.lists_itself);
    assert_eq!(config.resolver, Some(("p".to_owned(), 60)));
    let config = proxy("proxy --name x");
    assert_eq!((config.lists_itself, config.resolver, config.name.as_str()), (false, None, "x"));
}

#[test]
fn a_gateway_strips_schemes_and_adds_etcds_port() {
    let Ok(Invocation::Gateway { config, .. }) = parse("gateway --endpoints=https://a,b:1 --retry-delay=5s") else {
        panic!("a gateway")
    };
    assert_eq!(config.endpoints, ["a:2379", "b:1"]);
    assert_eq!(config.retry_delay, Duration::from_secs(5));
}

#[test]
fn all_mistakes_are_reported_at_once_and_what_cannot_be_honoured_is_one() {
    let mistakes = parse(
        "grpc-proxy start --namespace=x --endpoints=unix://a,b --listen-addr=host:1 --cert=c --max-concurrent-streams=-1",
    );
    assert_eq!(mistakes.as_ref().map(|_| ()).unwrap_err().len(), 6, "{mistakes:?}");
    for words in [
        "proxy --endpoints http://127.0.0.1:23790",
        "proxy --endpoints=",
        "proxy --no-such-flag",
        "proxy start",
        "proxy --resolver-prefix=p",
        "proxy --resolver-ttl=5",
        "proxy --ring-identity",
        "proxy --ring-proxy-cn=host",
        "proxy --resolver-prefix=p --resolver-ttl=5",
        "grpc-proxy",
        "gateway --endpoints 127.0.0.1:23790",
        "gateway --listen-client-urls http://127.0.0.1:1",
    ] {
        assert_eq!(parse(words).map(|_| ()).unwrap_err().len(), 1, "{words}");
    }
}

#[test]
fn each_has_help_and_the_members_help_names_them() {
    for words in ["proxy --help", "grpc-proxy start --help", "grpc-proxy --help", "gateway -h", "--help"] {
        let Ok(Invocation::Print(text)) = parse(words) else { panic!("{words}") };
        let expected = if words == "--help" { "henge gateway" } else { "--endpoints" };
        assert!(text.contains(expected), "{words}: {text}");
    }
}

/// The flags of etcd's own `grpc-proxy start` and `gateway start`.
const ETCDS: &str = include_str!("../testdata/etcd_proxy_flags.txt");
const PAGE: &str = include_str!("../../../docs/compatibility.md");

#[test]
fn every_flag_of_etcds_is_known_and_the_page_says_which_have_no_effect_and_which_are_refused() {
    let (mut program, mut count, mut differ) = (None, 0, Vec::new());
    for line in ETCDS.lines().filter(|line| !line.starts_with('#')) {
        if let Some(heading) = line.strip_prefix('[') {
            program = heading.split(' ').next().and_then(Program::named);
            continue;
        }
        let (name, default) = line.split_once('=').unwrap_or((line, ""));
        let flags = program.expect("a heading").flags();
        let meant = Said::default().meant(&flags, name, str::to_owned);
        let Some(Meant::Flag(flag)) = meant else { panic!("--{name} is not known") };
        let is_other = !default.is_empty() && !same(flag.kind, flag.default, default);
        differ.extend(is_other.then_some(name));
        count += 1;
    }
    assert_eq!(count, 46);
    // etcd's registers only with a prefix, too.
    assert_eq!(differ, ["advertise-client-url"]);

    for (program, table) in [("grpc-proxy", flags::GRPC_PROXY), ("gateway", flags::GATEWAY)] {
        for flag in table {
            let verdict = match flag.standing {
                Standing::Works => continue,
                Standing::Meaningless(reason) => format!("accepted: {reason}"),
                Standing::Later(reason) => format!("refused: {reason}"),
            };
            let row = format!("| `{program} --{}` | {verdict} |", flag.name);
            assert!(PAGE.contains(&row), "docs/compatibility.md has no row {row}");
        }
    }
}

#[test]
fn a_row_stands_in_a_table_once() {
    for program in [Program::Proxy, Program::GrpcProxy, Program::Gateway] {
        let mut names = program.flags().into_iter().map(|flag| flag.name).collect::<Vec<_>>();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{program:?}");
    }
}
