//! poll(2), ppoll(2), select(2), pselect6(2).

use super::timespec_to_duration;
use crate::fs::file::File;
use crate::fs::poll::{ALWAYS, IN, OUT, POLLERR, POLLHUP, POLLNVAL, POLLPRI, PollTable};
use crate::signal::mask::{read_mask, restore_saved_unless, set_user_sigmask};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use klib::ktime::Ktime;
use std::sync::Arc;
use std::time::Duration;
use uapi::pod;

/// How long a wait may last.
#[derive(Clone, Copy)]
pub enum Patience {
    /// Look once.
    None,
    /// Until then.
    Until(Ktime),
    /// For ever.
    Forever,
}

impl Patience {
    /// From a relative time; `None` waits for ever.
    pub fn relative(d: Option<Duration>) -> Self {
        match d {
            None => Self::Forever,
            Some(Duration::ZERO) => Self::None,
            Some(d) => Self::Until(executor::time::now() + d),
        }
    }

    /// Time left, to be given back to the caller.
    pub fn left(self) -> Option<Duration> {
        match self {
            Self::None => Some(Duration::ZERO),
            Self::Until(t) => Some(t.since(executor::time::now())),
            Self::Forever => None,
        }
    }
}

/// Waits until `ready` gives a value; `None` when the time is over. `EINTR`-like restarts only without a handler.
pub async fn wait_for<T>(
    cur: &Task,
    patience: Patience,
    mut ready: impl FnMut(&mut PollTable) -> Option<T>,
) -> Result<Option<T>> {
    let deadline = match patience {
        Patience::None => {
            let target: Arc<klib::waitqueue::TaskTarget> = Arc::default();
            let mut table = PollTable::for_task(&target);
            table.registered();
            return Ok(ready(&mut table));
        }
        Patience::Until(t) => Some(t),
        Patience::Forever => None,
    };
    match cur.wait_event(deadline, ready).await {
        Ok(v) => Ok(Some(v)),
        Err(Errno::ETIMEDOUT) => Ok(None),
        Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOHAND),
        Err(e) => Err(e),
    }
}

/// One struct pollfd, and its file.
struct Entry {
    fd: i32,
    events: u32,
    revents: u32,
    file: Option<Arc<File>>,
}

async fn do_poll(cur: &Arc<Task>, fds: UserPtr<u64>, n: u32, patience: Patience) -> Result<u64> {
    let n = n as usize;
    if n > cur.nofile_limit() {
        return Err(Errno::EINVAL);
    }
    let mut list: Vec<Entry> = fds
        .read_vec(cur, n)
        .await?
        .into_iter()
        .map(|raw| {
            let b = raw.to_ne_bytes();
            let fd = i32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
            let events = u32::from(u16::from_ne_bytes([b[4], b[5]]));
            let file = if fd < 0 { None } else { cur.files().get(fd).ok() };
            Entry { fd, events, revents: 0, file }
        })
        .collect();
    let found = wait_for(cur, patience, |table| {
        let mut count = 0u64;
        for e in &mut list {
            e.revents = match &e.file {
                Some(f) => f.ops.poll(f, table) & (e.events | ALWAYS) & !POLLNVAL,
                None if e.fd >= 0 => POLLNVAL,
                None => 0,
            };
            count += u64::from(e.revents != 0);
        }
        (count > 0).then_some(count)
    })
    .await?;
    // Only the answers are written: what the guest has put there since stays.
    for (i, e) in list.iter().enumerate() {
        #[allow(clippy::cast_possible_truncation)]
        let revents = e.revents as u16;
        let at = fds.add(i).addr().wrapping_add(6);
        UserPtr::<u16>::new(at).write(cur, &revents).await?;
    }
    Ok(found.unwrap_or(0))
}

/// poll(2).
pub async fn sys_poll(cur: &Arc<Task>, fds: UserPtr<u64>, n: u32, timeout_ms: i32) -> Result<u64> {
    let d = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    do_poll(cur, fds, n, Patience::relative(d)).await
}

/// Runs a wait under a temporary signal mask.
pub async fn with_mask<T>(
    cur: &Arc<Task>,
    mask: Option<crate::signal::SigSet>,
    wait: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(mask) = mask else { return wait.await };
    set_user_sigmask(cur, mask);
    let r = wait.await;
    let interrupted = r.as_ref().err().is_some_and(|e| e.is_restart() || *e == Errno::EINTR);
    restore_saved_unless(cur, interrupted);
    r
}

async fn give_left(cur: &Arc<Task>, ts: UserPtr<[i64; 2]>, p: Patience, unit_ns: u32) {
    if let (false, Some(d)) = (ts.is_null(), p.left()) {
        let sec = i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        // The time left is a courtesy: a read-only argument is no error.
        ts.write(cur, &[sec, i64::from(d.subsec_nanos() / unit_ns)]).await.ok();
    }
}

/// ppoll(2).
pub async fn sys_ppoll(
    cur: &Arc<Task>,
    fds: UserPtr<u64>,
    n: u32,
    ts: UserPtr<[i64; 2]>,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<u64> {
    let d = ts.read_opt(cur).await?.map(timespec_to_duration).transpose()?;
    let mask = read_mask(cur, mask, size).await?;
    let patience = Patience::relative(d);
    let r = with_mask(cur, mask, do_poll(cur, fds, n, patience)).await;
    give_left(cur, ts, patience, 1).await;
    r
}

/// The three bit sets of select(2): where they are, what was asked.
struct Sets {
    ptr: [UserPtr<u64>; 3],
    asked: [Vec<u64>; 3],
}

async fn do_select(cur: &Arc<Task>, n: i32, ptr: [UserPtr<u64>; 3], patience: Patience) -> Result<u64> {
    let n = usize::try_from(n).map_err(|_| Errno::EINVAL)?.min(1 << 20);
    let words = n.div_ceil(64);
    let mut sets = Sets { ptr, asked: Default::default() };
    for i in 0..3 {
        if !sets.ptr[i].is_null() {
            sets.asked[i] = sets.ptr[i].read_vec(cur, words).await?;
        }
    }
    let bit = |set: &[u64], fd: usize| set.get(fd / 64).is_some_and(|w| w >> (fd % 64) & 1 != 0);
    let mut watched: Vec<(usize, Arc<File>)> = Vec::new();
    for fd in 0..n {
        if sets.asked.iter().any(|s| bit(s, fd)) {
            watched.push((fd, cur.files().get(i32::try_from(fd).map_err(|_| Errno::EBADF)?)?));
        }
    }
    let mut answer: [Vec<u64>; 3] = std::array::from_fn(|i| vec![0; sets.asked[i].len()]);
    let found = wait_for(cur, patience, |table| {
        let mut count = 0u64;
        for (fd, f) in &watched {
            let ready = f.ops.poll(f, table);
            for (i, events) in [IN | POLLHUP | POLLERR, OUT | POLLERR, POLLPRI].into_iter().enumerate() {
                if bit(&sets.asked[i], *fd) && ready & events != 0 {
                    answer[i][fd / 64] |= 1 << (fd % 64);
                    count += 1;
                }
            }
        }
        (count > 0).then_some(count)
    })
    .await?;
    for (ptr, bits) in sets.ptr.iter().zip(&answer) {
        if !ptr.is_null() {
            cur.mm().copy_to_user(ptr.addr(), pod::bytes_of_slice(bits)).await?;
        }
    }
    Ok(found.unwrap_or(0))
}

/// select(2).
pub async fn sys_select(
    cur: &Arc<Task>,
    n: i32,
    r: UserPtr<u64>,
    w: UserPtr<u64>,
    x: UserPtr<u64>,
    tv: UserPtr<[i64; 2]>,
) -> Result<u64> {
    let d = match tv.read_opt(cur).await? {
        None => None,
        Some([sec, usec]) => {
            let sec = u64::try_from(sec).map_err(|_| Errno::EINVAL)?;
            let usec = u64::try_from(usec).map_err(|_| Errno::EINVAL)?;
            Some(Duration::from_secs(sec).saturating_add(Duration::from_micros(usec)))
        }
    };
    let patience = Patience::relative(d);
    let res = do_select(cur, n, [r, w, x], patience).await;
    give_left(cur, tv, patience, 1000).await;
    res
}

/// pselect6(2): the last argument points to the mask's address and size.
pub async fn sys_pselect6(
    cur: &Arc<Task>,
    n: i32,
    r: UserPtr<u64>,
    w: UserPtr<u64>,
    x: UserPtr<u64>,
    ts: UserPtr<[i64; 2]>,
    sig: UserPtr<[u64; 2]>,
) -> Result<u64> {
    let d = ts.read_opt(cur).await?.map(timespec_to_duration).transpose()?;
    let mask = match sig.read_opt(cur).await? {
        None => None,
        Some([addr, size]) => {
            read_mask(cur, UserPtr::new(addr), usize::try_from(size).map_err(|_| Errno::EINVAL)?).await?
        }
    };
    let patience = Patience::relative(d);
    let res = with_mask(cur, mask, do_select(cur, n, [r, w, x], patience)).await;
    give_left(cur, ts, patience, 1).await;
    res
}
