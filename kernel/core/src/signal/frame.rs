//! The x86-64 signal frame: building it in guest memory (arch/x86/include/uapi/asm/{sigcontext,ucontext}.h).
//!
//! `struct rt_sigframe { pretcode, ucontext { flags, link, stack, sigcontext, sigmask }, siginfo }`, 16-byte aligned
//! plus 8 as after a call; above it the floating point image, 64-byte aligned; above that the red zone.

use super::action::SigAction;
use super::{AltStack, SigInfo, SigSet, fpstate};
use crate::task::{Task, UserRegs};
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Bytes of `struct rt_sigframe`.
pub const FRAME_SIZE: usize = 440;
/// Offset of the ucontext.
pub(crate) const UC: usize = 8;
/// Offset of `uc_stack`.
pub(crate) const UC_STACK: usize = UC + 16;
/// Offset of the sigcontext.
pub(crate) const MCONTEXT: usize = UC + 40;
/// Offset of `uc_sigmask`.
pub(crate) const UC_SIGMASK: usize = MCONTEXT + 256;
/// Offset of the siginfo.
pub(crate) const INFO: usize = UC_SIGMASK + 8;
/// Offset of the pointer to the floating point image.
pub(crate) const FPSTATE_PTR: usize = MCONTEXT + 184;

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
/// Bytes below the stack pointer that a leaf function may use (System V ABI).
const RED_ZONE: u64 = 128;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// Flags cleared for the handler: direction, resume, trap.
const HANDLER_CLEARS: u64 = 0x400 | 0x1_0000 | 0x100;
/// First address past user space (47 bits, one guard page).
pub const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;

/// Where the frame and the floating point image go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    frame: u64,
    fp: u64,
}

/// Chooses the place; `None` if the alternate stack is too small.
fn place(rsp: u64, action: &SigAction, alt: &AltStack, fp_size: usize) -> Option<Place> {
    let mut sp = rsp.wrapping_sub(RED_ZONE);
    let nested = alt.size != 0 && alt.contains(rsp);
    let mut entering = false;
    if action.has(c::SA_ONSTACK) && alt.size != 0 && !nested {
        sp = alt.sp.wrapping_add(alt.size);
        entering = true;
    }
    let fp = sp.wrapping_sub(fp_size as u64) & !63;
    let frame = (fp.wrapping_sub(FRAME_SIZE as u64) & !15).wrapping_sub(8);
    // A frame that does not fit must not be written below the stack.
    let fits = frame > alt.sp && frame - alt.sp <= alt.size;
    if (nested || entering) && !fits {
        return None;
    }
    Some(Place { frame, fp })
}

fn put(buf: &mut [u8], at: usize, v: u64) {
    buf[at..at + 8].copy_from_slice(&v.to_ne_bytes());
}

/// The frame's bytes; `trap` is the last exception's number, error code and address.
#[allow(clippy::too_many_arguments)]
fn encode(
    regs: &UserRegs,
    fp: u64,
    xstate: bool,
    info: &SigInfo,
    action: &SigAction,
    alt: &AltStack,
    mask: SigSet,
    trap: (u64, u64, u64),
) -> [u8; FRAME_SIZE] {
    let mut f = [0u8; FRAME_SIZE];
    put(&mut f, 0, action.restorer);
    let xs = if xstate { UC_FP_XSTATE } else { 0 };
    put(&mut f, UC, xs | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS);
    put(&mut f, UC_STACK, alt.sp);
    put(&mut f, UC_STACK + 8, u64::from(alt.flags));
    put(&mut f, UC_STACK + 16, alt.size);
    let gp = [
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rdi,
        regs.rsi,
        regs.rbp,
        regs.rbx,
        regs.rdx,
        regs.rax,
        regs.rcx,
        regs.rsp,
        regs.rip,
        regs.eflags,
    ];
    for (i, v) in gp.into_iter().enumerate() {
        put(&mut f, MCONTEXT + 8 * i, v);
    }
    // cs, gs, fs, ss: 16 bits each.
    put(&mut f, MCONTEXT + 144, USER_CS | USER_SS << 48);
    let (vector, err, cr2) = trap;
    put(&mut f, MCONTEXT + 152, err);
    put(&mut f, MCONTEXT + 160, vector);
    put(&mut f, MCONTEXT + 168, mask.0);
    put(&mut f, MCONTEXT + 176, cr2);
    put(&mut f, FPSTATE_PTR, fp);
    put(&mut f, UC_SIGMASK, mask.0);
    f[INFO..].copy_from_slice(&info.to_bytes());
    f
}

/// Writes the frame for one signal and points the registers at the handler. `EFAULT` if it cannot be written.
pub(crate) async fn setup(
    cur: &Arc<Task>,
    regs: &mut UserRegs,
    fpu: &[u8],
    info: &SigInfo,
    action: &SigAction,
) -> Result<()> {
    if !action.has(c::SA_RESTORER) {
        // The x86-64 kernel has no return code of its own to offer.
        return Err(Errno::EFAULT);
    }
    let (alt, mask) = {
        let t = cur.signals.lock();
        (t.alt, t.saved.unwrap_or(t.blocked))
    };
    let fp_bytes = fpstate::to_frame(fpu);
    let at = place(regs.rsp, action, &alt, fp_bytes.len()).ok_or(Errno::EFAULT)?;
    if at.frame >= TASK_SIZE_MAX || at.fp >= TASK_SIZE_MAX || action.handler >= TASK_SIZE_MAX {
        return Err(Errno::EFAULT);
    }
    let fp = if fp_bytes.is_empty() { 0 } else { at.fp };
    let trap = *cur.last_trap.lock();
    let bytes = encode(regs, fp, fp_bytes.len() > 512, info, action, &alt, mask, trap);
    let mm = cur.mm();
    if !fp_bytes.is_empty() {
        mm.copy_to_user(at.fp, &fp_bytes).await?;
    }
    mm.copy_to_user(at.frame, &bytes).await?;
    regs.rdi = u64::from(info.signo.unsigned_abs());
    regs.rax = 0;
    regs.rsi = at.frame + INFO as u64;
    regs.rdx = at.frame + UC as u64;
    regs.rip = action.handler;
    regs.rsp = at.frame;
    regs.eflags &= !HANDLER_CLEARS;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sigreturn;
    use super::*;

    fn regs() -> UserRegs {
        UserRegs {
            r8: 8,
            r15: 15,
            rdi: 1,
            rax: 99,
            rsp: 0x7000_1234,
            rip: 0x40_1000,
            eflags: 0x246,
            ..UserRegs::default()
        }
    }

    #[test]
    fn offsets_are_the_abis() {
        assert_eq!((UC_STACK, MCONTEXT, UC_SIGMASK, INFO), (24, 48, 304, 312));
        assert_eq!(INFO + 128, FRAME_SIZE);
    }

    #[test]
    fn the_stack_is_aligned_and_the_red_zone_kept() {
        let a = SigAction::default();
        let p = place(0x7000_1234, &a, &AltStack::default(), 836).unwrap();
        assert_eq!(p.frame % 16, 8);
        assert_eq!(p.fp % 64, 0);
        assert!(p.fp + 836 <= 0x7000_1234 - 128);
        assert!(p.frame + FRAME_SIZE as u64 <= p.fp);
    }

    #[test]
    fn the_alternate_stack_is_entered_once_and_never_overflows() {
        let a = SigAction { flags: u64::from(c::SA_ONSTACK), ..SigAction::default() };
        let alt = AltStack { sp: 0x1000, size: 8192, flags: 0 };
        let p = place(0x7000_0000, &a, &alt, 836).unwrap();
        assert!(p.frame > 0x1000 && p.fp + 836 <= 0x3000);
        let q = place(p.frame, &a, &alt, 836).unwrap();
        assert!(q.frame < p.frame - 128);
        assert_eq!(place(0x1400, &a, &alt, 836), None);
        assert_eq!(place(0x7000_0000, &a, &AltStack { size: 1000, ..alt }, 836), None);
    }

    #[test]
    fn registers_come_back() {
        let r = regs();
        let alt = AltStack { sp: 0x1000, size: 8192, flags: 0 };
        let info = SigInfo::user(10, 0, 5, 6);
        let a = SigAction { handler: 0x5000, restorer: 0x6000, ..SigAction::default() };
        let f = encode(&r, 0x7000_0000, true, &info, &a, &alt, SigSet(0x55), (14, 6, 0x1234));
        let mut back = UserRegs { eflags: 0x202, fs_base: 7, ..UserRegs::default() };
        let got = sigreturn::decode(&f, &mut back).unwrap();
        assert_eq!(back, UserRegs { fs_base: 7, ..r });
        assert_eq!(got.mask, SigSet(0x55));
        assert_eq!(got.fp, 0x7000_0000);
        assert_eq!((got.alt_sp, got.alt_flags, got.alt_size), (0x1000, 0, 8192));
    }

    #[test]
    fn hostile_frames_are_refused() {
        let r = UserRegs { rip: 0x8000_0000_0000, ..regs() };
        let f = encode(
            &r,
            0,
            false,
            &SigInfo::kernel(1),
            &SigAction::default(),
            &AltStack::default(),
            SigSet(0),
            (0, 0, 0),
        );
        assert!(sigreturn::decode(&f, &mut UserRegs::default()).is_none());
        let r = UserRegs { rip: 0x1000, rsp: 1 << 63, ..regs() };
        let f = encode(
            &r,
            0,
            false,
            &SigInfo::kernel(1),
            &SigAction::default(),
            &AltStack::default(),
            SigSet(0),
            (0, 0, 0),
        );
        assert!(sigreturn::decode(&f, &mut UserRegs::default()).is_none());
        let r = UserRegs { eflags: u64::MAX, ..regs() };
        let f = encode(
            &r,
            0,
            false,
            &SigInfo::kernel(1),
            &SigAction::default(),
            &AltStack::default(),
            SigSet(0),
            (0, 0, 0),
        );
        let mut back = UserRegs { eflags: 0x202, ..UserRegs::default() };
        sigreturn::decode(&f, &mut back).unwrap();
        assert_eq!(back.eflags, 0x202 | 0x5_0dd5, "only user flags are taken");
    }
}
