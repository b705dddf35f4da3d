//! Tests of the page table.

use super::*;
use crate::mm::frames;
use arch::mm::PhysMem;
use klib::addr::RUN_SIZE;
use parking_lot::{Mutex, MutexGuard};

const PAGE: u64 = PAGE_SIZE as u64;

static ALONE: Mutex<()> = Mutex::new(());

/// Frames of the test process, for one test at a time: they count owners, also of frames that they have freed.
fn memory() -> (&'static frames::Frames, MutexGuard<'static, ()>) {
    let alone = ALONE.lock();
    frames::init(PhysMem::new(256 * RUN_SIZE).expect("a memory file"));
    (frames::frames(), alone)
}

fn fill(pt: &mut PageTable, start: u64, n: usize) -> Vec<Pfn> {
    let pfns: Vec<Pfn> = (0..n).map(|_| frames::frames().alloc(1).expect("a frame")).collect();
    for (i, p) in pfns.iter().enumerate() {
        pt.set(start + i as u64 * PAGE, Pte::new(*p, true, true));
    }
    pfns
}

#[test]
fn a_fork_shares_leaves_until_one_side_writes() {
    let (f, _alone) = memory();
    let mut a = PageTable::default();
    let pfns = fill(&mut a, 0x10_0000, 200);
    let mut told = 0;
    a.write_protect(0, u64::MAX / 2, |_, len| told += len);
    assert_eq!(told, 0, "nothing is mapped");
    assert_eq!(a.writable_pages(0, u64::MAX / 2), 0);
    let mut b = a.fork(&[]);
    assert_eq!((a.resident(), b.resident()), (200, 200));
    // One reference for both, yet neither is the only owner.
    assert!(pfns.iter().all(|p| f.owners(*p) == 1));
    assert!(!a.owns(0x10_0000) && !b.owns(0x10_0000));
    // Being told to the stub is a matter of one side and copies nothing.
    let mut p = b.get(0x10_0000);
    p.set_mapped(true);
    b.set(0x10_0000, p);
    assert!(b.get(0x10_0000).mapped() && !a.get(0x10_0000).mapped());
    assert_eq!(f.owners(pfns[0]), 1);
    b.unshare(0x10_0000, 0x10_1000);
    assert_eq!(f.owners(pfns[0]), 2, "the first leaf is each side's own");
    assert_eq!(f.owners(pfns[199]), 1, "the other is shared still");
    assert_eq!(b.get(0x10_0000).pfn(), pfns[0]);
    drop(b);
    assert!(pfns.iter().all(|p| f.owners(*p) == 1));
    assert!((0..200).all(|i| a.owns(0x10_0000 + i * PAGE)));
    drop(a);
    assert!(pfns.iter().all(|p| f.owners(*p) == 0));
}

#[test]
fn what_stays_apart_is_not_shared() {
    let (f, _alone) = memory();
    let mut a = PageTable::default();
    let pfns = fill(&mut a, 0, 300);
    a.write_protect(10 * PAGE, 300 * PAGE, |_, _| ());
    let b = a.fork(&[(0, 10 * PAGE), (140 * PAGE, 600 * PAGE)]);
    assert_eq!(b.resident(), 130);
    assert_eq!(b.resident_in(0, 20 * PAGE), 10);
    assert!(!b.get(9 * PAGE).present() && b.get(10 * PAGE).present() && !b.get(140 * PAGE).present());
    assert!(a.get(9 * PAGE).writable() && f.owners(pfns[9]) == 1);
    drop((a, b));
    assert!(pfns.iter().all(|p| f.owners(*p) == 0));
}

#[test]
fn taking_gives_whole_leaves_and_single_pages() {
    let (f, _alone) = memory();
    let mut a = PageTable::default();
    let pfns = fill(&mut a, 0, 256);
    for at in [5, 200] {
        let mut p = a.get(at * PAGE);
        p.set_mapped(true);
        a.set(at * PAGE, p);
    }
    let (mut leaves, mut pages) = (Vec::new(), Vec::new());
    let span = a.take(2 * PAGE, 256 * PAGE, |l| leaves.push(l), |p| pages.push(p));
    assert_eq!(span, Some((5 * PAGE, 201 * PAGE)));
    assert_eq!((leaves.len(), pages.len(), a.resident()), (1, 126, 2));
    assert!(pfns.iter().all(|p| f.owners(*p) == 1), "who took them has the references");
    drop(leaves);
    pages.iter().for_each(|p| f.put(*p));
    assert_eq!(pfns.iter().filter(|p| f.owners(**p) == 1).count(), 2);
    drop(a);
    assert!(pfns.iter().all(|p| f.owners(*p) == 0));
}

/// A small generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Many address spaces that fork, map, unmap and end in any order, against a map of pages for each: contents always
/// agree, a frame that is written has one owner, and in the end all frames are free.
#[test]
fn any_order_of_changes_keeps_contents_and_counts() {
    const PAGES: u64 = 400;
    let (f, _alone) = memory();
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = std::collections::BTreeSet::new();
    let mut spaces: Vec<(PageTable, BTreeMap<u64, Pte>)> = vec![Default::default()];
    for step in 0..6000 {
        let n = r.below(spaces.len() as u64) as usize;
        let (a, b) = (r.below(PAGES), r.below(PAGES));
        let (start, end) = (a.min(b) * PAGE, a.max(b) * PAGE);
        match r.below(10) {
            0 if spaces.len() < 6 => {
                let (pt, model) = &mut spaces[n];
                pt.write_protect(0, PAGES * PAGE, |_, _| ());
                model.values_mut().for_each(|p| p.set_writable(false));
                let mut copy = (pt.fork(&[(start, end)]), model.clone());
                copy.1.retain(|a, _| *a < start || *a >= end);
                copy.1.values_mut().for_each(|p| p.set_mapped(false));
                spaces.push(copy);
            }
            1 if spaces.len() > 1 => drop(spaces.swap_remove(n)),
            2 if end - start < 100 * PAGE || step % 50 == 0 => {
                let (pt, model) = &mut spaces[n];
                let (mut leaves, mut pages) = (Vec::new(), Vec::new());
                pt.take(start, end, |l| leaves.push(l), |p| pages.push(p));
                pages.into_iter().for_each(|p| f.put(p));
                model.retain(|a, _| *a < start || *a >= end);
            }
            3 => {
                let (pt, model) = &mut spaces[n];
                let end = end.min(start + 8 * PAGE);
                pt.for_each_mut(start, end, |_, p| p.set_mapped(true));
                model.range_mut(start..end.max(start)).for_each(|(_, p)| p.set_mapped(true));
            }
            _ => {
                let (pt, model) = &mut spaces[n];
                let old = pt.get(start);
                if old.present() && !old.writable() {
                    pt.unshare(start, start + PAGE);
                }
                if old.present() && (old.writable() || f.owners(old.pfn()) == 1) {
                    let mut p = old;
                    p.set_writable(true);
                    pt.set(start, p);
                    model.insert(start, p);
                } else if let Ok(pfn) = f.alloc(1) {
                    seen.insert(pfn);
                    let new = Pte::new(pfn, true, true);
                    let was = pt.set(start, new);
                    if was.present() {
                        f.put(was.pfn());
                    }
                    model.insert(start, new);
                }
                assert!(!pt.get(start).writable() || pt.owns(start), "step {step}");
            }
        }
        for (pt, model) in &spaces {
            assert_eq!(pt.resident(), model.len() as u64, "step {step}");
            if step % 16 == 0 {
                let mut all = Vec::new();
                pt.for_each(0, PAGES * PAGE, |a, p| all.push((a, p)));
                assert!(all.iter().copied().eq(model.iter().map(|(a, p)| (*a, *p))), "step {step}");
                assert!(all.iter().all(|(a, p)| pt.get(*a) == *p), "step {step}");
                assert!(all.iter().all(|(_, p)| f.owners(p.pfn()) >= 1), "step {step}");
            }
        }
        // What one may write no other sees.
        for (i, (_, m)) in spaces.iter().enumerate() {
            let Some((_, p)) = m.iter().nth(step % 7).filter(|(_, p)| p.writable()) else { continue };
            let others = spaces.iter().enumerate().filter(|(k, _)| *k != i);
            assert!(!others.flat_map(|(_, (_, m))| m.values()).any(|q| q.pfn() == p.pfn()), "step {step}");
        }
    }
    drop(spaces);
    assert!(seen.iter().all(|p| f.owners(*p) == 0));
}
