//! Host processes for address spaces: a pool of ready stubs, and the making of guest threads in them.

use super::tlb::Tlb;
use crate::{Errno, Result};
use arch::mm::PhysMem;
use arch::user::{StubHost, StubProcess, Trap, UserThread};
use executor::irq::{POLLIN, poll_fd};
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Stubs kept ready: one for the next fork, one for the exec that follows it.
const POOL: usize = 2;
/// The host makes a process in far less; if it does not, something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at without a ring.
const LOOK: Duration = Duration::from_millis(100);

/// A stub process with its mapper's queue.
pub struct Space {
    /// The host process.
    pub stub: StubProcess,
    /// Changes of its mappings.
    pub tlb: Tlb,
    /// Guest threads whose life has ended but whose host thread waits to be used again.
    parked: Mutex<Vec<UserThread>>,
    /// A thread is being made: one at a time.
    making: AtomicBool,
    made: WaitQueue,
}

/// A fresh address space and its first thread, which waits for its registers.
pub struct Ready {
    /// The host process.
    pub space: Arc<Space>,
    /// Its first thread, stopped at [`Trap::Start`].
    pub thread: UserThread,
}

struct Pool {
    host: Arc<StubHost>,
    ready: Mutex<VecDeque<Ready>>,
    /// Woken when a stub was taken, or put in, or could not be made.
    changed: WaitQueue,
    failed: Mutex<Option<Errno>>,
    /// Woken at each ring of the doorbell.
    rung: WaitQueue,
}

static THE_POOL: OnceLock<Pool> = OnceLock::new();

fn pool() -> &'static Pool {
    THE_POOL.get().expect("the pool is set up before the first process")
}

/// Starts the tasks that listen to the doorbell and keep the pool filled.
pub fn init(host: Arc<StubHost>) {
    THE_POOL
        .set(Pool {
            host,
            ready: Mutex::default(),
            changed: WaitQueue::new(),
            failed: Mutex::default(),
            rung: WaitQueue::new(),
        })
        .ok();
    executor::spawn(listen());
    executor::spawn(fill());
}

/// Start and end of the host's vDSO in guests.
pub fn vdso() -> Option<(u64, u64)> {
    pool().host.vdso()
}

/// The memory file that stubs map, as [`StubHost::start`] got it.
pub fn memory() -> &'static PhysMem {
    super::frames::frames().phys()
}

async fn listen() {
    let p = pool();
    loop {
        if poll_fd(p.host.doorbell_fd().as_raw_fd(), POLLIN).await.is_err() {
            return;
        }
        p.host.doorbell().take().ok();
        p.rung.wake_all();
    }
}

/// Looks again after each ring until `f` gives a value, and now and then without one: a process that has died does not
/// ring. `EAGAIN` if nothing comes for too long.
async fn after_rings<T>(mut f: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = executor::time::now() + PATIENCE;
    while executor::time::now() < deadline {
        let look = executor::time::now() + LOOK;
        if let Some(r) = executor::time::timeout(Some(look), pool().rung.wait_until(&mut f)).await {
            return Ok(r);
        }
    }
    Err(Errno::EAGAIN)
}

async fn fill() {
    let p = pool();
    loop {
        p.changed
            .wait_until(|| (p.ready.lock().len() < POOL && p.failed.lock().is_none()).then_some(()))
            .await;
        match make().await {
            Ok(r) => p.ready.lock().push_back(r),
            Err(e) => {
                log::error!(target: "mm", "cannot make a guest process: {e}");
                *p.failed.lock() = Some(e);
            }
        }
        p.changed.wake_all();
    }
}

async fn make() -> Result<Ready> {
    let p = pool();
    let mut stub = p.host.request_stub()?;
    let mut mapper = after_rings(|| stub.set_up().transpose()).await??;
    poll_fd(mapper.fd().as_raw_fd(), POLLIN).await?;
    mapper.finish()?;
    let space = Arc::new(Space {
        stub,
        tlb: Tlb::new(mapper),
        parked: Mutex::default(),
        making: AtomicBool::new(false),
        made: WaitQueue::new(),
    });
    let thread = space.new_thread().await?;
    Ok(Ready { space, thread })
}

/// Takes a fresh address space with one thread. `EAGAIN`: the host makes no more processes.
pub async fn take() -> Result<Ready> {
    let p = pool();
    let r = p
        .changed
        .wait_until(|| {
            if let Some(r) = p.ready.lock().pop_front() {
                return Some(Ok(r));
            }
            p.failed.lock().take().map(Err)
        })
        .await;
    p.changed.wake_all();
    r
}

impl Space {
    /// A thread for guest code: a parked one, or a new one. It stands at [`Trap::Start`] or the like: its next call
    /// is `UserThread::start`.
    pub async fn new_thread(&self) -> Result<UserThread> {
        if let Some(t) = self.parked.lock().pop() {
            return Ok(t);
        }
        self.made.wait_until(|| (!self.making.swap(true, Ordering::AcqRel)).then_some(())).await;
        let r = self.make_thread().await;
        self.making.store(false, Ordering::Release);
        self.made.wake_all();
        r
    }

    async fn make_thread(&self) -> Result<UserThread> {
        let block = self.stub.take_block()?;
        let ticket = self.tlb.push(block.map_op());
        self.tlb.flush(ticket).await?;
        self.stub.request_thread(&block);
        let mut block = Some(block);
        let mut thread = after_rings(|| match self.stub.take_thread(block.take()?) {
            Ok(t) => Some(Ok(t)),
            Err((b, None)) => {
                block = Some(b);
                None
            }
            Err((_, Some(e))) => Some(Err(e)),
        })
        .await??;
        loop {
            let ready = poll_fd(thread.fd().as_raw_fd(), POLLIN).await?;
            if ready & POLLIN == 0 {
                return Err(Errno::EAGAIN);
            }
            match thread.recv() {
                Ok(Trap::Start) => return Ok(thread),
                Err(Errno::ENOENT) => {}
                _ => return Err(Errno::EAGAIN),
            }
        }
    }

    /// Keeps a thread that stands in its handler for the next [`new_thread`](Self::new_thread).
    pub fn park(&self, mut thread: UserThread) {
        let mut parked = self.parked.lock();
        if parked.len() < 2 {
            parked.push(thread);
        } else {
            thread.exit().ok();
        }
    }

    /// Ends the host process and gives what to wait for until it is gone.
    pub fn kill(&self) {
        self.stub.kill();
    }
}
