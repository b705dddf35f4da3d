//! The operations of futex(2).

use super::bucket::{self, Queued, Waiter};
use crate::mm::Mm;
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::time::clock;
use crate::{BoxFuture, Errno, Result};
use klib::ktime::Ktime;
use klib::waitqueue::TaskTarget;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use uapi::raw::general as c;

/// Runs `f` until no page is missing any more; in between the page is brought in with no lock held.
async fn with_page<T>(mm: &Arc<Mm>, addr: u64, write: bool, mut f: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match f() {
            Err(Errno::EFAULT) => mm.fault_in(addr, 4, write).await?,
            r => return r,
        }
    }
}

fn check_aligned(addr: u64) -> Result<()> {
    if addr.is_multiple_of(4) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// FUTEX_WAKE_BITSET inside the kernel.
pub fn wake(cur: &Arc<Task>, addr: u64, shared: bool, n: u32, bitset: u32) -> Result<u32> {
    check_aligned(addr)?;
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = cur.mm().futex_key(addr, shared)?;
    Ok(bucket::wake(&key, n, bitset))
}

/// One wait, with what restart_syscall(2) must remember.
#[derive(Clone, Copy)]
struct Wait {
    addr: u64,
    shared: bool,
    val: u32,
    bitset: u32,
    deadline: Option<Ktime>,
}

/// FUTEX_WAIT_BITSET inside the kernel: `EAGAIN` if the word is not `val`, `ETIMEDOUT`, a restart kind on a signal.
pub async fn wait(
    cur: &Arc<Task>,
    addr: u64,
    shared: bool,
    val: u32,
    bitset: u32,
    deadline: Option<Ktime>,
) -> Result<()> {
    do_wait(cur, Wait { addr, shared, val, bitset, deadline }).await
}

async fn do_wait(cur: &Arc<Task>, w: Wait) -> Result<()> {
    check_aligned(w.addr)?;
    if w.bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cur.mm();
    let target: Arc<TaskTarget> = Arc::default();
    let queued = with_page(&mm, w.addr, false, || {
        let key = mm.futex_key(w.addr, w.shared)?;
        let waiter = Waiter::new(key, w.bitset, Arc::clone(&target));
        bucket::enqueue(waiter, || match mm.try_load_u32(w.addr)? {
            v if v == w.val => Ok(()),
            _ => Err(Errno::EAGAIN),
        })
    })
    .await?;
    sleep(cur, &queued, &target, w.deadline).await
}

async fn sleep(cur: &Task, queued: &Queued, target: &Arc<TaskTarget>, deadline: Option<Ktime>) -> Result<()> {
    let mut timer = pin!(deadline.map(executor::time::sleep_until));
    poll_fn(|cx| {
        target.arm(cx.waker());
        cur.arm_signal_waker(cx.waker());
        cur.set_state(b'R');
        if queued.0.is_woken() {
            return Poll::Ready(Ok(()));
        }
        if cur.signal_pending() {
            return Poll::Ready(Err(Errno::ERESTARTSYS));
        }
        if let Some(t) = timer.as_mut().as_pin_mut()
            && t.poll(cx).is_ready()
        {
            return Poll::Ready(Err(Errno::ETIMEDOUT));
        }
        cur.set_state(b'S');
        cur.nvcsw.fetch_add(1, Ordering::Relaxed);
        Poll::Pending
    })
    .await
}

/// The call: a wait with a time limit must not begin anew after a signal, so it leaves a restart block.
async fn sys_wait(cur: &Arc<Task>, w: Wait) -> Result<u64> {
    match do_wait(cur, w).await {
        Ok(()) => Ok(0),
        Err(Errno::ERESTARTSYS) if w.deadline.is_some() => {
            Err(cur.set_restart(Box::new(move |cur| wait_again(cur, w))))
        }
        Err(e) => Err(e),
    }
}

fn wait_again(cur: Arc<Task>, w: Wait) -> BoxFuture<'static, Result<u64>> {
    Box::pin(async move { sys_wait(&cur, w).await })
}

/// FUTEX_WAKE_OP's second argument (futex(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WakeOp {
    op: u32,
    cmp: u32,
    oparg: i32,
    cmparg: i32,
}

impl WakeOp {
    fn decode(v: u32) -> Result<Self> {
        // 12-bit signed arguments.
        let sext = |x: u32| (x << 20).cast_signed() >> 20;
        let op = v >> 28 & 7;
        let cmp = v >> 24 & 15;
        let mut oparg = sext(v >> 12 & 0xfff);
        if v >> 28 & c::FUTEX_OP_OPARG_SHIFT != 0 {
            oparg = 1i32.wrapping_shl(oparg.cast_unsigned() & 31);
        }
        if op > c::FUTEX_OP_XOR || cmp > c::FUTEX_OP_CMP_GE {
            return Err(Errno::ENOSYS);
        }
        Ok(Self { op, cmp, oparg, cmparg: sext(v & 0xfff) })
    }

    fn new_value(self, old: u32) -> u32 {
        let a = self.oparg.cast_unsigned();
        match self.op {
            c::FUTEX_OP_SET => a,
            c::FUTEX_OP_ADD => old.wrapping_add(a),
            c::FUTEX_OP_OR => old | a,
            c::FUTEX_OP_ANDN => old & !a,
            _ => old ^ a,
        }
    }

    fn holds(self, old: u32) -> bool {
        let (o, a) = (old.cast_signed(), self.cmparg);
        match self.cmp {
            c::FUTEX_OP_CMP_EQ => o == a,
            c::FUTEX_OP_CMP_NE => o != a,
            c::FUTEX_OP_CMP_LT => o < a,
            c::FUTEX_OP_CMP_LE => o <= a,
            c::FUTEX_OP_CMP_GT => o > a,
            _ => o >= a,
        }
    }
}

async fn wake_op(cur: &Arc<Task>, a1: u64, a2: u64, shared: bool, n1: u32, n2: u32, v3: u32) -> Result<u64> {
    check_aligned(a1)?;
    check_aligned(a2)?;
    let op = WakeOp::decode(v3)?;
    let mm = cur.mm();
    let n = with_page(&mm, a2, true, || {
        let k1 = mm.futex_key(a1, shared)?;
        let k2 = mm.futex_key(a2, shared)?;
        bucket::wake_op(&k1, &k2, n1, n2, || {
            let mut old = mm.try_load_u32(a2)?;
            // A sibling may keep changing the word; it is the guest's own time that is spent, but boundedly.
            for _ in 0..1 << 16 {
                match mm.try_cmpxchg_u32(a2, old, op.new_value(old))? {
                    Ok(_) => return Ok(op.holds(old)),
                    Err(found) => old = found,
                }
            }
            Err(Errno::EAGAIN)
        })
    })
    .await?;
    Ok(u64::from(n))
}

async fn requeue(
    cur: &Arc<Task>,
    a1: u64,
    a2: u64,
    shared: bool,
    (n_wake, n_move): (i32, i32),
    expect: Option<u32>,
) -> Result<u64> {
    check_aligned(a1)?;
    check_aligned(a2)?;
    let n_wake = u32::try_from(n_wake).map_err(|_| Errno::EINVAL)?;
    let n_move = u32::try_from(n_move).map_err(|_| Errno::EINVAL)?;
    let mm = cur.mm();
    let (woken, moved) = with_page(&mm, a1, false, || {
        let k1 = mm.futex_key(a1, shared)?;
        let k2 = mm.futex_key(a2, shared)?;
        bucket::requeue(&k1, &k2, n_wake, n_move, || match expect {
            Some(v) if mm.try_load_u32(a1)? != v => Err(Errno::EAGAIN),
            _ => Ok(()),
        })
    })
    .await?;
    // FUTEX_REQUEUE counts the woken, FUTEX_CMP_REQUEUE both (futex(2)); Linux gives both for either.
    Ok(u64::from(woken) + u64::from(moved))
}

/// futex(2). `val2` is `timeout` or a number, by operation. Priority inheritance is not there: `ENOSYS`.
pub async fn sys_futex(
    cur: &Arc<Task>,
    addr: u64,
    op: u32,
    val: u32,
    val2: u64,
    addr2: u64,
    val3: u32,
) -> Result<u64> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let cmd = op & !(c::FUTEX_PRIVATE_FLAG | c::FUTEX_CLOCK_REALTIME);
    let shared = op & c::FUTEX_PRIVATE_FLAG == 0;
    let realtime = op & c::FUTEX_CLOCK_REALTIME != 0;
    if realtime && !matches!(cmd, c::FUTEX_WAIT | c::FUTEX_WAIT_BITSET | c::FUTEX_LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    #[allow(clippy::cast_possible_truncation)]
    let num2 = val2 as u32;
    match cmd {
        c::FUTEX_WAIT | c::FUTEX_WAIT_BITSET => {
            let deadline = match UserPtr::<[i64; 2]>::new(val2).read_opt(cur).await? {
                None => None,
                Some(ts) => {
                    let ns = clock::timespec_ns(ts)?;
                    Some(match (cmd, realtime) {
                        // FUTEX_WAIT's time is relative, FUTEX_WAIT_BITSET's absolute.
                        (c::FUTEX_WAIT, _) => clock::after(ns),
                        (_, true) => clock::realtime_to_mono(ns),
                        (_, false) => Ktime(ns),
                    })
                }
            };
            let bitset = if cmd == c::FUTEX_WAIT { u32::MAX } else { val3 };
            sys_wait(cur, Wait { addr, shared, val, bitset, deadline }).await
        }
        c::FUTEX_WAKE => wake(cur, addr, shared, at_least_one(val), u32::MAX).map(u64::from),
        c::FUTEX_WAKE_BITSET => wake(cur, addr, shared, at_least_one(val), val3).map(u64::from),
        c::FUTEX_REQUEUE => {
            let n = (val.cast_signed(), num2.cast_signed());
            requeue(cur, addr, addr2, shared, n, None).await
        }
        c::FUTEX_CMP_REQUEUE => {
            let n = (val.cast_signed(), num2.cast_signed());
            requeue(cur, addr, addr2, shared, n, Some(val3)).await
        }
        c::FUTEX_WAKE_OP => {
            wake_op(cur, addr, addr2, shared, at_least_one(val), at_least_one(num2), val3).await
        }
        _ => {
            let pi = matches!(cmd, 6..=8 | 11..=13);
            if pi && !WARNED.swap(true, Ordering::Relaxed) {
                log::warn!(target: "futex", "priority inheritance futexes are not there yet: ENOSYS");
            }
            Err(Errno::ENOSYS)
        }
    }
}

/// Linux wakes one waiter even where the count says none or is negative (tested there).
fn at_least_one(n: u32) -> u32 {
    if n.cast_signed() <= 0 { 1 } else { n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_decodes_signed_arguments() {
        // FUTEX_OP(ADD, -1, CMP_GT, 1)
        let op = WakeOp::decode(1 << 28 | 4 << 24 | 0xfff << 12 | 1).unwrap();
        assert_eq!(op, WakeOp { op: 1, cmp: 4, oparg: -1, cmparg: 1 });
        assert_eq!(op.new_value(5), 4);
        assert!(op.holds(2) && !op.holds(1));
        // A shifted operand: OR 1 << 5.
        let op = WakeOp::decode((2 | 8) << 28 | 5 << 12).unwrap();
        assert_eq!(op.new_value(1), 33);
        assert_eq!(WakeOp::decode(7 << 28), Err(Errno::ENOSYS));
    }
}
