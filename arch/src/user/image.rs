//! The stub as a file: the code of `stub.S` and its constants, made into a minimal ELF image in a sealed memory file.

use super::filter::{self, Insn, Sites};
use super::frame::{FRAME_FS_BASE, FRAME_GS_BASE};
use super::layout::*;
use crate::host::{fd::HostFd, last_errno};
use std::arch::global_asm;
use std::os::fd::AsRawFd;
use uapi::Result;

global_asm!(
    include_str!("stub.S"),
    FD_DOORBELL = const FD_DOORBELL,
    FD_CTL = const FD_CTL,
    ZYGOTE_PAGE = const ZYGOTE_PAGE,
    ZYGOTE_RESULT = const ZYGOTE_RESULT,
    CTL_ZYGOTE = const CTL_ZYGOTE,
    ROOT_PAGE = const ROOT_PAGE,
    MAPPER_PAGE = const MAPPER_PAGE,
    OPS_OFFSET = const OPS_OFFSET,
    CHILD_OPS_OFFSET = const CHILD_OPS_OFFSET,
    FAILED_FD_OFFSET = const FAILED_FD_OFFSET,
    FD_FAILED = const FD_FAILED,
    FRAME_FS_BASE = const FRAME_FS_BASE,
    FRAME_GS_BASE = const FRAME_GS_BASE,
    REPLY_BASES = const REPLY_BASES,
    ZYGOTE_PID_OFFSET = const ZYGOTE_PID_OFFSET,
    NR_NOTIFY = const NR_NOTIFY,
    NOTIFY_MAPPER = const NOTIFY_MAPPER,
);

unsafe extern "C" {
    static kibble_stub_start: u8;
    static kibble_stub_entry: u8;
    static kibble_stub_root: u8;
    static kibble_stub_mapper: u8;
    static kibble_stub_thread: u8;
    static kibble_stub_handler: u8;
    static kibble_stub_notify_ip: u8;
    static kibble_stub_sigreturn_ip: u8;
    static kibble_stub_exit_ip: u8;
    static kibble_stub_one: u8;
    static kibble_stub_end: u8;
}

/// Bytes of the image: ELF header page, code page, constants page.
const IMAGE_LEN: usize = 3 * 4096;
const CODE_OFF: usize = 4096;
const DATA_OFF: usize = 2 * 4096;

/// Address of a symbol of `stub.S` in a stub.
macro_rules! at {
    ($sym:ident) => {
        STUB_BASE + CODE_OFF as u64 + (&raw const $sym as u64 - &raw const kibble_stub_start as u64)
    };
}

/// Entry points and constants of the image, as addresses in a stub.
#[derive(Clone, Copy)]
pub(super) struct Image {
    pub root: u64,
    pub mapper: u64,
    pub thread: u64,
    pub handler: u64,
    pub notify_ip: u64,
    /// `struct sock_fprog` of the guest thread's filter.
    pub thread_prog: u64,
    /// `struct sock_fprog` of the mapper's filter.
    pub mapper_prog: u64,
}

/// Builds the image and its file.
pub(super) fn build() -> Result<(Image, HostFd)> {
    let sites = Sites {
        sigreturn_ip: at!(kibble_stub_sigreturn_ip),
        exit_ip: at!(kibble_stub_exit_ip),
        one: at!(kibble_stub_one),
    };
    let mut bytes = vec![0u8; IMAGE_LEN];
    elf_header(&mut bytes, at!(kibble_stub_entry));
    let len = &raw const kibble_stub_end as usize - &raw const kibble_stub_start as usize;
    assert!(len <= 4096, "the stub's code fits in its page");
    // SAFETY: the symbols bound one read-only section that stub.S fills; nothing writes it.
    let code = unsafe { std::slice::from_raw_parts(&raw const kibble_stub_start, len) };
    bytes[CODE_OFF..CODE_OFF + len].copy_from_slice(code);
    let mut data = DATA_OFF;
    let thread_prog = put_program(&mut bytes, &mut data, &filter::guest_thread(&sites));
    let mapper_prog = put_program(&mut bytes, &mut data, &filter::mapper(&sites));
    let image = Image {
        root: at!(kibble_stub_root),
        mapper: at!(kibble_stub_mapper),
        thread: at!(kibble_stub_thread),
        handler: at!(kibble_stub_handler),
        notify_ip: at!(kibble_stub_notify_ip),
        thread_prog,
        mapper_prog,
    };
    Ok((image, sealed_file(&bytes)?))
}

/// Appends a program and its `struct sock_fprog`; gives the address of the latter.
fn put_program(bytes: &mut [u8], at: &mut usize, prog: &[Insn]) -> u64 {
    let insns = *at;
    for i in prog {
        // SAFETY: Insn is repr(C) without padding: 2 + 1 + 1 + 4 bytes.
        let raw =
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(i).cast::<u8>(), size_of::<Insn>()) };
        bytes[*at..*at + raw.len()].copy_from_slice(raw);
        *at += raw.len();
    }
    let fprog = *at;
    bytes[fprog..fprog + 8].copy_from_slice(&(prog.len() as u64).to_le_bytes());
    bytes[fprog + 8..fprog + 16].copy_from_slice(&(STUB_BASE + insns as u64).to_le_bytes());
    *at += 16;
    STUB_BASE + fprog as u64
}

/// A static ELF64 executable with one read-execute segment that covers the whole image.
fn elf_header(out: &mut [u8], entry: u64) {
    let mut h = Vec::with_capacity(128);
    h.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    h.extend(2u16.to_le_bytes()); // ET_EXEC
    h.extend(62u16.to_le_bytes()); // EM_X86_64
    h.extend(1u32.to_le_bytes());
    h.extend(entry.to_le_bytes());
    h.extend(64u64.to_le_bytes()); // program headers
    h.extend(0u64.to_le_bytes());
    h.extend(0u32.to_le_bytes());
    for v in [64u16, 56, 1, 64, 0, 0] {
        h.extend(v.to_le_bytes());
    }
    h.extend(1u32.to_le_bytes()); // PT_LOAD
    h.extend(5u32.to_le_bytes()); // R, X
    for v in [0, STUB_BASE, STUB_BASE, IMAGE_LEN as u64, IMAGE_LEN as u64, 4096] {
        h.extend(v.to_le_bytes());
    }
    out[..h.len()].copy_from_slice(&h);
}

fn sealed_file(bytes: &[u8]) -> Result<HostFd> {
    let fd = super::memfd_create(c"kibble-stub", libc::MFD_ALLOW_SEALING, true)?;
    let mut done = 0;
    while done < bytes.len() {
        done += fd.write(&bytes[done..])?;
    }
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: fcntl with integer arguments on a descriptor that we own.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(last_errno());
    }
    Ok(fd)
}
