//! What all sockets have: family, type, protocol, and the options of SOL_SOCKET.

use super::bpf::Program;
use klib::sync::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Which time stamps received messages carry (SO_TIMESTAMP and its family).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Timestamping {
    /// None.
    #[default]
    Off,
    /// `struct timeval`; the flag says that it was asked for by the `_NEW` number.
    Micros(bool),
    /// `struct timespec`; as above.
    Nanos(bool),
}

/// Options of SOL_SOCKET (socket(7)).
#[derive(Clone, Debug)]
pub struct SockOpts {
    /// SO_REUSEADDR.
    pub reuseaddr: bool,
    /// SO_REUSEPORT.
    pub reuseport: bool,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
    /// SO_BROADCAST.
    pub broadcast: bool,
    /// SO_OOBINLINE.
    pub oobinline: bool,
    /// SO_DONTROUTE.
    pub dontroute: bool,
    /// SO_DEBUG (kept, without effect).
    pub debug: bool,
    /// SO_NO_CHECK (kept, without effect).
    pub no_check: bool,
    /// SO_LINGER: seconds, if on.
    pub linger: Option<i32>,
    /// Seconds last given with SO_LINGER, for reading back while it is off.
    pub linger_secs: i32,
    /// SO_SNDBUF as read back (twice what was set).
    pub sndbuf: usize,
    /// SO_RCVBUF as read back.
    pub rcvbuf: usize,
    /// SO_RCVLOWAT.
    pub rcvlowat: i32,
    /// SO_SNDTIMEO.
    pub sndtimeo: Option<Duration>,
    /// SO_RCVTIMEO.
    pub rcvtimeo: Option<Duration>,
    /// SO_PRIORITY.
    pub priority: i32,
    /// SO_MARK.
    pub mark: u32,
    /// SO_TIMESTAMP and SO_TIMESTAMPNS.
    pub timestamp: Timestamping,
    /// SO_BINDTODEVICE as an index; 0 = any.
    pub bound_dev: u32,
    /// SO_PASSCRED.
    pub passcred: bool,
    /// SO_RXQ_OVFL.
    pub rxq_ovfl: bool,
    /// SO_MAX_PACING_RATE (kept, without effect).
    pub max_pacing_rate: u64,
    /// SO_LOCK_FILTER.
    pub lock_filter: bool,
    /// SO_ATTACH_FILTER.
    pub filter: Option<Arc<Program>>,
}

/// net.core.wmem_default and rmem_default as x86-64 computes them.
pub const BUF_DEFAULT: usize = 212_992;
/// net.core.wmem_max and rmem_max: what SO_SNDBUF and SO_RCVBUF may ask for.
pub const BUF_MAX: usize = 4 << 20;
/// SOCK_MIN_SNDBUF.
pub const SNDBUF_MIN: usize = 4608;
/// SOCK_MIN_RCVBUF.
pub const RCVBUF_MIN: usize = 2304;

impl Default for SockOpts {
    fn default() -> Self {
        Self {
            reuseaddr: false,
            reuseport: false,
            keepalive: false,
            broadcast: false,
            oobinline: false,
            dontroute: false,
            debug: false,
            no_check: false,
            linger: None,
            linger_secs: 0,
            sndbuf: BUF_DEFAULT,
            rcvbuf: BUF_DEFAULT,
            rcvlowat: 1,
            sndtimeo: None,
            rcvtimeo: None,
            priority: 0,
            mark: 0,
            timestamp: Timestamping::Off,
            bound_dev: 0,
            passcred: false,
            rxq_ovfl: false,
            max_pacing_rate: u64::MAX,
            lock_filter: false,
            filter: None,
        }
    }
}

/// Family, type, protocol and options of a socket.
#[derive(Debug)]
pub struct SockCommon {
    /// AF_*.
    pub family: u32,
    /// SOCK_STREAM, SOCK_DGRAM, ...
    pub ty: u32,
    /// IPPROTO_*, NETLINK_*, or 0.
    pub protocol: u32,
    /// Inode number, as /proc/PID/fd and /proc/net show it.
    pub ino: AtomicU64,
    opts: Mutex<SockOpts>,
}

impl SockCommon {
    /// With the options as they are at first.
    pub fn new(family: u32, ty: u32, protocol: u32) -> Self {
        Self { family, ty, protocol, ino: AtomicU64::new(0), opts: Mutex::default() }
    }

    /// A child as accept(2) makes it: the options of the listener.
    pub fn inherit(&self) -> Self {
        let opts = SockOpts { filter: None, ..self.opts().clone() };
        Self {
            family: self.family,
            ty: self.ty,
            protocol: self.protocol,
            ino: AtomicU64::new(0),
            opts: Mutex::new(opts),
        }
    }

    /// The options.
    pub fn opts(&self) -> MutexGuard<'_, SockOpts> {
        self.opts.lock()
    }
}
