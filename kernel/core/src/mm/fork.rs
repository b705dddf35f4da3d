//! fork(2): a second address space that shares all frames until someone writes.

use super::frames::frames;
use super::mm::{Mm, MmInner};
use super::pte::PageTable;
use super::space::Space;
use super::vma::PROT_WRITE;
use crate::Result;
use arch::mm::MapOp;
use klib::addr::PAGE_SIZE;
use std::sync::Arc;

impl Mm {
    /// A copy in the fresh host process `space`. Private pages become read-only on both sides; when this returns,
    /// no thread of the parent can write them any more.
    pub async fn fork(&self, space: Arc<Space>) -> Result<Arc<Self>> {
        let child = Self::new(space);
        let ticket = {
            let mut parent = self.inner.write();
            let mut copy = MmInner { brk_start: parent.brk_start, brk: parent.brk, ..MmInner::default() };
            let MmInner { vmas, pt, .. } = &mut *parent;
            for vma in vmas.iter().filter(|v| !v.dontfork) {
                copy.vmas.insert(vma.clone());
                share(pt, &mut copy.pt, vma.start, vma.end, vma.private(), |va| {
                    self.space.tlb.push(MapOp::Protect {
                        va,
                        len: PAGE_SIZE as u64,
                        prot: vma.prot & !PROT_WRITE,
                    });
                });
            }
            *child.inner.try_write().expect("nobody else knows the child yet") = copy;
            self.space.tlb.now()
        };
        *child.layout.lock() = self.layout.lock().clone();
        self.space.tlb.flush(ticket).await?;
        Ok(child)
    }
}

/// Enters the pages of `start..end` into `to`; `protect` is called for each that the parent's stub may write.
fn share(
    from: &mut PageTable,
    to: &mut PageTable,
    start: u64,
    end: u64,
    private: bool,
    mut protect: impl FnMut(u64),
) {
    let f = frames();
    from.for_each_mut(start, end, |addr, p| {
        f.get(p.pfn());
        if private && p.writable() {
            if p.mapped() {
                protect(addr);
            }
            p.set_writable(false);
        }
        let mut c = *p;
        c.set_mapped(false);
        to.set(addr, c);
    });
}
