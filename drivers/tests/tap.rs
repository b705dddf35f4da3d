//! The vector NIC against the host's own stack over a real tap, in a network namespace that the test makes for itself.
//! Needs root (or a user namespace that may make network namespaces) and iproute2; otherwise it says so and passes.
//!
//! `cargo test -p drivers --release --test tap -- --ignored --nocapture` also prints throughput.

use drivers::vector::{Vector, VectorConfig};
use executor::hrtimer::Hrtimer;
use executor::softirq::{self, SoftirqVec};
use klib::ktime::Ktime;
use net::{Family, IfAddr, Net, NetHost, TcpSock};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use uapi::Errno;

const HOST: [u8; 4] = [10, 91, 0, 1];
const GUEST: [u8; 4] = [10, 91, 0, 2];
const LIMIT: Duration = Duration::from_secs(60);

static NET: OnceLock<Arc<Net>> = OnceLock::new();
static TIMER: OnceLock<Hrtimer> = OnceLock::new();
static ARMED: Mutex<u64> = Mutex::new(u64::MAX);

struct Host;

impl NetHost for Host {
    fn now(&self) -> Ktime {
        arch::host::clock::monotonic()
    }
    fn random(&self, out: &mut [u8]) {
        arch::host::random::fill(out).expect("random bytes");
    }
    fn raise_softirq(&self) {
        softirq::raise(SoftirqVec::NetTx);
    }
    fn timer_armed(&self, at: Ktime) {
        let mut armed = ARMED.lock().expect("lock");
        if at.0 < *armed {
            *armed = at.0;
            TIMER.get_or_init(|| Hrtimer::new(fire)).arm(at);
        }
    }
}

fn fire() {
    *ARMED.lock().expect("lock") = u64::MAX;
    let net = NET.get().expect("stack");
    net.run_timers(arch::host::clock::monotonic());
    if let Some(at) = net.next_timer() {
        Host.timer_armed(at);
    }
}

fn sh(cmd: &str) {
    let ok = Command::new("sh").args(["-c", cmd]).status().is_ok_and(|s| s.success());
    assert!(ok, "{cmd}");
}

/// Runs this test again inside a namespace of its own. True in there; false: done (or skipped, with the reason printed).
fn in_namespace(test: &str) -> bool {
    if std::env::var_os("KIBBLE_TAP_TEST").is_some() {
        return true;
    }
    let probe = Command::new("unshare").args(["-rn", "true"]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        println!("skipped: unshare -rn is not permitted here");
        return false;
    }
    let exe = std::env::current_exe().expect("own path");
    // As root the real root is kept: /dev/net/tun asks for it on some hosts.
    let root = Command::new("unshare").args(["-n", "true"]).output().is_ok_and(|o| o.status.success());
    let status = Command::new("unshare")
        .arg(if root { "-n" } else { "-rn" })
        .arg(exe)
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env("KIBBLE_TAP_TEST", "1")
        .status()
        .expect("unshare");
    assert!(status.success(), "the test in the namespace failed");
    false
}

async fn until<T>(s: &TcpSock, what: &str, mut f: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let end = executor::time::now() + LIMIT;
    let wait = s.wait_queue().wait_until(|| match f() {
        Err(Errno::EAGAIN | Errno::EALREADY | Errno::EINPROGRESS) => None,
        r => Some(r),
    });
    let r = executor::time::timeout(Some(end), wait).await;
    r.unwrap_or_else(|| panic!("waited {LIMIT:?} for {what}"))
}

async fn dial(net: &Arc<Net>, to: SocketAddr) -> Arc<TcpSock> {
    let s = TcpSock::new(net, Family::V4);
    assert_eq!(s.connect(to), Err(Errno::EINPROGRESS));
    until(&s, "the connection", || s.connect(to)).await.expect("connected");
    s
}

fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Sends and receives `total` bytes and checks each; prints the figures.
async fn run(net: Arc<Net>, total: u64) {
    // Guest to host.
    let server = TcpListener::bind((IpAddr::from(HOST), 0)).expect("listener");
    let to = server.local_addr().expect("address");
    let (tell, done) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut c, _) = server.accept().expect("accepted");
        let mut buf = vec![0u8; 128 * 1024];
        let mut at = 0u64;
        loop {
            match c.read(&mut buf).expect("read") {
                0 => break,
                n => {
                    for (i, b) in buf[..n].iter().enumerate().step_by(509) {
                        assert_eq!(*b, pattern(at + i as u64), "byte {}", at + i as u64);
                    }
                    at += n as u64;
                }
            }
        }
        tell.send(at).expect("told");
    });
    let block: Vec<u8> = (0..(1u64 << 24) + 256 * 1024).map(pattern).collect();
    let s = dial(&net, to).await;
    let start = Instant::now();
    let mut sent = 0u64;
    while sent < total {
        let from = (sent % (1 << 24)) as usize;
        let want = (total - sent).min(128 * 1024) as usize;
        let data = &block[from..from + want];
        sent += until(&s, "room to send", || s.send(data)).await.expect("sent") as u64;
    }
    s.shutdown(net::Shutdown::Write).expect("shut");
    let n = loop {
        match done.try_recv() {
            Ok(n) => break n,
            Err(mpsc::TryRecvError::Disconnected) => panic!("the peer failed"),
            Err(_) => executor::time::sleep(Duration::from_millis(2)).await,
        }
        assert!(start.elapsed() < LIMIT, "waited for the peer to have it all");
    };
    assert_eq!(n, total);
    println!("guest to host: {:.2} Gbit/s", total as f64 * 8e-9 / start.elapsed().as_secs_f64());
    s.close();
    // Host to guest.
    let server = TcpListener::bind((IpAddr::from(HOST), 0)).expect("listener");
    let to = server.local_addr().expect("address");
    let out = block.clone();
    std::thread::spawn(move || {
        let (mut c, _) = server.accept().expect("accepted");
        let mut at = 0u64;
        while at < total {
            let from = (at % (1 << 24)) as usize;
            let want = (total - at).min(128 * 1024) as usize;
            at += c.write(&out[from..from + want]).expect("write") as u64;
        }
    });
    let s = dial(&net, to).await;
    let start = Instant::now();
    let mut buf = vec![0u8; 128 * 1024];
    let mut at = 0u64;
    loop {
        let n = until(&s, "bytes", || s.recv(&mut buf)).await.expect("received");
        if n == 0 {
            break;
        }
        for (i, b) in buf[..n].iter().enumerate().step_by(509) {
            assert_eq!(*b, pattern((at + i as u64) % (1 << 24)), "byte {}", at + i as u64);
        }
        at += n as u64;
    }
    assert_eq!(at, total);
    println!("host to guest: {:.2} Gbit/s", total as f64 * 8e-9 / start.elapsed().as_secs_f64());
    s.close();
}

fn drive(total: u64) {
    let cfg = VectorConfig::parse("vec0:transport=tap,ifname=kib0,depth=128,gro=1").expect("valid");
    let nic = match Vector::new(&cfg) {
        Ok(n) => n,
        Err(e) => return println!("skipped: {e}"),
    };
    sh("ip link set lo up && ip addr add 10.91.0.1/24 dev kib0 && ip link set kib0 up");
    let net = NET.get_or_init(|| Net::new(Arc::new(Host)));
    let dev = net.register(nic.clone()).expect("registered");
    let code = executor::start(executor::Config { ncpus: 1, pin: false }, move || {
        softirq::register(
            SoftirqVec::NetTx,
            Arc::new(|| {
                NET.get().expect("stack").run_softirq();
                false
            }),
        );
        executor::spawn(async move {
            let net = NET.get().expect("stack");
            net.set_link_up(dev.ifindex, true).expect("up");
            net.addr_add(dev.ifindex, IfAddr::new(GUEST.into(), 24)).expect("address");
            run(Arc::clone(net), total).await;
            let s = dev.stats();
            println!("{s:?}");
            println!("{:?} starved {}", dev.drv.ethtool().stats(), nic.rx_starved());
            assert_eq!((s.rx_errors, s.tx_errors, s.tx_dropped), (0, 0, 0));
            net.set_link_up(dev.ifindex, false).expect("down");
            net.set_link_up(dev.ifindex, true).expect("up again");
            executor::shutdown(0);
        });
    });
    assert_eq!(code, 0);
}

#[test]
fn bytes_arrive_in_both_directions() {
    if in_namespace("bytes_arrive_in_both_directions") {
        drive(64 << 20);
    }
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    if in_namespace("throughput") {
        drive(4 << 30);
    }
}
