//! Programs by which ss(8) chooses sockets (INET_DIAG_REQ_BYTECODE, linux/inet_diag.h).
//!
//! An operation is four bytes: code, how far to go on if it holds, how far if not; some are followed by an argument. A
//! program that ends exactly at its end takes the socket. Jumps only go forward, so every program ends.

use net::diag::{Row, octets};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uapi::raw::net as c;

const NOP: u8 = 0;
const JMP: u8 = 1;
const S_GE: u8 = 2;
const S_LE: u8 = 3;
const D_GE: u8 = 4;
const D_LE: u8 = 5;
const AUTO: u8 = 6;
const S_COND: u8 = 7;
const D_COND: u8 = 8;
const DEV_COND: u8 = 9;
const MARK_COND: u8 = 10;
const S_EQ: u8 = 11;
const D_EQ: u8 = 12;

const OP: usize = 4;
/// Bytes of `struct inet_diag_hostcond` without its address.
const COND: usize = 8;

/// A checked program; the empty one takes everything.
#[derive(Default)]
pub struct Filter {
    code: Vec<u8>,
}

fn op(code: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let b = code.get(at..at + OP)?;
    Some((b[0], b[1].into(), u16::from_ne_bytes([b[2], b[3]]).into()))
}

fn word(code: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*code.get(at..at + 4)?.first_chunk()?))
}

/// Length of an operation with its argument; `None` if it is none.
fn length(code: &[u8], at: usize) -> Option<usize> {
    let (kind, ..) = op(code, at)?;
    Some(match kind {
        NOP | JMP | AUTO => OP,
        S_GE | S_LE | D_GE | D_LE | S_EQ | D_EQ | DEV_COND => 2 * OP,
        MARK_COND => 3 * OP,
        S_COND | D_COND => {
            let h = code.get(at + OP..at + OP + COND)?;
            let (addr, bits) = match u32::from(h[0]) {
                c::AF_UNSPEC => (0, 0),
                c::AF_INET => (4, 32),
                c::AF_INET6 => (16, 128),
                _ => return None,
            };
            if h[1] > bits {
                return None;
            }
            OP + COND + addr
        }
        _ => return None,
    })
}

impl Filter {
    /// Checks a program: operations are known and whole, jumps lead to operations, or one behind the end.
    pub fn parse(code: &[u8]) -> Option<Self> {
        let mut starts = vec![false; code.len() + OP + 1];
        let mut at = 0;
        while at < code.len() {
            let len = length(code, at)?;
            let (_, yes, _) = op(code, at)?;
            if at + len > code.len() || yes < len || yes % 4 != 0 {
                return None;
            }
            *starts.get_mut(at)? = true;
            at += yes;
        }
        if at != code.len() {
            return None;
        }
        // The end takes the socket, one operation behind it refuses it.
        starts[code.len()] = true;
        starts[code.len() + OP] = true;
        let mut at = 0;
        while at < code.len() {
            let (_, yes, no) = op(code, at)?;
            if no < OP || !starts.get(at + no).copied().unwrap_or(false) {
                return None;
            }
            at += yes;
        }
        Some(Self { code: code.to_vec() })
    }

    /// True if the program takes this socket.
    pub fn takes(&self, row: &Row) -> bool {
        let mut at = 0;
        while at < self.code.len() {
            let Some((kind, yes, no)) = op(&self.code, at) else { return false };
            let step = if self.holds(kind, at, row) { yes } else { no };
            // As checked; a program cannot stand still.
            at += step.max(OP);
        }
        at == self.code.len()
    }

    fn holds(&self, kind: u8, at: usize, row: &Row) -> bool {
        let port = || op(&self.code, at + OP).map_or(0, |(_, _, port)| port);
        let (s, d) = (usize::from(row.local.port()), usize::from(row.remote.port()));
        match kind {
            NOP => true,
            S_GE => s >= port(),
            S_LE => s <= port(),
            S_EQ => s == port(),
            D_GE => d >= port(),
            D_LE => d <= port(),
            D_EQ => d == port(),
            S_COND => self.host(at + OP, row.local.ip(), s, row.v6),
            D_COND => self.host(at + OP, row.remote.ip(), d, row.v6),
            DEV_COND => word(&self.code, at + OP) == Some(row.oif),
            MARK_COND => {
                let (mark, mask) = (word(&self.code, at + OP), word(&self.code, at + 2 * OP));
                mark.zip(mask).is_some_and(|(mark, mask)| row.mark & mask == mark)
            }
            // AUTO: nobody chose the port, which is not known; JMP always goes the other way.
            _ => false,
        }
    }

    /// `struct inet_diag_hostcond`: an address with a prefix, and a port or -1.
    fn host(&self, at: usize, ip: IpAddr, port: usize, v6: bool) -> bool {
        let Some(h) = self.code.get(at..at + COND) else { return false };
        let want = i32::from_ne_bytes([h[4], h[5], h[6], h[7]]);
        if want != -1 && usize::try_from(want) != Ok(port) {
            return false;
        }
        let (family, bits) = (u32::from(h[0]), u32::from(h[1]));
        let rest = self.code.get(at + COND..).unwrap_or(&[]);
        let (mine, theirs, bits) = match (family, rest.first_chunk::<4>(), rest.first_chunk::<16>()) {
            (c::AF_INET, Some(a), _) => {
                let IpAddr::V4(mine) = ip else { return false };
                (mine.to_ipv6_mapped().octets(), Ipv4Addr::from(*a).to_ipv6_mapped().octets(), bits + 96)
            }
            (c::AF_INET6, _, Some(a)) if v6 => (octets(ip, true), Ipv6Addr::from(*a).octets(), bits),
            (c::AF_UNSPEC, ..) => return true,
            _ => return false,
        };
        if bits == 96 && family == c::AF_INET {
            return true;
        }
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        (u128::from_be_bytes(mine) ^ u128::from_be_bytes(theirs)) & mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn o(code: u8, yes: u8, no: u16) -> Vec<u8> {
        [vec![code, yes], no.to_ne_bytes().to_vec()].concat()
    }

    #[test]
    fn only_whole_programs_pass() {
        assert!(Filter::parse(&[]).is_some());
        // "sport >= 80": if it does not hold, one behind the end.
        let good = [o(S_GE, 8, 12), o(NOP, 0, 80)].concat();
        assert!(Filter::parse(&good).is_some());
        assert!(Filter::parse(&good[..4]).is_none(), "without its argument");
        assert!(Filter::parse(&[o(S_GE, 8, 10), o(NOP, 0, 80)].concat()).is_none(), "jump into nowhere");
        assert!(Filter::parse(&[o(S_GE, 4, 12), o(NOP, 0, 80)].concat()).is_none(), "jump into the argument");
        assert!(Filter::parse(&[o(NOP, 0, 4)].concat()).is_none(), "stands still");
        assert!(Filter::parse(&[o(99, 4, 4)].concat()).is_none(), "unknown");
        assert!(Filter::parse(&[o(S_COND, 12, 16), vec![2, 33, 0, 0, 0, 0, 0, 0]].concat()).is_none());
        for n in 0..64u8 {
            let junk: Vec<u8> = (0..n).map(|i| i.wrapping_mul(n).wrapping_add(n >> 2) % 13).collect();
            let _ = Filter::parse(&junk);
        }
    }
}
