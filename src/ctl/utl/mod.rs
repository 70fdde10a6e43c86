//! What is done with files, without a server: `etcdutl`'s part of the program, and all of it if we are called so (`program`).

mod program;

pub use program::main;

use super::{
    failure::Failure,
    output::{Answer, Printer, SnapshotHash, SnapshotStatus},
    snapshot::progress_bar,
};
use crate::{
    backup::{self, HashCheck, Imported, MemberDir, Progress},
    config::{initial_cluster, parse_url},
    engine::Kind,
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
    #[arg(value_name = "FILENAME")]
    files: Vec<PathBuf>,
    /// Path to the output data directory (default: NAME.etcd, where `henge --name NAME` looks for it)
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Path to the log (default: in the data directory)
    #[arg(long)]
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
    /// How much to increase the latest revision; 0: not at all
    #[arg(long, default_value_t = BUMP_REVISION, value_parser = clap::value_parser!(i64).range(0..))]
    bump_revision: i64,
    /// Mark the latest revision after restore as compacted (goes with --bump-revision: both or neither)
    #[arg(long, num_args = 0..=1, require_equals = true, action = ArgAction::Set, default_missing_value = "true")]
    mark_compacted: Option<bool>,
    /// Accepted, and of no use: nothing is mapped into memory
    #[arg(long, default_value_t = 0)]
    initial_memory_map_size: u64,
    /// Storage engine of the restored member: redb or sled
    #[arg(long, default_value_t = Kind::default())]
    storage_engine: Kind,
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
    #[arg(value_name = "FILENAME")]
    files: Vec<PathBuf>,
    /// Maximum revision to hash (0: latest revision)
    #[arg(long, default_value_t = 0)]
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
    let refused = |error: std::io::Error| {
        let text = error.to_string();
        let cause = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        Failure::error(format!("stat {}: {cause}", path.display()))
    };
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
pub fn restore(args: Restore) -> Result<(), Failure> {
    let [file] = &args.files[..] else {
        return Err(Failure::args("snapshot restore requires exactly one argument"));
    };
    if args.mark_compacted.is_some_and(|marked| marked != (args.bump_revision > 0)) {
        return Err(Failure::args("--mark-compacted required if --revision-bump > 0"));
    }
    let urls = args.initial_advertise_peer_urls.split(',').map(|url| parse_url(url.trim()).map(|url| url.to_string()));
    let peer_urls = urls.collect::<Result<Vec<_>, _>>().map_err(Failure::args)?;
    let cluster = match &args.initial_cluster {
        Some(text) => {
            let members = initial_cluster(text).map_err(Failure::args)?;
            members.into_iter().map(|(name, urls)| (name, urls.iter().map(ToString::to_string).collect())).collect()
        }
        None => vec![(args.name.clone(), peer_urls.clone())],
    };
    let data_dir = args.data_dir.unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name)));
    let restored = backup::restore(&backup::Restore {
        snapshot: file.clone(),
        hash: if args.skip_hash_check { HashCheck::Skip } else { HashCheck::Demand },
        name: args.name,
        peer_urls,
        initial_cluster: cluster,
        cluster_token: args.initial_cluster_token,
        data_dir: data_dir.clone(),
        wal_dir: args.wal_dir,
        bump_revision: args.bump_revision,
        engine: args.storage_engine,
        progress: progress(),
    });
    let backup::Restored { member, cluster, members, imported } = restored.map_err(Failure::error)?;
    println!("Restored member {member} of cluster {cluster} ({} members) in {}", members.len(), data_dir.display());
    tell(&imported);
    println!("Revision {}", imported.revision);
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
    tell(&imported);
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

fn tell(imported: &Imported) {
    println!("{} keys, {} leases", imported.keys, imported.leases);
    if imported.keys_without_lease > 0 {
        eprintln!("Warning: {} keys had a lease that does not exist: they are kept", imported.keys_without_lease);
    }
    if imported.auth_enabled {
        eprintln!("Note: authentication is enabled in these data, with the users and passwords that they had");
    }
}
