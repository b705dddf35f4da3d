//! The system calls on files, one file a family.
