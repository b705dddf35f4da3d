//! Typed arguments of system calls.

use crate::task::Task;
use crate::{Errno, Result};
use std::marker::PhantomData;
use std::sync::Arc;
use uapi::pod::Pod;

/// Decodes one register.
pub trait FromArg {
    /// Never fails: what a register cannot hold is cut as the ABI says (int: low 32 bits).
    fn from_arg(raw: u64) -> Self;
}

macro_rules! int_args {
    ($($t:ty),*) => { $(impl FromArg for $t {
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        fn from_arg(raw: u64) -> Self { raw as $t }
    })* };
}
int_args!(i32, u32, i64, u64, usize, u16);

/// A file descriptor argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd(pub i32);

impl FromArg for Fd {
    fn from_arg(raw: u64) -> Self {
        Self(i32::from_arg(raw))
    }
}

/// A guest address of a `T`; may be null.
pub struct UserPtr<T> {
    addr: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}

impl<T> std::fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.addr)
    }
}

impl<T> FromArg for UserPtr<T> {
    fn from_arg(raw: u64) -> Self {
        Self::new(raw)
    }
}

impl<T> UserPtr<T> {
    /// The pointer with this guest address.
    pub const fn new(addr: u64) -> Self {
        Self { addr, of: PhantomData }
    }

    /// The guest address.
    pub const fn addr(self) -> u64 {
        self.addr
    }

    /// The null pointer.
    pub const fn is_null(self) -> bool {
        self.addr == 0
    }

    /// The pointer `n` elements on.
    pub const fn add(self, n: usize) -> Self {
        Self::new(self.addr.wrapping_add((n * size_of::<T>()) as u64))
    }
}

impl<T: Pod + Send> UserPtr<T> {
    /// Reads the value; `EFAULT` where the guest may not.
    pub async fn read(self, cur: &Arc<Task>) -> Result<T> {
        cur.mm().read_obj(self.addr).await
    }

    /// Writes the value.
    pub async fn write(self, cur: &Arc<Task>, value: &T) -> Result<()> {
        cur.mm().write_obj(self.addr, value).await
    }

    /// Reads the value unless the pointer is null.
    pub async fn read_opt(self, cur: &Arc<Task>) -> Result<Option<T>> {
        if self.is_null() { Ok(None) } else { self.read(cur).await.map(Some) }
    }

    /// Writes the value unless the pointer is null.
    pub async fn write_opt(self, cur: &Arc<Task>, value: &T) -> Result<()> {
        if self.is_null() { Ok(()) } else { self.write(cur, value).await }
    }

    /// Reads `n` values; `E2BIG`-like limits are the caller's, this one refuses more than 16 MiB with `EINVAL`.
    pub async fn read_vec(self, cur: &Arc<Task>, n: usize) -> Result<Vec<T>> {
        let bytes = n.checked_mul(size_of::<T>()).filter(|&b| b <= 16 << 20).ok_or(Errno::EINVAL)?;
        let mut buf = vec![0u8; bytes];
        cur.mm().copy_from_user(self.addr, &mut buf).await?;
        Ok(buf.chunks_exact(size_of::<T>().max(1)).filter_map(uapi::pod::read_from).collect())
    }
}

impl UserPtr<u8> {
    /// Reads a NUL-terminated string of less than `max` bytes (else `ENAMETOOLONG`).
    pub async fn read_cstr(self, cur: &Arc<Task>, max: usize) -> Result<Vec<u8>> {
        cur.mm().read_cstr(self.addr, max).await
    }

    /// Reads a path (at most PATH_MAX bytes with its NUL).
    pub async fn read_path(self, cur: &Arc<Task>) -> Result<Vec<u8>> {
        self.read_cstr(cur, 4096).await
    }
}
