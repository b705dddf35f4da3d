//! The register frame that the host lays on a thread's block when the stub's signal handler runs: struct rt_sigframe
//! of arch/x86 (pretcode, ucontext, siginfo, then the xsave image). Its contents are hostile: a sibling may write
//! the block at any time, so every read is bounded and nothing is believed.

use super::ctl::Ctl;
use super::layout::{BLOCK_LEN, BLOCKS, CTL_BLOCKS, GUEST_END};
use uapi::{Errno, Result};

/// General registers of a guest thread.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct UserRegs {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    /// Base of FS: the thread pointer.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
}

const UC: u64 = 8;
const UC_FLAGS: u64 = UC;
const UC_STACK: u64 = UC + 16;
const MC: u64 = UC + 40;
const MC_SEGS: u64 = MC + 18 * 8;
const MC_ERR: u64 = MC_SEGS + 8;
const MC_TRAPNO: u64 = MC_ERR + 8;
const MC_CR2: u64 = MC_ERR + 24;
const MC_FPSTATE: u64 = MC_ERR + 32;
const UC_SIGMASK: u64 = MC + 256;
const SIGINFO: u64 = UC_SIGMASK + 8;
const FRAME_LEN: u64 = SIGINFO + 128;
/// Where the bases of FS and GS lie in a frame: in its siginfo, which has been read by then and which rt_sigreturn(2) does
/// not look at.
pub(super) const FRAME_FS_BASE: u64 = SIGINFO + 64;
pub(super) const FRAME_GS_BASE: u64 = SIGINFO + 72;
/// Where the kernel lays the first frame of a thread; its xsave image lies below, at the start of the block.
pub(super) const START_FRAME: u64 = 0x4000;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const SW_RESERVED: usize = 464;
const LEGACY_LEN: usize = 512;
/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const START_UC_FLAGS: u64 = 7;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;

/// What the siginfo and machine context say about a fault or exception.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultInfo {
    /// si_code.
    pub code: i32,
    /// Faulting address.
    pub addr: u64,
    /// Page fault error code of the CPU: bit 0 present, bit 1 write, bit 4 instruction fetch.
    pub err: u64,
    /// Exception vector: 14 is a page fault.
    pub trapno: u64,
}

/// The frame of one thread at an address that was checked against its block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Offset in the control file.
    off: u64,
    block: u64,
}

impl Frame {
    /// Checks that a frame reported at guest address `addr` lies in block `block`.
    pub fn check(block: u64, addr: u64) -> Result<Self> {
        let start = BLOCKS + block * BLOCK_LEN;
        let at = addr
            .checked_sub(start)
            .filter(|&o| o % 8 == 0 && o + FRAME_LEN <= BLOCK_LEN)
            .ok_or(Errno::EFAULT)?;
        Ok(Self { off: CTL_BLOCKS + block * BLOCK_LEN + at, block })
    }

    fn get(&self, ctl: &Ctl, field: u64) -> u64 {
        let mut b = [0; 8];
        ctl.read(self.off + field, &mut b);
        u64::from_ne_bytes(b)
    }

    /// The general registers; the bases are not in the frame.
    pub fn regs(&self, ctl: &Ctl, (fs_base, gs_base): (u64, u64)) -> UserRegs {
        let mut raw = [0u8; 18 * 8];
        ctl.read(self.off + MC, &mut raw);
        let g = |i: usize| {
            let mut b = [0; 8];
            b.copy_from_slice(&raw[i * 8..i * 8 + 8]);
            u64::from_ne_bytes(b)
        };
        UserRegs {
            r8: g(0),
            r9: g(1),
            r10: g(2),
            r11: g(3),
            r12: g(4),
            r13: g(5),
            r14: g(6),
            r15: g(7),
            rdi: g(8),
            rsi: g(9),
            rbp: g(10),
            rbx: g(11),
            rdx: g(12),
            rax: g(13),
            rcx: g(14),
            rsp: g(15),
            rip: g(16),
            eflags: g(17),
            fs_base,
            gs_base,
        }
    }

    /// Writes the bases where `stub.S` finds them for [`REPLY_BASES`](super::layout::REPLY_BASES). `EPERM`: an FS base that
    /// arch_prctl(2) would refuse.
    pub fn set_bases(&self, ctl: &Ctl, (fs_base, gs_base): (u64, u64)) -> Result<()> {
        if fs_base >= GUEST_END {
            return Err(Errno::EPERM);
        }
        ctl.write_u64(self.off + FRAME_FS_BASE, fs_base);
        ctl.write_u64(self.off + FRAME_GS_BASE, gs_base);
        Ok(())
    }

    /// Writes the general registers.
    pub fn set_regs(&self, ctl: &Ctl, r: &UserRegs) {
        let words = [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax,
            r.rcx, r.rsp, r.rip, r.eflags,
        ];
        let mut raw = [0u8; 18 * 8];
        for (chunk, w) in raw.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&w.to_ne_bytes());
        }
        ctl.write(self.off + MC, &raw);
    }

    /// The fault that the frame reports.
    pub fn fault(&self, ctl: &Ctl) -> FaultInfo {
        let code = self.get(ctl, SIGINFO + 8) as u32 as i32;
        let trapno = self.get(ctl, MC_TRAPNO);
        // cr2 is right for page faults only; other exceptions report through the siginfo.
        let addr = if trapno == 14 { self.get(ctl, MC_CR2) } else { self.get(ctl, SIGINFO + 16) };
        FaultInfo { code, addr, err: self.get(ctl, MC_ERR), trapno }
    }

    /// Where the xsave image lies (offset in the control file) and how long it is; `None` if there is none or it
    /// does not lie in the block.
    fn fpstate(&self, ctl: &Ctl) -> Option<(u64, usize)> {
        let ptr = self.get(ctl, MC_FPSTATE);
        let at = ptr.checked_sub(BLOCKS + self.block * BLOCK_LEN)?;
        let room = BLOCK_LEN.checked_sub(at)?;
        if at % 64 != 0 || room < LEGACY_LEN as u64 {
            return None;
        }
        let off = CTL_BLOCKS + self.block * BLOCK_LEN + at;
        let mut sw = [0u8; 8];
        ctl.read(off + SW_RESERVED as u64, &mut sw);
        let magic = u32::from_ne_bytes([sw[0], sw[1], sw[2], sw[3]]);
        let ext = u64::from(u32::from_ne_bytes([sw[4], sw[5], sw[6], sw[7]]));
        let len = if magic == MAGIC1 { ext.clamp(LEGACY_LEN as u64, room) } else { LEGACY_LEN as u64 };
        Some((off, len as usize))
    }

    /// The xsave image with its software-reserved words, as guests find it on their signal frames.
    pub fn fpu(&self, ctl: &Ctl) -> Vec<u8> {
        let Some((off, len)) = self.fpstate(ctl) else { return Vec::new() };
        let mut out = vec![0; len];
        ctl.read(off, &mut out);
        out
    }

    /// Puts register contents from `image` into the frame's own xsave image. The software-reserved words stay
    /// those that the host wrote; a header that asks for more than the host's is cut.
    pub fn set_fpu(&self, ctl: &Ctl, image: &[u8]) {
        let Some((off, len)) = self.fpstate(ctl) else { return };
        let n = len.min(image.len());
        if n < LEGACY_LEN {
            return;
        }
        ctl.write(off, &image[..SW_RESERVED]);
        // The extended area ends with the 4-byte magic, which stays.
        if n > LEGACY_LEN + 64 + 4 {
            ctl.write(off + LEGACY_LEN as u64, &image[LEGACY_LEN..n - 4]);
        }
    }

    /// Lays the frame out anew for a thread that starts with `regs` and, if not empty, the xsave image `fpu`. The
    /// image goes to the start of the block, below any frame that a handler of this stub reports.
    pub fn restart(&self, ctl: &Ctl, regs: &UserRegs, fpu: &[u8]) {
        let base = BLOCKS + self.block * BLOCK_LEN;
        ctl.write(self.off, &[0u8; FRAME_LEN as usize]);
        ctl.write_u64(self.off + UC_FLAGS, START_UC_FLAGS);
        ctl.write_u64(self.off + UC_STACK, base);
        ctl.write_u64(self.off + UC_STACK + 16, BLOCK_LEN);
        self.set_regs(ctl, regs);
        ctl.write_u64(self.off + MC_SEGS, USER_CS | USER_SS << 48);
        if fpu_image_is_sound(fpu) && fpu.len() as u64 <= START_FRAME {
            ctl.write(CTL_BLOCKS + self.block * BLOCK_LEN, fpu);
            ctl.write_u64(self.off + MC_FPSTATE, base);
        }
    }
}

/// True if an xsave image ends as the host wants it (struct _fpx_sw_bytes and the trailing magic), so that a thread
/// may be started with it.
pub fn fpu_image_is_sound(image: &[u8]) -> bool {
    let word = |at: usize| image.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    word(SW_RESERVED) == Some(MAGIC1)
        && word(SW_RESERVED + 4) == u32::try_from(image.len()).ok()
        && image.len().checked_sub(4).and_then(word) == Some(MAGIC2)
}
