//! Logs that a state of another member has superseded.

use super::*;

fn mark(term: u64, index: u64) -> Mark {
    Mark { index: Index(index), term: Term(term) }
}

/// Five synced entries of term 1, of which two are known to be committed.
fn diverged(disk: &SimDisk) -> Wal<SimDisk> {
    let mut wal = new_log(disk);
    wal.append(Some(&state(1, 2)), &(1..=5).map(|index| entry(1, index, b"old")).collect::<Vec<_>>()).unwrap();
    wal.sync().unwrap();
    wal
}

#[test]
fn hashicorp_raft_697_a_mark_of_another_entry_empties_the_log_and_appends_go_on_behind_it() {
    for (of, at) in [("inside", mark(3, 4)), ("at the end", mark(3, 5)), ("behind the end", mark(3, 900))] {
        let disk = disk(1);
        let mut wal = diverged(&disk);
        wal.save_mark(&at, &ConfState::default()).unwrap();
        assert_eq!(wal.last(), at.index, "{of}");
        wal.append(Some(&state(4, at.index.0)), &[entry(4, at.index.0 + 1, b"new")]).unwrap();
        wal.sync().unwrap();
        // Before the state machine was replaced, and after.
        for from in [Index(2), at.index] {
            let (wal, found) = Wal::open(disk.clone(), dir(), from, SMALL).unwrap();
            assert_eq!((found.start, found.start_term, found.mark), (at.index, Some(Term(3)), at), "{of} from {from}");
            assert_eq!(found.entries, [entry(4, at.index.0 + 1, b"new")], "{of} from {from}");
            assert_eq!(wal.last(), at.index.next());
        }
    }
}

#[test]
fn a_mark_of_an_entry_that_the_log_holds_leaves_what_follows_it() {
    let disk = disk(1);
    diverged(&disk).save_mark(&mark(1, 4), &ConfState::default()).unwrap();
    let (_, found) = open(&disk).unwrap();
    assert_eq!(
        (indexes(&found), found.hard_state.commit, found.mark),
        (vec![1, 2, 3, 4, 5], Index(2), Mark::default())
    );
}

#[test]
fn a_crash_at_any_moment_of_emptying_leaves_the_old_log_or_the_new_one() {
    let (mut old, mut new) = (0, 0);
    for moment in 0.. {
        let disk = disk(moment);
        let mut wal = diverged(&disk);
        disk.halt_after(moment);
        // The second entry fills the segment, so that one is sealed and one begun.
        let result = wal
            .save_mark(&mark(3, 4), &ConfState::default())
            .and_then(|()| wal.append(Some(&state(4, 4)), &[entry(4, 5, b"new"), entry(4, 6, &[1; 5000])]))
            .and_then(|()| wal.sync());
        disk.crash();
        let (mut wal, found) = open(&disk).unwrap();
        let is_old = indexes(&found) == [1, 2, 3, 4, 5] && found.entries[4].term == Term(1);
        let is_new = found.start == Index(4) && found.entries.iter().all(|entry| entry.term == Term(4));
        assert!(is_old || is_new && found.hard_state.commit == Index(4), "{found:?}");
        old += u32::from(is_old);
        new += u32::from(is_new);
        // Done again, as by a member that finds the state on its disk but not in use.
        wal.save_mark(&mark(3, 4), &ConfState::default()).unwrap();
        wal.append(Some(&state(9, 4)), &[entry(9, 5, b"later")]).unwrap();
        wal.sync().unwrap();
        disk.crash();
        let (_, found) = Wal::open(disk, dir(), Index(4), SMALL).unwrap();
        assert_eq!((found.start_term, found.entries), (Some(Term(3)), vec![entry(9, 5, b"later")]));
        if result.is_ok() {
            break;
        }
    }
    assert!(old > 0 && new > 0, "{old} {new}");
}

#[test]
fn a_state_machine_that_was_replaced_before_the_mark_was_written_shows_by_the_term() {
    let disk = disk(1);
    drop(diverged(&disk));
    let (mut wal, found) = Wal::open(disk.clone(), dir(), Index(4), SMALL).unwrap();
    assert_eq!((found.start, found.start_term, indexes(&found)), (Index(4), Some(Term(1)), vec![5]));
    wal.save_mark(&mark(3, 4), &ConfState::default()).unwrap();
    let (_, found) = Wal::open(disk, dir(), Index(4), SMALL).unwrap();
    assert_eq!((found.start_term, found.entries, found.hard_state.commit), (Some(Term(3)), vec![], Index(4)));
}

#[test]
fn a_mark_against_a_committed_entry_is_a_fault_and_writes_nothing() {
    let disk = disk(1);
    let mut wal = diverged(&disk);
    let refused = wal.save_mark(&mark(3, 2), &ConfState::default());
    assert!(refused.unwrap_err().to_string().contains("entry 2 of term 1 is committed, but a mark has it of term 3"));
    wal.append(None, &[entry(1, 6, b"more")]).unwrap();
    assert_eq!(indexes(&open(&disk).unwrap().1), [1, 2, 3, 4, 5, 6]);
}

#[test]
#[should_panic(expected = "would come before the log's beginning")]
fn what_a_mark_stands_for_is_never_written_again() {
    let mut wal = diverged(&disk(1));
    wal.save_mark(&mark(3, 4), &ConfState::default()).unwrap();
    let _ = wal.append(None, &[entry(4, 4, b"")]);
}

#[test]
fn segments_of_before_are_released_even_where_their_names_go_back_and_kept_on_request() {
    let filled = |options| {
        let disk = disk(1);
        drop(long_log(&disk, 20));
        let (mut wal, _) = Wal::open(disk.clone(), dir(), Index(0), options).unwrap();
        // Not committed: 19 and 20. The names of the next segments begin below those of the last.
        wal.append(None, &(21..=24).map(|index| entry(1, index, &[7; 1500])).collect::<Vec<_>>()).unwrap();
        wal.save_mark(&mark(5, 21), &ConfState::default()).unwrap();
        for index in 22..=30 {
            wal.append(Some(&state(5, index)), &[entry(5, index, &[9; 1500])]).unwrap();
        }
        wal.sync().unwrap();
        (disk, wal)
    };
    let (disk, mut wal) = filled(SMALL);
    assert!(released(&disk, &mut wal, 21) > 0);
    for upto in [21, 24, 27, 30] {
        released(&disk, &mut wal, upto);
        let (_, found) = Wal::open(disk.clone(), dir(), Index(upto), SMALL).unwrap();
        assert_eq!((indexes(&found), found.start_term), ((upto + 1..=30).collect(), Some(Term(5))), "from {upto}");
    }
    assert!(paths(&disk).len() <= 2, "the open one, and that of entry 30");

    let keep_all = Options { keep_all: true, ..SMALL };
    let (disk, mut wal) = filled(keep_all);
    let before = paths(&disk).len();
    assert_eq!((released(&disk, &mut wal, 30), paths(&disk).len()), (0, before));
    let (_, found) = Wal::open(disk, dir(), Index(0), keep_all).unwrap();
    assert_eq!((found.start, indexes(&found)), (Index(21), (22..=30).collect()));
}
