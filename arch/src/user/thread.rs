//! A host thread that runs guest code.

use super::frame::{FaultInfo, Frame, UserRegs};
use super::layout::*;
use super::notif::Listener;
use super::process::{Block, MapOp};
use super::stub_host::StubHost;
use crate::host::fd::HostFd;
use std::sync::Arc;
use uapi::{Errno, Result};

/// Why a guest thread has stopped. After every variant but `Syscall` its registers are at hand.
#[derive(Clone, Copy, Debug)]
pub enum Trap {
    /// A system call that is answered with a value. Its registers are not known; a kick brings them.
    Syscall {
        /// rax.
        nr: u64,
        /// rdi, rsi, rdx, r10, r8, r9.
        args: [u64; 6],
        /// Address after the instruction.
        ip: u64,
    },
    /// The thread is new and waits for its first registers.
    Start,
    /// clone, fork, vfork, execve, execveat, clone3, rt_sigreturn, arch_prctl: call and registers are in the frame.
    FullSyscall,
    /// A page fault (SIGSEGV with vector 14, or SIGBUS from the host).
    Fault(FaultInfo),
    /// Another exception: the signal that the host gave for it.
    Exception {
        /// SIGSEGV (general protection), SIGFPE, SIGILL, SIGTRAP, SIGBUS.
        signal: i32,
        /// Details.
        info: FaultInfo,
    },
    /// A kick arrived while guest code ran.
    Kicked,
}

/// A guest thread's host half. Dropping it lets go of the listener: the host thread can do nothing any more.
pub struct UserThread {
    host: Arc<StubHost>,
    listener: Listener,
    block: Block,
    pidfd: HostFd,
    pid: i32,
    tid: i32,
    pending: Option<u64>,
    frame: Option<Frame>,
    fs_base: u64,
    gs_base: u64,
}

impl UserThread {
    pub(super) fn new(
        host: Arc<StubHost>,
        listener: Listener,
        block: Block,
        pidfd: HostFd,
        pid: i32,
    ) -> Self {
        Self { host, listener, block, pidfd, pid, tid: 0, pending: None, frame: None, fs_base: 0, gs_base: 0 }
    }

    /// The descriptor to poll: POLLIN when a trap has arrived, POLLHUP when the thread is gone.
    pub fn fd(&self) -> &HostFd {
        self.listener.fd()
    }

    /// Host thread id, known after the first trap.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// The pidfd of its process.
    pub fn pidfd(&self) -> &HostFd {
        &self.pidfd
    }

    /// Takes the trap that a poll has announced. `ENOENT`: it was withdrawn, poll again. `EPERM`: the thread
    /// reported something that the stub's code never reports; the guest tampers, end it.
    pub fn recv(&mut self) -> Result<Trap> {
        let n = self.listener.recv()?;
        if self.tid == 0 {
            self.tid = n.pid as i32;
        } else if self.tid != n.pid as i32 {
            return Err(Errno::EPERM);
        }
        self.pending = Some(n.id);
        self.frame = None;
        if n.nr as u32 != NR_NOTIFY || n.ip != self.host.image.notify_ip {
            let nr = u64::from(n.nr as u32);
            return Ok(Trap::Syscall { nr, args: n.args, ip: n.ip });
        }
        let [signal, _, _, fs_base, gs_base, at] = n.args;
        let frame = Frame::check(u64::from(self.block.index), at).map_err(|_| Errno::EPERM)?;
        self.frame = Some(frame);
        self.fs_base = fs_base;
        self.gs_base = gs_base;
        let info = || frame.fault(&self.host.ctl);
        match signal as i32 {
            0 => Ok(Trap::Start),
            libc::SIGSYS => Ok(Trap::FullSyscall),
            SIG_KICK => Ok(Trap::Kicked),
            signal @ (libc::SIGSEGV | libc::SIGBUS) => {
                let f = info();
                if f.trapno == 14 { Ok(Trap::Fault(f)) } else { Ok(Trap::Exception { signal, info: f }) }
            }
            signal @ (libc::SIGFPE | libc::SIGILL | libc::SIGTRAP) => {
                Ok(Trap::Exception { signal, info: info() })
            }
            _ => Err(Errno::EPERM),
        }
    }

    /// Answers a plain [`Trap::Syscall`] with the value of rax. `ENOENT`: the thread is gone.
    pub fn finish_syscall(&mut self, ret: u64) -> Result<()> {
        let id = self.pending.take().ok_or(Errno::EINVAL)?;
        self.listener.send(id, ret as i64)
    }

    /// The registers; not after a plain system call.
    pub fn regs(&self) -> Option<UserRegs> {
        Some(self.frame?.regs(&self.host.ctl, (self.fs_base, self.gs_base)))
    }

    /// GS base as of the last trap that brought registers.
    pub fn gs_base(&self) -> u64 {
        self.gs_base
    }

    /// The xsave image that belongs to [`regs`](Self::regs); empty if the host gave none.
    pub fn fpu(&self) -> Vec<u8> {
        self.frame.map(|f| f.fpu(&self.host.ctl)).unwrap_or_default()
    }

    /// Puts another xsave image into the frame; what the host would not accept is left out.
    pub fn set_fpu(&mut self, image: &[u8]) {
        if let Some(f) = self.frame {
            f.set_fpu(&self.host.ctl, image);
        }
    }

    /// Resumes from the frame with these registers.
    pub fn resume(&mut self, regs: &UserRegs) -> Result<()> {
        let frame = self.frame.take().ok_or(Errno::EINVAL)?;
        let id = self.pending.take().ok_or(Errno::EINVAL)?;
        frame.set_regs(&self.host.ctl, regs);
        let bases = (regs.fs_base, regs.gs_base);
        let reply = if bases == (self.fs_base, self.gs_base) {
            REPLY_RESUME
        } else {
            frame.set_bases(&self.host.ctl, bases)?;
            REPLY_BASES
        };
        self.listener.send(id, reply)
    }

    /// Resumes from the frame as it is (a fault that has been mended).
    pub fn resume_unchanged(&mut self) -> Result<()> {
        self.frame = None;
        let id = self.pending.take().ok_or(Errno::EINVAL)?;
        self.listener.send(id, REPLY_RESUME)
    }

    /// Starts (or, for a parked thread, starts anew) with these registers and this xsave image (empty: the initial
    /// state). The thread must have reported through its handler: not after a plain system call.
    pub fn start(&mut self, regs: &UserRegs, fpu: &[u8]) -> Result<()> {
        let old = self.frame.take().ok_or(Errno::EINVAL)?;
        let id = self.pending.take().ok_or(Errno::EINVAL)?;
        // The stub resumes from the frame that it reported: r15 of the handler. A fresh thread reported the start
        // frame, a parked one wherever its handler ran; both are laid out anew.
        old.restart(&self.host.ctl, regs, fpu);
        old.set_bases(&self.host.ctl, (regs.fs_base, regs.gs_base))?;
        self.listener.send(id, REPLY_BASES)
    }

    /// Ends the host thread. As [`start`](Self::start), not after a plain system call.
    pub fn exit(&mut self) -> Result<()> {
        self.frame.take().ok_or(Errno::EINVAL)?;
        let id = self.pending.take().ok_or(Errno::EINVAL)?;
        self.listener.send(id, REPLY_EXIT)
    }

    /// Makes the thread report [`Trap::Kicked`] as soon as it runs guest code.
    pub fn kick(&self) {
        kick(self.pid, self.tid);
    }

    /// Process and thread id for [`kick`].
    pub fn kick_handle(&self) -> (i32, i32) {
        (self.pid, self.tid)
    }

    /// The operation that removes the thread's block from its stub.
    pub fn unmap_block(&self) -> MapOp {
        self.block.unmap_op()
    }
}

/// Kicks thread `tid` of stub `pid`; nothing happens if it is gone.
pub fn kick(pid: i32, tid: i32) {
    if tid != 0 {
        // SAFETY: integers only; tgkill checks that the thread belongs to the process.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, SIG_KICK) };
    }
}
