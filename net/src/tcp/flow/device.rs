//! The engine's device: one frame in, frames out; checksums, super-frames, options and marks of what was sent.

use super::super::ehash::FlowKey;
use super::super::loss::seq::lt;
use super::super::loss::{Ranges, Sender};
use super::super::segment::{ACK, FIN, PSH, RST, SYN, Segment};
use super::wire::{self, Stamps};
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
    /// Loss recovery, once the connection stands.
    pub(super) snd: Option<Box<Sender>>,
    /// What came out of order; `None` if the peer does not want to know.
    pub(super) rcv: Option<Ranges>,
    /// Timestamps, if they are in use.
    pub(super) ts: Option<Stamps>,
    /// Our SYN does not offer SACK.
    pub(super) no_sack: bool,
    /// The engine's answers go nowhere: it was told something that the peer did not say.
    pub(super) mute: bool,
    /// Sequence number of the last answer that went nowhere.
    pub(super) muted_seq: u32,
    /// IP and fixed TCP header of the last packet, as a pattern for packets of our own.
    pub(super) pattern: [u8; 60],
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
    /// When our SYN left, if it left once.
    pub(super) syn_at: Option<Ktime>,
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
        if let Some(snd) = &mut self.snd {
            snd.store.put(s.seq, &skb.data()[at + hlen..]);
        }
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

    /// Looks at a segment the engine wrote once more: false if it holds nothing that has not been sent (the engine was made
    /// to read its ring out again, or probes a closed window, which we do ourselves). The new part of the others stays.
    fn fresh(&mut self, skb: &mut Skb, seg: &mut Segment, gso: &mut Option<u16>) -> bool {
        let Some(snd) = &mut self.snd else { return true };
        if seg.flags & (SYN | RST) != 0 {
            return true;
        }
        let l4 = header_len(self.key.laddr);
        let len = seg.seq_len();
        if len == 0 {
            if lt(seg.seq, snd.nxt) {
                seg.seq = snd.nxt;
                skb.data_mut()[l4 + 4..l4 + 8].copy_from_slice(&snd.nxt.to_be_bytes());
            }
            return true;
        }
        if snd.rwnd == 0 && snd.flight() == 0 && seg.payload <= 1 && seg.flags & FIN == 0 {
            return false;
        }
        let hlen = l4 + seg.hlen;
        let old = snd.nxt.wrapping_sub(seg.seq);
        if lt(seg.seq, snd.nxt) && !snd.store.is_on() && seg.seq == snd.una {
            snd.store.begin(seg.seq);
        }
        snd.store.put(seg.seq, skb.data().get(hlen..).unwrap_or(&[]));
        if !lt(seg.seq, snd.nxt) {
            return true;
        }
        if old >= len || old as usize > seg.payload || !wire::cut_front(skb, l4, hlen, old) {
            return false;
        }
        seg.seq = snd.nxt;
        seg.payload -= old as usize;
        *gso = gso.filter(|g| seg.payload > usize::from(*g));
        true
    }

    /// Finishes a packet that the engine wrote.
    fn push(&mut self, mut skb: Skb, mut gso_size: Option<u16>) {
        let l4 = header_len(self.key.laddr);
        let Some(mut seg) = Segment::parse(skb.data(), l4) else { return };
        if self.mute {
            self.muted_seq = seg.seq;
            return;
        }
        self.open = None;
        if !self.fresh(&mut skb, &mut seg, &mut gso_size) {
            return;
        }
        self.options(&mut skb, &mut seg);
        let len = skb.len();
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
        if let (Some(p), Some(h)) = (self.pattern.get_mut(..l4 + 20), skb.data().get(..l4 + 20)) {
            p.copy_from_slice(h);
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

    /// Writes the options that the engine does not know the content of: timestamps, SACK.
    fn options(&mut self, skb: &mut Skb, seg: &mut Segment) {
        let l4 = header_len(self.key.laddr);
        if seg.flags & SYN != 0 {
            if self.no_sack {
                wire::blank_option(skb, l4, seg.hlen, 4);
            }
            if let Some(ts) = &self.ts {
                wire::stamp_syn(skb, l4, seg.hlen, ts.value(self.sent.now), ts.echo());
            }
            return;
        }
        let bare = seg.payload == 0 && seg.flags & (FIN | RST) == 0;
        let report = self.rcv.as_ref().is_some_and(|r| !r.is_empty());
        if !bare || (!report && seg.hlen == 20) {
            if let Some(ts) = &self.ts {
                wire::stamp(skb, l4, seg.hlen, ts.value(self.sent.now), ts.echo());
            }
            return;
        }
        let mut o = [0u8; 40];
        let mut n = 0;
        if let Some(ts) = &self.ts {
            o[..12].copy_from_slice(&wire::ts_option(ts.value(self.sent.now), ts.echo()));
            n = 12;
        }
        if let Some(r) = &mut self.rcv {
            let (head, room) = (n, (40 - n - 4) / 8);
            n += 4;
            r.blocks(seg.ack, room, |a, b| {
                o[n..n + 4].copy_from_slice(&a.to_be_bytes());
                o[n + 4..n + 8].copy_from_slice(&b.to_be_bytes());
                n += 8;
            });
            if n > head + 4 {
                o[head..head + 4].copy_from_slice(&[1, 1, 5, (n - head - 2) as u8]);
            } else {
                n = head;
            }
        }
        wire::set_options(skb, l4, seg.hlen, &o[..n]);
        seg.hlen = 20 + n;
    }

    fn note(&mut self, seg: &Segment, gso_size: Option<u16>) {
        let s = &mut self.sent;
        let len = seg.seq_len();
        let segs = gso_size.map_or(1, |g| seg.payload.div_ceil(usize::from(g).max(1)) as u64);
        s.segs += segs;
        let end = seg.seq.wrapping_add(len);
        if !s.any {
            (s.any, s.una, s.nxt) = (true, seg.seq, end);
            s.syn_at = Some(s.now);
        } else if (end.wrapping_sub(s.nxt) as i32) > 0 {
            s.nxt = end;
        } else if len > 0 {
            s.retrans += segs;
            s.syn_at = None;
        }
        if seg.flags & ACK != 0 {
            s.rcv_nxt = seg.ack;
            s.emitted_ack = true;
        }
        s.wnd = u32::from(seg.window);
        s.data_segments |= seg.payload > 0;
        if len > 0
            && seg.flags & (SYN | RST) == 0
            && let Some(snd) = &mut self.snd
        {
            snd.on_new(seg.seq, end, seg.payload as u32, s.now);
        }
    }
}
