//! Loading programs: ELF (static, PIE, dynamic), scripts, the first stack.
//!
//! Key types: [`Program`]. Above: `task::exec`, `start`. Below: `mm`, `fs`. Every byte of a program file is hostile:
//! sizes and offsets are checked before they are used.

mod elf;
pub mod script;
mod stack;

use crate::fs::file::File;
use crate::mm::Mm;
use crate::task::{Cred, Task};
use crate::{Errno, Result};
use arch::user::UserRegs;
use std::sync::Arc;

/// A program to be run.
pub struct Program {
    /// The ELF file.
    pub file: Arc<File>,
    /// The name by which it was found (AT_EXECFN).
    pub name: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
}

/// Fills the empty address space `mm` and gives the first registers. `ENOEXEC`: not a program for this machine.
pub async fn load(cur: &Arc<Task>, mm: &Arc<Mm>, program: &Program, cred: &Cred) -> Result<UserRegs> {
    let main = elf::map(cur, mm, &program.file, elf::Role::Program).await?;
    let entry = match &main.interp {
        Some(name) => {
            let file = crate::fs::open::open_exec(cur, uapi::raw::general::AT_FDCWD, name, 0).await?;
            let interp = elf::map(cur, mm, &file, elf::Role::Interpreter).await?;
            if interp.interp.is_some() {
                return Err(Errno::ELIBBAD);
            }
            (interp.entry, interp.base)
        }
        None => (main.entry, 0),
    };
    mm.set_brk(main.brk);
    let rsp = stack::build(cur, mm, program, cred, &main, entry.1).await?;
    {
        let mut l = mm.layout.lock();
        l.code = main.code;
        l.data = main.data;
        l.exe = Some(Arc::clone(&program.file));
    }
    Ok(UserRegs { rip: entry.0, rsp, eflags: 0x202, ..UserRegs::default() })
}

/// Reads exactly `buf.len()` bytes at `pos`; `ENOEXEC` if the file is shorter.
async fn read_exact(cur: &Task, file: &File, pos: u64, buf: &mut [u8]) -> Result<()> {
    if read_some(cur, file, pos, buf).await? == buf.len() { Ok(()) } else { Err(Errno::ENOEXEC) }
}

/// Reads up to `buf.len()` bytes at `pos`.
async fn read_some(cur: &Task, file: &File, pos: u64, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let mut iov = crate::fs::iov::IovIter::kernel_dst(&mut buf[done..]);
        match file.read(cur, Some(pos + done as u64), &mut iov).await? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}
