//! Classic BPF on sockets (SO_ATTACH_FILTER): checked once, then run over each message. Programs have no backward
//! jumps, so a run is bounded by their length.

use crate::{Errno, Result};

/// One instruction, `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// BPF_MAXINSNS.
pub const MAX_INSNS: usize = 4096;
/// BPF_MEMWORDS.
const MEM: usize = 16;
/// SKF_AD_OFF: loads at or above it ask for facts about the packet, not for its bytes.
const AD_OFF: u32 = 0xffff_f000;

/// A checked program.
#[derive(Debug)]
pub struct Program {
    insns: Box<[Insn]>,
}

impl Program {
    /// Checks a program: known operations, jumps inside, scratch inside, last instruction returns. `EINVAL` if not.
    pub fn new(insns: Vec<Insn>) -> Result<Self> {
        let n = insns.len();
        if n == 0 || n > MAX_INSNS {
            return Err(Errno::EINVAL);
        }
        for (pc, i) in insns.iter().enumerate() {
            let left = n - pc - 1;
            let inside = |d: u32| usize::try_from(d).is_ok_and(|d| d < left);
            let ok = match i.code & 7 {
                // LD, LDX
                0 | 1 => match (i.code & 0xe0, i.code & 0x18) {
                    (0x00 | 0x80, 0) => true,
                    (0x60, 0) => (i.k as usize) < MEM,
                    (0x20 | 0x40, 0 | 8 | 0x10) => i.code & 7 == 0,
                    (0xa0, 0x10) => i.code & 7 == 1,
                    _ => false,
                },
                // ST, STX
                2 | 3 => (i.k as usize) < MEM && i.code & !7 == 0,
                // ALU
                4 => match i.code & 0xf0 {
                    0x30 | 0x90 => i.code & 8 != 0 || i.k != 0,
                    0x60 | 0x70 => i.code & 8 != 0 || i.k < 32,
                    op => op <= 0xa0,
                },
                // JMP
                5 => match i.code & 0xf0 {
                    0 => inside(i.k),
                    0x10..=0x40 => inside(i.jt.into()) && inside(i.jf.into()),
                    _ => false,
                },
                // RET k, RET a
                6 => matches!(i.code & 0x18, 0 | 0x10),
                // MISC: tax, txa
                _ => matches!(i.code, 0x07 | 0x87),
            };
            if !ok {
                return Err(Errno::EINVAL);
            }
        }
        if insns.last().is_none_or(|i| i.code & 7 != 6) {
            return Err(Errno::EINVAL);
        }
        Ok(Self { insns: insns.into() })
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.insns.len()
    }

    /// A program has at least one instruction.
    pub fn is_empty(&self) -> bool {
        self.insns.is_empty()
    }

    /// Runs over a packet: how many bytes of it to keep (0 = drop it). A load outside of the packet drops it.
    pub fn run(&self, pkt: &[u8]) -> usize {
        self.exec(pkt).map_or(0, |k| usize::try_from(k).unwrap_or(usize::MAX))
    }

    fn exec(&self, pkt: &[u8]) -> Option<u32> {
        let (mut a, mut x, mut mem) = (0u32, 0u32, [0u32; MEM]);
        let mut pc = 0usize;
        while let Some(i) = self.insns.get(pc) {
            pc += 1;
            match i.code & 7 {
                0 => a = self.load(i, pkt, x, &mem)?,
                1 => {
                    x = match i.code & 0xe0 {
                        // The length of an IPv4 header: ldx 4*([k]&0xf).
                        0xa0 => u32::from(*pkt.get(i.k as usize)? & 0xf) << 2,
                        _ => self.load(i, pkt, x, &mem)?,
                    }
                }
                2 => *mem.get_mut(i.k as usize)? = a,
                3 => *mem.get_mut(i.k as usize)? = x,
                4 => a = alu(i, a, x)?,
                5 => {
                    let b = if i.code & 8 != 0 { x } else { i.k };
                    let taken = match i.code & 0xf0 {
                        0 => {
                            pc += i.k as usize;
                            continue;
                        }
                        0x10 => a == b,
                        0x20 => a > b,
                        0x30 => a >= b,
                        _ => a & b != 0,
                    };
                    pc += usize::from(if taken { i.jt } else { i.jf });
                }
                6 => return Some(if i.code & 0x18 == 0x10 { a } else { i.k }),
                _ if i.code == 0x07 => x = a,
                _ => a = x,
            }
        }
        None
    }

    fn load(&self, i: &Insn, pkt: &[u8], x: u32, mem: &[u32; MEM]) -> Option<u32> {
        let at = match i.code & 0xe0 {
            0x00 => return Some(i.k),
            0x60 => return mem.get(i.k as usize).copied(),
            0x80 => return u32::try_from(pkt.len()).ok(),
            0x40 => x.checked_add(i.k)?,
            _ => i.k,
        };
        if at >= AD_OFF {
            // Facts that a socket filter here has no use for (protocol, interface, random, ...) read as zero.
            return Some(0);
        }
        let at = at as usize;
        match i.code & 0x18 {
            0x10 => pkt.get(at).map(|&b| b.into()),
            0x08 => pkt.get(at..)?.first_chunk::<2>().map(|b| u32::from(u16::from_be_bytes(*b))),
            _ => pkt.get(at..)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b)),
        }
    }
}

fn alu(i: &Insn, a: u32, x: u32) -> Option<u32> {
    let b = if i.code & 8 != 0 { x } else { i.k };
    Some(match i.code & 0xf0 {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.checked_shl(b).unwrap_or(0),
        0x70 => a.checked_shr(b).unwrap_or(0),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b)?,
        _ => a ^ b,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    #[test]
    fn pings_own_filter_keeps_own_replies_only() {
        // As iputils ping attaches it on a raw socket: skip the IPv4 header, compare the id, then the type.
        let id = 0xaabb;
        let p = Program::new(vec![
            insn(0xb1, 0, 0, 0),
            insn(0x48, 0, 0, 4),
            insn(0x15, 0, 1, id),
            insn(0x06, 0, 0, u32::MAX),
            insn(0x50, 0, 0, 0),
            insn(0x15, 0, 1, 0),
            insn(0x06, 0, 0, 0),
            insn(0x06, 0, 0, 0),
        ])
        .expect("valid");
        let mut pkt = [0u8; 40];
        pkt[0] = 0x45;
        pkt[24..26].copy_from_slice(&[0xaa, 0xbb]);
        assert_eq!(p.run(&pkt), u32::MAX as usize);
        pkt[24] = 0;
        assert_eq!(p.run(&pkt), 0);
        assert_eq!(p.run(&pkt[..10]), 0);
    }

    #[test]
    fn bad_programs_are_refused() {
        assert!(Program::new(vec![]).is_err());
        assert!(Program::new(vec![insn(0x15, 0, 5, 0), insn(6, 0, 0, 0)]).is_err());
        assert!(Program::new(vec![insn(0x34, 0, 0, 0), insn(6, 0, 0, 0)]).is_err());
        assert!(Program::new(vec![insn(0x60, 0, 0, 16), insn(6, 0, 0, 0)]).is_err());
        assert!(Program::new(vec![insn(0x00, 0, 0, 0)]).is_err());
    }

    #[test]
    fn random_programs_end_quietly() {
        let mut seed = 0x1234_5678_9abc_def1u64;
        let mut rnd = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let n = rnd() as usize % 12 + 1;
            let prog = (0..n)
                .map(|_| {
                    let r = rnd();
                    insn((r & 0xff) as u16, (r >> 8) as u8 % 4, (r >> 16) as u8 % 4, (rnd() % 64) as u32)
                })
                .chain([insn(6, 0, 0, 1)])
                .collect();
            if let Ok(p) = Program::new(prog) {
                p.run(&[0x45; 64]);
            }
        }
    }
}
