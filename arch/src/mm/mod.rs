//! Guest memory: the memory file behind `mem=`. The mappings of guest address spaces are made by
//! [`crate::user::Mapper`]; page tables are the kernel's.

mod physmem;

pub use crate::user::{MAPPER_BATCH, MapOp};
pub use physmem::PhysMem;
