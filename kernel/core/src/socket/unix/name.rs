//! Names of unix sockets: abstract ones, which live here, and paths, which live in a file system.

use super::UnixSock;
use crate::fs::inode::{Inode, S_IFSOCK};
use crate::fs::{namei, namei_ops, perm};
use crate::socket::SockAddr;
use crate::task::Task;
use crate::{Errno, Result};
use klib::sync::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use uapi::raw::net as c;

/// The name a socket is bound to.
pub enum Name {
    /// Without the NUL byte in front.
    Abstract(Vec<u8>),
    /// As it was given to bind(2), and what it named then.
    Path(Vec<u8>, Arc<Inode>),
}

impl Name {
    /// As getsockname(2) gives it; a socket without a name has the family only.
    pub fn export(name: Option<&Arc<Self>>) -> SockAddr {
        match name.map(|n| &**n) {
            None => SockAddr::from_unix(&[]),
            Some(Self::Abstract(n)) => SockAddr::from_unix(&[&[0], &n[..]].concat()),
            Some(Self::Path(p, _)) => SockAddr::from_unix(&[&p[..], &[0]].concat()),
        }
    }
}

/// Abstract names; each type of socket has names of its own.
static ABSTRACT: Mutex<Option<AbstractTable>> = Mutex::new(None);

type AbstractTable = HashMap<(u32, Vec<u8>), Weak<UnixSock>>;

fn claim(key: (u32, Vec<u8>), sock: &Arc<UnixSock>) -> bool {
    let mut table = ABSTRACT.lock();
    let table = table.get_or_insert_default();
    let taken = table.get(&key).is_some_and(|s| s.strong_count() > 0);
    if !taken {
        table.insert(key, Arc::downgrade(sock));
    }
    !taken
}

/// What an address names: the bytes after the family, checked.
fn path_of(addr: &SockAddr) -> Result<&[u8]> {
    if addr.family() != c::AF_UNIX || addr.len() > 110 {
        return Err(Errno::EINVAL);
    }
    addr.bytes().get(2..).filter(|p| !p.is_empty()).ok_or(Errno::EINVAL)
}

/// Binds `sock` to the name in `addr`.
pub(super) async fn bind(cur: &Arc<Task>, sock: &Arc<UnixSock>, addr: &SockAddr) -> Result<Arc<Name>> {
    match path_of(addr)? {
        [0, name @ ..] => {
            if !claim((sock.common.ty, name.to_vec()), sock) {
                return Err(Errno::EADDRINUSE);
            }
            Ok(Arc::new(Name::Abstract(name.to_vec())))
        }
        text => {
            let path = until_nul(text);
            let made = namei_ops::make_node(cur, namei::AT_FDCWD, path, S_IFSOCK | 0o777, 0, &[]).await;
            let inode = made.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?.inode()?;
            let any: Arc<dyn Any + Send + Sync> = Arc::<UnixSock>::clone(sock);
            *inode.socket.lock() = Some(Arc::downgrade(&any));
            Ok(Arc::new(Name::Path(path.to_vec(), inode)))
        }
    }
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|&b| b == 0).next().unwrap_or(&[])
}

/// A free abstract name of five hex digits.
pub(super) fn autobind(sock: &Arc<UnixSock>) -> Result<Arc<Name>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..=0xf_ffff {
        let n = NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        let name = format!("{n:05x}").into_bytes();
        if claim((sock.common.ty, name.clone()), sock) {
            return Ok(Arc::new(Name::Abstract(name)));
        }
    }
    Err(Errno::ENOSPC)
}

/// Ends the claim of `sock` on a name, if it has it.
pub(super) fn forget(name: &Name, sock: &UnixSock) {
    match name {
        Name::Path(_, inode) => {
            let mut bound = inode.socket.lock();
            if bound
                .as_ref()
                .is_some_and(|s| s.as_ptr().cast::<u8>().addr() == std::ptr::from_ref(sock).addr())
            {
                *bound = None;
            }
        }
        Name::Abstract(n) => {
            let mut table = ABSTRACT.lock();
            let key = (sock.common.ty, n.clone());
            if let Some(t) = table.as_mut()
                && t.get(&key).is_some_and(|s| std::ptr::eq(s.as_ptr(), sock))
            {
                t.remove(&key);
            }
        }
    }
}

/// The socket that an address names, or `ECONNREFUSED`.
pub(super) async fn find(cur: &Arc<Task>, addr: &SockAddr, ty: u32) -> Result<Arc<UnixSock>> {
    match path_of(addr)? {
        [0, name @ ..] => {
            let table = ABSTRACT.lock();
            let key = (ty, name.to_vec());
            let found = table.as_ref().and_then(|t| t.get(&key)).and_then(Weak::upgrade);
            found.ok_or(Errno::ECONNREFUSED)
        }
        text => {
            let inode = namei::path_at(cur, namei::AT_FDCWD, until_nul(text), true).await?.inode()?;
            perm::inode_permission(&cur.cred(), &inode, perm::MAY_WRITE)?;
            if inode.kind != S_IFSOCK {
                return Err(Errno::ECONNREFUSED);
            }
            let bound = inode.socket.lock().as_ref().and_then(Weak::upgrade);
            bound.and_then(|b| b.downcast::<UnixSock>().ok()).ok_or(Errno::ECONNREFUSED)
        }
    }
}
