//! Options of SOL_SOCKET (socket(7)), the same for all families.

use super::bpf::{Insn, MAX_INSNS, Program};
use super::common::{BUF_MAX, RCVBUF_MIN, SNDBUF_MIN, Timestamping};
use super::msg::first_int;
use super::{Socket, is_stream};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use std::time::Duration;
use uapi::raw::net as c;

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// Reads the program that a `struct sock_fprog` names; gives its instructions as bytes.
pub async fn import_filter(cur: &Arc<Task>, fprog: &[u8]) -> Result<Vec<u8>> {
    let len = fprog.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
    let ptr = fprog.get(8..16).and_then(|b| b.first_chunk::<8>()).ok_or(Errno::EINVAL)?;
    let len = usize::from(len);
    if len == 0 || len > MAX_INSNS {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0u8; len * 8];
    cur.mm().copy_from_user(u64::from_ne_bytes(*ptr), &mut raw).await?;
    Ok(raw)
}

fn parse_filter(raw: &[u8]) -> Result<Program> {
    let insns = raw
        .chunks_exact(8)
        .map(|b| Insn {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    Program::new(insns)
}

/// `struct timeval` as a time limit: 0 = none, `EDOM` for bad microseconds, negative seconds = at once.
fn timeval(val: &[u8]) -> Result<Option<Duration>> {
    let get = |at: usize| {
        val.get(at..).and_then(|b| b.first_chunk::<8>()).map(|b| i64::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
    };
    let (sec, usec) = (get(0)?, get(8)?);
    let usec = u32::try_from(usec).ok().filter(|&u| u < 1_000_000).ok_or(Errno::EDOM)?;
    match u64::try_from(sec) {
        Err(_) => Ok(Some(Duration::ZERO)),
        Ok(0) if usec == 0 => Ok(None),
        // Beyond what a timer can count there is no limit.
        Ok(s) if s > u64::from(u32::MAX) => Ok(None),
        Ok(s) => Ok(Some(Duration::new(s, usec * 1000))),
    }
}

fn timeval_bytes(d: Option<Duration>) -> Vec<u8> {
    let d = d.unwrap_or_default();
    let mut v = i64::try_from(d.as_secs()).unwrap_or(i64::MAX).to_ne_bytes().to_vec();
    v.extend_from_slice(&i64::from(d.subsec_micros()).to_ne_bytes());
    v
}

/// What SO_SNDBUF or SO_RCVBUF makes of a wish: twice as much, within limits (socket(7)).
fn buf_size(want: i32, min: usize, max: usize) -> usize {
    (usize::try_from(want).unwrap_or(0).min(max) * 2).max(min)
}

/// setsockopt(2) with SOL_SOCKET.
pub fn set(cur: &Arc<Task>, sock: &Arc<dyn Socket>, name: u32, val: &[u8]) -> Result<()> {
    let com = sock.common();
    let admin = || {
        let cred = cur.cred();
        if cred.capable(CAP_NET_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    };
    match name {
        // Not numbers.
        c::SO_LINGER => {
            let on = first_int(val)?;
            let secs = first_int(val.get(4..).unwrap_or(&[]))?;
            let mut o = com.opts();
            o.linger_secs = secs;
            o.linger = (on != 0).then_some(secs);
        }
        c::SO_RCVTIMEO_OLD | c::SO_RCVTIMEO_NEW => com.opts().rcvtimeo = timeval(val)?,
        c::SO_SNDTIMEO_OLD | c::SO_SNDTIMEO_NEW => com.opts().sndtimeo = timeval(val)?,
        c::SO_BINDTODEVICE => {
            let text = val.split(|&b| b == 0).next().unwrap_or(&[]);
            let index = match text {
                [] => 0,
                t if t.len() > 15 => return Err(Errno::EINVAL),
                t => super::dev_index(std::str::from_utf8(t).map_err(|_| Errno::ENODEV)?)?,
            };
            bind_to_device(cur, sock, index)?;
        }
        c::SO_ATTACH_FILTER => {
            let prog = parse_filter(val)?;
            let mut o = com.opts();
            if o.lock_filter {
                return Err(Errno::EPERM);
            }
            o.filter = Some(Arc::new(prog));
        }
        c::SO_DETACH_FILTER => {
            let mut o = com.opts();
            match (o.lock_filter, &o.filter) {
                (true, _) => return Err(Errno::EPERM),
                (_, None) => return Err(Errno::ENOENT),
                _ => o.filter = None,
            }
        }
        c::SO_ATTACH_BPF | c::SO_ATTACH_REUSEPORT_CBPF | c::SO_ATTACH_REUSEPORT_EBPF => {
            return Err(Errno::EINVAL);
        }
        _ => {
            let v = first_int(val)?;
            let on = v != 0;
            match name {
                c::SO_DEBUG if on => {
                    admin()?;
                    com.opts().debug = true;
                }
                c::SO_DEBUG => com.opts().debug = false,
                c::SO_REUSEADDR => com.opts().reuseaddr = on,
                c::SO_REUSEPORT => com.opts().reuseport = on,
                c::SO_KEEPALIVE => com.opts().keepalive = on,
                c::SO_BROADCAST => com.opts().broadcast = on,
                c::SO_OOBINLINE => com.opts().oobinline = on,
                c::SO_DONTROUTE => com.opts().dontroute = on,
                c::SO_NO_CHECK => com.opts().no_check = on,
                c::SO_SNDBUF => com.opts().sndbuf = buf_size(v, SNDBUF_MIN, BUF_MAX),
                c::SO_RCVBUF => com.opts().rcvbuf = buf_size(v, RCVBUF_MIN, BUF_MAX),
                c::SO_SNDBUFFORCE => {
                    admin()?;
                    com.opts().sndbuf = buf_size(v, SNDBUF_MIN, FORCE_MAX);
                }
                c::SO_RCVBUFFORCE => {
                    admin()?;
                    com.opts().rcvbuf = buf_size(v, RCVBUF_MIN, FORCE_MAX);
                }
                c::SO_RCVLOWAT => com.opts().rcvlowat = if v < 0 { i32::MAX } else { v.max(1) },
                c::SO_PRIORITY => {
                    if !(0..=6).contains(&v) {
                        admin()?;
                    }
                    com.opts().priority = v;
                }
                c::SO_MARK => {
                    if !cur.cred().capable(CAP_NET_RAW) {
                        admin()?;
                    }
                    com.opts().mark = v as u32;
                }
                c::SO_TIMESTAMP_OLD => com.opts().timestamp = stamp(on, Timestamping::Micros(false)),
                c::SO_TIMESTAMP_NEW => com.opts().timestamp = stamp(on, Timestamping::Micros(true)),
                c::SO_TIMESTAMPNS_OLD => com.opts().timestamp = stamp(on, Timestamping::Nanos(false)),
                c::SO_TIMESTAMPNS_NEW => com.opts().timestamp = stamp(on, Timestamping::Nanos(true)),
                // Reports of the moment of sending are not made; an empty set of them can be asked for.
                c::SO_TIMESTAMPING_OLD | c::SO_TIMESTAMPING_NEW if !on => {}
                c::SO_BINDTOIFINDEX => {
                    bind_to_device(cur, sock, u32::try_from(v).map_err(|_| Errno::EINVAL)?)?;
                }
                c::SO_PASSCRED if com.family == c::AF_UNIX || com.family == c::AF_NETLINK => {
                    com.opts().passcred = on;
                }
                c::SO_PASSCRED => return Err(Errno::EOPNOTSUPP),
                c::SO_PASSSEC if com.family == c::AF_UNIX => {}
                c::SO_RXQ_OVFL => com.opts().rxq_ovfl = on,
                c::SO_LOCK_FILTER => {
                    let mut o = com.opts();
                    if o.lock_filter && !on {
                        return Err(Errno::EPERM);
                    }
                    o.lock_filter = on;
                }
                c::SO_MAX_PACING_RATE => {
                    let wide = val.first_chunk::<8>().map(|b| u64::from_ne_bytes(*b));
                    com.opts().max_pacing_rate = wide.unwrap_or(u64::from(v as u32));
                }
                c::SO_BUSY_POLL | c::SO_INCOMING_CPU | c::SO_PREFER_BUSY_POLL | c::SO_BUSY_POLL_BUDGET => {}
                c::SO_TYPE
                | c::SO_PROTOCOL
                | c::SO_DOMAIN
                | c::SO_ERROR
                | c::SO_ACCEPTCONN
                | c::SO_SNDLOWAT => return Err(Errno::ENOPROTOOPT),
                _ => return Err(Errno::ENOPROTOOPT),
            }
        }
    }
    sock.sol_socket_changed(cur, name, val)
}

/// Twice this is what SO_SNDBUFFORCE may set; memory is charged to sockets one by one, so there is a bound.
const FORCE_MAX: usize = 32 << 20;

fn stamp(on: bool, kind: Timestamping) -> Timestamping {
    if on { kind } else { Timestamping::Off }
}

fn bind_to_device(cur: &Arc<Task>, sock: &Arc<dyn Socket>, index: u32) -> Result<()> {
    let mut o = sock.common().opts();
    if o.bound_dev != 0 && !cur.cred().capable(CAP_NET_RAW) {
        return Err(Errno::EPERM);
    }
    if index != 0 && super::dev_name(index).is_none() {
        return Err(Errno::ENODEV);
    }
    o.bound_dev = index;
    Ok(())
}

fn int(v: i32) -> Vec<u8> {
    v.to_ne_bytes().to_vec()
}

/// getsockopt(2) with SOL_SOCKET; `room` is what the caller has.
pub fn get(sock: &Arc<dyn Socket>, name: u32, room: usize) -> Result<Vec<u8>> {
    let com = sock.common();
    let o = com.opts().clone();
    let size = |n: usize| int(i32::try_from(n).unwrap_or(i32::MAX));
    let flag = |b: bool| int(b.into());
    Ok(match name {
        c::SO_DEBUG => flag(o.debug),
        c::SO_REUSEADDR => flag(o.reuseaddr),
        c::SO_REUSEPORT => flag(o.reuseport),
        c::SO_KEEPALIVE => flag(o.keepalive),
        c::SO_BROADCAST => flag(o.broadcast),
        c::SO_OOBINLINE => flag(o.oobinline),
        c::SO_DONTROUTE => flag(o.dontroute),
        c::SO_NO_CHECK => flag(o.no_check),
        c::SO_SNDBUF | c::SO_RCVBUF => match sock.buf_sizes() {
            Some((snd, rcv)) => size(if name == c::SO_SNDBUF { snd } else { rcv }),
            None => size(if name == c::SO_SNDBUF { o.sndbuf } else { o.rcvbuf }),
        },
        c::SO_PRIORITY => int(o.priority),
        c::SO_MARK => int(o.mark as i32),
        c::SO_LINGER => [int(o.linger.is_some().into()), int(o.linger_secs)].concat(),
        c::SO_TYPE => int(com.ty as i32),
        c::SO_PROTOCOL => int(com.protocol as i32),
        c::SO_DOMAIN => int(com.family as i32),
        c::SO_ACCEPTCONN => flag(sock.is_listening()),
        c::SO_ERROR => int(sock.take_error().map_or(0, Errno::raw)),
        c::SO_RCVLOWAT => int(o.rcvlowat),
        c::SO_SNDLOWAT => int(1),
        c::SO_RCVTIMEO_OLD | c::SO_RCVTIMEO_NEW => timeval_bytes(o.rcvtimeo),
        c::SO_SNDTIMEO_OLD | c::SO_SNDTIMEO_NEW => timeval_bytes(o.sndtimeo),
        c::SO_TIMESTAMP_OLD => flag(o.timestamp == Timestamping::Micros(false)),
        c::SO_TIMESTAMP_NEW => flag(o.timestamp == Timestamping::Micros(true)),
        c::SO_TIMESTAMPNS_OLD => flag(o.timestamp == Timestamping::Nanos(false)),
        c::SO_TIMESTAMPNS_NEW => flag(o.timestamp == Timestamping::Nanos(true)),
        c::SO_TIMESTAMPING_OLD | c::SO_TIMESTAMPING_NEW => int(0),
        c::SO_PASSCRED => flag(o.passcred),
        c::SO_RXQ_OVFL => flag(o.rxq_ovfl),
        c::SO_LOCK_FILTER => flag(o.lock_filter),
        c::SO_PEERCRED => sock.peer_cred().unwrap_or(super::Ucred::NO_PEER).bytes().to_vec(),
        c::SO_PEERNAME => {
            let name = sock.name(true)?;
            if room < name.len() {
                return Err(Errno::EINVAL);
            }
            name.bytes().to_vec()
        }
        c::SO_PEERGROUPS => sock.peer_groups().ok_or(Errno::ENODATA).and_then(|g| {
            let raw: Vec<u8> = g.iter().flat_map(|g| g.to_ne_bytes()).collect();
            if room < raw.len() { Err(Errno::ERANGE) } else { Ok(raw) }
        })?,
        c::SO_BINDTODEVICE => match super::dev_name(o.bound_dev) {
            None => Vec::new(),
            Some(_) if room < 16 => return Err(Errno::EINVAL),
            Some(n) => [n.as_bytes(), &[0]].concat(),
        },
        c::SO_BINDTOIFINDEX => int(o.bound_dev as i32),
        c::SO_GET_FILTER => size(o.filter.map_or(0, |f| f.len())),
        c::SO_MAX_PACING_RATE if room >= 8 => o.max_pacing_rate.to_ne_bytes().to_vec(),
        c::SO_MAX_PACING_RATE => int(u32::try_from(o.max_pacing_rate).unwrap_or(u32::MAX) as i32),
        c::SO_INCOMING_CPU | c::SO_BUSY_POLL | c::SO_INCOMING_NAPI_ID => int(0),
        c::SO_COOKIE if room < 8 => return Err(Errno::EINVAL),
        c::SO_COOKIE => sock.cookie().to_ne_bytes().to_vec(),
        c::SO_MEMINFO => {
            let words = [
                u32::try_from(sock.inq().unwrap_or(0)).unwrap_or(0),
                u32::try_from(o.rcvbuf).unwrap_or(u32::MAX),
                u32::try_from(sock.outq().unwrap_or(0)).unwrap_or(0),
                u32::try_from(o.sndbuf).unwrap_or(u32::MAX),
                0,
                0,
                0,
                0,
                0,
            ];
            words.iter().flat_map(|w| w.to_ne_bytes()).collect()
        }
        c::SO_PEERSEC | c::SO_PASSSEC => {
            log::debug!(target: "socket", "security labels of sockets: there are none");
            return Err(Errno::ENOPROTOOPT);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

/// True if a time stamp of now is to be put on a message, and how.
pub fn timestamp_cmsg(kind: Timestamping, ns: u64) -> Option<(u32, Vec<u8>)> {
    let sec = i64::try_from(ns / 1_000_000_000).unwrap_or(0).to_ne_bytes();
    let rest = i64::try_from(ns % 1_000_000_000).unwrap_or(0);
    Some(match kind {
        Timestamping::Off => return None,
        Timestamping::Micros(new) => (
            if new { c::SO_TIMESTAMP_NEW } else { c::SO_TIMESTAMP_OLD },
            [sec, (rest / 1000).to_ne_bytes()].concat(),
        ),
        Timestamping::Nanos(new) => (
            if new { c::SO_TIMESTAMPNS_NEW } else { c::SO_TIMESTAMPNS_OLD },
            [sec, rest.to_ne_bytes()].concat(),
        ),
    })
}

/// SO_RCVLOWAT matters to streams only.
pub fn rcvlowat(sock: &Arc<dyn Socket>) -> usize {
    if is_stream(sock.common()) { usize::try_from(sock.common().opts().rcvlowat).unwrap_or(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_and_sizes_as_linux_reads_them() {
        let tv = |s: i64, u: i64| [s.to_ne_bytes(), u.to_ne_bytes()].concat();
        assert_eq!(timeval(&tv(0, 0)), Ok(None));
        assert_eq!(timeval(&tv(1, 500_000)), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(timeval(&tv(-1, 0)), Ok(Some(Duration::ZERO)));
        assert_eq!(timeval(&tv(0, 1_000_000)), Err(Errno::EDOM));
        assert_eq!(timeval(&[0; 8]), Err(Errno::EINVAL));
        assert_eq!(buf_size(1000, SNDBUF_MIN, BUF_MAX), SNDBUF_MIN);
        assert_eq!(buf_size(100_000, SNDBUF_MIN, BUF_MAX), 200_000);
        assert_eq!(buf_size(-1, RCVBUF_MIN, BUF_MAX), RCVBUF_MIN);
        assert_eq!(buf_size(i32::MAX, RCVBUF_MIN, BUF_MAX), 2 * BUF_MAX);
    }
}
