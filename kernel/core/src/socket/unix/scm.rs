//! Files in flight: SCM_RIGHTS.
//!
//! A file in a message is held by the message. Two sockets that hold each other's files in their queues and that no
//! descriptor names any more would live for ever; [`collect`] finds such cycles when a socket is closed, as the
//! garbage collector of Linux does (net/unix/garbage.c has the idea). How many files a user may have in flight is
//! bounded by RLIMIT_NOFILE.

use super::{Queue, UnixSock};
use crate::fs::file::File;
use crate::socket::SocketFile;
use crate::task::Task;
use crate::{Errno, Result};
use klib::sync::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// A unix socket of which files are in flight.
struct Flying {
    sock: Weak<UnixSock>,
    count: usize,
}

#[derive(Default)]
struct InFlight {
    per_user: HashMap<u32, usize>,
    socks: HashMap<usize, Flying>,
    /// Sockets closed since the last look for cycles.
    closed: usize,
}

/// With so few sockets in flight a look for cycles costs nothing.
const FEW: usize = 64;

/// Lock order: this before the queues of sockets.
static IN_FLIGHT: Mutex<Option<InFlight>> = Mutex::new(None);

/// Files that travel with a message.
pub struct Rights {
    files: Vec<Arc<File>>,
    user: u32,
}

fn unix_of(file: &File) -> Option<Arc<UnixSock>> {
    let sock = Arc::clone(&file.ops_as::<SocketFile>()?.sock);
    sock.as_any().downcast::<UnixSock>().ok()
}

fn key(sock: &UnixSock) -> usize {
    std::ptr::from_ref(sock).addr()
}

impl Rights {
    /// Puts files into flight for a user; `ETOOMANYREFS` beyond the limit.
    pub fn attach(cur: &Task, files: Vec<Arc<File>>) -> Result<Self> {
        let cred = cur.cred();
        let free = cred.capable(CAP_SYS_ADMIN) || cred.capable(CAP_SYS_RESOURCE);
        let limit = if free { usize::MAX } else { cur.nofile_limit() };
        Self::with_limit(files, cred.uid, limit)
    }

    pub(super) fn with_limit(files: Vec<Arc<File>>, user: u32, limit: usize) -> Result<Self> {
        let socks: Vec<_> = files.iter().filter_map(|f| unix_of(f)).collect();
        let mut guard = IN_FLIGHT.lock();
        let all = guard.get_or_insert_default();
        let n = all.per_user.entry(user).or_default();
        if *n + files.len() > limit {
            drop(guard);
            return Err(Errno::ETOOMANYREFS);
        }
        *n += files.len();
        for s in &socks {
            let f = all.socks.entry(key(s)).or_insert_with(|| Flying { sock: Arc::downgrade(s), count: 0 });
            f.count += 1;
        }
        drop(guard);
        Ok(Self { files, user })
    }

    /// The same files once more, for MSG_PEEK.
    pub fn duplicate(&self) -> Option<Self> {
        // Made under the lock of a queue, so the count of what is in flight is not touched: these are the receiver's.
        Some(Self { files: self.files.clone(), user: NO_USER })
    }

    /// Takes the files out of flight.
    pub fn into_files(mut self) -> Vec<Arc<File>> {
        self.land();
        std::mem::take(&mut self.files)
    }

    fn land(&mut self) {
        let user = std::mem::replace(&mut self.user, NO_USER);
        if user == NO_USER {
            return;
        }
        let socks: Vec<_> = self.files.iter().filter_map(|f| unix_of(f)).collect();
        let mut guard = IN_FLIGHT.lock();
        let Some(all) = guard.as_mut() else { return };
        if let Some(n) = all.per_user.get_mut(&user) {
            *n = n.saturating_sub(self.files.len());
            if *n == 0 {
                all.per_user.remove(&user);
            }
        }
        for s in &socks {
            if let Some(f) = all.socks.get_mut(&key(s)) {
                f.count -= 1;
                if f.count == 0 {
                    all.socks.remove(&key(s));
                }
            }
        }
        drop(guard);
    }
}

/// A user id that nobody has: these files are not counted.
const NO_USER: u32 = u32::MAX;

thread_local! {
    static GRAVEYARD: RefCell<Vec<Arc<File>>> = const { RefCell::new(Vec::new()) };
    static DRAINING: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Rights {
    fn drop(&mut self) {
        self.land();
        // The last reference of a file may be the last of a socket, whose queue holds files again, and so on: a chain
        // as long as a guest likes. It is taken apart in a loop, not by recursion.
        GRAVEYARD.with_borrow_mut(|g| g.append(&mut self.files));
        if DRAINING.replace(true) {
            return;
        }
        while let Some(f) = GRAVEYARD.with_borrow_mut(Vec::pop) {
            drop(f);
        }
        DRAINING.set(false);
    }
}

fn rights_of(sock: &UnixSock, out: &mut Vec<usize>) {
    sock.with_queues(&mut |q: &mut Queue| {
        for r in q.iter().filter_map(|i| i.rights.as_ref()) {
            out.extend(r.files.iter().filter_map(|f| unix_of(f)).map(|s| key(&s)));
        }
    });
}

/// Frees sockets that only each other's messages keep alive. Called when a socket has been closed.
pub fn collect() {
    let mut guard = IN_FLIGHT.lock();
    let Some(all) = guard.as_mut().filter(|a| !a.socks.is_empty()) else { return };
    // A look costs as much as there is in flight, so it must be worth that many closes.
    all.closed += 1;
    if all.socks.len() > FEW && all.closed < all.socks.len() {
        return;
    }
    all.closed = 0;
    // Held by messages only: every reference of the open file is one in flight.
    let mut suspects: HashMap<usize, (Arc<UnixSock>, usize)> = HashMap::new();
    for (k, f) in &all.socks {
        let Some(sock) = f.sock.upgrade() else { continue };
        if sock.file.lock().strong_count() == f.count {
            suspects.insert(*k, (sock, f.count));
        }
    }
    // References that come from the queues of suspects.
    let mut holds: HashMap<usize, Vec<usize>> = HashMap::new();
    for (k, (sock, _)) in &suspects {
        let mut v = Vec::new();
        rights_of(sock, &mut v);
        holds.insert(*k, v);
    }
    let mut inner: HashMap<usize, usize> = HashMap::new();
    for t in holds.values().flatten() {
        *inner.entry(*t).or_default() += 1;
    }
    // Whoever is also held from elsewhere can be reached, and so can all that it holds.
    let mut live: HashSet<usize> = HashSet::new();
    let mut todo: Vec<usize> = suspects
        .iter()
        .filter(|(k, (_, n))| inner.get(k).copied().unwrap_or(0) < *n)
        .map(|(k, _)| *k)
        .collect();
    while let Some(k) = todo.pop() {
        if live.insert(k) {
            todo.extend(holds.get(&k).into_iter().flatten().filter(|t| suspects.contains_key(t)));
        }
    }
    let mut dead = Vec::new();
    for (k, (sock, _)) in &suspects {
        if !live.contains(k) {
            sock.with_queues(&mut |q: &mut Queue| dead.extend(q.take_all()));
        }
    }
    drop(guard);
    drop(dead);
}
