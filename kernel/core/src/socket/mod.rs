//! Sockets: the calls of socket(7), the families behind them, and their options.
//!
//! * [`Socket`]: what a family implements; nothing in it sleeps but name look-ups.
//! * [`SocketFile`]: the [`FileOps`](crate::fs::file::FileOps) of an open socket.
//! * [`msg`]: `struct msghdr` in and out; [`options`]: SOL_SOCKET; [`calls`]: the system calls and the one wait loop
//!   of messages.
//! * Families: [`unix`], [`netlink`], [`inet`].
//!
//! Above: `syscall`, `fs::file`. Below: crate `net` (protocols), `fs` (names of unix sockets).
//! Lock order: the options of a socket > the state of a socket; never the state of two sockets at once; wait queues
//! are woken with no lock held.

pub mod addr;
pub mod bpf;
pub mod calls;
mod common;
mod ethtool;
mod file;
pub mod inet;
mod ioctl;
pub mod msg;
pub mod netlink;
pub mod options;
pub mod unix;

pub use addr::SockAddr;
pub use common::{SockCommon, SockOpts, Timestamping};
pub use file::{SocketFile, count};
pub use inet::init::net_init;
pub use inet::stack as net_stack;
pub use msg::{Control, Dest, RecvMsg, SendMsg, Ucred};

use crate::fs::file::{File, Linger};
use crate::fs::iov::IovIter;
use crate::fs::poll::PollTable;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::net as c;

/// A socket of some family. Methods never sleep: `EAGAIN` means "wait until [`poll`](Self::poll) changes".
///
/// Received and sent bytes are copied through the iterator before anything is taken from a queue or put into one, so
/// that a copy that a missing page cuts short can be tried again.
pub trait Socket: Any + Send + Sync {
    /// Family, type, protocol and the options of SOL_SOCKET.
    fn common(&self) -> &SockCommon;

    /// bind(2); `addr` is the `struct sockaddr` as given. Sleeps only for names in a file system.
    fn bind<'a>(&'a self, cur: &'a Arc<Task>, addr: &'a SockAddr) -> BoxFuture<'a, Result<()>>;

    /// connect(2): done, failed, or under way (`EINPROGRESS`, `EALREADY`): then wait until
    /// [`connect_result`](Self::connect_result) knows. `EAGAIN` asks to wait for `POLLOUT` of the destination and to
    /// begin anew.
    fn connect(&self, cur: &Arc<Task>, dest: &Dest) -> Result<()>;

    /// How a connect under way has ended; `None` while it has not.
    fn connect_result(&self) -> Option<Result<()>> {
        Some(Ok(()))
    }

    /// listen(2).
    fn listen(&self, _cur: &Arc<Task>, _backlog: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// accept(2): the next connection.
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// getsockname(2), or getpeername(2).
    fn name(&self, peer: bool) -> Result<SockAddr>;

    /// Turns a destination address into what [`try_send`](Self::try_send) and [`connect`](Self::connect) take.
    /// Overridden by families whose names live in a file system.
    fn resolve<'a>(&'a self, _cur: &'a Arc<Task>, addr: SockAddr) -> BoxFuture<'a, Result<Dest>> {
        Box::pin(async move { Ok(Dest::Addr(addr)) })
    }

    /// True if [`resolve`](Self::resolve) has to be asked; else the address is passed as it is.
    fn needs_resolve(&self) -> bool {
        false
    }

    /// Sends from `from`; streams take what fits, others a whole message or nothing.
    fn try_send(&self, msg: &mut SendMsg, from: &mut IovIter<'_>) -> Result<usize>;

    /// Receives into `to`. Sets what [`RecvMsg`] asks for.
    fn try_recv(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>) -> Result<usize>;

    /// Readiness (poll(2) bits); registers with the queues that can change it.
    fn poll(&self, table: &mut PollTable) -> u32;

    /// Readiness for a message to `dest`, which may have a queue of its own.
    fn poll_send(&self, _dest: &Dest, table: &mut PollTable) -> u32 {
        self.poll(table)
    }

    /// shutdown(2); `how` is SHUT_RD, SHUT_WR or SHUT_RDWR.
    fn shutdown(&self, how: u32) -> Result<()>;

    /// setsockopt(2) of a level other than SOL_SOCKET.
    fn setsockopt(&self, _cur: &Arc<Task>, _level: u32, _name: u32, _val: &[u8]) -> Result<()> {
        Err(Errno::ENOPROTOOPT)
    }

    /// getsockopt(2) of a level other than SOL_SOCKET; `len` is the room the caller has.
    fn getsockopt(&self, _level: u32, _name: u32, _len: usize) -> Result<Vec<u8>> {
        Err(Errno::ENOPROTOOPT)
    }

    /// An option of SOL_SOCKET has been stored in [`common`](Self::common); a family that acts on it does so here.
    fn sol_socket_changed(&self, _cur: &Arc<Task>, _name: u32, _val: &[u8]) -> Result<()> {
        Ok(())
    }

    /// SO_SNDBUF and SO_RCVBUF, where the protocol tunes them itself.
    fn buf_sizes(&self) -> Option<(usize, usize)> {
        None
    }

    /// SO_ERROR: the pending error, which is then gone.
    fn take_error(&self) -> Option<Errno> {
        None
    }

    /// SO_ACCEPTCONN.
    fn is_listening(&self) -> bool {
        false
    }

    /// SO_PEERCRED; `None`: not a family that knows.
    fn peer_cred(&self) -> Option<Ucred> {
        None
    }

    /// SO_PEERGROUPS.
    fn peer_groups(&self) -> Option<Vec<u32>> {
        None
    }

    /// Bytes that a read would find (FIONREAD, SIOCINQ), or `None` where the ioctl does not exist.
    fn inq(&self) -> Result<u64> {
        Err(Errno::EINVAL)
    }

    /// Bytes not yet sent (SIOCOUTQ).
    fn outq(&self) -> Result<u64> {
        Err(Errno::EINVAL)
    }

    /// What close(2) waits for after [`release`](Self::release) (SO_LINGER).
    fn linger(&self) -> Option<Linger> {
        None
    }

    /// The socket has become an open file with this inode, of this user.
    fn opened(&self, _ino: u64, _uid: u32) {}

    /// SO_COOKIE: a number that no other open socket has.
    fn cookie(&self) -> u64 {
        self.common().ino.load(Ordering::Relaxed)
    }

    /// The last descriptor is gone.
    fn release(&self);

    /// The implementation as its own type.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// True for types that carry bytes without message borders.
pub fn is_stream(common: &SockCommon) -> bool {
    common.ty == c::SOCK_STREAM
}

/// socket(2) for one family: the socket, not yet a file.
pub fn create(cur: &Arc<Task>, family: u32, ty: u32, protocol: u32) -> Result<Arc<dyn Socket>> {
    if ty > 10 {
        return Err(Errno::EINVAL);
    }
    match family {
        c::AF_UNIX => Ok(unix::UnixSock::create(cur, ty, protocol)?),
        c::AF_INET | c::AF_INET6 => Ok(inet::InetSock::create(cur, family, ty, protocol)?),
        c::AF_NETLINK => Ok(netlink::NetlinkSock::create(cur, ty, protocol)?),
        f if f >= AF_MAX => Err(Errno::EAFNOSUPPORT),
        f => {
            log::debug!(target: "socket", "address family {f} is not supported");
            Err(Errno::EAFNOSUPPORT)
        }
    }
}

/// Number of address families (AF_MAX of Linux 6.12).
const AF_MAX: u32 = 46;

/// The socket behind an open file, or `ENOTSOCK`.
pub fn from_file(file: &File) -> Result<Arc<SocketFile>> {
    file.ops_as::<SocketFile>().ok_or(Errno::ENOTSOCK)
}

/// The index of a network device, or `ENODEV`.
pub fn dev_index(name: &str) -> Result<u32> {
    inet::stack().devs.by_name(name).map(|d| d.ifindex).ok_or(Errno::ENODEV)
}

/// The name of a network device.
pub fn dev_name(index: u32) -> Option<String> {
    inet::stack().devs.get(index).map(|d| d.name().to_string())
}

/// Answers rtnetlink requests.
fn route_request(bytes: &[u8], port: u32, privileged: bool) -> Vec<Vec<u8>> {
    net::rtnl::request(inet::stack(), bytes, port, privileged)
}
