//! Options and mounting of tmpfs and ramfs (tmpfs(5)).

use super::{RAMFS_MAGIC, TMPFS_MAGIC, new_fs};
use crate::fs::inode::Inode;
use crate::fs::super_block::{FsType, MountArgs};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Options {
    pub pages: Option<u64>,
    pub inodes: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Options {
    /// `size=50%,nr_inodes=10k,mode=1777,uid=0,gid=0`; what Linux knows and has no meaning here is accepted.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let mut o = Self::default();
        for opt in text.split(',').filter(|s| !s.is_empty()) {
            let (key, value) = opt.split_once('=').unwrap_or((opt, ""));
            match key {
                "size" => {
                    o.pages = Some(match value.strip_suffix('%') {
                        Some(p) => {
                            let p: u64 = p.parse().map_err(|_| Errno::EINVAL)?;
                            ram_pages().saturating_mul(p) / 100
                        }
                        None => match number(value)? {
                            0 => u64::MAX >> 12,
                            n => n.div_ceil(4096),
                        },
                    });
                }
                "nr_blocks" => o.pages = Some(number(value)?),
                "nr_inodes" => {
                    o.inodes = Some(match number(value)? {
                        0 => u64::MAX,
                        n => n,
                    })
                }
                "mode" => o.mode = Some(u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777),
                "uid" => o.uid = Some(value.parse().map_err(|_| Errno::EINVAL)?),
                "gid" => o.gid = Some(value.parse().map_err(|_| Errno::EINVAL)?),
                "huge" | "mpol" | "inode64" | "inode32" | "noswap" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(o)
    }
}

fn number(s: &str) -> Result<u64> {
    let (digits, shift) = match s.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (&s[..s.len() - 1], 10),
        Some(b'm') => (&s[..s.len() - 1], 20),
        Some(b'g') => (&s[..s.len() - 1], 30),
        Some(b't') => (&s[..s.len() - 1], 40),
        _ => (s, 0),
    };
    let n: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    n.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

/// Pages of guest memory, of which a tmpfs takes at most half by default.
fn ram_pages() -> u64 {
    crate::mm::frames::frames().total_pages()
}

fn mount_named<'a>(
    fs_type: &'static str,
    magic: u64,
    limited: bool,
    cur: &'a Arc<Task>,
    args: &MountArgs<'a>,
) -> Result<Arc<Inode>> {
    // ramfs ignores options that it does not know.
    let o = match Options::parse(args.data) {
        Ok(o) => o,
        Err(_) if !limited => Options::default(),
        Err(e) => return Err(e),
    };
    let cred = cur.cred();
    let half = if limited { ram_pages() / 2 } else { u64::MAX >> 12 };
    let inodes = if limited { ram_pages() / 2 } else { u64::MAX };
    new_fs(
        fs_type,
        magic,
        o.pages.unwrap_or(half),
        o.inodes.unwrap_or(inodes),
        o.mode.unwrap_or(if limited { 0o1777 } else { 0o755 }),
        (o.uid.unwrap_or(cred.fsuid), o.gid.unwrap_or(cred.fsgid)),
        limited,
    )
}

fn mount_tmpfs<'a>(cur: &'a Arc<Task>, args: MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>> {
    Box::pin(async move { mount_named("tmpfs", TMPFS_MAGIC, true, cur, &args) })
}

fn mount_ramfs<'a>(cur: &'a Arc<Task>, args: MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>> {
    Box::pin(async move { mount_named("ramfs", RAMFS_MAGIC, false, cur, &args) })
}

/// Makes tmpfs and ramfs known to mount(2).
pub fn register() {
    crate::fs::super_block::register(FsType { name: "tmpfs", needs_dev: false, mount: mount_tmpfs });
    crate::fs::super_block::register(FsType { name: "ramfs", needs_dev: false, mount: mount_ramfs });
}
