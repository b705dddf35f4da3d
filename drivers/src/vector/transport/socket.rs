//! A connected socket that carries frames without tunnel headers: what `bess`, `stream`, `fd` and `vde` come down to.

use super::{Framing, Lane, RxEnd, Transport, TxEnd};
use crate::vector::header::{Bare, Header};
use crate::vector::stream::LengthPrefix;
use arch::host::fd::HostFd;
use arch::host::unix::Kind;
use executor::irq::{RxKind, TxKind};
use net::Features;
use std::path::PathBuf;
use std::sync::Arc;
use uapi::Errno;

/// The open socket.
pub struct SocketTransport {
    name: &'static str,
    what: String,
    fd: HostFd,
    kind: Kind,
    /// Something that has to stay open as long as the socket is used.
    _keep: Option<HostFd>,
    /// Our own path, removed in the end.
    path: Option<PathBuf>,
}

impl Drop for SocketTransport {
    fn drop(&mut self) {
        if let Some(p) = &self.path {
            let _ = std::fs::remove_file(p);
        }
    }
}

impl SocketTransport {
    /// Frames on `fd`: bare ones in messages, behind their length on a stream.
    pub fn new(name: &'static str, what: String, fd: HostFd, kind: Kind) -> Self {
        Self { name, what, fd, kind, _keep: None, path: None }
    }

    /// With a descriptor that lives as long.
    pub fn keeping(mut self, fd: HostFd) -> Self {
        self._keep = Some(fd);
        self
    }

    /// With a path that is removed in the end.
    pub fn removing(mut self, path: PathBuf) -> Self {
        self.path = Some(path);
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
        let rx = RxEnd { fd: self.fd.clone(), kind: rx, header: Arc::clone(&header) };
        vec![Lane { rx: Some(rx), tx: Some(TxEnd::plain(&self.fd, tx, header)) }]
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
