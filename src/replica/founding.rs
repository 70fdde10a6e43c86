//! How a member comes to its log: it founds a cluster with others, joins one, or makes one of itself alone.

use super::bootstrap::{Settings, StartAs};
use crate::{
    io::Disk,
    machine::{Machine, RequestId, codec},
    membership::{Change, Identity, Member, cluster_id, member_id},
    types::{Entry, Fault, HardState, Index, MemberId, Term},
    wal::{self, Wal},
};

/// The members that found the cluster, by id.
fn founders(settings: &Settings) -> Vec<Member> {
    let founder = |(name, peer_urls): &(String, Vec<String>)| Member {
        id: member_id(peer_urls, &settings.cluster_token),
        name: name.clone(),
        peer_urls: peer_urls.clone(),
        ..Member::default()
    };
    let mut founders = settings.initial_cluster.iter().map(founder).collect::<Vec<_>>();
    founders.sort_by_key(|member| member.id);
    founders
}

/// A log without entries, and what opening it would find.
pub(super) fn create<D: Disk>(
    disk: D,
    settings: &Settings,
    options: wal::Options,
) -> Result<(Wal<D>, wal::Recovered), Fault> {
    let (member, cluster) = match &settings.start_as {
        StartAs::New => {
            let own = member_id(&settings.peer_urls, &settings.cluster_token);
            let founders = founders(settings).into_iter().map(|member| member.id).collect::<Vec<_>>();
            (own, cluster_id(&founders))
        }
        StartAs::Joined { member_id, cluster_id, .. } => (*member_id, *cluster_id),
    };
    let metadata = Identity { member, cluster }.encode();
    let wal = Wal::create(disk, &settings.wal_dir, &metadata, options)?;
    Ok((wal, wal::Recovered { metadata: metadata.into(), ..wal::Recovered::default() }))
}

/// The first entries: all founders, as etcd's bootstrap writes them. Every founder has the same, so they count as committed.
pub(super) fn found<D: Disk>(
    settings: &Settings,
    wal: &mut Wal<D>,
    recovered: &mut wal::Recovered,
) -> Result<(), Fault> {
    let entry = |(index, founder): (u64, Member)| {
        let (kind, data) = codec::encode_conf_change(RequestId(0), &Change::Add(founder));
        Entry { term: Term(1), index: Index(index), kind, data }
    };
    recovered.entries = (1..).zip(founders(settings)).map(entry).collect();
    recovered.hard_state = HardState { term: Term(1), vote: None, commit: wal.last() };
    recovered.hard_state.commit = Index(recovered.entries.len() as u64);
    wal.append(Some(&recovered.hard_state), &recovered.entries)?;
    wal.sync()
}

/// Makes a cluster of this member alone, whoever else belonged to it: for the day when a majority is lost for good. All others are
/// removed by entries that nobody but this member votes on.
///
/// The whole log counts as committed. How much of it was is not known here: the disk hears of the commit index later than clients do, so
/// to give up what is beyond it, as etcd does, would lose writes that were acknowledged.
pub(super) fn stand_alone<D: Disk>(
    own: MemberId,
    machine: &mut Machine,
    wal: &mut Wal<D>,
    recovered: &mut wal::Recovered,
) -> Result<(), Fault> {
    let (applied, _) = machine.applied();
    let mut hard_state = recovered.hard_state;
    let rest = recovered.entries.iter().filter(|entry| entry.index > applied).cloned().collect::<Vec<_>>();
    hard_state.commit = rest.last().map_or(applied, |entry| entry.index);
    replay(machine, &rest, hard_state.commit)?;
    hard_state.term = hard_state.term.next();
    hard_state.vote = None;
    let view = machine.view();
    let mut changes = Vec::new();
    match view.member(own) {
        None => changes.push(Change::Add(Member { id: own, ..Member::default() })),
        Some(member) if member.is_learner => changes.push(Change::Promote(own)),
        Some(_) => {}
    }
    let others = view.members().into_iter().filter(|member| member.id != own);
    changes.extend(others.map(|member| Change::Remove(member.id)));
    let entry = |(index, change): (u64, &Change)| {
        let (kind, data) = codec::encode_conf_change(RequestId(0), change);
        Entry { term: hard_state.term, index: Index(index), kind, data }
    };
    let entries = (hard_state.commit.next().0..).zip(&changes).map(entry).collect::<Vec<_>>();
    hard_state.commit = entries.last().map_or(hard_state.commit, |entry| entry.index);
    tracing::warn!(member = %own, removed = changes.len(), commit = hard_state.commit.0, "forcing a new cluster of this member alone");
    wal.append(Some(&hard_state), &entries)?;
    wal.sync()?;
    recovered.hard_state = hard_state;
    recovered.entries.extend(entries.iter().cloned());
    replay(machine, &entries, hard_state.commit)
}

/// Applies again what was known to be committed: nobody waits for the replies.
pub(super) fn replay(machine: &mut Machine, entries: &[Entry], commit: Index) -> Result<(), Fault> {
    let known = entries.iter().take_while(|entry| entry.index <= commit).cloned().collect::<Vec<_>>();
    for batch in known.chunks(1_024) {
        machine.apply(batch.to_vec())?;
    }
    Ok(())
}
