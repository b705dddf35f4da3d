//! fork(2): a second address space that shares all frames until someone writes.

use super::frames::frames;
use super::mm::{Mm, MmInner};
use super::pte::{PageTable, Pte};
use super::space::Space;
use super::vma::{Backing, PROT_WRITE};
use crate::Result;
use arch::mm::MapOp;
use klib::addr::{PAGE_SIZE, RUN_SIZE};
use std::sync::Arc;

/// Up to this many pages that the parent may write are copied at once: cheaper than write-protecting them and taking
/// the faults on both sides.
const EAGER_PAGES: usize = 64;

const PAGE: u64 = PAGE_SIZE as u64;
const RUN: u64 = RUN_SIZE as u64;

impl Mm {
    /// A copy in the fresh host process `space`. Private pages become read-only on both sides, but those that both are
    /// sure to write (the stack at `sp`; all of a small process) are copied. When this returns, no thread of the
    /// parent can write what is shared any more.
    pub async fn fork(&self, space: Arc<Space>, sp: u64) -> Result<Arc<Self>> {
        let child = Self::new(space);
        let ticket = {
            let mut parent = self.inner.write();
            let mut copy = MmInner { brk_start: parent.brk_start, brk: parent.brk, ..MmInner::default() };
            let MmInner { vmas, pt, .. } = &mut *parent;
            let mut writable = 0;
            for v in vmas.iter().filter(|v| v.private() && !v.dontfork && v.prot & PROT_WRITE != 0) {
                pt.for_each(v.start, v.end, |_, p| writable += usize::from(p.writable()));
            }
            let eager = writable <= EAGER_PAGES;
            for vma in vmas.iter().filter(|v| !v.dontfork) {
                copy.vmas.insert(vma.clone());
                if vma.wipeonfork {
                    continue;
                }
                if let Backing::File { cache, .. } = &vma.backing {
                    cache.mapped_by(&child);
                }
                let mut now: Vec<(u64, Pte)> = Vec::new();
                let private = vma.private();
                pt.for_each_mut(vma.start, vma.end, |addr, p| {
                    if private && p.writable() && (eager || addr / RUN == sp / RUN) {
                        now.push((addr, *p));
                    } else {
                        share(&mut copy.pt, addr, p, private, || {
                            let prot = vma.prot & !PROT_WRITE;
                            self.space.tlb.push(MapOp::Protect { va: addr, len: PAGE, prot });
                        });
                    }
                });
                for group in now.chunk_by(|a, b| a.0 + PAGE == b.0 && b.0 % RUN != 0) {
                    if !copy_group(&mut copy.pt, &child.space, vma.prot, group) {
                        for &(addr, mut p) in group {
                            share(&mut copy.pt, addr, &mut p, private, || {
                                let prot = vma.prot & !PROT_WRITE;
                                self.space.tlb.push(MapOp::Protect { va: addr, len: PAGE, prot });
                            });
                            pt.set(addr, p);
                        }
                    }
                }
            }
            *child.inner.try_write().expect("nobody else knows the child yet") = copy;
            self.space.tlb.now()
        };
        *child.layout.lock() = self.layout.lock().clone();
        self.space.tlb.flush(ticket).await?;
        Ok(child)
    }
}

/// Gives neighbouring pages to the child as copies of its own, known to its stub. False without memory.
fn copy_group(to: &mut PageTable, child: &Space, prot: u32, group: &[(u64, Pte)]) -> bool {
    let f = frames();
    let (Ok(first), Some(&(va, _))) = (f.alloc(group.len()), group.first()) else { return false };
    for (i, &(addr, p)) in group.iter().enumerate() {
        let pfn = first.add(i as u32);
        f.phys().copy(p.pfn().offset(), pfn.offset(), PAGE_SIZE);
        let mut c = Pte::new(pfn, p.readable(), true);
        c.set_mapped(true);
        to.set(addr, c);
    }
    let len = group.len() as u64 * PAGE;
    child.tlb.push(MapOp::Map { va, len, mem: first.offset(), prot, populate: true });
    true
}

/// Enters a page of the parent into the child's table; `protect` is called if the parent's stub may write it.
fn share(to: &mut PageTable, addr: u64, p: &mut Pte, private: bool, protect: impl FnOnce()) {
    frames().get(p.pfn());
    if private && p.writable() {
        if p.mapped() {
            protect();
        }
        p.set_writable(false);
    }
    let mut c = *p;
    c.set_mapped(false);
    to.set(addr, c);
}
