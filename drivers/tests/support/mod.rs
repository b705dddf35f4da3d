//! What tests of the vector NIC with whole stacks share: two stacks in one process on one executor, namespaces of their own,
//! waits with a limit, and transfers whose every byte is checked.
#![allow(dead_code, reason = "each test takes what it needs")]

use drivers::vector::{Vector, VectorConfig};
use executor::hrtimer::Hrtimer;
use executor::softirq::{self, SoftirqVec};
use klib::ktime::Ktime;
use net::dev::Dev;
use net::{Family, IfAddr, Net, NetDevice, NetHost, TcpSock};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use uapi::{Errno, Result};

/// Bound of every wait.
pub const LIMIT: Duration = Duration::from_secs(60);

static NETS: [OnceLock<Arc<Net>>; 2] = [OnceLock::new(), OnceLock::new()];
static TIMERS: [OnceLock<Hrtimer>; 2] = [OnceLock::new(), OnceLock::new()];
static ARMED: [Mutex<u64>; 2] = [Mutex::new(u64::MAX), Mutex::new(u64::MAX)];
static NEWS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

struct Host(usize);

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
        let mut armed = ARMED[self.0].lock().expect("lock");
        if at.0 < *armed {
            *armed = at.0;
            let n = self.0;
            TIMERS[n].get_or_init(|| Hrtimer::new(move || fire(n))).arm(at);
        }
    }
    fn announce(&self, group: u32, msg: &[u8]) {
        assert_eq!(group, 1, "RTNLGRP_LINK");
        NEWS.lock().expect("lock").push(msg.to_vec());
    }
}

fn fire(n: usize) {
    *ARMED[n].lock().expect("lock") = u64::MAX;
    let net = net(n);
    net.run_timers(arch::host::clock::monotonic());
    if let Some(at) = net.next_timer() {
        Host(n).timer_armed(at);
    }
}

/// Stack 0 or 1.
pub fn net(n: usize) -> &'static Arc<Net> {
    NETS[n].get_or_init(|| Net::new(Arc::new(Host(n))))
}

/// IFF_LOWER_UP of each RTM_NEWLINK since the last call.
pub fn news() -> Vec<bool> {
    let all = std::mem::take(&mut *NEWS.lock().expect("lock"));
    all.iter().map(|m| u32::from_ne_bytes(m[24..28].try_into().expect("flags")) & 0x1_0000 != 0).collect()
}

/// Runs a shell command, which must do.
pub fn sh(cmd: &str) {
    let ok = Command::new("sh").args(["-c", cmd]).status().is_ok_and(|s| s.success());
    assert!(ok, "{cmd}");
}

/// True if a shell command does.
pub fn works(cmd: &str) -> bool {
    Command::new("sh").args(["-c", cmd]).output().is_ok_and(|o| o.status.success())
}

/// Runs this test again in a process and a network namespace of its own. True in there.
pub fn alone(test: &str) -> bool {
    if std::env::var_os("KIBBLE_ALONE").is_some() {
        sh("ip link set lo up");
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        return true;
    }
    let flag = match (works("unshare -n true"), works("unshare -rn true")) {
        (true, _) => "-n",
        (_, true) => "-rn",
        _ => {
            println!("skipped: no network namespaces here");
            return false;
        }
    };
    let status = Command::new("unshare")
        .arg(flag)
        .arg(std::env::current_exe().expect("own path"))
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env("KIBBLE_ALONE", "1")
        .status()
        .expect("unshare");
    assert!(status.success(), "the test in its own process failed");
    false
}

/// Opens a NIC of a stack; `None`, with the reason printed, where the host has no such thing.
pub fn nic(n: usize, line: &str) -> Option<(Arc<Vector>, Arc<Dev>)> {
    let cfg = VectorConfig::parse(line).expect("valid");
    match Vector::new(&cfg) {
        Ok(v) => {
            let dev = net(n).register(v.clone()).expect("registered");
            Some((v, dev))
        }
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

/// Sets a NIC up with an address.
pub fn up(n: usize, dev: &Dev, addr: [u8; 4]) {
    net(n).set_link_up(dev.ifindex, true).expect("up");
    net(n).addr_add(dev.ifindex, IfAddr::new(addr.into(), 24)).expect("address");
}

/// Runs `main` on an executor with `ncpus` CPUs, which ends with it.
pub fn machine(ncpus: usize, main: impl Future<Output = ()> + Send + 'static) {
    let code = executor::start(executor::Config { ncpus, pin: false }, move || {
        softirq::register(
            SoftirqVec::NetTx,
            Arc::new(|| {
                NETS.iter().filter_map(OnceLock::get).for_each(|n| n.run_softirq());
                false
            }),
        );
        executor::spawn(async move {
            main.await;
            executor::shutdown(0);
        });
    });
    assert_eq!(code, 0);
}

/// Waits until `f` holds.
pub async fn until(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !f() {
        assert!(Instant::now() < end, "waited {LIMIT:?} for {what}");
        executor::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Open descriptors of this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("own descriptors").count()
}

/// Descriptors by what they lead to, for a message.
pub fn descriptor_list() -> Vec<String> {
    let all = std::fs::read_dir("/proc/self/fd").expect("own descriptors");
    let mut v: Vec<_> = all
        .flatten()
        .filter_map(|e| Some(std::fs::read_link(e.path()).ok()?.display().to_string()))
        .collect();
    v.sort();
    v
}

/// One of the NIC's numbers, as ethtool shows them.
pub fn stat(nic: &Vector, name: &str) -> u64 {
    nic.ethtool().stats().iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v)
}

/// A byte of a stream.
pub fn pattern(seed: u64, at: u64) -> u8 {
    let x = (at ^ seed.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 56) as u8 ^ (x >> 24) as u8
}

/// A server of the host that sends back what it gets. Its threads end with the process.
pub fn echo_host(at: SocketAddr) -> SocketAddr {
    let server = TcpListener::bind(at).expect("listener");
    let addr = server.local_addr().expect("address");
    std::thread::spawn(move || {
        for c in server.incoming().flatten() {
            std::thread::spawn(move || {
                let mut c = c;
                let mut buf = vec![0; 64 << 10];
                while let Ok(n) = c.read(&mut buf) {
                    if n == 0 || c.write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    addr
}

/// The same in a stack of ours.
pub fn echo_net(n: usize, port: u16) {
    let s = TcpSock::new(net(n), Family::V4);
    s.bind((IpAddr::from([0, 0, 0, 0]), port).into()).expect("bound");
    s.listen(16).expect("listening");
    executor::spawn(async move {
        loop {
            let c = s.wait_queue().wait_until(|| s.accept().ok()).await;
            executor::spawn(echo_one(c));
        }
    });
}

fn wait_over<T>(r: Result<T>) -> Option<Result<T>> {
    match r {
        Err(Errno::EAGAIN | Errno::EALREADY | Errno::EINPROGRESS) => None,
        r => Some(r),
    }
}

async fn echo_one(c: Arc<TcpSock>) {
    let mut buf = vec![0; 64 << 10];
    while let Ok(n) = c.wait_queue().wait_until(|| wait_over(c.recv(&mut buf))).await {
        let mut sent = 0;
        while sent < n {
            match c.wait_queue().wait_until(|| wait_over(c.send(&buf[sent..n]))).await {
                Ok(k) => sent += k,
                Err(_) => break,
            }
        }
        if n == 0 || sent < n {
            break;
        }
    }
    c.close();
}

/// Sends `total` bytes to an echo and checks each that comes back. `Err`: the connection failed, with what was done by then.
pub async fn round(n: usize, to: SocketAddr, total: u64, seed: u64, limit: Duration) -> Result<()> {
    let s = TcpSock::new(net(n), Family::V4);
    let end = executor::time::now() + limit;
    let r = exchange(&s, to, total, seed, end).await;
    s.close();
    r
}

async fn exchange(s: &Arc<TcpSock>, to: SocketAddr, total: u64, seed: u64, end: Ktime) -> Result<()> {
    let mut begun = s.connect(to);
    if matches!(begun, Err(Errno::EINPROGRESS)) {
        let connected = s.wait_queue().wait_until(|| wait_over(s.connect(to)));
        begun = executor::time::timeout(Some(end), connected).await.ok_or(Errno::ETIMEDOUT)?;
    }
    begun?;
    let (mut sent, mut got) = (0u64, 0u64);
    let (mut out, mut back) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    while got < total {
        let want = (total - sent).min(out.len() as u64) as usize;
        out[..want].iter_mut().enumerate().for_each(|(i, b)| *b = pattern(seed, sent + i as u64));
        let step = s.wait_queue().wait_until(|| {
            let k = if want > 0 { s.send(&out[..want]) } else { Err(Errno::EAGAIN) };
            let n = s.recv(&mut back);
            match (k, n) {
                (Err(Errno::EAGAIN), Err(Errno::EAGAIN)) => None,
                (Err(e), _) if e != Errno::EAGAIN => Some(Err(e)),
                (_, Err(e)) if e != Errno::EAGAIN => Some(Err(e)),
                (k, n) => Some(Ok((k.unwrap_or(0), n.map(Some).unwrap_or(None)))),
            }
        });
        let (k, n) = executor::time::timeout(Some(end), step).await.ok_or(Errno::ETIME)??;
        sent += k as u64;
        let Some(n) = n else { continue };
        if n == 0 {
            return Err(Errno::EPIPE);
        }
        for (i, b) in back[..n].iter().enumerate() {
            assert_eq!(*b, pattern(seed, got + i as u64), "byte {} of the stream", got + i as u64);
        }
        got += n as u64;
    }
    Ok(())
}
