use super::*;

fn member(id: u64, url: &str) -> Member {
    Member { id: MemberId(id), peer_urls: vec![url.into()], ..Member::default() }
}

fn table(members: &[Member]) -> Table {
    let mut table = Table::default();
    for member in members {
        table.change(&Change::Add(member.clone()), &mut Batch::default()).expect("a new member");
    }
    table
}

#[test]
fn rows_are_read_as_they_were_written() {
    let record = Record { name: "a".into(), peer_urls: vec!["http://x".into(), "y".into()], client_urls: vec![] };
    let bytes = row::encode_record(Some(&record));
    assert_eq!(row::decode_record(&bytes), Some(Some(record)));
    assert_eq!(row::decode_record(&row::encode_record(None)), Some(None));
    // No prefix of a row is a row: a torn one is found.
    assert!((0..bytes.len()).all(|n| row::decode_record(&bytes[..n]).is_none()));

    let state = ConfState { voters: vec![MemberId(1)], learners_next: vec![MemberId(9)], ..ConfState::default() };
    let bytes = row::encode_conf_state(&state);
    assert_eq!(row::decode_conf_state(&bytes), Some(state));
    assert!((0..bytes.len()).all(|n| row::decode_conf_state(&bytes[..n]).is_none()));
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let before = table(&[member(1, "a"), Member { is_learner: true, ..member(2, "b") }]);
    let (mut after, mut batch) = (before.clone(), Batch::default());
    let refused = [
        (Change::Add(member(1, "c")), Error::MemberExist),
        (Change::Add(member(3, "a")), Error::PeerURLExist),
        (Change::Promote(MemberId(1)), Error::MemberNotLearner),
        (Change::Promote(MemberId(3)), Error::MemberNotFound),
        (Change::Remove(MemberId(3)), Error::MemberNotFound),
        (Change::UpdatePeers(MemberId(1), vec!["b".into()]), Error::PeerURLExist),
        (Change::UpdatePeers(MemberId(3), vec!["c".into()]), Error::MemberNotFound),
    ];
    for (change, error) in refused {
        assert_eq!(after.change(&change, &mut batch), Err(error), "{change:?}");
    }
    assert_eq!(after, before);
    assert!(batch.is_empty());
}

#[test]
fn a_removed_id_never_comes_back() {
    let mut table = table(&[member(1, "a"), member(2, "b")]);
    let mut batch = Batch::default();
    table.change(&Change::Remove(MemberId(2)), &mut batch).expect("a member");
    assert!(table.is_removed(MemberId(2)));
    assert_eq!(table.change(&Change::Add(member(2, "b")), &mut batch), Err(Error::MemberExist));
    assert_eq!(table.conf_state().voters, [MemberId(1)]);
}

#[test]
fn etcd_21694_an_update_never_changes_who_votes() {
    let mut table = table(&[member(1, "a"), Member { is_learner: true, ..member(2, "b") }]);
    let before = table.conf_state().clone();
    table.change(&Change::UpdatePeers(MemberId(2), vec!["c".into()]), &mut Batch::default()).expect("a member");
    assert_eq!(*table.conf_state(), before);
    assert!(table.get(MemberId(2)).expect("a member").is_learner);
}

#[test]
fn etcd_20793_a_promotion_is_one_fact_in_one_place() {
    let mut table = table(&[member(1, "a"), Member { is_learner: true, ..member(2, "b") }]);
    let mut batch = Batch::default();
    table.change(&Change::Promote(MemberId(2)), &mut batch).expect("a learner");
    assert_eq!(table.conf_state().voters, [MemberId(1), MemberId(2)]);
    assert!(!table.get(MemberId(2)).expect("a member").is_learner);
    // Nothing but the membership is written: there is no second place that could disagree.
    assert!(batch.ops.iter().all(|(table, ..)| *table == Rows::Meta));
}
