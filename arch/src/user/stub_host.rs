//! What all stubs hang on: the zygote, the control file, the doorbell, and the numbers of slots and blocks.

use super::ctl::{Ctl, Op};
use super::image::{self, Image};
use super::layout::*;
use super::process::StubProcess;
use super::zygote;
use crate::host::{eventfd::EventFd, fd::HostFd};
use crate::mm::PhysMem;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uapi::{Errno, Result};

/// The maker of stubs. Its requests are served one at a time; the caller queues.
pub struct StubHost {
    pub(super) ctl: Ctl,
    pub(super) image: Image,
    doorbell: EventFd,
    zygote_pid: i32,
    pub(super) slots: Numbers,
    pub(super) blocks: Numbers,
    vdso: Option<(u64, u64)>,
}

/// A bounded set of small numbers, the lowest free first.
pub(super) struct Numbers(Mutex<(Vec<u32>, u32, u32)>);

impl Numbers {
    fn new(max: usize) -> Self {
        Self(Mutex::new((Vec::new(), 0, max as u32)))
    }

    pub fn take(&self) -> Result<u32> {
        let mut n = self.0.lock();
        if let Some(i) = n.0.pop() {
            return Ok(i);
        }
        if n.1 == n.2 {
            return Err(Errno::EAGAIN);
        }
        n.1 += 1;
        Ok(n.1 - 1)
    }

    pub fn give(&self, i: u32) {
        self.0.lock().0.push(i);
    }
}

impl StubHost {
    /// Starts the zygote. The process must have one thread still. Errors are one clear line.
    pub fn start(mem: &PhysMem) -> core::result::Result<Arc<Self>, String> {
        if !has_fsgsbase() {
            return Err(
                "this CPU or host kernel lacks FSGSBASE (Linux 5.9 and a CPU of 2012 or later)".into()
            );
        }
        // SAFETY: getauxval reads the process's own auxiliary vector.
        let min_sigstack = unsafe { libc::getauxval(51) };
        if min_sigstack > BLOCK_LEN / 2 {
            return Err(format!(
                "the host's signal frames need {min_sigstack} bytes, at most {} fit",
                BLOCK_LEN / 2
            ));
        }
        fn fail(what: &'static str) -> impl Fn(Errno) -> String {
            move |e| format!("{what}: {e}")
        }
        let ctl = Ctl::new().map_err(fail("cannot make the stubs' control file"))?;
        let (image, image_fd) = image::build().map_err(fail("cannot make the stub image (memfd_create)"))?;
        let doorbell = EventFd::new().map_err(fail("cannot make an eventfd"))?;
        let zygote_pid =
            zygote::spawn(&image_fd, &ctl, mem.fd(), doorbell.fd()).map_err(fail("cannot fork"))?;
        let mut host = Self {
            ctl,
            image,
            doorbell,
            zygote_pid,
            slots: Numbers::new(MAX_STUBS),
            blocks: Numbers::new(MAX_BLOCKS),
            vdso: None,
        };
        host.prepare_zygote()
            .map_err(|e| format!("cannot start the process that makes guest processes: {e}"))?;
        Ok(Arc::new(host))
    }

    /// Ends the zygote and with it all stubs, and waits until it is gone: before the process image is replaced
    /// (execve(2) is not the death that they wait for). No stub may be used afterwards.
    pub fn kill(&self) {
        // SAFETY: a signal to a child of ours that nobody has waited for; no memory involved.
        unsafe { libc::kill(self.zygote_pid, libc::SIGKILL) };
        // SAFETY: waits for that child; the status is not asked for.
        unsafe { libc::waitpid(self.zygote_pid, std::ptr::null_mut(), 0) };
    }

    /// Cleans the zygote's address space (all that a stub inherits) and installs the signal handlers.
    fn prepare_zygote(&mut self) -> core::result::Result<(), String> {
        self.ctl.write_u64(CTL_ZYGOTE + ZYGOTE_PID_OFFSET, self.zygote_pid as u64);
        // Nothing to do, but when it is done the image runs and its map can be read.
        let seq = self.zygote_command(&[Op::new(libc::SYS_getpid, [0; 6])], &[]);
        self.zygote_wait(seq)?;
        let maps =
            std::fs::read_to_string(format!("/proc/{}/maps", self.zygote_pid)).map_err(|e| e.to_string())?;
        let mut ops = Vec::new();
        let mut vdso: Vec<(u64, u64, bool)> = Vec::new();
        for line in maps.lines() {
            let Some((start, end)) = line.split_whitespace().next().and_then(|r| r.split_once('-')) else {
                continue;
            };
            let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else {
                continue;
            };
            let code = line.ends_with("[vdso]");
            if code || line.contains("[vvar") {
                vdso.push((start, end, code));
            } else if !line.ends_with("[vsyscall]") && !(STUB_BASE..BLOCKS).contains(&start) {
                ops.push(Op::new(libc::SYS_munmap, [start, end - start, 0, 0, 0, 0]));
            }
        }
        self.place_vdso(&vdso)?;
        let data = ZYGOTE_PAGE + DATA_OFFSET;
        let act = zygote::sigaction(&self.image);
        for (i, w) in act.iter().enumerate() {
            self.ctl.write_u64(CTL_ZYGOTE + DATA_OFFSET + i as u64 * 8, *w);
        }
        for sig in zygote::HANDLED {
            ops.push(Op::new(libc::SYS_rt_sigaction, [sig as u64, data, 0, 8, 0, 0]));
        }
        // Children are not waited for: SIGCHLD ignored.
        let ignore = CTL_ZYGOTE + DATA_OFFSET + 64;
        for (i, w) in [1u64, 0x0400_0000, self.image.handler, 0].iter().enumerate() {
            self.ctl.write_u64(ignore + i as u64 * 8, *w);
        }
        ops.push(Op::new(libc::SYS_rt_sigaction, [libc::SIGCHLD as u64, data + 64, 0, 8, 0, 0]));
        if ops.len() as u64 * OP_LEN + OPS_OFFSET > CHILD_OPS_OFFSET {
            // The list is longer than its room: do it in two goes.
            let rest = ops.split_off(12);
            let seq = self.zygote_command(&ops, &[]);
            self.zygote_wait(seq)?;
            ops = rest;
        }
        let seq = self.zygote_command(&ops, &[]);
        self.zygote_wait(seq)
    }

    /// Moves the host's vDSO, with its data pages in front of it, to a place of ours above guest memory. A host that
    /// refuses costs guests their cheap clocks, no more.
    fn place_vdso(&mut self, parts: &[(u64, u64, bool)]) -> core::result::Result<(), String> {
        let Some(base) = parts.iter().map(|p| p.0).min() else { return Ok(()) };
        const MAYMOVE_FIXED: u64 = 3;
        let moves: Vec<Op> = parts
            .iter()
            .map(|&(start, end, _)| {
                let to = VDSO_BASE + (start - base);
                Op::new(libc::SYS_mremap, [start, end - start, end - start, MAYMOVE_FIXED, to, 0])
            })
            .collect();
        let seq = self.zygote_command(&moves, &[]);
        if self.zygote_wait(seq).is_ok() {
            self.vdso =
                parts.iter().find(|p| p.2).map(|p| (VDSO_BASE + (p.0 - base), VDSO_BASE + (p.1 - base)));
            return Ok(());
        }
        let drops: Vec<Op> = parts
            .iter()
            .map(|&(start, end, _)| Op::new(libc::SYS_munmap, [start, end - start, 0, 0, 0, 0]))
            .collect();
        let seq = self.zygote_command(&drops, &[]);
        self.zygote_wait(seq)
    }

    /// Writes a command for the zygote, and the list for a child that it forks.
    pub(super) fn zygote_command(&self, ops: &[Op], child: &[Op]) -> u32 {
        self.ctl.put_ops(CTL_ZYGOTE + CHILD_OPS_OFFSET, CTL_ZYGOTE + 16, child);
        self.ctl.put_ops(CTL_ZYGOTE + OPS_OFFSET, CTL_ZYGOTE + 8, ops);
        self.ctl.command(CTL_ZYGOTE)
    }

    /// The result of command `seq`, if it is there.
    pub(super) fn zygote_result(&self, seq: u32) -> Option<i64> {
        if self.ctl.load_u32(CTL_ZYGOTE + 4096) != seq {
            return None;
        }
        let mut b = [0; 8];
        self.ctl.read(CTL_ZYGOTE + 4096 + 8, &mut b);
        Some(i64::from_ne_bytes(b))
    }

    fn zygote_wait(&self, seq: u32) -> core::result::Result<(), String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.zygote_result(seq) {
                Some(r) if r < 0 => {
                    return Err(format!("its set-up failed: {}", Errno::from_raw(-(r as i32))));
                }
                Some(_) => return Ok(()),
                None if Instant::now() > end => return Err("it did not answer within 10 s".into()),
                None => {
                    self.doorbell.fd().poll_wait(libc::POLLIN as u16, 100).ok();
                    self.doorbell.take().ok();
                }
            }
        }
    }

    /// The eventfd that the zygote and new threads ring. Whoever waits for one of them looks after each ring.
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// The descriptor to poll for rings.
    pub fn doorbell_fd(&self) -> &HostFd {
        self.doorbell.fd()
    }

    /// Start and end of the host's vDSO in every stub, if the host has one.
    pub fn vdso(&self) -> Option<(u64, u64)> {
        self.vdso
    }

    /// Asks the zygote for a stub. One request at a time: the next only after [`StubProcess::set_up`] is done.
    pub fn request_stub(self: &Arc<Self>) -> Result<StubProcess> {
        StubProcess::request(Arc::clone(self))
    }
}

/// AT_HWCAP2 bit 1: user code may read and write its FS and GS base.
fn has_fsgsbase() -> bool {
    // SAFETY: getauxval reads the process's own auxiliary vector.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 2 != 0 }
}
