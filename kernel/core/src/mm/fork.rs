//! fork(2): a second address space that shares all frames until someone writes.

use super::ahead::expect_child;
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

/// Pages that the child gets as copies of its own: their protection, and what the parent has there.
type Copies = (u32, Vec<(u64, Pte)>);

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
            for v in vmas.iter().filter(|v| v.private() && !v.dontfork && !v.wipeonfork) {
                writable += pt.writable_pages(v.start, v.end);
            }
            let eager = writable <= EAGER_PAGES;
            // What the child does not share with the parent.
            let mut apart: Vec<(u64, u64)> = Vec::new();
            let mut copies: Vec<Copies> = Vec::new();
            for vma in vmas.iter() {
                if vma.dontfork || vma.wipeonfork {
                    apart.push((vma.start, vma.end));
                }
                if vma.dontfork {
                    continue;
                }
                copy.vmas.insert(vma.clone());
                if vma.wipeonfork {
                    continue;
                }
                if let Backing::File { cache, .. } = &vma.backing {
                    cache.mapped_by(&child);
                }
                if vma.shared {
                    continue;
                }
                let stack = sp / RUN * RUN;
                let (a, b) = if eager {
                    (vma.start, vma.end)
                } else {
                    (stack.clamp(vma.start, vma.end), (stack + RUN).clamp(vma.start, vma.end))
                };
                let mut now: Vec<(u64, Pte)> = Vec::new();
                pt.for_each(a, b, |addr, p| {
                    if p.writable() {
                        now.push((addr, p));
                        apart.push((addr, addr + PAGE));
                    }
                });
                copies.push((vma.prot, now));
                for (start, end) in [(vma.start, a), (b, vma.end)] {
                    self.keep_writes_out(pt, start, end, vma.prot);
                }
            }
            copy.pt = pt.fork(&apart);
            for (prot, now) in copies {
                for group in now.chunk_by(|a, b| a.0 + PAGE == b.0 && b.0 % RUN != 0) {
                    if copy_group(&mut copy.pt, &child.space, prot, group) {
                        continue;
                    }
                    for &(addr, p) in group {
                        self.keep_writes_out(pt, addr, addr + PAGE, prot);
                        frames().get(p.pfn());
                        copy.pt.set(addr, Pte::new(p.pfn(), p.readable(), false));
                    }
                }
            }
            expect_child(pt, &mut copy, &child.space.tlb);
            *child.inner.try_write().expect("nobody else knows the child yet") = copy;
            self.space.tlb.now()
        };
        *child.layout.lock() = self.layout.lock().clone();
        self.space.tlb.flush(ticket).await?;
        Ok(child)
    }

    /// Takes the right to write from pages of a private area with protection `prot`, here and in the stub.
    fn keep_writes_out(&self, pt: &mut PageTable, start: u64, end: u64, prot: u32) {
        let prot = prot & !PROT_WRITE;
        pt.write_protect(start, end, |va, len| {
            self.space.tlb.push(MapOp::Protect { va, len, prot });
        });
    }
}

/// Gives neighbouring pages to the child as copies of its own, known to its stub. False without memory.
fn copy_group(to: &mut PageTable, child: &Space, prot: u32, group: &[(u64, Pte)]) -> bool {
    let f = frames();
    let (Ok(first), Some(&(va, _))) = (f.alloc_raw(group.len()), group.first()) else { return false };
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
