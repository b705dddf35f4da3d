//! Netlink sockets (netlink(7)): requests to the kernel and its answers, and announcements to groups.
//!
//! Answers are made when the request is sent and wait in the socket's queue, one element a datagram; a dump is several
//! of them. Key types: [`NetlinkSock`]; [`broadcast`] announces to a group.
//! Lock order: the table of ports > the state of a socket; wake-ups with no lock held.

mod attr;
mod diag;
mod ethnl;
mod filter;
mod genl;
mod proto;

use super::common::SockCommon;
use super::msg::{Dest, RecvMsg, SendMsg, Ucred, first_int};
use super::{SockAddr, Socket};
use crate::fs::iov::IovIter;
use crate::fs::poll::{self, PollTable};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use klib::sync::Mutex;
use klib::waitqueue::WaitQueue;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use uapi::raw::{net as c, netlink as nl};

const CAP_NET_ADMIN: u32 = 12;
/// Longest request: SO_SNDBUF bounds it, and this does.
const MAX_REQUEST: usize = 1 << 20;
/// Groups are numbered from 1; this many bits are kept.
const MAX_GROUPS: u32 = 64;
/// Answers that may wait in one socket beyond its receive buffer, since a dump is made in one go.
const MAX_ANSWERS: usize = 8 << 20;

#[derive(Default)]
struct State {
    port: u32,
    dst_port: u32,
    groups: u64,
    queue: VecDeque<(Vec<u8>, u32)>,
    bytes: usize,
    err: Option<Errno>,
    pktinfo: bool,
    no_enobufs: bool,
    /// Options that are kept to be read back.
    flags: u32,
}

/// One netlink socket.
pub struct NetlinkSock {
    common: SockCommon,
    me: Weak<NetlinkSock>,
    opener: u32,
    state: Mutex<State>,
    wq: WaitQueue,
}

/// Sockets that have a port, by protocol and port.
static PORTS: Mutex<Option<PortTable>> = Mutex::new(None);

type PortTable = HashMap<(u32, u32), Weak<NetlinkSock>>;

/// Announces `msg` to the members of a group (from 1) of a protocol.
pub fn broadcast(protocol: u32, group: u32, msg: &[u8]) {
    let Some(bit) = group.checked_sub(1).filter(|g| *g < MAX_GROUPS) else { return };
    let members: Vec<_> = match PORTS.lock().as_ref() {
        Some(t) => t.iter().filter(|((p, _), _)| *p == protocol).filter_map(|(_, s)| s.upgrade()).collect(),
        None => return,
    };
    for s in members {
        let mut st = s.state.lock();
        if st.groups & (1 << bit) == 0 {
            continue;
        }
        let room = s.common.opts().rcvbuf;
        if st.bytes + msg.len() > room {
            // The reader is told that it has missed something.
            if !st.no_enobufs {
                st.err = Some(Errno::ENOBUFS);
            }
        } else {
            st.push(msg.to_vec(), group);
        }
        drop(st);
        s.wq.wake(poll::IN | poll::POLLERR);
    }
}

impl State {
    fn push(&mut self, msg: Vec<u8>, group: u32) {
        self.bytes += msg.len() + 256;
        self.queue.push_back((msg, group));
    }
}

impl NetlinkSock {
    /// socket(2).
    pub fn create(cur: &Arc<Task>, ty: u32, protocol: u32) -> Result<Arc<Self>> {
        if ty != c::SOCK_RAW && ty != c::SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        match protocol {
            nl::NETLINK_ROUTE
            | nl::NETLINK_KOBJECT_UEVENT
            | nl::NETLINK_GENERIC
            | nl::NETLINK_SOCK_DIAG
            | nl::NETLINK_USERSOCK => {}
            _ => return Err(Errno::EPROTONOSUPPORT),
        }
        Ok(Self::with_opener(ty, protocol, cur.tgid()))
    }

    fn with_opener(ty: u32, protocol: u32, opener: u32) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            common: SockCommon::new(c::AF_NETLINK, ty, protocol),
            me: Weak::clone(me),
            opener,
            state: Mutex::default(),
            wq: WaitQueue::new(),
        })
    }

    /// Takes a port: the one asked for, or for 0 the process id if free, else some other number.
    fn take_port(&self, want: u32) -> Result<()> {
        let mut table = PORTS.lock();
        let table = table.get_or_insert_default();
        let mut st = self.state.lock();
        if st.port != 0 {
            return if want == 0 || want == st.port { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let free =
            |t: &PortTable, p: u32| t.get(&(self.common.protocol, p)).is_none_or(|s| s.strong_count() == 0);
        let port = if want != 0 {
            if !free(table, want) {
                return Err(Errno::EADDRINUSE);
            }
            want
        } else if free(table, self.opener) {
            self.opener
        } else {
            // As in Linux, numbers that no process id reaches.
            (0xffff_0000u32..u32::MAX).rev().find(|p| free(table, *p)).ok_or(Errno::EADDRINUSE)?
        };
        table.insert((self.common.protocol, port), Weak::clone(&self.me));
        st.port = port;
        Ok(())
    }

    fn may_listen(&self, cur: &Task) -> Result<()> {
        let open = matches!(self.common.protocol, nl::NETLINK_ROUTE | nl::NETLINK_KOBJECT_UEVENT);
        if open || cur.cred().capable(CAP_NET_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn set_group(&self, group: i32, on: bool) -> Result<()> {
        let bit = u32::try_from(group).ok().and_then(|g| g.checked_sub(1)).ok_or(Errno::EINVAL)?;
        if bit >= MAX_GROUPS {
            return Err(Errno::EINVAL);
        }
        self.take_port(0)?;
        let mut st = self.state.lock();
        if on {
            st.groups |= 1 << bit;
        } else {
            st.groups &= !(1 << bit);
        }
        Ok(())
    }
}

impl Socket for NetlinkSock {
    fn common(&self) -> &SockCommon {
        &self.common
    }

    fn bind<'a>(&'a self, cur: &'a Arc<Task>, addr: &'a SockAddr) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (port, groups) = addr.to_netlink()?;
            if groups != 0 {
                self.may_listen(cur)?;
            }
            self.take_port(port)?;
            let mut st = self.state.lock();
            st.groups = (st.groups & !0xffff_ffff) | u64::from(groups);
            Ok(())
        })
    }

    fn connect(&self, _cur: &Arc<Task>, dest: &Dest) -> Result<()> {
        let Dest::Addr(addr) = dest else { return Err(Errno::EINVAL) };
        if addr.family() == c::AF_UNSPEC {
            self.state.lock().dst_port = 0;
            return Ok(());
        }
        let (port, _) = addr.to_netlink()?;
        self.take_port(0)?;
        self.state.lock().dst_port = port;
        Ok(())
    }

    fn name(&self, peer: bool) -> Result<SockAddr> {
        let st = self.state.lock();
        Ok(if peer {
            SockAddr::from_netlink(st.dst_port, 0)
        } else {
            SockAddr::from_netlink(st.port, (st.groups & 0xffff_ffff) as u32)
        })
    }

    fn try_send(&self, msg: &mut SendMsg, from: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let (port, groups) = match &msg.dest {
            Dest::Addr(a) => a.to_netlink()?,
            _ => (self.state.lock().dst_port, 0),
        };
        self.take_port(0)?;
        let len = from.remaining();
        if len > self.common.opts().sndbuf.saturating_sub(32).min(MAX_REQUEST) {
            return Err(Errno::EMSGSIZE);
        }
        let mark = from.done();
        let mut req = vec![0; len];
        let got = if len == 0 { 0 } else { from.copy_from(&mut req)? };
        if got < len {
            from.rewind(mark);
            return Err(Errno::EFAULT);
        }
        let own = self.state.lock().port;
        if port != 0 || groups != 0 {
            let to = PORTS.lock().as_ref().and_then(|t| t.get(&(self.common.protocol, port))?.upgrade());
            let to = to.filter(|_| port != 0).ok_or(if groups != 0 {
                Errno::EPERM
            } else {
                Errno::ECONNREFUSED
            })?;
            let mut st = to.state.lock();
            if st.bytes + req.len() > to.common.opts().rcvbuf {
                return Err(Errno::EAGAIN);
            }
            st.push(req, 0);
            drop(st);
            to.wq.wake(poll::IN);
            return Ok(len);
        }
        let flags = self.state.lock().flags;
        let ctx = proto::Ctx {
            port: own,
            privileged: msg.privileged,
            ext_ack: flags & (1 << nl::NETLINK_EXT_ACK) != 0,
            cap_ack: flags & (1 << nl::NETLINK_CAP_ACK) != 0,
        };
        let answers = proto::request(self.common.protocol, &req, &ctx);
        if !answers.is_empty() {
            let mut st = self.state.lock();
            for a in answers {
                if st.bytes + a.len() > MAX_ANSWERS {
                    st.err = Some(Errno::ENOBUFS);
                    break;
                }
                st.push(a, 0);
            }
            drop(st);
            self.wq.wake(poll::IN);
        }
        Ok(len)
    }

    fn try_recv(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut st = self.state.lock();
        if let Some(e) = st.err.take() {
            return Err(e);
        }
        let (data, group) = st.queue.front().ok_or(Errno::EAGAIN)?;
        let (full, group) = (data.len(), *group);
        let want = full.min(to.remaining());
        let mark = to.done();
        let n = if want == 0 { 0 } else { to.copy_to(data)? };
        if n < want {
            to.rewind(mark);
            return Err(Errno::EFAULT);
        }
        let gone = if msg.flags & c::MSG_PEEK == 0 { st.queue.pop_front() } else { None };
        if gone.is_some() {
            st.bytes = st.bytes.saturating_sub(full + 256);
        }
        let pktinfo = st.pktinfo;
        drop(st);
        let mask = group.checked_sub(1).filter(|b| *b < 32).map_or(0, |b| 1u32 << b);
        msg.name = SockAddr::from_netlink(0, mask);
        if full > n {
            msg.out_flags |= c::MSG_TRUNC;
        }
        if pktinfo {
            msg.put(c::SOL_NETLINK, nl::NETLINK_PKTINFO, &group.to_ne_bytes());
        }
        if self.common.opts().passcred {
            let kernel = Ucred { pid: 0, uid: 0, gid: 0 };
            msg.put(c::SOL_SOCKET, c::SCM_CREDENTIALS, &kernel.bytes());
        }
        Ok(if msg.flags & c::MSG_TRUNC != 0 { full } else { n })
    }

    fn poll(&self, table: &mut PollTable) -> u32 {
        table.register(&self.wq, poll::IN);
        let st = self.state.lock();
        let mut ev = poll::OUT;
        if !st.queue.is_empty() {
            ev |= poll::IN;
        }
        if st.err.is_some() {
            ev |= poll::POLLERR;
        }
        ev
    }

    fn shutdown(&self, _how: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn setsockopt(&self, cur: &Arc<Task>, level: u32, name: u32, val: &[u8]) -> Result<()> {
        if level != c::SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        let v = first_int(val)?;
        match name {
            nl::NETLINK_ADD_MEMBERSHIP | nl::NETLINK_DROP_MEMBERSHIP => {
                self.may_listen(cur)?;
                self.set_group(v, name == nl::NETLINK_ADD_MEMBERSHIP)?;
            }
            nl::NETLINK_PKTINFO => self.state.lock().pktinfo = v != 0,
            nl::NETLINK_NO_ENOBUFS => self.state.lock().no_enobufs = v != 0,
            nl::NETLINK_BROADCAST_ERROR
            | nl::NETLINK_CAP_ACK
            | nl::NETLINK_EXT_ACK
            | nl::NETLINK_GET_STRICT_CHK => {
                let mut st = self.state.lock();
                let bit = 1 << name;
                st.flags = if v != 0 { st.flags | bit } else { st.flags & !bit };
            }
            nl::NETLINK_LISTEN_ALL_NSID if cur.cred().capable(CAP_NET_ADMIN) => {}
            nl::NETLINK_LISTEN_ALL_NSID => return Err(Errno::EPERM),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn getsockopt(&self, level: u32, name: u32, _len: usize) -> Result<Vec<u8>> {
        if level != c::SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        let st = self.state.lock();
        let v = match name {
            nl::NETLINK_PKTINFO => st.pktinfo,
            nl::NETLINK_NO_ENOBUFS => st.no_enobufs,
            nl::NETLINK_BROADCAST_ERROR
            | nl::NETLINK_CAP_ACK
            | nl::NETLINK_EXT_ACK
            | nl::NETLINK_GET_STRICT_CHK => st.flags & (1 << name) != 0,
            nl::NETLINK_LIST_MEMBERSHIPS => return Ok(st.groups.to_ne_bytes().to_vec()),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(i32::from(v).to_ne_bytes().to_vec())
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().err.take()
    }

    fn outq(&self) -> Result<u64> {
        Ok(0)
    }

    fn release(&self) {
        let port = self.state.lock().port;
        if let Some(t) = PORTS.lock().as_mut() {
            let key = (self.common.protocol, port);
            if t.get(&key).is_some_and(|s| std::ptr::eq(s.as_ptr(), self)) {
                t.remove(&key);
            }
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Tells listeners of the family `ethtool` that features of a device have changed.
pub fn ethtool_features_changed(dev: &net::dev::Dev) {
    ethnl::features_changed(dev);
}

/// Text of /proc/net/netlink (proc(5)).
pub fn proc_net_netlink() -> String {
    let all: Vec<_> = match PORTS.lock().as_ref() {
        Some(t) => t.values().filter_map(Weak::upgrade).collect(),
        None => Vec::new(),
    };
    let mut out = String::from(
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
    );
    for s in all {
        let st = s.state.lock();
        out.push_str(&format!(
            "{:016x} {:<3} {:<10} {:08x} {:<8} {:<8} {:<5} {:<8} {:<8} {:<8}\n",
            0,
            s.common.protocol,
            st.port,
            st.groups & 0xffff_ffff,
            st.bytes,
            0,
            0,
            2,
            0,
            s.common.ino.load(Ordering::Relaxed)
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_and_groups_hear() {
        let a = NetlinkSock::with_opener(c::SOCK_RAW, nl::NETLINK_KOBJECT_UEVENT, 42);
        let b = NetlinkSock::with_opener(c::SOCK_RAW, nl::NETLINK_KOBJECT_UEVENT, 42);
        a.take_port(0).expect("own pid");
        b.take_port(0).expect("another");
        assert_eq!(a.name(false).and_then(|n| n.to_netlink()), Ok((42, 0)));
        assert_ne!(b.state.lock().port, 42);
        b.set_group(1, true).expect("group");
        broadcast(nl::NETLINK_KOBJECT_UEVENT, 1, b"add@/x");
        let mut buf = [0; 4];
        let mut m = RecvMsg { flags: c::MSG_TRUNC, ..RecvMsg::default() };
        assert_eq!(b.try_recv(&mut m, &mut IovIter::kernel_dst(&mut buf)), Ok(6));
        assert_eq!((&buf, m.out_flags), (b"add@", c::MSG_TRUNC));
        assert_eq!(a.try_recv(&mut m, &mut IovIter::kernel_dst(&mut buf)), Err(Errno::EAGAIN));
        a.release();
        b.release();
    }
}
