//! A backend without consensus: what is proposed is applied at once, to a real machine over a store in memory.

use crate::{
    auth::{Author, COST_MIN, SimpleTokens},
    engine::{Batch, Checkpoint, Engine, Memory, Size, Table},
    machine::{self, AlarmKind, Applied, Command, Effect, Machine, Reply, RequestId, Txn, TxnReply, codec},
    membership::{Change, Member},
    mvcc::{HashKv, RangeQuery, RangeResult, Reader},
    server::{
        AuthSettings, Backend, Downgrade, Header, Keeper, LeaseLeft, Listed, Means, Pinned, Rules, Status, Ticket,
        Trace, downgrade, read_txn,
        reconfig::{self, Situation},
    },
    types::{ClusterId, Entry, EntryKind, Error, Fault, KeyRange, LeaseId, MemberId, Revision, Term},
    watch::{self as hub, Hub},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, ControlFlow},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::watch;

/// The least engine that there can be.
#[derive(Default)]
struct Rows(RwLock<BTreeMap<(Table, Bytes), Bytes>>);

impl Engine for Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.read().get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let own = |bound: Bound<&[u8]>| bound.map(|key| (table, Bytes::copy_from_slice(key)));
        let from = if from == Bound::Unbounded { Bound::Included((table, Bytes::new())) } else { own(from) };
        let rows = self.0.read();
        let mut rows = rows.range((from, own(to))).take_while(|((of, _), _)| *of == table);
        let _ = rows.try_for_each(|((_, key), value)| visit(key, value.clone()));
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut rows = self.0.write();
        for (table, key, value) in batch.ops {
            match value {
                Some(value) => rows.insert((table, key), value),
                None => rows.remove(&(table, key)),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, Fault> {
        let copy = Memory::default();
        let ops =
            self.0.read().iter().map(|((table, key), value)| (*table, key.clone(), Some(value.clone()))).collect();
        copy.write(Batch { ops })?;
        copy.checkpoint()
    }

    fn size(&self) -> Result<Size, Fault> {
        Ok(Size { file_bytes: 8192, used_bytes: 4096 })
    }
}

/// See the module. What a test may turn is public.
#[derive(Clone)]
pub(crate) struct TestBackend {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Rows>,
    machine: Mutex<Machine>,
    reader: Reader,
    view: machine::View,
    hub: Hub,
    leader: watch::Sender<Option<MemberId>>,
    stopping: watch::Sender<bool>,
    fault: Mutex<Option<String>>,
    is_learner: AtomicBool,
    next_lease: AtomicI64,
    connected: Mutex<BTreeSet<MemberId>>,
    ready: AtomicBool,
    refusal: Mutex<Option<Error>>,
    refusal_of_reads: Mutex<Option<Error>>,
    late: Mutex<Option<Command>>,
    keeper: Keeper,
    proofs: Arc<Proofs>,
}

/// Tokens that live for as long as the test.
struct Proofs {
    tokens: SimpleTokens,
    chance: AtomicI64,
    changed: watch::Sender<u64>,
}

impl Means for Arc<Proofs> {
    fn token(&self, token: &str) -> Option<(Arc<str>, u64)> {
        self.tokens.find(token, Duration::ZERO)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(1_700_000_000)
    }

    fn chance(&self) -> u64 {
        (self.chance.fetch_add(1, Relaxed) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

pub(crate) const ME: MemberId = MemberId(0x8e9e05c52164694d);
const CLUSTER: ClusterId = ClusterId(0xcdf818194e3a8c32);
const TERM: Term = Term(2);
const TTL_MIN_S: i64 = 2;

impl TestBackend {
    pub(crate) fn new() -> TestBackend {
        TestBackend::with_hub(hub::Options::default())
    }

    pub(crate) fn with_hub(options: hub::Options) -> TestBackend {
        let engine = Arc::new(Rows::default());
        let machine = Machine::open(engine.clone(), machine::Settings::default()).unwrap();
        let (reader, view) = (machine.reader(), machine.view());
        let hub = Hub::new(reader.clone(), options);
        let proofs = Arc::new(Proofs {
            tokens: SimpleTokens::new(Duration::from_secs(300)),
            chance: AtomicI64::new(1),
            changed: watch::Sender::new(0),
        });
        let settings = AuthSettings { bcrypt_cost: COST_MIN, jwt: None, names_are_users: true };
        let keeper = Keeper::new(view.clone(), Arc::clone(&proofs), settings);
        let shared = Shared {
            keeper,
            proofs,
            engine,
            machine: Mutex::new(machine),
            reader,
            view,
            hub,
            leader: watch::Sender::new(Some(ME)),
            stopping: watch::Sender::new(false),
            fault: Mutex::new(None),
            is_learner: AtomicBool::new(false),
            next_lease: AtomicI64::new(0x1000),
            connected: Mutex::default(),
            ready: AtomicBool::new(true),
            refusal: Mutex::default(),
            refusal_of_reads: Mutex::default(),
            late: Mutex::default(),
        };
        let backend = TestBackend { shared: Arc::new(shared) };
        backend.found();
        backend
    }

    /// A cluster of this member alone.
    fn found(&self) {
        let peer_urls = vec!["http://localhost:2380".to_owned()];
        self.change(&Change::Add(Member { id: ME, peer_urls, ..Member::default() })).expect("the first member");
        let client_urls = vec!["http://localhost:2379".to_owned()];
        let commands = [
            Command::MemberAttributes { member: ME, name: "m1".to_owned(), client_urls },
            Command::ClusterVersionSet { version: "3.7.0".to_owned() },
        ];
        for command in commands {
            let data = codec::encode(RequestId(1), &Author::Member, &command);
            self.apply(EntryKind::Normal, data).expect("applied").result.expect("accepted");
        }
    }

    pub(crate) fn set_leader(&self, leader: Option<MemberId>) {
        self.shared.leader.send_replace(leader);
    }

    pub(crate) fn set_stopping(&self) {
        self.shared.stopping.send_replace(true);
    }

    pub(crate) fn set_learner(&self, is_learner: bool) {
        self.shared.is_learner.store(is_learner, Relaxed);
    }

    pub(crate) fn set_fault(&self, fault: &str) {
        *self.shared.fault.lock() = Some(fault.to_owned());
    }

    /// Says that another member is connected, for long enough.
    pub(crate) fn connect(&self, id: MemberId) {
        self.shared.connected.lock().insert(id);
    }

    /// Says whether learners have caught up.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Relaxed);
    }

    /// Answers linearizable reads, and what is proposed, with this from now on.
    pub(crate) fn set_refusal(&self, refusal: Option<Error>) {
        *self.shared.refusal.lock() = refusal;
    }

    /// Answers linearizable transactions that only read with this from now on, and takes what is proposed.
    pub(crate) fn set_refusal_of_reads(&self, refusal: Option<Error>) {
        *self.shared.refusal_of_reads.lock() = refusal;
    }

    /// What was agreed on with other members, and is known here once this one is level with them.
    pub(crate) fn set_late(&self, command: Command) {
        *self.shared.late.lock() = Some(command);
    }

    fn judge(&self, verdict: impl FnOnce(Rules, &Situation<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let connected = self.shared.connected.lock().clone();
        let connected_for = |id| connected.contains(&id).then_some(Duration::from_secs(60));
        let members = self.shared.view.members();
        verdict(Rules::default(), &Situation { members: &members, own: ME, connected_for: &connected_for })
    }

    fn change(&self, change: &Change) -> Result<Vec<Member>, Error> {
        let (kind, data) = codec::encode_conf_change(RequestId(1), change);
        match self.apply(kind, data)?.result? {
            Reply::Members(members) => Ok(members),
            other => unreachable!("changes of membership are answered with members: {other:?}"),
        }
    }

    fn apply(&self, kind: EntryKind, data: Bytes) -> Result<Applied, Error> {
        let mut machine = self.shared.machine.lock();
        let index = machine.applied().0.next();
        let outcome =
            machine.apply(vec![Entry { term: TERM, index, kind, data }]).map_err(|fault| self.report(fault))?;
        let Proofs { tokens, changed, .. } = &*self.shared.proofs;
        for effect in outcome.effects {
            match effect {
                Effect::TokenIssued { token, user, revision } => tokens.issued(&token, &user, revision, Duration::ZERO),
                Effect::AuthDisabled => tokens.end_all(),
                Effect::AuthChanged => drop(changed.send_replace(self.shared.view.auth_stamp())),
                _ => {}
            }
        }
        self.shared.hub.publish(outcome.events, self.shared.reader.current());
        Ok(outcome.replies.into_iter().next().expect("each command is answered"))
    }

    fn confirm(&self, serializable: bool) -> Result<(), Error> {
        if serializable {
            return Ok(());
        }
        if let Some(refusal) = self.shared.refusal.lock().clone() {
            return Err(refusal);
        }
        if self.shared.leader.borrow().is_none() { Err(Error::Timeout) } else { Ok(()) }
    }

    fn answered<T>(&self, result: Result<Result<T, Error>, Fault>) -> Result<T, Error> {
        result.map_err(|fault| self.report(fault))?
    }
}

impl Backend for TestBackend {
    fn keeper(&self) -> &Keeper {
        &self.shared.keeper
    }

    async fn level(&self) -> Result<(), Error> {
        self.confirm(false)?;
        let late = self.shared.late.lock().take();
        if let Some(command) = late {
            self.apply(EntryKind::Normal, codec::encode(RequestId(1), &Author::Member, &command))?.result?;
        }
        Ok(())
    }

    fn header(&self) -> Header {
        Header { cluster_id: CLUSTER, member_id: ME, revision: self.shared.reader.current(), term: TERM }
    }

    async fn range(
        &self,
        query: RangeQuery,
        serializable: bool,
        mut ticket: Ticket,
        _: &Trace<'_>,
    ) -> Result<(RangeResult, Ticket), Error> {
        self.confirm(serializable)?;
        let result = self.answered(self.shared.reader.range_within(&query, &mut ticket))?;
        Ok((result, ticket))
    }

    async fn list(
        &self,
        query: RangeQuery,
        serializable: bool,
        mut ticket: Ticket,
        _: &Trace<'_>,
    ) -> Result<(Listed, Ticket), Error> {
        self.confirm(serializable)?;
        let listed = self.answered(Listed::read(&self.shared.reader, &query, &mut ticket))?;
        Ok((listed, ticket))
    }

    async fn pin(&self, _: &KeyRange, revision: Revision, serializable: bool) -> Result<Pinned, Error> {
        self.confirm(serializable)?;
        Ok(Pinned { pin: self.shared.reader.pin(revision)?, reader: self.shared.reader.clone() })
    }

    async fn txn_read(
        &self,
        txn: &Txn,
        serializable: bool,
        mut ticket: Ticket,
        _: &Trace<'_>,
    ) -> Result<(TxnReply, Revision, Ticket), Error> {
        self.confirm(serializable)?;
        if let Some(refusal) = self.shared.refusal_of_reads.lock().clone().filter(|_| !serializable) {
            return Err(refusal);
        }
        let (reply, revision) = self.answered(read_txn(&self.shared.reader, txn, &mut ticket))?;
        Ok((reply, revision, ticket))
    }

    async fn propose(&self, author: &Author, command: Command, _: &Trace<'_>) -> Result<Applied, Error> {
        self.confirm(false)?;
        // Whatever is not zero: nobody else waits here.
        self.apply(EntryKind::Normal, codec::encode(RequestId(1), author, &command))
    }

    async fn compacted(&self, _: Revision) -> Result<(), Error> {
        while self.shared.reader.compact_step(100).map_err(|fault| self.report(fault))? {}
        Ok(())
    }

    async fn lease_grant(&self, author: &Author, id: LeaseId, ttl_s: i64, trace: &Trace<'_>) -> Result<Applied, Error> {
        let id = if id == LeaseId::NONE { LeaseId(self.shared.next_lease.fetch_add(1, Relaxed)) } else { id };
        self.propose(author, Command::LeaseGrant { id, ttl_s: ttl_s.max(TTL_MIN_S) }, trace).await
    }

    async fn lease_keep_alive(&self, ids: Vec<LeaseId>) -> Result<Vec<Option<i64>>, Error> {
        self.confirm(false)?;
        Ok(ids.into_iter().map(|id| self.shared.view.lease(id).map(|lease| lease.ttl_s)).collect())
    }

    async fn lease_left(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseLeft>, Error> {
        self.confirm(false)?;
        Ok(self.shared.view.lease(id).map(|lease| LeaseLeft {
            granted_s: lease.ttl_s,
            remaining_s: lease.remaining_s,
            keys: if keys { lease.keys } else { Vec::new() },
        }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.shared.view.leases())
    }

    async fn members(&self, serializable: bool) -> Result<Vec<Member>, Error> {
        self.confirm(serializable)?;
        Ok(self.shared.view.members())
    }

    async fn member_add(&self, peer_urls: Vec<String>, is_learner: bool) -> Result<(Member, Vec<Member>), Error> {
        self.confirm(false)?;
        // The clock stands still here.
        let member = reconfig::new_member(peer_urls, is_learner, 1_700_000_000);
        self.judge(|rules, now| rules.may_add(now, &member))?;
        let members = self.change(&Change::Add(member.clone()))?;
        Ok((member, members))
    }

    async fn member_remove(&self, id: MemberId) -> Result<Vec<Member>, Error> {
        self.confirm(false)?;
        self.judge(|rules, now| rules.may_remove(now, id))?;
        self.change(&Change::Remove(id))
    }

    async fn member_update(&self, id: MemberId, peer_urls: Vec<String>) -> Result<Vec<Member>, Error> {
        self.confirm(false)?;
        self.change(&Change::UpdatePeers(id, peer_urls))
    }

    async fn member_promote(&self, id: MemberId) -> Result<Vec<Member>, Error> {
        self.confirm(false)?;
        self.judge(|rules, now| rules.may_promote(now, id))?;
        if !self.shared.ready.load(Relaxed) {
            return Err(Error::LearnerNotReady);
        }
        self.change(&Change::Promote(id))
    }

    async fn move_leader(&self, to: MemberId) -> Result<(), Error> {
        if *self.shared.leader.borrow() != Some(ME) {
            return Err(Error::NotLeader);
        }
        reconfig::may_lead(&self.shared.view.members(), to)?;
        self.set_leader(Some(to));
        Ok(())
    }

    async fn downgrade(&self, what: Downgrade) -> Result<String, Error> {
        let view = &self.shared.view;
        let version = view.cluster_version();
        if let Some(command) = downgrade::command(what, version.as_deref(), view.downgrade().as_deref())? {
            self.propose(&Author::Member, command, &Trace::of_none()).await?.result?;
        }
        Ok(downgrade::spoken(version))
    }

    fn alarms(&self) -> Vec<(MemberId, AlarmKind)> {
        self.shared.view.alarms(None)
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Error> {
        self.answered(self.shared.reader.hash_kv(revision))
    }

    async fn hash_all(&self) -> Result<u32, Error> {
        self.shared.reader.hash_all().map_err(|fault| self.report(fault))
    }

    async fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, Error> {
        self.shared.engine.checkpoint().map_err(|fault| self.report(fault))
    }

    async fn defragment(&self) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self) -> Status {
        let applied = self.shared.view.applied().0;
        Status {
            leader: *self.shared.leader.borrow(),
            term: TERM,
            committed: applied,
            applied,
            is_learner: self.is_learner(),
            size: self.shared.view.measure().unwrap_or_default(),
            quota_bytes: 2 << 30,
            downgrade_to: self.shared.view.downgrade(),
        }
    }

    fn is_learner(&self) -> bool {
        self.shared.is_learner.load(Relaxed)
    }

    fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    fn leader(&self) -> watch::Receiver<Option<MemberId>> {
        self.shared.leader.subscribe()
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.shared.stopping.subscribe()
    }

    fn fault(&self) -> Option<String> {
        self.shared.fault.lock().clone()
    }

    fn report(&self, fault: Fault) -> Error {
        self.set_fault(&fault.to_string());
        Error::Faulted(fault.to_string())
    }
}
