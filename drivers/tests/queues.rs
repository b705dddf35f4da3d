//! A tap with several queues: flows are spread over them and keep their order, each queue receives on a CPU of its own, and
//! `ethtool -L` changes their number under load. In network namespaces that the tests make for themselves; where that is not
//! permitted they say so and pass.

mod support;

use drivers::vector::{Vector, VectorConfig};
use net::NetDevice;
use net::dev::ethtool::ChannelParams;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::{LIMIT, alone, descriptors, echo_host, machine, net, nic, round, sh, stat, until, up};
use uapi::Errno;

const HOST: [u8; 4] = [10, 91, 0, 1];
const GUEST: [u8; 4] = [10, 91, 0, 2];
/// Connections at once.
const FLOWS: usize = 16;

/// Segments that came to the host's TCP out of order.
fn out_of_order() -> u64 {
    let text = std::fs::read_to_string("/proc/net/netstat").expect("counters");
    let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:")).map(|l| l.split(' ').skip(1));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.zip(values).find(|(n, _)| *n == "TCPOFOQueue").and_then(|(_, v)| v.parse().ok());
    found.expect("a counter")
}

fn channels(nic: &Vector) -> (u32, u32) {
    let c = nic.ethtool().channels().expect("channels");
    (c.combined, c.combined_max)
}

fn set(nic: &Vector, n: u32) -> uapi::Result<()> {
    let c = nic.ethtool().channels().expect("channels");
    nic.ethtool().set_channels(&ChannelParams { combined: n, ..c })
}

async fn flows(to: SocketAddr, bytes: u64) {
    let left = Arc::new(AtomicUsize::new(FLOWS));
    for i in 0..FLOWS {
        let left = Arc::clone(&left);
        executor::spawn_on(i % executor::nr_cpus(), async move {
            round(0, to, bytes, i as u64, LIMIT).await.expect("a transfer");
            left.fetch_sub(1, Ordering::SeqCst);
        });
    }
    until("all transfers", || left.load(Ordering::SeqCst) == 0).await;
}

fn frames(nic: &Vector, dir: &str, queue: usize) -> u64 {
    stat(nic, &format!("{dir}_queue_{queue}_frames"))
}

const MAKE: &str = "ip tuntap add t0 mode tap vnet_hdr multi_queue && ip addr add 10.91.0.1/24 dev t0 && \
                    ip link set t0 up";

#[test]
fn flows_are_spread_and_queues_come_and_go() {
    if !alone("flows_are_spread_and_queues_come_and_go") {
        return;
    }
    sh(MAKE);
    let Some((nic, dev)) = nic(0, "vec0:transport=tap,ifname=t0,queues=2") else { return };
    machine(2, async move {
        let to = (HOST, echo_host(([0, 0, 0, 0], 0).into()).port()).into();
        up(0, &dev, GUEST);
        assert_eq!(channels(&nic), (2, 2));
        let before = out_of_order();
        flows(to, 1 << 20).await;
        for (dir, queue) in [("rx", 0), ("rx", 1), ("tx", 0), ("tx", 1)] {
            assert!(frames(&nic, dir, queue) > 0, "{dir} queue {queue} has its part");
        }
        assert_eq!(out_of_order(), before, "each flow keeps its order");
        let fds = descriptors();
        // Up and down under load, with an interface that goes away in between.
        let stop = Arc::new(AtomicBool::new(false));
        let running = Arc::clone(&stop);
        executor::spawn(async move {
            while !running.load(Ordering::Acquire) {
                flows(to, 64 << 10).await;
            }
            running.store(false, Ordering::Release);
        });
        for turn in 0..12 {
            for n in [1, 2] {
                set(&nic, n).expect("another number");
                assert_eq!(channels(&nic), (n, 2));
                executor::time::sleep(Duration::from_millis(30)).await;
            }
            if turn == 6 {
                executor::spawn_blocking(|| sh("ip link del t0")).await;
                until("no carrier", || !dev.drv.carrier()).await;
                executor::spawn_blocking(|| sh(MAKE)).await;
                until("a carrier", || dev.drv.carrier()).await;
                assert_eq!(channels(&nic), (2, 2), "as many as before");
            }
        }
        stop.store(true, Ordering::Release);
        until("the load to end", || !stop.load(Ordering::Acquire)).await;
        // Down to one: everything goes by it.
        set(&nic, 1).expect("one");
        let one = frames(&nic, "rx", 0);
        flows(to, 64 << 10).await;
        assert!(frames(&nic, "rx", 0) > one);
        assert_eq!((frames(&nic, "rx", 1), frames(&nic, "tx", 1)), (0, 0), "no such queue");
        set(&nic, 2).expect("two");
        flows(to, 64 << 10).await;
        assert!(frames(&nic, "tx", 1) > 0 && frames(&nic, "rx", 1) > 0, "both again");
        for nonsense in [0, 3, u32::MAX] {
            assert_eq!(set(&nic, nonsense), Err(Errno::EINVAL));
        }
        net(0).set_link_up(dev.ifindex, false).expect("down");
        set(&nic, 1).expect("while it is down");
        net(0).set_link_up(dev.ifindex, true).expect("up");
        flows(to, 64 << 10).await;
        set(&nic, 2).expect("two");
        until("descriptors as before", || descriptors() <= fds).await;
        println!("{:?}", dev.stats());
        assert_eq!(dev.stats().rx_errors, 0);
    });
}

/// What a tap was made for decides, whatever is asked for.
#[test]
fn taps_of_other_kinds() {
    if !alone("taps_of_other_kinds") {
        return;
    }
    sh("ip tuntap add single mode tap vnet_hdr && ip tuntap add many mode tap vnet_hdr multi_queue");
    for (line, cpus, want, says) in [
        (
            "vec0:transport=tap,ifname=single,queues=4",
            1,
            (1, 1),
            "one queue: the tap was made without multi_queue",
        ),
        ("vec1:transport=tap,ifname=single", 2, (1, 1), "one queue: the tap was made without multi_queue"),
        ("vec2:transport=tap,ifname=many", 1, (1, 1), "tx/rx checksum"),
        ("vec3:transport=tap,ifname=many", 3, (3, 3), "3 queues"),
        ("vec4:transport=tap,ifname=many,queues=2", 4, (2, 4), "2 queues"),
        ("vec5:transport=tap,ifname=ours", 2, (2, 2), "2 queues"),
        ("vec6:transport=tap", 2, (2, 2), "2 queues"),
        ("vec7:transport=hybrid,ifname=many", 2, (1, 1), "tso and tx/rx checksum"),
    ] {
        let cfg = VectorConfig { cpus, ..VectorConfig::parse(line).expect("valid") };
        let nic = match Vector::new(&cfg) {
            Ok(n) => n,
            Err(e) => return println!("skipped: {e}"),
        };
        assert_eq!(channels(&nic), want, "{line}");
        assert!(nic.about().ends_with(says), "{line}: {}", nic.about());
        let max = want.1;
        assert!(set(&nic, max + 1).is_err(), "{line}");
        assert_eq!(set(&nic, 1), Ok(()), "{line}");
        assert_eq!(set(&nic, max), Ok(()), "{line}");
    }
}
