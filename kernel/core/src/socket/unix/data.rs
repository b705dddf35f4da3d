//! Sending and receiving.

use super::queue::Item;
use super::{RCV_SHUTDOWN, SEND_SHUTDOWN, UnixSock};
use crate::fs::iov::IovIter;
use crate::fs::poll;
use crate::socket::msg::{Dest, RecvMsg, SendMsg, Ucred};
use crate::{Errno, Result};
use std::sync::{Arc, Weak};
use uapi::raw::net as c;

/// Bytes of a stream that travel in one piece.
const PIECE: usize = 32 * 1024;

impl UnixSock {
    fn sender_cred(&self, msg: &SendMsg) -> Ucred {
        msg.control.cred.or(msg.cred).unwrap_or(self.cred)
    }

    pub(super) fn is_released(&self) -> bool {
        self.state.lock().released
    }

    /// Where a stream or packet socket sends to; the errors of one that cannot.
    fn connected_peer(&self) -> Result<Arc<Self>> {
        let mut st = self.state.lock();
        if let Some(e) = st.err.take() {
            return Err(e);
        }
        if !st.connected {
            return Err(Errno::ENOTCONN);
        }
        if st.shut & SEND_SHUTDOWN != 0 {
            return Err(Errno::EPIPE);
        }
        st.peer.as_ref().and_then(Weak::upgrade).ok_or(Errno::EPIPE)
    }

    /// Puts an item into the queue of `to`; `EPIPE` if it takes none any more (the item comes back with it, to be
    /// dropped with nothing locked).
    fn deliver(to: &Arc<Self>, item: Item, gone: Errno) -> Result<()> {
        let st = to.state.lock();
        if st.released || st.shut & RCV_SHUTDOWN != 0 {
            drop(st);
            drop(item);
            return Err(gone);
        }
        // The state is held so that release cannot come in between; the queue's lock is inside it here only.
        to.queue.lock().push(item);
        drop(st);
        to.wake(poll::IN);
        Ok(())
    }

    pub(super) fn send_stream(&self, msg: &mut SendMsg, from: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if !matches!(msg.dest, Dest::Connected) {
            let connected = self.state.lock().connected;
            return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        let cred = self.sender_cred(msg);
        let mut sent = 0;
        while from.remaining() > 0 {
            let to = match self.connected_peer() {
                Ok(p) => p,
                Err(e) => return if sent > 0 { Ok(sent) } else { Err(e) },
            };
            if !self.wmem.has_room() {
                return if sent > 0 { Ok(sent) } else { Err(Errno::EAGAIN) };
            }
            let want = from.remaining().min(PIECE).min((self.wmem.limit() / 2).max(1024));
            let mut data = vec![0; want];
            let n = match from.copy_from(&mut data) {
                Ok(n) => n,
                Err(e) => return if sent > 0 { Ok(sent) } else { Err(e) },
            };
            data.truncate(n);
            let rights = msg.control.rights.take();
            Self::deliver(&to, Item::new(data, cred, rights, None, &self.wmem), Errno::EPIPE)
                .or_else(|e| if sent > 0 { Ok(()) } else { Err(e) })?;
            sent += n;
            if n < want {
                break;
            }
        }
        Ok(sent)
    }

    fn dgram_dest(&self, msg: &SendMsg) -> Result<Arc<Self>> {
        let mut st = self.state.lock();
        if let Some(e) = st.err.take() {
            return Err(e);
        }
        if st.shut & SEND_SHUTDOWN != 0 {
            return Err(Errno::EPIPE);
        }
        match &msg.dest {
            Dest::Unix(to) => return Ok(Arc::clone(to)),
            Dest::Addr(_) => return Err(Errno::EINVAL),
            Dest::Connected => {}
        }
        let peer = st.peer.clone().ok_or(Errno::ENOTCONN)?;
        drop(st);
        if let Some(p) = peer.upgrade().filter(|p| !p.is_released()) {
            return Ok(p);
        }
        self.state.lock().peer = None;
        Err(Errno::ECONNREFUSED)
    }

    pub(super) fn send_message(&self, msg: &mut SendMsg, from: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let gone = if self.is_dgram() { Errno::ECONNREFUSED } else { Errno::EPIPE };
        let to = if self.is_dgram() {
            self.dgram_dest(msg)?
        } else {
            // A packet socket takes an address and looks at it no further, once it is connected.
            self.connected_peer()?
        };
        if to.common.ty != self.common.ty {
            return Err(Errno::EPROTOTYPE);
        }
        let len = from.remaining();
        if len > self.wmem.limit().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        if self.is_dgram() {
            let peer_of_dest = to.state.lock().peer.clone();
            let ours = peer_of_dest.as_ref().is_some_and(|p| std::ptr::eq(p.as_ptr(), self));
            if peer_of_dest.is_some() && !ours {
                return Err(Errno::EPERM);
            }
            if to.is_released() {
                return Err(Errno::ECONNREFUSED);
            }
            if to.state.lock().shut & RCV_SHUTDOWN != 0 {
                return Err(Errno::EPIPE);
            }
            if !ours && !std::ptr::eq(Arc::as_ptr(&to), self) && to.recvq_full() {
                return Err(Errno::EAGAIN);
            }
        }
        if !self.wmem.has_room() {
            return Err(Errno::EAGAIN);
        }
        let mark = from.done();
        let mut data = vec![0; len];
        let got = if len == 0 { 0 } else { from.copy_from(&mut data)? };
        if got < len {
            from.rewind(mark);
            return Err(Errno::EFAULT);
        }
        let name = self.state.lock().name.clone();
        let item = Item::new(data, self.sender_cred(msg), msg.control.rights.take(), name, &self.wmem);
        Self::deliver(&to, item, gone)?;
        Ok(len)
    }

    /// Adds what goes with an item: credentials and files. A look leaves the files where they are and gives copies.
    fn attach(&self, msg: &mut RecvMsg, cred: Ucred, rights: Option<super::scm::Rights>) {
        if self.common.opts().passcred {
            msg.put(c::SOL_SOCKET, c::SCM_CREDENTIALS, &cred.bytes());
        }
        if let Some(r) = rights {
            msg.rights = r.into_files();
        }
    }

    pub(super) fn recv_stream(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if msg.flags & c::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let peek = msg.flags & c::MSG_PEEK != 0;
        let passcred = self.common.opts().passcred;
        let mut total = 0;
        let mut writer: Option<Ucred> = None;
        let mut skip = 0usize;
        while to.remaining() > 0 || total == 0 {
            let mut q = self.queue.lock();
            let item = if peek { q.iter().nth(skip) } else { q.front() };
            let Some(item) = item else {
                drop(q);
                return if total > 0 { Ok(total) } else { self.end_of_stream() };
            };
            if passcred && writer.is_some_and(|w| w != item.cred) {
                break;
            }
            let cred = item.cred;
            let n = match to.copy_to(item.left()) {
                Ok(n) => n,
                Err(e) => return if total > 0 { Ok(total) } else { Err(e) },
            };
            let whole = n == item.left().len();
            total += n;
            skip += 1;
            let rights = if peek {
                item.rights.as_ref().and_then(super::scm::Rights::duplicate)
            } else {
                q.front_mut().and_then(|i| i.rights.take())
            };
            let used = if peek { None } else { q.consume(n) };
            drop(q);
            drop(used);
            let with_files = rights.is_some();
            if writer.is_none() || with_files {
                let first = writer.is_none();
                writer = Some(cred);
                if first {
                    self.attach(msg, cred, rights);
                } else if let Some(r) = rights {
                    msg.rights.extend(r.into_files());
                }
            }
            // Files end a read: what follows came with another message.
            if !whole || with_files {
                break;
            }
        }
        Ok(total)
    }

    fn end_of_stream(&self) -> Result<usize> {
        let mut st = self.state.lock();
        if let Some(e) = st.err.take() {
            return Err(e);
        }
        if st.listen.is_some() || !st.connected {
            return Err(Errno::EINVAL);
        }
        if st.shut & RCV_SHUTDOWN != 0 { Ok(0) } else { Err(Errno::EAGAIN) }
    }

    pub(super) fn recv_message(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if msg.flags & c::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let peek = msg.flags & c::MSG_PEEK != 0;
        let mut q = self.queue.lock();
        let Some(item) = q.front() else {
            drop(q);
            let mut st = self.state.lock();
            if !self.is_dgram() && !st.connected {
                return Err(Errno::ENOTCONN);
            }
            if let Some(e) = st.err.take() {
                return Err(e);
            }
            return if st.shut & RCV_SHUTDOWN != 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        };
        let full = item.left().len();
        let want = full.min(to.remaining());
        let mark = to.done();
        let n = if want == 0 { 0 } else { to.copy_to(item.left())? };
        if n < want {
            to.rewind(mark);
            return Err(Errno::EFAULT);
        }
        let cred = item.cred;
        let from = item.from.clone();
        let (rights, used) = if peek {
            (item.rights.as_ref().and_then(super::scm::Rights::duplicate), None)
        } else {
            let mut used = q.pop();
            (used.as_mut().and_then(|i| i.rights.take()), used)
        };
        let was_full = q.len() + 1 > super::MAX_DGRAM_QLEN;
        drop(q);
        drop(used);
        if self.is_dgram() {
            msg.name = super::Name::export(from.as_ref());
            if from.is_none() {
                msg.name = super::SockAddr::default();
            }
            if !peek && was_full {
                self.wake(poll::OUT);
            }
        } else {
            msg.out_flags |= c::MSG_EOR;
        }
        self.attach(msg, cred, rights);
        if full > n {
            msg.out_flags |= c::MSG_TRUNC;
        }
        Ok(if msg.flags & c::MSG_TRUNC != 0 { full } else { n })
    }
}
