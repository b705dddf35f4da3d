//! An open socket as a file: read, write, poll, ioctl, close.

use super::{RecvMsg, SendMsg, Socket, Ucred, ioctl};
use crate::fs::anon;
use crate::fs::file::{File, FileOps, Linger};
use crate::fs::iov::IovIter;
use crate::fs::poll::PollTable;
use crate::task::{Cred, Task};
use crate::{BoxFuture, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uapi::raw::general::{O_NONBLOCK, O_RDWR};
use uapi::raw::net as c;

/// The [`FileOps`] of sockets.
pub struct SocketFile {
    /// The socket.
    pub sock: Arc<dyn Socket>,
}

/// Sockets that are open files.
static USED: AtomicUsize = AtomicUsize::new(0);

/// How many sockets are open files.
pub fn count() -> usize {
    USED.load(Ordering::Relaxed)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        USED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SocketFile {
    /// An open file for `sock`; of `flags` only O_NONBLOCK counts.
    pub fn open(cred: &Cred, sock: Arc<dyn Socket>, flags: u32) -> Arc<File> {
        let ops = Arc::new(Self { sock: Arc::clone(&sock) });
        USED.fetch_add(1, Ordering::Relaxed);
        let file = anon::socket_file(cred, ops, O_RDWR | (flags & O_NONBLOCK));
        sock.common().ino.store(file.inode.ino, Ordering::Relaxed);
        sock.opened(file.inode.ino, cred.fsuid);
        super::unix::note_file(&sock, &file);
        file
    }
}

impl FileOps for SocketFile {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        if to.remaining() == 0 {
            return Ok(0);
        }
        self.sock.try_recv(&mut RecvMsg::default(), to)
    }

    fn try_write_as(&self, cur: &Task, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        let com = self.sock.common();
        let flags = if com.ty == c::SOCK_SEQPACKET { c::MSG_EOR } else { 0 };
        // Only here does it matter who writes; transfers of the other families are spared the look.
        let cred = (com.family == c::AF_UNIX).then(|| {
            let cred = cur.cred();
            Ucred { pid: cur.tgid(), uid: cred.uid, gid: cred.gid }
        });
        self.sock.try_send(&mut SendMsg { flags, cred, ..SendMsg::default() }, from)
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        self.sock.poll(table)
    }

    fn sigpipe(&self) -> bool {
        super::is_stream(self.sock.common())
    }

    fn io_timeout(&self, read: bool) -> Option<Duration> {
        let opts = self.sock.common().opts();
        if read { opts.rcvtimeo } else { opts.sndtimeo }
    }

    fn ioctl<'a>(
        &'a self,
        cur: &'a Arc<Task>,
        _file: &'a File,
        cmd: u32,
        arg: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(ioctl::sock_ioctl(cur, &self.sock, cmd, arg))
    }

    fn linger(&self) -> Option<Linger> {
        self.sock.linger()
    }

    fn release(&self, _file: &File) {
        self.sock.release();
    }
}
