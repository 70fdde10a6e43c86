//! Golden tests: scripts of a small cluster, with the trace that each command leaves.
//!
//! A script in `testdata/` is a list of commands, each a line that begins with `> `, followed by what happened. Lines with `#` are
//! comments. `HENGE_REWRITE=1` writes the traces anew, to be read before they are committed.
//!
//! ```text
//! members N [pre_vote=off] [check_quorum=off] [inflight=N] [append=BYTES] [uncommitted=BYTES]
//! tick M [N]       campaign M       propose M TEXT...       read M ID        widen M        tell M
//! sync M          what M has handed out reaches its disk; then what had to wait for that is sent
//! deliver [A>B]   what is on the way (from A to B) arrives, in order      drop [A>B]   it is lost
//! repeat [A>B]    it is on the way twice                                  reverse      the last comes first
//! settle          all disks and deliveries, until nothing moves           crash M      start M       status M       log M
//! change M STEP [STEP...] [stay]     STEP is voter:N, learner:N or remove:N; several are joint, and `stay` so until `change M leave`
//! join M          a newcomer without a log starts                         release M UPTO     transfer M TO     stall M     unstall M
//! cut M / heal     what M sends, and is sent, is lost                      lead M       M is elected, without a trace
//! take M OTHER    M has OTHER's state, of what that has applied, on its disk, and may take it over
//! ```

use super::{Body, Config, Envelope, Input, LogId, Message, Node, Output, Proposal, ReadId, Restored, Role};
use crate::types::{
    ConfChange, ConfState, ConfStep, ConfStepKind, Entry, EntryKind, HardState, Index, MemberId, SnapshotMeta,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    path::Path,
};

/// What waits for a disk.
#[derive(Default)]
struct Unsynced {
    restore: Option<SnapshotMeta>,
    hard_state: Option<HardState>,
    entries: Vec<Entry>,
    send: Vec<Envelope>,
}

#[derive(Default)]
struct Disk {
    hard_state: HardState,
    /// Where it starts from; entries follow.
    snapshot: SnapshotMeta,
    entries: Vec<Entry>,
}

struct Member {
    /// `None` while it is down.
    node: Option<Node>,
    disk: Disk,
    unsynced: VecDeque<Unsynced>,
    applied: LogId,
    /// As last told in the trace.
    told: (Role, u64, u64),
}

struct Cluster {
    config: Config,
    members: BTreeMap<u64, Member>,
    on_the_way: VecDeque<(u64, Envelope)>,
    cut: BTreeSet<u64>,
    /// Who votes before the first entry. A newcomer that gets the log from its start knows them too.
    founders: ConfState,
    trace: String,
}

fn id(entry: LogId) -> String {
    format!("{}/{}", entry.index, entry.term)
}

fn entry(entry: &Entry) -> String {
    let at = LogId { index: entry.index, term: entry.term };
    match entry.data.is_empty() {
        true => id(at),
        false => format!("{} {:?}", id(at), String::from_utf8_lossy(&entry.data)),
    }
}

fn list(entries: &[Entry]) -> String {
    entries.iter().map(entry).collect::<Vec<_>>().join(", ")
}

fn message(from: u64, Envelope { to, message: Message { term, body } }: &Envelope) -> String {
    let says = match body {
        Body::PreVote { last } => format!("pre-vote? last={}", id(*last)),
        Body::PreVoteReply { granted } => format!("pre-vote {}", if *granted { "yes" } else { "no" }),
        Body::Vote { last, transfer: false } => format!("vote? last={}", id(*last)),
        Body::Vote { last, transfer: true } => format!("vote! last={}", id(*last)),
        Body::TimeoutNow => "campaign now".to_owned(),
        Body::VoteReply { granted } => format!("vote {}", if *granted { "yes" } else { "no" }),
        Body::Append { prev, entries, commit } => {
            format!("append prev={} [{}] commit={commit}", id(*prev), list(entries))
        }
        Body::AppendAccepted { matched } => format!("accepted upto={matched}"),
        Body::AppendRejected { prev, hint } => format!("rejected prev={prev} hint={}", id(*hint)),
        Body::Heartbeat { commit, round } => format!("heartbeat commit={commit} round={round}"),
        Body::HeartbeatReply { round } => format!("heartbeat heard round={round}"),
        Body::ReadIndex { id } => format!("read? {}", id.0),
        Body::ReadIndexReply { id, index } => match index {
            Some(index) => format!("read {} at {index}", id.0),
            None => format!("read {} refused", id.0),
        },
        Body::Outdated => "outdated".to_owned(),
    };
    format!("{from}>{} term={term} {says}", to.0)
}

fn membership(state: &ConfState) -> String {
    let of = |name: &str, ids: &[MemberId]| match ids.is_empty() {
        true => String::new(),
        false => format!(" {name} {}", ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ")),
    };
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave: _ } = state;
    let all = [of("voters", voters), of("outgoing", voters_outgoing), of("learners", learners)];
    format!("{}{}", all.concat(), of("learners-next", learners_next)).trim_start().to_owned()
}

/// The text of an entry, as `change` takes it.
fn parse_change(text: &str) -> ConfChange {
    let step = |word: &str| {
        let (kind, member) = word.split_once(':').expect("what:whom");
        let kind = match kind {
            "voter" => ConfStepKind::AddVoter,
            "learner" => ConfStepKind::AddLearner,
            "remove" => ConfStepKind::Remove,
            other => panic!("unknown step {other}"),
        };
        ConfStep { kind, member: MemberId(member.parse().expect("a number")) }
    };
    let steps = text.split_whitespace().filter(|word| *word != "stay").map(step).collect::<Vec<_>>();
    match &steps[..] {
        [] => ConfChange::Leave,
        [one] => ConfChange::Simple(*one),
        _ => ConfChange::Joint { steps, auto_leave: !text.ends_with("stay") },
    }
}

impl Cluster {
    fn new(count: u64, options: &[&str]) -> Cluster {
        let mut config = Config {
            id: MemberId(0),
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            check_quorum: true,
            inflight_messages_max: 64,
            inflight_bytes_max: 1 << 20,
            append_bytes_max: 1 << 20,
            uncommitted_bytes_max: 1 << 20,
            sabotage: None,
        };
        for option in options {
            let number = || option.split_once('=').expect("name=value").1.parse::<usize>().expect("a number");
            match option.split_once('=').expect("name=value").0 {
                "pre_vote" => config.pre_vote = false,
                "check_quorum" => config.check_quorum = false,
                "inflight" => config.inflight_messages_max = number(),
                "append" => config.append_bytes_max = number(),
                "uncommitted" => config.uncommitted_bytes_max = number(),
                other => panic!("unknown option {other}"),
            }
        }
        let (members, on_the_way, cut, trace) = Default::default();
        let founders = ConfState { voters: (1..=count).map(MemberId).collect(), ..ConfState::default() };
        let mut cluster = Cluster { config, members, on_the_way, cut, founders, trace };
        (1..=count).for_each(|member| cluster.join(member));
        cluster
    }

    /// Starts a member for the first time.
    fn join(&mut self, member: u64) {
        let snapshot = SnapshotMeta { conf_state: self.founders.clone(), ..SnapshotMeta::default() };
        let disk = Disk { snapshot, ..Disk::default() };
        let (unsynced, applied, told) = (VecDeque::new(), LogId::default(), (Role::Follower, 0, 0));
        self.members.insert(member, Member { node: None, disk, unsynced, applied, told });
        self.start(member);
    }

    fn say(&mut self, text: &str) {
        writeln!(self.trace, "{text}").expect("memory");
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("a member of the cluster")
    }

    fn start(&mut self, id: u64) {
        let config = Config { id: MemberId(id), ..self.config };
        let member = self.member(id);
        let restored = Restored {
            hard_state: member.disk.hard_state,
            snapshot: member.disk.snapshot.clone(),
            conf_state: member.disk.snapshot.conf_state.clone(),
            applied: member.disk.snapshot.index,
            entries: member.disk.entries.clone(),
        };
        member.applied = LogId { index: member.disk.snapshot.index, term: member.disk.snapshot.term };
        let node = Node::new(config, restored, id);
        let status = node.status();
        member.told = (status.role, status.term.0, status.leader.map_or(0, |leader| leader.0));
        member.node = Some(node);
    }

    fn step(&mut self, id: u64, input: Input) {
        let mut out = Output::default();
        // It may be down, or not have started yet.
        let Some(node) = self.members.get_mut(&id).and_then(|member| member.node.as_mut()) else { return };
        node.step(input, &mut out);
        self.act(id, out);
    }

    /// Tells what an output asks for, and puts it where it belongs.
    fn act(&mut self, id: u64, out: Output) {
        self.tell_role(id);
        if let Some(meta) = &out.restore {
            let at = LogId { index: meta.index, term: meta.term };
            self.say(&format!("  {id} starts over from {}", self::id(at)));
            self.member(id).applied = at;
        }
        for envelope in out.send_now {
            self.send(id, envelope);
        }
        let durable = self.members[&id].disk.hard_state;
        let votes = out.hard_state.filter(|state| (state.term, state.vote) != (durable.term, durable.vote));
        if !out.append.is_empty() {
            self.say(&format!("  {id} writes {}", list(&out.append)));
        }
        if let Some(state) = votes {
            let vote = state.vote.map_or("nobody".to_owned(), |vote| vote.0.to_string());
            self.say(&format!("  {id} writes term={} vote={vote}", state.term));
        }
        let member = self.member(id);
        let waits = !out.append.is_empty() || votes.is_some() || !member.unsynced.is_empty() || out.restore.is_some();
        if waits {
            let Output { restore, hard_state, append: entries, send_durable: send, .. } = out;
            let unsynced = Unsynced { restore, hard_state, entries, send };
            member.unsynced.push_back(unsynced);
        } else {
            // A commit index alone needs no sync.
            member.disk.hard_state = out.hard_state.unwrap_or(member.disk.hard_state);
            for envelope in out.send_durable {
                self.send(id, envelope);
            }
        }
        if !out.committed.is_empty() {
            let node = self.members[&id].node.as_ref().expect("it has just made a step");
            let entries = node.entries(out.committed.start, out.committed.end);
            self.say(&format!("  {id} commits {}", list(&entries)));
            self.apply(id, &entries);
        }
        for (read, index) in out.reads {
            self.say(&format!("  {id} may answer read {} at {index}", read.0));
        }
        for read in out.reads_failed {
            self.say(&format!("  {id} cannot answer read {}", read.0));
        }
        if out.proposals_dropped > 0 {
            self.say(&format!("  {id} turns {} away", out.proposals_dropped));
        }
    }

    fn apply(&mut self, id: u64, entries: &[Entry]) {
        for entry in entries {
            self.member(id).applied = LogId { index: entry.index, term: entry.term };
            if entry.kind == EntryKind::Normal {
                continue;
            }
            let change = parse_change(&String::from_utf8_lossy(&entry.data));
            let node = self.member(id).node.as_mut().expect("it has just made a step");
            let now = node.apply_conf_change(entry.index, &change);
            self.say(&format!("  {id} counts {}", membership(&now)));
        }
    }

    fn tell_role(&mut self, id: u64) {
        let member = self.member(id);
        let status = member.node.as_ref().expect("it has just made a step").status();
        let now = (status.role, status.term.0, status.leader.map_or(0, |leader| leader.0));
        if std::mem::replace(&mut member.told, now) != now {
            let leader = if now.2 == 0 { "nobody".to_owned() } else { now.2.to_string() };
            let role = match now.0 {
                Role::Follower => "follows",
                Role::PreCandidate => "asks around,",
                Role::Candidate => "campaigns,",
                Role::Leader => "leads,",
            };
            self.say(&format!("  {id} {role} {leader} in term {}", now.1));
        }
    }

    fn send(&mut self, from: u64, envelope: Envelope) {
        let is_lost = self.cut.contains(&from) || self.cut.contains(&envelope.to.0);
        self.say(&format!("  {}{}", message(from, &envelope), if is_lost { " (lost)" } else { "" }));
        if !is_lost {
            self.on_the_way.push_back((from, envelope));
        }
    }

    fn sync(&mut self, id: u64) {
        let member = self.member(id);
        let (mut last, mut send) = (None, Vec::new());
        for unsynced in std::mem::take(&mut member.unsynced) {
            if let Some(meta) = unsynced.restore {
                (member.disk.snapshot, member.disk.entries) = (meta, Vec::new());
            }
            member.disk.hard_state = unsynced.hard_state.unwrap_or(member.disk.hard_state);
            if let Some(first) = unsynced.entries.first() {
                let kept = first.index.0 - member.disk.snapshot.index.0 - 1;
                member.disk.entries.truncate(usize::try_from(kept).expect("a small log"));
            }
            last = unsynced.entries.last().map(|entry| (entry.index, entry.term)).or(last);
            member.disk.entries.extend(unsynced.entries);
            send.extend(unsynced.send);
        }
        for envelope in send {
            self.send(id, envelope);
        }
        if let Some((upto, term)) = last {
            self.step(id, Input::Persisted { upto, term });
        }
    }

    /// Takes off the way what goes along `path` (`A>B`, or everything).
    fn take(&mut self, path: Option<&str>) -> Vec<(u64, Envelope)> {
        let is_on = |from: u64, to: u64| path.is_none_or(|path| path == format!("{from}>{to}"));
        let all = std::mem::take(&mut self.on_the_way);
        let (taken, rest) = all.into_iter().partition::<Vec<_>, _>(|(from, envelope)| is_on(*from, envelope.to.0));
        self.on_the_way = rest.into();
        taken
    }

    fn deliver(&mut self, path: Option<&str>) {
        for (from, Envelope { to, message }) in self.take(path) {
            self.step(to.0, Input::Received { from: MemberId(from), message });
        }
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            let busy = self.members.iter().find(|(_, member)| !member.unsynced.is_empty()).map(|(id, _)| *id);
            match busy {
                Some(id) => self.sync(id),
                None if self.on_the_way.is_empty() => return,
                None => self.deliver(None),
            }
        }
        panic!("never settles:\n{}", self.trace);
    }

    /// An election that is not the point of the script: everyone who can be reached has waited for long, and votes.
    fn lead(&mut self, id: u64) {
        let reached = self.members.keys().copied().filter(|other| *other != id && !self.cut.contains(other));
        for other in reached.collect::<Vec<_>>() {
            let leads = |node: &Node| node.status().role == Role::Leader;
            let ticks =
                if self.members[&other].node.as_ref().is_some_and(leads) { 0 } else { self.config.election_ticks };
            (0..ticks).for_each(|_| self.step(other, Input::Tick));
        }
        self.on_the_way.clear();
        self.step(id, Input::Campaign);
        self.settle();
        self.trace.clear();
        let term = self.members[&id].node.as_ref().expect("it runs").status();
        assert_eq!(term.role, Role::Leader, "{id} was to be elected");
        self.say(&format!("  {id} leads in term {}", term.term));
    }

    fn run(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let path = words.get(1).copied();
        match words[0] {
            "tick" => (0..words.get(2).map_or(1, |_| number(2))).for_each(|_| self.step(number(1), Input::Tick)),
            "campaign" => self.step(number(1), Input::Campaign),
            "propose" => {
                let one =
                    |text: &&str| Proposal { kind: EntryKind::Normal, data: Bytes::copy_from_slice(text.as_bytes()) };
                self.step(number(1), Input::Propose(words[2..].iter().map(one).collect()));
            }
            "read" => self.step(number(1), Input::ReadIndex(ReadId(number(2)))),
            "widen" => self.step(number(1), Input::Widen),
            "tell" => self.step(number(1), Input::TellCommit),
            "sync" => self.sync(number(1)),
            "deliver" => self.deliver(path),
            "drop" => drop(self.take(path)),
            "repeat" => {
                let again = self.take(path);
                self.on_the_way.extend(again.iter().cloned().chain(again.iter().cloned()));
            }
            "reverse" => self.on_the_way.make_contiguous().reverse(),
            "settle" => self.settle(),
            "lead" => self.lead(number(1)),
            "cut" => drop(self.cut.insert(number(1))),
            "heal" => self.cut.clear(),
            "crash" => {
                let member = self.member(number(1));
                member.node = None;
                member.unsynced.clear();
            }
            "start" => self.start(number(1)),
            "change" => {
                let text = words[2..].join(" ");
                let kind = if words.len() == 3 { EntryKind::ConfChange } else { EntryKind::ConfChangeV2 };
                let data = if text == "leave" { Bytes::new() } else { Bytes::from(text) };
                self.step(number(1), Input::Propose(vec![Proposal { kind, data }]));
            }
            "join" => self.join(number(1)),
            "release" => {
                self.member(number(1)).node.as_mut().expect("it runs").release(Index(number(2)));
            }
            "take" => {
                let other = &self.members[&number(2)];
                let conf_state = other.node.as_ref().expect("it runs").members().conf_state();
                let LogId { index, term } = other.applied;
                self.step(number(1), Input::Restore(SnapshotMeta { index, term, conf_state }));
            }
            "transfer" => self.step(number(1), Input::Transfer(MemberId(number(2)))),
            "stall" => self.step(number(1), Input::DiskStalled(true)),
            "unstall" => self.step(number(1), Input::DiskStalled(false)),
            "status" => {
                let node = self.members[&number(1)].node.as_ref().expect("it runs");
                let status = node.status();
                let told = format!(
                    "  term={} commit={} durable={} log={}..={}/{}{}{}",
                    status.term,
                    status.commit,
                    status.durable,
                    status.first_index,
                    status.last_index,
                    status.last_term,
                    if status.confirmed { " confirmed" } else { "" },
                    status.transferee.map(|to| format!(" handing over to {}", to.0)).unwrap_or_default(),
                );
                let followers = node.followers().into_iter();
                let followers = followers.map(|f| format!("  {} {:?} matched={}", f.id.0, f.phase, f.matched));
                let told = std::iter::once(told).chain(followers).collect::<Vec<_>>().join("\n");
                self.say(&told);
            }
            "log" => {
                let node = self.members[&number(1)].node.as_ref().expect("it runs");
                let status = node.status();
                let told = format!("  {}", list(&node.entries(status.first_index, status.last_index.next())));
                self.say(&told);
            }
            other => panic!("unknown command {other}"),
        }
    }
}

/// The script with the traces that its commands leave now.
fn play(script: &str) -> String {
    let (mut cluster, mut played) = (Cluster::new(1, &[]), String::new());
    for line in script.lines() {
        match line.strip_prefix("> ") {
            Some(command) => {
                let words = command.split_whitespace().collect::<Vec<_>>();
                if words[0] == "members" {
                    cluster = Cluster::new(words[1].parse().expect("a number"), &words[2..]);
                } else {
                    cluster.run(&words);
                }
                writeln!(played, "{line}\n{}", std::mem::take(&mut cluster.trace).trim_end()).expect("memory");
            }
            None if line.starts_with('#') => writeln!(played, "{line}").expect("memory"),
            // The old trace.
            None => {}
        }
    }
    // A command without a trace leaves no empty line.
    played.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_scripts_leave_their_traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/testdata");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the scripts") {
        let path = file.expect("a script").path();
        let script = std::fs::read_to_string(&path).expect("a script");
        let played = play(&script);
        count += 1;
        if std::env::var_os("HENGE_REWRITE").is_some() {
            std::fs::write(&path, played).expect("a script");
            continue;
        }
        for (at, (expected, found)) in script.lines().zip(played.lines()).enumerate() {
            assert_eq!(found, expected, "{}:{}\nplayed:\n{played}", path.display(), at + 1);
        }
        assert_eq!(played.lines().count(), script.lines().count(), "{}\nplayed:\n{played}", path.display());
    }
    assert!(count >= 35, "only {count} scripts");
}
