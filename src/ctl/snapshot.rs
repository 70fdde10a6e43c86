//! snapshot save: one member's store into a file; what is done with such a file later is in `utl`.

use super::{failure::Failure, global::Global, system};
use crate::client::Client;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

#[cfg(feature = "server")]
use super::{name::Name, utl};

/// Bytes of the hash that ends a snapshot.
const HASH_BYTES: usize = 32;
/// Databases are of whole pages, and no page is smaller: what is left over is the hash. etcd's own rule.
const SECTOR_BYTES: u64 = 512;

/// Snapshot commands.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Stores a member's whole state in a given file
    Save {
        #[arg(value_name = "FILENAME", value_parser = system::path())]
        files: Vec<PathBuf>,
    },
    /// Checks a given file and tells what is in it
    #[cfg(feature = "server")]
    Status {
        #[arg(value_name = "FILENAME", value_parser = system::path())]
        files: Vec<PathBuf>,
    },
    #[cfg(feature = "server")]
    Restore(utl::Restore),
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Save { files } => match &files[..] {
            [file] => save(global, file).await,
            _ => Err(Failure::args("snapshot save expects one argument <filename>")),
        },
        #[cfg(feature = "server")]
        Command::Status { files } => match &files[..] {
            [file] => utl::status(global.printer()?, file),
            _ => Err(Failure::args("snapshot status requires exactly one argument")),
        },
        #[cfg(feature = "server")]
        Command::Restore(args) => utl::restore(args, Name::Hengectl),
    }
}

async fn save(global: &Global, path: &Path) -> Result<(), Failure> {
    let endpoints = global.endpoints();
    let [endpoint] = &endpoints[..] else {
        let text = format!("snapshot must be requested to one selected node, not multiple [{}]", endpoints.join(" "));
        return Err(Failure::interrupted(text));
    };
    let client = global.stranger_to(endpoint).await?;
    let client = global.logged_in(client).await.map_err(|failure| Failure::interrupted(failure.text()))?;
    let mut part = Part::create(path).map_err(Failure::interrupted)?;
    // As much time as it takes, unless somebody has set a limit.
    let version = match global.command_timeout_chosen {
        true => tokio::time::timeout(global.command_timeout, fetch(&client, &mut part))
            .await
            .unwrap_or_else(|_| Err(Failure::interrupted("context deadline exceeded")))?,
        false => fetch(&client, &mut part).await?,
    };
    part.keep(path).map_err(Failure::interrupted)?;
    println!("Snapshot saved at {}", path.display());
    if !version.is_empty() {
        println!("Server version {version}");
    }
    Ok(())
}

/// Writes the stream into the file, checks the hash at its end and returns the version that the server names.
async fn fetch(client: &Client, part: &mut Part) -> Result<String, Failure> {
    // etcdctl hands on what the library below its own said.
    let interrupted = |error: crate::client::Error| Failure::interrupted(error.with_code());
    let mut snapshot = client.snapshot().await.map_err(interrupted)?;
    let bar = progress_bar();
    let mut version = String::new();
    while let Some(chunk) = snapshot.next().await.map_err(interrupted)? {
        part.write(&chunk.blob).map_err(|error| {
            Failure::interrupted(format!("could not write snapshot: {}", system::refused("write", &part.path, &error)))
        })?;
        bar.set_length(part.bytes + chunk.remaining_bytes);
        bar.set_position(part.bytes);
        version = chunk.version;
    }
    bar.finish_and_clear();
    part.check_hash().map_err(Failure::interrupted)?;
    Ok(version)
}

/// On a terminal only; what a script reads is the same with and without.
pub(super) fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(0).with_style(style.expect("a constant template is valid"))
}

/// A file that gets its name when it is complete.
struct Part {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Of all but the last bytes, which may be the hash itself.
    hash: Sha256,
    last: Vec<u8>,
}

impl Part {
    fn create(path: &Path) -> Result<Part, String> {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| {
            format!("could not open {} ({})", path.display(), system::refused("open", &path, &error))
        })?;
        Ok(Part { path, file, bytes: 0, hash: Sha256::new(), last: Vec::new() })
    }

    fn write(&mut self, blob: &[u8]) -> io::Result<()> {
        self.file.write_all(blob)?;
        self.bytes += blob.len() as u64;
        self.last.extend_from_slice(blob);
        let sure = self.last.len().saturating_sub(HASH_BYTES);
        self.hash.update(&self.last[..sure]);
        self.last.drain(..sure);
        Ok(())
    }

    fn check_hash(&self) -> Result<(), String> {
        if self.bytes % SECTOR_BYTES != HASH_BYTES as u64 {
            return Err(format!("sha256 checksum not found [bytes: {}]", self.bytes));
        }
        match self.hash.clone().finalize()[..] == self.last[..] {
            true => Ok(()),
            false => Err("the snapshot was damaged on its way: its sha256 checksum is wrong".to_owned()),
        }
    }

    /// Makes the file durable under its real name.
    fn keep(self, path: &Path) -> Result<(), String> {
        self.file
            .sync_all()
            .map_err(|error| format!("could not fsync snapshot: {}", system::refused("sync", &self.path, &error)))?;
        let renamed = std::fs::rename(&self.path, path);
        renamed.map_err(|error| {
            let (from, to, why) = (self.path.display(), path.display(), system::cause(&error));
            format!("could not rename {from} to {to} (rename {from} {to}: {why})")
        })?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| format!("could not fsync {} ({})", dir.display(), system::refused("sync", dir, &error)))
    }
}

impl Drop for Part {
    /// What was not kept goes. After [`Part::keep`] nothing has this name.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(dir: &Path, blobs: &[&[u8]]) -> Part {
        let mut part = Part::create(&dir.join("file")).expect("a folder to write to");
        blobs.iter().for_each(|blob| part.write(blob).expect("room"));
        part
    }

    #[test]
    fn a_file_is_kept_once_its_hash_is_right_and_removed_otherwise() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = vec![7; 1024];
        let hash = Sha256::digest(&data);
        let whole = part(dir.path(), &[&data[..1000], &data[1000..], &hash[..20], &hash[20..]]);
        assert_eq!(whole.check_hash(), Ok(()));
        whole.keep(&dir.path().join("file")).expect("kept");
        let names = || std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!((std::fs::metadata(dir.path().join("file")).expect("kept").len(), names()), (1056, 1));

        let damaged = part(dir.path(), &[&data[1..], b"x", &hash]);
        assert!(damaged.check_hash().expect_err("another byte").contains("damaged"));
        let cut = part(dir.path(), &[&data, &hash[1..]]);
        assert_eq!(cut.check_hash(), Err("sha256 checksum not found [bytes: 1055]".to_owned()));
        drop((damaged, cut));
        assert_eq!(names(), 1);
    }
}
