//! What /proc/PID/maps and its relatives show of an address space.

use super::mm::Mm;
use super::vma::Backing;
use crate::fs::file::File;
use std::sync::Arc;

/// One area.
pub struct MapInfo {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// PROT_* bits.
    pub prot: u32,
    /// MAP_SHARED.
    pub shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// The file, if there is one.
    pub file: Option<Arc<File>>,
    /// `[heap]`, `[stack]` or nothing.
    pub name: &'static str,
    /// Pages in memory.
    pub resident: u64,
}

impl Mm {
    /// All areas in order.
    pub fn maps(&self) -> Vec<MapInfo> {
        let i = self.inner.read();
        // The host's vDSO is no area of ours, but programs look for it here.
        let vdso = super::space::vdso().map(|(start, end)| MapInfo {
            start,
            end,
            prot: 5,
            shared: false,
            offset: 0,
            file: None,
            name: "[vdso]",
            resident: (end - start) / klib::addr::PAGE_SIZE as u64,
        });
        let areas = i.vmas.iter().map(|v| {
            let resident = i.pt.resident_in(v.start, v.end);
            let (offset, file) = match &v.backing {
                Backing::Anon => (0, None),
                Backing::File { offset, file, .. } => (*offset, file.clone()),
            };
            MapInfo {
                start: v.start,
                end: v.end,
                prot: v.prot,
                shared: v.shared,
                offset,
                file,
                name: v.name,
                resident,
            }
        });
        areas.chain(vdso).collect()
    }
}
