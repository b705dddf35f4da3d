//! File descriptors of a process.

use super::file::File;
use super::locks::Owner;
use crate::{Errno, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone)]
struct Fd {
    file: Arc<File>,
    cloexec: bool,
}

/// The table that CLONE_FILES shares. The lowest free number is given, as POSIX wants it.
pub struct FdTable {
    /// Names the table while it lives: the owner of POSIX locks.
    pub id: u64,
    inner: Mutex<Inner>,
}

impl Default for FdTable {
    fn default() -> Self {
        Self::with(Inner::default())
    }
}

#[derive(Default, Clone)]
struct Inner {
    fds: Vec<Option<Fd>>,
    /// No number below this is free.
    first_free: usize,
}

/// Descriptors that no limit lets a process exceed (fs.nr_open).
pub const NR_OPEN: usize = 1 << 20;

impl FdTable {
    fn with(inner: Inner) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), inner: Mutex::new(inner) }
    }

    /// What closing a descriptor of `file` does to the POSIX locks of the process (all of them on that file go).
    fn unlock_posix(&self, file: &File) {
        if let Some(locks) = file.inode.locks.get() {
            locks.release(Owner::Posix(self.id));
        }
    }

    /// The open file of a descriptor, or `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Arc<File>> {
        let i = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let t = self.inner.lock();
        t.fds.get(i).and_then(|e| e.as_ref()).map(|e| Arc::clone(&e.file)).ok_or(Errno::EBADF)
    }

    /// Gives `file` the lowest free number at or above `min` and below `limit` (RLIMIT_NOFILE), or `EMFILE`.
    pub fn install(&self, file: Arc<File>, cloexec: bool, min: usize, limit: usize) -> Result<i32> {
        if super::file::nr_files() > super::file::FILE_MAX {
            return Err(Errno::ENFILE);
        }
        let mut t = self.inner.lock();
        let from = t.first_free.max(min);
        let i = (from..t.fds.len()).find(|&i| t.fds[i].is_none()).unwrap_or(t.fds.len().max(from));
        if i >= limit.min(NR_OPEN) {
            return Err(Errno::EMFILE);
        }
        if i >= t.fds.len() {
            t.fds.resize(i + 1, None);
        }
        t.fds[i] = Some(Fd { file, cloexec });
        if min <= t.first_free {
            t.first_free = i + 1;
        }
        i32::try_from(i).map_err(|_| Errno::EMFILE)
    }

    /// dup2(2), dup3(2): puts `file` at exactly `fd` and gives back what stood there.
    pub fn replace(
        &self,
        fd: i32,
        file: Arc<File>,
        cloexec: bool,
        limit: usize,
    ) -> Result<Option<Arc<File>>> {
        let i = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if i >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let mut t = self.inner.lock();
        if i >= t.fds.len() {
            t.fds.resize(i + 1, None);
        }
        let old = t.fds[i].replace(Fd { file, cloexec }).map(|e| e.file);
        drop(t);
        if let Some(f) = &old {
            self.unlock_posix(f);
        }
        Ok(old)
    }

    /// Takes a descriptor out of the table.
    pub fn remove(&self, fd: i32) -> Result<Arc<File>> {
        let i = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut t = self.inner.lock();
        let e = t.fds.get_mut(i).and_then(Option::take).ok_or(Errno::EBADF)?;
        t.first_free = t.first_free.min(i);
        drop(t);
        self.unlock_posix(&e.file);
        Ok(e.file)
    }

    /// FD_CLOEXEC of a descriptor.
    pub fn cloexec(&self, fd: i32) -> Result<bool> {
        let i = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.inner.lock().fds.get(i).and_then(|e| e.as_ref()).map(|e| e.cloexec).ok_or(Errno::EBADF)
    }

    /// Sets FD_CLOEXEC.
    pub fn set_cloexec(&self, fd: i32, on: bool) -> Result<()> {
        let i = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut t = self.inner.lock();
        let e = t.fds.get_mut(i).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        e.cloexec = on;
        Ok(())
    }

    /// A copy for fork(2): same open files, own numbers.
    pub fn duplicate(&self) -> Self {
        let copy = self.inner.lock().clone();
        Self::with(copy)
    }

    /// Closes what execve(2) closes; the files are dropped outside of the lock.
    pub fn close_on_exec(&self) {
        let mut gone = Vec::new();
        let mut t = self.inner.lock();
        for i in 0..t.fds.len() {
            if t.fds[i].as_ref().is_some_and(|e| e.cloexec) {
                gone.push(t.fds[i].take());
                t.first_free = t.first_free.min(i);
            }
        }
        drop(t);
        for e in gone.into_iter().flatten() {
            self.unlock_posix(&e.file);
        }
    }

    /// Closes `first..=last` (close_range(2)), or marks them close-on-exec.
    pub fn close_range(&self, first: usize, last: usize, only_mark: bool) {
        let mut gone = Vec::new();
        let mut t = self.inner.lock();
        let end = t.fds.len().min(last.saturating_add(1));
        for i in first..end {
            if only_mark {
                if let Some(e) = t.fds[i].as_mut() {
                    e.cloexec = true;
                }
            } else if let Some(e) = t.fds[i].take() {
                gone.push(e);
                t.first_free = t.first_free.min(i);
            }
        }
        drop(t);
        for e in gone {
            self.unlock_posix(&e.file);
        }
    }

    /// All open numbers, ascending (/proc/self/fd).
    pub fn numbers(&self) -> Vec<i32> {
        let t = self.inner.lock();
        (0..t.fds.len()).filter(|&i| t.fds[i].is_some()).filter_map(|i| i32::try_from(i).ok()).collect()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.inner.get_mut().fds);
        for e in all.into_iter().flatten() {
            self.unlock_posix(&e.file);
        }
    }
}
