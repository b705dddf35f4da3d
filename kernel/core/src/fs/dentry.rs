//! Dentries: the names of the tree, cached.
//!
//! A dentry holds its parent; a parent's table holds its children. That circle is cut by the bounded cache
//! ([`shrink`]): a dentry that only its parent's table holds goes when it is old. Negative dentries say that a name
//! is not there. Lock order: `RENAME` > `Dentry::children` > `Dentry::place` > the cache's queue.

use super::inode::Inode;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Serialises moves of dentries; readers that walk up the tree need it not, they see either place.
pub(super) static RENAME: Mutex<()> = Mutex::new(());

/// Dentries kept for later use; those in use are not counted out.
const MAX_CACHED: usize = 32_768;

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

/// A name in a directory, and the inode it stands for.
pub struct Dentry {
    /// Names this dentry in the mount table.
    pub id: u64,
    inode: RwLock<Option<Arc<Inode>>>,
    place: RwLock<Place>,
    children: Mutex<HashMap<Arc<[u8]>, Arc<Dentry>>>,
    /// Number of mounts on top of it.
    pub(super) mounted: AtomicU32,
    unlinked: AtomicBool,
    referenced: AtomicBool,
}

/// What the cache knows of a name.
pub enum Cached {
    /// It is there (or known to be absent: a negative dentry).
    Hit(Arc<Dentry>),
    /// Ask the file system; the number says which state of the directory was looked at.
    Miss(u64),
}

impl Dentry {
    fn make(parent: Option<Arc<Self>>, name: Arc<[u8]>, inode: Option<Arc<Inode>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            inode: RwLock::new(inode),
            place: RwLock::new(Place { parent, name }),
            children: Mutex::default(),
            mounted: AtomicU32::new(0),
            unlinked: AtomicBool::new(false),
            referenced: AtomicBool::new(true),
        })
    }

    /// The root of a file system: one dentry, however often it is mounted.
    pub fn root_of(inode: &Arc<Inode>) -> Arc<Self> {
        let mut slot = inode.sb.root.lock();
        if let Some(d) = slot.upgrade() {
            return d;
        }
        let d = Self::make(None, Arc::from(&b"/"[..]), Some(Arc::clone(inode)));
        *slot = Arc::downgrade(&d);
        d
    }

    /// A dentry of a file that has no place in the tree (pipes, sockets, memory files).
    pub fn new_anon(name: &Arc<[u8]>, inode: Arc<Inode>) -> Arc<Self> {
        Self::make(None, Arc::clone(name), Some(inode))
    }

    /// A dentry outside of the cache (directories whose names change without the VFS).
    pub fn new_loose(parent: &Arc<Self>, name: &[u8], inode: Arc<Inode>) -> Arc<Self> {
        Self::make(Some(Arc::clone(parent)), Arc::from(name), Some(inode))
    }

    /// The inode; `None` for a negative dentry.
    pub fn inode(&self) -> Option<Arc<Inode>> {
        self.inode.read().clone()
    }

    /// Name in the parent; `/` for a root.
    pub fn name(&self) -> Arc<[u8]> {
        Arc::clone(&self.place.read().name)
    }

    /// The directory it is in; `None` for a root.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.place.read().parent.clone()
    }

    /// Marks a loose dentry as one whose name is not (or no longer) there.
    pub fn mark_unlinked(&self) {
        self.unlinked.store(true, Ordering::Release);
    }

    /// True if its name has been removed.
    pub fn is_unlinked(&self) -> bool {
        self.unlinked.load(Ordering::Acquire)
    }

    /// True if something is mounted on it.
    pub fn is_mountpoint(&self) -> bool {
        self.mounted.load(Ordering::Acquire) != 0
    }

    /// True if `self` is `other` or lies below it.
    pub fn is_below(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = Arc::clone(self);
        loop {
            if Arc::ptr_eq(&at, other) {
                return true;
            }
            match at.parent() {
                Some(p) => at = p,
                None => return false,
            }
        }
    }

    /// Looks in the cache only.
    pub fn cached(&self, dir: &Inode, name: &[u8]) -> Cached {
        let children = self.children.lock();
        match children.get(name) {
            Some(d) => {
                d.referenced.store(true, Ordering::Relaxed);
                Cached::Hit(Arc::clone(d))
            }
            None => Cached::Miss(dir.generation()),
        }
    }

    /// Puts the answer of a lookup into the cache: `None` if the directory has changed since `generation`, so that
    /// the lookup must be made again.
    pub fn add_child(
        self: &Arc<Self>,
        dir: &Inode,
        name: &[u8],
        inode: Option<Arc<Inode>>,
        generation: u64,
    ) -> Option<Arc<Self>> {
        let mut children = self.children.lock();
        if let Some(d) = children.get(name) {
            return Some(Arc::clone(d));
        }
        if dir.generation() != generation {
            return None;
        }
        let name: Arc<[u8]> = Arc::from(name);
        let d = Self::make(Some(Arc::clone(self)), Arc::clone(&name), inode);
        children.insert(name, Arc::clone(&d));
        drop(children);
        remember(&d);
        Some(d)
    }

    /// After the file system has made `name`: gives its dentry. Bumps the directory's state.
    pub fn instantiate(self: &Arc<Self>, dir: &Inode, name: &[u8], inode: Arc<Inode>) -> Arc<Self> {
        let mut children = self.children.lock();
        dir.bump();
        if let Some(d) = children.get(name) {
            let d = Arc::clone(d);
            *d.inode.write() = Some(inode);
            return d;
        }
        let name: Arc<[u8]> = Arc::from(name);
        let d = Self::make(Some(Arc::clone(self)), Arc::clone(&name), Some(inode));
        children.insert(name, Arc::clone(&d));
        drop(children);
        remember(&d);
        d
    }

    /// After the file system has removed `name`.
    pub fn removed(&self, dir: &Inode, name: &[u8]) {
        let gone = {
            let mut children = self.children.lock();
            dir.bump();
            children.remove(name)
        };
        if let Some(d) = gone {
            d.unlinked.store(true, Ordering::Release);
        }
    }

    /// After the file system has renamed: moves the dentry (and what is cached below it).
    pub fn moved(from: (&Arc<Self>, &Inode, &[u8]), to: (&Arc<Self>, &Inode, &[u8]), exchange: bool) {
        let _rename = RENAME.lock();
        let a = {
            let mut c = from.0.children.lock();
            from.1.bump();
            c.remove(from.2)
        };
        let b = {
            let mut c = to.0.children.lock();
            to.1.bump();
            c.remove(to.2)
        };
        if let Some(a) = a {
            a.put_at(to.0, to.2);
        }
        if let Some(b) = b {
            if exchange {
                b.put_at(from.0, from.2);
            } else {
                b.unlinked.store(true, Ordering::Release);
            }
        }
    }

    fn put_at(self: Arc<Self>, parent: &Arc<Self>, name: &[u8]) {
        let name: Arc<[u8]> = Arc::from(name);
        *self.place.write() = Place { parent: Some(Arc::clone(parent)), name: Arc::clone(&name) };
        parent.children.lock().insert(name, self);
    }

    /// Forgets everything below that nobody uses (umount, shrink). No recursion: a tree may be very deep.
    pub fn prune(self: &Arc<Self>) {
        let mut all: Vec<Arc<Self>> = self.children.lock().values().cloned().collect();
        let mut at = 0;
        while at < all.len() {
            let below: Vec<Arc<Self>> = all[at].children.lock().values().cloned().collect();
            all.extend(below);
            at += 1;
        }
        // Parents come before their children, so the last is always a leaf.
        while let Some(d) = all.pop() {
            d.forget_if_unused();
        }
    }

    /// Takes it out of its parent's table if only that table and the caller hold it.
    fn forget_if_unused(self: &Arc<Self>) -> bool {
        let Some(parent) = self.parent() else { return false };
        let name = self.name();
        let mut children = parent.children.lock();
        // The table and the caller: nobody can take another reference while the table is locked.
        if Arc::strong_count(self) != 2 || !children.get(&name).is_some_and(|d| Arc::ptr_eq(d, self)) {
            return false;
        }
        let gone = children.remove(&name);
        drop(children);
        drop(gone);
        true
    }
}

impl Drop for Dentry {
    /// Lets go of the chain of parents one by one: recursion could be as deep as the tree.
    fn drop(&mut self) {
        let mut next = self.place.get_mut().parent.take();
        while let Some(p) = next {
            next = Arc::into_inner(p).and_then(|mut d| d.place.get_mut().parent.take());
        }
    }
}

/// Cached dentries, oldest first.
static CACHE: Mutex<VecDeque<Weak<Dentry>>> = Mutex::new(VecDeque::new());

fn remember(d: &Arc<Dentry>) {
    let over = {
        let mut q = CACHE.lock();
        q.push_back(Arc::downgrade(d));
        q.len() > MAX_CACHED
    };
    if over {
        shrink(64);
    }
}

/// Looks at `n` of the oldest dentries and forgets those that are neither used nor lately found.
pub fn shrink(n: usize) {
    for _ in 0..n {
        let Some(old) = CACHE.lock().pop_front() else { return };
        let Some(d) = old.upgrade() else { continue };
        if d.is_unlinked() {
            continue;
        }
        let lately = d.referenced.swap(false, Ordering::Relaxed);
        if lately || !d.forget_if_unused() {
            // In use or lately used: it waits for another turn.
            CACHE.lock().push_back(Arc::downgrade(&d));
        }
    }
}
