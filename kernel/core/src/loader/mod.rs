//! Loading programs: ELF, scripts, the first stack.
