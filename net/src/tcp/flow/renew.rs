//! Memory of rings that were used and are not any more goes back to the host.
//!
//! A ring is a mapping of zero pages, so a connection that says little costs little. But its receive ring is walked through
//! by and by, and what a burst has touched stays. The engine cannot be told to begin in front again or to use other memory; so
//! a connection that lies still is given a new engine that believes in the same numbers: a SYN and an acknowledgement
//! are made up for it, its answers are muted, and its own initial number follows from the seed (`isn`).

use super::super::segment::{ACK, SYN};
use super::{Flow, FlowConfig, TcpState, wire};
use klib::ktime::Ktime;
use smoltcp::iface::PollResult;
use std::time::Duration;

/// Bytes, both ways, that make it worth the while.
const WORTH: u64 = 64 << 10;
/// A connection that has moved less in this time lies still, or nearly.
const STILL: Duration = Duration::from_secs(2);

/// How much of the rings was used.
pub(super) struct Used {
    /// Bytes received and acknowledged when the current span of time began.
    bytes: u64,
    since: Ktime,
    /// Pages are held that may not be needed.
    heavy: bool,
}

impl Used {
    pub(super) fn new(now: Ktime) -> Self {
        Self { bytes: 0, since: now, heavy: false }
    }
}

impl Flow {
    /// Looks whether memory can be given back. To be called after each change.
    pub fn tidy(&mut self, now: Ktime) {
        let total = self.stats.bytes_received + self.stats.bytes_acked;
        let span = now.since(self.used.since);
        if total - self.used.bytes >= WORTH {
            self.used.heavy = true;
            if span < STILL {
                (self.used.bytes, self.used.since) = (total, now);
                return;
            }
        }
        if !self.used.heavy || span < STILL {
            return;
        }
        (self.used.bytes, self.used.since) = (total, now);
        if self.is_still() {
            self.used.heavy = false;
            if !self.renew(now) {
                log::debug!(target: "tcp", "a connection keeps its rings");
            }
        }
    }

    /// When [`tidy`](Self::tidy) wants to be called.
    pub fn tidy_at(&self) -> Option<Ktime> {
        let stands = self.used.heavy && self.state() == TcpState::Established;
        stands.then(|| self.used.since + STILL)
    }

    /// Nothing is in the rings, on its way, or owed to the peer.
    fn is_still(&self) -> bool {
        let Some(snd) = &self.port.snd else { return false };
        self.state() == TcpState::Established
            && self.clock.frozen.is_none()
            && snd.flight() == 0
            && snd.rwnd > 0
            && self.sock_ref().send_queue() == 0
            && self.sock_ref().recv_queue() == 0
            && self.port.rcv.as_ref().is_some_and(|r| r.is_empty())
            && self.rx_unacked == 0
            && self.port.out.is_empty()
    }

    /// Puts a new engine in the place of the old one; false if the old one stays.
    fn renew(&mut self, now: Ktime) -> bool {
        let Some(snd) = &self.port.snd else { return false };
        let (una, window) = (snd.una, snd.window());
        let cfg = FlowConfig { isn: una.wrapping_sub(1), ..self.cfg };
        let iface = Self::interface(&cfg, &mut self.port, self.clock.now(now));
        let old_iface = std::mem::replace(&mut self.iface, iface);
        let (sockets, handle) = Self::socket(&cfg);
        let old_sockets = std::mem::replace(&mut self.sockets, sockets);
        let old_handle = std::mem::replace(&mut self.handle, handle);
        if self.greet(now, una, window) {
            self.shown = self.shown.max(window >> self.scale << self.scale);
            return true;
        }
        (self.iface, self.sockets, self.handle) = (old_iface, old_sockets, old_handle);
        false
    }

    /// Leads a new engine to where the connection stands.
    fn greet(&mut self, now: Ktime, una: u32, window: u32) -> bool {
        let (ttl, nagle) = (self.ttl, !self.nodelay);
        let stamps = self.port.ts.as_ref().map(|t| wire::ts_option(t.value(now), t.echo()));
        let k = self.cfg.key;
        let here = smoltcp::wire::IpListenEndpoint { addr: Some(super::ip(k.laddr)), port: k.lport };
        let sock = self.sock();
        sock.set_nagle_enabled(nagle);
        sock.set_hop_limit(ttl);
        if stamps.is_some() {
            sock.set_tsval_generator(Some(|| 1));
        }
        if sock.listen(here).is_err() {
            return false;
        }
        // MSS, SACK permitted with fillers, window scale with a filler, stamps.
        let mss = u16::try_from(self.peer_mss).unwrap_or(u16::MAX).to_be_bytes();
        let mut options = vec![2, 4, mss[0], mss[1]];
        if self.peer_sack {
            options.extend_from_slice(&[1, 1, 4, 2]);
        }
        if self.peer_wscale {
            options.extend_from_slice(&[1, 3, 3, self.scale]);
        }
        options.extend_from_slice(stamps.as_ref().map_or(&[], |s| &s[..]));
        let mut syn = self.peer_segment(self.rcv_nxt.wrapping_sub(1), 0, SYN, &options);
        self.show_window(&mut syn, window, 0);
        self.feed(now, syn);
        self.quiet_output(now);
        if self.port.muted_seq != una.wrapping_sub(1) {
            return false;
        }
        let options = stamps.as_ref().map_or(&[][..], |s| &s[..]);
        let mut ack = self.peer_segment(self.rcv_nxt, una, ACK, options);
        self.show_window(&mut ack, window, self.scale);
        self.feed(now, ack);
        // It may want to tell of its window, which the peer knows.
        self.quiet_output(now);
        self.state() == TcpState::Established
    }

    fn quiet_output(&mut self, now: Ktime) {
        self.port.mute = true;
        for _ in 0..4 {
            let t = self.clock.now(now);
            if self.iface.poll_egress(t, &mut self.port, &mut self.sockets) != PollResult::SocketStateChanged
            {
                break;
            }
        }
        self.port.mute = false;
    }
}
