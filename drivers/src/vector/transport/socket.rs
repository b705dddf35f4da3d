//! A connected socket that carries frames without tunnel headers: what `bess`, `stream`, `fd` and `vde` come down to.

use super::{Again, Framing, Lane, RxEnd, Transport, TxEnd};
use crate::vector::header::{Bare, Header};
use crate::vector::stream::LengthPrefix;
use arch::host::fd::HostFd;
use arch::host::unix::Kind;
use executor::irq::{RxKind, TxKind};
use klib::sync::Mutex;
use net::Features;
use std::path::PathBuf;
use std::sync::Arc;
use uapi::Errno;

/// A connection.
pub struct Open {
    /// The socket, in blocking mode.
    pub fd: HostFd,
    /// Something that has to stay open as long as the socket is used; its end is that of the connection.
    pub keep: Option<HostFd>,
    /// Our own path, removed in the end.
    pub path: Option<OwnPath>,
}

/// A path of ours that is removed in the end.
pub struct OwnPath(pub PathBuf);

impl Drop for OwnPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl From<HostFd> for Open {
    fn from(fd: HostFd) -> Self {
        Self { fd, keep: None, path: None }
    }
}

/// Connects once more. `Err` is one line for the user.
pub type Connect = Box<dyn Fn() -> Result<Open, String> + Send + Sync>;

/// The open socket.
pub struct SocketTransport {
    name: &'static str,
    what: String,
    kind: Kind,
    open: Mutex<Open>,
    connect: Option<Connect>,
}

impl SocketTransport {
    /// Frames on a socket: bare ones in messages, behind their length on a stream.
    pub fn new(name: &'static str, what: String, open: impl Into<Open>, kind: Kind) -> Self {
        Self { name, what, kind, open: Mutex::new(open.into()), connect: None }
    }

    /// Which can be connected again when the peer has ended.
    pub fn connecting(mut self, connect: Connect) -> Self {
        self.connect = Some(connect);
        self
    }
}

impl Transport for SocketTransport {
    fn name(&self) -> &'static str {
        self.name
    }

    fn describe(&self) -> String {
        self.what.clone()
    }

    fn framing(&self) -> Framing {
        if self.kind == Kind::Stream { Framing::Stream } else { Framing::Messages }
    }

    fn lanes(&self) -> Vec<Lane> {
        let header: Arc<dyn Header> = match self.kind {
            Kind::Stream => Arc::new(LengthPrefix),
            _ => Arc::new(Bare),
        };
        let (rx, tx) = match self.kind {
            Kind::Stream => (RxKind::Stream, TxKind::Stream),
            Kind::SeqPacket => (RxKind::Stream, TxKind::Send),
            Kind::Datagram => (RxKind::Recv, TxKind::Send),
        };
        let fd = self.open.lock().fd.clone();
        let rx = RxEnd { fd: fd.clone(), kind: rx, header: Arc::clone(&header) };
        vec![Lane { rx: Some(rx), tx: Some(TxEnd::plain(&fd, tx, header)) }]
    }

    fn hangup(&self) -> Option<HostFd> {
        self.open.lock().keep.clone()
    }

    fn reopen(&self) -> Result<(), Again> {
        let connect = self.connect.as_ref().ok_or(Again::Never)?;
        // What belongs to the old connection goes first: the new one may have the same path.
        {
            let mut open = self.open.lock();
            (open.keep, open.path) = (None, None);
        }
        let new = connect().map_err(Again::Later)?;
        *self.open.lock() = new;
        Ok(())
    }

    fn offload(&self) -> Features {
        Features::empty()
    }
}

/// The line for a unix socket that could not be bound (`src`) or connected (`dst`).
pub fn unix_error(key: &str, path: &str, e: Errno) -> String {
    let why = match e {
        Errno::ENOENT => "no such file or directory; is the peer running?".to_owned(),
        Errno::ECONNREFUSED => "nobody listens there; is the peer running?".to_owned(),
        Errno::EPROTOTYPE => "a socket of another type listens there".to_owned(),
        Errno::EACCES | Errno::EPERM => {
            "not permitted: this user may not write to the socket or its directory".to_owned()
        }
        Errno::EADDRINUSE => "somebody uses this path already".to_owned(),
        e => e.text().to_owned(),
    };
    let did = if key == "src" { "bind" } else { "connect" };
    format!("{key}={path}: cannot {did}: {why}")
}
