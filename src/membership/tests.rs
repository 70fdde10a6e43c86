use super::*;

fn member(id: u64, url: &str) -> Member {
    Member { id: MemberId(id), peer_urls: vec![url.into()], ..Member::default() }
}

fn one(change: Change) -> Changes {
    Changes::One(change)
}

fn table(members: &[Member]) -> Table {
    let mut table = Table::default();
    for member in members {
        table.change(&one(Change::Add(member.clone())), &mut Batch::default()).expect("a new member");
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
        (Change::Remove(MemberId(1)), Error::MemberNotEnoughStarted),
    ];
    for (change, error) in refused {
        assert_eq!(after.change(&one(change.clone()), &mut batch), Err(error), "{change:?}");
    }
    assert_eq!(after, before);
    assert!(batch.is_empty());
}

#[test]
fn a_removed_id_never_comes_back() {
    let mut table = table(&[member(1, "a"), member(2, "b")]);
    let mut batch = Batch::default();
    table.change(&one(Change::Remove(MemberId(2))), &mut batch).expect("a member");
    assert!(table.is_removed(MemberId(2)));
    assert_eq!(table.change(&one(Change::Add(member(2, "b"))), &mut batch), Err(Error::MemberExist));
    assert_eq!(table.conf_state().voters, [MemberId(1)]);
}

#[test]
fn etcd_21694_an_update_never_changes_who_votes() {
    let mut table = table(&[member(1, "a"), Member { is_learner: true, ..member(2, "b") }]);
    let before = table.conf_state().clone();
    table.change(&one(Change::UpdatePeers(MemberId(2), vec!["c".into()])), &mut Batch::default()).expect("a member");
    assert_eq!(*table.conf_state(), before);
    assert!(table.get(MemberId(2)).expect("a member").is_learner);
}

#[test]
fn etcd_20793_a_promotion_is_one_fact_in_one_place() {
    let mut table = table(&[member(1, "a"), Member { is_learner: true, ..member(2, "b") }]);
    let mut batch = Batch::default();
    table.change(&one(Change::Promote(MemberId(2))), &mut batch).expect("a learner");
    assert_eq!(table.conf_state().voters, [MemberId(1), MemberId(2)]);
    assert!(!table.get(MemberId(2)).expect("a member").is_learner);
    // Nothing but the membership is written: there is no second place that could disagree.
    assert!(batch.ops.iter().all(|(table, ..)| *table == Rows::Meta));
}

fn joint(changes: &[Change]) -> Changes {
    Changes::Joint { changes: changes.to_vec(), auto_leave: true }
}

#[test]
fn several_changes_at_once_are_half_way_until_they_are_left_and_nobody_is_forgotten_before() {
    let mut table = table(&[member(1, "a"), member(2, "b"), Member { is_learner: true, ..member(3, "c") }]);
    let mut batch = Batch::default();
    let replace = joint(&[Change::Add(member(4, "d")), Change::Promote(MemberId(3)), Change::Remove(MemberId(1))]);
    let told = table.change(&replace, &mut batch).expect("possible");
    assert!(matches!(told, ConfChange::Joint { steps, auto_leave: true } if steps.len() == 3));
    assert_eq!(table.conf_state().voters, [2, 3, 4].map(MemberId));
    assert_eq!(table.conf_state().voters_outgoing, [1, 2].map(MemberId));
    assert!(table.get(MemberId(1)).is_some() && !table.is_removed(MemberId(1)), "its vote may be needed");

    for other in [one(Change::Promote(MemberId(3))), one(Change::Remove(MemberId(2))), joint(&[])] {
        assert!(table.clone().change(&other, &mut Batch::default()).is_err(), "{other:?}");
    }
    let urls = one(Change::UpdatePeers(MemberId(1), vec!["e".into()]));
    assert_eq!(table.change(&urls, &mut batch), Ok(ConfChange::Nothing), "says nothing of who votes");

    assert_eq!(table.change(&Changes::Leave, &mut batch), Ok(ConfChange::Leave));
    assert!(table.get(MemberId(1)).is_none() && table.is_removed(MemberId(1)));
    assert_eq!(table.conf_state(), &ConfState { voters: [2, 3, 4].map(MemberId).to_vec(), ..ConfState::default() });
    assert!(matches!(table.change(&Changes::Leave, &mut batch), Err(Error::Invalid(_))));

    let engine = crate::engine::Memory::default();
    engine.write(batch).expect("memory");
    let mut read = Table::load(&engine).expect("rows of ours");
    // Those that were there before the batch.
    read.records.insert(MemberId(2), Record { peer_urls: vec!["b".into()], ..Record::default() });
    read.records.insert(MemberId(3), Record { peer_urls: vec!["c".into()], ..Record::default() });
    assert_eq!(read, table);
}

#[test]
fn of_several_changes_all_are_made_or_none() {
    let before = table(&[member(1, "a"), Member { is_learner: true, ..member(2, "b") }]);
    let (mut after, mut batch) = (before.clone(), Batch::default());
    let refused = [
        (vec![Change::Add(member(3, "c")), Change::Promote(MemberId(9))], Error::MemberNotFound),
        (vec![Change::Add(member(3, "c")), Change::Add(member(4, "c"))], Error::PeerURLExist),
        (vec![Change::Remove(MemberId(2)), Change::Remove(MemberId(1))], Error::MemberNotEnoughStarted),
        (
            vec![Change::Promote(MemberId(2)), Change::Remove(MemberId(2))],
            Error::Invalid("a change names member 2 twice".into()),
        ),
    ];
    for (changes, error) in refused {
        assert_eq!(after.change(&joint(&changes), &mut batch), Err(error), "{changes:?}");
    }
    assert_eq!(after, before);
    assert!(batch.is_empty());
}
