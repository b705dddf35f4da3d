//! rt_sigreturn(2): the frame comes from the guest and is not believed.

use super::frame::{FPSTATE_PTR, FRAME_SIZE, MCONTEXT, TASK_SIZE_MAX, UC_SIGMASK, UC_STACK};
use super::{SigSet, force_sig, fpstate, mask};
use crate::task::{Task, UserRegs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

/// Flags a guest may set through a frame: AC RF OF DF TF SF ZF AF PF CF.
const FIX_EFLAGS: u64 = 0x4_0000 | 0x1_0000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1;

/// What a frame holds besides registers.
pub(crate) struct Restored {
    pub mask: SigSet,
    pub fp: u64,
    pub alt_sp: u64,
    pub alt_flags: u32,
    pub alt_size: u64,
}

fn get(f: &[u8; FRAME_SIZE], at: usize) -> u64 {
    let mut b = [0u8; 8];
    b.copy_from_slice(&f[at..at + 8]);
    u64::from_ne_bytes(b)
}

/// Takes the registers out of a frame; `None` if they could not be run.
pub(crate) fn decode(f: &[u8; FRAME_SIZE], regs: &mut UserRegs) -> Option<Restored> {
    let r = |i: usize| get(f, MCONTEXT + 8 * i);
    let (rsp, rip) = (r(15), r(16));
    let canonical = |a: u64| (a.cast_signed() << 16 >> 16).cast_unsigned() == a;
    if rip >= TASK_SIZE_MAX || !canonical(rsp) {
        return None;
    }
    let eflags = (regs.eflags & !FIX_EFLAGS) | (r(17) & FIX_EFLAGS);
    *regs = UserRegs {
        r8: r(0),
        r9: r(1),
        r10: r(2),
        r11: r(3),
        r12: r(4),
        r13: r(5),
        r14: r(6),
        r15: r(7),
        rdi: r(8),
        rsi: r(9),
        rbp: r(10),
        rbx: r(11),
        rdx: r(12),
        rax: r(13),
        rcx: r(14),
        rsp,
        rip,
        eflags,
        fs_base: regs.fs_base,
        gs_base: regs.gs_base,
    };
    #[allow(clippy::cast_possible_truncation)]
    Some(Restored {
        mask: SigSet(get(f, UC_SIGMASK)),
        fp: get(f, FPSTATE_PTR),
        alt_sp: get(f, UC_STACK),
        alt_flags: get(f, UC_STACK + 8) as u32,
        alt_size: get(f, UC_STACK + 16),
    })
}

/// rt_sigreturn(2): replaces registers, floating point state, mask and alternate stack by what the frame at the
/// stack pointer says; a bad frame is SIGSEGV. Follow with `deliver(.., None)`.
pub async fn rt_sigreturn(cur: &Arc<Task>, regs: &mut UserRegs, fpu: &mut [u8]) {
    if restore(cur, regs, fpu).await.is_none() {
        log::debug!(target: "signal", "{}: bad signal frame at {:#x}", cur.tid(), regs.rsp);
        force_sig(cur, c::SIGSEGV);
    }
}

async fn restore(cur: &Arc<Task>, regs: &mut UserRegs, fpu: &mut [u8]) -> Option<()> {
    // The handler's `ret` has taken pretcode off the stack.
    let at = regs.rsp.wrapping_sub(8);
    let mut f = [0u8; FRAME_SIZE];
    let mm = cur.mm();
    mm.copy_from_user(at, &mut f).await.ok()?;
    let got = decode(&f, regs)?;
    if got.fp == 0 {
        fpstate::reset(fpu);
    } else {
        let mut user = vec![0u8; fpstate::frame_size(fpu)];
        if mm.copy_from_user(got.fp, &mut user).await.is_err() {
            // A frame with the legacy part alone at the end of a mapping.
            user.truncate(512);
            mm.copy_from_user(got.fp, &mut user).await.ok()?;
        }
        if !fpstate::from_frame(fpu, &user) {
            return None;
        }
    }
    mask::set_blocked(cur, got.mask);
    // Errors are ignored, as Linux does: the frame may be older than the last sigaltstack(2).
    let _ = mask::set_altstack(cur, got.alt_sp, got.alt_flags, got.alt_size, regs.rsp);
    cur.user_sp.store(regs.rsp, Ordering::Relaxed);
    Some(())
}
