//! Lives of tasks without guest code: kinship, exit, wait, stops, fatal signals.

use super::copy::CloneArgs;
use super::cred::Cred;
use super::exit::exit_task;
use super::pid;
use super::session::Session;
use super::task::{Pid, Task, TaskParts};
use super::thread_group::{ThreadGroup, default_rlimits};
use super::wait::{test_scan, test_wait};
use crate::signal::action::{SIG_IGN, SigAction};
use crate::signal::{
    AfterCall, SigHand, SigInfo, SigSet, TaskSignals, after_syscall, mask, send_group, send_task,
};
use crate::{Errno, fs::fdtable::FdTable};
use std::pin::pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Waker};
use uapi::raw::general as c;

const SIGCHLD: i32 = c::SIGCHLD as i32;
const SIGSTOP: i32 = c::SIGSTOP as i32;
const SIGCONT: i32 = c::SIGCONT as i32;
const SIGKILL: i32 = c::SIGKILL as i32;
const SIGTERM: i32 = c::SIGTERM as i32;
const SIGUSR1: i32 = c::SIGUSR1 as i32;
const SIGHUP: i32 = c::SIGHUP as i32;

fn parts(tid: Pid, group: Arc<ThreadGroup>) -> TaskParts {
    TaskParts {
        tid,
        group,
        comm: *b"test\0\0\0\0\0\0\0\0\0\0\0\0",
        mm: None,
        files: Arc::new(FdTable::default()),
        fs: Arc::default(),
        cred: Arc::new(Cred::root()),
        sighand: Arc::new(SigHand::default()),
        signals: TaskSignals::default(),
    }
}

fn enter(parent: Option<&Arc<Task>>, session: Option<Arc<Session>>, pgrp: Option<Pid>) -> Arc<Task> {
    let reserved = pid::reserve().unwrap();
    let tid = reserved.pid();
    let session = session.unwrap_or_else(|| Session::new(tid));
    let group = ThreadGroup::new(tid, pgrp.unwrap_or(tid), session, default_rlimits(1000));
    let task = Task::new(parts(tid, Arc::clone(&group)));
    let mut table = pid::write();
    {
        let mut i = group.inner.lock();
        i.threads.push(Arc::clone(&task));
        i.leader = Some(Arc::clone(&task));
        if let Some(p) = parent {
            i.parent = Arc::downgrade(&p.group);
        }
    }
    if let Some(p) = parent {
        p.group.inner.lock().children.push(Arc::clone(&group));
    }
    table.attach_group(&group);
    table.attach_task(tid, &task);
    reserved.into_used(&mut table);
    task
}

/// A process of its own session, child of a first process that never ends.
pub(crate) fn process() -> Arc<Task> {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        enter(None, None, None);
    });
    let init = pid::find_task(1).expect("the first process");
    enter(Some(&init), None, None)
}

/// A child in its parent's session; in the given process group, else in one of its own.
fn child(parent: &Arc<Task>, pgrp: Option<Pid>) -> Arc<Task> {
    enter(Some(parent), Some(parent.group.session()), pgrp)
}

fn thread(leader: &Arc<Task>) -> Arc<Task> {
    let reserved = pid::reserve().unwrap();
    let mut p = parts(reserved.pid(), Arc::clone(&leader.group));
    p.sighand = leader.sighand();
    let task = Task::new(p);
    let mut table = pid::write();
    leader.group.inner.lock().threads.push(Arc::clone(&task));
    table.attach_task(reserved.pid(), &task);
    reserved.into_used(&mut table);
    task
}

/// Polls once.
fn poll<F: Future>(f: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    f.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs what must not sleep.
fn now<F: Future>(f: F) -> F::Output {
    match poll(pin!(f)) {
        Poll::Ready(v) => v,
        Poll::Pending => panic!("it sleeps"),
    }
}

fn kill(t: &Arc<Task>, sig: i32) {
    send_group(&t.group, SigInfo::user(sig, 0, 1, 0)).unwrap();
}

fn handle(t: &Arc<Task>, sig: i32, handler: u64) {
    t.sighand().set(sig, SigAction { handler, ..SigAction::default() });
}

fn exit(t: &Arc<Task>, code: i32) {
    super::exit::sys_exit_group(t, code).unwrap();
    assert_eq!(now(after_syscall(t, Ok(0))), AfterCall::Exit);
    now(exit_task(t));
}

#[test]
fn a_child_exits_and_is_waited_for() {
    let p = process();
    handle(&p, SIGCHLD, 0x1000);
    let ch = child(&p, None);
    let (pid, weak) = (ch.tgid(), Arc::downgrade(&ch.group));
    assert_eq!(test_scan(&p, c::WEXITED), Ok(None));
    exit(&ch, 7);
    drop(ch);
    assert!(weak.upgrade().is_some_and(|g| g.is_zombie()));
    let info = p.dequeue_signal(SigSet::of(SIGCHLD)).expect("SIGCHLD");
    assert_eq!((info.code, info.pid(), info.status()), (c::CLD_EXITED as i32, pid, 7));
    assert_eq!(test_scan(&p, c::WEXITED | c::WNOWAIT), Ok(Some((pid, 7 << 8))));
    assert_eq!(test_scan(&p, c::WEXITED), Ok(Some((pid, 7 << 8))));
    assert_eq!(test_scan(&p, c::WEXITED), Err(Errno::ECHILD));
    assert!(pid::find_group(pid).is_none() && pid::find_task(pid).is_none());
    assert!(weak.upgrade().is_none(), "nothing holds a reaped process");
}

#[test]
fn a_sleeping_wait_is_woken_by_the_exit() {
    let p = process();
    let ch = child(&p, None);
    let mut w = pin!(test_wait(&p, c::WEXITED));
    assert!(poll(w.as_mut()).is_pending());
    exit(&ch, 0);
    assert_eq!(poll(w.as_mut()), Poll::Ready(Ok(Some((ch.tgid(), 0)))));
}

#[test]
fn whoever_ignores_sigchld_has_no_zombies() {
    let p = process();
    handle(&p, SIGCHLD, SIG_IGN);
    let ch = child(&p, None);
    exit(&ch, 1);
    assert!(pid::find_group(ch.tgid()).is_none());
    assert_eq!(test_scan(&p, c::WEXITED), Err(Errno::ECHILD));
}

#[test]
fn the_last_thread_ends_the_process_with_the_leaders_status() {
    let p = process();
    let a = child(&p, None);
    let b = thread(&a);
    super::exit::sys_exit(&a, 3).unwrap();
    assert_eq!(now(after_syscall(&a, Ok(0))), AfterCall::Exit);
    now(exit_task(&a));
    assert!(!a.group.is_zombie());
    assert!(pid::find_task(a.tid()).is_some(), "the leader's number stays taken");
    super::exit::sys_exit(&b, 4).unwrap();
    now(exit_task(&b));
    assert_eq!(test_scan(&p, c::WEXITED), Ok(Some((a.tgid(), 3 << 8))));
}

#[test]
fn orphans_go_to_the_subreaper_and_stopped_orphaned_groups_are_hung_up() {
    let top = process();
    top.group.inner.lock().child_subreaper = true;
    let mid = child(&top, None);
    let low = child(&mid, None);
    handle(&low, SIGHUP, 0x1000);
    low.group.signals.lock().stopped = true;
    exit(&mid, 0);
    assert_eq!(low.group.ppid(), top.tgid());
    // Its parent was the only link to the session outside of its process group; the new one is another.
    assert!(!low.all_pending().has(SIGHUP), "the subreaper is in the session: not orphaned");
    // Once the subreaper ends too, the first process inherits, which is of another session.
    exit(&top, 0);
    assert_eq!(low.group.ppid(), 1);
    assert!(low.all_pending().has(SIGHUP));
    assert!(!low.group.signals.lock().stopped, "SIGCONT was sent, too");
}

#[test]
fn all_threads_stop_and_continue_and_the_parent_hears() {
    let p = process();
    handle(&p, SIGCHLD, 0x1000);
    let a = child(&p, None);
    let b = thread(&a);
    kill(&a, SIGSTOP);
    let mut fa = pin!(after_syscall(&a, Ok(1)));
    assert!(poll(fa.as_mut()).is_pending());
    assert_eq!(test_scan(&p, c::WUNTRACED), Ok(None), "the other thread still runs");
    assert!(b.signal_pending());
    let mut fb = pin!(after_syscall(&b, Err(Errno::ERESTARTSYS)));
    assert!(poll(fb.as_mut()).is_pending());
    assert_eq!((a.state_char(), b.state_char()), ('T', 'T'));
    let info = p.dequeue_signal(SigSet::of(SIGCHLD)).expect("SIGCHLD");
    assert_eq!((info.code, info.status()), (c::CLD_STOPPED as i32, SIGSTOP));
    assert_eq!(test_scan(&p, c::WUNTRACED), Ok(Some((a.tgid(), SIGSTOP << 8 | 0x7f))));
    assert_eq!(test_scan(&p, c::WUNTRACED), Ok(None), "a stop is told once");
    kill(&a, SIGCONT);
    assert_eq!(poll(fa.as_mut()), Poll::Ready(AfterCall::Return(1)));
    assert_eq!(poll(fb.as_mut()), Poll::Ready(AfterCall::Redo));
    let info = p.dequeue_signal(SigSet::of(SIGCHLD)).expect("SIGCHLD");
    assert_eq!((info.code, info.status()), (c::CLD_CONTINUED as i32, SIGCONT));
    assert_eq!(test_scan(&p, c::WCONTINUED), Ok(Some((a.tgid(), 0xffff))));
    assert_eq!(test_scan(&p, c::WCONTINUED), Ok(None));
}

#[test]
fn sigkill_ends_a_stopped_process() {
    let p = process();
    let a = child(&p, None);
    kill(&a, SIGSTOP);
    let mut f = pin!(after_syscall(&a, Ok(0)));
    assert!(poll(f.as_mut()).is_pending());
    kill(&a, SIGKILL);
    assert_eq!(poll(f.as_mut()), Poll::Ready(AfterCall::Exit));
    now(exit_task(&a));
    assert_eq!(test_scan(&p, c::WEXITED), Ok(Some((a.tgid(), SIGKILL))));
}

#[test]
fn a_fatal_signal_ends_all_threads_at_once() {
    let p = process();
    let a = child(&p, None);
    let b = thread(&a);
    kill(&a, SIGTERM);
    for t in [&b, &a] {
        assert!(t.fatal_signal_pending());
        assert_eq!(now(after_syscall(t, Ok(0))), AfterCall::Exit);
        now(exit_task(t));
    }
    assert_eq!(test_scan(&p, c::WEXITED), Ok(Some((a.tgid(), SIGTERM))));
}

#[test]
fn handled_blocked_and_ignored_signals() {
    let a = process();
    handle(&a, SIGUSR1, 0x1000);
    kill(&a, SIGUSR1);
    assert_eq!(now(after_syscall(&a, Ok(5))), AfterCall::NeedRegs(Ok(5)));
    assert_eq!(now(after_syscall(&a, Ok(5))), AfterCall::NeedRegs(Ok(5)), "it stays queued");
    mask::set_blocked(&a, SigSet::of(SIGUSR1));
    assert!(!a.signal_pending());
    assert_eq!(now(after_syscall(&a, Ok(5))), AfterCall::Return(5));
    // Another thread takes what the first one blocks.
    let b = thread(&a);
    mask::set_blocked(&a, SigSet::EMPTY);
    mask::set_blocked(&a, SigSet::of(SIGUSR1));
    assert!(b.signal_pending());
    assert_eq!(b.dequeue_signal(SigSet::ALL).map(|i| i.signo), Some(SIGUSR1));
    handle(&a, SIGUSR1, SIG_IGN);
    mask::set_blocked(&a, SigSet::EMPTY);
    send_task(&a, SigInfo::kernel(SIGUSR1)).unwrap();
    assert!(!a.signal_pending());
    // An interrupted call whose signal another thread took is done again.
    assert_eq!(now(after_syscall(&a, Err(Errno::ERESTARTNOHAND))), AfterCall::Redo);
    assert_eq!(now(after_syscall(&a, Err(Errno::ERESTART_RESTARTBLOCK))), AfterCall::RedoBlock);
}

#[test]
fn stop_and_continue_cancel_each_other_in_the_queue() {
    let a = process();
    mask::set_blocked(&a, SigSet::ALL);
    kill(&a, c::SIGTSTP as i32);
    assert!(a.all_pending().has(c::SIGTSTP as i32));
    kill(&a, SIGCONT);
    assert!(!a.all_pending().has(c::SIGTSTP as i32));
    assert!(a.all_pending().has(SIGCONT));
    kill(&a, c::SIGTTIN as i32);
    assert!(!a.all_pending().has(SIGCONT));
}

#[test]
fn the_first_process_is_immune_to_default_actions() {
    let _ = process();
    let init = pid::find_task(1).unwrap();
    for sig in [SIGTERM, SIGKILL, SIGSTOP] {
        kill(&init, sig);
        assert!(!init.fatal_signal_pending(), "{sig}");
    }
}

#[test]
fn clone_flags_are_checked() {
    let a = process();
    let bad = [c::CLONE_THREAD, c::CLONE_SIGHAND, c::CLONE_NEWNS, c::CLONE_THREAD | c::CLONE_SIGHAND];
    for flags in bad {
        let args = CloneArgs { flags: u64::from(flags), ..CloneArgs::default() };
        assert_eq!(super::copy::check_flags(&a, &args), Err(Errno::EINVAL), "{flags:#x}");
    }
}

#[test]
fn process_groups_and_sessions() {
    let a = process();
    let sid = a.tgid();
    assert_eq!(super::ids::sys_setsid(&a), Err(Errno::EPERM), "it leads its process group");
    let ch = child(&a, Some(sid));
    let id = ch.tgid();
    assert_eq!(super::ids::sys_setpgid(&ch, 0, 99_999), Err(Errno::EPERM));
    assert_eq!(super::ids::sys_setpgid(&a, id.cast_signed(), 0), Ok(0));
    assert_eq!(super::ids::sys_getpgid(&a, id.cast_signed()), Ok(u64::from(id)));
    assert_eq!(pid::read().pgrp(id).len(), 1);
    assert_eq!(super::ids::sys_setsid(&ch), Err(Errno::EPERM));
    assert_eq!(super::ids::sys_setpgid(&ch, 0, sid.cast_signed()), Ok(0));
    assert_eq!(pid::read().pgrp(id).len(), 0);
    assert_eq!(super::ids::sys_setsid(&ch), Ok(u64::from(id)));
    assert_eq!(super::ids::sys_getsid(&ch, 0), Ok(u64::from(id)));
    assert_eq!(super::ids::sys_setpgid(&a, id.cast_signed(), 0), Err(Errno::EPERM), "another session");
}
