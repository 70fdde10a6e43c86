//! A snapshot file as the data directory of a new cluster's member.

use super::{
    Error, HashCheck, Progress, SnapshotFile,
    import::{Head, Imported, Plan, import},
    place::Place,
};
use crate::{
    engine::Kind,
    membership::{Identity, Member, cluster_id, member_id},
    types::{ClusterId, ConfState, HardState, Index, MemberId, Term},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The term of the first entries, as etcd's bootstrap has it.
const TERM: Term = Term(1);

/// What is restored, and as whom.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The snapshot file.
    pub snapshot: PathBuf,
    /// What is demanded of its hash.
    pub hash: HashCheck,
    /// Name of this member, one of those in `initial_cluster`.
    pub name: String,
    /// Where other members reach it; the same as in `initial_cluster`.
    pub peer_urls: Vec<String>,
    /// All members of the new cluster by name, with their peer URLs. Each is restored from the same file, by the same flags.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// Keeps clusters apart that are restored alike.
    pub cluster_token: String,
    /// Where the member will keep its data; must be empty, or not exist.
    pub data_dir: PathBuf,
    /// Folder of its log; `None`: in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Added to the latest revision, and everything up to there compacted, so that watchers learn that time went back; 0: not at all.
    pub bump_revision: i64,
    /// The store that the member is to have.
    pub engine: Kind,
    /// Who waits.
    pub progress: Progress,
}

/// A data directory that was made.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Whose it is.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// All members of the cluster, by id.
    pub members: Vec<Member>,
    /// What is in it.
    pub imported: Imported,
}

/// Makes a data directory from which a member of a new cluster starts. Whoever was a member before is forgotten.
///
/// # Errors
/// Flags that contradict each other, a file that is damaged or not etcd's, and whatever disk and store say. Then there is no data
/// directory under the name that was asked for.
pub fn restore(asked: &Restore) -> Result<Restored, Error> {
    let members = founders(asked)?;
    let own = member_id(&asked.peer_urls, &asked.cluster_token);
    let file = SnapshotFile::open(&asked.snapshot, asked.hash)?;
    let database = file.database()?;
    let head = Head::read(&database)?;
    let voters = members.iter().map(|member| member.id).collect::<Vec<_>>();
    let identity = Identity { member: own, cluster: cluster_id(&voters) };
    let place = Place::prepare(&asked.data_dir, asked.wal_dir.as_deref())?;
    // As after the entries that add the founders one by one.
    let index = Index(members.len() as u64);
    let conf_state = ConfState { voters, ..ConfState::default() };
    let plan = Plan {
        index,
        term: TERM,
        members: members.clone(),
        removed: BTreeSet::new(),
        conf_state: conf_state.clone(),
        bump: asked.bump_revision,
    };
    let imported = import(&database, &head, plan, &place.store(asked.engine)?, &asked.progress)?;
    let hard_state = HardState { term: TERM, vote: None, commit: index };
    place.log(&identity.encode(), (index, TERM), &conf_state, &hard_state, &[])?;
    place.finish()?;
    Ok(Restored { member: identity.member, cluster: identity.cluster, members, imported })
}

/// The members of the new cluster, by id.
fn founders(asked: &Restore) -> Result<Vec<Member>, Error> {
    let wrong = |what: String| Error::unusable(Path::new("--initial-cluster"), what);
    let own = asked.initial_cluster.iter().find(|(name, _)| *name == asked.name);
    let Some((_, urls)) = own else {
        let name = &asked.name;
        return Err(wrong(format!("couldn't find local name {name:?} in the initial cluster configuration")));
    };
    let sorted = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
    if sorted(urls) != sorted(&asked.peer_urls) {
        let (here, there) = (asked.peer_urls.join(","), urls.join(","));
        return Err(wrong(format!("it has {there} for {:?}, but --initial-advertise-peer-urls={here}", asked.name)));
    }
    let mut seen = BTreeSet::new();
    if let Some(url) = asked.initial_cluster.iter().flat_map(|(_, urls)| urls).find(|url| !seen.insert(*url)) {
        return Err(wrong(format!("the URL {url} comes twice")));
    }
    let founder = |(name, peer_urls): &(String, Vec<String>)| Member {
        id: member_id(peer_urls, &asked.cluster_token),
        name: name.clone(),
        peer_urls: peer_urls.clone(),
        ..Member::default()
    };
    let mut members = asked.initial_cluster.iter().map(founder).collect::<Vec<_>>();
    members.sort_by_key(|member| member.id);
    Ok(members)
}
