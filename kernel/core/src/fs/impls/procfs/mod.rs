//! procfs (proc(5)): processes, the machine, and tunables.
//!
//! `pid` has the directories of processes, `status` their texts, `machine` what belongs to no process, `sys` the
//! tunables. Other subsystems add files with [`register`], [`register_rw`], [`register_net`].

mod machine;
mod pid;
mod status;
mod sys;

pub use machine::set_cmdline;

use super::pseudo::{self, Entry, Text, Tree};
use crate::fs::inode::{Answer, DirSink, Inode, InodeOps, NewInode, S_IFDIR, S_IFLNK};
use crate::fs::super_block::{FsType, MountArgs, PlainSuper, SuperBlock};
use crate::task::{Task, pid as pids};
use crate::{BoxFuture, Errno, Result};
use std::sync::{Arc, OnceLock};

const MAGIC: u64 = 0x9fa0;

/// What belongs to no process.
static TREE: Tree = Tree::new();
/// /proc/PID/net.
static NET: Tree = Tree::new();

/// Adds /proc/`path`.
pub fn register(path: &str, read: impl Fn() -> String + Send + Sync + 'static) {
    TREE.text(path, read);
}

/// Adds a writable /proc/`path`; `write` gets what one write(2) brought, without the newline at its end.
pub fn register_rw(
    path: &str,
    read: impl Fn() -> String + Send + Sync + 'static,
    write: impl Fn(&str) -> Result<()> + Send + Sync + 'static,
) {
    let text = Text::new(move |_| Ok(read().into_bytes())).writable(move |_, bytes| {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        write(text.trim_end_matches(['\n', '\0']))
    });
    TREE.add(path, Entry::File(text));
}

/// Adds a file to /proc/net.
pub fn register_net(name: &str, read: impl Fn() -> String + Send + Sync + 'static) {
    NET.text(name, read);
}

/// Link to the directory of whoever reads it.
struct SelfLink {
    thread: bool,
}

impl InodeOps for SelfLink {
    fn readlink<'a>(&'a self, _inode: &'a Arc<Inode>, cur: &'a Arc<Task>) -> Answer<'a, Vec<u8>> {
        let text =
            if self.thread { format!("{}/task/{}", cur.tgid(), cur.tid()) } else { cur.tgid().to_string() };
        Answer::Now(Ok(text.into_bytes()))
    }
}

struct Root;

/// Positions of processes in a listing lie behind all others.
const PID_BASE: u64 = 1 << 32;

impl InodeOps for Root {
    fn lookup<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Now(match name {
            b"self" | b"thread-self" => {
                let link = SelfLink { thread: name == b"thread-self" };
                let ino = pseudo::ino_of(if link.thread { "thread-self" } else { "self" });
                Ok(pseudo::inode(&dir.sb, ino, S_IFLNK | 0o777, (0, 0), Box::new(link)))
            }
            _ => match pid::parse(name) {
                Some(n) => pid::process_dir(&dir.sb, n),
                None => std::str::from_utf8(name).map_err(|_| Errno::ENOENT).and_then(|n| TREE.inode(n)),
            },
        })
    }

    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        if pos < PID_BASE {
            let mut names = TREE.names("");
            names.push((b"self".to_vec(), pseudo::ino_of("self"), S_IFLNK));
            names.push((b"thread-self".to_vec(), pseudo::ino_of("thread-self"), S_IFLNK));
            let mut full = false;
            pseudo::list(&names, pos, &mut |e| {
                let ok = sink(e);
                full |= !ok;
                ok
            });
            if full {
                return Answer::Now(Ok(()));
            }
        }
        let mut groups: Vec<u32> = pids::all_groups().iter().map(|g| g.tgid).collect();
        groups.sort_unstable();
        for n in groups {
            let at = PID_BASE + u64::from(n);
            if at >= pos {
                let name = n.to_string();
                let e = crate::fs::inode::DirEnt {
                    name: name.as_bytes(),
                    ino: pid::dir_ino(n),
                    kind: S_IFDIR,
                    next: at + 1,
                };
                if !sink(&e) {
                    break;
                }
            }
        }
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

    fn cacheable(&self, name: &[u8]) -> bool {
        !matches!(name, b"self" | b"thread-self") && pid::parse(name).is_none()
    }

    fn cache_absent(&self) -> bool {
        false
    }
}

/// The one root.
fn root() -> &'static Arc<Inode> {
    static ROOT: OnceLock<Arc<Inode>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let sb = SuperBlock::new("proc", MAGIC, 0, Box::new(PlainSuper));
        TREE.set_super(Arc::clone(&sb));
        NET.set_super(Arc::clone(&sb));
        machine::fill(&TREE);
        sys::fill(&TREE);
        machine::fill_net(&NET);
        pseudo::inode(&sb, 1, S_IFDIR | 0o555, (0, 0), Box::new(Root))
    })
}

fn mount<'a>(_cur: &'a Arc<Task>, _args: MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>> {
    // DIFFERS: hidepid and subset are accepted and show everything; all mounts show the same.
    Box::pin(async { Ok(Arc::clone(root())) })
}

/// Makes procfs known to mount(2).
pub fn init() {
    crate::fs::super_block::register(FsType { name: "proc", needs_dev: false, mount });
}
