//! Folders and files in memory, twice: as a reader sees them, and as they would be without power.
//!
//! It forgets what a journaling file system may forget: content that was not synced; names in a folder that was not synced.
//! Syncing a file keeps its own name, as ext4, XFS and btrfs do; a rename is kept or lost as a whole.

use super::content::{Content, PAGE};
use crate::random::Random;
use fuser::Errno;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    time::SystemTime,
};

/// The number of a file or folder.
pub type Ino = u64;
/// The folder that holds all.
pub const ROOT: Ino = 1;

/// Names in a folder.
type Names = BTreeMap<OsString, Ino>;

/// A file's bytes or a folder's names.
#[derive(Debug)]
pub enum Body {
    /// A file.
    File(Content),
    /// A folder: what a reader sees, and what is durable.
    Folder {
        /// As a reader sees it.
        live: Names,
        /// As it would be without power.
        durable: Names,
    },
}

/// A file or folder.
#[derive(Debug)]
pub struct Node {
    /// What it holds.
    pub body: Body,
    /// Permission bits.
    pub perm: u16,
    /// When it last changed.
    pub changed: SystemTime,
    /// How often it is open now.
    pub open: u64,
    /// The folder that names it now, or did last.
    parent: Ino,
}

/// All files of one disk.
#[derive(Debug)]
pub struct Tree {
    nodes: HashMap<Ino, Node>,
    last: Ino,
    /// Nothing that takes new space succeeds.
    pub full: bool,
}

fn folder() -> Body {
    Body::Folder { live: Names::new(), durable: Names::new() }
}

impl Tree {
    /// An empty disk.
    pub fn new() -> Tree {
        let root = Node { body: folder(), perm: 0o755, changed: SystemTime::now(), open: 0, parent: ROOT };
        Tree { nodes: HashMap::from([(ROOT, root)]), last: ROOT, full: false }
    }

    /// What `ino` is.
    ///
    /// # Errors
    /// ENOENT.
    pub fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::ENOENT)
    }

    /// As [`Tree::node`], to change it.
    ///
    /// # Errors
    /// ENOENT.
    pub fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    /// The content of file `ino`.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn file(&self, ino: Ino) -> Result<&Content, Errno> {
        match &self.node(ino)?.body {
            Body::File(content) => Ok(content),
            Body::Folder { .. } => Err(Errno::EISDIR),
        }
    }

    /// The content of file `ino`, about to be changed.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn change(&mut self, ino: Ino) -> Result<&mut Content, Errno> {
        let node = self.node_mut(ino)?;
        node.changed = SystemTime::now();
        match &mut node.body {
            Body::File(content) => Ok(content),
            Body::Folder { .. } => Err(Errno::EISDIR),
        }
    }

    /// The names in folder `ino`.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn names(&self, ino: Ino) -> Result<&Names, Errno> {
        match &self.node(ino)?.body {
            Body::Folder { live, .. } => Ok(live),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn folder(&mut self, ino: Ino) -> Result<(&mut Names, &mut Names), Errno> {
        match &mut self.node_mut(ino)?.body {
            Body::Folder { live, durable } => Ok((live, durable)),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    /// What `name` is in `parent`.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.names(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// The folder that names `ino`.
    pub fn parent(&self, ino: Ino) -> Ino {
        self.nodes.get(&ino).map_or(ROOT, |node| node.parent)
    }

    /// Makes an empty file or folder.
    ///
    /// # Errors
    /// EEXIST, ENOSPC, ENOENT, ENOTDIR.
    pub fn create(&mut self, parent: Ino, name: &OsStr, is_folder: bool, perm: u16) -> Result<Ino, Errno> {
        if self.names(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.full {
            return Err(Errno::ENOSPC);
        }
        self.last += 1;
        let ino = self.last;
        let body = if is_folder { folder() } else { Body::File(Content::default()) };
        self.nodes.insert(ino, Node { body, perm, changed: SystemTime::now(), open: 0, parent });
        self.folder(parent)?.0.insert(name.to_os_string(), ino);
        Ok(ino)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// ENOENT; ENOTDIR, EISDIR or ENOTEMPTY if it is not what `is_folder` says or holds something.
    pub fn remove(&mut self, parent: Ino, name: &OsStr, is_folder: bool) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        match (&self.node(ino)?.body, is_folder) {
            (Body::File(_), true) => return Err(Errno::ENOTDIR),
            (Body::Folder { .. }, false) => return Err(Errno::EISDIR),
            (Body::Folder { live, .. }, true) if !live.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.folder(parent)?.0.remove(name);
        self.collect(ino);
        Ok(())
    }

    /// Moves a name, replacing what has the new one.
    ///
    /// # Errors
    /// As [`Tree::remove`]; EEXIST with `keep_other` if the new name is taken.
    pub fn rename(
        &mut self,
        (parent, name): (Ino, &OsStr),
        (to, to_name): (Ino, &OsStr),
        keep_other: bool,
    ) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        let replaced = self.lookup(to, to_name).ok();
        if replaced.is_some_and(|replaced| replaced != ino) {
            if keep_other {
                return Err(Errno::EEXIST);
            }
            let is_folder = matches!(self.node(ino)?.body, Body::Folder { .. });
            self.remove(to, to_name, is_folder)?;
        }
        self.folder(parent)?.0.remove(name);
        self.folder(to)?.0.insert(to_name.to_os_string(), ino);
        self.node_mut(ino)?.parent = to;
        Ok(())
    }

    /// Notes that `ino` is open once less.
    pub fn close(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.open = node.open.saturating_sub(1);
            self.collect(ino);
        }
    }

    /// Forgets `ino` if nobody can see it, now or after a power cut.
    fn collect(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get(&ino) else { return };
        if node.open > 0 || self.is_named(ino) {
            return;
        }
        self.nodes.remove(&ino);
    }

    fn is_named(&self, ino: Ino) -> bool {
        ino == ROOT
            || self.nodes.values().any(|node| match &node.body {
                Body::Folder { live, durable } => live.values().chain(durable.values()).any(|named| *named == ino),
                Body::File(_) => false,
            })
    }

    /// Makes the content and the name of file `ino` durable.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn sync_file(&mut self, ino: Ino) -> Result<(), Errno> {
        match &mut self.node_mut(ino)?.body {
            Body::File(content) => content.sync(),
            Body::Folder { .. } => return Err(Errno::EISDIR),
        }
        self.keep_name(ino);
        Ok(())
    }

    /// Makes the names in folder `ino` durable, and its own.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn sync_folder(&mut self, ino: Ino) -> Result<(), Errno> {
        let (live, durable) = self.folder(ino)?;
        let gone: Vec<Ino> =
            durable.iter().filter(|(name, old)| live.get(*name) != Some(old)).map(|(_, old)| *old).collect();
        durable.retain(|name, old| live.get(name) == Some(old));
        let held: Vec<Ino> = live.values().copied().collect();
        // What came from another folder is gone there, and what went to another folder is there: a rename is one step.
        for moved in held.into_iter().chain(gone.iter().copied()) {
            self.keep_name(moved);
        }
        self.keep_name(ino);
        for ino in gone {
            self.collect(ino);
        }
        Ok(())
    }

    /// Makes the name that `ino` has now its only durable one, and the names of the folders above it.
    fn keep_name(&mut self, ino: Ino) {
        let parent = self.parent(ino);
        let Ok(names) = self.names(parent) else { return };
        let Some(name) = names.iter().find(|(_, named)| **named == ino).map(|(name, _)| name.clone()) else { return };
        if ino == ROOT || self.folder(parent).is_ok_and(|(_, durable)| durable.get(&name) == Some(&ino)) {
            return;
        }
        let mut replaced = None;
        for (at, node) in &mut self.nodes {
            if let Body::Folder { durable, .. } = &mut node.body {
                durable.retain(|_, named| *named != ino);
                if *at == parent {
                    replaced = durable.insert(name.clone(), ino);
                }
            }
        }
        self.keep_name(parent);
        if let Some(replaced) = replaced {
            self.collect(replaced);
        }
    }

    /// Loses what is not durable; with `survive`, chance keeps some of it. Nothing may be open. Returns how many files and
    /// folders lost something.
    pub fn power_cut(&mut self, mut survive: Option<&mut Random>) -> usize {
        let mut lost = 0;
        if let Some(random) = survive.as_deref_mut() {
            for ino in self.sorted() {
                let is_folder = self.names(ino).is_ok();
                if is_folder && random.below(2) == 0 && self.is_reachable(ino) {
                    // It is a folder that was just found, so this cannot fail.
                    let _ = self.sync_folder(ino);
                }
            }
        }
        for ino in self.sorted() {
            let Some(node) = self.nodes.get_mut(&ino) else { continue };
            node.open = 0;
            lost += usize::from(match &mut node.body {
                Body::File(content) => content.power_cut(survive.as_deref_mut()),
                Body::Folder { live, durable } if live != durable => {
                    *live = durable.clone();
                    true
                }
                Body::Folder { .. } => false,
            });
        }
        let reachable = self.reachable();
        self.nodes.retain(|ino, _| reachable.contains_key(ino));
        for (ino, parent) in reachable {
            if let Some(node) = self.nodes.get_mut(&ino) {
                node.parent = parent;
            }
        }
        lost
    }

    /// In an order that does not depend on hashing, so that a seed repeats.
    fn sorted(&self) -> BTreeSet<Ino> {
        self.nodes.keys().copied().collect()
    }

    fn is_reachable(&self, ino: Ino) -> bool {
        self.reachable().contains_key(&ino)
    }

    /// All that a reader can find from the root, each with the folder that names it.
    fn reachable(&self) -> BTreeMap<Ino, Ino> {
        let mut found = BTreeMap::from([(ROOT, ROOT)]);
        let mut open = vec![ROOT];
        while let Some(folder) = open.pop() {
            for ino in self.names(folder).into_iter().flat_map(Names::values) {
                if found.insert(*ino, folder).is_none() {
                    open.push(*ino);
                }
            }
        }
        found
    }

    /// Bytes that live content takes.
    pub fn used(&self) -> u64 {
        let pages = |node: &Node| if let Body::File(content) = &node.body { content.pages() } else { 0 };
        self.nodes.values().map(pages).sum::<u64>() * PAGE
    }
}

#[cfg(test)]
mod tests;
