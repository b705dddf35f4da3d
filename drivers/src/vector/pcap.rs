//! `pcap=FILE`: copies of all frames of a NIC, both directions, Ethernet header first, super-frames whole. At 64 MiB the file
//! becomes FILE.1, whose predecessor goes, and a new one begins. A thread of its own writes, so that a slow disk does
//! not slow the NIC: frames it cannot keep up with are left out and counted.

use net::capture::{pcap_header, pcap_record};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use uapi::Errno;

/// Bytes after which a new file begins.
const ROTATE: u64 = 64 << 20;
/// Frames that may wait for the writer.
const WAITING: usize = 512;

struct Frame {
    stamp: u64,
    bytes: Vec<u8>,
}

/// An open capture.
pub struct Pcap {
    tell: SyncSender<Frame>,
    lost: Arc<AtomicU64>,
}

struct Writer {
    path: PathBuf,
    old: PathBuf,
    out: BufWriter<File>,
    written: u64,
    rotate: u64,
}

fn create(path: &Path) -> std::io::Result<BufWriter<File>> {
    let mut out = BufWriter::with_capacity(256 << 10, File::create(path)?);
    out.write_all(&pcap_header())?;
    out.flush()?;
    Ok(out)
}

impl Writer {
    fn open(path: &Path, rotate: u64) -> std::io::Result<Self> {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        Ok(Self { path: path.into(), old: old.into(), out: create(path)?, written: 24, rotate })
    }

    fn write(&mut self, f: &Frame) -> std::io::Result<()> {
        let len = 16 + f.bytes.len() as u64;
        if self.written + len > self.rotate && self.written > 24 {
            self.out.flush()?;
            std::fs::rename(&self.path, &self.old)?;
            self.out = create(&self.path)?;
            self.written = 24;
        }
        self.out.write_all(&pcap_record(f.stamp, f.bytes.len()))?;
        self.out.write_all(&f.bytes)?;
        self.written += len;
        Ok(())
    }

    fn run(mut self, frames: &Receiver<Frame>) -> std::io::Result<()> {
        while let Ok(first) = frames.recv() {
            self.write(&first)?;
            loop {
                match frames.try_recv() {
                    Ok(f) => self.write(&f)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return self.out.flush(),
                }
            }
            // Whoever looks at the file sees what has happened.
            self.out.flush()?;
        }
        self.out.flush()
    }
}

impl Pcap {
    /// Creates the file. `Err` is one line for the user.
    pub fn open(path: &str) -> Result<Self, String> {
        let wrong = |e: std::io::Error| {
            let why = Errno::from_raw(e.raw_os_error().unwrap_or(Errno::EIO.raw())).text();
            format!("pcap={path}: cannot write it: {why}; expected a file of the host that may be replaced")
        };
        let writer = Writer::open(Path::new(path), ROTATE).map_err(wrong)?;
        let (tell, frames) = sync_channel(WAITING);
        let named = path.to_owned();
        let body = move || {
            if let Err(e) = writer.run(&frames) {
                log::error!(target: "vector", "pcap={named}: the capture ends: {e}");
            }
        };
        std::thread::Builder::new().name("pcap".into()).spawn(body).map_err(wrong)?;
        Ok(Self { tell, lost: Arc::default() })
    }

    /// Copies a frame.
    pub fn frame(&self, bytes: &[u8]) {
        let stamp = arch::host::clock::realtime_ns();
        if self.tell.try_send(Frame { stamp, bytes: bytes.to_vec() }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Frames that were left out.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_the_header_and_files_change_places() {
        let dir = std::env::temp_dir().join(format!("kibble-pcap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        let path = dir.join("x.pcap");
        let mut w = Writer::open(&path, 24 + 2 * (16 + 60)).expect("open");
        for i in 0..5u8 {
            w.write(&Frame { stamp: 5_000_000_007, bytes: vec![i; 60] }).expect("written");
        }
        w.out.flush().expect("flushed");
        let now = std::fs::read(&path).expect("there");
        let old = std::fs::read(dir.join("x.pcap.1")).expect("there");
        assert_eq!((now.len(), old.len()), (24 + 76, 24 + 2 * 76));
        assert_eq!(&now[..4], &0xa1b2_3c4du32.to_le_bytes());
        assert_eq!(&now[24..40], [5, 0, 0, 0, 7, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0]);
        assert_eq!((old[40], old[40 + 76], now[40]), (2, 3, 4));
        std::fs::remove_dir_all(dir).expect("removed");
        assert!(
            Pcap::open("/nonexistent/x").err().is_some_and(|e| e.starts_with("pcap=/nonexistent/x: cannot"))
        );
    }
}
