//! Received segments: which connection, or a new one.

use super::conn::Conn;
use super::ehash::FlowKey;
use super::flow::Flow;
use super::listen::Listener;
use super::output::{bare, reset_reply};
use super::segment::{ACK, FIN, RST, SYN, Segment};
use crate::ip::input::transport_ok;
use crate::ip::{Packet, header_len};
use crate::netns::Net;
use crate::skb::{PktType, Skb};
use klib::waitqueue::WaitQueue;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use uapi::Errno;

/// Connections that got segments in one receive batch; each runs once at the end, so that one acknowledgement
/// answers the whole batch.
#[derive(Default)]
pub struct RxBatch {
    conns: Vec<Arc<Conn>>,
}

impl RxBatch {
    fn add(&mut self, c: Arc<Conn>) {
        // Bursts come from few connections; one that is entered twice merely finds nothing to do.
        if !self.conns.iter().rev().take(4).any(|x| Arc::ptr_eq(x, &c)) {
            self.conns.push(c);
        }
    }

    /// Runs what was touched.
    pub(crate) fn finish(&mut self, net: &Net) {
        for c in self.conns.drain(..) {
            c.poll(net);
        }
    }
}

impl Net {
    /// A TCP packet for us, IP header first.
    pub(crate) fn tcp_rcv(&self, mut skb: Skb, pkt: &Packet, batch: &mut RxBatch) {
        let Some(seg) = Segment::parse(skb.data(), pkt.l4) else { return };
        if skb.pkt_type != PktType::Host || pkt.dst.is_multicast() || seg.sport == 0 || seg.dport == 0 {
            return;
        }
        if !transport_ok(&skb, pkt) {
            return;
        }
        if pkt.l4 != header_len(pkt.dst) && !strip_options(&mut skb, pkt) {
            return;
        }
        let key = FlowKey { laddr: pkt.dst, lport: seg.dport, raddr: pkt.src, rport: seg.sport };
        if let Some(c) = self.tcp.ehash.get(&key) {
            c.enqueue(skb);
            batch.add(c);
            return;
        }
        if let Some(tw) = self.tcp.timewait.get(&key) {
            let fresh = seg.flags & (SYN | ACK | RST) == SYN && (seg.seq.wrapping_sub(tw.rcv_nxt) as i32) > 0;
            if !fresh {
                // RFC 1337: a RST does not end TIME-WAIT. Anything that is not a plain late ACK is answered.
                if seg.flags & RST == 0 && (seg.seq_len() > 0 || seg.ack != tw.snd_nxt) {
                    bare(self, &key, tw.snd_nxt, Some(tw.rcv_nxt), false);
                }
                if seg.flags & FIN != 0 {
                    self.timewait_enter(key, tw.snd_nxt, tw.rcv_nxt, self.now());
                }
                return;
            }
            self.timewait_leave(&key);
        }
        if seg.flags & (SYN | ACK | RST | FIN) == SYN {
            let hash = self.tcp.hash.hash(&(key.raddr, key.rport));
            if let Some(l) = self.tcp.listeners.lookup(pkt.dst, seg.dport, skb.dev, hash) {
                self.tcp_syn(&l, key, skb, batch);
                return;
            }
        }
        reset_reply(self, pkt, &seg);
    }

    fn tcp_syn(&self, l: &Arc<Listener>, key: FlowKey, skb: Skb, batch: &mut RxBatch) {
        // A full backlog drops the SYN; the peer tries again.
        if !l.begin_syn() {
            self.stats.listen_drops.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return;
        }
        let conn = self.flow_config(&key, &l.opts).ok().and_then(|cfg| {
            let mut flow = Flow::listen(cfg, self.now(), Arc::clone(&self.pool))?;
            flow.set_nodelay(l.opts.nodelay);
            Some(Conn::new(self, key, flow, l.opts, WaitQueue::new(), Some(l)))
        });
        let Some(conn) = conn else {
            l.syn_failed();
            return;
        };
        if !self.tcp.ehash.insert(&conn) {
            l.syn_failed();
            return;
        }
        self.tcp.ports.use_port(key.lport, true);
        conn.enqueue(skb);
        batch.add(conn);
    }

    /// An ICMP error quoted a TCP packet of ours; `mtu`: what the path carries, if it said so.
    pub(crate) fn tcp_error(
        &self,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
        seq: u32,
        err: Errno,
        mtu: u32,
    ) {
        let key = FlowKey { laddr: local.0, lport: local.1, raddr: remote.0, rport: remote.1 };
        if let Some(c) = self.tcp.ehash.get(&key) {
            c.icmp_error(self, seq, err, mtu);
        }
    }
}

/// The engine reads plain headers; IP options and extension headers are cut out.
fn strip_options(skb: &mut Skb, pkt: &Packet) -> bool {
    let hlen = header_len(pkt.dst);
    let Some(extra) = pkt.l4.checked_sub(hlen) else { return false };
    let d = skb.data_mut();
    if d.len() < pkt.l4 {
        return false;
    }
    let v4 = pkt.dst.is_ipv4();
    let total = pkt.end - extra;
    d.copy_within(..hlen, extra);
    let h = &mut d[extra..];
    if v4 {
        h[0] = 0x45;
        h[2..4].copy_from_slice(&u16::try_from(total).unwrap_or(0).to_be_bytes());
    } else {
        h[6] = crate::ip::IPPROTO_TCP;
        h[4..6].copy_from_slice(&u16::try_from(total - hlen).unwrap_or(0).to_be_bytes());
    }
    skb.pull(extra);
    true
}

/// Addresses as a socket of the family shows them.
pub(crate) fn present(a: SocketAddr, v6: bool) -> SocketAddr {
    match a {
        SocketAddr::V4(v) if v6 => SocketAddr::new(IpAddr::V6(v.ip().to_ipv6_mapped()), v.port()),
        a => a,
    }
}
