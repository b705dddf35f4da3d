//! `relay TAP udp:PORT|ip:PROTOCOL LOCAL PEER HEADER`: Ethernet frames of a tap to and from a tunnel, where the host's kernel has no such
//! device. The far end of the tunnels in benchmarks, made to cost little: super-frames of the tap are cut here and leave as UDP_SEGMENT
//! trains or as one `sendmmsg`; what comes in is put together again and reaches the host's TCP as super-frames.
//!
//! HEADER is what stands before each frame, in hexadecimal; a packet with another one is dropped. Segments that are merged are not
//! summed up: the tunnel's own checksum has been verified by the host, or the way had none.

mod sys;
mod tcp;

use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use sys::{Inbox, Outbox, ROOM, VNET};
use tcp::{MAX_HEADER, Run};

/// Longest tunnel header.
const MAX_ENCAP: usize = 24;
/// Segments whose headers are held until they are sent.
const SLOTS: usize = 1024;
/// Super-frames read from the tap before they are sent.
const READS: usize = 16;
/// Most bytes and packets of one UDP_SEGMENT train.
const TRAIN: (usize, usize) = (65507, 64);

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

/// Runs until it is killed.
pub fn run(tap: &str, kind: &str, local: &str, peer: &str, header: &str) -> Result<()> {
    let bad = |what: &str| Error::other(format!("{what:?}: not understood"));
    let header: Vec<u8> = (0..header.len() / 2)
        .map(|i| u8::from_str_radix(&header[2 * i..2 * i + 2], 16).map_err(|_| bad(header)))
        .collect::<Result<_>>()?;
    if header.len() > MAX_ENCAP {
        return Err(Error::other("the header is too long"));
    }
    let local: Ipv4Addr = local.parse().map_err(|_| bad(local))?;
    let peer: Ipv4Addr = peer.parse().map_err(|_| bad(peer))?;
    let (port, protocol) = match kind.split_once(':') {
        Some(("udp", p)) => (Some(p.parse().map_err(|_| bad(kind))?), 0),
        Some(("ip", p)) => (None, p.parse().map_err(|_| bad(kind))?),
        _ => return Err(bad(kind)),
    };
    let wire = sys::socket(local, port, protocol)?;
    let tap = sys::tap(tap)?;
    let peer = SocketAddrV4::new(peer, port.unwrap_or(0));
    let mut out = Out {
        tap: &tap,
        wire: &wire,
        peer,
        header: &header,
        udp: port.is_some(),
        slots: vec![[0; _]; SLOTS],
    };
    // A raw socket shows the IP header too.
    let skip = if port.is_some() { 0 } else { 20 };
    let (mut reads, mut inbox) = (vec![vec![0; ROOM]; READS], Inbox::new());
    loop {
        let (from_tap, from_wire) = sys::wait(&tap, &wire)?;
        if from_tap {
            out.pump(&mut reads)?;
        }
        if from_wire {
            inbox.receive(&wire)?;
            bring_in(&tap, &inbox, skip, &header);
        }
    }
}

/// From the tap to the tunnel.
struct Out<'a> {
    tap: &'a OwnedFd,
    wire: &'a OwnedFd,
    peer: SocketAddrV4,
    header: &'a [u8],
    udp: bool,
    slots: Vec<[u8; MAX_ENCAP + MAX_HEADER]>,
}

impl Out<'_> {
    /// Reads what is there, at most one frame a buffer, and sends it.
    fn pump(&mut self, reads: &mut [Vec<u8>]) -> Result<()> {
        let mut outbox = Outbox::default();
        let mut used = 0;
        for b in reads {
            let Some(n) = sys::read(self.tap, b)? else { break };
            let Some(frame) = b.get_mut(..n).filter(|f| f.len() > VNET + tcp::TCP) else { continue };
            let (vnet, frame) = frame.split_at_mut(VNET);
            let mss = usize::from(u16::from_ne_bytes([vnet[4], vnet[5]]));
            let start = usize::from(u16::from_ne_bytes([vnet[6], vnet[7]]));
            let at = start + usize::from(u16::from_ne_bytes([vnet[8], vnet[9]]));
            match tcp::headers(frame) {
                Some(len) if vnet[1] != 0 && mss > 0 => {
                    let needed = frame.len().saturating_sub(len).div_ceil(mss);
                    if used + needed > SLOTS {
                        outbox.send(self.wire, self.peer);
                        used = 0;
                    }
                    if needed <= SLOTS {
                        self.segments(frame, len, mss, used, &mut outbox);
                        used += needed;
                    }
                    continue;
                }
                _ if vnet[0] & NEEDS_CSUM != 0 && at + 2 <= frame.len() => {
                    let s = tcp::fold(tcp::sum(&frame[start..]));
                    // All zeros would mean that a UDP datagram has none.
                    let s = if s == [0xff, 0xff] { s } else { [!s[0], !s[1]] };
                    frame[at..at + 2].copy_from_slice(&s);
                }
                _ => {}
            }
            outbox.part(self.header);
            outbox.part(frame);
            outbox.end(2, 0);
        }
        if !outbox.is_empty() {
            outbox.send(self.wire, self.peer);
        }
        Ok(())
    }

    fn segments(&mut self, frame: &[u8], len: usize, mss: usize, used: usize, outbox: &mut Outbox) {
        let packet = self.header.len() + len + mss;
        let train = if self.udp { (TRAIN.0 / packet).clamp(1, TRAIN.1) } else { 1 };
        let mut open = 0;
        for (i, slot) in self.slots[used..].iter_mut().enumerate() {
            let (encap, inner) = slot.split_at_mut(self.header.len());
            encap.copy_from_slice(self.header);
            let Some(payload) = tcp::cut(frame, len, mss, i, inner) else { break };
            outbox.part(&slot[..self.header.len() + len]);
            outbox.part(&frame[payload]);
            open += 1;
            if open == train {
                outbox.end(2 * open, if open > 1 { packet as u16 } else { 0 });
                open = 0;
            }
        }
        if open > 0 {
            outbox.end(2 * open, if open > 1 { packet as u16 } else { 0 });
        }
    }
}

/// From the tunnel to the tap.
fn bring_in(tap: &OwnedFd, inbox: &Inbox, skip: usize, header: &[u8]) {
    let mut run: Option<Run> = None;
    let mut parts = Vec::with_capacity(64);
    let frames = inbox.packets().filter_map(|p| p.get(skip..)?.strip_prefix(header));
    for f in frames {
        if let Some(r) = run.as_mut().and_then(|r| r.push(f)) {
            parts.push(sys::part(&f[r]));
            continue;
        }
        finish(tap, run.take(), &mut parts);
        match Run::begin(f) {
            Some((new, r)) => {
                run = Some(new);
                parts.push(sys::part(&f[r]));
            }
            None => sys::write(tap, &[sys::part(&[0; VNET]), sys::part(f)]),
        }
    }
    finish(tap, run, &mut parts);
}

fn finish(tap: &OwnedFd, run: Option<Run>, payload: &mut Vec<libc::iovec>) {
    let Some(mut run) = run else { return };
    let (count, mss) = (run.count, run.mss as u16);
    let head = run.finish();
    let mut vnet = [0; VNET];
    vnet[0] = NEEDS_CSUM;
    vnet[2..4].copy_from_slice(&(head.len() as u16).to_ne_bytes());
    if count > 1 {
        vnet[1] = GSO_TCPV4;
        vnet[4..6].copy_from_slice(&mss.to_ne_bytes());
    }
    vnet[6..8].copy_from_slice(&(tcp::TCP as u16).to_ne_bytes());
    vnet[8..10].copy_from_slice(&16u16.to_ne_bytes());
    payload.splice(0..0, [sys::part(&vnet), sys::part(head)]);
    sys::write(tap, payload);
    payload.clear();
}
