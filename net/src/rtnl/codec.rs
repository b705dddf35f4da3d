//! Messages and attributes (linux/netlink.h).

use std::net::IpAddr;
use uapi::{Errno, Result};

pub(crate) const NLMSG_HDRLEN: usize = 16;
pub(crate) const NLM_F_MULTI: u16 = 2;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CAPPED: u16 = 0x100;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Datagrams of a dump: what a reader with a buffer of one page can take.
const DUMP_SIZE: usize = 3776;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub len: u32,
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
}

impl Header {
    pub(crate) fn parse(d: &[u8]) -> Option<Self> {
        let d = d.get(..NLMSG_HDRLEN)?;
        Some(Self {
            len: u32::from_ne_bytes(d[..4].try_into().ok()?),
            kind: u16::from_ne_bytes(d[4..6].try_into().ok()?),
            flags: u16::from_ne_bytes(d[6..8].try_into().ok()?),
            seq: u32::from_ne_bytes(d[8..12].try_into().ok()?),
        })
    }
}

/// A message being written (linux/netlink.h).
pub struct Msg {
    buf: Vec<u8>,
}

impl Msg {
    /// A message of a type, with flags (`NLM_F_*`), sequence number and port id.
    pub fn new(kind: u16, flags: u16, seq: u32, portid: u32) -> Self {
        let mut buf = vec![0; NLMSG_HDRLEN];
        buf[4..6].copy_from_slice(&kind.to_ne_bytes());
        buf[6..8].copy_from_slice(&flags.to_ne_bytes());
        buf[8..12].copy_from_slice(&seq.to_ne_bytes());
        buf[12..16].copy_from_slice(&portid.to_ne_bytes());
        Self { buf }
    }

    /// Bytes of the fixed part.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        while !self.buf.len().is_multiple_of(4) {
            self.buf.push(0);
        }
    }

    /// An attribute; it is left empty if it is longer than one can be.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        self.pad();
        let len = u16::try_from(value.len() + 4).unwrap_or(4);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&value[..usize::from(len) - 4]);
        self.pad();
    }

    /// An attribute of a number.
    pub fn attr_u32(&mut self, kind: u16, v: u32) {
        self.attr(kind, &v.to_ne_bytes());
    }

    /// An attribute of one byte.
    pub fn attr_u8(&mut self, kind: u16, v: u8) {
        self.attr(kind, &[v]);
    }

    /// An attribute of a string; it is closed with a NUL.
    pub fn attr_str(&mut self, kind: u16, v: &str) {
        let mut b = v.as_bytes().to_vec();
        b.push(0);
        self.attr(kind, &b);
    }

    pub(crate) fn attr_ip(&mut self, kind: u16, v: IpAddr) {
        match v {
            IpAddr::V4(a) => self.attr(kind, &a.octets()),
            IpAddr::V6(a) => self.attr(kind, &a.octets()),
        }
    }

    /// An attribute of what `f` writes.
    pub fn nest(&mut self, kind: u16, f: impl FnOnce(&mut Self)) {
        self.pad();
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0, 0]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        f(self);
        let len = u16::try_from(self.buf.len() - at).unwrap_or(4);
        self.buf[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// The message with its length, padded.
    pub fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.buf.len()).unwrap_or(0);
        self.buf[..4].copy_from_slice(&len.to_ne_bytes());
        self.pad();
        self.buf
    }
}

/// The messages of a dump, packed into datagrams.
pub(crate) struct Dump {
    pub seq: u32,
    pub portid: u32,
    done: Vec<Vec<u8>>,
    current: Vec<u8>,
}

impl Dump {
    pub(crate) fn new(h: &Header, portid: u32) -> Self {
        Self { seq: h.seq, portid, done: Vec::new(), current: Vec::new() }
    }

    pub(crate) fn msg(&self, kind: u16) -> Msg {
        Msg::new(kind, NLM_F_MULTI, self.seq, self.portid)
    }

    pub(crate) fn push(&mut self, m: Msg) {
        let b = m.finish();
        if !self.current.is_empty() && self.current.len() + b.len() > DUMP_SIZE {
            self.done.push(std::mem::take(&mut self.current));
        }
        self.current.extend_from_slice(&b);
    }

    pub(crate) fn finish(mut self) -> Vec<Vec<u8>> {
        let mut m = self.msg(NLMSG_DONE);
        m.put(&0i32.to_ne_bytes());
        self.push(m);
        self.done.push(self.current);
        self.done
    }
}

/// NLMSG_ERROR: an acknowledgement, or an error with the message it is about.
pub(crate) fn error(h: &Header, msg: &[u8], e: Option<Errno>, portid: u32) -> Vec<u8> {
    let capped = if e.is_none() { NLM_F_CAPPED } else { 0 };
    let mut m = Msg::new(NLMSG_ERROR, capped, h.seq, portid);
    m.put(&e.map_or(0, |e| -(e as i32)).to_ne_bytes());
    m.put(if e.is_none() { &msg[..NLMSG_HDRLEN] } else { msg });
    m.finish()
}

/// The attributes of a request.
pub(crate) struct Attrs<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Attrs<'a> {
    /// Reads attributes behind a fixed part of `skip` bytes. EINVAL if they are malformed.
    pub(crate) fn parse(body: &'a [u8], skip: usize) -> Result<Self> {
        let mut rest = body.get((skip + 3) & !3..).unwrap_or(&[]);
        let mut v = Vec::new();
        while rest.len() >= 4 {
            let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            // The top bits are "nested" and "network byte order".
            let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
            if len < 4 || len > rest.len() {
                return Err(Errno::EINVAL);
            }
            v.push((kind, &rest[4..len]));
            rest = rest.get((len + 3) & !3..).unwrap_or(&[]);
        }
        Ok(Self(v))
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().rev().find(|(k, _)| *k == kind).map(|(_, v)| *v)
    }

    pub(crate) fn u32(&self, kind: u16) -> Result<Option<u32>> {
        self.get(kind).map(be_u32).transpose()
    }

    pub(crate) fn str(&self, kind: u16) -> Result<Option<&'a str>> {
        let Some(v) = self.get(kind) else { return Ok(None) };
        let v = v.split(|b| *b == 0).next().unwrap_or(&[]);
        std::str::from_utf8(v).map(Some).map_err(|_| Errno::EINVAL)
    }

    pub(crate) fn ip(&self, kind: u16) -> Result<Option<IpAddr>> {
        let Some(v) = self.get(kind) else { return Ok(None) };
        if let Ok(b) = <[u8; 4]>::try_from(v) {
            return Ok(Some(IpAddr::from(b)));
        }
        <[u8; 16]>::try_from(v).map(|b| Some(IpAddr::from(b))).map_err(|_| Errno::EINVAL)
    }
}

fn be_u32(v: &[u8]) -> Result<u32> {
    Ok(u32::from_ne_bytes(v.get(..4).ok_or(Errno::EINVAL)?.try_into().map_err(|_| Errno::EINVAL)?))
}

/// A u32 of the fixed part; 0 if the part is shorter (old callers send one byte for dumps).
pub(crate) fn word(body: &[u8], at: usize) -> u32 {
    body.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A byte of the fixed part.
pub(crate) fn byte(body: &[u8], at: usize) -> u8 {
    body.get(at).copied().unwrap_or(0)
}
