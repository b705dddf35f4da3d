//! Files made of text when they are read: what procfs and sysfs share.
//!
//! A [`Tree`] is a table of full names; other subsystems add entries by closures. Text is made at the first read of an
//! open file and again when it is read from the start.

use crate::fs::file::{File, FileOps};
use crate::fs::inode::{
    Answer, Attr, DirEnt, DirSink, Inode, InodeOps, NewInode, S_IFDIR, S_IFLNK, S_IFREG, SetAttr, Timespec,
};
use crate::fs::iov::IovIter;
use crate::fs::super_block::SuperBlock;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Makes the text of a file for the task that opened it.
pub type Gen = Arc<dyn Fn(&Arc<Task>) -> Result<Vec<u8>> + Send + Sync>;
/// As [`Gen`], where memory of a process has to be read.
pub type AsyncGen = Arc<dyn Fn(Arc<Task>) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync>;
/// Takes what one write(2) brought.
pub type Put = Arc<dyn Fn(&Arc<Task>, &[u8]) -> Result<()> + Send + Sync>;

/// How a file's text comes about.
#[derive(Clone)]
pub enum Source {
    /// At once.
    Now(Gen),
    /// After a sleep.
    Later(AsyncGen),
}

/// A file of text.
#[derive(Clone)]
pub struct Text {
    /// Permission bits.
    pub mode: u32,
    /// Reading; `None`: `EINVAL`.
    pub read: Option<Source>,
    /// Writing; `None`: `EINVAL`.
    pub write: Option<Put>,
}

impl Text {
    /// A file that everybody may read.
    pub fn new(read: impl Fn(&Arc<Task>) -> Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { mode: 0o444, read: Some(Source::Now(Arc::new(read))), write: None }
    }

    /// As [`new`](Self::new) after a sleep.
    pub fn later(
        read: impl Fn(Arc<Task>) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        Self { mode: 0o444, read: Some(Source::Later(Arc::new(read))), write: None }
    }

    /// With other permission bits.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Writable by its owner.
    pub fn writable(mut self, put: impl Fn(&Arc<Task>, &[u8]) -> Result<()> + Send + Sync + 'static) -> Self {
        self.mode |= 0o200;
        self.write = Some(Arc::new(put));
        self
    }
}

/// The inode of a text file.
pub struct TextInode(pub Text);

impl InodeOps for TextInode {
    fn open(&self, _inode: &Arc<Inode>, cur: &Arc<Task>, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(TextFile { text: self.0.clone(), opener: Arc::clone(cur), content: Mutex::default() }))
    }

    fn setattr<'a>(&'a self, _inode: &'a Arc<Inode>, set: &'a SetAttr) -> Answer<'a, ()> {
        // O_TRUNC of a tunable means nothing; owners and modes stay.
        let harmless = set.mode.is_none() && set.uid.is_none() && set.gid.is_none();
        Answer::Now(if harmless { Ok(()) } else { Err(Errno::EPERM) })
    }
}

#[derive(Default)]
struct Content {
    bytes: Option<Vec<u8>>,
    /// The text has been read from: a read from the start makes it anew.
    used: bool,
}

/// An open text file.
pub struct TextFile {
    text: Text,
    opener: Arc<Task>,
    content: Mutex<Content>,
}

/// Bytes that one write may bring.
const WRITE_MAX: usize = 65_536;

impl FileOps for TextFile {
    fn try_read(&self, _file: &File, pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        let source = self.text.read.as_ref().ok_or(Errno::EINVAL)?;
        let stale = {
            let c = self.content.lock();
            c.bytes.is_none() || (pos == 0 && c.used)
        };
        if stale {
            match source {
                Source::Now(make) => {
                    let bytes = make(&self.opener)?;
                    *self.content.lock() = Content { bytes: Some(bytes), used: false };
                }
                Source::Later(_) => return Err(Errno::EIOCBQUEUED),
            }
        }
        let mut c = self.content.lock();
        let bytes = c.bytes.as_deref().unwrap_or(&[]);
        let at = usize::try_from(pos).unwrap_or(usize::MAX);
        let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) else {
            c.used = true;
            return Ok(0);
        };
        let n = to.copy_to(rest)?;
        c.used = true;
        Ok(n)
    }

    fn fill(&self, _pos: u64, _len: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let Some(Source::Later(make)) = &self.text.read else { return Ok(()) };
            let bytes = make(Arc::clone(&self.opener)).await?;
            *self.content.lock() = Content { bytes: Some(bytes), used: false };
            Ok(())
        })
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        let put = self.text.write.as_ref().ok_or(Errno::EINVAL)?;
        let n = from.remaining().min(WRITE_MAX);
        let mut buf = vec![0; n];
        let mark = from.done();
        if from.copy_from(&mut buf)? < n {
            from.rewind(mark);
            return Err(Errno::EFAULT);
        }
        put(&self.opener, &buf)?;
        Ok(n)
    }

    fn seekable(&self) -> bool {
        true
    }
}

/// A link whose target is text.
pub struct LinkInode(pub String);

impl InodeOps for LinkInode {
    fn readlink<'a>(&'a self, _inode: &'a Arc<Inode>, _cur: &'a Arc<Task>) -> Answer<'a, Vec<u8>> {
        Answer::Now(Ok(self.0.clone().into_bytes()))
    }
}

/// An inode of a file system of text.
pub fn inode(
    sb: &Arc<SuperBlock>,
    ino: u64,
    mode: u32,
    owner: (u32, u32),
    ops: Box<dyn InodeOps>,
) -> Arc<Inode> {
    let t = Timespec::now();
    let nlink = if mode & crate::fs::inode::S_IFMT == S_IFDIR { 2 } else { 1 };
    let attr = Attr {
        mode,
        nlink,
        uid: owner.0,
        gid: owner.1,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        ..Attr::default()
    };
    Inode::new(Arc::clone(sb), ino, ops, attr)
}

/// Lists the names of a directory that gives them all at once; positions count from 2.
pub fn list(names: &[(Vec<u8>, u64, u32)], pos: u64, sink: &mut DirSink<'_>) {
    let from = usize::try_from(pos.max(2) - 2).unwrap_or(usize::MAX);
    for (i, (name, ino, kind)) in names.iter().enumerate().skip(from) {
        if !sink(&DirEnt { name, ino: *ino, kind: *kind, next: i as u64 + 3 }) {
            break;
        }
    }
}

/// A number for a name that stays the same.
pub fn ino_of(path: &str) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for b in path.bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
    }
    (h >> 24) | 1 << 40
}

/// Names of a directory that are asked anew each time.
pub type Names = Arc<dyn Fn() -> Vec<String> + Send + Sync>;
/// The entry of such a name.
pub type Find = Arc<dyn Fn(&str) -> Option<Entry> + Send + Sync>;

/// What a full name stands for.
#[derive(Clone)]
pub enum Entry {
    /// A directory.
    Dir,
    /// A directory whose names come from closures.
    Living(Names, Find),
    /// A file.
    File(Text),
    /// A link.
    Link(String),
}

/// A table of names.
#[derive(Default)]
pub struct Tree {
    entries: RwLock<BTreeMap<String, Entry>>,
    /// Roots of trees inside of living directories, by their full names.
    sb: OnceLock<Arc<SuperBlock>>,
}

impl Tree {
    /// An empty tree.
    pub const fn new() -> Self {
        Self { entries: RwLock::new(BTreeMap::new()), sb: OnceLock::new() }
    }

    /// Adds an entry and the directories of its name; replaces one that is there.
    pub fn add(&self, path: &str, entry: Entry) {
        let mut e = self.entries.write();
        for (i, _) in path.match_indices('/') {
            e.entry(path[..i].to_owned()).or_insert(Entry::Dir);
        }
        e.insert(path.to_owned(), entry);
    }

    /// Adds a file of text that everybody may read.
    pub fn text(&self, path: &str, read: impl Fn() -> String + Send + Sync + 'static) {
        self.add(path, Entry::File(Text::new(move |_| Ok(read().into_bytes()))));
    }

    /// Takes an entry out, and all below it.
    pub fn remove(&self, path: &str) {
        let below = format!("{path}/");
        self.entries.write().retain(|k, _| k != path && !k.starts_with(&below));
    }

    /// The super block that its inodes carry.
    pub fn set_super(&self, sb: Arc<SuperBlock>) {
        self.sb.set(sb).ok();
    }

    fn get(&self, path: &str) -> Option<Entry> {
        if path.is_empty() {
            return Some(Entry::Dir);
        }
        self.entries.read().get(path).cloned()
    }

    /// The inode of a full name; the empty name is the root.
    pub fn inode(&'static self, path: &str) -> Result<Arc<Inode>> {
        self.make(path, self.get(path).ok_or(Errno::ENOENT)?)
    }

    fn make(&'static self, path: &str, entry: Entry) -> Result<Arc<Inode>> {
        let sb = self.sb.get().ok_or(Errno::ENODEV)?;
        let (mode, ops): (u32, Box<dyn InodeOps>) = match entry {
            Entry::Dir => {
                (S_IFDIR | 0o555, Box::new(TreeDir { tree: self, path: path.to_owned(), living: None }))
            }
            Entry::Living(n, f) => (
                S_IFDIR | 0o555,
                Box::new(TreeDir { tree: self, path: path.to_owned(), living: Some((n, f)) }),
            ),
            Entry::File(t) => (S_IFREG | t.mode, Box::new(TextInode(t))),
            Entry::Link(to) => (S_IFLNK | 0o777, Box::new(LinkInode(to))),
        };
        Ok(inode(sb, ino_of(path), mode, (0, 0), ops))
    }

    /// Names directly below `path`, with numbers and types.
    pub fn names(&self, path: &str) -> Vec<(Vec<u8>, u64, u32)> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let e = self.entries.read();
        e.range(prefix.clone()..)
            .take_while(|(k, _)| k.starts_with(&prefix))
            .filter_map(|(k, v)| {
                let name = &k[prefix.len()..];
                (!name.is_empty() && !name.contains('/'))
                    .then(|| (name.as_bytes().to_vec(), ino_of(k), kind(v)))
            })
            .collect()
    }
}

fn kind(e: &Entry) -> u32 {
    match e {
        Entry::Dir | Entry::Living(..) => S_IFDIR,
        Entry::File(_) => S_IFREG,
        Entry::Link(_) => S_IFLNK,
    }
}

struct TreeDir {
    tree: &'static Tree,
    path: String,
    living: Option<(Names, Find)>,
}

impl TreeDir {
    fn full(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }
}

impl InodeOps for TreeDir {
    fn lookup<'a>(&'a self, _dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        let Ok(name) = std::str::from_utf8(name) else { return Answer::Now(Err(Errno::ENOENT)) };
        let full = self.full(name);
        Answer::Now(match &self.living {
            Some((_, find)) => find(name).ok_or(Errno::ENOENT).and_then(|e| self.tree.make(&full, e)),
            None => self.tree.inode(&full),
        })
    }

    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        let names = match &self.living {
            Some((names, find)) => names()
                .into_iter()
                .map(|n| {
                    let k = find(&n).map_or(0, |e| kind(&e));
                    let ino = ino_of(&self.full(&n));
                    (n.into_bytes(), ino, k)
                })
                .collect(),
            None => self.tree.names(&self.path),
        };
        list(&names, pos, sink);
        Answer::Now(Ok(()))
    }

    fn create<'a>(
        &'a self,
        _dir: &'a Arc<Inode>,
        _name: &'a [u8],
        _new: &'a NewInode<'a>,
    ) -> Answer<'a, Arc<Inode>> {
        // No such name can be made: Linux says that it is not there.
        Answer::Now(Err(Errno::ENOENT))
    }

    fn cacheable(&self, _name: &[u8]) -> bool {
        self.living.is_none()
    }

    fn cache_absent(&self) -> bool {
        false
    }
}
