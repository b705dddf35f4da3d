//! ELF programs: their segments as areas of an address space.

use super::read_exact;
use crate::fs::file::File;
use crate::mm::Mm;
use crate::mm::mmap::{MapRequest, Place};
use crate::mm::vma::{Backing, PROT_EXEC, PROT_READ, PROT_WRITE};
use crate::task::Task;
use crate::{Errno, Result};
use klib::addr::{PAGE_SIZE, RUN_SIZE, page_down, page_up};
use object::Endianness;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use std::sync::Arc;

/// What is being mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The program itself.
    Program,
    /// Its dynamic linker.
    Interpreter,
}

/// A mapped file.
pub(super) struct Image {
    /// First instruction.
    pub entry: u64,
    /// Difference between addresses in the file and in memory.
    pub base: u64,
    /// Program headers in memory (AT_PHDR) and their number.
    pub phdr: u64,
    pub phnum: u16,
    /// The dynamic linker it asks for.
    pub interp: Option<Vec<u8>>,
    /// Where the heap may start.
    pub brk: u64,
    /// Code and data, for /proc.
    pub code: (u64, u64),
    pub data: (u64, u64),
}

type Head = FileHeader64<Endianness>;
type Segment = ProgramHeader64<Endianness>;

/// Position-independent programs start here, on a run.
const PIE_BASE: u64 = 0x5555_5555_0000;
/// Most program headers: they fit in 64 KiB, as Linux demands.
const MAX_HEADERS: usize = 65536 / 56;
const PAGE: u64 = PAGE_SIZE as u64;

/// Maps the segments of `file`.
pub(super) async fn map(cur: &Arc<Task>, mm: &Arc<Mm>, file: &Arc<File>, role: Role) -> Result<Image> {
    let mut head = [0u8; 64];
    read_exact(cur, file, 0, &mut head).await?;
    let h = Head::parse(&head[..]).map_err(|_| Errno::ENOEXEC)?;
    let e = Endianness::Little;
    let kind = h.e_type(e).0;
    if h.endian().is_err()
        || h.e_machine(e) != elf::EM_X86_64
        || !(kind == elf::ET_EXEC.0 || kind == elf::ET_DYN.0)
        || usize::from(h.e_phentsize(e)) != size_of::<Segment>()
    {
        return Err(Errno::ENOEXEC);
    }
    let phnum = h.e_phnum(e);
    if phnum == 0 || usize::from(phnum) > MAX_HEADERS {
        return Err(Errno::ENOEXEC);
    }
    let mut raw = vec![0u8; usize::from(phnum) * size_of::<Segment>()];
    read_exact(cur, file, h.e_phoff(e), &mut raw).await?;
    let (segments, _) =
        object::pod::slice_from_bytes::<Segment>(&raw, usize::from(phnum)).map_err(|()| Errno::ENOEXEC)?;
    let interp = match segments.iter().find(|s| s.p_type(e) == elf::PT_INTERP) {
        Some(s) if role == Role::Program => Some(read_interp(cur, file, s).await?),
        other => other.map(|_| Vec::new()),
    };
    let loads: Vec<&Segment> =
        segments.iter().filter(|s| s.p_type(e) == elf::PT_LOAD && s.p_memsz(e) > 0).collect();
    let (low, high) = span(&loads)?;
    let base = reserve(mm, kind, role, low, high).await?;
    let mut image = Image {
        entry: base.wrapping_add(h.e_entry(e)),
        base,
        phdr: 0,
        phnum,
        interp,
        brk: 0,
        code: (u64::MAX, 0),
        data: (0, 0),
    };
    for s in &loads {
        map_segment(mm, file, s, base).await?;
        let (start, end) = (base + s.p_vaddr(e), base + s.p_vaddr(e) + s.p_memsz(e));
        if s.p_flags(e).0 & elf::PF_X.0 != 0 {
            image.code = (image.code.0.min(start), image.code.1.max(end));
        } else if s.p_flags(e).0 & elf::PF_W.0 != 0 {
            image.data = (start, end);
        }
        image.brk = image.brk.max(end);
        let in_file = h.e_phoff(e).checked_sub(s.p_offset(e)).filter(|&d| d < s.p_filesz(e));
        if let Some(delta) = in_file {
            image.phdr = start + delta;
        }
    }
    image.brk = page_up(image.brk).ok_or(Errno::ENOEXEC)?;
    Ok(image)
}

async fn read_interp(cur: &Arc<Task>, file: &File, s: &Segment) -> Result<Vec<u8>> {
    let e = Endianness::Little;
    let len = usize::try_from(s.p_filesz(e)).map_err(|_| Errno::ENOEXEC)?;
    if !(2..=4096).contains(&len) {
        return Err(Errno::ENOEXEC);
    }
    let mut name = vec![0u8; len];
    read_exact(cur, file, s.p_offset(e), &mut name).await?;
    if name.pop() != Some(0) || name.contains(&0) {
        return Err(Errno::ENOEXEC);
    }
    Ok(name)
}

/// Lowest and highest address of all segments, checked to be ascending, without overflow and of sane size.
fn span(loads: &[&Segment]) -> Result<(u64, u64)> {
    let e = Endianness::Little;
    let mut high = 0;
    for s in loads {
        let end = s.p_vaddr(e).checked_add(s.p_memsz(e)).ok_or(Errno::ENOEXEC)?;
        let file_end = s.p_offset(e).checked_add(s.p_filesz(e)).ok_or(Errno::ENOEXEC)?;
        let congruent = s.p_vaddr(e) % PAGE == s.p_offset(e) % PAGE;
        if s.p_filesz(e) > s.p_memsz(e)
            || !congruent
            || file_end > i64::MAX as u64
            || s.p_vaddr(e) < page_down(high)
        {
            return Err(Errno::ENOEXEC);
        }
        high = end;
    }
    let low = page_down(loads.first().ok_or(Errno::ENOEXEC)?.p_vaddr(e));
    let high = page_up(high).filter(|&h| h < arch::user::GUEST_END).ok_or(Errno::ENOEXEC)?;
    Ok((low, high))
}

/// Finds a place for all of a position-independent file, so that its segments keep their distances.
async fn reserve(mm: &Arc<Mm>, kind: u16, role: Role, low: u64, high: u64) -> Result<u64> {
    if kind == elf::ET_EXEC.0 {
        return Ok(0);
    }
    let place = match role {
        Role::Program => Place::Hint(PIE_BASE),
        Role::Interpreter => Place::Hint(0),
    };
    let len = high - low;
    let req = MapRequest {
        len: len.next_multiple_of(RUN_SIZE as u64),
        prot: 0,
        may_prot: 7,
        shared: false,
        backing: Backing::Anon,
        name: "",
    };
    let whole = req.len;
    let at = mm.map(place, req).await?;
    mm.unmap(at, whole).await?;
    Ok(at.wrapping_sub(low))
}

fn prot_of(flags: u32) -> u32 {
    let mut prot = 0;
    for (bit, p) in [(elf::PF_R, PROT_READ), (elf::PF_W, PROT_WRITE), (elf::PF_X, PROT_EXEC)] {
        if flags & bit.0 != 0 {
            prot |= p;
        }
    }
    prot
}

async fn map_segment(mm: &Arc<Mm>, file: &Arc<File>, s: &Segment, base: u64) -> Result<()> {
    let e = Endianness::Little;
    let prot = prot_of(s.p_flags(e).0);
    let vaddr = base.wrapping_add(s.p_vaddr(e));
    let start = page_down(vaddr);
    let file_end = vaddr + s.p_filesz(e);
    let mapped_end = if s.p_filesz(e) > 0 { page_up(file_end).ok_or(Errno::ENOEXEC)? } else { start };
    if mapped_end > start {
        let cache = file.ops.mapping().ok_or(Errno::ENOEXEC)?;
        cache.mapped_by(mm);
        let backing = Backing::File { cache, offset: page_down(s.p_offset(e)), file: Some(Arc::clone(file)) };
        let req = MapRequest { len: mapped_end - start, prot, may_prot: 7, shared: false, backing, name: "" };
        mm.map(Place::Fixed(start), req).await?;
    }
    let end = page_up(vaddr + s.p_memsz(e)).ok_or(Errno::ENOEXEC)?;
    if end > mapped_end {
        let req = MapRequest {
            len: end - mapped_end,
            prot,
            may_prot: 7,
            shared: false,
            backing: Backing::Anon,
            name: "",
        };
        mm.map(Place::Fixed(mapped_end), req).await?;
    }
    // What follows the file's bytes in their last page belongs to the zeroed part.
    let tail_end = mapped_end.min(vaddr + s.p_memsz(e));
    if prot & PROT_WRITE != 0 && s.p_memsz(e) > s.p_filesz(e) && file_end < tail_end {
        let zeros = [0u8; PAGE_SIZE];
        mm.copy_to_user(file_end, &zeros[..(mapped_end - file_end) as usize])
            .await
            .map_err(|_| Errno::ENOEXEC)?;
    }
    Ok(())
}
