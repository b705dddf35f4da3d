//! Guest memory: frames, address spaces, the page cache, and the host processes that run in an address space.
//! docs/memory.md is the design.
//!
//! Key types: [`Mm`] (an address space), [`vma::Vma`], [`pte::PageTable`], [`frames::Frames`],
//! [`page_cache::PageCache`] (the pages of a file), [`tlb::Tlb`] (changes on their way to the host).
//! Contract for the rest of the kernel: `Mm::{copy_from_user, copy_to_user, read_obj, write_obj, read_cstr}` may
//! sleep (a page may have to come from disk); `try_copy_*` never do and stop at the first page that is missing.
//!
//! Lock order: `Mm::inner` > page cache > `Tlb` queue > frame allocator. None is held over an await.

mod ahead;
pub mod fault;
mod fork;
pub mod frames;
pub mod maps;
#[allow(clippy::module_inception, reason = "struct Mm has the name that Linux gives it, and its own file")]
pub mod mm;
pub mod mmap;
pub mod page_cache;
pub mod pte;
mod reclaim;
pub mod space;
pub mod syscalls;
pub mod tlb;
pub mod user_copy;
pub mod vma;
mod walk;

pub use mm::Mm;
pub use user_copy::FutexKey;
