//! The executor as its users see it. Each test runs a kernel of its own; they take turns.

use arch::host::eventfd::EventFd;
use arch::host::fd::{HostFd, OpenHow, pipe, socketpair};
use executor::softirq::SoftirqVec;
use executor::time::{now, sleep, timeout};
use executor::{Config, irq, shutdown, spawn, spawn_on, stats};
use klib::Errno;
use klib::ktime::Ktime;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Runs `f` as a task on CPU 0 of a fresh kernel and fails if it is not done within a minute.
fn kernel(ncpus: usize, what: &'static str, f: impl Future<Output = ()> + Send + 'static) {
    let code = executor::start(Config { ncpus, pin: true }, move || {
        spawn(async move {
            match timeout(Some(now() + Duration::from_secs(60)), f).await {
                Some(()) => shutdown(0),
                None => {
                    eprintln!("gave up waiting for: {what}");
                    shutdown(99);
                }
            }
        });
    });
    assert_eq!(code, 0, "{what}");
}

fn pipe_pair() -> (HostFd, HostFd) {
    pipe(true).expect("pipe")
}

#[test]
fn exit_code_and_cpus() {
    let code = executor::start(Config { ncpus: 2, pin: true }, || {
        assert_eq!(executor::nr_cpus(), 2);
        assert_eq!(executor::this_cpu(), 0);
        spawn_on(1, async {
            assert_eq!(executor::this_cpu(), 1);
            executor::migrate_to(0).await;
            assert_eq!(executor::this_cpu(), 0);
            executor::yield_now().await;
            assert_eq!(executor::this_cpu(), 0);
            shutdown(42);
            shutdown(43);
        });
    });
    assert_eq!(code, 42);
    assert_eq!(executor::try_this_cpu(), None);
}

#[test]
fn poll_fd_is_reusable_and_cancels() {
    kernel(1, "polls of a pipe", async {
        let (r, w) = pipe_pair();
        let mut ready = irq::poll_fd(r.as_raw_fd(), irq::POLLIN);
        for i in 0..100u8 {
            let w = w.clone();
            spawn(async move {
                w.write(&[i]).expect("write");
            });
            assert_eq!((&mut ready).await, Ok(irq::POLLIN));
            let mut b = [0];
            assert_eq!(r.read(&mut b), Ok(1));
            assert_eq!(b[0], i);
        }
        // Given up in flight, a thousand times: nothing is left behind and nothing is confused.
        for _ in 0..1000 {
            let p = irq::poll_fd(r.as_raw_fd(), irq::POLLIN);
            assert!(timeout(Some(now()), p).await.is_none());
        }
        w.write(b"x").expect("write");
        assert_eq!(ready.await, Ok(irq::POLLIN));
    });
}

#[test]
fn dropped_reads_keep_their_buffers() {
    kernel(2, "reads given up in flight", async {
        for round in 0..300u64 {
            let (r, w) = pipe_pair();
            let read = irq::read_fd(&r, vec![0u8; 64 << 10]);
            assert!(timeout(Some(now() + Duration::from_micros(round % 7)), read).await.is_none());
            // Whether the cancel or the write wins, the host writes only to memory that is still the operation's.
            let _ = w.write(&[7u8; 4096]);
            // A reader that moves away while its operation is under way on another ring.
            let (r2, w2) = pipe_pair();
            let mut read = Box::pin(async move { irq::read_fd(&r2, vec![1u8; 100]).await });
            assert!(timeout(Some(now()), &mut read).await.is_none());
            executor::migrate_to(((round + 1) % 2) as usize).await;
            if round % 3 == 0 {
                drop(read);
            } else {
                w2.write(b"hello").expect("write");
                let (n, buf) = read.await;
                assert_eq!((n, &buf[..6]), (Ok(5), &b"hello\x01"[..]));
            }
        }
    });
}

#[test]
fn files() {
    kernel(1, "file operations", async {
        let path = std::env::temp_dir().join(format!("executor-file-{}", std::process::id()));
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let f = HostFd::open(&path, how).expect("create");
        let (n, buf) = irq::write_at(&f, 4096, b"block".to_vec()).await;
        assert_eq!((n, buf.as_slice()), (Ok(5), &b"block"[..]));
        irq::fsync(&f, true).await.expect("fsync");
        irq::fallocate(&f, 0, 0, 8192).await.expect("fallocate");
        assert_eq!(f.size(), Ok(8192));
        let (n, buf) = irq::read_at(&f, 4095, vec![9; 7]).await;
        assert_eq!((n, buf.as_slice()), (Ok(7), &b"\0block\0"[..]));
        let (n, _) = irq::read_at(&f, 8192, vec![9; 7]).await;
        assert_eq!(n, Ok(0));
        irq::nop().await.expect("nop");
        // More operations than the submission queue holds, at once.
        let left = Arc::new(AtomicUsize::new(1000));
        for i in 0..1000u64 {
            let (f, left) = (f.clone(), Arc::clone(&left));
            spawn(async move {
                let (n, _) = irq::read_at(&f, i % 4096, vec![0; 16]).await;
                assert_eq!(n, Ok(16));
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while left.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let ro = HostFd::open(&path, OpenHow::default()).expect("open");
        let (n, _) = irq::write_at(&ro, 0, vec![1]).await;
        assert_eq!(n, Err(Errno::EBADF));
        std::fs::remove_file(&path).expect("remove");
    });
}

#[test]
fn ping_pong_between_cpus_loses_no_wake() {
    const ROUNDS: u64 = 100_000;
    kernel(2, "ping-pong between two CPUs", async {
        let ball = Arc::new(AtomicU64::new(0));
        let queue = klib::waitqueue::WaitQueue::new();
        let t0 = now();
        let (b, q) = (Arc::clone(&ball), queue.clone());
        spawn_on(1, async move {
            for i in 0..ROUNDS {
                q.wait_until(|| (b.load(Ordering::Acquire) == 2 * i + 1).then_some(())).await;
                b.store(2 * i + 2, Ordering::Release);
                q.wake_all();
            }
        });
        for i in 0..ROUNDS {
            ball.store(2 * i + 1, Ordering::Release);
            queue.wake_all();
            queue.wait_until(|| (ball.load(Ordering::Acquire) == 2 * i + 2).then_some(())).await;
        }
        let each = (now() - t0).as_nanos() as u64 / (2 * ROUNDS);
        println!("cross-CPU wake: {each} ns, kicks {:?}", stats::cpu(1).map(|s| s.kicks));
    });
}

#[test]
fn wakes_from_foreign_threads() {
    kernel(1, "results of blocking jobs", async {
        for i in 0..2000u32 {
            assert_eq!(executor::spawn_blocking(move || i + 1).await, i + 1);
        }
        let many: Vec<_> = (0..64).map(|i| executor::spawn_blocking(move || i)).collect();
        for (i, f) in many.into_iter().enumerate() {
            assert_eq!(f.await, i);
        }
        assert!(executor::blocking::threads() <= 8);
        drop(executor::spawn_blocking(|| 1));
    });
}

#[test]
fn timers_fire_in_order_and_not_early() {
    kernel(1, "timers", async {
        let order = Arc::new(Mutex::new(Vec::new()));
        let t0 = now();
        for ms in [9u64, 3, 6, 3, 1] {
            let order = Arc::clone(&order);
            spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                assert!(now() - t0 >= Duration::from_millis(ms));
                order.lock().expect("lock").push(ms);
            });
        }
        let fired = Arc::new(AtomicUsize::new(0));
        let f = Arc::clone(&fired);
        let timer = executor::hrtimer::Hrtimer::new(move || {
            f.fetch_add(1, Ordering::Relaxed);
        });
        timer.arm(now() + Duration::from_millis(2));
        timer.arm(now() + Duration::from_millis(4));
        sleep(Duration::from_millis(20)).await;
        assert_eq!(fired.load(Ordering::Relaxed), 1);
        timer.arm(now() + Duration::from_millis(1));
        assert!(timer.cancel());
        assert!(!timer.cancel());
        sleep(Duration::from_millis(3)).await;
        assert_eq!(fired.load(Ordering::Relaxed), 1);
        assert_eq!(*order.lock().expect("lock"), [1, 3, 3, 6, 9]);
        assert_eq!(timeout(None, async { 5 }).await, Some(5));
        assert_eq!(timeout(Some(Ktime(0)), async { 5 }).await, Some(5));
        assert_eq!(timeout(Some(Ktime(0)), std::future::pending::<()>()).await, None);
    });
}

#[test]
fn idle_makes_no_host_calls() {
    kernel(2, "an idle second", async {
        sleep(Duration::from_millis(50)).await;
        let before = stats::cpu(1).expect("CPU 1");
        sleep(Duration::from_millis(1000)).await;
        let after = stats::cpu(1).expect("CPU 1");
        assert_eq!(after.rounds, before.rounds, "the other CPU slept all the time");
        let own = stats::cpu(0).expect("CPU 0");
        assert!(own.enters < 200, "{own:?}");
    });
}

#[test]
fn softirqs_do_not_starve_tasks() {
    kernel(2, "softirqs", async {
        let runs = Arc::new(AtomicUsize::new(0));
        let r = Arc::clone(&runs);
        executor::softirq::register(
            SoftirqVec::NetRx,
            Arc::new(move || r.fetch_add(1, Ordering::Relaxed) + 1 < 1000),
        );
        executor::softirq::raise(SoftirqVec::NetRx);
        for _ in 0..10 {
            executor::yield_now().await;
        }
        assert!(runs.load(Ordering::Relaxed) < 1000, "tasks get their turn between runs");
        while runs.load(Ordering::Relaxed) < 1000 {
            executor::yield_now().await;
        }
        let cpu = Arc::new(AtomicUsize::new(9));
        let c = Arc::clone(&cpu);
        executor::softirq::register(
            SoftirqVec::NetTx,
            Arc::new(move || {
                c.store(executor::this_cpu(), Ordering::Release);
                false
            }),
        );
        executor::softirq::raise_on(1, SoftirqVec::NetTx);
        while cpu.load(Ordering::Acquire) != 1 {
            sleep(Duration::from_micros(100)).await;
        }
    });
}

struct Done(Mutex<Vec<(usize, klib::Result<u32>)>>, AtomicBool);

impl irq::TxDone for Done {
    fn done(&self, frame: Box<dyn irq::IoSource>, result: klib::Result<u32>) {
        drop(frame);
        let mut d = self.0.lock().expect("lock");
        let n = d.len();
        d.push((n, result));
    }
    fn batch_end(&self) {
        self.1.store(true, Ordering::Release);
    }
}

struct Frame {
    head: [u8; 4],
    body: Vec<u8>,
}

impl irq::IoSource for Frame {
    fn segments<'a>(&'a self, out: &mut irq::Segments<'a>) {
        out.push(&self.head);
        out.push(&self.body);
    }
}

async fn tx_to_rx(datagrams: bool) {
    const FRAMES: u32 = 3000;
    let (a, b) = socketpair(datagrams).expect("socketpair");
    let done = Arc::new(Done(Mutex::default(), AtomicBool::new(false)));
    let tx = Arc::new(irq::TxQueue::new(&a, irq::TxKind::Send, 128, done.clone()));
    let sender = Arc::clone(&tx);
    spawn(async move {
        for i in 0..FRAMES {
            let mut frame: Box<dyn irq::IoSource> =
                Box::new(Frame { head: i.to_be_bytes(), body: vec![i as u8; 1400] });
            loop {
                match sender.push(frame) {
                    Ok(()) => break,
                    Err(f) => frame = f,
                }
                sender.flush().expect("flush");
                sleep(Duration::from_micros(50)).await;
            }
        }
        sender.flush().expect("flush");
    });
    // The receiver starts late: the socket is full by then and frames have had to wait.
    sleep(Duration::from_millis(20)).await;
    let wake = Arc::new(klib::waitqueue::WaitQueue::new());
    let w = Arc::clone(&wake);
    let cfg = irq::RxConfig { kind: irq::RxKind::Recv, slots: 16, slot_size: 4096, headroom: 64 };
    let rx = irq::RxStream::start(&b, cfg, move || w.wake_all()).expect("rx");
    let mut kept = Vec::new();
    for i in 0..FRAMES {
        let mut frame = wake.wait_until(|| rx.pop()).await;
        assert_eq!(frame.len(), 1404);
        assert_eq!(frame[..4], i.to_be_bytes());
        assert_eq!(frame[1403], i as u8);
        assert_eq!(frame.range().start, 64);
        frame.data_mut()[0] = 1;
        kept.push(frame);
        // All slots in use: receiving stands still until some are given back, here from another thread.
        if kept.len() == 16 {
            let gone = std::mem::take(&mut kept);
            executor::spawn_blocking(move || drop(gone)).await;
        }
    }
    while !tx.is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    let done = done.0.lock().expect("lock");
    assert_eq!(done.len(), FRAMES as usize);
    assert!(done.iter().all(|d| d.1 == Ok(1404)));
    assert!(tx.retried() > 0, "the socket was full at times");
}

#[test]
fn written_frames_keep_their_order_when_the_pipe_is_full() {
    kernel(2, "2000 frames through a pipe", async {
        const FRAMES: u32 = 2000;
        let (r, w) = pipe(false).expect("pipe");
        let done = Arc::new(Done(Mutex::default(), AtomicBool::new(false)));
        let tx = irq::TxQueue::new(&w, irq::TxKind::Write, 256, done.clone());
        let reader = executor::spawn_blocking(move || {
            for i in 0..FRAMES {
                let mut frame = [0u8; 1404];
                let mut n = 0;
                while n < frame.len() {
                    n += r.read(&mut frame[n..]).expect("read");
                }
                assert_eq!(frame[..4], i.to_be_bytes());
                if i % 500 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        for i in 0..FRAMES {
            let mut frame: Box<dyn irq::IoSource> =
                Box::new(Frame { head: i.to_be_bytes(), body: vec![0; 1400] });
            while let Err(f) = tx.push(frame) {
                frame = f;
                tx.flush().expect("flush");
                sleep(Duration::from_micros(50)).await;
            }
        }
        tx.flush().expect("flush");
        reader.await;
        while !tx.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(done.0.lock().expect("lock").len(), FRAMES as usize);
        assert!(tx.retried() > 0, "the pipe was full at times");
    });
}

#[test]
fn datagrams_keep_their_order_when_the_socket_is_full() {
    kernel(2, "3000 datagrams", tx_to_rx(true));
}

#[test]
fn received_stream_ends() {
    kernel(1, "the end of a pipe", async {
        let (r, w) = pipe_pair();
        let wake = Arc::new(klib::waitqueue::WaitQueue::new());
        let q = Arc::clone(&wake);
        let cfg = irq::RxConfig { kind: irq::RxKind::Read, slots: 4, slot_size: 1024, headroom: 0 };
        let rx = irq::RxStream::start(&r, cfg, move || q.wake_all()).expect("rx");
        w.write(b"last words").expect("write");
        drop(w);
        assert_eq!(&wake.wait_until(|| rx.pop()).await[..], b"last words");
        assert_eq!(wake.wait_until(|| rx.ended()).await, Ok(()));
    });
}

#[test]
fn standing_poll_and_signals() {
    kernel(1, "edges and signals", async {
        let e = EventFd::new().expect("eventfd");
        let n = Arc::new(AtomicUsize::new(0));
        let m = Arc::clone(&n);
        let standing = irq::poll_standing(e.fd().as_raw_fd(), irq::POLLIN, move |r| {
            assert_eq!(r, Ok(irq::POLLIN));
            m.fetch_add(1, Ordering::Relaxed);
        })
        .expect("poll");
        for i in 0..50 {
            e.signal();
            while n.load(Ordering::Relaxed) <= i {
                sleep(Duration::from_micros(50)).await;
            }
            e.take().expect("take");
        }
        drop(standing);
        e.signal();
        sleep(Duration::from_millis(5)).await;
        assert_eq!(n.load(Ordering::Relaxed), 50);
    });
}

#[test]
fn runs_ahead_of_a_busy_thread() {
    kernel(1, "timers beside a busy host thread", async {
        let Some(host) = executor::host_cpu(0) else { return };
        let stop = Arc::new(AtomicBool::new(false));
        let s = Arc::clone(&stop);
        let busy = std::thread::spawn(move || {
            arch::host::thread::pin_to(host).expect("pin");
            while !s.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let mut late = Vec::new();
        for _ in 0..500 {
            let at = now() + Duration::from_millis(1);
            executor::time::sleep_until(at).await;
            late.push((now() - at).as_micros());
        }
        stop.store(true, Ordering::Relaxed);
        busy.join().expect("join");
        late.sort_unstable();
        println!(
            "timers beside a busy thread: late by {} us (median), {} us (90 %), {} us (99 %)",
            late[250], late[450], late[495]
        );
    });
}

#[test]
fn measure() {
    kernel(1, "measurements", async {
        const N: u64 = 50_000;
        let e = EventFd::new().expect("eventfd");
        let mut ready = irq::poll_fd(e.fd().as_raw_fd(), irq::POLLIN);
        let t0 = now();
        for _ in 0..N {
            e.signal();
            assert!((&mut ready).await.is_ok());
            e.take().expect("take");
        }
        println!("eventfd write, poll_fd, read: {} ns", (now() - t0).as_nanos() as u64 / N);
        let t0 = now();
        for _ in 0..N {
            e.signal();
            e.take().expect("take");
        }
        println!("of which write and read: {} ns", (now() - t0).as_nanos() as u64 / N);
        let t0 = now();
        for _ in 0..N {
            let e2 = e.clone();
            ready.arm();
            spawn(async move { e2.signal() });
            assert!((&mut ready).await.is_ok());
            e.take().expect("take");
        }
        println!("the same, armed before the write: {} ns", (now() - t0).as_nanos() as u64 / N);
        let t0 = now();
        for _ in 0..N * 10 {
            executor::yield_now().await;
        }
        println!("local wake and poll of a task: {} ns", (now() - t0).as_nanos() as u64 / (N * 10));
        let t0 = now();
        for _ in 0..N {
            irq::nop().await.expect("nop");
        }
        println!("nop through the ring: {} ns", (now() - t0).as_nanos() as u64 / N);
    });
}
