use super::*;
use std::collections::BTreeMap;

const HOUR: Duration = Duration::from_secs(3600);
const STRICT: Rules = Rules { strict: true, learners_max: 1 };
const LAX: Rules = Rules { strict: false, learners_max: 1 };

/// Members from a text: `1 2 3` voters, `4l` a learner, `5-` one that never started. The first is the one that is asked.
fn members(text: &str) -> Vec<Member> {
    let member = |word: &str| {
        let id = word.trim_end_matches(['l', '-']).parse().expect("a number");
        Member {
            id: MemberId(id),
            name: if word.ends_with('-') { String::new() } else { format!("m{id}") },
            peer_urls: vec![format!("http://{id}:1")],
            is_learner: word.contains('l'),
            ..Member::default()
        }
    };
    text.split_whitespace().map(member).collect()
}

/// Asks with members `up` connected for an hour, and those of `fresh` for a second.
fn ask<T>(text: &str, up: &[u64], fresh: &[u64], question: impl FnOnce(&Situation<'_>) -> T) -> T {
    let members = members(text);
    let mut connected = up.iter().map(|id| (MemberId(*id), HOUR)).collect::<BTreeMap<_, _>>();
    connected.extend(fresh.iter().map(|id| (MemberId(*id), Duration::from_secs(1))));
    let connected_for = |id| connected.get(&id).copied();
    question(&Situation { members: &members, own: members[0].id, connected_for: &connected_for })
}

fn add(rules: Rules, text: &str, up: &[u64], new: &str) -> Result<(), Error> {
    ask(text, up, &[], |now| rules.may_add(now, &members(new)[0]))
}

fn remove(rules: Rules, text: &str, up: &[u64], id: u64) -> Result<(), Error> {
    ask(text, up, &[], |now| rules.may_remove(now, MemberId(id)))
}

fn promote(rules: Rules, text: &str, up: &[u64], id: u64) -> Result<(), Error> {
    ask(text, up, &[], |now| rules.may_promote(now, MemberId(id)))
}

#[test]
fn a_cluster_grows_one_started_member_at_a_time() {
    assert_eq!(add(STRICT, "1", &[], "9-"), Ok(()));
    assert_eq!(add(STRICT, "1 2-", &[], "9-"), Err(Error::MemberNotEnoughStarted), "two of three would be needed");
    assert_eq!(add(STRICT, "1 2", &[2], "9-"), Ok(()));
    assert_eq!(add(STRICT, "1 2 3-", &[2], "9-"), Err(Error::MemberNotEnoughStarted));
    assert_eq!(add(LAX, "1 2-", &[], "9-"), Ok(()));
}

#[test]
fn a_voter_joins_only_a_cluster_that_is_whole() {
    assert_eq!(add(STRICT, "1 2 3", &[2, 3], "9-"), Ok(()));
    assert_eq!(add(STRICT, "1 2 3", &[2], "9-"), Err(Error::Unhealthy));
    assert_eq!(add(LAX, "1 2 3", &[], "9-"), Ok(()));
    let fresh = ask("1 2 3", &[2], &[3], |now| STRICT.may_add(now, &members("9-")[0]));
    assert_eq!(fresh, Err(Error::Unhealthy), "a connection of a second proves nothing");
}

#[test]
fn a_learner_joins_while_a_quorum_is_there() {
    assert_eq!(add(STRICT, "1 2 3", &[2], "9l-"), Ok(()));
    assert_eq!(add(STRICT, "1 2 3", &[], "9l-"), Err(Error::Unhealthy));
    assert_eq!(add(STRICT, "1 2 3 4l", &[2, 3], "9l-"), Err(Error::TooManyLearners));
    assert_eq!(add(LAX, "1 4l", &[], "9l-"), Err(Error::TooManyLearners));
    assert_eq!(add(Rules { learners_max: 2, ..STRICT }, "1 4l", &[], "9l-"), Ok(()));
    assert_eq!(add(Rules { learners_max: 0, ..STRICT }, "1", &[], "9l-"), Err(Error::TooManyLearners));
}

#[test]
fn a_url_is_one_members() {
    assert_eq!(add(STRICT, "1 2 3", &[2, 3], "2-"), Err(Error::PeerURLExist));
    assert_eq!(
        add(STRICT, "1 2 3 4l", &[2, 3], "4l-"),
        Err(Error::PeerURLExist),
        "this is said before the number of learners"
    );
}

#[test]
fn whoever_leaves_leaves_a_quorum_behind() {
    assert_eq!(remove(STRICT, "1 2 3", &[2, 3], 3), Ok(()));
    assert_eq!(remove(STRICT, "1 2 3", &[2, 3], 1), Ok(()), "it may be the one that is asked");
    assert_eq!(remove(STRICT, "1 2 3", &[2], 3), Ok(()), "a dead one");
    assert_eq!(remove(STRICT, "1 2 3", &[2], 2), Err(Error::Unhealthy), "a live one while another is dead");
    assert_eq!(remove(STRICT, "1 2 3 4 5", &[2, 3], 4), Ok(()));
    assert_eq!(remove(STRICT, "1 2 3 4 5", &[2, 3], 3), Err(Error::Unhealthy));
    assert_eq!(remove(LAX, "1 2 3", &[], 2), Ok(()));
}

#[test]
fn members_that_never_started_count_against_a_removal() {
    assert_eq!(remove(STRICT, "1 2-", &[], 2), Ok(()), "the newcomer may be taken back");
    assert_eq!(remove(STRICT, "1 2-", &[], 1), Err(Error::MemberNotEnoughStarted));
    assert_eq!(remove(STRICT, "1 2 3-", &[2], 2), Err(Error::MemberNotEnoughStarted));
}

#[test]
fn the_last_voter_stays() {
    for rules in [STRICT, LAX] {
        assert_eq!(remove(rules, "1", &[], 1), Err(Error::MemberNotEnoughStarted));
        assert_eq!(remove(rules, "1 2l", &[2], 1), Err(Error::MemberNotEnoughStarted));
        assert_eq!(remove(rules, "1 2l", &[], 2), Ok(()), "a learner may always go");
        assert_eq!(remove(rules, "1", &[], 7), Err(Error::MemberNotFound));
    }
}

#[test]
fn a_promotion_is_held_up_by_a_quorum_of_what_will_be() {
    assert_eq!(promote(STRICT, "1 4l", &[4], 4), Ok(()));
    assert_eq!(promote(STRICT, "1 2 3 4l", &[2, 3, 4], 4), Ok(()));
    assert_eq!(promote(STRICT, "1 2 3 4l", &[2, 4], 4), Ok(()), "three of four");
    assert_eq!(promote(STRICT, "1 2 3 4l", &[4], 4), Err(Error::Unhealthy));
    assert_eq!(promote(STRICT, "1 2- 3- 4l", &[4], 4), Err(Error::MemberNotEnoughStarted));
    assert_eq!(promote(LAX, "1 2- 3- 4l", &[], 4), Ok(()));
    assert_eq!(promote(STRICT, "1 2 3", &[2, 3], 2), Err(Error::MemberNotLearner));
    assert_eq!(promote(STRICT, "1 2 3", &[2, 3], 7), Err(Error::MemberNotFound));
}

#[test]
fn only_a_voter_that_has_started_can_lead() {
    let all = members("1 2 3- 4l");
    assert_eq!(may_lead(&all, MemberId(2)), Ok(()));
    for nobody in [3, 4, 7] {
        assert_eq!(may_lead(&all, MemberId(nobody)), Err(Error::BadLeaderTransferee));
    }
}

#[test]
fn urls_are_checked_and_sorted() {
    let urls = |texts: &[&str]| peer_urls(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(urls(&["http://b:2", " http://a:1"]), Ok(vec!["http://a:1".to_owned(), "http://b:2".to_owned()]));
    for bad in
        [&[][..], &["a:1"], &["http://a"], &["ftp://a:1"], &["http://a:1/"], &["http://a:1/x"], &["http://a:1", ""]]
    {
        assert_eq!(urls(bad), Err(Error::MemberBadURLs), "{bad:?}");
    }
}

#[test]
fn ids_of_new_members_are_etcds() {
    // printf http://127.0.0.1:123801700000000 | sha1sum
    let member = new_member(vec!["http://127.0.0.1:12380".to_owned()], true, 1_700_000_000);
    assert_eq!((member.id.to_string(), member.is_learner), ("64251b037fd2d59e".to_owned(), true));
}
