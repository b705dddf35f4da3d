//! Changes of an address space on their way to the host: a queue that the stub's mapper works off in order.
//!
//! Changes are queued under `Mm::inner`, so their order is that of the page table. Waiting for them is separate
//! and holds no lock: whoever finds the mapper idle drives it, the others wait for the driver. Frames that a
//! change takes away are freed only when the host has confirmed it.

use super::frames::frames;
use super::pte::Leaf;
use crate::{Errno, Result};
use arch::mm::{MAPPER_BATCH, MapOp};
use arch::user::Mapper;
use executor::irq::{POLLHUP, POLLIN, PollStream};
use klib::addr::Pfn;
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Names a point of the queue: everything queued before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Ticket(u64);

/// What is given back once no stub maps it: dropping it does.
pub enum Held {
    /// One reference on a frame.
    Frame(Pfn),
    /// A leaf of a page table, with its references.
    Leaf(Arc<Leaf>),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::Frame(pfn) = self {
            frames().put(*pfn);
        }
    }
}

struct Queue {
    ops: VecDeque<MapOp>,
    /// Operations queued and done since the start.
    queued: u64,
    done: u64,
    /// Frames to be freed when `done` has reached the number.
    quarantine: VecDeque<(u64, Held)>,
    /// The mapper, while nobody drives it.
    driver: Option<Driver>,
    dead: bool,
}

/// The queue of one address space.
pub struct Tlb {
    queue: Mutex<Queue>,
    progress: WaitQueue,
}

impl Tlb {
    /// A queue worked off by `mapper`.
    pub fn new(mapper: Mapper) -> Self {
        Self {
            queue: Mutex::new(Queue {
                ops: VecDeque::new(),
                queued: 0,
                done: 0,
                quarantine: VecDeque::new(),
                driver: Some(Driver::new(mapper)),
                dead: false,
            }),
            progress: WaitQueue::new(),
        }
    }

    /// Queues a change; join it to the one before where the two are neighbours.
    pub fn push(&self, op: MapOp) -> Ticket {
        let mut q = self.queue.lock();
        if q.dead {
            return Ticket(0);
        }
        if let Some(last) = q.ops.back_mut()
            && let Some(joined) = join(*last, op)
        {
            *last = joined;
        } else {
            q.ops.push_back(op);
            q.queued += 1;
        }
        Ticket(q.queued)
    }

    /// Frees a frame (drops one owner) once everything queued so far is done.
    pub fn put_after(&self, pfn: Pfn) {
        self.drop_after(Held::Frame(pfn));
    }

    /// Drops what may still be mapped once everything queued so far is done.
    pub fn drop_after(&self, held: Held) {
        let mut q = self.queue.lock();
        if !q.dead && q.done == q.queued {
            drop(q);
            drop(held);
            return;
        }
        // Of a dead stub: `Mm` frees it when the host process has ended.
        let at = q.queued;
        q.quarantine.push_back((at, held));
    }

    /// True once the stub is known to be gone.
    pub fn is_dead(&self) -> bool {
        self.queue.lock().dead
    }

    /// True if the host has done everything queued so far (or will never do anything again).
    pub fn is_settled(&self) -> bool {
        let q = self.queue.lock();
        q.dead || q.done == q.queued
    }

    /// Everything queued so far.
    pub fn now(&self) -> Ticket {
        Ticket(self.queue.lock().queued)
    }

    /// Waits until the host has done everything up to `ticket`. `EFAULT`: the stub is dead. `ENOMEM`: the host
    /// refused a mapping, and the stub is dead from now on.
    pub async fn flush(&self, ticket: Ticket) -> Result<()> {
        loop {
            let (mut driver, batch) = match self.next(ticket) {
                Next::Done => return Ok(()),
                Next::Dead => return Err(Errno::EFAULT),
                Next::Drive(driver, batch) => (driver, batch),
                Next::Wait => {
                    self.progress.wait_until(|| self.moved(ticket).then_some(())).await;
                    continue;
                }
            };
            let r = driver.drive(&batch).await;
            self.finished(driver, batch.len() as u64, r);
            if let Err(e) = r {
                // A stub that has died, which a hostile guest can bring about at will, is nothing to complain of.
                let level = if e == Errno::EFAULT { log::Level::Debug } else { log::Level::Error };
                log::log!(target: "mm", level, "the host refused a mapping: {e}");
                return Err(e);
            }
        }
    }

    fn next(&self, ticket: Ticket) -> Next {
        let mut q = self.queue.lock();
        if q.dead {
            return Next::Dead;
        }
        if q.done >= ticket.0 {
            return Next::Done;
        }
        let Some(driver) = q.driver.take() else { return Next::Wait };
        let n = q.ops.len().min(MAPPER_BATCH);
        Next::Drive(driver, q.ops.drain(..n).collect())
    }

    /// True if waiting for `ticket` is over, or the mapper wants a driver.
    fn moved(&self, ticket: Ticket) -> bool {
        let q = self.queue.lock();
        q.dead || q.done >= ticket.0 || q.driver.is_some()
    }

    fn finished(&self, driver: Driver, n: u64, r: Result<()>) {
        let mut free = Vec::new();
        {
            let mut q = self.queue.lock();
            q.done += n;
            if r.is_err() {
                // Also if the host has refused one operation (ENOMEM at vm.max_map_count): what the stub maps now is
                // not known, so no frame may be freed before it is gone. Without its listener the mapper ends it.
                q.dead = true;
                q.ops.clear();
            } else {
                q.driver = Some(driver);
                while q.quarantine.front().is_some_and(|(at, _)| *at <= q.done) {
                    free.extend(q.quarantine.pop_front().map(|(_, p)| p));
                }
            }
        }
        drop(free);
        self.progress.wake_all();
    }

    /// The stub is gone: nothing more will be done, whoever waits is told. Gives what was still held.
    pub fn kill(&self) -> Vec<Held> {
        let mut q = self.queue.lock();
        q.dead = true;
        q.ops.clear();
        let held = q.quarantine.drain(..).map(|(_, p)| p).collect();
        drop(q);
        self.progress.wake_all();
        held
    }
}

/// What a waiter finds.
enum Next {
    Done,
    Dead,
    /// Nobody drives the mapper: the finder does.
    Drive(Driver, Vec<MapOp>),
    Wait,
}

/// The mapper, and what announces its reports.
struct Driver {
    reports: PollStream,
    mapper: Mapper,
}

impl Driver {
    fn new(mapper: Mapper) -> Self {
        let mut reports = PollStream::new(mapper.fd(), POLLIN);
        reports.set_nap(true);
        Self { reports, mapper }
    }

    /// Runs one batch. `EFAULT`: the mapper is gone.
    async fn drive(&mut self, batch: &[MapOp]) -> Result<()> {
        if self.mapper.begin(batch).is_err() {
            return Err(Errno::EFAULT);
        }
        loop {
            let ready = self.reports.next().await.map_err(|_| Errno::EFAULT)?;
            if ready & POLLIN != 0 {
                match self.mapper.finish() {
                    Err(Errno::ENOENT) => self.reports.restart(),
                    Err(Errno::ENOMEM) => return Err(Errno::ENOMEM),
                    Err(_) => return Err(Errno::EFAULT),
                    Ok(()) => return Ok(()),
                }
            } else if ready & POLLHUP != 0 {
                return Err(Errno::EFAULT);
            }
        }
    }
}

/// Two changes as one, if the second continues the first.
fn join(a: MapOp, b: MapOp) -> Option<MapOp> {
    match (a, b) {
        (
            MapOp::Map { va, len, mem, prot, populate },
            MapOp::Map { va: va2, len: len2, mem: mem2, prot: prot2, populate: p2 },
        ) if va + len == va2 && mem + len == mem2 && prot == prot2 && populate == p2 => {
            Some(MapOp::Map { va, len: len + len2, mem, prot, populate })
        }
        (MapOp::Unmap { va, len }, MapOp::Unmap { va: va2, len: len2 }) if va + len == va2 => {
            Some(MapOp::Unmap { va, len: len + len2 })
        }
        (MapOp::Protect { va, len, prot }, MapOp::Protect { va: va2, len: len2, prot: prot2 })
            if va + len == va2 && prot == prot2 =>
        {
            Some(MapOp::Protect { va, len: len + len2, prot })
        }
        _ => None,
    }
}
