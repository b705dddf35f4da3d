//! The system calls of sockets.

use super::msg::{self, Dest, MMSGHDR_SIZE, MsgHdr, RecvMsg, SendMsg, Ucred};
use super::{SockAddr, Socket, SocketFile, create, from_file, is_stream, options};
use crate::fs::file::File;
use crate::fs::iov::{IoVec, IovIter};
use crate::fs::poll::{self, PollTable};
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use klib::ktime::Ktime;
use std::sync::Arc;
use std::time::Duration;
use uapi::raw::general::{O_CLOEXEC, O_NONBLOCK, SIGPIPE};
use uapi::raw::net as c;

const CAP_NET_ADMIN: u32 = 12;
/// SOCK_TYPE_MASK: the type without its flags.
const SOCK_TYPE_MASK: u32 = 0xf;
const MSG_WAITFORONE: u32 = 0x1_0000;
const MSG_FASTOPEN: u32 = 0x2000_0000;

struct Opened {
    file: Arc<File>,
    sock: Arc<dyn Socket>,
}

fn open_fd(cur: &Task, fd: Fd) -> Result<Opened> {
    let file = cur.files().get(fd.0)?;
    let sock = Arc::clone(&from_file(&file)?.sock);
    Ok(Opened { file, sock })
}

fn split_type(ty: i32) -> Result<(u32, u32)> {
    let flags = ty as u32 & !SOCK_TYPE_MASK;
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok((ty as u32 & SOCK_TYPE_MASK, flags))
}

fn install(cur: &Task, sock: Arc<dyn Socket>, flags: u32) -> Result<i32> {
    let file = SocketFile::open(&cur.cred(), sock, flags);
    cur.files().install(file, flags & O_CLOEXEC != 0, 0, cur.nofile_limit())
}

fn ret(n: usize) -> Result<u64> {
    Ok(n as u64)
}

/// socket(2).
pub fn sys_socket(cur: &Arc<Task>, family: i32, ty: i32, protocol: i32) -> Result<u64> {
    let (ty, flags) = split_type(ty)?;
    let family = u32::try_from(family).map_err(|_| Errno::EAFNOSUPPORT)?;
    let protocol = u32::try_from(protocol).map_err(|_| Errno::EINVAL)?;
    let sock = create(cur, family, ty, protocol)?;
    Ok(install(cur, sock, flags)? as u64)
}

/// socketpair(2).
pub async fn sys_socketpair(
    cur: &Arc<Task>,
    family: i32,
    ty: i32,
    protocol: i32,
    out: UserPtr<[i32; 2]>,
) -> Result<u64> {
    let (ty, flags) = split_type(ty)?;
    if family as u32 != c::AF_UNIX {
        // Other families exist, but have no pairs.
        drop(create(cur, family as u32, ty, protocol as u32)?);
        return Err(Errno::EOPNOTSUPP);
    }
    let (a, b) = super::unix::UnixSock::pair(cur, ty, protocol as u32)?;
    let a = install(cur, a, flags)?;
    let done = match install(cur, b, flags) {
        Ok(b) => out.write(cur, &[a, b]).await.map_err(|e| (e, Some(b))),
        Err(e) => Err((e, None)),
    };
    if let Err((e, b)) = done {
        let _ = cur.files().remove(a);
        if let Some(b) = b {
            let _ = cur.files().remove(b);
        }
        return Err(e);
    }
    Ok(0)
}

/// bind(2).
pub async fn sys_bind(cur: &Arc<Task>, fd: Fd, addr: u64, len: i32) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let addr = SockAddr::import(cur, addr, len).await?;
    s.sock.bind(cur, &addr).await?;
    Ok(0)
}

/// listen(2).
pub fn sys_listen(cur: &Arc<Task>, fd: Fd, backlog: i32) -> Result<u64> {
    // A negative backlog counts as the largest one, as the comparison in Linux has it.
    let backlog = if backlog < 0 { SOMAXCONN } else { backlog.min(SOMAXCONN) };
    open_fd(cur, fd)?.sock.listen(cur, backlog)?;
    Ok(0)
}

/// net.core.somaxconn.
const SOMAXCONN: i32 = 4096;

/// Waits for `ready`, with the errors that sockets make of a signal and of a time limit.
async fn wait<T>(
    cur: &Task,
    timeout: Option<Duration>,
    ready: impl FnMut(&mut PollTable) -> Option<T>,
) -> Result<T> {
    let deadline = timeout.map(|d| executor::time::now() + d);
    cur.wait_event(deadline, ready).await.map_err(|e| match e {
        Errno::ETIMEDOUT => Errno::EAGAIN,
        // sock_intr_errno: with a time limit the call is not restarted.
        Errno::ERESTARTSYS if timeout.is_some() => Errno::EINTR,
        e => e,
    })
}

/// connect(2).
pub async fn sys_connect(cur: &Arc<Task>, fd: Fd, addr: u64, len: i32) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let addr = SockAddr::import(cur, addr, len).await?;
    let dest = resolve(cur, &s.sock, addr).await?;
    let nonblocking = s.file.nonblocking();
    loop {
        let started = match s.sock.connect(cur, &dest) {
            Ok(()) => return Ok(0),
            Err(e) => e,
        };
        if nonblocking {
            return Err(started);
        }
        let timeo = s.sock.common().opts().sndtimeo;
        match started {
            Errno::EAGAIN => {
                wait(cur, timeo, |t| {
                    (s.sock.poll_send(&dest, t) & (poll::POLLOUT | poll::ALWAYS) != 0).then_some(())
                })
                .await?;
            }
            Errno::EINPROGRESS | Errno::EALREADY => {
                let r = wait(cur, timeo, |t| {
                    s.sock.poll(t);
                    s.sock.connect_result()
                });
                return match r.await {
                    Ok(r) => r.map(|()| 0),
                    Err(Errno::EAGAIN) => Err(started),
                    Err(e) => Err(e),
                };
            }
            e => return Err(e),
        }
    }
}

async fn resolve(cur: &Arc<Task>, sock: &Arc<dyn Socket>, addr: SockAddr) -> Result<Dest> {
    if sock.needs_resolve() { sock.resolve(cur, addr).await } else { Ok(Dest::Addr(addr)) }
}

/// accept(2).
pub async fn sys_accept(cur: &Arc<Task>, fd: Fd, addr: u64, len: UserPtr<i32>) -> Result<u64> {
    do_accept(cur, fd, addr, len, 0).await
}

/// accept4(2).
pub async fn sys_accept4(cur: &Arc<Task>, fd: Fd, addr: u64, len: UserPtr<i32>, flags: u32) -> Result<u64> {
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    do_accept(cur, fd, addr, len, flags).await
}

async fn do_accept(cur: &Arc<Task>, fd: Fd, addr: u64, len: UserPtr<i32>, flags: u32) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let timeo = s.sock.common().opts().rcvtimeo;
    let conn = loop {
        match s.sock.accept() {
            Err(Errno::EAGAIN) if !s.file.nonblocking() => {
                wait(cur, timeo, |t| (s.sock.poll(t) & (poll::POLLIN | poll::ALWAYS) != 0).then_some(()))
                    .await?;
            }
            r => break r?,
        }
    };
    let file = SocketFile::open(&cur.cred(), Arc::clone(&conn), flags);
    if addr != 0 {
        // A peer that has gone already leaves no name: the connection was aborted, as accept(2) says.
        let name = conn.name(true).map_err(|_| Errno::ECONNABORTED)?;
        name.export(cur, addr, len).await?;
    }
    let fd = cur.files().install(file, flags & O_CLOEXEC != 0, 0, cur.nofile_limit())?;
    Ok(fd as u64)
}

/// getsockname(2).
pub async fn sys_getsockname(cur: &Arc<Task>, fd: Fd, addr: u64, len: UserPtr<i32>) -> Result<u64> {
    let name = open_fd(cur, fd)?.sock.name(false)?;
    export_name(cur, &name, addr, len).await
}

/// getpeername(2).
pub async fn sys_getpeername(cur: &Arc<Task>, fd: Fd, addr: u64, len: UserPtr<i32>) -> Result<u64> {
    let name = open_fd(cur, fd)?.sock.name(true)?;
    export_name(cur, &name, addr, len).await
}

async fn export_name(cur: &Arc<Task>, name: &SockAddr, addr: u64, len: UserPtr<i32>) -> Result<u64> {
    if addr == 0 {
        return Err(Errno::EFAULT);
    }
    name.export(cur, addr, len).await?;
    Ok(0)
}

/// shutdown(2).
pub fn sys_shutdown(cur: &Arc<Task>, fd: Fd, how: i32) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let how = u32::try_from(how).ok().filter(|&h| h <= c::SHUT_RDWR).ok_or(Errno::EINVAL)?;
    s.sock.shutdown(how)?;
    Ok(0)
}

/// Brings in the page at which a copy stopped.
async fn fault_in(cur: &Task, iov: &mut IovIter<'_>) -> Result<bool> {
    match iov.take_fault() {
        Some(f) => cur.mm().fault_in(f.addr, 1, f.write).await.map(|()| true).map_err(|_| Errno::EFAULT),
        None => Ok(false),
    }
}

/// The one wait loop of messages to be sent.
async fn send_loop(
    cur: &Arc<Task>,
    file: &File,
    sock: &Arc<dyn Socket>,
    msg: &mut SendMsg,
    iov: &mut IovIter<'_>,
) -> Result<usize> {
    let dontwait = file.nonblocking() || msg.flags & c::MSG_DONTWAIT != 0;
    let stream = is_stream(sock.common());
    let mut total = 0;
    let end = loop {
        let r = sock.try_send(msg, iov);
        let e = match r {
            Ok(n) => {
                total += n;
                // Control messages go with the first bytes only.
                msg.control = super::Control::default();
                if !stream || iov.remaining() == 0 {
                    return Ok(total);
                }
                match fault_in(cur, iov).await {
                    Err(e) => break e,
                    Ok(true) => continue,
                    Ok(false) if n == 0 => return Ok(total),
                    // The next try says EAGAIN or why nothing more can go.
                    Ok(false) => continue,
                }
            }
            Err(e) => e,
        };
        match e {
            Errno::EFAULT => match fault_in(cur, iov).await {
                Ok(true) => {}
                _ => break Errno::EFAULT,
            },
            Errno::EAGAIN if !dontwait => {
                let timeo = sock.common().opts().sndtimeo;
                let r = wait(cur, timeo, |t| {
                    (sock.poll_send(&msg.dest, t) & (poll::POLLOUT | poll::ALWAYS) != 0).then_some(())
                });
                if let Err(e) = r.await {
                    break e;
                }
            }
            e => break e,
        }
    };
    if total > 0 {
        return Ok(total);
    }
    if end == Errno::EPIPE && stream && msg.flags & c::MSG_NOSIGNAL == 0 {
        crate::fs::hooks::send_thread(cur, SIGPIPE);
    }
    Err(end)
}

/// The one wait loop of messages to be received.
async fn recv_loop(
    cur: &Arc<Task>,
    file: &File,
    sock: &Arc<dyn Socket>,
    msg: &mut RecvMsg,
    iov: &mut IovIter<'_>,
) -> Result<usize> {
    let dontwait = file.nonblocking() || msg.flags & (c::MSG_DONTWAIT | c::MSG_ERRQUEUE) != 0;
    let peek = msg.flags & c::MSG_PEEK != 0;
    let stream = is_stream(sock.common());
    let waitall = stream && !peek && msg.flags & c::MSG_WAITALL != 0;
    let mut total = 0;
    let end = loop {
        let mark = iov.done();
        let r = sock.try_recv(msg, iov);
        let e = match r {
            Ok(n) if !stream => return Ok(n),
            Ok(n) => {
                let want_more = iov.remaining() > 0 && n > 0;
                if !want_more {
                    return Ok(total + n);
                }
                match fault_in(cur, iov).await {
                    // A look does not consume: begin again with the page in place.
                    Ok(true) if peek => iov.rewind(mark),
                    Ok(true) => total += n,
                    Ok(false) if waitall && msg.control.is_empty() && msg.rights.is_empty() => total += n,
                    Ok(false) => return Ok(total + n),
                    Err(_) => return Ok(total + n),
                }
                continue;
            }
            Err(e) => e,
        };
        match e {
            Errno::EFAULT => match fault_in(cur, iov).await {
                Ok(true) => {}
                _ => break Errno::EFAULT,
            },
            Errno::EAGAIN if total > 0 && !waitall => return Ok(total),
            Errno::EAGAIN if !dontwait => {
                let timeo = sock.common().opts().rcvtimeo;
                let r =
                    wait(cur, timeo, |t| (sock.poll(t) & (poll::POLLIN | poll::ALWAYS) != 0).then_some(()));
                if let Err(e) = r.await {
                    break e;
                }
            }
            e => break e,
        }
    };
    if total > 0 { Ok(total) } else { Err(end) }
}

/// sendto(2).
pub async fn sys_sendto(
    cur: &Arc<Task>,
    fd: Fd,
    buf: u64,
    len: usize,
    flags: u32,
    addr: u64,
    addr_len: i32,
) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let mut m = new_msg(cur, flags)?;
    if addr != 0 {
        let addr = SockAddr::import(cur, addr, addr_len).await?;
        m.dest = resolve(cur, &s.sock, addr).await?;
    }
    let seg = [IoVec { base: buf, len: len.min(msg::MAX_RW_COUNT) }];
    let mm = cur.mm();
    let mut iov = IovIter::user(&mm, &seg);
    ret(send_loop(cur, &s.file, &s.sock, &mut m, &mut iov).await?)
}

/// Flags that are not the caller's to give are taken away; what is not supported is refused.
fn user_flags(flags: u32) -> Result<u32> {
    if flags & MSG_FASTOPEN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(flags & 0x7fff_ffff)
}

fn new_msg(cur: &Task, flags: u32) -> Result<SendMsg> {
    let cred = cur.cred();
    Ok(SendMsg {
        flags: user_flags(flags)?,
        cred: Some(Ucred { pid: cur.tgid(), uid: cred.uid, gid: cred.gid }),
        privileged: cred.capable(CAP_NET_ADMIN),
        ..SendMsg::default()
    })
}

/// recvfrom(2).
pub async fn sys_recvfrom(
    cur: &Arc<Task>,
    fd: Fd,
    buf: u64,
    len: usize,
    flags: u32,
    addr: u64,
    addr_len: UserPtr<i32>,
) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let mut m = RecvMsg { flags, ..RecvMsg::default() };
    let seg = [IoVec { base: buf, len: len.min(msg::MAX_RW_COUNT) }];
    let mm = cur.mm();
    let mut iov = IovIter::user(&mm, &seg);
    let n = recv_loop(cur, &s.file, &s.sock, &mut m, &mut iov).await?;
    if addr != 0 {
        m.name.export(cur, addr, addr_len).await?;
    }
    ret(n)
}

async fn do_sendmsg(cur: &Arc<Task>, s: &Opened, addr: u64, flags: u32) -> Result<usize> {
    let h = MsgHdr::import(cur, addr).await?;
    let segs = h.import_iov(cur).await?;
    let mut m = new_msg(cur, flags)?;
    m.control = h.import_control(cur).await?;
    if h.namelen > 0 {
        let name = SockAddr::import(cur, h.name, h.namelen).await?;
        m.dest = resolve(cur, &s.sock, name).await?;
    }
    let mm = cur.mm();
    let mut iov = IovIter::user(&mm, &segs);
    send_loop(cur, &s.file, &s.sock, &mut m, &mut iov).await
}

/// sendmsg(2).
pub async fn sys_sendmsg(cur: &Arc<Task>, fd: Fd, addr: u64, flags: u32) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    ret(do_sendmsg(cur, &s, addr, flags).await?)
}

async fn do_recvmsg(cur: &Arc<Task>, s: &Opened, addr: u64, flags: u32) -> Result<usize> {
    let h = MsgHdr::import(cur, addr).await?;
    let segs = h.import_iov(cur).await?;
    let mut m = RecvMsg { flags, wants_control: h.controllen > 0, ..RecvMsg::default() };
    let mm = cur.mm();
    let mut iov = IovIter::user(&mm, &segs);
    let n = recv_loop(cur, &s.file, &s.sock, &mut m, &mut iov).await?;
    if !m.wants_control && !m.rights.is_empty() {
        m.out_flags |= c::MSG_CTRUNC;
        m.rights.clear();
    }
    let (used, ctrunc) = if m.wants_control { h.export_control(cur, &mut m).await? } else { (0, 0) };
    let out_flags = m.out_flags | ctrunc | (flags & c::MSG_CMSG_CLOEXEC);
    h.export(cur, addr, &m.name, used, out_flags).await?;
    Ok(n)
}

/// recvmsg(2).
pub async fn sys_recvmsg(cur: &Arc<Task>, fd: Fd, addr: u64, flags: u32) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    ret(do_recvmsg(cur, &s, addr, flags).await?)
}

/// Writes `msg_len` of the `i`th `struct mmsghdr`.
async fn put_len(cur: &Arc<Task>, hdr: u64, n: usize) -> Result<()> {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    cur.mm().copy_to_user(hdr.wrapping_add(msg::MSGHDR_SIZE as u64), &n.to_ne_bytes()).await
}

/// sendmmsg(2).
pub async fn sys_sendmmsg(cur: &Arc<Task>, fd: Fd, vec: u64, vlen: u32, flags: u32) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let mut done = 0u64;
    for i in 0..u64::from(vlen.min(1024)) {
        let hdr = vec.wrapping_add(i * MMSGHDR_SIZE as u64);
        let r = match do_sendmsg(cur, &s, hdr, flags).await {
            Ok(n) => put_len(cur, hdr, n).await,
            Err(e) => Err(e),
        };
        match r {
            Ok(()) => done += 1,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// recvmmsg(2). The time limit is looked at between messages only, as in Linux.
pub async fn sys_recvmmsg(
    cur: &Arc<Task>,
    fd: Fd,
    vec: u64,
    vlen: u32,
    flags: u32,
    timeout: UserPtr<[i64; 2]>,
) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let limit: Option<Ktime> = match timeout.read_opt(cur).await? {
        Some([sec, nsec]) => {
            let sec = u64::try_from(sec).map_err(|_| Errno::EINVAL)?;
            let nsec = u32::try_from(nsec).ok().filter(|&n| n < 1_000_000_000).ok_or(Errno::EINVAL)?;
            Some(executor::time::now() + Duration::new(sec, nsec))
        }
        None => None,
    };
    let mut flags = flags;
    let mut done = 0u64;
    for i in 0..u64::from(vlen.min(1024)) {
        let hdr = vec.wrapping_add(i * MMSGHDR_SIZE as u64);
        let r = match do_recvmsg(cur, &s, hdr, flags & !MSG_WAITFORONE).await {
            Ok(n) => put_len(cur, hdr, n).await,
            Err(e) => Err(e),
        };
        match r {
            Ok(()) => done += 1,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if flags & MSG_WAITFORONE != 0 {
            flags |= c::MSG_DONTWAIT;
        }
        if limit.is_some_and(|l| executor::time::now() >= l) {
            break;
        }
    }
    if let Some(l) = limit {
        let left = l.since(executor::time::now());
        let pair = [i64::try_from(left.as_secs()).unwrap_or(i64::MAX), i64::from(left.subsec_nanos())];
        timeout.write(cur, &pair).await?;
    }
    Ok(done)
}

/// Longest option value that is taken from a guest.
const MAX_OPT: usize = 65536;

/// setsockopt(2).
pub async fn sys_setsockopt(
    cur: &Arc<Task>,
    fd: Fd,
    level: u32,
    name: u32,
    val: u64,
    len: i32,
) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(MAX_OPT);
    let mut buf = vec![0u8; len];
    cur.mm().copy_from_user(val, &mut buf).await?;
    if level == c::SOL_SOCKET && name == c::SO_ATTACH_FILTER {
        buf = options::import_filter(cur, &buf).await?;
    }
    if level == c::SOL_SOCKET {
        options::set(cur, &s.sock, name, &buf)?;
    } else {
        s.sock.setsockopt(cur, level, name, &buf)?;
    }
    Ok(0)
}

/// getsockopt(2).
pub async fn sys_getsockopt(
    cur: &Arc<Task>,
    fd: Fd,
    level: u32,
    name: u32,
    val: u64,
    len: UserPtr<i32>,
) -> Result<u64> {
    let s = open_fd(cur, fd)?;
    let room = usize::try_from(len.read(cur).await?).map_err(|_| Errno::EINVAL)?;
    let out = if level == c::SOL_SOCKET {
        options::get(&s.sock, name, room)?
    } else {
        s.sock.getsockopt(level, name, room)?
    };
    let n = out.len().min(room);
    cur.mm().copy_to_user(val, &out[..n]).await?;
    len.write(cur, &i32::try_from(n).unwrap_or(0)).await?;
    Ok(0)
}
