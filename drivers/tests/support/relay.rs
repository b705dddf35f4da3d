//! A peer of two NICs that hands on what either sends, over unix sockets, and can be ended and started again.

use arch::host::fd::HostFd;
use arch::host::unix::{self, Kind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A running relay; dropping it ends it as a killed program ends.
pub struct Relay {
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<HostFd>>>,
    threads: Vec<JoinHandle<()>>,
    paths: [PathBuf; 2],
}

impl Relay {
    /// Listens on both paths; whoever connects later takes the place of the one before.
    pub fn start(kind: Kind, paths: [&Path; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let ends: [Arc<Mutex<Option<HostFd>>>; 2] = Default::default();
        let mut threads = Vec::new();
        for i in 0..2 {
            let server = unix::socket(kind).expect("socket");
            unix::bind(&server, kind, paths[i]).expect("bound");
            unix::listen(&server).expect("listening");
            let (stop, open) = (Arc::clone(&stop), Arc::clone(&open));
            let (own, other) = (Arc::clone(&ends[i]), Arc::clone(&ends[1 - i]));
            threads.push(std::thread::spawn(move || {
                let mut buf = vec![0; 256 << 10];
                let ended = || stop.load(Ordering::Acquire);
                while !ended() {
                    if !server.poll_wait(1, 20).is_ok_and(|e| e & 1 != 0) {
                        continue;
                    }
                    let Ok(c) = unix::accept(&server) else { continue };
                    open.lock().expect("lock").push(c.clone());
                    *own.lock().expect("lock") = Some(c.clone());
                    while !ended() {
                        let n = match c.read(&mut buf) {
                            Ok(n) if n > 0 => n,
                            _ => break,
                        };
                        let to = other.lock().expect("lock").clone();
                        // Who is not there misses it; a stream is broken then, and begins anew.
                        let mut sent = 0;
                        while let Some(to) = to.as_ref().filter(|_| sent < n && !ended()) {
                            match to.write(&buf[sent..n]) {
                                Ok(k) => sent += k,
                                Err(_) => break,
                            }
                        }
                    }
                    unix::shutdown(&c);
                    *own.lock().expect("lock") = None;
                    if kind == Kind::Stream
                        && let Some(o) = other.lock().expect("lock").take()
                    {
                        // What the other one gets next would begin in the middle of a frame.
                        unix::shutdown(&o);
                    }
                }
            }));
        }
        Self { stop, open, threads, paths: paths.map(Path::to_owned) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.open.lock().expect("lock").drain(..).for_each(|c| unix::shutdown(&c));
        for t in self.threads.drain(..) {
            // One that connected meanwhile.
            self.open.lock().expect("lock").drain(..).for_each(|c| unix::shutdown(&c));
            assert!(t.join().is_ok(), "the relay failed");
        }
        for p in &self.paths {
            let _ = std::fs::remove_file(p);
        }
    }
}
