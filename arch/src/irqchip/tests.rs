//! The ring by itself, without an executor.

use super::probe::probe;
use super::*;
use crate::host::clock::monotonic;
use crate::host::fd::{HostFd, OpenHow, pipe, socketpair};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use uapi::Errno;

fn ring() -> Ring {
    let features = probe().expect("this host has io_uring");
    println!("{features}");
    Ring::new(features).expect("ring")
}

#[derive(Default)]
struct Log(Mutex<Vec<(u64, Outcome)>>);

impl IrqHandler for Log {
    fn irq(&self, token: u64, outcome: Outcome) {
        self.0.lock().expect("lock").push((token, outcome));
    }
}

impl Log {
    fn take(&self) -> Vec<(u64, Outcome)> {
        std::mem::take(&mut *self.0.lock().expect("lock"))
    }
}

/// Lets the ring work until `n` completions have been delivered to the log, at most five seconds.
fn run(ring: &mut Ring, log: &Log, n: usize) -> Vec<(u64, Outcome)> {
    let until = monotonic() + Duration::from_secs(5);
    let mut out = Vec::new();
    let mut got = log.take();
    while got.len() < n {
        assert!(monotonic() < until, "waited for {n} completions, got {}", got.len());
        ring.wait(Some(Duration::from_millis(50))).expect("wait");
        ring.reap(&mut out, usize::MAX);
        out.drain(..).for_each(Completion::deliver);
        got.append(&mut log.take());
    }
    got
}

fn settle(ring: &mut Ring) {
    let mut out = Vec::new();
    for _ in 0..20 {
        ring.wait(Some(Duration::from_millis(2))).expect("wait");
        ring.reap(&mut out, usize::MAX);
        out.drain(..).for_each(Completion::deliver);
        if ring.in_flight() == 0 {
            return;
        }
    }
    panic!("{} operations are still under way", ring.in_flight());
}

#[test]
fn more_operations_than_fit() {
    let mut ring = ring();
    let log = Arc::new(Log::default());
    for i in 0..5000 {
        ring.submit(Op::Nop, Sink::Irq(log.clone(), i));
    }
    let got = run(&mut ring, &log, 5000);
    let mut tokens: Vec<u64> = got.iter().map(|g| g.0).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..5000));
    assert!(got.iter().all(|g| g.1.result == Ok(0)));
    assert!(ring.counters().sq_full > 0);
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn cancelled_operations_give_their_memory_back() {
    let mut ring = ring();
    let log = Arc::new(Log::default());
    let (r, w) = pipe(true).expect("pipe");
    let id = ring.submit(
        Op::Read { fd: r.clone(), offset: u64::MAX, buf: vec![1; 100], start: 10 },
        Sink::Irq(log.clone(), 1),
    );
    ring.flush().expect("flush");
    assert_eq!(ring.in_flight(), 1);
    ring.cancel(id);
    let got = run(&mut ring, &log, 1);
    let (_, Outcome { result, payload, more }) = &got[0];
    assert_eq!((*result, *more), (Err(Errno::ECANCELED), false));
    assert!(matches!(payload, Payload::Buf(b) if b.len() == 100));
    // Stale names do nothing, even when the slot is in use again.
    ring.submit(Op::Poll { fd: r.as_raw_fd(), events: 1, multi: false }, Sink::Irq(log.clone(), 2));
    ring.cancel(id);
    w.write(b"abc").expect("write");
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(1));
    ring.submit(Op::Read { fd: r, offset: u64::MAX, buf: vec![1; 5], start: 1 }, Sink::Irq(log.clone(), 3));
    let got = run(&mut ring, &log, 1).remove(0).1;
    assert!(matches!(got.payload, Payload::Buf(b) if b == b"\x01abc\x01"));
}

#[test]
fn cells_wait_complete_and_are_ignored() {
    let mut ring = ring();
    let (r, w) = pipe(true).expect("pipe");
    let cell = Arc::new(OpCell::default());
    for _ in 0..3 {
        cell.arm(Waker::noop());
        ring.submit(Op::Poll { fd: r.as_raw_fd(), events: 1, multi: false }, Sink::Cell(cell.clone()));
        assert!(cell.poll(Waker::noop()).is_pending());
        w.write(b"x").expect("write");
        settle(&mut ring);
        let Poll::Ready(o) = cell.poll(Waker::noop()) else { panic!("complete") };
        assert_eq!(o.result, Ok(1));
        r.read(&mut [0; 8]).expect("read");
    }
    cell.arm(Waker::noop());
    let id = ring
        .submit(Op::Read { fd: r, offset: u64::MAX, buf: vec![0; 10], start: 0 }, Sink::Cell(cell.clone()));
    ring.flush().expect("flush");
    assert!(cell.ignore(), "worth a cancel");
    ring.cancel(id);
    settle(&mut ring);
    assert!(!cell.ignore());
}

#[test]
fn an_ignored_descriptor_is_closed() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixListener, UnixStream};
    let path = std::env::temp_dir().join(format!("irqchip-accept-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("bind");
    let fd = HostFd::from(OwnedFd::from(listener));
    let mut ring = ring();
    let cell = Arc::new(OpCell::default());
    cell.arm(Waker::noop());
    ring.submit(Op::Accept { fd: fd.clone() }, Sink::Cell(cell.clone()));
    ring.flush().expect("flush");
    assert!(cell.ignore());
    let mut peer = UnixStream::connect(&path).expect("connect");
    std::fs::remove_file(&path).expect("remove");
    settle(&mut ring);
    peer.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    let n = std::io::Read::read(&mut peer, &mut [0; 1]);
    assert!(matches!(n, Ok(0)), "the other end is closed: {n:?}");
}

#[test]
fn chains_keep_their_order_and_stop_at_a_failure() {
    let mut ring = ring();
    let log = Arc::new(Log::default());
    let (a, b) = socketpair(true).expect("socketpair");
    let send = |fd: &HostFd, i: u64, len: usize| {
        let source: Box<dyn IoSource> = Box::new(vec![i as u8; len]);
        (
            Op::SendSource { fd: fd.clone(), source, flags: 0 },
            Sink::Irq(log.clone() as Arc<dyn IrqHandler>, i),
        )
    };
    // Far more than the socket takes: the chain waits in the middle, and nothing overtakes.
    ring.submit_chain((0..60).map(|i| send(&a, i, 20_000)));
    ring.flush().expect("flush");
    let mut buf = vec![0; 30_000];
    for i in 0..60u8 {
        let until = monotonic() + Duration::from_secs(5);
        let n = loop {
            match b.read(&mut buf) {
                Err(Errno::EAGAIN) if monotonic() < until => {
                    ring.wait(Some(Duration::from_millis(1))).expect("wait");
                }
                n => break n,
            }
        };
        assert_eq!((n, buf[0]), (Ok(20_000), i));
    }
    assert!(run(&mut ring, &log, 60).iter().all(|g| g.1.result == Ok(20_000)));
    // The third is too long for the socket: it fails, those behind it come back unsent.
    let lens = [10, 10, 64 << 20, 10, 10];
    ring.submit_chain(lens.iter().enumerate().map(|(i, &len)| send(&a, i as u64, len)));
    let mut got = run(&mut ring, &log, 5);
    got.sort_by_key(|g| g.0);
    let results: Vec<_> = got.iter().map(|g| g.1.result).collect();
    let cancelled = Err(Errno::ECANCELED);
    assert_eq!(results, [Ok(10), Ok(10), Err(Errno::EMSGSIZE), cancelled, cancelled]);
    assert!(got.iter().all(|g| matches!(g.1.payload, Payload::Source(_))));
}

struct Many(Vec<Vec<u8>>);
impl IoSource for Many {
    fn segments<'a>(&'a self, out: &mut Segments<'a>) {
        for piece in &self.0 {
            out.push(piece);
        }
    }
}

#[test]
fn sources_in_pieces() {
    let mut ring = ring();
    let log = Arc::new(Log::default());
    let (r, w) = pipe(true).expect("pipe");
    let many = |n: usize| Box::new(Many((0..n).map(|i| vec![i as u8; i]).collect()));
    let sink = || Sink::Irq(log.clone() as Arc<dyn IrqHandler>, 0);
    ring.submit(Op::WriteSource { fd: w.clone(), source: many(21), nowait: false }, sink());
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(210));
    let mut buf = [0; 300];
    assert_eq!(r.read(&mut buf), Ok(210));
    assert_eq!(buf[209], 20);
    ring.submit(Op::WriteSource { fd: w.clone(), source: many(22), nowait: false }, sink());
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Err(Errno::EBADF), "too many pieces");
    ring.submit(Op::WriteSource { fd: w, source: many(0), nowait: true }, sink());
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(0));
}

#[test]
fn provided_buffers_run_out_and_come_back() {
    let mut ring = ring();
    let log = Arc::new(Log::default());
    let multi = ring.features().recv_multi;
    let bufs = ring.new_bufring(4, 1024, 100).expect("buffers");
    assert_eq!(ring.new_bufring(3, 1024, 0).err(), Some(Errno::EINVAL));
    let (a, b) = socketpair(true).expect("socketpair");
    for i in 0..6u8 {
        a.write(&[i; 50]).expect("write");
    }
    let arm = |ring: &mut Ring| {
        let op = Op::RecvSlot { fd: b.clone(), bufs: Arc::clone(&bufs), multi };
        ring.submit(op, Sink::Irq(log.clone(), 0))
    };
    arm(&mut ring);
    let mut got = run(&mut ring, &log, 5);
    assert_eq!(got[4].1.result, Err(Errno::ENOBUFS));
    assert!(!got[4].1.more);
    assert_eq!(bufs.available(), 0);
    let called = Arc::new(AtomicBool::new(false));
    let c = Arc::clone(&called);
    assert!(!bufs.wait_refill(Arc::new(move || c.store(true, Ordering::SeqCst))));
    got.truncate(4);
    let frames: Vec<RxSlot> = got
        .into_iter()
        .map(|g| match g.1.payload {
            Payload::Slot(s) => s,
            _ => panic!("a frame"),
        })
        .collect();
    for (i, f) in frames.iter().enumerate() {
        assert_eq!(f.data(), [i as u8; 50]);
        assert_eq!((f.range(), f.whole().len()), (100..150, 1024));
    }
    std::thread::spawn(move || drop(frames)).join().expect("join");
    assert!(called.load(Ordering::SeqCst), "told that slots are back");
    let id = arm(&mut ring);
    let got = run(&mut ring, &log, 2);
    assert!(matches!(&got[1].1.payload, Payload::Slot(s) if s.data() == [5; 50]));
    drop(got);
    ring.cancel(id);
    settle(&mut ring);
    assert_eq!(bufs.available(), 4);
    ring.free_bufring(&bufs);
    // A frame may outlive the ring.
    let bufs = ring.new_bufring(2, 512, 0).expect("buffers");
    a.write(b"late").expect("write");
    ring.submit(Op::RecvSlot { fd: b, bufs, multi: false }, Sink::Irq(log.clone(), 0));
    log.take();
    let late = run(&mut ring, &log, 1).remove(0).1.payload;
    drop(ring);
    assert!(matches!(&late, Payload::Slot(s) if s.data() == b"late"));
}

#[test]
fn a_ring_dropped_with_operations_under_way() {
    for _ in 0..20 {
        let mut ring = ring();
        let (r, w) = pipe(true).expect("pipe");
        let log = Arc::new(Log::default());
        for i in 0..300 {
            let op = Op::Read { fd: r.clone(), offset: u64::MAX, buf: vec![0; 1000], start: 0 };
            ring.submit(op, Sink::Irq(log.clone(), i));
        }
        ring.flush().expect("flush");
        let t0 = monotonic();
        drop(ring);
        assert!(monotonic() - t0 < Duration::from_secs(1), "all were cancelled");
        drop(r);
        assert_eq!(w.write(b"x"), Err(Errno::EPIPE), "the operations let go of the pipe");
        assert!(log.take().is_empty(), "and told nobody");
    }
}

#[test]
fn files_and_positions() {
    let mut ring = ring();
    let log = Arc::new(Log::default());
    let path = std::env::temp_dir().join(format!("irqchip-{}", std::process::id()));
    let fd = HostFd::open(&path, OpenHow { write: true, create: true, ..OpenHow::default() }).expect("open");
    std::fs::remove_file(&path).expect("remove");
    let sink = |i| Sink::Irq(log.clone() as Arc<dyn IrqHandler>, i);
    ring.submit(Op::Write { fd: fd.clone(), offset: 1000, buf: b"xxdata".to_vec(), start: 2 }, sink(0));
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(4));
    ring.submit(Op::Fsync { fd: fd.clone(), data_only: false }, sink(1));
    ring.submit(Op::Fallocate { fd: fd.clone(), mode: 0, offset: 0, len: 5000 }, sink(2));
    assert!(run(&mut ring, &log, 2).iter().all(|g| g.1.result == Ok(0)));
    assert_eq!(fd.size(), Ok(5000));
    let mem = crate::mm::PhysMem::new(65536).expect("memory");
    let frames = IoMem::frames(&mem, 4096, 100).expect("frames");
    assert!(IoMem::frames(&mem, 65000, 1000).is_err());
    assert!(IoMem::frames(&mem, u64::MAX, 1).is_err());
    ring.submit(Op::ReadMem { fd: fd.clone(), offset: 1000, mem: frames.slice(1, 4) }, sink(3));
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(4));
    let mut got = [0; 6];
    mem.read(4096, &mut got);
    assert_eq!(&got, b"\0data\0");
    ring.submit(Op::WriteMem { fd: fd.clone(), offset: 0, mem: frames.slice(1, 99) }, sink(4));
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(99));
    ring.submit(Op::Read { fd, offset: 0, buf: vec![0; 5], start: 9 }, sink(5));
    assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(0), "a start past the end reads nothing");
}

#[test]
fn a_forbidden_ring_is_explained() {
    for e in [libc::ENOSYS, libc::EPERM] {
        let line = probe::explain(&std::io::Error::from_raw_os_error(e));
        assert!(line.contains("io_uring is not available") && line.contains("io_uring_setup"), "{line}");
        assert!(line.contains("kernel.io_uring_disabled") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn measure_chains() {
    let mut ring = ring();
    let path = std::path::Path::new("/dev/null");
    let fd = HostFd::open(path, OpenHow { write: true, ..OpenHow::default() }).expect("open");
    let log = Arc::new(Log::default());
    let op = |i: u64| {
        let source: Box<dyn IoSource> = Box::new(Many(vec![vec![0; 12], vec![1; 1500]]));
        (
            Op::WriteSource { fd: fd.clone(), source, nowait: false },
            Sink::Irq(log.clone() as Arc<dyn IrqHandler>, i),
        )
    };
    const BATCHES: u64 = 300;
    for chained in [false, true, false, true] {
        let t0 = monotonic();
        for _ in 0..BATCHES {
            if chained {
                ring.submit_chain((0..64).map(op));
            } else {
                for (op, sink) in (0..64).map(op) {
                    ring.submit(op, sink);
                }
            }
            assert!(run(&mut ring, &log, 64).iter().all(|g| g.1.result == Ok(1512)));
        }
        let ns = (monotonic() - t0).as_nanos() as u64 / (64 * BATCHES);
        println!("frames to /dev/null, {}: {ns} ns each", if chained { "chained" } else { "unchained" });
    }
}

#[test]
fn older_hosts() {
    let without: [&[&str]; 3] =
        [&[], &["defer_taskrun"], &["defer_taskrun", "coop_taskrun", "recv_multishot", "read_multishot"]];
    for without in without {
        let features = probe::probe_without(without).expect("probe");
        println!("{features}");
        assert!(without.iter().all(|w| features.to_string().contains(&format!("no-{w}"))));
        let mut ring = Ring::new(features).expect("ring");
        let log = Arc::new(Log::default());
        let (r, w) = pipe(true).expect("pipe");
        for i in 0..200u64 {
            let sink = Sink::Irq(log.clone(), i);
            ring.submit(Op::Poll { fd: r.as_raw_fd(), events: 1, multi: false }, sink);
            ring.flush().expect("flush");
            w.write(b"x").expect("write");
            assert_eq!(run(&mut ring, &log, 1)[0].1.result, Ok(1));
            r.read(&mut [0; 1]).expect("read");
        }
        let id =
            ring.submit(Op::Poll { fd: r.as_raw_fd(), events: 1, multi: true }, Sink::Irq(log.clone(), 0));
        ring.flush().expect("flush");
        for _ in 0..10 {
            w.write(b"x").expect("write");
            let o = run(&mut ring, &log, 1).remove(0).1;
            assert!(o.more && o.result == Ok(1));
            r.read(&mut [0; 1]).expect("read");
        }
        ring.cancel(id);
        settle(&mut ring);
    }
}

#[test]
fn doorbell_ends_a_wait_and_is_coalesced() {
    let mut ring = ring();
    let bell = Arc::new(Doorbell::new().expect("doorbell"));
    ring.listen(&bell);
    ring.flush().expect("flush");
    assert!(!bell.kick(), "a running CPU is left alone");
    let mut out = Vec::new();
    for _ in 0..200 {
        bell.prepare_idle();
        let b = Arc::clone(&bell);
        let ringer = std::thread::spawn(move || (b.kick(), b.kick()));
        let t0 = monotonic();
        ring.wait(Some(Duration::from_secs(5))).expect("wait");
        assert!(monotonic() - t0 < Duration::from_secs(4), "the doorbell was heard");
        assert_eq!(ringer.join().expect("join"), (true, false));
        assert!(bell.leave_idle());
        ring.reap(&mut out, usize::MAX);
        assert!(out.is_empty());
    }
    assert!(ring.counters().doorbells >= 200);
}

/// A train of datagrams for a socket that is not connected.
struct Train {
    data: Vec<u8>,
    to: Vec<u8>,
    size: u16,
}

impl IoSource for Train {
    fn segments<'a>(&'a self, out: &mut Segments<'a>) {
        out.push(&self.data);
    }
    fn name(&self) -> Option<&[u8]> {
        Some(&self.to)
    }
    fn udp_segment(&self) -> Option<u16> {
        Some(self.size)
    }
}

#[test]
fn trains_of_datagrams_arrive_whole() {
    use crate::host::udp;
    let mut ring = ring();
    if !ring.features().recv_multi {
        return println!("skipped: no standing receives");
    }
    let log = Arc::new(Log::default());
    let open = || udp::open("127.0.0.1:0".parse().expect("address"), udp::IpOptions::default(), true);
    let (a, b) = (open().expect("socket"), open().expect("socket"));
    let to = udp::sockaddr(udp::local_addr(&b).expect("address"));
    let bufs = ring.new_bufring(4, 68 * 1024, 192).expect("buffers");
    let op = Op::RecvMsgSlot { fd: b.clone(), bufs: Arc::clone(&bufs) };
    let id = ring.submit(op, Sink::Irq(log.clone(), 1));
    let data: Vec<u8> = (0..30 * 1000 + 10u32).map(|i| (i / 7) as u8).collect();
    let train = Train { data: data.clone(), to, size: 1000 };
    ring.submit(Op::SendSource { fd: a, source: Box::new(train), flags: 0 }, Sink::Irq(log.clone(), 2));
    let mut whole = Vec::new();
    let mut slots = 0;
    while whole.len() < data.len() {
        for (token, outcome) in run(&mut ring, &log, 1) {
            match outcome.payload {
                Payload::Slot(s) if token == 1 => {
                    assert_eq!(s.range().start, 192 + 40);
                    assert!(s.len() <= 1000 || s.segment() == Some(1000), "{:?}", s.segment());
                    whole.extend_from_slice(s.data());
                    slots += 1;
                }
                _ if token == 2 => assert_eq!(outcome.result, Ok(data.len() as u32)),
                _ => panic!("{:?}", outcome.result),
            }
        }
    }
    assert_eq!(whole, data);
    println!("{slots} slots");
    ring.cancel(id);
    settle(&mut ring);
    assert_eq!(bufs.available(), 4);
}
