//! Mounts and mount namespaces (mount(2), mount_namespaces(7)).
//!
//! A mount shows a dentry tree at a place. The table of mounts is keyed by (mount, dentry) of the place; a dentry
//! with something on it carries a count, so a path walk looks here only where it must. Lock order: `MountNs::mounts`
//! > the table > `Mount::place`.

use super::dentry::Dentry;
use super::inode::Inode;
use super::path::{FsStruct, Path};
use super::super_block::SuperBlock;
use crate::{Errno, Result};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// mount(2) flags that belong to a mount, not to the file system.
pub mod ms {
    #![allow(missing_docs)]
    pub const RDONLY: u32 = 1;
    pub const NOSUID: u32 = 2;
    pub const NODEV: u32 = 4;
    pub const NOEXEC: u32 = 8;
    pub const REMOUNT: u32 = 32;
    pub const NOSYMFOLLOW: u32 = 256;
    pub const NOATIME: u32 = 1024;
    pub const NODIRATIME: u32 = 2048;
    pub const BIND: u32 = 4096;
    pub const MOVE: u32 = 8192;
    pub const REC: u32 = 16384;
    pub const SILENT: u32 = 32768;
    pub const UNBINDABLE: u32 = 1 << 17;
    pub const PRIVATE: u32 = 1 << 18;
    pub const SLAVE: u32 = 1 << 19;
    pub const SHARED: u32 = 1 << 20;
    pub const RELATIME: u32 = 1 << 21;
    pub const STRICTATIME: u32 = 1 << 24;
    /// What a mount keeps of the flags.
    pub const MNT: u32 = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW | NOATIME | NODIRATIME | RELATIME;
    /// The propagation types.
    pub const PROPAGATION: u32 = UNBINDABLE | PRIVATE | SLAVE | SHARED;
}

/// Mounts a namespace may hold (fs.mount-max).
const MOUNT_MAX: usize = 100_000;

/// A file system, or a part of one, shown at a place.
pub struct Mount {
    /// Number in mountinfo.
    pub id: u64,
    /// The file system.
    pub sb: Arc<SuperBlock>,
    /// What is shown: the root of the file system, or a part of it (bind mounts).
    pub root: Arc<Dentry>,
    /// Name of the source, as /proc/mounts shows it.
    pub source: String,
    flags: AtomicU32,
    /// Propagation type as `ms::SHARED` and so on; 0 is private.
    propagation: AtomicU32,
    place: RwLock<Option<Path>>,
}

impl Mount {
    fn new(sb: Arc<SuperBlock>, root: Arc<Dentry>, source: String, flags: u32) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(20);
        let mut flags = flags & ms::MNT;
        if flags & ms::NOATIME == 0 {
            flags |= ms::RELATIME;
        }
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sb,
            root,
            source,
            flags: AtomicU32::new(flags),
            propagation: AtomicU32::new(0),
            place: RwLock::new(None),
        })
    }

    /// A mount of a whole file system that is in no namespace (the kernel's own: pipes, sockets, memory files).
    pub fn detached(root: &Arc<Inode>, source: &str, flags: u32) -> Arc<Self> {
        Self::new(Arc::clone(&root.sb), Dentry::root_of(root), source.to_owned(), flags)
    }

    /// MS_* flags of the mount.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// True if nothing may be written through it.
    pub fn read_only(&self) -> bool {
        self.flags() & ms::RDONLY != 0 || self.sb.read_only()
    }

    /// Where it is mounted; `None` for the root of a namespace and for detached mounts.
    pub fn mountpoint(&self) -> Option<Path> {
        self.place.read().clone()
    }

    /// Its root as a place.
    pub fn root_path(self: &Arc<Self>) -> Path {
        Path { mnt: Arc::clone(self), dentry: Arc::clone(&self.root) }
    }

    fn is_below(self: &Arc<Self>, top: &Arc<Self>) -> bool {
        let mut at = Arc::clone(self);
        loop {
            if Arc::ptr_eq(&at, top) {
                return true;
            }
            match at.mountpoint() {
                Some(p) => at = p.mnt,
                None => return false,
            }
        }
    }
}

/// Mounts by the place they are on: (mount, dentry).
type Table = HashMap<(u64, u64), Arc<Mount>>;

static TABLE: RwLock<Option<Table>> = RwLock::new(None);

/// What is mounted directly on this place.
pub fn mounted_on(at: &Path) -> Option<Arc<Mount>> {
    TABLE.read().as_ref()?.get(&(at.mnt.id, at.dentry.id)).cloned()
}

/// A mount namespace.
pub struct MountNs {
    root: RwLock<Arc<Mount>>,
    mounts: Mutex<Vec<Arc<Mount>>>,
}

impl MountNs {
    /// A namespace with one mount.
    pub fn new(root: &Arc<Inode>, source: &str, flags: u32) -> Arc<Self> {
        let m = Mount::detached(root, source, flags);
        Arc::new(Self { root: RwLock::new(Arc::clone(&m)), mounts: Mutex::new(vec![m]) })
    }

    /// The root as a task sees it: on top of everything mounted over it.
    pub fn root_path(&self) -> Path {
        self.root.read().root_path().topmost()
    }

    /// All mounts, oldest first.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.mounts.lock().clone()
    }

    fn holds(&self, m: &Arc<Mount>) -> bool {
        self.mounts.lock().iter().any(|x| Arc::ptr_eq(x, m))
    }

    fn attach(&self, m: &Arc<Mount>, at: Path) -> Result<()> {
        let mut list = self.mounts.lock();
        if list.len() >= MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        if at.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let mut table = TABLE.write();
        let map = table.get_or_insert_with(HashMap::new);
        at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        map.insert((at.mnt.id, at.dentry.id), Arc::clone(m));
        *m.place.write() = Some(at);
        if !list.iter().any(|x| Arc::ptr_eq(x, m)) {
            list.push(Arc::clone(m));
        }
        Ok(())
    }

    fn unhook(m: &Arc<Mount>) {
        let place = m.place.write().take();
        if let Some(at) = place {
            if let Some(map) = TABLE.write().as_mut() {
                map.remove(&(at.mnt.id, at.dentry.id));
            }
            at.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Mounts the file system with this root at `at` (on top of what is there).
    pub fn mount(&self, at: Path, root: &Arc<Inode>, source: &str, flags: u32) -> Result<Arc<Mount>> {
        let at = at.topmost();
        if at.inode()?.is_dir() != root.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        // The same file system on top of itself helps nobody (EBUSY of mount(2)).
        if Arc::ptr_eq(&at.mnt.sb, &root.sb) && Arc::ptr_eq(&at.dentry, &at.mnt.root) {
            return Err(Errno::EBUSY);
        }
        let m = Mount::detached(root, source, flags);
        self.attach(&m, at)?;
        Ok(m)
    }

    /// MS_BIND: shows `what` at `at`, with what is mounted below it if `recursive`.
    pub fn bind(&self, what: &Path, at: Path, recursive: bool) -> Result<()> {
        let at = at.topmost();
        if at.inode()?.is_dir() != what.inode()?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if what.mnt.propagation.load(Ordering::Relaxed) == ms::UNBINDABLE {
            return Err(Errno::EINVAL);
        }
        let copy = |m: &Arc<Mount>, root: &Arc<Dentry>| {
            Mount::new(Arc::clone(&m.sb), Arc::clone(root), m.source.clone(), m.flags())
        };
        // What lies below is listed first: the copy itself may come to lie there.
        let below = if recursive { self.tree(&what.mnt) } else { Vec::new() };
        let top = copy(&what.mnt, &what.dentry);
        self.attach(&top, at)?;
        let mut made: HashMap<u64, Arc<Mount>> = HashMap::from([(what.mnt.id, top)]);
        for m in below.iter().skip(1) {
            let Some(place) = m.mountpoint() else { continue };
            let Some(parent) = made.get(&place.mnt.id).map(Arc::clone) else { continue };
            if !place.dentry.is_below(&parent.root) || m.propagation.load(Ordering::Relaxed) == ms::UNBINDABLE
            {
                continue;
            }
            let c = copy(m, &m.root);
            self.attach(&c, Path { mnt: parent, dentry: place.dentry })?;
            made.insert(m.id, c);
        }
        Ok(())
    }

    /// `top` and the mounts below it, parents first.
    fn tree(&self, top: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut out: Vec<Arc<Mount>> = vec![Arc::clone(top)];
        let list = self.mounts();
        let mut at = 0;
        while at < out.len() {
            let id = out[at].id;
            out.extend(list.iter().filter(|m| m.mountpoint().is_some_and(|p| p.mnt.id == id)).cloned());
            at += 1;
        }
        out
    }

    /// MS_MOVE: takes a mount from its place to another.
    pub fn move_mount(&self, what: &Path, at: Path) -> Result<()> {
        let at = at.topmost();
        let m = &what.mnt;
        if !Arc::ptr_eq(&what.dentry, &m.root) || m.mountpoint().is_none() || !self.holds(m) {
            return Err(Errno::EINVAL);
        }
        if at.inode()?.is_dir() != what.inode()?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if at.mnt.is_below(m) {
            return Err(Errno::ELOOP);
        }
        Self::unhook(m);
        self.attach(m, at)
    }

    /// umount2(2) of the mount whose root is `what`. Takes the place by value: the caller's own use of the mount
    /// must not make it busy.
    pub fn umount(&self, what: Path, detach: bool) -> Result<()> {
        let Path { mnt, dentry } = what;
        if !Arc::ptr_eq(&dentry, &mnt.root) || !self.holds(&mnt) {
            return Err(Errno::EINVAL);
        }
        drop(dentry);
        if mnt.mountpoint().is_none() {
            return Err(if detach { Errno::EINVAL } else { Errno::EBUSY });
        }
        // The table, the list and this reference; more means open files, directories or mounts below.
        if !detach && Arc::strong_count(&mnt) > 3 {
            return Err(Errno::EBUSY);
        }
        let gone = self.tree(&mnt);
        for m in gone.iter().rev() {
            Self::unhook(m);
        }
        self.mounts.lock().retain(|m| !gone.iter().any(|g| Arc::ptr_eq(g, m)));
        mnt.root.prune();
        Ok(())
    }

    /// MS_REMOUNT: new flags of a mount, and of its file system unless MS_BIND is given.
    pub fn remount(&self, what: &Path, flags: u32, data: &[u8]) -> Result<()> {
        let m = &what.mnt;
        if !Arc::ptr_eq(&what.dentry, &m.root) {
            return Err(Errno::EINVAL);
        }
        if flags & ms::BIND == 0 {
            m.sb.ops.remount(flags & ms::RDONLY != 0, data)?;
            m.sb.set_read_only(flags & ms::RDONLY != 0);
        }
        let mut new = flags & ms::MNT;
        if new & (ms::NOATIME | ms::RELATIME) == 0 && flags & ms::STRICTATIME == 0 {
            new |= m.flags() & (ms::NOATIME | ms::RELATIME);
        }
        m.flags.store(new, Ordering::Relaxed);
        Ok(())
    }

    /// MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE: recorded and shown.
    /// DIFFERS: mounts are not propagated between namespaces.
    pub fn set_propagation(&self, what: &Path, kind: u32, recursive: bool) -> Result<()> {
        if !Arc::ptr_eq(&what.dentry, &what.mnt.root) {
            return Err(Errno::EINVAL);
        }
        let kind = kind & ms::PROPAGATION;
        if kind.count_ones() != 1 {
            return Err(Errno::EINVAL);
        }
        let all = if recursive { self.tree(&what.mnt) } else { vec![Arc::clone(&what.mnt)] };
        for m in all {
            m.propagation.store(if kind == ms::PRIVATE { 0 } else { kind }, Ordering::Relaxed);
        }
        Ok(())
    }

    /// pivot_root(2): `new` becomes the root, the old root goes to `put_old`.
    pub fn pivot_root(&self, fs: &FsStruct, new: &Path, put_old: &Path) -> Result<()> {
        let old = fs.root();
        if !Arc::ptr_eq(&new.dentry, &new.mnt.root)
            || !Arc::ptr_eq(&old.dentry, &old.mnt.root)
            || new.mnt.mountpoint().is_none()
        {
            return Err(Errno::EINVAL);
        }
        if Arc::ptr_eq(&new.mnt, &old.mnt) || Arc::ptr_eq(&put_old.mnt, &old.mnt) {
            return Err(Errno::EBUSY);
        }
        if !put_old.mnt.is_below(&new.mnt) {
            return Err(Errno::EINVAL);
        }
        let old_place = old.mnt.mountpoint();
        Self::unhook(&new.mnt);
        Self::unhook(&old.mnt);
        match old_place {
            Some(p) => self.attach(&new.mnt, p)?,
            None => *self.root.write() = Arc::clone(&new.mnt),
        }
        // Where `put_old` is the new root itself, the old root lies on top of it and `umount -l .` takes it away.
        self.attach(&old.mnt, put_old.clone())?;
        Ok(())
    }

    /// A copy for unshare(CLONE_NEWNS), with root and working directory of `fs` moved into it.
    pub fn duplicate(&self, fs: &FsStruct) -> Result<FsStruct> {
        let old_root = Arc::clone(&self.root.read());
        let mut made: HashMap<u64, Arc<Mount>> = HashMap::new();
        let all = self.tree(&old_root);
        let copy = |m: &Arc<Mount>| {
            let c = Mount::new(Arc::clone(&m.sb), Arc::clone(&m.root), m.source.clone(), 0);
            c.flags.store(m.flags(), Ordering::Relaxed);
            c.propagation.store(m.propagation.load(Ordering::Relaxed), Ordering::Relaxed);
            c
        };
        let top = copy(&old_root);
        let ns = Arc::new(Self {
            root: RwLock::new(Arc::clone(&top)),
            mounts: Mutex::new(vec![Arc::clone(&top)]),
        });
        made.insert(old_root.id, top);
        for m in all.iter().skip(1) {
            let Some(place) = m.mountpoint() else { continue };
            let Some(parent) = made.get(&place.mnt.id).cloned() else { continue };
            let c = copy(m);
            ns.attach(&c, Path { mnt: parent, dentry: place.dentry })?;
            made.insert(m.id, c);
        }
        let map = |p: Path| match made.get(&p.mnt.id) {
            Some(m) => Path { mnt: Arc::clone(m), dentry: p.dentry },
            None => p,
        };
        let new = fs.duplicate();
        new.set_ns(ns, map(fs.root()), map(fs.cwd()));
        Ok(new)
    }
}

impl Drop for MountNs {
    fn drop(&mut self) {
        for m in self.mounts.get_mut().drain(..).rev() {
            Self::unhook(&m);
        }
    }
}

/// The namespace of the first process. Its lowest mount is an empty rootfs, into which the kernel unpacks the
/// initramfs and on which it mounts the root file system.
pub fn init_ns() -> Arc<MountNs> {
    static NS: OnceLock<Arc<MountNs>> = OnceLock::new();
    Arc::clone(NS.get_or_init(|| MountNs::new(&super::impls::tmpfs::new_rootfs(), "rootfs", 0)))
}

fn escape(out: &mut String, text: &[u8]) {
    use std::fmt::Write as _;
    for &b in text {
        if matches!(b, b' ' | b'\t' | b'\n' | b'\\' | b'#') || !b.is_ascii() {
            write!(out, "\\{b:03o}").ok();
        } else {
            out.push(char::from(b));
        }
    }
}

fn flag_text(m: &Mount, with_sb: bool) -> String {
    let f = m.flags();
    let mut s = String::from(if f & ms::RDONLY != 0 || (with_sb && m.sb.read_only()) { "ro" } else { "rw" });
    for (bit, name) in [
        (ms::NOSUID, ",nosuid"),
        (ms::NODEV, ",nodev"),
        (ms::NOEXEC, ",noexec"),
        (ms::NOATIME, ",noatime"),
        (ms::NODIRATIME, ",nodiratime"),
        (ms::RELATIME, ",relatime"),
        (ms::NOSYMFOLLOW, ",nosymfollow"),
    ] {
        if f & bit != 0 {
            s.push_str(name);
        }
    }
    s
}

/// /proc/PID/mounts as seen from the root of `fs`.
pub fn show_mounts(fs: &FsStruct) -> String {
    let root = fs.root();
    let mut out = String::new();
    for m in fs.ns().mounts() {
        let (at, reached) = m.root_path().display(&root);
        if !reached {
            continue;
        }
        escape(&mut out, m.source.as_bytes());
        out.push(' ');
        escape(&mut out, &at);
        out += &format!(" {} {}{} 0 0\n", m.sb.fs_type, flag_text(&m, true), m.sb.ops.show_options());
    }
    out
}

/// /proc/PID/mountinfo as seen from the root of `fs` (proc_pid_mountinfo(5)).
pub fn show_mountinfo(fs: &FsStruct) -> String {
    let root = fs.root();
    let mut out = String::new();
    for m in fs.ns().mounts() {
        let (at, reached) = m.root_path().display(&root);
        if !reached {
            continue;
        }
        let parent = m.mountpoint().map_or(m.id, |p| p.mnt.id);
        let (maj, min) = (super::inode::major(m.sb.dev), super::inode::minor(m.sb.dev));
        out += &format!("{} {parent} {maj}:{min} ", m.id);
        // The part of the file system that is shown: the dentry's name from the root of its tree.
        let mut parts = Vec::new();
        let mut d = Arc::clone(&m.root);
        while let Some(p) = d.parent() {
            parts.push(d.name());
            d = p;
        }
        let mut part = Vec::new();
        for p in parts.iter().rev() {
            part.push(b'/');
            part.extend_from_slice(p);
        }
        escape(&mut out, if part.is_empty() { b"/" } else { &part });
        out.push(' ');
        escape(&mut out, &at);
        out += &format!(" {}", flag_text(&m, false));
        match m.propagation.load(Ordering::Relaxed) {
            ms::SHARED => out += &format!(" shared:{}", m.id),
            ms::SLAVE => out += &format!(" master:{}", m.id),
            ms::UNBINDABLE => out += " unbindable",
            _ => {}
        }
        out += &format!(" - {} ", m.sb.fs_type);
        escape(&mut out, m.source.as_bytes());
        let rw = if m.sb.read_only() { "ro" } else { "rw" };
        out += &format!(" {rw}{}\n", m.sb.ops.show_options());
    }
    out
}
