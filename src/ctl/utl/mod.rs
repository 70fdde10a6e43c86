//! What is done with files, without a server: `etcdutl`'s part of the program, and all of it if we are called so (`program`).

mod program;

pub use program::main;

use super::{
    failure::Failure,
    name::Name,
    output::{Answer, Printer, SnapshotHash, SnapshotStatus},
    snapshot::progress_bar,
    system,
};
use crate::{
    backup::{self, HashCheck, Imported, MemberDir, Progress},
    config::{initial_cluster, parse_url},
    engine::Kind,
    go,
    types::Revision,
};
use clap::ArgAction;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Commands about files that stand beside those about a cluster.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    Import(Import),
    Hashkv(HashKv),
    Migrate(Migrate),
}

pub fn run(asked: Command, printer: Printer) -> Result<(), Failure> {
    match asked {
        Command::Import(args) => import(args),
        Command::Hashkv(args) => hash_kv(&args, printer),
        Command::Migrate(args) => migrate(&args),
    }
}

/// How far a restored store's revision is raised if nobody says otherwise: further than any watcher can have come since the snapshot,
/// as etcd's own guide to disaster recovery advises.
const BUMP_REVISION: i64 = 1_000_000_000;

/// Makes a new data directory, of a new cluster, from a given file of henge or etcd
///
/// Every member of the new cluster is restored from the same file, each with its own --name and --initial-advertise-peer-urls. The
/// revision is raised and all history compacted, so that watchers and caches notice; --bump-revision 0 leaves both as they were.
#[derive(clap::Args, Debug)]
pub struct Restore {
    #[arg(value_name = "FILENAME", value_parser = system::path())]
    files: Vec<PathBuf>,
    /// Path to the output data directory (default: NAME.etcd, where `henge --name NAME` looks for it)
    #[arg(long, value_parser = system::path())]
    data_dir: Option<PathBuf>,
    /// Path to the log (default: in the data directory)
    #[arg(long, value_parser = system::path())]
    wal_dir: Option<PathBuf>,
    /// Human-readable name for this member
    #[arg(long, default_value = "default")]
    name: String,
    /// Members of the new cluster, as name=url,… (default: this member alone)
    #[arg(long)]
    initial_cluster: Option<String>,
    /// Keeps clusters apart that are restored alike
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// This member's peer URLs, separated by commas
    #[arg(long, default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: String,
    /// Ignore the snapshot's integrity hash (needed for a database that was copied from a data directory)
    #[arg(long)]
    skip_hash_check: bool,
    /// How much to increase the latest revision; 0: not at all (default: 1,000,000,000)
    #[arg(long, value_parser = go::uint)]
    bump_revision: Option<u64>,
    /// Mark the latest revision after restore as compacted (goes with --bump-revision: both or neither)
    #[arg(long, num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = go::boolean,
        default_missing_value = "true")]
    mark_compacted: Option<bool>,
    /// Accepted, and of no use: nothing is mapped into memory
    #[arg(long, default_value_t = 0, value_parser = go::uint)]
    initial_memory_map_size: u64,
    /// Storage engine of the restored member: redb or sled
    #[arg(long, default_value_t = Kind::default())]
    storage_engine: Kind,
}

impl Restore {
    /// How far to raise the revision; history is then compacted, too. By the name of etcdutl whoever raises it must say that, as there.
    fn bump(&self, name: Name) -> Result<i64, Failure> {
        let is_strict = name == Name::Etcdutl;
        let bump = match (self.bump_revision, self.mark_compacted) {
            (None, None) => Ok(BUMP_REVISION),
            (None, Some(true)) if !is_strict => Ok(BUMP_REVISION),
            (None, Some(false)) if is_strict => Ok(0),
            (Some(0), None | Some(false)) => Ok(0),
            (Some(bump @ 1..), None) if !is_strict => i64::try_from(bump),
            (Some(bump @ 1..), Some(true)) => i64::try_from(bump),
            _ => return Err(Failure::args("--mark-compacted required if --revision-bump > 0")),
        };
        bump.map_err(|_| Failure::error("--bump-revision is more than there are revisions"))
    }
}

/// Makes a data directory from that of a stopped etcd member
///
/// Member and cluster stay who they are; etcd's files are not changed. Clusters of several members: stop all, copy the directory of the
/// one with the highest raft index to all hosts, and import it on each with --member.
#[derive(clap::Args, Debug)]
pub struct Import {
    /// etcd's data directory
    #[arg(long, value_name = "ETCD-DIR")]
    data_dir: PathBuf,
    /// Name or id of the member that goes on from here; needed in clusters of several, which all go on from the same directory
    #[arg(long)]
    member: Option<String>,
    /// etcd's log, if it is not in its data directory
    #[arg(long, value_name = "ETCD-WAL-DIR")]
    wal_dir: Option<PathBuf>,
    /// Path to the output data directory
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Path to the output log (default: in the output data directory)
    #[arg(long, value_name = "DIR")]
    to_wal_dir: Option<PathBuf>,
    /// Storage engine of the member: redb or sled
    #[arg(long, default_value_t = Kind::default())]
    storage_engine: Kind,
}

/// Prints the hash of the history in a snapshot file, which is that of `endpoint hashkv` at the same revision
#[derive(clap::Args, Debug)]
pub struct HashKv {
    #[arg(value_name = "FILENAME", value_parser = system::path())]
    files: Vec<PathBuf>,
    /// Maximum revision to hash (0: latest revision)
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    rev: i64,
}

/// Migrates the schema of a data directory to that of another version of etcd. There is one in henge, that of 3.7
#[derive(clap::Args, Debug)]
pub struct Migrate {
    /// Path to the data directory
    #[arg(long)]
    data_dir: PathBuf,
    /// The version to migrate to, as X.Y
    #[arg(long)]
    target_version: String,
    /// Accepted, and of no use: a version that can't be migrated to can't be forced, either
    #[arg(long)]
    force: bool,
}

/// The version whose storage henge's is, as etcd counts.
const STORAGE_VERSION: (u64, u64) = (3, 7);
/// The lowest that etcd's own tool takes.
const TARGET_VERSION_MIN: (u64, u64) = (3, 5);

pub fn hash_kv(args: &HashKv, printer: Printer) -> Result<(), Failure> {
    let [file] = &args.files[..] else {
        return Err(Failure::error(format!("accepts 1 arg(s), received {}", args.files.len())));
    };
    there(file)?;
    let found = backup::hash_kv(file, Revision(args.rev)).map_err(Failure::error)?;
    // Nobody served it, so etcdutl leaves out who did.
    let found = found.map_err(|refusal| Failure::error(refusal.text().trim_start_matches("etcdserver: ")))?;
    printer.print(&Answer::SnapshotHash(SnapshotHash {
        hash: found.hash,
        hash_revision: found.hash_revision.0,
        compact_revision: found.compact_revision.0,
    }))
}

/// There is nothing to migrate from or to, which is said as etcd says it of its own.
pub fn migrate(args: &Migrate) -> Result<(), Failure> {
    let target = &args.target_version;
    let malformed = || Failure::args(format!("wrong target version format, expected \"X.Y\", got {target:?}"));
    let (major, minor) = target.split_once('.').ok_or_else(malformed)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| malformed());
    let version = (number(major)?, number(minor)?);
    if version < TARGET_VERSION_MIN {
        return Err(Failure::args(format!("target version {target:?} not supported. Minimal \"3.5\"")));
    }
    MemberDir::find(&args.data_dir).map_err(Failure::error)?;
    if version == STORAGE_VERSION {
        eprintln!("storage version up-to-date: {target}");
        return Ok(());
    }
    let forced = if args.force { ", also not by force" } else { "" };
    Err(Failure::error(format!("henge's storage is that of 3.7 and can't be migrated to {target}{forced}")))
}

/// Gives free space of a stopped member's store back to the file system.
pub fn defragment(data_dir: &Path, patience: Duration) -> Result<(), Failure> {
    let failed = |error: backup::Error| {
        Failure::error(format!("Failed to defragment etcd data[{}] ({error})", data_dir.display()))
    };
    let (before, after) = MemberDir::find(data_dir).and_then(|dir| dir.defragment(patience)).map_err(failed)?;
    eprintln!("{} bytes were {} bytes before", after.file_bytes, before.file_bytes);
    Ok(())
}

/// Refuses a file that is not there, as etcdutl says it.
fn there(path: &Path) -> Result<(), Failure> {
    let refused = |error: std::io::Error| Failure::error(system::refused("stat", path, &error));
    std::fs::metadata(path).map(drop).map_err(refused)
}

/// Tells what is in a snapshot file.
pub fn status(printer: Printer, path: &Path) -> Result<(), Failure> {
    there(path)?;
    let backup::Status { hash, revision, total_keys, total_bytes, version } =
        backup::status(path).map_err(Failure::error)?;
    let answer = SnapshotStatus { hash, revision, total_keys, total_bytes, version };
    printer.print(&Answer::Snapshot(answer))
}

/// Makes a data directory from a snapshot file.
pub fn restore(args: Restore, name: Name) -> Result<(), Failure> {
    let [file] = &args.files[..] else {
        return Err(Failure::args("snapshot restore requires exactly one argument"));
    };
    let bump_revision = args.bump(name)?;
    std::fs::File::open(file).map_err(|error| Failure::error(system::refused("open", file, &error)))?;
    let urls = args.initial_advertise_peer_urls.split(',').map(|url| parse_url(url.trim()).map(|url| url.to_string()));
    let peer_urls = urls.collect::<Result<Vec<_>, _>>().map_err(Failure::error)?;
    let cluster = match &args.initial_cluster {
        Some(text) => {
            let members = initial_cluster(text).map_err(Failure::error)?;
            members.into_iter().map(|(name, urls)| (name, urls.iter().map(ToString::to_string).collect())).collect()
        }
        None => vec![(args.name.clone(), peer_urls.clone())],
    };
    let chosen = |dir: Option<PathBuf>| dir.filter(|dir| !dir.as_os_str().is_empty());
    let data_dir = chosen(args.data_dir).unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name)));
    let restored = backup::restore(&backup::Restore {
        snapshot: file.clone(),
        hash: if args.skip_hash_check { HashCheck::Skip } else { HashCheck::Demand },
        name: args.name,
        peer_urls,
        initial_cluster: cluster,
        cluster_token: args.initial_cluster_token,
        data_dir: data_dir.clone(),
        wal_dir: chosen(args.wal_dir),
        bump_revision,
        engine: args.storage_engine,
        progress: progress(),
    });
    let backup::Restored { member, cluster, members, imported } = restored.map_err(Failure::error)?;
    // A script reads nothing here, as of etcdutl.
    eprintln!("Restored member {member} of cluster {cluster} ({} members) in {}", members.len(), data_dir.display());
    eprintln!("{}", contents(&imported));
    warn(&imported);
    eprintln!("Revision {}", imported.revision);
    Ok(())
}

/// Makes a data directory from etcd's.
pub fn import(args: Import) -> Result<(), Failure> {
    let adopted = backup::adopt(&backup::Adopt {
        from: args.data_dir,
        from_wal: args.wal_dir,
        member: args.member,
        data_dir: args.to.clone(),
        wal_dir: args.to_wal_dir,
        engine: args.storage_engine,
        progress: progress(),
    });
    let backup::Adopted { member, cluster, imported, applied, open, revision } = adopted.map_err(Failure::error)?;
    println!("Imported member {member} of cluster {cluster} into {}", args.to.display());
    println!("{}", contents(&imported));
    warn(&imported);
    println!("{applied} entries of the log were applied after the database, {open} are for the cluster to decide");
    println!("Revision {revision}");
    Ok(())
}

/// A bar that goes away with the last word.
fn progress() -> Progress {
    let bar = progress_bar();
    Progress::new(move |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })
}

fn contents(imported: &Imported) -> String {
    format!("{} keys, {} leases", imported.keys, imported.leases)
}

fn warn(imported: &Imported) {
    if imported.keys_without_lease > 0 {
        eprintln!("Warning: {} keys had a lease that does not exist: they are kept", imported.keys_without_lease);
    }
    if imported.auth_enabled {
        eprintln!("Note: authentication is enabled in these data, with the users and passwords that they had");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        args: Restore,
    }

    #[test]
    fn the_revision_is_raised_as_far_as_is_said_and_etcdutl_wants_it_said_twice() {
        let bump = |flags: &str, name| {
            let words = ["restore", "file"].into_iter().chain(flags.split(' ').filter(|flag| !flag.is_empty()));
            Flags::parse_from(words).args.bump(name).ok()
        };
        let table = [
            ("", Some(BUMP_REVISION), Some(BUMP_REVISION)),
            ("--mark-compacted", Some(BUMP_REVISION), None),
            ("--mark-compacted=false", None, Some(0)),
            ("--bump-revision=0", Some(0), Some(0)),
            ("--bump-revision=0 --mark-compacted=0", Some(0), Some(0)),
            ("--bump-revision=0 --mark-compacted", None, None),
            ("--bump-revision=5", Some(5), None),
            ("--bump-revision=5 --mark-compacted", Some(5), Some(5)),
            ("--bump-revision=5 --mark-compacted=false", None, None),
            ("--bump-revision=18446744073709551615 --mark-compacted", None, None),
        ];
        for (flags, own, etcdutls) in table {
            assert_eq!((bump(flags, Name::Hengectl), bump(flags, Name::Etcdutl)), (own, etcdutls), "{flags}");
        }
    }
}
