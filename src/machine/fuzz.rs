//! Any commands, one after the other, on a live machine: none makes it panic, and what it holds is the same however they come.

use super::{
    AlarmAction, AlarmKind, Applied, Command, Compare, CompareResult, CompareTarget, DeleteRange, Machine, Op, Outcome,
    Put, RequestId, Settings, Txn, codec,
};
use crate::{
    auth::{self, Author, Permission, Request},
    engine::{Batch, Engine, Memory, Table},
    membership::{Change, Changes, Member},
    mvcc::{EventKind, KeyValue, RangeQuery, SortOrder, SortTarget},
    types::{Entry, EntryKind, Index, Key, KeyRange, LeaseId, MemberId, Revision, Term},
};
use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

/// Entries of one log.
const ENTRIES_MAX: usize = 60;
/// Transactions within transactions, and steps of one.
const DEPTH_MAX: u32 = 3;
const OPS_MAX: usize = 3;

/// Applies the log that `data` is.
pub(crate) fn target(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let (mut log, mut index) = (Vec::new(), Index(0));
    while !u.is_empty() && log.len() < ENTRIES_MAX {
        let Ok((kind, data)) = entry(&mut u) else { break };
        index = index.next();
        log.push(Entry { term: Term(index.0 / 8 + 1), index, kind, data });
    }
    let mut one = Watched::new();
    log.iter().for_each(|entry| one.apply(entry.clone()));
    let facts = facts(&one.machine);
    in_other_steps(&log, data, &one.outcome, &facts);
    // What a member finds when it starts, and what one that lagged behind gets.
    assert_eq!(self::facts(&open(&one.engine)), facts, "after a restart");
    let mut lagged = open(&(Arc::new(Memory::default()) as Arc<dyn Engine>));
    lagged.replace(one.engine.clone()).expect("memory");
    assert_eq!(self::facts(&lagged), facts, "after a snapshot");
}

fn open(engine: &Arc<dyn Engine>) -> Machine {
    Machine::open(engine.clone(), Settings::default()).expect("memory")
}

/// A second machine gets the log in larger pieces, with a sweep between them.
fn in_other_steps(log: &[Entry], data: &[u8], expected: &Outcome, facts: &Facts) {
    let mut other = open(&(Arc::new(Memory::default()) as Arc<dyn Engine>));
    let mut all = Outcome::default();
    let (mut rest, mut sizes) = (log, data.iter().rev().cycle());
    while !rest.is_empty() {
        let size = usize::from(sizes.next().copied().unwrap_or(0) % 7 + 1).min(rest.len());
        let (now, later) = rest.split_at(size);
        let Outcome { replies, events, effects, hashes } = other.apply(now.to_vec()).expect("memory");
        all.replies.extend(replies);
        all.events.extend(events);
        all.effects.extend(effects);
        all.hashes.extend(hashes);
        for _ in 0..size {
            other.reader().compact_step(1).expect("memory");
        }
        rest = later;
    }
    assert_eq!(&all, expected, "answers, events and hashes depend on the log alone");
    assert_eq!(&self::facts(&other), facts, "so does what is held");
}

/// A machine, and what its events lead to.
struct Watched {
    engine: Arc<dyn Engine>,
    machine: Machine,
    outcome: Outcome,
    mirror: BTreeMap<Key, KeyValue>,
    revision: Revision,
}

impl Watched {
    fn new() -> Watched {
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        let (outcome, mirror) = (Outcome::default(), BTreeMap::new());
        Watched { machine: open(&engine), engine, outcome, mirror, revision: Revision(1) }
    }

    fn apply(&mut self, entry: Entry) {
        let (index, had_data) = (entry.index, !entry.data.is_empty() || entry.kind != EntryKind::Normal);
        let Outcome { replies, events, effects, hashes } = self.machine.apply(vec![entry]).expect("memory");
        assert_eq!((replies.len(), hashes.len()), (usize::from(had_data), 1), "each entry is answered once");
        for (revision, events) in &events {
            assert_eq!(*revision, self.revision.next(), "revisions have no gap");
            self.revision = *revision;
            for event in events {
                assert_eq!(event.kv.mod_revision, *revision);
                let before = match event.kind {
                    EventKind::Put => self.mirror.insert(event.kv.key.clone(), event.kv.clone()),
                    EventKind::Delete => self.mirror.remove(&event.kv.key),
                };
                assert_eq!(event.prev, before, "an event tells what was there");
            }
        }
        for Applied { result, revision, .. } in &replies {
            assert_eq!(*revision, self.revision, "an answer has the revision of its entry");
            assert!(result.is_ok() || events.is_empty(), "who is refused has changed nothing");
        }
        self.agree(index);
        self.outcome.replies.extend(replies);
        self.outcome.events.extend(events);
        self.outcome.effects.extend(effects);
        self.outcome.hashes.extend(hashes);
    }

    /// Index, rows, leases and counts tell of the same keys.
    fn agree(&self, index: Index) {
        let (reader, view) = (self.machine.reader(), self.machine.view());
        assert_eq!((view.applied().0, reader.current()), (index, self.revision));
        let all = reader.range(&RangeQuery::default()).expect("memory").expect("the current revision");
        assert!(all.kvs.iter().eq(self.mirror.values()), "{:?} is there, and {:?} was told of", all.kvs, self.mirror);
        let only_counted = RangeQuery { count_only: true, ..RangeQuery::default() };
        let counted = reader.range(&only_counted).expect("memory").expect("the current revision");
        assert_eq!((all.count, counted.count), (all.kvs.len() as i64, all.kvs.len() as i64));
        assert_eq!(reader.keys_total(), all.kvs.len(), "the index has the keys that are there");
        let live_bytes = self.mirror.values().map(|kv| (kv.key.len() + kv.value.len()) as u64).sum::<u64>();
        assert_eq!(view.live_bytes(), live_bytes);
        for id in view.leases() {
            let keys = self.mirror.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone());
            assert_eq!(view.lease(id).expect("listed").keys, keys.collect::<Vec<_>>(), "keys of lease {id}");
        }
        let lost = self.mirror.values().find(|kv| kv.lease != LeaseId::NONE && !view.has_lease(kv.lease));
        assert!(lost.is_none(), "{lost:?} belongs to a lease that does not exist");
    }
}

/// All that one can ask of a machine, as text.
type Facts = Vec<String>;

fn facts(machine: &Machine) -> Facts {
    let (view, reader) = (machine.view(), machine.reader());
    let leases: Vec<_> = view.leases().into_iter().map(|id| (id, view.lease(id))).collect();
    let kvs = reader.range(&RangeQuery::default()).expect("memory").expect("the current revision");
    let hash_kv = reader.hash_kv(Revision(0)).expect("memory").expect("the current revision");
    vec![
        format!("{:?} {:?} {:?} {hash_kv:?}", view.applied(), view.state_hash(), reader.compacted()),
        format!("{} {:?} {leases:?}", view.live_bytes(), view.alarms(None)),
        format!("{kvs:?}"),
        format!("{:?} {:?} {:?}", view.members(), view.removed(), view.conf_state()),
        format!("{:?} {:?} {} {}", view.cluster_version(), view.downgrade(), view.auth_enabled(), view.auth_revision()),
    ]
}

/// One entry of the log: most often a command of ours.
fn entry(u: &mut Unstructured<'_>) -> Result<(EntryKind, Bytes)> {
    Ok(match u.int_in_range(0..=31)? {
        0 => (EntryKind::Normal, Bytes::new()),
        1 => (EntryKind::Normal, foreign(u)?),
        2 => (EntryKind::ConfChange, foreign(u)?),
        3 => (EntryKind::ConfChangeV2, foreign(u)?),
        4..=6 => codec::encode_conf_changes(RequestId(u.arbitrary()?), &changes(u)?),
        _ => {
            let (id, author, command) = (RequestId(u.arbitrary()?), author(u)?, command(u)?);
            (EntryKind::Normal, encoded(id, &author, &command))
        }
    })
}

/// Bytes of anybody's. If they are a command, it is one in our words too.
fn foreign(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let len = u.int_in_range(0..=200)?;
    let data = Bytes::copy_from_slice(u.bytes(len.min(u.len()))?);
    if let Ok((id, author, command)) = codec::decode(data.clone()) {
        encoded(id, &author, &command);
    }
    Ok(data)
}

/// A command as the log has it: whoever reads it writes the same.
fn encoded(id: RequestId, author: &Author, command: &Command) -> Bytes {
    let data = codec::encode(id, author, command);
    let (read_id, read_author, read) = codec::decode(data.clone()).expect("a command of ours is readable");
    assert_eq!(codec::encode(read_id, &read_author, &read), data, "{command:?}");
    data
}

fn author(u: &mut Unstructured<'_>) -> Result<Author> {
    Ok(match u.int_in_range(0..=5)? {
        0..=2 => Author::Nobody,
        3 => Author::Member,
        _ => Author::user(&name(u)?, u.int_in_range(1..=9)?),
    })
}

/// Few, so that they meet each other.
fn key(u: &mut Unstructured<'_>) -> Result<Key> {
    const KEYS: [&[u8]; 9] = [b"a", b"b", b"c", b"ab", b"", b"\0", b"\xff", b"\xff\xff", b"b\0"];
    if u.ratio(1, 12)? {
        let len = u.int_in_range(0..=40)?;
        return Ok(Bytes::copy_from_slice(u.bytes(len)?));
    }
    Ok(Bytes::from_static(u.choose(&KEYS)?))
}

fn value(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let len = u.int_in_range(0..=12)?;
    Ok(Bytes::copy_from_slice(u.bytes(len)?))
}

fn range(u: &mut Unstructured<'_>) -> Result<KeyRange> {
    Ok(match u.int_in_range(0..=3)? {
        0 => KeyRange::prefix(key(u)?),
        1 => KeyRange::One(key(u)?),
        _ => KeyRange::from_wire(key(u)?, key(u)?),
    })
}

/// Small ones most often, and now and then any.
fn number(u: &mut Unstructured<'_>) -> Result<i64> {
    if u.ratio(1, 10)? { u.arbitrary() } else { u.int_in_range(-1..=20) }
}

fn lease(u: &mut Unstructured<'_>) -> Result<LeaseId> {
    Ok(LeaseId(if u.ratio(1, 12)? { u.arbitrary()? } else { u.int_in_range(0..=3)? }))
}

fn name(u: &mut Unstructured<'_>) -> Result<String> {
    Ok((*u.choose(&["root", "alice", "bob", "", "root\0"])?).to_owned())
}

fn member(u: &mut Unstructured<'_>) -> Result<MemberId> {
    Ok(MemberId(u.int_in_range(0..=5)?))
}

fn texts(u: &mut Unstructured<'_>) -> Result<Vec<String>> {
    let count = u.int_in_range(0..=2)?;
    (0..count).map(|_| Ok((*u.choose(&["http://a:1", "http://b:1", "", "x"])?).to_owned())).collect()
}

fn version(u: &mut Unstructured<'_>) -> Result<String> {
    Ok((*u.choose(&["3.7.0", "3.6.0", "", "3", "99999.0.0", "3.5.0.1"])?).to_owned())
}

fn command(u: &mut Unstructured<'_>) -> Result<Command> {
    Ok(match u.int_in_range(0..=23)? {
        0..=5 => Command::Put(put(u)?),
        6..=7 => Command::DeleteRange(delete(u)?),
        8..=11 => Command::Txn(txn(u, DEPTH_MAX)?),
        12 => Command::Range(query(u)?),
        13 => Command::Compact { revision: Revision(number(u)?), physical: u.arbitrary()? },
        14..=15 => Command::LeaseGrant { id: lease(u)?, ttl_s: number(u)? },
        16 => Command::LeaseRevoke { id: lease(u)? },
        17 => {
            let count = u.int_in_range(0..=3)?;
            Command::LeaseCheckpoint((0..count).map(|_| Ok((lease(u)?, number(u)?))).collect::<Result<_>>()?)
        }
        18 => Command::Alarm {
            action: *u.choose(&[
                AlarmAction::Get,
                AlarmAction::Activate,
                AlarmAction::Deactivate,
                AlarmAction::Deactivate,
            ])?,
            member: member(u)?,
            kind: *u.choose(&[None, Some(AlarmKind::NoSpace), Some(AlarmKind::Corrupt)])?,
        },
        19 => Command::ClusterVersionSet { version: version(u)? },
        20 => Command::MemberAttributes { member: member(u)?, name: name(u)?, client_urls: texts(u)? },
        21 => Command::DowngradeInfo { enabled: u.arbitrary()?, version: version(u)? },
        _ => Command::Auth(about_users(u)?),
    })
}

fn put(u: &mut Unstructured<'_>) -> Result<Put> {
    let lease = if u.arbitrary()? { lease(u)? } else { LeaseId::NONE };
    Ok(Put {
        key: key(u)?,
        value: value(u)?,
        lease,
        prev_kv: u.arbitrary()?,
        ignore_value: u.ratio(1, 8)?,
        ignore_lease: u.ratio(1, 8)?,
    })
}

fn delete(u: &mut Unstructured<'_>) -> Result<DeleteRange> {
    Ok(DeleteRange { range: range(u)?, prev_kv: u.arbitrary()? })
}

fn query(u: &mut Unstructured<'_>) -> Result<RangeQuery> {
    let plain = RangeQuery {
        limit: number(u)?,
        revision: Revision(if u.arbitrary()? { number(u)? } else { 0 }),
        ..RangeQuery::new(range(u)?)
    };
    if u.arbitrary()? {
        return Ok(plain);
    }
    let targets = [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
    Ok(RangeQuery {
        order: *u.choose(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend])?,
        target: *u.choose(&targets)?,
        keys_only: u.arbitrary()?,
        count_only: u.arbitrary()?,
        min_mod: number(u)?,
        max_mod: number(u)?,
        min_create: number(u)?,
        max_create: number(u)?,
        ..plain
    })
}

fn compare(u: &mut Unstructured<'_>) -> Result<Compare> {
    let target = match u.int_in_range(0..=4)? {
        0 => CompareTarget::Version(number(u)?),
        1 => CompareTarget::Create(number(u)?),
        2 => CompareTarget::Mod(number(u)?),
        3 => CompareTarget::Value(value(u)?),
        _ => CompareTarget::Lease(number(u)?),
    };
    let results = [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
    Ok(Compare { range: range(u)?, target, result: *u.choose(&results)? })
}

fn txn(u: &mut Unstructured<'_>, depth: u32) -> Result<Txn> {
    let ops = |u: &mut Unstructured<'_>| {
        let count = u.int_in_range(0..=OPS_MAX)?;
        (0..count).map(|_| op(u, depth)).collect::<Result<Vec<_>>>()
    };
    let (success, failure) = (ops(u)?, ops(u)?);
    let count = u.int_in_range(0..=2)?;
    Ok(Txn { compares: (0..count).map(|_| compare(u)).collect::<Result<_>>()?, success, failure })
}

fn op(u: &mut Unstructured<'_>, depth: u32) -> Result<Op> {
    Ok(match u.int_in_range(0..=6)? {
        0..=2 => Op::Put(put(u)?),
        3 => Op::DeleteRange(delete(u)?),
        4..=5 if depth > 0 => Op::Txn(txn(u, depth - 1)?),
        _ => Op::Range(query(u)?),
    })
}

fn about_users(u: &mut Unstructured<'_>) -> Result<Request> {
    let permission = |u: &mut Unstructured<'_>| {
        let kind = *u.choose(&[auth::Kind::Read, auth::Kind::Write, auth::Kind::ReadWrite])?;
        Ok::<_, arbitrary::Error>(Permission { kind, key: key(u)?, range_end: key(u)? })
    };
    Ok(match u.int_in_range(0..=19)? {
        0..=1 => Request::Enable,
        2 => Request::Disable,
        3 => Request::Status,
        4 => Request::Authenticate { user: name(u)?, prefix: name(u)? },
        5..=7 => Request::UserAdd { name: name(u)?, hash: value(u)?, no_password: u.arbitrary()? },
        8 => Request::UserDelete { name: name(u)? },
        9 => Request::UserGet { name: name(u)? },
        10 => Request::UserList,
        11 => Request::UserChangePassword { name: name(u)?, hash: value(u)? },
        12..=13 => Request::UserGrantRole { user: name(u)?, role: name(u)? },
        14 => Request::UserRevokeRole { user: name(u)?, role: name(u)? },
        15 => Request::RoleAdd { name: name(u)? },
        16 => Request::RoleDelete { name: name(u)? },
        17 => {
            if u.arbitrary()? {
                Request::RoleList
            } else {
                Request::RoleGet { name: name(u)? }
            }
        }
        18 => {
            let permission = if u.ratio(1, 12)? { None } else { Some(permission(u)?) };
            Request::RoleGrantPermission { role: name(u)?, permission }
        }
        _ => Request::RoleRevokePermission { role: name(u)?, key: key(u)?, range_end: key(u)? },
    })
}

fn changes(u: &mut Unstructured<'_>) -> Result<Changes> {
    Ok(match u.int_in_range(0..=4)? {
        0 => Changes::Leave,
        1 => {
            let count = u.int_in_range(0..=3)?;
            let changes = (0..count).map(|_| change(u)).collect::<Result<_>>()?;
            Changes::Joint { changes, auto_leave: u.arbitrary()? }
        }
        _ => Changes::One(change(u)?),
    })
}

fn change(u: &mut Unstructured<'_>) -> Result<Change> {
    Ok(match u.int_in_range(0..=5)? {
        0..=2 => Change::Add(Member {
            id: member(u)?,
            name: name(u)?,
            peer_urls: texts(u)?,
            client_urls: texts(u)?,
            is_learner: u.arbitrary()?,
        }),
        3 => Change::Promote(member(u)?),
        4 => Change::Remove(member(u)?),
        _ => Change::UpdatePeers(member(u)?, texts(u)?),
    })
}

/// Opens a store with any rows, as a member does with a snapshot that is whole: it says what is wrong with it, or can be read.
pub(crate) fn opened(rows: Vec<(Table, Bytes, Bytes)>) {
    let engine: Arc<dyn Engine> = Arc::new(Memory::default());
    let mut batch = Batch::default();
    rows.into_iter().for_each(|(table, key, value)| batch.put(table, key, value));
    engine.write(batch).expect("memory");
    if super::meta_of(&*engine.checkpoint().expect("memory")).is_err() {
        return;
    }
    let Ok(machine) = Machine::open(engine, Settings::default()) else { return };
    // Whoever reads finds rows for what is in the index, or a fault.
    let (reader, view) = (machine.reader(), machine.view());
    if let Ok(Ok(all)) = reader.range(&RangeQuery::default()) {
        assert_eq!((all.kvs.len(), all.count), (reader.keys_total(), reader.keys_total() as i64));
    }
    let _ = (reader.hash_kv(Revision(0)), reader.hash_all(), view.members(), view.lease_terms(), view.alarms(None));
    let steps = std::iter::from_fn(|| reader.compact_step(100).ok().filter(|more| *more)).take(1_000);
    assert!(steps.count() < 1_000, "the sweep does not end");
}

/// The rows of a member that has done a little of everything.
pub(crate) fn rows() -> Vec<(Table, Bytes, Bytes)> {
    let put = |key: &'static str, lease| {
        Command::Put(Put { key: key.into(), value: "value".into(), lease: LeaseId(lease), ..Put::default() })
    };
    let user = Request::UserAdd { name: "root".into(), hash: "hash".into(), no_password: None };
    let alarm = (AlarmAction::Activate, MemberId(1), Some(AlarmKind::NoSpace));
    let commands = [
        Command::LeaseGrant { id: LeaseId(5), ttl_s: 60 },
        put("a", 0),
        put("b", 5),
        put("b", 0),
        Command::DeleteRange(DeleteRange { range: KeyRange::One("a".into()), prev_kv: false }),
        put("c", 5),
        Command::Compact { revision: Revision(3), physical: false },
        Command::ClusterVersionSet { version: "3.7.0".into() },
        Command::Auth(user),
        Command::Auth(Request::RoleAdd { name: "r".into() }),
        Command::Alarm { action: alarm.0, member: alarm.1, kind: alarm.2 },
    ];
    let me = Member { id: MemberId(1), name: "me".into(), ..Member::default() };
    let first = codec::encode_conf_change(RequestId(0), &Change::Add(me));
    let rest =
        commands.iter().map(|command| (EntryKind::Normal, codec::encode(RequestId(1), &Author::Member, command)));
    let entries = std::iter::once(first).chain(rest).zip(1..);
    let entries = entries.map(|((kind, data), index)| Entry { term: Term(1), index: Index(index), kind, data });
    let engine: Arc<dyn Engine> = Arc::new(Memory::default());
    open(&engine).apply(entries.collect()).expect("memory");
    let mut rows = Vec::new();
    for table in Table::ALL {
        let mut each = |key: &[u8], value| {
            rows.push((table, Bytes::copy_from_slice(key), value));
            ControlFlow::Continue(())
        };
        engine.scan(table, (Bound::Unbounded, Bound::Unbounded), &mut each).expect("memory");
    }
    rows
}

/// Random ones: what is in them follows from the code above.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    [60, 200, 200, 600, 600, 1_500].map(|len| (0..len).map(|_| byte()).collect()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the seeds come to: a target that refuses everything would find nothing.
    #[test]
    fn the_seeds_write_read_and_are_refused() {
        let (mut done, mut refused) = (0, Vec::<crate::types::Error>::new());
        for seed in seeds() {
            let (mut u, mut watched) = (Unstructured::new(&seed), Watched::new());
            while !u.is_empty() {
                let Ok((kind, data)) = entry(&mut u) else { break };
                let index = watched.machine.applied().0.next();
                watched.apply(Entry { term: Term(1), index, kind, data });
            }
            for applied in watched.outcome.replies {
                match applied.result {
                    Ok(_) => done += 1,
                    Err(error) => refused.push(error),
                }
            }
        }
        refused.dedup();
        assert!(done > 20 && refused.len() > 5, "{done} done, {refused:?}");
    }

    #[test]
    fn the_rows_of_a_member_are_a_whole_store() {
        let rows = rows();
        assert!(Table::ALL.iter().all(|table| rows.iter().any(|(of, ..)| of == table)), "each table has some");
        opened(rows);
    }
}
