//! Names, connections and their end.

use super::name;
use super::{Listen, RCV_SHUTDOWN, SEND_SHUTDOWN, UnixSock};
use crate::fs::poll;
use crate::socket::SockAddr;
use crate::socket::msg::{Dest, Ucred};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::{Arc, Weak};
use uapi::raw::net as c;

impl UnixSock {
    pub(super) async fn do_bind(&self, cur: &Arc<Task>, addr: &SockAddr) -> Result<()> {
        if addr.len() < 2 || addr.family() != c::AF_UNIX {
            return Err(Errno::EINVAL);
        }
        if addr.len() == 2 {
            return self.autobind();
        }
        if self.state.lock().name.is_some() {
            return Err(Errno::EINVAL);
        }
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let name = name::bind(cur, &me, addr).await?;
        let mut st = self.state.lock();
        if st.name.is_some() {
            drop(st);
            name::forget(&name, self);
            return Err(Errno::EINVAL);
        }
        st.name = Some(name);
        Ok(())
    }

    /// A free abstract name of five hex digits, unless there is one already.
    pub(super) fn autobind(&self) -> Result<()> {
        if self.state.lock().name.is_some() {
            return Ok(());
        }
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let name = name::autobind(&me)?;
        let mut st = self.state.lock();
        if st.name.is_some() {
            drop(st);
            name::forget(&name, self);
            return Ok(());
        }
        st.name = Some(name);
        Ok(())
    }

    pub(super) fn do_listen(&self, cur: &Arc<Task>, backlog: i32) -> Result<()> {
        if self.is_dgram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut st = self.state.lock();
        if st.name.is_none() || st.connected {
            return Err(Errno::EINVAL);
        }
        let backlog = usize::try_from(backlog).unwrap_or(0);
        st.peer_cred = Some(Ucred::of(cur));
        match &mut st.listen {
            Some(l) => l.backlog = backlog,
            None => st.listen = Some(Listen { backlog, queue: Default::default() }),
        }
        drop(st);
        // Those who wait for room in the backlog.
        self.wake(poll::OUT);
        Ok(())
    }

    pub(super) fn do_accept(&self) -> Result<Arc<Self>> {
        if self.is_dgram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut st = self.state.lock();
        if st.shut & RCV_SHUTDOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let listen = st.listen.as_mut().ok_or(Errno::EINVAL)?;
        let conn = listen.queue.pop_front().ok_or(Errno::EAGAIN)?;
        drop(st);
        self.wake(poll::OUT);
        Ok(conn)
    }

    pub(super) fn do_connect(&self, cur: &Arc<Task>, dest: &Dest) -> Result<()> {
        if self.is_dgram() {
            return self.connect_dgram(dest);
        }
        let Dest::Unix(to) = dest else { return Err(Errno::EINVAL) };
        {
            let st = self.state.lock();
            if st.listen.is_some() {
                return Err(Errno::EINVAL);
            }
            if st.connected {
                return Err(Errno::EISCONN);
            }
        }
        if to.common.ty != self.common.ty {
            return Err(Errno::EPROTOTYPE);
        }
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let my_name = self.state.lock().name.clone();
        let (server_name, server_cred) = {
            let st = to.state.lock();
            (st.name.clone(), st.peer_cred)
        };
        // The server's end, complete before anybody can see it.
        let child = Self::with_cred(self.common.ty, to.cred);
        {
            let mut c = child.state.lock();
            c.peer = Some(Arc::downgrade(&me));
            c.peer_name = my_name;
            c.peer_cred = Some(Ucred::of(cur));
            c.name = server_name.clone();
            c.connected = true;
        }
        child.common.opts().passcred = to.common.opts().passcred;
        // Refused, full and listening are decided under the lock of the listener.
        let mut lst = to.state.lock();
        if lst.released || lst.shut & RCV_SHUTDOWN != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let Some(listen) = lst.listen.as_mut() else { return Err(Errno::ECONNREFUSED) };
        if listen.queue.len() > listen.backlog {
            return Err(Errno::EAGAIN);
        }
        listen.queue.push_back(Arc::clone(&child));
        drop(lst);
        let mut st = self.state.lock();
        if st.connected {
            drop(st);
            child.do_release();
            return Err(Errno::EISCONN);
        }
        st.peer = Some(Arc::downgrade(&child));
        st.peer_name = server_name;
        st.peer_cred = server_cred;
        st.connected = true;
        drop(st);
        to.wake(poll::IN);
        self.wake(poll::OUT);
        Ok(())
    }

    fn connect_dgram(&self, dest: &Dest) -> Result<()> {
        let old = match dest {
            Dest::Unix(to) => {
                if to.common.ty != self.common.ty {
                    return Err(Errno::EPROTOTYPE);
                }
                let others = to.state.lock().peer.clone();
                if others.is_some_and(|p| !std::ptr::eq(p.as_ptr(), self)) {
                    return Err(Errno::EPERM);
                }
                let mut st = self.state.lock();
                st.connected = true;
                st.peer_name = None;
                st.peer_cred = None;
                st.peer.replace(Arc::downgrade(to))
            }
            // AF_UNSPEC: no peer any more.
            _ => {
                let mut st = self.state.lock();
                st.connected = false;
                st.peer_name = None;
                st.peer.take()
            }
        };
        // What the old peer sent does not belong to the new connection.
        if old.is_some() {
            let stale = self.queue.lock().take_all();
            drop(stale);
        }
        self.wake(poll::OUT);
        Ok(())
    }

    pub(super) fn do_shutdown(&self, how: u32) -> Result<()> {
        let mine = match how {
            c::SHUT_RD => RCV_SHUTDOWN,
            c::SHUT_WR => SEND_SHUTDOWN,
            _ => RCV_SHUTDOWN | SEND_SHUTDOWN,
        };
        let mut st = self.state.lock();
        st.shut |= mine;
        let peer = if self.is_dgram() { None } else { st.peer.as_ref().and_then(Weak::upgrade) };
        drop(st);
        if let Some(p) = peer {
            let mut theirs = 0;
            if mine & SEND_SHUTDOWN != 0 {
                theirs |= RCV_SHUTDOWN;
            }
            if mine & RCV_SHUTDOWN != 0 {
                theirs |= SEND_SHUTDOWN;
            }
            p.state.lock().shut |= theirs;
            p.wq.wake_all();
        }
        self.wq.wake_all();
        Ok(())
    }

    pub(super) fn do_release(&self) {
        let mut st = self.state.lock();
        if std::mem::replace(&mut st.released, true) {
            return;
        }
        st.shut = RCV_SHUTDOWN | SEND_SHUTDOWN;
        let peer = st.peer.take().and_then(|p| p.upgrade());
        let listen = st.listen.take();
        let name = st.name.clone();
        drop(st);
        if let Some(n) = &name {
            name::forget(n, self);
        }
        let unread = self.queue.lock().take_all();
        if let Some(p) = peer {
            if self.is_dgram() {
                p.wake(poll::OUT);
            } else {
                let mut pst = p.state.lock();
                pst.shut = RCV_SHUTDOWN | SEND_SHUTDOWN;
                if !unread.is_empty() {
                    pst.err = Some(Errno::ECONNRESET);
                }
                drop(pst);
                p.wq.wake_all();
            }
        }
        drop(unread);
        for embryo in listen.into_iter().flat_map(|l| l.queue) {
            // Linux resets those who were never accepted.
            if let Some(p) = embryo.peer() {
                p.state.lock().err = Some(Errno::ECONNRESET);
            }
            embryo.do_release();
        }
        self.wq.wake_all();
        super::scm::collect();
    }

    /// All queues that this socket keeps alive: its own, and those of connections not accepted yet.
    pub(super) fn with_queues(&self, f: &mut dyn FnMut(&mut super::Queue)) {
        f(&mut self.queue.lock());
        let embryos: Vec<_> = match &self.state.lock().listen {
            Some(l) => l.queue.iter().cloned().collect(),
            None => Vec::new(),
        };
        for e in embryos {
            f(&mut e.queue.lock());
        }
    }
}
