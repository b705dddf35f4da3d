//! One operation on a file or stream, with the buffer handed over and given back.

use super::OpFuture;
use arch::host::fd::HostFd;
use arch::irqchip::{IoMem, IoSource, Op, Outcome, Payload};
use klib::Result;

/// Offset that means "the stream's own position".
const STREAM: u64 = u64::MAX;

fn buffer(o: Outcome) -> (Result<usize>, Vec<u8>) {
    let buf = match o.payload {
        Payload::Buf(b) => b,
        _ => Vec::new(),
    };
    (o.result.map(|n| n as usize), buf)
}

fn count(o: Outcome) -> Result<usize> {
    o.result.map(|n| n as usize)
}

/// Reads into `buf` (its length) at `offset`; one read(2), which may be short. Gives the buffer back (empty if it never
/// got to the host).
pub async fn read_at(fd: &HostFd, offset: u64, buf: Vec<u8>) -> (Result<usize>, Vec<u8>) {
    buffer(OpFuture::new(Op::Read { fd: fd.clone(), offset, buf, start: 0 }).await)
}

/// As [`read_at`], into `buf[start..]`: for going on after a short read.
pub async fn read_part(fd: &HostFd, offset: u64, buf: Vec<u8>, start: usize) -> (Result<usize>, Vec<u8>) {
    buffer(OpFuture::new(Op::Read { fd: fd.clone(), offset, buf, start }).await)
}

/// Writes `buf` at `offset`; one write(2), which may be short.
pub async fn write_at(fd: &HostFd, offset: u64, buf: Vec<u8>) -> (Result<usize>, Vec<u8>) {
    buffer(OpFuture::new(Op::Write { fd: fd.clone(), offset, buf, start: 0 }).await)
}

/// As [`write_at`], from `buf[start..]`.
pub async fn write_part(fd: &HostFd, offset: u64, buf: Vec<u8>, start: usize) -> (Result<usize>, Vec<u8>) {
    buffer(OpFuture::new(Op::Write { fd: fd.clone(), offset, buf, start }).await)
}

/// Reads from a stream; waits until something is there, even if the descriptor is non-blocking.
pub async fn read_fd(fd: &HostFd, buf: Vec<u8>) -> (Result<usize>, Vec<u8>) {
    read_at(fd, STREAM, buf).await
}

/// Writes to a stream; waits for room, even if the descriptor is non-blocking.
pub async fn write_fd(fd: &HostFd, buf: Vec<u8>) -> (Result<usize>, Vec<u8>) {
    write_at(fd, STREAM, buf).await
}

/// Reads into guest frames; may be short.
pub async fn read_frames(fd: &HostFd, offset: u64, mem: IoMem) -> Result<usize> {
    count(OpFuture::new(Op::ReadMem { fd: fd.clone(), offset, mem }).await)
}

/// Writes guest frames; may be short.
pub async fn write_frames(fd: &HostFd, offset: u64, mem: IoMem) -> Result<usize> {
    count(OpFuture::new(Op::WriteMem { fd: fd.clone(), offset, mem }).await)
}

/// Sends one message made of pieces (sendmsg(2) `flags`).
pub async fn send(fd: &HostFd, source: Box<dyn IoSource>, flags: u32) -> Result<usize> {
    count(OpFuture::new(Op::SendSource { fd: fd.clone(), source, flags }).await)
}

/// fsync(2), or fdatasync(2) if `data_only`.
pub async fn fsync(fd: &HostFd, data_only: bool) -> Result<()> {
    count(OpFuture::new(Op::Fsync { fd: fd.clone(), data_only }).await).map(drop)
}

/// fallocate(2).
pub async fn fallocate(fd: &HostFd, mode: i32, offset: u64, len: u64) -> Result<()> {
    count(OpFuture::new(Op::Fallocate { fd: fd.clone(), mode, offset, len }).await).map(drop)
}

/// Accepts a connection on a listening socket; the new one is non-blocking.
pub async fn accept(fd: &HostFd) -> Result<HostFd> {
    let o = OpFuture::new(Op::Accept { fd: fd.clone() }).await;
    o.result?;
    match o.payload {
        Payload::Fd(fd) => Ok(HostFd::from(fd)),
        _ => Err(klib::Errno::EIO),
    }
}

/// A round trip through the ring.
pub async fn nop() -> Result<()> {
    count(OpFuture::new(Op::Nop).await).map(drop)
}
