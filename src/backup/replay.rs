//! What etcd's log has after its database, applied as etcd applied it.
//!
//! The machine decides as etcd does, but for who may do what: it lets a user's entry pass that etcd refuses because any user or role has
//! changed in between, and asks for root where etcd asks nobody. Clients were told what etcd had decided. So while users count, it is
//! decided here by etcd's own rule: an entry that etcd let pass is handed on as that of a member, whom nobody asks, and one that it
//! refused as one that does nothing.

use crate::{
    auth::Author,
    engine::Engine,
    machine::{self, Command, Machine, View, codec},
    types::{Entry, EntryKind, Fault},
};
use bytes::Bytes;
use std::sync::Arc;

/// Entries that are applied between two flushes.
const APPLY_ENTRIES: usize = 1_000;

/// Applies `entries`, which have been translated, to the store.
pub(super) fn replay(engine: &Arc<dyn Engine>, entries: &[Entry]) -> Result<Machine, Fault> {
    let mut machine =
        Machine::open(Arc::clone(engine), machine::Settings { quota_bytes: -1, ..machine::Settings::default() })?;
    for batch in entries.chunks(APPLY_ENTRIES) {
        for entry in batch {
            // One by one: who may do what depends on all before.
            machine.apply(vec![decided(&machine.view(), entry)])?;
        }
        engine.flush()?;
    }
    Ok(machine)
}

/// Whether a translated entry changes users, roles, or whether they count.
pub(super) fn is_about_users(entry: &Entry) -> bool {
    entry.kind == EntryKind::Normal
        && matches!(codec::decode(entry.data.clone()), Ok((_, _, Command::Auth(request))) if request.is_change())
}

/// The entry, if users count, as one of which the machine makes what etcd made of it.
fn decided(view: &View, entry: &Entry) -> Entry {
    if entry.kind != EntryKind::Normal || entry.data.is_empty() || !view.auth_enabled() {
        return entry.clone();
    }
    let Ok((id, author, command)) = codec::decode(entry.data.clone()) else { return entry.clone() };
    let data = match etcd_permits(view, &author, &command) {
        true => codec::encode(id, &Author::Member, &command),
        false => Bytes::new(),
    };
    Entry { data, ..entry.clone() }
}

/// What etcd (3.4 to 3.7) answers when it applies a command while users count.
fn etcd_permits(view: &View, author: &Author, command: &Command) -> bool {
    // Users that were known before a change of any of them have to come again, but root may always change them.
    let is_current = match author {
        Author::Nobody | Author::Proxy => false,
        Author::Member => true,
        Author::User { revision, .. } => *revision >= view.auth_revision(),
    };
    // Since when the author is known has just been looked at, or does not matter.
    let author = match author {
        Author::User { name, .. } => &Author::user(name, u64::MAX),
        other => other,
    };
    let may = || view.authorize(author, command).is_ok();
    match command {
        Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) | Command::Range(_) => is_current && may(),
        Command::LeaseRevoke { id } => {
            let has_keys = view.lease(*id).is_some_and(|lease| !lease.keys.is_empty());
            !has_keys || may() && (is_current || view.authorize_admin(author).is_ok())
        }
        Command::Auth(_) => may(),
        // Asked for by root, or by a member: that was looked at before it came into the log, and not again.
        Command::Compact { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseCheckpoint(_)
        | Command::Alarm { .. }
        | Command::ClusterVersionSet { .. }
        | Command::MemberAttributes { .. }
        | Command::DowngradeInfo { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Kind, Permission, Request},
        engine::Memory,
        machine::{DeleteRange, Put, RequestId},
        mvcc::RangeQuery,
        types::{Index, Key, KeyRange, LeaseId, Revision, Term},
    };

    fn put(key: &'static str, lease: i64) -> Command {
        let key = Bytes::from_static(key.as_bytes());
        Command::Put(Put { key, lease: LeaseId(lease), ..Put::default() })
    }

    fn delete(key: &'static str) -> Command {
        Command::DeleteRange(DeleteRange { range: KeyRange::One(Bytes::from_static(key.as_bytes())), prev_kv: false })
    }

    fn revoke(id: i64) -> Command {
        Command::LeaseRevoke { id: LeaseId(id) }
    }

    fn grant(id: i64) -> Command {
        Command::LeaseGrant { id: LeaseId(id), ttl_s: 60 }
    }

    /// Users root and alice, who may write and read `a…`, and auth at revision 6; the key `root`, which has lease 1.
    fn prologue() -> Vec<(Author, Command)> {
        let name = |name: &str| name.to_owned();
        let add = |user| Request::UserAdd { name: name(user), hash: Bytes::from_static(b"hash"), no_password: None };
        let permission = Permission { kind: Kind::ReadWrite, key: "a".into(), range_end: "b".into() };
        let users = [
            add("root"),
            add("alice"),
            Request::UserGrantRole { user: name("root"), role: name("root") },
            Request::RoleAdd { name: name("writer") },
            Request::RoleGrantPermission { role: name("writer"), permission: Some(permission) },
            Request::UserGrantRole { user: name("alice"), role: name("writer") },
            Request::Enable,
        ];
        let before = [grant(1), grant(2), grant(3), put("root", 1)];
        let users = users.into_iter().map(Command::Auth);
        before.into_iter().chain(users).map(|command| (Author::Nobody, command)).collect()
    }

    fn replayed(commands: impl IntoIterator<Item = (Author, Command)>) -> Machine {
        let entries = commands.into_iter().zip(1..).map(|((author, command), index)| Entry {
            term: Term(1),
            index: Index(index),
            kind: EntryKind::Normal,
            data: codec::encode(RequestId(index), &author, &command),
        });
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        replay(&engine, &entries.collect::<Vec<_>>()).expect("memory")
    }

    fn keys(machine: &Machine) -> Vec<Key> {
        let found = machine.reader().range(&RangeQuery::default()).expect("memory").expect("the current revision");
        found.kvs.into_iter().map(|kv| kv.key).collect()
    }

    #[test]
    fn what_etcd_refused_does_nothing_and_what_it_let_pass_is_done() {
        let (alice, root) = (|revision| Author::user("alice", revision), |revision| Author::user("root", revision));
        let current = prologue_revision();
        let log = [
            (alice(current), put("a1", 0)),
            (alice(current), put("b1", 0)),
            (alice(current), put("a2", 1)),
            (alice(current), put("a3", 2)),
            (root(current), put("b2", 0)),
            (Author::Nobody, put("a4", 0)),
            (Author::user("bob", current), put("a5", 0)),
            // Proven before the last change, which was not about alice.
            (alice(current - 1), put("a6", 0)),
            (root(current - 1), put("a7", 0)),
            (alice(current), delete("root")),
            (alice(current), revoke(1)),
            (Author::Nobody, revoke(3)),
            (Author::Nobody, grant(4)),
            (Author::Nobody, Command::Compact { revision: Revision(3), physical: false }),
        ];
        let machine = replayed(prologue().into_iter().chain(log));
        assert_eq!(keys(&machine), ["a1", "a3", "b2", "root"]);
        assert_eq!(machine.view().leases(), [LeaseId(1), LeaseId(2), LeaseId(4)]);
        assert_eq!(machine.reader().compacted(), Revision(3));
    }

    fn prologue_revision() -> u64 {
        replayed(prologue()).view().auth_revision()
    }

    #[test]
    fn users_change_while_the_log_goes_on() {
        let current = prologue_revision();
        let (alice, root) = (|revision| Author::user("alice", revision), |revision| Author::user("root", revision));
        let role = |name: &str| Command::Auth(Request::RoleAdd { name: name.to_owned() });
        let log = [
            (alice(current), role("alice's")),
            (root(current), role("one")),
            // Changes of users need root, however long ago that was proven; keys do not wait.
            (root(current), role("two")),
            (root(current), put("root", 0)),
            (alice(current + 1), put("a1", 0)),
            (alice(current + 2), put("a2", 0)),
            (root(1), Command::Auth(Request::Disable)),
            (Author::Nobody, put("z", 0)),
        ];
        let machine = replayed(prologue().into_iter().chain(log));
        assert_eq!(keys(&machine), ["a2", "root", "z"]);
        assert_eq!(machine.view().auth_revision(), current + 3);
        assert!(!machine.view().auth_enabled());
        let leased = machine.view().lease(LeaseId(1)).expect("a lease").keys;
        assert_eq!(leased, ["root"], "root's put was of an old revision");
    }
}
