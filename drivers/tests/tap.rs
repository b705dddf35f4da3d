//! The vector NIC against the host's own stack over a real tap, in a network namespace that the test makes for itself.
//! Needs root (or a user namespace that may make network namespaces) and iproute2; otherwise it says so and passes.
//!
//! `cargo test -p drivers --release --test tap -- --ignored --nocapture` also prints throughput.

mod common;

use common::{in_namespace, on_a_cpu, sh, stack};
use drivers::vector::{Vector, VectorConfig};
use net::{Family, IfAddr, Net, TcpSock};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use uapi::Errno;

const HOST: [u8; 4] = [10, 91, 0, 1];
const GUEST: [u8; 4] = [10, 91, 0, 2];
const LIMIT: Duration = Duration::from_secs(60);

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
    let net = stack();
    let dev = net.register(nic.clone()).expect("registered");
    on_a_cpu(async move {
        net.set_link_up(dev.ifindex, true).expect("up");
        net.addr_add(dev.ifindex, IfAddr::new(GUEST.into(), 24)).expect("address");
        run(Arc::clone(net), total).await;
        let s = dev.stats();
        println!("{s:?}");
        println!("{:?} starved {}", dev.drv.ethtool().stats(), nic.rx_starved());
        assert_eq!((s.rx_errors, s.tx_errors, s.tx_dropped), (0, 0, 0));
        net.set_link_up(dev.ifindex, false).expect("down");
        net.set_link_up(dev.ifindex, true).expect("up again");
    });
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
