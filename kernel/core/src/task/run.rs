//! The life of a guest thread: run user code until it traps, handle the trap, run on.
//!
//! The future made here is the task. It stays on the executor that shares a core with its host thread (a hand-over
//! between cores costs ten times more); `sched` moves both together.

use super::exec::Exec;
use super::sched;
use super::task::Task;
use super::{clone, exec, exit, misc, oom};
use crate::mm::fault::{Access, BadFault};
use crate::mm::space::Space;
use crate::signal::{self, AfterCall, Delivered};
use crate::syscall::{SyscallArgs, dispatch};
use crate::{Errno, Result};
use arch::user::{FaultInfo, Trap, UserRegs, UserThread};
use executor::irq::{POLLHUP, POLLIN, PollStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::nr;
use uapi::raw::general as c;

/// Starts a new task on CPU `cpu`: `user` is its host thread, `regs` and `fpu` what it begins with.
pub fn start(task: Arc<Task>, user: UserThread, regs: UserRegs, fpu: Vec<u8>, cpu: usize) {
    task.cpu.store(cpu as u32, Ordering::Relaxed);
    executor::spawn_on(cpu, async move {
        let trap = PollStream::new(user.fd(), POLLIN);
        let mut t = Thread { task, user, trap };
        t.live(regs, fpu).await;
        t.end().await;
    });
}

/// What to do after a trap.
enum Next {
    /// User code runs again.
    Running,
    /// The task is over.
    Exit,
}

struct Thread {
    task: Arc<Task>,
    user: UserThread,
    /// Announces the next trap.
    trap: PollStream,
}

impl Thread {
    async fn live(&mut self, mut regs: UserRegs, mut fpu: Vec<u8>) {
        sched::bind(&self.task, &self.user);
        let word = self.task.set_child_tid.swap(0, Ordering::Relaxed);
        if word != 0 {
            // The parent cannot be told any more; Linux ignores a bad address here, too.
            self.task.mm().copy_to_user(word, &self.task.tid().to_ne_bytes()).await.ok();
        }
        self.task.mm().tell().await;
        // Signals that came before the first instruction.
        loop {
            if self.task.sig_pending.load(Ordering::SeqCst)
                && signal::deliver(&self.task, &mut regs, &mut fpu, None).await == Delivered::Exit
            {
                return;
            }
            if sched::enter_user(&self.task) {
                break;
            }
        }
        if self.user.start(&regs, &fpu).is_err() {
            self.gone();
            return;
        }
        drop(fpu);
        loop {
            self.trap.set_nap(true);
            let trap = self.next_trap().await;
            sched::leave_user(&self.task);
            if self.task.move_to.load(Ordering::Relaxed) != 0 {
                sched::migrate(&self.task, &self.user).await;
            }
            let next = match trap {
                Ok(trap) => self.handle(trap).await,
                Err(_) => Err(Errno::ESRCH),
            };
            match next {
                Ok(Next::Running) => {}
                Ok(Next::Exit) => return,
                Err(_) => {
                    self.gone();
                    return;
                }
            }
        }
    }

    /// The host thread or its process has vanished, or tampers with the stub: the guest process ends.
    fn gone(&mut self) {
        sched::leave_user(&self.task);
        if !self.task.exiting.load(Ordering::SeqCst) {
            log::debug!(target: "task", "{}: its host thread is gone", self.task.tid());
            // What may be left of it runs without supervision: the whole host process goes.
            if let Some(mm) = self.task.try_mm() {
                mm.space.kill();
            }
            exit::group_exit(&self.task, c::SIGKILL as i32);
        }
    }

    async fn next_trap(&mut self) -> Result<Trap> {
        trap_of(&mut self.user, &mut self.trap).await
    }

    async fn handle(&mut self, trap: Trap) -> Result<Next> {
        match trap {
            Trap::Syscall { nr, args, .. } => self.syscall(&SyscallArgs { nr, args }).await,
            Trap::FullSyscall => self.full_syscall().await,
            Trap::Fault(f) => self.fault(&f).await,
            Trap::Exception { signal, info } => {
                signal::force_sig_fault(&self.task, signal as u32, info.code as u32, info.addr);
                self.deliver_and_resume(None).await
            }
            Trap::Kicked => self.deliver_and_resume(None).await,
            Trap::Start => Err(Errno::EPERM),
        }
    }

    async fn syscall(&mut self, call: &SyscallArgs) -> Result<Next> {
        let task = Arc::clone(&self.task);
        let mut result = crate::syscall::strace::traced(&task, call, dispatch(&task, call)).await;
        loop {
            let after = signal::after_syscall(&task, result).await;
            match after {
                AfterCall::Return(rax) => {
                    executor::irq::submit_now();
                    if sched::enter_user(&task) {
                        return self.user.finish_syscall(rax).map(|()| Next::Running);
                    }
                    // A signal came since: look again, with the result at hand.
                    result = Ok(rax);
                }
                AfterCall::Redo => result = dispatch(&task, call).await,
                AfterCall::RedoBlock => result = signal::restart_block(&task).await,
                AfterCall::NeedRegs(r) => {
                    self.fetch_registers().await?;
                    return self.deliver_and_resume(Some((call.nr, r))).await;
                }
                AfterCall::Exit => return Ok(Next::Exit),
            }
        }
    }

    /// Brings a thread that waits in a plain system call into its handler, where its registers are.
    async fn fetch_registers(&mut self) -> Result<()> {
        self.user.kick();
        self.user.finish_syscall(0)?;
        self.trap.set_nap(false);
        let deadline = executor::time::now() + sched::KICK_PATIENCE;
        match executor::time::timeout(Some(deadline), self.next_trap()).await {
            Some(Ok(Trap::Kicked)) => Ok(()),
            // The kick was pending before the call returned; nothing else can come first, and only a thread that has
            // forged its signal mask can stay away.
            Some(Ok(_)) | None => Err(Errno::EPERM),
            Some(Err(e)) => Err(e),
        }
    }

    async fn fault(&mut self, f: &FaultInfo) -> Result<Next> {
        let access = Access::from_error_code(f.err);
        self.task.min_flt.fetch_add(1, Ordering::Relaxed);
        log::trace!(target: "mm::fault", "{} {access:?} {:#x} err {:#x}", self.task.tid(), f.addr, f.err);
        match self.task.mm().handle_fault(f.addr, access).await {
            Ok(()) if !self.task.sig_pending.load(Ordering::SeqCst) && sched::enter_user(&self.task) => {
                return self.user.resume_unchanged().map(|()| Next::Running);
            }
            Ok(()) => {}
            Err(bad) => {
                let (sig, code) = match bad {
                    BadFault::Unmapped => (c::SIGSEGV, c::SEGV_MAPERR),
                    BadFault::Protected => (c::SIGSEGV, c::SEGV_ACCERR),
                    BadFault::PastEnd => (c::SIGBUS, c::BUS_ADRERR),
                    BadFault::NoMemory => {
                        if !oom::make_room(&self.task).await {
                            return Ok(Next::Exit);
                        }
                        // The access is repeated, and faults again.
                        return self.deliver_and_resume(None).await;
                    }
                };
                signal::force_sig_fault(&self.task, sig, code, f.addr);
                *self.task.last_trap.lock() = (f.trapno, f.err, f.addr);
            }
        }
        self.deliver_and_resume(None).await
    }

    /// Delivers pending signals into the registers at hand and goes on in user mode.
    async fn deliver_and_resume(&mut self, call: Option<(u64, Result<u64>)>) -> Result<Next> {
        let mut regs = self.user.regs().ok_or(Errno::EPERM)?;
        let mut fpu = self.user.fpu();
        self.resume_with(&mut regs, &mut fpu, call).await
    }

    async fn resume_with(
        &mut self,
        regs: &mut UserRegs,
        fpu: &mut [u8],
        mut call: Option<(u64, Result<u64>)>,
    ) -> Result<Next> {
        loop {
            if signal::deliver(&self.task, regs, fpu, call.take()).await == Delivered::Exit {
                return Ok(Next::Exit);
            }
            if sched::enter_user(&self.task) {
                break;
            }
        }
        self.user.set_fpu(fpu);
        self.user.resume(regs).map(|()| Next::Running)
    }

    /// The calls whose outcome depends on all registers.
    async fn full_syscall(&mut self) -> Result<Next> {
        let mut regs = self.user.regs().ok_or(Errno::EPERM)?;
        let call =
            SyscallArgs { nr: regs.rax, args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] };
        let task = Arc::clone(&self.task);
        task.user_sp.store(regs.rsp, Ordering::Relaxed);
        let number = u32::try_from(call.nr).unwrap_or(u32::MAX);
        if number == nr::__NR_rt_sigreturn {
            let mut fpu = self.user.fpu();
            signal::sigreturn::rt_sigreturn(&task, &mut regs, &mut fpu).await;
            return self.resume_with(&mut regs, &mut fpu, None).await;
        }
        if matches!(number, nr::__NR_execve | nr::__NR_execveat) {
            return self.exec(&call, regs).await;
        }
        if number == nr::__NR_arch_prctl {
            let gs_base = self.user.gs_base();
            let work = misc::arch_prctl(&task, &call, &mut regs, gs_base);
            let result = crate::syscall::strace::traced(&task, &call, work).await;
            let mut fpu = self.user.fpu();
            return self.resume_with(&mut regs, &mut fpu, Some((call.nr, result))).await;
        }
        let result =
            crate::syscall::strace::traced(&task, &call, clone::clone_call(&task, &call, &regs, &self.user))
                .await;
        if task.sig_pending.load(Ordering::SeqCst) || matches!(result, Err(e) if e.is_restart()) {
            return self.deliver_and_resume(Some((call.nr, result))).await;
        }
        if !sched::enter_user(&task) {
            return self.deliver_and_resume(Some((call.nr, result))).await;
        }
        regs.rax = match result {
            Ok(v) => v,
            Err(e) => e.as_ret(),
        };
        self.user.resume(&regs).map(|()| Next::Running)
    }

    async fn exec(&mut self, call: &SyscallArgs, regs: UserRegs) -> Result<Next> {
        let task = Arc::clone(&self.task);
        match crate::syscall::strace::traced_exec(&task, call, exec::exec_call(&task, call)).await {
            Ok(Exec { thread, regs, old }) => {
                if let Some(thread) = thread {
                    self.trap = PollStream::new(thread.fd(), POLLIN);
                    let before = std::mem::replace(&mut self.user, thread);
                    // The old address space lives on in a vfork parent: its host thread serves again there.
                    if let Some(old) = old.filter(|o| Arc::strong_count(o) > 1) {
                        old.space.park(before);
                    }
                    sched::bind(&task, &self.user);
                }
                let (mut regs, mut fpu) = (regs, Vec::new());
                loop {
                    if task.sig_pending.load(Ordering::SeqCst)
                        && signal::deliver(&task, &mut regs, &mut fpu, None).await == Delivered::Exit
                    {
                        return Ok(Next::Exit);
                    }
                    if sched::enter_user(&task) {
                        break;
                    }
                }
                self.user.start(&regs, &fpu).map(|()| Next::Running)
            }
            Err(e) => {
                let mut regs = regs;
                if task.exiting.load(Ordering::SeqCst) {
                    return Ok(Next::Exit);
                }
                let mut fpu = self.user.fpu();
                self.resume_with(&mut regs, &mut fpu, Some((call.nr, Err(e)))).await
            }
        }
    }

    async fn end(self) {
        let Self { task, user, trap } = self;
        drop(trap);
        let space = task.try_mm().map(|m| Arc::clone(&m.space));
        exit::exit_task(&task).await;
        if let Some(space) = space {
            retire(&space, user).await;
        }
    }
}

/// Lets a host thread whose guest thread is over be used again, or end. If its process is ending, that is all.
async fn retire(space: &Arc<Space>, mut user: UserThread) {
    if space.tlb.is_dead() {
        return;
    }
    if user.regs().is_none() {
        // It stands in a plain system call: bring it into its handler first.
        user.kick();
        if user.finish_syscall(0).is_err() {
            return;
        }
        let deadline = executor::time::now() + sched::KICK_PATIENCE;
        let mut trap = PollStream::new(user.fd(), POLLIN);
        let answer = executor::time::timeout(Some(deadline), trap_of(&mut user, &mut trap));
        if !matches!(answer.await, Some(Ok(Trap::Kicked))) {
            if !space.tlb.is_dead() {
                // It runs on although its guest thread is over, or reports what the stub's handler never does.
                space.kill();
            }
            return;
        }
    }
    space.park(user);
}

/// Waits for the next trap of a host thread. `ESRCH`: it is gone.
async fn trap_of(user: &mut UserThread, poll: &mut PollStream) -> Result<Trap> {
    loop {
        let ready = poll.next().await?;
        if ready & POLLIN != 0 {
            match user.recv() {
                // Withdrawn. What else there is to know, arming tells.
                Err(Errno::ENOENT) => poll.restart(),
                r => return r,
            }
        } else if ready & POLLHUP != 0 {
            return Err(Errno::ESRCH);
        }
    }
}
