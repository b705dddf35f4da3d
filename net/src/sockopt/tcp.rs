//! Options of TCP sockets (tcp(7), linux/tcp.h).

use super::{SOL_SOCKET, SOL_TCP, common, int, reply};
use crate::tcp::loss::Algorithm;
use crate::tcp::{TcpSock, TcpState};
use uapi::{Errno, Result};

impl TcpSock {
    /// setsockopt(2): the bytes of the guest's value.
    pub fn setsockopt(&self, level: i32, name: i32, v: &[u8]) -> Result<()> {
        if level != SOL_TCP {
            if level == SOL_SOCKET && name == 26 {
                return Err(Errno::ENOPROTOOPT);
            }
            if !common::set(self.net(), &self.base, level, name, v)? {
                return Err(Errno::ENOPROTOOPT);
            }
            let o = self.base.opts();
            self.set_opts(|t| {
                t.keepalive = o.keepalive;
                t.linger = o.linger;
                t.rcvlowat = o.rcvlowat as usize;
                t.rcvbuf = o.rcvbuf;
                t.sndbuf = o.sndbuf;
                t.ttl = if o.hops != 0 { o.hops } else { o.ttl };
                t.tos = if o.tclass != 0 { o.tclass } else { o.tos };
                t.mark = o.mark;
                t.oif = o.oif;
            });
            return Ok(());
        }
        // TCP_CONGESTION: a name.
        if name == 13 {
            let n = v.split(|c| *c == 0).next().unwrap_or(&[]);
            let a = std::str::from_utf8(n).ok().and_then(Algorithm::parse).ok_or(Errno::ENOENT)?;
            self.set_opts(|t| t.congestion = Some(a));
            return Ok(());
        }
        let n = int(v)?;
        let on = n != 0;
        let range = |lo: i32, hi: i32| {
            if (lo..=hi).contains(&n) { Ok(n as u32) } else { Err(Errno::EINVAL) }
        };
        match name {
            1 => self.set_opts(|t| t.nodelay = on),
            2 => {
                if n != 0 && !(88..=32_767).contains(&n) {
                    return Err(Errno::EINVAL);
                }
                self.set_opts(|t| t.maxseg = n as usize);
            }
            3 => self.set_opts(|t| t.cork = on),
            4 => {
                let s = range(1, 32_767)?;
                self.set_opts(|t| t.keepidle = s);
            }
            5 => {
                let s = range(1, 32_767)?;
                self.set_opts(|t| t.keepintvl = s);
            }
            6 => {
                let s = range(1, 127)?;
                self.set_opts(|t| t.keepcnt = s);
            }
            7 => {
                let s = range(1, 127)?;
                self.set_opts(|t| t.syn_retries = s as u8);
            }
            18 => {
                let s = range(0, i32::MAX)?;
                self.set_opts(|t| t.user_timeout_ms = s);
            }
            // TCP_LINGER2, TCP_DEFER_ACCEPT, TCP_WINDOW_CLAMP, TCP_QUICKACK, TCP_THIN_*, TCP_NOTSENT_LOWAT, TCP_SAVE_SYN:
            // hints without effect here.
            8 | 9 | 10 | 12 | 16 | 17 | 25 | 27 => {}
            // TCP_FASTOPEN*, TCP_ULP, TCP_MD5SIG, TCP_REPAIR, TCP_ZEROCOPY_RECEIVE and others.
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// getsockopt(2): the bytes of the value.
    pub fn getsockopt(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        let t = self.opts();
        match (level, name) {
            // SO_TYPE, SO_ERROR, SO_ACCEPTCONN, SO_PROTOCOL, and the sizes of the rings that are there.
            (SOL_SOCKET, 3) => return Ok(reply(1)),
            (SOL_SOCKET, 4) => return Ok(reply(self.take_error().map_or(0, |e| e as i32))),
            (SOL_SOCKET, 30) => return Ok(reply(i32::from(self.state() == TcpState::Listen))),
            (SOL_SOCKET, 38) => return Ok(reply(6)),
            (SOL_SOCKET, 7 | 8) => {
                let (r, w) = self.buffer_sizes();
                return Ok(reply(i32::try_from(if name == 7 { w } else { r }).unwrap_or(i32::MAX)));
            }
            (SOL_TCP, 11) => return Ok(crate::tcp::tcp_info(self)),
            (SOL_TCP, 13) => {
                let a = t.congestion.unwrap_or_else(|| self.net().sysctl.congestion());
                let mut name = a.name().as_bytes().to_vec();
                name.resize(16, 0);
                return Ok(name);
            }
            _ => {}
        }
        if level != SOL_TCP {
            return common::get(self.net(), &self.base, level, name)?.ok_or(Errno::ENOPROTOOPT);
        }
        Ok(reply(match name {
            1 => i32::from(t.nodelay),
            2 => i32::try_from(self.mss()).unwrap_or(536),
            3 => i32::from(t.cork),
            4 => t.keepidle as i32,
            5 => t.keepintvl as i32,
            6 => t.keepcnt as i32,
            7 => i32::from(t.syn_retries),
            8 => 60,
            9 | 10 | 16 | 17 | 23 | 25 | 27 => 0,
            12 => 1,
            18 => t.user_timeout_ms as i32,
            _ => return Err(Errno::ENOPROTOOPT),
        }))
    }
}
