//! What others are shown of a connection: a summary for lists, details for who asks.

use super::conn::{Conn, Inner};
use super::flow::TcpState;
use super::info::conn_info;
use super::loss::Algorithm;
use super::sock::TcpSock;
use crate::diag::{Mem, Timer};
use crate::netns::Net;
use klib::ktime::Ktime;

/// The state of a connection in a few words.
pub struct Summary {
    /// The socket's family is IPv6.
    pub v6: bool,
    /// State.
    pub state: TcpState,
    /// Unread bytes.
    pub recv_queue: usize,
    /// Bytes that are not acknowledged.
    pub send_queue: usize,
    /// SO_BINDTODEVICE.
    pub oif: u32,
    /// SO_MARK.
    pub mark: u32,
    /// The timer that runs.
    pub timer: Timer,
}

/// A closer look at a connection.
pub struct ConnDetail {
    /// `struct tcp_info`.
    pub info: Vec<u8>,
    /// Congestion control.
    pub congestion: Algorithm,
    /// IP_TOS, IPV6_TCLASS.
    pub tos: (u8, u8),
    /// 1 = closed for reading, 2 = for writing.
    pub shutdown: u8,
    /// Memory.
    pub mem: Mem,
}

impl Conn {
    /// A summary.
    pub fn summary(&self, now: Ktime) -> Summary {
        self.peek(|i| Summary {
            v6: i.opts.v6,
            state: i.flow.state(),
            recv_queue: i.flow.recv_queue(),
            send_queue: i.flow.send_queue(),
            oif: i.opts.oif,
            mark: i.opts.mark,
            timer: self.timer(i, now),
        })
    }

    fn timer(&self, i: &mut Inner, now: Ktime) -> Timer {
        let small = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
        if let Some((kind, at)) = i.flow.timer(now) {
            let retrans = match kind {
                4 => i.flow.window_probes(),
                _ => i.flow.sender().map_or(0, super::loss::Sender::backoff),
            };
            return Timer { kind, left: at.since(now), retrans: small(retrans) };
        }
        match self.deadline(i) {
            Some(at) if i.opts.keepalive => Timer { kind: 2, left: at.since(now), retrans: small(i.probes) },
            _ => Timer::default(),
        }
    }

    /// A closer look.
    pub fn detail(&self, net: &Net) -> ConnDetail {
        let now = net.now();
        let backlog = self.backlog_bytes();
        self.peek(|i| ConnDetail {
            info: conn_info(i, now),
            congestion: i.flow.algorithm(),
            tos: if i.opts.v6 { (0, i.opts.tos) } else { (i.opts.tos, 0) },
            shutdown: u8::from(i.rcv_shutdown) | u8::from(i.snd_shutdown) << 1,
            mem: Mem {
                rmem: i.flow.recv_queue(),
                rcvbuf: i.flow.recv_capacity(),
                wmem: i.flow.send_queue(),
                sndbuf: i.flow.send_capacity(),
                backlog,
                drops: 0,
            },
        })
    }

    /// True if no socket holds it any more.
    pub fn is_orphan(&self) -> bool {
        self.peek(|i| i.orphan)
    }
}

impl TcpSock {
    /// SO_COOKIE.
    pub fn cookie(&self) -> u64 {
        self.base.id
    }

    /// The socket has become an open file with this inode, of this user.
    pub fn set_owner(&self, ino: u64, uid: u32) {
        self.base.set_owner(ino, uid);
        if let Some(c) = self.conn() {
            c.set_owner(self.base.owner());
        }
    }
}
