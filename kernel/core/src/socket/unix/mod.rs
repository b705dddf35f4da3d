//! Unix sockets (unix(7)): streams, datagrams and sequenced packets between processes of this machine.
//!
//! * [`UnixSock`]: one end. Its receive queue is its own; senders put messages there and are charged for them until
//!   they have been read (`queue::Wmem`).
//! * [`name`]: abstract names and names in the file system.
//! * [`scm`]: files in flight (SCM_RIGHTS), their limits, and the collection of cycles of them.
//!
//! Lock order: names > files in flight > the state of a socket > its queue. No two sockets are locked at once. Wake-ups
//! and the drop of messages happen with no lock held.

mod conn;
mod data;
pub mod name;
mod proc;
mod queue;
pub mod scm;
#[cfg(test)]
mod tests;

pub use proc::proc_net_unix;

use super::common::SockCommon;
use super::msg::{Dest, RecvMsg, SendMsg, Ucred};
use super::{SockAddr, Socket};
use crate::fs::file::File;
use crate::fs::iov::IovIter;
use crate::fs::poll::{self, PollTable};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use klib::sync::Mutex;
use klib::waitqueue::WaitQueue;
use name::Name;
use queue::{Queue, Wmem};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use uapi::raw::net as c;

/// The receiving half is shut.
const RCV_SHUTDOWN: u32 = 1;
/// The sending half is shut.
const SEND_SHUTDOWN: u32 = 2;
/// net.unix.max_dgram_qlen: messages of others that wait in a datagram socket before senders have to.
const MAX_DGRAM_QLEN: usize = 10;

/// Connections that wait to be accepted.
struct Listen {
    backlog: usize,
    queue: VecDeque<Arc<UnixSock>>,
}

#[derive(Default)]
struct State {
    name: Option<Arc<Name>>,
    peer: Option<Weak<UnixSock>>,
    peer_name: Option<Arc<Name>>,
    peer_cred: Option<Ucred>,
    listen: Option<Listen>,
    /// A stream or packet socket has (or had) a peer.
    connected: bool,
    shut: u32,
    err: Option<Errno>,
    released: bool,
}

/// One unix socket.
pub struct UnixSock {
    common: SockCommon,
    me: Weak<UnixSock>,
    state: Mutex<State>,
    queue: Mutex<Queue>,
    wq: WaitQueue,
    wmem: Arc<Wmem>,
    /// Who opened it.
    cred: Ucred,
    /// The open file, for telling whether only messages in flight hold it.
    file: Mutex<Weak<File>>,
}

/// Tells a unix socket which open file it belongs to.
pub fn note_file(sock: &Arc<dyn Socket>, file: &Arc<File>) {
    if let Ok(u) = Arc::clone(sock).as_any().downcast::<UnixSock>() {
        *u.file.lock() = Arc::downgrade(file);
    }
}

impl UnixSock {
    fn with_cred(ty: u32, cred: Ucred) -> Arc<Self> {
        let sock = Arc::new_cyclic(|me| {
            let wq = WaitQueue::new();
            Self {
                common: SockCommon::new(c::AF_UNIX, ty, 0),
                me: Weak::clone(me),
                state: Mutex::default(),
                queue: Mutex::default(),
                wmem: Arc::new(Wmem::new(wq.clone())),
                wq,
                cred,
                file: Mutex::default(),
            }
        });
        proc::note(&sock);
        sock
    }

    /// socket(2).
    pub fn create(cur: &Arc<Task>, ty: u32, protocol: u32) -> Result<Arc<Self>> {
        if protocol != 0 && protocol != c::AF_UNIX {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let ty = match ty {
            // As BSD has it, raw is another word for datagrams.
            c::SOCK_RAW => c::SOCK_DGRAM,
            c::SOCK_STREAM | c::SOCK_DGRAM | c::SOCK_SEQPACKET => ty,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok(Self::with_cred(ty, Ucred::of(cur)))
    }

    /// socketpair(2).
    pub fn pair(cur: &Arc<Task>, ty: u32, protocol: u32) -> Result<(Arc<Self>, Arc<Self>)> {
        let a = Self::create(cur, ty, protocol)?;
        let b = Self::create(cur, ty, protocol)?;
        Self::join(&a, &b, Ucred::of(cur));
        Ok((a, b))
    }

    fn join(a: &Arc<Self>, b: &Arc<Self>, cred: Ucred) {
        for (x, y) in [(a, b), (b, a)] {
            let mut st = x.state.lock();
            st.peer = Some(Arc::downgrade(y));
            st.peer_cred = Some(cred);
            st.connected = true;
        }
    }

    fn is_dgram(&self) -> bool {
        self.common.ty == c::SOCK_DGRAM
    }

    fn peer(&self) -> Option<Arc<Self>> {
        self.state.lock().peer.as_ref().and_then(Weak::upgrade)
    }

    fn has_peer(&self, other: &Self) -> bool {
        self.state.lock().peer.as_ref().is_some_and(|p| std::ptr::eq(p.as_ptr(), other))
    }

    /// Datagrams of others have to wait.
    fn recvq_full(&self) -> bool {
        self.queue.lock().len() > MAX_DGRAM_QLEN
    }

    fn wake(&self, events: u32) {
        self.wq.wake(events);
    }
}

impl Socket for UnixSock {
    fn common(&self) -> &SockCommon {
        &self.common
    }

    fn bind<'a>(&'a self, cur: &'a Arc<Task>, addr: &'a SockAddr) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.do_bind(cur, addr))
    }

    fn connect(&self, cur: &Arc<Task>, dest: &Dest) -> Result<()> {
        self.do_connect(cur, dest)
    }

    fn listen(&self, cur: &Arc<Task>, backlog: i32) -> Result<()> {
        self.do_listen(cur, backlog)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(self.do_accept()?)
    }

    fn name(&self, peer: bool) -> Result<SockAddr> {
        let st = self.state.lock();
        if !peer {
            return Ok(Name::export(st.name.as_ref()));
        }
        if st.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        let other = st.peer.as_ref().and_then(Weak::upgrade);
        let known = st.peer_name.clone();
        drop(st);
        let now = other.and_then(|o| o.state.lock().name.clone());
        Ok(Name::export(now.or(known).as_ref()))
    }

    fn resolve<'a>(&'a self, cur: &'a Arc<Task>, addr: SockAddr) -> BoxFuture<'a, Result<Dest>> {
        Box::pin(async move {
            if addr.family() == c::AF_UNSPEC && self.is_dgram() {
                return Ok(Dest::Addr(addr));
            }
            Ok(Dest::Unix(name::find(cur, &addr, self.common.ty).await?))
        })
    }

    fn needs_resolve(&self) -> bool {
        true
    }

    fn try_send(&self, msg: &mut SendMsg, from: &mut IovIter<'_>) -> Result<usize> {
        match self.common.ty {
            c::SOCK_STREAM => self.send_stream(msg, from),
            _ => self.send_message(msg, from),
        }
    }

    fn try_recv(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>) -> Result<usize> {
        match self.common.ty {
            c::SOCK_STREAM => self.recv_stream(msg, to),
            _ => self.recv_message(msg, to),
        }
    }

    fn poll(&self, table: &mut PollTable) -> u32 {
        table.register(&self.wq, poll::IN | poll::OUT | poll::POLLRDHUP);
        let st = self.state.lock();
        let mut ev = 0;
        if st.err.is_some() {
            ev |= poll::POLLERR;
        }
        if st.shut == RCV_SHUTDOWN | SEND_SHUTDOWN {
            ev |= poll::POLLHUP;
        }
        if st.shut & RCV_SHUTDOWN != 0 {
            ev |= poll::POLLRDHUP | poll::IN;
        }
        if let Some(l) = &st.listen {
            if !l.queue.is_empty() {
                ev |= poll::IN;
            }
            return ev;
        }
        if !self.is_dgram() && !st.connected {
            ev |= poll::POLLHUP;
        }
        let peer = st.peer.as_ref().and_then(Weak::upgrade);
        drop(st);
        if !self.queue.lock().is_empty() {
            ev |= poll::IN;
        }
        let mut writable = self.wmem.writable();
        if self.is_dgram()
            && let Some(p) = peer
            && !p.has_peer(self)
        {
            table.register(&p.wq, poll::OUT);
            writable &= !p.recvq_full();
        }
        if writable {
            ev |= poll::OUT;
        }
        ev
    }

    fn poll_send(&self, dest: &Dest, table: &mut PollTable) -> u32 {
        let ev = self.poll(table);
        let Dest::Unix(to) = dest else { return ev };
        table.register(&to.wq, poll::OUT);
        if self.is_dgram() {
            let blocked = to.recvq_full() && !to.has_peer(self);
            return if blocked && !to.is_released() { ev & !poll::OUT } else { ev };
        }
        // A connect that waits for room in the backlog.
        let st = to.state.lock();
        match &st.listen {
            Some(l) if l.queue.len() > l.backlog => 0,
            _ => poll::OUT,
        }
    }

    fn shutdown(&self, how: u32) -> Result<()> {
        self.do_shutdown(how)
    }

    fn sol_socket_changed(&self, _cur: &Arc<Task>, name: u32, _val: &[u8]) -> Result<()> {
        if matches!(name, c::SO_SNDBUF | c::SO_SNDBUFFORCE) {
            self.wmem.set_limit(self.common.opts().sndbuf);
        }
        Ok(())
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().err.take()
    }

    fn is_listening(&self) -> bool {
        self.state.lock().listen.is_some()
    }

    fn peer_cred(&self) -> Option<Ucred> {
        self.state.lock().peer_cred
    }

    fn inq(&self) -> Result<u64> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        let q = self.queue.lock();
        let all = if self.is_dgram() { q.front().map_or(0, |i| i.left().len()) } else { q.bytes() };
        Ok(all as u64)
    }

    fn outq(&self) -> Result<u64> {
        Ok(self.wmem.used() as u64)
    }

    fn release(&self) {
        self.do_release();
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
