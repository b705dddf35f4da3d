//! A guest address space.

use super::pte::PageTable;
use super::space::Space;
use super::vma::VmaTree;
use arch::mm::MapOp;
use arch::user::{GUEST_END, GUEST_START};
use executor::irq::{POLLIN, poll_fd};
use parking_lot::{Mutex, RwLock};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Top of the area in which mmap(2) places things, growing down; the stack lies above.
pub const MMAP_TOP: u64 = GUEST_END - (1 << 30);

/// A guest address space, shared by the threads of a process (and by a vfork child).
pub struct Mm {
    /// Names the address space, never used again.
    pub id: u64,
    pub(super) inner: RwLock<MmInner>,
    /// The host process.
    pub space: Arc<Space>,
    /// The host process ends with this address space. False while another address space of an exec owns it.
    owner: AtomicBool,
    /// Where the program's parts lie, for /proc and the loader.
    pub layout: Mutex<Layout>,
}

/// The areas and pages.
#[derive(Default)]
pub(super) struct MmInner {
    pub vmas: VmaTree,
    pub pt: PageTable,
    /// Start of the heap and its current end.
    pub brk_start: u64,
    pub brk: u64,
}

/// Addresses that /proc/PID/{stat,cmdline,environ,auxv} need, and the program itself.
#[derive(Clone, Default)]
pub struct Layout {
    /// Code.
    pub code: (u64, u64),
    /// Data.
    pub data: (u64, u64),
    /// Address of the first stack frame.
    pub stack: u64,
    /// Arguments on the stack.
    pub args: (u64, u64),
    /// Environment on the stack.
    pub env: (u64, u64),
    /// The auxiliary vector, as bytes.
    pub auxv: Vec<u8>,
    /// The program file, for /proc/PID/exe.
    pub exe: Option<Arc<crate::fs::file::File>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Mm {
    /// An empty address space in a fresh host process.
    pub fn new(space: Arc<Space>) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            inner: RwLock::default(),
            space,
            owner: AtomicBool::new(true),
            layout: Mutex::default(),
        })
    }

    /// An empty address space for an exec in the host process of `old`, which keeps it until [`Mm::settle`]. Until
    /// then nothing of the new one may be mapped in the stub.
    pub fn new_beside(old: &Self) -> Arc<Self> {
        let new = Self::new(Arc::clone(&old.space));
        new.owner.store(false, Ordering::Release);
        new
    }

    /// Queues the emptying of the host process that `old` has; what is mapped from now on is `self`'s. Follow with
    /// [`settle`](Self::settle).
    pub fn take_over(&self, old: &Self) {
        debug_assert!(Arc::ptr_eq(&self.space, &old.space));
        self.space.tlb.push(MapOp::Unmap { va: GUEST_START, len: GUEST_END - GUEST_START });
    }

    /// Ends the take-over: nothing of `old` is mapped in the stub when this returns, so that its frames can be freed.
    pub async fn settle(&self, old: &Self) {
        // A dead stub maps nothing; its thread notices.
        self.space.tlb.flush(self.space.tlb.now()).await.ok();
        old.owner.store(false, Ordering::Release);
        self.owner.store(true, Ordering::Release);
    }

    /// Tells the host process all that has been queued for it, so that no fault is needed for that.
    pub async fn tell(&self) {
        // A dead stub is noticed by its threads.
        self.space.tlb.flush(self.space.tlb.now()).await.ok();
    }

    /// Pages in memory.
    pub fn resident_pages(&self) -> u64 {
        self.inner.read().pt.resident()
    }

    /// Pages of all areas.
    pub fn total_pages(&self) -> u64 {
        self.inner.read().vmas.pages()
    }

    /// Start and end of the heap.
    pub fn heap(&self) -> (u64, u64) {
        let i = self.inner.read();
        (i.brk_start, i.brk)
    }
}

impl Drop for Mm {
    /// Ends the host process; its frames are free when the host says that it is gone, for until then its threads may
    /// still write to them.
    fn drop(&mut self) {
        let pt = std::mem::take(&mut self.inner.get_mut().pt);
        if !*self.owner.get_mut() {
            return;
        }
        let held = self.space.tlb.kill();
        self.space.kill();
        let space = Arc::clone(&self.space);
        executor::spawn(async move {
            if let Some(fd) = space.stub.pidfd() {
                poll_fd(fd.as_raw_fd(), POLLIN).await.ok();
            }
            drop(pt);
            drop(held);
            drop(space);
        });
    }
}
