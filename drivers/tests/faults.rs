//! What the vector NIC does when its interface or its peer on the host goes away and comes back: no carrier meanwhile, frames
//! counted as dropped, no spinning, no descriptor left over, and frames flow again without a word from the guest.
//! In network namespaces that the tests make for themselves; where that is not permitted they say so and pass.

#[path = "support/relay.rs"]
mod relay;
mod support;

use arch::host::unix::Kind;
use drivers::vector::Vector;
use net::dev::ethtool::RingParams;
use net::dev::{Dev, IfFlags};
use net::{Features, NetDevice};
use relay::Relay;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{
    LIMIT, alone, descriptor_list, descriptors, echo_host, echo_net, machine, net, news, nic, round, sh,
    until, up, works,
};

const HOST: [u8; 4] = [10, 91, 0, 1];
const GUEST: [u8; 4] = [10, 91, 0, 2];
const PORT: u16 = 7777;
/// Bytes of a transfer.
const BYTES: u64 = 1 << 20;
/// Rounds of the executor's loop in a fifth of a second in which nothing happens: more is spinning.
const IDLE_ROUNDS: u64 = 2000;

fn running(dev: &Dev) -> bool {
    dev.flags().contains(IfFlags::RUNNING | IfFlags::LOWER_UP)
}

async fn shell(cmd: &str) {
    let cmd = cmd.to_owned();
    executor::spawn_blocking(move || sh(&cmd)).await;
}

/// While the way is lost: nothing gets through, nothing spins, knobs can be turned.
async fn absent(nic: &Arc<Vector>, dev: &Arc<Dev>, to: SocketAddr) {
    let dropped = dev.stats().tx_dropped;
    let r = round(0, to, 100, 1, Duration::from_millis(300)).await;
    assert!(r.is_err(), "nobody is there");
    assert!(dev.stats().tx_dropped > dropped, "what is sent is counted as dropped");
    let rounds = || executor::stats::cpu(0).expect("a CPU").rounds;
    let before = rounds();
    executor::time::sleep(Duration::from_millis(200)).await;
    assert!(rounds() - before < IDLE_ROUNDS, "{} rounds: it spins", rounds() - before);
    let ops = nic.ethtool();
    let rings = ops.rings().expect("rings");
    let rx = if rings.rx == 64 { 32 } else { 64 };
    let _ = ops.set_rings(&RingParams { rx, ..rings });
    let on = dev.drv.features();
    dev.drv.set_features(on & !Features::RXCSUM);
    dev.drv.set_features(on);
    assert!(!ops.stats().is_empty() && ops.self_test(false).is_ok());
}

/// The way goes and comes, again and again.
async fn comes_and_goes(
    nic: Arc<Vector>,
    devs: Vec<Arc<Dev>>,
    to: SocketAddr,
    gone: impl Fn() + Clone + Send + 'static,
    back: impl Fn() + Clone + Send + 'static,
) {
    let dev = Arc::clone(&devs[0]);
    round(0, to, BYTES, 1, LIMIT).await.expect("a first transfer");
    let (fds, list) = (descriptors(), descriptor_list());
    for turn in 0..4 {
        println!("turn {turn}: it goes");
        news();
        let changes = dev.carrier_changes();
        executor::spawn_blocking(gone.clone()).await;
        until("the carrier to go", || !running(&dev)).await;
        assert!(news().contains(&false), "listeners are told");
        absent(&nic, &dev, to).await;
        if turn == 1 {
            // The guest sets its link down and up meanwhile.
            net(0).set_link_up(dev.ifindex, false).expect("down");
            net(0).set_link_up(dev.ifindex, true).expect("up");
            assert!(!running(&dev), "still nobody there");
        }
        println!("turn {turn}: it comes back");
        news();
        executor::spawn_blocking(back.clone()).await;
        until("the carrier to come back", || devs.iter().all(|d| running(d))).await;
        assert!(news().contains(&true), "listeners are told");
        assert!(dev.carrier_changes() >= changes + 2, "both are counted");
        let before = dev.stats();
        let r = round(0, to, BYTES, 2 + turn, LIMIT).await;
        if let Err(e) = r {
            let all = nic.ethtool().stats();
            panic!("a transfer after it: {}: {before:?}, {:?} {all:?}", e.text(), dev.stats());
        }
        let after = dev.stats();
        assert!(after.rx_bytes >= before.rx_bytes + BYTES && after.tx_bytes >= before.tx_bytes + BYTES);
    }
    // Sockets of the transfers among them, which the host's side closes in its own time.
    until(&format!("{fds} descriptors again: {list:?}, now {:?}", descriptor_list()), || {
        descriptors() <= fds
    })
    .await;
    println!("{:?}", dev.stats());
}

/// An interface of the host that is deleted and made again.
fn interface(test: &str, line: &'static str, make: &'static str, delete: &'static str) {
    if !alone(test) {
        return;
    }
    sh(make);
    let Some((nic, dev)) = nic(0, line) else { return };
    machine(1, async move {
        let to = echo_host(([0, 0, 0, 0], 0).into());
        up(0, &dev, GUEST);
        let to = (HOST, to.port()).into();
        comes_and_goes(nic, vec![dev], to, || sh(delete), || sh(make)).await;
    });
}

#[test]
fn tap() {
    interface(
        "tap",
        "vec0:transport=tap,ifname=t0",
        "ip tuntap add t0 mode tap vnet_hdr && ip addr add 10.91.0.1/24 dev t0 && ip link set t0 up",
        "ip link del t0",
    );
}

#[test]
fn hybrid() {
    interface(
        "hybrid",
        "vec0:transport=hybrid,ifname=t0",
        "ip tuntap add t0 mode tap vnet_hdr && ip addr add 10.91.0.1/24 dev t0 && ip link set t0 up",
        "ip link del t0",
    );
}

#[test]
fn raw() {
    interface(
        "raw",
        "vec0:transport=raw,ifname=va",
        "ip link add va type veth peer name vb && ip addr add 10.91.0.1/24 dev vb && ip link set va up && \
         ip link set vb up",
        "ip link del va",
    );
}

/// Ended when dropped.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Down and up, another name, another namespace: the tap stays ours.
#[test]
fn tap_that_changes() {
    if !alone("tap_that_changes") {
        return;
    }
    let make = "ip tuntap add t0 mode tap vnet_hdr && ip addr add 10.91.0.1/24 dev t0 && ip link set t0 up";
    sh(make);
    let Some((_nic, dev)) = nic(0, "vec0:transport=tap,ifname=t0") else { return };
    machine(1, async move {
        let to = (HOST, echo_host(([0, 0, 0, 0], 0).into()).port()).into();
        up(0, &dev, GUEST);
        for name in ["t0", "t9"] {
            shell(&format!("ip link set {name} down")).await;
            until("no carrier", || !running(&dev)).await;
            shell(&format!("ip link set {name} up")).await;
            until("a carrier", || running(&dev)).await;
            round(0, to, BYTES, 3, LIMIT).await.expect("a transfer");
            if name == "t0" {
                shell("ip link set t0 down && ip link set t0 name t9 && ip link set t9 up").await;
            }
        }
        let child = Command::new("unshare").args(["-n", "sleep", "100"]).spawn().expect("a namespace");
        let there = Sleeper(child);
        let own = std::fs::read_link("/proc/self/ns/net").expect("own namespace");
        let ns = format!("/proc/{}/ns/net", there.0.id());
        until("the namespace", || std::fs::read_link(&ns).is_ok_and(|n| n != own)).await;
        shell(&format!("ip link set t9 netns {}", there.0.id())).await;
        shell("ip link add other type veth peer name other2").await;
        until("the interface to be gone from here", || !works("ip link show t9")).await;
        executor::time::sleep(Duration::from_millis(50)).await;
        assert!(dev.drv.carrier(), "it works on over there");
        // The interface ends with its namespace, and the descriptor with it.
        drop(there);
        until("no carrier", || !running(&dev)).await;
        shell(make).await;
        until("a carrier", || running(&dev)).await;
        round(0, to, BYTES, 4, LIMIT).await.expect("a transfer over the new one");
    });
}

/// The addresses of a tunnel go away with their interface: errors are counted, and frames flow when they are back.
fn tunnel(test: &str, lines: [&str; 2]) {
    if !alone(test) {
        return;
    }
    let make = "ip link add va type veth peer name vb && ip addr add 10.9.0.1/24 dev va && \
                ip addr add 10.9.0.2/24 dev vb && ip link set va up && ip link set vb up";
    sh(make);
    let (Some((_, a)), Some((_, b))) = (nic(0, lines[0]), nic(1, lines[1])) else { return };
    machine(1, async move {
        up(0, &a, GUEST);
        up(1, &b, HOST);
        echo_net(1, PORT);
        let to: SocketAddr = (HOST, PORT).into();
        round(0, to, BYTES, 1, LIMIT).await.expect("a first transfer");
        let fds = descriptors();
        for turn in 0..3 {
            shell("ip link del va").await;
            let before = a.stats();
            let r = round(0, to, 100, 1, Duration::from_millis(300)).await;
            assert!(r.is_err(), "nobody is there");
            until("errors to be counted", || a.stats().tx_errors > before.tx_errors).await;
            let rounds = || executor::stats::cpu(0).expect("a CPU").rounds;
            let before = rounds();
            executor::time::sleep(Duration::from_millis(200)).await;
            assert!(rounds() - before < IDLE_ROUNDS, "{} rounds: it spins", rounds() - before);
            shell(make).await;
            round(0, to, BYTES, 2 + turn, LIMIT).await.expect("a transfer after it");
        }
        assert_eq!(descriptors(), fds);
        println!("{:?} {:?}", a.stats(), b.stats());
    });
}

#[test]
fn vxlan() {
    let line = |n: u32, a: &str, b: &str| format!("vec{n}:transport=vxlan,vni=5,src={a},dst={b}");
    let (a, b) = (line(0, "10.9.0.1", "10.9.0.2"), line(1, "10.9.0.2", "10.9.0.1"));
    tunnel("vxlan", [&a, &b]);
}

#[test]
fn gre() {
    tunnel(
        "gre",
        ["vec0:transport=gre,src=10.9.0.1,dst=10.9.0.2", "vec1:transport=gre,src=10.9.0.2,dst=10.9.0.1"],
    );
}

/// The peer at the other end of a socket ends and is started again.
fn peer(test: &str, kind: Kind, line: fn(&str, &str) -> String) {
    if !alone(test) {
        return;
    }
    let dir = std::env::temp_dir().join(format!("kibble-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directory");
    let paths: [PathBuf; 2] = [dir.join("a"), dir.join("b")];
    let mut relay = Some(Relay::start(kind, [&paths[0], &paths[1]]));
    let lines = [0, 1].map(|i| {
        format!(
            "vec{i}:{}",
            line(&paths[i].display().to_string(), &dir.join(format!("own{i}")).display().to_string())
        )
    });
    let (Some((nic, a)), Some((_, b))) = (nic(0, &lines[0]), nic(1, &lines[1])) else { return };
    machine(1, async move {
        up(0, &a, GUEST);
        up(1, &b, HOST);
        echo_net(1, PORT);
        let relay = Arc::new(Mutex::new(relay.take()));
        let (one, other) = (Arc::clone(&relay), Arc::clone(&relay));
        let gone = move || drop(one.lock().expect("lock").take());
        let back = move || {
            *other.lock().expect("lock") = Some(Relay::start(kind, [&paths[0], &paths[1]]));
        };
        comes_and_goes(nic, vec![a, b], (HOST, PORT).into(), gone, back).await;
        relay.lock().expect("lock").take();
    });
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn stream() {
    peer("stream", Kind::Stream, |to, _| format!("transport=stream,dst={to}"));
}

#[test]
fn bess() {
    peer("bess", Kind::SeqPacket, |to, own| format!("transport=bess,dst={to},src={own}"));
}
