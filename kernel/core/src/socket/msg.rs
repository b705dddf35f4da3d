//! Messages: what sendmsg(2) brings in and recvmsg(2) takes out, with their control messages (cmsg(3)).

use super::SockAddr;
use super::unix::UnixSock;
use super::unix::scm::Rights;
use crate::fs::file::File;
use crate::fs::iov::IoVec;
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::net as c;

/// `struct ucred`: process, user and group of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ucred {
    /// Process id; 0 = unknown.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Ucred {
    /// Of a peer that is not known (overflow ids).
    pub const NOBODY: Self = Self { pid: 0, uid: 65534, gid: 65534 };

    /// What SO_PEERCRED gives where there is no peer.
    pub const NO_PEER: Self = Self { pid: 0, uid: u32::MAX, gid: u32::MAX };

    /// Effective ids of a task.
    pub fn of(cur: &Task) -> Self {
        let cred = cur.cred();
        Self { pid: cur.tgid(), uid: cred.euid, gid: cred.egid }
    }

    /// As the guest sees it.
    pub fn bytes(&self) -> [u8; 12] {
        let mut b = [0; 12];
        b[..4].copy_from_slice(&self.pid.to_ne_bytes());
        b[4..8].copy_from_slice(&self.uid.to_ne_bytes());
        b[8..].copy_from_slice(&self.gid.to_ne_bytes());
        b
    }
}

/// Where a message goes.
#[derive(Clone, Default)]
pub enum Dest {
    /// To the peer the socket is connected with.
    #[default]
    Connected,
    /// To this address.
    Addr(SockAddr),
    /// To this socket, whose name has been looked up.
    Unix(Arc<UnixSock>),
}

/// One control message.
#[derive(Clone, Debug)]
pub struct Cmsg {
    /// SOL_*.
    pub level: u32,
    /// SCM_* or an option number.
    pub ty: u32,
    /// What it carries.
    pub data: Vec<u8>,
}

/// The control messages of a message to be sent.
#[derive(Default)]
pub struct Control {
    /// Files of SCM_RIGHTS.
    pub rights: Option<Rights>,
    /// SCM_CREDENTIALS, checked.
    pub cred: Option<Ucred>,
    /// Those of other levels, for the family to judge.
    pub other: Vec<Cmsg>,
}

/// A message to be sent.
#[derive(Default)]
pub struct SendMsg {
    /// MSG_*.
    pub flags: u32,
    /// Where to.
    pub dest: Dest,
    /// Control messages.
    pub control: Control,
    /// Who sends; `None` for write(2): the opener of the socket.
    pub cred: Option<Ucred>,
    /// The sender has CAP_NET_ADMIN.
    pub privileged: bool,
}

/// What is asked of a receive, and what it yields beside the bytes.
#[derive(Default)]
pub struct RecvMsg {
    /// MSG_* as asked.
    pub flags: u32,
    /// Sender's address; empty if there is none.
    pub name: SockAddr,
    /// MSG_* as answered.
    pub out_flags: u32,
    /// Control messages, in order.
    pub control: Vec<Cmsg>,
    /// Files of SCM_RIGHTS; they come after the others.
    pub rights: Vec<Arc<File>>,
    /// The caller has room for control messages.
    pub wants_control: bool,
}

impl RecvMsg {
    /// Adds a control message if the caller takes any.
    pub fn put(&mut self, level: u32, ty: u32, data: &[u8]) {
        if self.wants_control {
            self.control.push(Cmsg { level, ty, data: data.to_vec() });
        } else {
            self.out_flags |= c::MSG_CTRUNC;
        }
    }
}

/// `struct msghdr` of x86-64.
#[derive(Clone, Copy, Debug, Default)]
pub struct MsgHdr {
    /// Address buffer.
    pub name: u64,
    /// Its length.
    pub namelen: i32,
    /// Array of `struct iovec`.
    pub iov: u64,
    /// Its length.
    pub iovlen: usize,
    /// Control buffer.
    pub control: u64,
    /// Its length.
    pub controllen: usize,
}

/// Size of `struct msghdr`.
pub const MSGHDR_SIZE: usize = 56;
/// Size of `struct mmsghdr`.
pub const MMSGHDR_SIZE: usize = 64;
/// Most pieces of one message (UIO_MAXIOV).
const MAX_IOV: usize = 1024;
/// net.core.optmem_max: most bytes of control messages.
const OPTMEM_MAX: usize = 131_072;
/// Most files in one SCM_RIGHTS.
pub const SCM_MAX_FD: usize = 253;
/// Size of `struct cmsghdr`.
const CMSGHDR: usize = 16;
/// Longest transfer (MAX_RW_COUNT).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// Native-endian words at fixed places of a buffer that is long enough.
fn word(buf: &[u8], at: usize) -> u64 {
    buf.get(at..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_ne_bytes(*b))
}

fn int(buf: &[u8], at: usize) -> i32 {
    buf.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| i32::from_ne_bytes(*b))
}

/// The first int of an option value or control message; `EINVAL` if there is none.
pub fn first_int(val: &[u8]) -> Result<i32> {
    val.first_chunk::<4>().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

impl MsgHdr {
    /// Reads one from the guest.
    pub async fn import(cur: &Arc<Task>, addr: u64) -> Result<Self> {
        let mut raw = [0u8; MSGHDR_SIZE];
        cur.mm().copy_from_user(addr, &mut raw).await?;
        let mut h = Self {
            name: word(&raw, 0),
            namelen: int(&raw, 8),
            iov: word(&raw, 16),
            iovlen: usize::try_from(word(&raw, 24)).map_err(|_| Errno::EMSGSIZE)?,
            control: word(&raw, 32),
            controllen: usize::try_from(word(&raw, 40)).map_err(|_| Errno::ENOBUFS)?,
        };
        if h.name == 0 {
            h.namelen = 0;
        }
        if h.namelen < 0 {
            return Err(Errno::EINVAL);
        }
        // Linux cuts a longer one, sendmsg(2) has always taken it.
        h.namelen = h.namelen.min(128);
        if h.iovlen > MAX_IOV {
            return Err(Errno::EMSGSIZE);
        }
        if h.control == 0 {
            h.controllen = 0;
        }
        Ok(h)
    }

    /// Reads its `struct iovec` array.
    pub async fn import_iov(&self, cur: &Arc<Task>) -> Result<Vec<IoVec>> {
        let mut raw = vec![0u8; self.iovlen * 16];
        cur.mm().copy_from_user(self.iov, &mut raw).await?;
        let mut left = MAX_RW_COUNT;
        raw.chunks_exact(16)
            .map(|v| {
                let len = word(v, 8);
                if i64::try_from(len).is_err() {
                    return Err(Errno::EINVAL);
                }
                let len = usize::try_from(len).unwrap_or(usize::MAX).min(left);
                left -= len;
                Ok(IoVec { base: word(v, 0), len })
            })
            .collect()
    }

    /// Reads its control messages.
    pub async fn import_control(&self, cur: &Arc<Task>) -> Result<Control> {
        let mut out = Control::default();
        if self.controllen == 0 {
            return Ok(out);
        }
        if self.controllen > OPTMEM_MAX {
            return Err(Errno::ENOBUFS);
        }
        let mut raw = vec![0u8; self.controllen];
        cur.mm().copy_from_user(self.control, &mut raw).await?;
        let mut files = Vec::new();
        for m in parse_control(&raw)? {
            match (m.level, m.ty) {
                (c::SOL_SOCKET, c::SCM_RIGHTS) => import_rights(cur, &m.data, &mut files)?,
                (c::SOL_SOCKET, c::SCM_CREDENTIALS) => out.cred = Some(import_cred(cur, &m.data)?),
                _ => out.other.push(m),
            }
        }
        if !files.is_empty() {
            out.rights = Some(Rights::attach(cur, files)?);
        }
        Ok(out)
    }

    /// Writes the control messages and files of a receive to the guest; gives the bytes used and MSG_CTRUNC if
    /// something did not fit.
    pub async fn export_control(&self, cur: &Arc<Task>, msg: &mut RecvMsg) -> Result<(usize, u32)> {
        let mut out = ControlOut { room: self.controllen, bytes: Vec::new(), flags: 0 };
        for m in std::mem::take(&mut msg.control) {
            out.put(m.level, m.ty, &m.data);
        }
        let rights = std::mem::take(&mut msg.rights);
        let mut given = Vec::new();
        if !rights.is_empty() {
            let cloexec = msg.flags & c::MSG_CMSG_CLOEXEC != 0;
            let fit = out.left().saturating_sub(CMSGHDR) / 4;
            if rights.len() > fit {
                out.flags |= c::MSG_CTRUNC;
            }
            let files = cur.files();
            for file in rights.into_iter().take(fit) {
                match files.install(file, cloexec, 0, cur.nofile_limit()) {
                    Ok(fd) => given.push(fd),
                    Err(_) => {
                        out.flags |= c::MSG_CTRUNC;
                        break;
                    }
                }
            }
            if !given.is_empty() {
                let data: Vec<u8> = given.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
                out.put(c::SOL_SOCKET, c::SCM_RIGHTS, &data);
            }
        }
        if let Err(e) = cur.mm().copy_to_user(self.control, &out.bytes).await {
            for fd in given {
                let _ = cur.files().remove(fd);
            }
            return Err(e);
        }
        Ok((out.bytes.len(), out.flags))
    }

    /// Writes back what recvmsg(2) changes in the header at `addr`: name length, control length, flags.
    pub async fn export(
        &self,
        cur: &Arc<Task>,
        addr: u64,
        name: &SockAddr,
        control_used: usize,
        flags: u32,
    ) -> Result<()> {
        let mm = cur.mm();
        if self.name != 0 {
            let room = usize::try_from(self.namelen).unwrap_or(0).min(name.len());
            mm.copy_to_user(self.name, &name.bytes()[..room]).await?;
            mm.copy_to_user(addr.wrapping_add(8), &i32::try_from(name.len()).unwrap_or(0).to_ne_bytes())
                .await?;
        }
        mm.copy_to_user(addr.wrapping_add(40), &(control_used as u64).to_ne_bytes()).await?;
        mm.copy_to_user(addr.wrapping_add(48), &flags.to_ne_bytes()).await
    }
}

struct ControlOut {
    room: usize,
    bytes: Vec<u8>,
    flags: u32,
}

impl ControlOut {
    fn left(&self) -> usize {
        self.room.saturating_sub(self.bytes.len())
    }

    /// As put_cmsg(): what does not fit is cut and said so.
    fn put(&mut self, level: u32, ty: u32, data: &[u8]) {
        if self.left() < CMSGHDR {
            self.flags |= c::MSG_CTRUNC;
            return;
        }
        let mut len = CMSGHDR + data.len();
        if len > self.left() {
            self.flags |= c::MSG_CTRUNC;
            len = self.left();
        }
        self.bytes.extend_from_slice(&(len as u64).to_ne_bytes());
        self.bytes.extend_from_slice(&level.to_ne_bytes());
        self.bytes.extend_from_slice(&ty.to_ne_bytes());
        self.bytes.extend_from_slice(&data[..len - CMSGHDR]);
        let padded = self.bytes.len().next_multiple_of(8).min(self.room);
        self.bytes.resize(padded, 0);
    }
}

/// Takes a control buffer apart; `EINVAL` for a header with a bad length.
pub fn parse_control(raw: &[u8]) -> Result<Vec<Cmsg>> {
    let mut out = Vec::new();
    let mut at = 0usize;
    while raw.len().saturating_sub(at) >= CMSGHDR {
        let len = usize::try_from(word(raw, at)).map_err(|_| Errno::EINVAL)?;
        if len < CMSGHDR || len > raw.len() - at {
            return Err(Errno::EINVAL);
        }
        out.push(Cmsg {
            level: int(raw, at + 8) as u32,
            ty: int(raw, at + 12) as u32,
            data: raw[at + CMSGHDR..at + len].to_vec(),
        });
        at += len.next_multiple_of(8);
    }
    Ok(out)
}

fn import_rights(cur: &Arc<Task>, data: &[u8], out: &mut Vec<Arc<File>>) -> Result<()> {
    let files = cur.files();
    for fd in data.chunks_exact(4) {
        if out.len() == SCM_MAX_FD {
            return Err(Errno::EINVAL);
        }
        out.push(files.get(first_int(fd)?)?);
    }
    Ok(())
}

/// CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN of capabilities(7).
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;

fn import_cred(cur: &Arc<Task>, data: &[u8]) -> Result<Ucred> {
    if data.len() != 12 {
        return Err(Errno::EINVAL);
    }
    let u = Ucred { pid: int(data, 0) as u32, uid: int(data, 4) as u32, gid: int(data, 8) as u32 };
    let cred = cur.cred();
    let pid_ok = u.pid == cur.tgid() || cred.capable(CAP_SYS_ADMIN);
    let uid_ok = [cred.uid, cred.euid, cred.suid].contains(&u.uid) || cred.capable(CAP_SETUID);
    let gid_ok = [cred.gid, cred.egid, cred.sgid].contains(&u.gid) || cred.capable(CAP_SETGID);
    if pid_ok && uid_ok && gid_ok { Ok(u) } else { Err(Errno::EPERM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_survive_the_round_trip() {
        let mut out = ControlOut { room: 64, bytes: Vec::new(), flags: 0 };
        out.put(1, 2, &[9; 12]);
        out.put(41, 50, &[7; 3]);
        assert_eq!((out.bytes.len(), out.flags), (56, 0));
        let back = parse_control(&out.bytes).expect("valid");
        assert_eq!(back.len(), 2);
        assert_eq!((back[1].level, back[1].ty, &back[1].data[..]), (41, 50, &[7u8; 3][..]));
        out.put(1, 1, &[0; 4]);
        assert_eq!(out.flags, c::MSG_CTRUNC);
    }

    #[test]
    fn hostile_control_buffers_are_refused() {
        assert!(parse_control(&[0xff; 16]).is_err());
        let mut short = [0u8; 24];
        short[0] = 15;
        assert!(parse_control(&short).is_err());
        short[0] = 25;
        assert!(parse_control(&short).is_err());
        short[0] = 24;
        assert_eq!(parse_control(&short).map(|v| v.len()), Ok(1));
        assert_eq!(parse_control(&[0; 15]).map(|v| v.len()), Ok(0));
    }
}
