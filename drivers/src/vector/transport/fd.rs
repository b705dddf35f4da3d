//! `transport=fd`: a descriptor that vmlinux was started with: a tap or macvtap, with or without virtio-net headers, or a
//! connected socket (bare frames in messages, or a stream as `transport=stream` speaks it).

use super::socket::SocketTransport;
use super::tap::OpenTap;
use super::{Kind, Plan, Setup, Transport};
use crate::vector::options::{Key, Options, Type};
use arch::host::fd::{FileKind, HostFd};
use arch::host::tap;
use arch::host::unix;
use std::sync::Arc;
use uapi::Errno;

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "fd",
    about: "an inherited descriptor: tap, macvtap or socket",
    keys: &[Key::new("fd", Type::Number { min: 0, max: 1_048_576 }, "number of the descriptor")],
    parse,
};

#[derive(Debug)]
struct FdPlan {
    fd: i32,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    let fd = o.number("fd").and_then(|n| i32::try_from(n).ok());
    let fd = fd.ok_or("transport=fd: fd= is missing; expected the number of an open descriptor")?;
    Ok(Arc::new(FdPlan { fd }))
}

impl Plan for FdPlan {
    fn open(&self, _setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let n = self.fd;
        let fd = HostFd::dup_of(n)
            .map_err(|_| format!("fd={n}: not open; expected a descriptor that vmlinux was started with"))?;
        // Waiting is the ring's business.
        fd.set_nonblocking(false).map_err(|e| format!("fd={n}: cannot make it block: {}", e.text()))?;
        if fd.kind() == Ok(FileKind::Socket) {
            let kind = unix::kind_of(&fd)
                .map_err(|e| format!("fd={n}: a socket of a type that carries no frames: {}", e.text()))?;
            let how = match kind {
                unix::Kind::Stream => "stream socket, frames behind their length",
                unix::Kind::SeqPacket => "SEQPACKET socket, bare frames",
                unix::Kind::Datagram => "datagram socket, bare frames",
            };
            return Ok(Box::new(SocketTransport::new("fd", format!("fd {n}: {how}"), fd, kind)));
        }
        match tap::inspect(&fd) {
            Ok((name, vnet)) => OpenTap::adopt("fd", fd, name, vnet).map_err(|e| format!("fd={n}: {e}")),
            Err(Errno::EINVAL) => {
                Err(format!("fd={n}: a tun, or a tap with packet information; expected a tap with IFF_NO_PI"))
            }
            Err(_) => Err(format!("fd={n}: neither a tap nor a socket; expected one of them")),
        }
    }
}
