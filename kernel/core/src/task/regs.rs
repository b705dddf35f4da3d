//! The registers of a guest thread in user mode, as signal frames, clone(2) and exec see them.

pub use arch::user::UserRegs;
