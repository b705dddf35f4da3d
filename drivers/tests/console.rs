//! Consoles on pipes, files and pseudo-terminals.

use arch::host::fd::{HostFd, OpenHow, pipe, socketpair};
use arch::host::signal;
use arch::host::term::{is_raw, open_pty, set_winsize};
use device::tty_port::TtyPort;
use drivers::console::{Channel, Spec, open};
use executor::irq::{POLLIN, POLLOUT, POLLPRI};
use executor::time::{now, timeout};
use executor::{Config, shutdown, spawn};
use klib::Errno;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

fn kernel(what: &'static str, f: impl Future<Output = ()> + Send + 'static) {
    let code = executor::start(Config { ncpus: 1, pin: false }, move || {
        spawn(async move {
            match timeout(Some(now() + Duration::from_secs(30)), f).await {
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

fn port(input: &HostFd, output: &HostFd) -> Arc<dyn TtyPort> {
    let spec = Spec { input: Channel::Fd(input.as_raw_fd()), output: Channel::Fd(output.as_raw_fd()) };
    open(spec).expect("opens").expect("exists").start()
}

/// Reads until `want` bytes are there or the line hangs up.
async fn read(port: &Arc<dyn TtyPort>, want: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < want {
        let mut buf = [0u8; 1000];
        let queue = port.wait_queue();
        let step = queue.wait_until(|| match port.try_read(&mut buf) {
            Err(Errno::EAGAIN) => None,
            r => Some(r),
        });
        match step.await {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(e) => panic!("read: {e:?}"),
        }
    }
    got
}

async fn write(port: &Arc<dyn TtyPort>, mut data: &[u8]) {
    while !data.is_empty() {
        let n = port.wait_queue().wait_until(|| port.try_write(data).ok()).await;
        data = &data[n..];
    }
}

#[test]
fn pipes_deliver_buffered_input_before_the_hangup() {
    kernel("a console on pipes", async {
        let (in_r, in_w) = pipe(false).expect("pipe");
        let (out_r, out_w) = pipe(false).expect("pipe");
        let port = port(&in_r, &out_w);
        in_w.write(b"hello ").expect("write");
        in_w.write(b"world").expect("write");
        drop(in_w);
        assert_eq!(read(&port, 100).await, b"hello world");
        assert_eq!(port.try_read(&mut [0]), Ok(0), "hang-up stays");
        assert_eq!(port.winsize(), None);
        write(&port, b"out").await;
        let mut b = [0u8; 10];
        let n = executor::spawn_blocking(move || out_r.read(&mut b).map(|n| b[..n].to_vec())).await;
        assert_eq!(n, Ok(b"out".to_vec()));
    });
}

#[test]
fn output_is_bounded_and_never_blocks() {
    kernel("a console nobody reads", async {
        let (in_r, _in_w) = pipe(false).expect("pipe");
        let (out_r, out_w) = pipe(false).expect("pipe");
        let port = port(&in_r, &out_w);
        let mut sent = 0usize;
        let mut idle = 0;
        while idle < 50 {
            match port.try_write(&[b'x'; 3000]) {
                Ok(n) => sent += n,
                Err(Errno::EAGAIN) => {
                    idle += 1;
                    executor::time::sleep(Duration::from_millis(1)).await;
                }
                Err(e) => panic!("{e:?}"),
            }
            assert!(sent <= 1 << 20, "bounded");
        }
        assert!(sent >= 128 << 10, "pipe and queue are full: {sent}");
        let reader = executor::spawn_blocking(move || {
            let mut got = 0;
            let mut b = vec![0u8; 8192];
            while got < sent {
                got += out_r.read(&mut b).expect("read");
            }
            got
        });
        assert_eq!(reader.await, sent);
        assert!(port.wait_queue().wait_until(|| port.try_write(b"y").ok()).await == 1);
        let _ = POLLOUT;
    });
}

#[test]
fn sockets_and_dead_ends() {
    kernel("a console on a socket", async {
        let (a, b) = socketpair(false).expect("socketpair");
        let port = port(&a, &a);
        write(&port, b"ping").await;
        let mut buf = [0u8; 16];
        executor::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(b.read(&mut buf), Ok(4));
        b.write(b"pong").expect("write");
        assert_eq!(read(&port, 4).await, b"pong");
        drop(b);
        assert_eq!(read(&port, 1).await, b"");
        // Output to nobody is discarded, not an error and not a hang.
        for _ in 0..100 {
            write(&port, &[b'z'; 4000]).await;
        }
    });
}

#[test]
fn plain_files() {
    kernel("a console on files", async {
        let dir = std::env::temp_dir();
        let (i, o) = (
            dir.join(format!("con-in-{}", std::process::id())),
            dir.join(format!("con-out-{}", std::process::id())),
        );
        let script = "line\n".repeat(30_000);
        std::fs::write(&i, &script).expect("write");
        let input = HostFd::open(&i, OpenHow::default()).expect("open");
        let output =
            HostFd::open(&o, OpenHow { write: true, create: true, ..OpenHow::default() }).expect("open");
        let port = port(&input, &output);
        let got = read(&port, usize::MAX).await;
        assert!(got == script.as_bytes(), "{} of {} bytes", got.len(), script.len());
        write(&port, script.as_bytes()).await;
        for _ in 0..1000 {
            if std::fs::metadata(&o).expect("stat").len() == script.len() as u64 {
                break;
            }
            executor::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(std::fs::read(&o).expect("read") == script.as_bytes());
        std::fs::remove_file(&i).expect("remove");
        std::fs::remove_file(&o).expect("remove");
    });
}

#[test]
fn terminal_is_raw_and_put_back() {
    let (master, slave) = open_pty().expect("pty");
    assert!(!is_raw(&slave));
    let (m, s) = (master.clone(), slave.clone());
    kernel("a console on a terminal", async move {
        set_winsize(&m, 80, 25).expect("winsize");
        let port = port(&s, &s);
        assert!(is_raw(&s));
        assert_eq!(port.winsize(), Some((80, 25)));
        m.write(b"\x03ab\r").expect("write");
        assert_eq!(read(&port, 4).await, b"\x03ab\r", "raw: ^C and CR pass");
        write(&port, b"a\nb").await;
        executor::time::sleep(Duration::from_millis(5)).await;
        let mut b = [0u8; 10];
        let n = m.read(&mut b).expect("read");
        assert_eq!(&b[..n], b"a\nb", "no output processing");
        // The host says that the window has changed.
        let target = Arc::new(klib::waitqueue::TaskTarget::default());
        let token = port.wait_queue().add(POLLPRI, target.clone());
        target.arm(std::task::Waker::noop());
        set_winsize(&m, 132, 50).expect("winsize");
        signal::raise_in_thread(signal::SIGWINCH);
        while !target.was_woken() {
            executor::time::sleep(Duration::from_millis(1)).await;
        }
        drop(token);
        assert_eq!(port.winsize(), Some((132, 50)));
        port.flush_now();
        let _ = POLLIN;
    });
    assert!(!is_raw(&slave), "put back at the end");
    drop(master);
}

#[test]
fn sigterm_ends_with_the_terminal_restored() {
    let (master, slave) = open_pty().expect("pty");
    let s = slave.clone();
    let code = executor::start(Config { ncpus: 1, pin: false }, move || {
        let port = port(&s, &s);
        assert!(is_raw(&s));
        spawn(async move {
            write(&port, b"last words").await;
            // To this thread's process: taken by the signalfd, since all CPUs block it.
            arch::host::signal::raise_in_thread(signal::SIGTERM);
        });
    });
    assert_eq!(code, 128 + signal::SIGTERM);
    assert!(!is_raw(&slave));
    let mut b = [0u8; 32];
    let n = master.read(&mut b).expect("read");
    assert_eq!(&b[..n], b"last words");
}

/// Run by `a_panic_restores_the_terminal` in a process of its own, with a terminal as its standard input.
#[test]
fn crasher() {
    if std::env::var_os("CONSOLE_TEST_CRASH").is_none() {
        return;
    }
    executor::start(Config { ncpus: 2, pin: false }, || {
        let stdin = Spec { input: Channel::Fd(0), output: Channel::Fd(0) };
        let _port = open(stdin).expect("opens").expect("exists").start();
        let fd = HostFd::dup_of(0).expect("stdin");
        assert!(is_raw(&fd));
        executor::spawn_on(1, async { panic!("a bug") });
    });
}

#[test]
fn a_panic_restores_the_terminal() {
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    let (master, slave) = open_pty().expect("pty");
    let stdin = slave.as_fd().try_clone_to_owned().expect("dup");
    let out = std::process::Command::new(std::env::current_exe().expect("exe"))
        .args(["crasher", "--exact", "--nocapture"])
        .env("CONSOLE_TEST_CRASH", "1")
        .stdin(stdin)
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("a bug") && text.contains("Kernel panic"), "{text}");
    assert!(out.status.signal().is_some() || out.status.code() == Some(134), "{:?}", out.status);
    assert!(!is_raw(&slave));
    drop(master);
}
