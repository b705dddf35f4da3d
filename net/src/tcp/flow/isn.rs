//! Initial sequence numbers and stamps that grow from one connection to the next between the same two ends (RFC 6528,
//! RFC 7323 section 5.4), so that the other end takes a port again that it still has in TIME-WAIT.
//!
//! The engine draws its number from a generator that can only be seeded; so the seed is computed backwards.

use super::super::ehash::{FlowKey, Keyed};
use klib::ktime::Ktime;

/// The engine's generator: state * M + A; the output is cut from the state at a place that its three topmost bits say.
const M: u64 = 0xbb2e_fcec_3c39_611d;
const A: u64 = 0x7590_ef39;

/// The inverse of an odd number modulo 2^64: each step doubles the bits that are right.
const fn inverse(m: u64) -> u64 {
    let mut x = m;
    let mut i = 0;
    while i < 5 {
        x = x.wrapping_mul(2u64.wrapping_sub(m.wrapping_mul(x)));
        i += 1;
    }
    x
}

const M_INVERSE: u64 = inverse(M);

fn back(state: u64) -> u64 {
    state.wrapping_sub(A).wrapping_mul(M_INVERSE)
}

fn output(state: u64) -> u32 {
    (state >> (29 - (state >> 61))) as u32
}

/// The seed with which an engine's second draw is `isn`; the first is its IP identification, which it draws again if it is
/// zero. `noise` fills the bits that do not matter.
pub(super) fn seed(isn: u32, noise: u32) -> u64 {
    for i in 0..16 {
        let first = back(u64::from(isn) << 29 | u64::from(noise.wrapping_add(i) & 0x1fff_ffff));
        let id = output(first);
        if (id ^ (id >> 16)) as u16 != 0 {
            return back(first);
        }
    }
    u64::from(noise)
}

/// The initial number of a connection that begins now: one more every 64 ns, from a secret place for these two ends.
pub fn isn(key: &FlowKey, secret: Keyed, now: Ktime) -> u32 {
    (secret.hash(key) as u32).wrapping_add((now.as_ns() >> 6) as u32)
}

/// What is added to the clock in stamps sent to this address: a secret.
pub fn stamp_offset(key: &FlowKey, secret: Keyed) -> u32 {
    (secret.hash(&(key.raddr, key.laddr)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_leads_to_the_number() {
        for n in [0, 1, 0x8000_0000, 0xffff_ffff, 0x1234_5678] {
            let step = |s: u64| s.wrapping_mul(M).wrapping_add(A);
            let s = seed(n, n.wrapping_mul(77));
            assert_eq!(output(step(step(s))), n);
        }
    }
}
