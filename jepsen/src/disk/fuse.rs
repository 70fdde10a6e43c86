//! What the kernel asks, answered from the tree; and the gate that makes a disk slow, stuck or full.

use super::{
    Trouble,
    content::PAGE,
    tree::{Body, Ino, Node, Tree},
};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::{
    ffi::OsStr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

/// All changes come through the kernel, so what it remembers stays right.
const REMEMBER: Duration = Duration::from_secs(3600);
/// The size that the disk claims to have, in bytes.
const CAPACITY: u64 = 16 << 30;
const O_DSYNC: i32 = 0o10000;
const FALLOC_KEEP_SIZE: i32 = 1;

/// Work that a hang holds up. The process that asked waits, so there are no more than it has threads.
type Parked = Box<dyn FnOnce(&Shared) + Send>;

/// What the disk and its file system share.
pub struct Shared {
    /// The files.
    pub tree: Mutex<Tree>,
    gate: Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    trouble: Trouble,
    parked: Vec<Parked>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared { tree: Mutex::new(Tree::new()), gate: Mutex::default() }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Changes the trouble; what waited goes on unless this is another hang.
    pub fn set(&self, trouble: Trouble) {
        self.lock().full = trouble == Trouble::Full;
        let parked = {
            let mut gate = self.gate.lock().expect("no handler panics");
            gate.trouble = trouble;
            if trouble == Trouble::Hang { Vec::new() } else { std::mem::take(&mut gate.parked) }
        };
        for work in parked {
            work(self);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tree> {
        self.tree.lock().expect("no handler panics")
    }

    /// Runs `work` now, late, or when the hang is over.
    fn pass(self: &Arc<Shared>, is_sync: bool, work: impl FnOnce(&Shared) + Send + 'static) {
        let trouble = {
            let mut gate = self.gate.lock().expect("no handler panics");
            if gate.trouble == Trouble::Hang {
                gate.parked.push(Box::new(work));
                return;
            }
            gate.trouble
        };
        match trouble {
            Trouble::SlowSync(pause) if is_sync => {
                let shared = self.clone();
                // The process waits for its sync, so there are no more of these than it has threads.
                std::thread::spawn(move || {
                    std::thread::sleep(pause);
                    work(&shared);
                });
            }
            _ => work(self),
        }
    }
}

/// The file system of one mount.
#[derive(Debug)]
pub struct Files(pub Arc<Shared>);

fn attributes(ino: Ino, node: &Node) -> FileAttr {
    let (kind, size, pages, nlink) = match &node.body {
        Body::File(content) => (FileType::RegularFile, content.size(), content.pages(), 1),
        Body::Folder { .. } => (FileType::Directory, PAGE, 1, 2),
    };
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: pages * PAGE / 512,
        atime: node.changed,
        mtime: node.changed,
        ctime: node.changed,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: node.perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

fn reply_empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(cause) => reply.error(cause),
    }
}

fn reply_entry(reply: ReplyEntry, tree: &Tree, result: Result<Ino, Errno>) {
    match result.and_then(|ino| Ok((ino, tree.node(ino)?))) {
        Ok((ino, node)) => reply.entry(&REMEMBER, &attributes(ino, node), Generation(0)),
        Err(cause) => reply.error(cause),
    }
}

fn write(tree: &mut Tree, ino: Ino, offset: u64, bytes: &[u8], durable: bool) -> Result<u32, Errno> {
    if tree.full && tree.file(ino)?.needs_space(offset, bytes.len() as u64) {
        return Err(Errno::ENOSPC);
    }
    tree.change(ino)?.write(offset, bytes);
    if durable {
        tree.sync_file(ino)?;
    }
    Ok(bytes.len() as u32)
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = self.0.lock();
        let found = tree.lookup(parent.0, name);
        reply_entry(reply, &tree, found);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.lock().node(ino.0) {
            Ok(node) => reply.attr(&REMEMBER, &attributes(ino.0, node)),
            Err(cause) => reply.error(cause),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.0.lock();
        let mut change = || {
            if let Some(mode) = mode {
                tree.node_mut(ino.0)?.perm = (mode & 0o7777) as u16;
            }
            if let Some(size) = size {
                tree.change(ino.0)?.truncate(size);
            }
            Ok(attributes(ino.0, tree.node(ino.0)?))
        };
        match change() {
            Ok(attributes) => reply.attr(&REMEMBER, &attributes),
            Err(cause) => reply.error(cause),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mut tree = self.0.lock();
        let made = tree.create(parent.0, name, true, (mode & !umask & 0o7777) as u16);
        reply_entry(reply, &tree, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.0.lock().remove(parent.0, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.0.lock().remove(parent.0, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let keep_other = match flags {
            flags if flags.is_empty() => false,
            RenameFlags::RENAME_NOREPLACE => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let moved = self.0.lock().rename((parent.0, name), (newparent.0, newname), keep_other);
        reply_empty(reply, moved);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.lock().node_mut(ino.0) {
            Ok(node) => {
                node.open += 1;
                reply.opened(FileHandle(0), FopenFlags::empty());
            }
            Err(cause) => reply.error(cause),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        let mut tree = self.0.lock();
        let made = tree.create(parent.0, name, false, (mode & !umask & 0o7777) as u16);
        match made.and_then(|ino| Ok((ino, tree.node_mut(ino)?))) {
            Ok((ino, node)) => {
                node.open += 1;
                let attributes = attributes(ino, node);
                reply.created(&REMEMBER, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(cause) => reply.error(cause),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().close(ino.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().file(ino.0) {
            Ok(content) => reply.data(&content.read(offset, u64::from(size))),
            Err(cause) => reply.error(cause),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (bytes, durable) = (data.to_vec(), flags.0 & O_DSYNC != 0);
        self.0.pass(durable, move |shared| match write(&mut shared.lock(), ino.0, offset, &bytes, durable) {
            Ok(len) => reply.written(len),
            Err(cause) => reply.error(cause),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.pass(true, move |shared| reply_empty(reply, shared.lock().sync_file(ino.0)));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.pass(true, move |shared| reply_empty(reply, shared.lock().sync_folder(ino.0)));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let tree = self.0.lock();
        let names = match tree.names(ino.0) {
            Ok(names) => names,
            Err(cause) => return reply.error(cause),
        };
        let own = [(ino.0, OsStr::new(".")), (tree.parent(ino.0), OsStr::new(".."))];
        let all = own.into_iter().chain(names.iter().map(|(name, ino)| (*ino, name.as_os_str())));
        for (at, (ino, name)) in all.enumerate().skip(offset as usize) {
            let is_file = tree.file(ino).is_ok();
            let kind = if is_file { FileType::RegularFile } else { FileType::Directory };
            if reply.add(INodeNo(ino), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let tree = self.0.lock();
        let free = if tree.full { 0 } else { CAPACITY.saturating_sub(tree.used()) / PAGE };
        reply.statfs(CAPACITY / PAGE, free, free, 1 << 20, 1 << 20, PAGE as u32, 255, PAGE as u32);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !FALLOC_KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        self.0.pass(false, move |shared| {
            let mut tree = shared.lock();
            let result = match tree.full {
                true => Err(Errno::ENOSPC),
                false => {
                    tree.change(ino.0).map(|content| content.reserve(offset + length, mode & FALLOC_KEEP_SIZE == 0))
                }
            };
            reply_empty(reply, result);
        });
    }
}
