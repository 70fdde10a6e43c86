use super::*;
use crate::config::{
    flags::{Flag, Kind, Standing},
    reader::same,
    said::Said,
};

fn check(pairs: &[(&'static str, &str)]) -> Result<Config, Vec<String>> {
    let settings = pairs.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Config::from_settings(&settings, &mut Vec::new())
}

#[test]
fn the_defaults_are_etcds() {
    let config = check(&[]).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.listen_client_urls[0].address, "localhost:2379");
    assert_eq!(config.auto_compaction, None);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mistakes =
        check(&[("max-txn-ops", "x"), ("log-level", "loud"), ("auth-token", "jwt"), ("listen-client-urls", "y")])
            .unwrap_err();
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
}

#[test]
fn retention_is_hours_a_duration_or_revisions() {
    let periodic = |text| check(&[("auto-compaction-retention", text)]).unwrap().auto_compaction;
    assert_eq!(periodic("1"), Some(Compaction::Periodic(Duration::from_secs(3600))));
    assert_eq!(periodic("30m"), Some(Compaction::Periodic(Duration::from_secs(1800))));
    let revisions = |text| {
        check(&[("auto-compaction-mode", "revision"), ("auto-compaction-retention", text)]).map(|c| c.auto_compaction)
    };
    assert_eq!(revisions("1000"), Ok(Some(Compaction::Revisions(1000))));
    assert_eq!(revisions("1h"), Ok(Some(Compaction::Revisions(3_600_000_000_000))), "as many as there are nanoseconds");
    assert_eq!(revisions("0s"), Ok(None));
    for wrong in ["-1", "-1h", "x"] {
        assert_eq!(revisions(wrong).unwrap_err().len(), 1, "{wrong}");
    }
}

#[test]
fn where_nothing_stands_for_the_default_it_may_be_said() {
    let config = check(&[
        ("snapshot-count", "0"),
        ("max-txn-ops", "0"),
        ("max-concurrent-streams", "0"),
        ("compaction-batch-limit", "-1"),
        ("auth-token-ttl", "0"),
        ("self-signed-cert-validity", "0"),
        ("log-format", ""),
        ("metrics", ""),
    ])
    .unwrap();
    let default = check(&[]).unwrap();
    assert_eq!(config.snapshot_count, default.snapshot_count);
    assert_eq!(config.max_txn_ops, 0, "no transaction has steps then");
    assert_eq!(config.max_concurrent_streams, u32::MAX);
    assert_eq!(config.compaction_batch_limit, 1_000);
    assert_eq!(config.auth.token_ttl, Duration::from_secs(300));
    assert_eq!((config.log, config.extensive_metrics), (default.log, false));
    // A member could not even tell the others of itself.
    assert_eq!(check(&[("max-request-bytes", "0")]).unwrap_err().len(), 1);
}

#[test]
fn levels_are_spelled_as_zap_takes_them() {
    let level = |text| check(&[("log-level", text)]).map(|config| config.log.level);
    for (text, expected) in
        [("WARN", "warn"), ("Warn", "warn"), ("warning", "warn"), ("", "info"), ("DEBUG", "debug"), ("fatal", "fatal")]
    {
        assert_eq!(level(text).as_deref(), Ok(expected), "{text:?}");
    }
    assert!(level("loud").is_err() && level("trace").is_err());
}

#[test]
fn numbers_durations_and_lists_are_spelled_as_in_go() {
    let url = "http://127.0.0.1:1";
    let config = check(&[
        ("quota-backend-bytes", "0x80000000"),
        ("snapshot-count", "1_000"),
        ("max-learners", "0b11"),
        ("backend-batch-interval", "+5s"),
        ("listen-client-urls", " http://127.0.0.1:1, http://127.0.0.1:2,http://127.0.0.1:1"),
        ("advertise-client-urls", url),
    ])
    .unwrap();
    assert_eq!((config.quota_backend_bytes, config.snapshot_count, config.max_learners), (1 << 31, 1_000, 3));
    assert_eq!(config.backend_batch_interval, Duration::from_secs(5));
    let addresses = config.listen_client_urls.iter().map(|url| url.address.as_str()).collect::<Vec<_>>();
    assert_eq!(addresses, ["127.0.0.1:1", "127.0.0.1:2"]);
}

#[test]
fn clients_are_left_alone_if_one_of_the_times_says_so() {
    let interval = |pairs: &[_]| check(pairs).unwrap().grpc_keepalive_interval;
    assert_eq!(interval(&[]), Duration::from_secs(7_200));
    for off in [("grpc-keepalive-interval", "-1s"), ("grpc-keepalive-interval", "0s"), ("grpc-keepalive-timeout", "0s")]
    {
        assert_eq!(interval(&[off]), Duration::ZERO, "{off:?}");
    }
    assert_eq!(check(&[("backend-batch-interval", "-1s")]).unwrap_err().len(), 1);
}

#[test]
fn a_core_that_heals_itself_has_an_odd_number_of_voters_and_its_time() {
    let healing = check(&[("core-size", "5"), ("core-heal-after", "90s")]).unwrap();
    assert_eq!((healing.core_size, healing.core_heal_after), (5, Duration::from_secs(90)));
    assert_eq!(check(&[]).unwrap().core_size, 0);
    for wrong in ["1", "2", "4", "-3", "x"] {
        let mistakes = check(&[("core-size", wrong)]).unwrap_err();
        assert!(mistakes[0].contains("is no size that heals: an odd number of voters, at least 3"), "{mistakes:?}");
    }
    for wrong in [
        &[("core-heal-after", "90s")][..],
        &[("core-size", "3"), ("core-heal-after", "10ms")],
        &[("core-size", "3"), ("max-learners", "0")],
    ] {
        assert_eq!(check(wrong).unwrap_err().len(), 1, "{wrong:?}");
    }
}

/// What etcd v3.7 has, by group; what stood in for some of it up to v3.6.
const ETCDS: &str = include_str!("../testdata/etcd_flags.txt");

/// Group, name and default of each flag of etcd's.
fn etcds() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let mut group = "";
    ETCDS.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[') {
            group = name.trim_end_matches(']');
            return None;
        }
        let (name, default) = line.split_once('=').unwrap_or((line, ""));
        Some((group, name, default))
    })
}

/// Something else than the default.
fn other_than_default(flag: &Flag) -> String {
    match flag.kind {
        Kind::Bool if flag.default == "true" => "false".to_owned(),
        Kind::Bool => "true".to_owned(),
        Kind::Int => flag.default.parse::<i64>().map_or("7".to_owned(), |number| (number / 2 + 1).to_string()),
        Kind::Duration => "7s".to_owned(),
        Kind::Urls => "http://127.0.0.1:7".to_owned(),
        Kind::Text => "something".to_owned(),
    }
}

#[test]
fn every_flag_of_etcds_is_known_under_its_heading_and_with_its_default() {
    let (mut count, mut differ) = (0, Vec::new());
    for (group, name, default) in etcds().filter(|(group, ..)| !group.starts_with("Former")) {
        let flag = FLAGS.iter().find(|flag| flag.name == name).unwrap_or_else(|| panic!("--{name} is not known"));
        count += 1;
        // Under another heading, or with a default that depends on other flags; etcd's list leaves out some defaults.
        let is_elsewhere = flag.group != group.trim_end_matches(" feature");
        if is_elsewhere || (!default.is_empty() && !same(flag.kind, flag.default, default)) {
            differ.push(name);
        }
    }
    assert_eq!(count, 113);
    assert_eq!(differ, ["data-dir", "initial-cluster", "peer-skip-client-san-verification"]);
}

#[test]
fn every_former_name_stands_for_something() {
    let formers = etcds().filter(|(group, ..)| group.starts_with("Former")).map(|(_, name, _)| name);
    let mut count = 0;
    for name in formers {
        let mut said = Said::default();
        let meant = said.meant(FLAGS, name, str::to_owned);
        assert!(meant.is_some() && said.warnings.len() == 1, "{name}: {:?}", said.warnings);
        count += 1;
    }
    assert_eq!(count, 23);
}

#[test]
fn every_flag_works_or_says_why_it_does_not() {
    for flag in FLAGS {
        let text = other_than_default(flag);
        let (mut warnings, settings) = (Vec::new(), [(flag.name, text.clone())].into());
        let mistakes = Config::from_settings(&settings, &mut warnings).err().unwrap_or_default();
        let says =
            |lines: &[String], why: &str| lines.iter().any(|line| line.contains(flag.name) && line.contains(why));
        match flag.standing {
            // Some want other flags beside them, or texts of another kind; none is told that it does nothing.
            Standing::Works => {
                assert!(!says(&mistakes, "cannot be honoured") && !says(&warnings, "has no effect"), "{}", flag.name);
            }
            Standing::Meaningless(why) => assert!(says(&warnings, why), "{}={text}: {warnings:?}", flag.name),
            Standing::Later(why) => assert!(says(&mistakes, why), "{}={text}: {mistakes:?}", flag.name),
        }
        // What holds anyway may always be said.
        let said = [(flag.name, flag.default.to_owned())].into();
        if !matches!(flag.name, "listen-client-urls" | "core-heal-after") {
            assert_eq!(Config::from_settings(&said, &mut Vec::new()).err(), None, "--{}={}", flag.name, flag.default);
        }
    }
}

#[test]
fn feature_gates_are_those_of_etcd() {
    assert!(check(&[("feature-gates", "CompactHashCheck=true,LeaseCheckpoint=false, AllAlpha=1")]).is_ok());
    for (gates, text) in [
        ("Foo=true", "unrecognized feature gate: Foo"),
        ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
        ("LeaseCheckpoint=maybe", "invalid value of LeaseCheckpoint"),
    ] {
        let mistakes = check(&[("feature-gates", gates)]).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(text), "{mistakes:?}");
    }
}

#[test]
fn spans_are_sent_where_the_flags_say_and_only_if_they_are_wanted() {
    assert_eq!(check(&[("distributed-tracing-address", "a:1")]).unwrap().tracing, None);
    let tracing = check(&[("enable-distributed-tracing", "true")]).unwrap().tracing.unwrap();
    assert_eq!((tracing.address.as_str(), tracing.sampling_per_million), ("localhost:4317", 0));
    assert_eq!((tracing.service_name.as_str(), tracing.instance_id), ("etcd", None));
    for (name, wrong) in [
        ("distributed-tracing-address", "localhost"),
        ("distributed-tracing-address", "http://localhost:4317"),
        ("distributed-tracing-address", ":4317"),
        ("distributed-tracing-sampling-rate", "-1"),
        ("distributed-tracing-sampling-rate", "1000001"),
    ] {
        assert_eq!(check(&[(name, wrong)]).unwrap_err().len(), 1, "{name}={wrong}");
    }
}
