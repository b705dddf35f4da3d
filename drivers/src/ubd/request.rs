//! Requests cut into operations: pieces in flight together, short counts continued, the end of the file read as zeros.

use arch::host::fd::HostFd;
use arch::mm::PhysMem;
use executor::irq;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use uapi::{Errno, Result};

/// Bytes of one operation.
const PIECE: usize = 1 << 20;
/// Pieces of one request in flight together.
const IN_FLIGHT: usize = 16;
/// Tries of an operation that the host puts off (EINTR, EAGAIN) before it is an error.
const TRIES: u32 = 1000;

/// Counts how often the host put us off, letting others go first each time.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    /// `Ok` if the error is one to try again after.
    async fn again(&mut self, e: Errno) -> Result<()> {
        if !matches!(e, Errno::EINTR | Errno::EAGAIN) || self.0 >= TRIES {
            return Err(e);
        }
        self.0 += 1;
        executor::yield_now().await;
        Ok(())
    }
}

/// Runs futures together, at most [`IN_FLIGHT`] at a time, and hands each result to `each` with its number, in no
/// particular order. Ends at the first error; what is still in flight is dropped then, which cancels it.
async fn together<T, F: Future<Output = Result<T>>>(
    mut futures: impl Iterator<Item = F>,
    mut each: impl FnMut(usize, T),
) -> Result<()> {
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut next = 0;
    loop {
        while running.len() < IN_FLIGHT
            && let Some(f) = futures.next()
        {
            running.push((next, Box::pin(f)));
            next += 1;
        }
        if running.is_empty() {
            return Ok(());
        }
        let (slot, result) = poll_fn(|cx| {
            for (slot, (_, f)) in running.iter_mut().enumerate() {
                if let Poll::Ready(r) = f.as_mut().poll(cx) {
                    return Poll::Ready((slot, r));
                }
            }
            Poll::Pending
        })
        .await;
        let (number, _) = running.swap_remove(slot);
        each(number, result?);
    }
}

/// Start and length of each piece of a request.
fn pieces(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(PIECE).map(move |start| (start, PIECE.min(len - start)))
}

/// Reads `len` bytes; what lies past the end of the file is zeros.
pub(super) async fn read(fd: &HostFd, offset: u64, len: usize) -> Result<Vec<u8>> {
    if len <= PIECE {
        return read_piece(fd, offset, len).await;
    }
    let mut whole = vec![0u8; len];
    let parts = pieces(len).map(|(start, n)| read_piece(fd, offset + start as u64, n));
    together(parts, |i, part| {
        if let Some(to) = whole.get_mut(i * PIECE..i * PIECE + part.len()) {
            to.copy_from_slice(&part);
        }
    })
    .await?;
    Ok(whole)
}

async fn read_piece(fd: &HostFd, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; len];
    let (mut done, mut patience) = (0, Patience::default());
    while done < len {
        let (n, back) = irq::read_part(fd, offset + done as u64, buf, done).await;
        buf = back;
        match n {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) => patience.again(e).await?,
        }
    }
    // Zeros past the end of the file are there already.
    Ok(buf)
}

/// Reads into guest frames.
pub(super) async fn read_frames(
    fd: &HostFd,
    offset: u64,
    len: usize,
    frames: &PhysMem,
    mem: u64,
) -> Result<()> {
    let parts = pieces(len).map(|(start, n)| {
        let start = start as u64;
        read_frames_piece(fd, offset + start, n, frames, mem + start)
    });
    together(parts, |_, ()| {}).await
}

async fn read_frames_piece(fd: &HostFd, offset: u64, len: usize, frames: &PhysMem, mem: u64) -> Result<()> {
    let target = irq::IoMem::frames(frames, mem, len)?;
    let (mut done, mut patience) = (0, Patience::default());
    while done < len {
        match irq::read_frames(fd, offset + done as u64, target.slice(done, len - done)).await {
            Ok(0) => {
                frames.zero(mem + done as u64, len - done);
                break;
            }
            Ok(n) => done += n,
            Err(e) => patience.again(e).await?,
        }
    }
    Ok(())
}

/// Writes all of `data`.
pub(super) async fn write(fd: &HostFd, offset: u64, mut data: Vec<u8>) -> Result<()> {
    let (mut done, mut patience) = (0, Patience::default());
    while done < data.len() {
        let (n, back) = irq::write_part(fd, offset + done as u64, data, done).await;
        data = back;
        match n {
            Ok(0) => return Err(Errno::EIO),
            Ok(n) => done += n,
            Err(e) => patience.again(e).await?,
        }
    }
    Ok(())
}

/// Makes completed writes durable (fdatasync(2): it writes the size of a file that has grown, too).
pub(super) async fn flush(fd: &HostFd) -> Result<()> {
    let mut patience = Patience::default();
    loop {
        match irq::fsync(fd, true).await {
            Ok(()) => return Ok(()),
            Err(e) => patience.again(e).await?,
        }
    }
}
