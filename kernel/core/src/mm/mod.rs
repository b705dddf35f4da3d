//! Guest memory: address spaces, page frames, the page cache.
//!
//! Key types: [`Mm`] (an address space), [`page_cache::PageCache`] (the pages of a file).
//! Contract for the rest of the kernel: `Mm::{copy_from_user, copy_to_user, read_obj, write_obj, read_cstr}` may
//! sleep (a page may have to come from disk); `try_copy_*` never do and stop at the first page that is missing.

pub mod mm;
pub mod page_cache;

pub use mm::Mm;
