//! Unix sockets by path (unix(7)), as transports of frames use them.

use super::fd::HostFd;
use super::udp::buffers;
use super::{from_io, from_rustix};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use uapi::{Errno, Result};

/// Longest path of a unix socket in bytes.
pub const MAX_PATH: usize = 107;

/// Kinds of sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A byte stream.
    Stream,
    /// Messages, connected, in order.
    SeqPacket,
    /// Messages.
    Datagram,
}

fn raw_kind(kind: Kind) -> SocketType {
    match kind {
        Kind::Stream => SocketType::STREAM,
        Kind::SeqPacket => SocketType::SEQPACKET,
        Kind::Datagram => SocketType::DGRAM,
    }
}

/// A socket in blocking mode with big buffers.
pub fn socket(kind: Kind) -> Result<HostFd> {
    let fd = rustix::net::socket_with(AddressFamily::UNIX, raw_kind(kind), SocketFlags::CLOEXEC, None);
    let fd = HostFd::from(fd.map_err(from_rustix)?);
    buffers(&fd);
    Ok(fd)
}

fn address(path: &Path) -> Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(from_rustix)
}

/// Binds to a path. A socket that an earlier process has left there, and to which nobody listens, is replaced.
/// `EADDRINUSE` if somebody does, or if the path is something else.
pub fn bind(fd: &HostFd, kind: Kind, path: &Path) -> Result<()> {
    let addr = address(path)?;
    match rustix::net::bind(fd, &addr).map_err(from_rustix) {
        Err(Errno::EADDRINUSE) => {}
        other => return other,
    }
    let meta = std::fs::symlink_metadata(path).map_err(|e| from_io(&e))?;
    if !meta.file_type().is_socket() || connect(&socket(kind)?, path) != Err(Errno::ECONNREFUSED) {
        return Err(Errno::EADDRINUSE);
    }
    std::fs::remove_file(path).map_err(|e| from_io(&e))?;
    rustix::net::bind(fd, &addr).map_err(from_rustix)
}

/// Connects to a path.
pub fn connect(fd: &HostFd, path: &Path) -> Result<()> {
    rustix::net::connect(fd, &address(path)?).map_err(from_rustix)
}

/// Lets others connect to a bound stream or SEQPACKET socket.
pub fn listen(fd: &HostFd) -> Result<()> {
    rustix::net::listen(fd, 8).map_err(from_rustix)
}

/// The next connection, in blocking mode; waits for it.
pub fn accept(fd: &HostFd) -> Result<HostFd> {
    rustix::net::accept_with(fd, SocketFlags::CLOEXEC).map(HostFd::from).map_err(from_rustix)
}

/// The kind of a socket that somebody else has made; `ENOTSOCK` for other files, `EPROTOTYPE` for other sockets.
pub fn kind_of(fd: &HostFd) -> Result<Kind> {
    match rustix::net::sockopt::socket_type(fd).map_err(from_rustix)? {
        SocketType::STREAM => Ok(Kind::Stream),
        SocketType::SEQPACKET => Ok(Kind::SeqPacket),
        SocketType::DGRAM | SocketType::RAW => Ok(Kind::Datagram),
        _ => Err(Errno::EPROTOTYPE),
    }
}

/// Ends both directions; harmless on a socket that has ended.
pub fn shutdown(fd: &HostFd) {
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_was_left_is_taken_again() {
        let dir = std::env::temp_dir().join(format!("kibble-unix-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        let path = dir.join("s");
        for kind in [Kind::SeqPacket, Kind::Datagram, Kind::Stream] {
            let a = socket(kind).expect("socket");
            bind(&a, kind, &path).expect("bound");
            assert_eq!(kind_of(&a), Ok(kind));
            drop(a);
            let b = socket(kind).expect("socket");
            bind(&b, kind, &path).expect("bound over what was left");
            drop(b);
            std::fs::remove_file(&path).expect("there");
        }
        std::fs::write(&path, "x").expect("file");
        let c = socket(Kind::SeqPacket).expect("socket");
        assert_eq!(bind(&c, Kind::SeqPacket, &path), Err(Errno::EADDRINUSE));
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(connect(&c, Path::new(&"x".repeat(200))), Err(Errno::ENAMETOOLONG));
    }
}
