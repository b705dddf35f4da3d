//! The engine's device: one frame in, frames out; checksums, super-frames and marks of what was sent.

use super::super::ehash::FlowKey;
use super::super::segment::{ACK, FIN, PSH, SYN, Segment};
use crate::csum;
use crate::ip::{IPPROTO_TCP, header_len};
use crate::skb::{CsumStatus, GsoInfo, GsoType, Skb, SkbPool};
use klib::ktime::Ktime;
use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;
use std::sync::Arc;

/// A frame that later segments may still be glued to.
pub(super) struct Open {
    pub(super) next_seq: u32,
    pub(super) hlen: usize,
    pub(super) seg: usize,
    pub(super) ack: u32,
}

/// The engine's device: one frame in, frames out.
pub(super) struct Port {
    pub(super) pool: Arc<SkbPool>,
    pub(super) caps: DeviceCapabilities,
    pub(super) rx: Option<Skb>,
    pub(super) out: Vec<Skb>,
    pub(super) open: Option<Open>,
    pub(super) glue_max: usize,
    /// The receive ring is larger than an unscaled window can say: see [`Port::offer`].
    pub(super) scaled: bool,
    pub(super) key: FlowKey,
    pub(super) sent: Sent,
}

/// What has been sent so far.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) any: bool,
    pub(super) nxt: u32,
    pub(super) una: u32,
    pub(super) rcv_nxt: u32,
    pub(super) wnd: u32,
    pub(super) segs: u64,
    pub(super) retrans: u64,
    pub(super) data_segments: bool,
    pub(super) emitted_ack: bool,
    pub(super) rtt_probe: Option<(u32, Ktime)>,
    pub(super) now: Ktime,
}

impl Device for Port {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _t: Instant) -> Option<(Rx, Tx<'_>)> {
        let skb = self.rx.take()?;
        Some((Rx(skb), Tx { port: self, meta: PacketMeta::default() }))
    }

    fn transmit(&mut self, _t: Instant) -> Option<Tx<'_>> {
        Some(Tx { port: self, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.caps.clone()
    }
}

pub(super) struct Rx(Skb);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0.data())
    }
}

pub(super) struct Tx<'a> {
    port: &'a mut Port,
    meta: PacketMeta,
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Tx { port, meta } = self;
        if let Some(open) = &port.open
            && let Some(last) = port.out.last_mut()
            && last.len() + len - open.hlen <= port.glue_max
            && last.tailroom() + open.hlen >= len
            && len > open.hlen
        {
            return port.glue(len, f);
        }
        let mut skb = port.pool.alloc(len);
        let r = f(skb.put(len));
        port.push(skb, meta.segmentation_offload_size.map(|s| s.get()));
        r
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl Port {
    /// The window field that is sent for the engine's. The engine rounds its window down to whole units of the scale
    /// with every acknowledgement, which pulls the right edge back by less than a unit, and cuts what lies behind it:
    /// the peer would have to send the last bytes of a full window again. One unit less is an edge that stays.
    fn offer(&self, window: u16) -> u16 {
        if self.scaled { window.saturating_sub(1) } else { window }
    }

    /// Writes the next segment right behind the last one: its headers over the end of the old payload, which is put
    /// back afterwards if the segment turns out to be the continuation.
    fn glue<R>(&mut self, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let (Some(open), Some(mut skb)) = (self.open.take(), self.out.pop()) else {
            let mut skb = self.pool.alloc(len);
            let r = f(skb.put(len));
            self.push(skb, None);
            return r;
        };
        let hlen = open.hlen;
        let at = skb.len() - hlen;
        let mut saved = [0u8; 100];
        saved[..hlen].copy_from_slice(&skb.data()[at..]);
        skb.put(len - hlen);
        let r = f(&mut skb.data_mut()[at..]);
        let l4 = header_len(self.key.laddr);
        let seg = Segment::parse(&skb.data()[at..], l4);
        let fits = seg.is_some_and(|s| {
            s.seq == open.next_seq
                && s.ack == open.ack
                && s.hlen + l4 == hlen
                && s.flags & !(PSH | FIN) == ACK
                && s.payload > 0
                && s.payload <= open.seg
        });
        if !fits {
            let mut own = self.pool.alloc(len);
            own.put(len).copy_from_slice(&skb.data()[at..]);
            skb.data_mut()[at..at + hlen].copy_from_slice(&saved[..hlen]);
            skb.trim(at + hlen);
            self.out.push(skb);
            self.push(own, None);
            return r;
        }
        let Some(s) = seg else { return r };
        skb.data_mut()[at..at + hlen].copy_from_slice(&saved[..hlen]);
        let total = skb.len();
        let d = skb.data_mut();
        d[l4 + 13] |= s.flags;
        d[l4 + 14..l4 + 16].copy_from_slice(&self.offer(s.window).to_be_bytes());
        if let Ok(n) = u16::try_from(total - l4) {
            d[4..6].copy_from_slice(&n.to_be_bytes());
        }
        let c = csum::fold(csum::pseudo(self.key.laddr, self.key.raddr, IPPROTO_TCP, total - l4));
        d[l4 + 16..l4 + 18].copy_from_slice(&c.to_be_bytes());
        skb.gso = Some(GsoInfo { kind: GsoType::TcpV6, size: open.seg as u16, hdr_len: hlen as u16 });
        self.note(&s, None);
        if s.payload == open.seg && s.flags & FIN == 0 {
            self.open = Some(Open { next_seq: s.seq.wrapping_add(s.payload as u32), ..open });
        }
        self.out.push(skb);
        r
    }

    /// Finishes a packet that the engine wrote.
    fn push(&mut self, mut skb: Skb, gso_size: Option<u16>) {
        let l4 = header_len(self.key.laddr);
        let len = skb.len();
        self.open = None;
        let Some(seg) = Segment::parse(skb.data(), l4) else { return };
        let c = csum::fold(csum::pseudo(self.key.laddr, self.key.raddr, IPPROTO_TCP, len - l4));
        if let Some(field) = skb.data_mut().get_mut(l4 + 16..l4 + 18) {
            field.copy_from_slice(&c.to_be_bytes());
        }
        if seg.flags & SYN == 0
            && let Some(field) = skb.data_mut().get_mut(l4 + 14..l4 + 16)
        {
            field.copy_from_slice(&self.offer(seg.window).to_be_bytes());
        }
        skb.csum = CsumStatus::Partial { start: l4 as u16, offset: 16 };
        let hlen = l4 + seg.hlen;
        if let Some(size) = gso_size {
            skb.gso = Some(GsoInfo { kind: GsoType::TcpV4, size, hdr_len: hlen as u16 });
        }
        self.note(&seg, gso_size);
        if self.glue_max > 0 && seg.payload > 0 && seg.flags & (SYN | FIN) == 0 && hlen <= 100 {
            // Room for those that may follow.
            if skb.tailroom() < seg.payload && len + seg.payload <= self.glue_max && seg.payload >= 512 {
                let mut big = self.pool.alloc(self.glue_max);
                big.put(len).copy_from_slice(skb.data());
                big.csum = skb.csum;
                skb = big;
            }
            self.open = Some(Open {
                next_seq: seg.seq.wrapping_add(seg.payload as u32),
                hlen,
                seg: seg.payload,
                ack: seg.ack,
            });
        }
        self.out.push(skb);
    }

    fn note(&mut self, seg: &Segment, gso_size: Option<u16>) {
        let s = &mut self.sent;
        let len = seg.seq_len();
        let segs = gso_size.map_or(1, |g| seg.payload.div_ceil(usize::from(g).max(1)) as u64);
        s.segs += segs;
        let end = seg.seq.wrapping_add(len);
        if !s.any {
            (s.any, s.una, s.nxt) = (true, seg.seq, end);
        } else if (end.wrapping_sub(s.nxt) as i32) > 0 {
            s.nxt = end;
            if s.rtt_probe.is_none() && len > 0 {
                s.rtt_probe = Some((end, s.now));
            }
        } else if len > 0 {
            s.retrans += segs;
            s.rtt_probe = None;
        }
        if seg.flags & ACK != 0 {
            s.rcv_nxt = seg.ack;
            s.emitted_ack = true;
        }
        s.wnd = u32::from(seg.window);
        s.data_segments |= seg.payload > 0;
    }
}
