//! Options of TCP sockets, and what they make of an engine.

use super::ehash::FlowKey;
use super::flow::{FlowConfig, isn, stamp_offset};
use super::loss::Algorithm;
use crate::netns::Net;
use uapi::Result;

/// Options of a TCP socket; accepted sockets inherit them.
#[derive(Clone, Copy, Debug)]
pub struct TcpOpts {
    /// The socket's family is IPv6.
    pub v6: bool,
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// TCP_CORK: hold partial segments back.
    pub cork: bool,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
    /// TCP_KEEPIDLE, seconds.
    pub keepidle: u32,
    /// TCP_KEEPINTVL, seconds.
    pub keepintvl: u32,
    /// TCP_KEEPCNT.
    pub keepcnt: u32,
    /// TCP_SYNCNT.
    pub syn_retries: u8,
    /// TCP_USER_TIMEOUT, milliseconds; 0 = the default.
    pub user_timeout_ms: u32,
    /// TCP_MAXSEG, 0 = the path's.
    pub maxseg: usize,
    /// SO_RCVBUF as set (not doubled), 0 = the default.
    pub rcvbuf: usize,
    /// SO_SNDBUF as set (not doubled), 0 = the default.
    pub sndbuf: usize,
    /// SO_RCVLOWAT.
    pub rcvlowat: usize,
    /// SO_LINGER: seconds, `None` = off.
    pub linger: Option<u16>,
    /// IP_TTL, 0 = the default.
    pub ttl: u8,
    /// IP_TOS.
    pub tos: u8,
    /// SO_MARK.
    pub mark: u32,
    /// SO_BINDTODEVICE, 0 = any.
    pub oif: u32,
    /// TCP_CONGESTION, `None` = the default.
    pub congestion: Option<Algorithm>,
}

impl Default for TcpOpts {
    fn default() -> Self {
        Self {
            v6: false,
            nodelay: false,
            cork: false,
            keepalive: false,
            keepidle: 7200,
            keepintvl: 75,
            keepcnt: 9,
            syn_retries: 6,
            user_timeout_ms: 0,
            maxseg: 0,
            rcvbuf: 0,
            sndbuf: 0,
            rcvlowat: 1,
            linger: None,
            ttl: 0,
            tos: 0,
            mark: 0,
            oif: 0,
            congestion: None,
        }
    }
}

/// Bytes of the rings that a connection with these options gets: receive, send.
pub(crate) fn ring_sizes(net: &Net, opts: &TcpOpts) -> (usize, usize) {
    let (rmem, wmem) = net.sysctl.tcp_buffers();
    let size = |set: usize, default: usize| {
        let n = if set == 0 { default } else { set.saturating_mul(2) };
        n.clamp(4096, 64 << 20)
    };
    (size(opts.rcvbuf, rmem), size(opts.sndbuf, wmem))
}

impl Net {
    /// What an engine for these ends is made with.
    pub(super) fn flow_config(&self, key: &FlowKey, opts: &TcpOpts) -> Result<FlowConfig> {
        let route = self.route_lookup(key.raddr, Some(key.laddr), opts.oif)?;
        let (rcvbuf, sndbuf) = ring_sizes(self, opts);
        Ok(FlowConfig {
            key: *key,
            mtu: route.mtu as usize,
            // Devices that cannot cut super-frames get them cut in software at the last moment.
            gso_max: if route.dev.is_loopback() {
                0
            } else {
                (route.dev.drv.gso_max_size() as usize).min(65_500)
            },
            rcvbuf,
            sndbuf,
            isn: isn(key, self.tcp.hash, self.now()),
            stamp_offset: stamp_offset(key, self.tcp.hash),
            maxseg: opts.maxseg,
            algo: opts.congestion.unwrap_or_else(|| self.sysctl.congestion()),
            sack: self.sysctl.flag("ipv4/tcp_sack"),
            timestamps: self.sysctl.flag("ipv4/tcp_timestamps"),
        })
    }
}
