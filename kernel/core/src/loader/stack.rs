//! The first stack of a program: strings, environment, auxiliary vector (System V ABI, getauxval(3)).

use super::Program;
use super::elf::Image;
use crate::mm::Mm;
use crate::mm::mmap::{MapRequest, Place};
use crate::mm::space;
use crate::mm::vma::Backing;
use crate::task::{Cred, Task};
use crate::{Errno, Result};
use arch::user::GUEST_END;
use klib::addr::{PAGE_SIZE, page_down};
use std::sync::Arc;
use uapi::raw::general as c;

/// The stack ends this far below the end of guest memory.
const TOP_GAP: u64 = 0x1_0000;
/// Stacks larger than this would meet the mmap area.
const MAX_STACK: u64 = 512 << 20;

// Auxiliary vector (uapi/linux/auxvec.h).
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
const AT_MINSIGSTKSZ: u64 = 51;

/// Strings and words of the stack, laid out downwards from the top.
struct Builder {
    top: u64,
    bytes: Vec<u8>,
}

impl Builder {
    /// Puts bytes below what is there and gives their address. The vector holds them in reverse order.
    fn push(&mut self, data: &[u8]) -> u64 {
        self.bytes.extend(data.iter().rev());
        self.top - self.bytes.len() as u64
    }

    fn push_str(&mut self, s: &[u8]) -> u64 {
        self.push(&[0]);
        self.push(s)
    }

    fn align(&mut self, to: u64) {
        while !(self.top - self.bytes.len() as u64).is_multiple_of(to) {
            self.bytes.push(0);
        }
    }
}

/// Maps the stack and fills it; gives the first stack pointer.
pub(super) async fn build(
    cur: &Arc<Task>,
    mm: &Arc<Mm>,
    program: &Program,
    cred: &Cred,
    image: &Image,
    interp_base: u64,
) -> Result<u64> {
    let top = GUEST_END - TOP_GAP;
    let limit = cur.group.rlimit(c::RLIMIT_STACK).0.clamp(PAGE_SIZE as u64 * 64, MAX_STACK);
    let start = page_down(top - limit);
    let req = MapRequest {
        len: top - start,
        prot: 3,
        may_prot: 7,
        shared: false,
        backing: Backing::Anon,
        name: "[stack]",
    };
    mm.map(Place::FixedFree(start), req).await?;
    let mut b = Builder { top, bytes: Vec::with_capacity(8192) };
    b.push(&[0u8; 8]);
    let execfn = b.push_str(&program.name);
    let env_end = execfn;
    let mut envp: Vec<u64> = program.envp.iter().rev().map(|s| b.push_str(s)).collect();
    let env_start = envp.last().copied().unwrap_or(env_end);
    let mut argv: Vec<u64> = program.argv.iter().rev().map(|s| b.push_str(s)).collect();
    let arg_start = argv.last().copied().unwrap_or(env_start);
    envp.reverse();
    argv.reverse();
    let platform = b.push_str(b"x86_64");
    b.align(16);
    let mut seed = [0u8; 16];
    arch::host::random::fill(&mut seed).map_err(|_| Errno::EIO)?;
    let random = b.push(&seed);
    let secure = u64::from(cred.uid != cred.euid || cred.gid != cred.egid);
    let host = arch::host::auxv;
    let mut auxv: Vec<(u64, u64)> = Vec::with_capacity(24);
    auxv.extend(space::vdso().map(|v| (AT_SYSINFO_EHDR, v.0)));
    auxv.extend([
        (AT_HWCAP, host(AT_HWCAP)),
        (AT_PAGESZ, PAGE_SIZE as u64),
        (AT_CLKTCK, 100),
        (AT_PHDR, image.phdr),
        (AT_PHENT, 56),
        (AT_PHNUM, u64::from(image.phnum)),
        (AT_BASE, interp_base),
        (AT_FLAGS, 0),
        (AT_ENTRY, image.entry),
        (AT_UID, u64::from(cred.uid)),
        (AT_EUID, u64::from(cred.euid)),
        (AT_GID, u64::from(cred.gid)),
        (AT_EGID, u64::from(cred.egid)),
        (AT_SECURE, secure),
        (AT_RANDOM, random),
        (AT_HWCAP2, host(AT_HWCAP2)),
        (AT_EXECFN, execfn),
        (AT_PLATFORM, platform),
        (AT_MINSIGSTKSZ, host(AT_MINSIGSTKSZ)),
        (0, 0),
    ]);
    let mut words: Vec<u64> = Vec::with_capacity(argv.len() + envp.len() + auxv.len() * 2 + 3);
    words.push(argv.len() as u64);
    words.extend(&argv);
    words.push(0);
    words.extend(&envp);
    words.push(0);
    words.extend(auxv.iter().flat_map(|&(k, v)| [k, v]));
    // The stack pointer at entry is a multiple of 16.
    b.align(16);
    if words.len() % 2 == 1 {
        b.push(&[0u8; 8]);
    }
    for w in words.iter().rev() {
        b.push(&w.to_ne_bytes());
    }
    let rsp = b.top - b.bytes.len() as u64;
    debug_assert!(rsp.is_multiple_of(16));
    b.bytes.reverse();
    mm.copy_to_user(rsp, &b.bytes).await.map_err(|_| Errno::E2BIG)?;
    let mut l = mm.layout.lock();
    l.stack = rsp;
    l.args = (arg_start, env_start);
    l.env = (env_start, env_end);
    l.auxv = auxv.iter().flat_map(|&(k, v)| [k, v]).flat_map(u64::to_ne_bytes).collect();
    Ok(rsp)
}
