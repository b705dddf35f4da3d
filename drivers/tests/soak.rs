//! Everything at once, for long: ten NICs of two stacks under load while their interfaces, peers, rings, offloads and
//! queues change at random. Every byte is checked; at the end nothing hangs and nothing is left over.
//!
//! Twenty seconds, or what `KIBBLE_SOAK_SECONDS` says (an hour: `KIBBLE_SOAK_SECONDS=3600 cargo test -p drivers --release --test
//! soak -- --nocapture`). The order of events is that of the seed that is printed; `KIBBLE_SOAK_SEED` repeats it.
//! In a network namespace of its own; skipped with a reason where that is not permitted.

#[path = "support/relay.rs"]
mod relay;
mod support;

use arch::host::unix::Kind;
use drivers::vector::Vector;
use net::dev::ethtool::{Coalesce, RingParams};
use net::dev::{Dev, IfFlags};
use net::{Features, NetDevice};
use relay::Relay;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{
    LIMIT, alone, descriptor_list, descriptors, echo_host, echo_net, machine, net, nic, round, sh, until, up,
};

const PORT: u16 = 7777;
/// Bytes by which memory may differ in the end: what the allocator and the pool of packet buffers keep.
const SLACK: u64 = 64 << 20;

/// Numbers that a seed tells (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Something of the host's that can go away: how it goes and how it comes.
struct Thing {
    make: &'static str,
    down: &'static str,
    up: &'static str,
    delete: &'static str,
}

const THINGS: [Thing; 4] = [
    Thing {
        make: "ip tuntap add t0 mode tap vnet_hdr multi_queue && ip addr add 10.90.0.1/24 dev t0 && ip link set t0 up",
        down: "ip link set t0 down",
        up: "ip addr replace 10.90.0.1/24 dev t0 && ip link set t0 up",
        delete: "ip link del t0",
    },
    Thing {
        make: "ip tuntap add t1 mode tap vnet_hdr && ip addr add 10.90.1.1/24 dev t1 && ip link set t1 up",
        down: "ip link set t1 down",
        up: "ip addr replace 10.90.1.1/24 dev t1 && ip link set t1 up",
        delete: "ip link del t1",
    },
    Thing {
        make: "ip link add va type veth peer name vb && ip link set va up && ip link set vb up",
        down: "ip link set va down",
        up: "ip link set va up",
        delete: "ip link del vb",
    },
    Thing {
        make: "ip link add ua type veth peer name ub && ip addr add 10.9.0.1/24 dev ua && \
               ip addr add 10.9.0.2/24 dev ub && ip link set ua up && ip link set ub up",
        down: "ip link set ua down && ip link set ub down",
        up: "ip link set ua up && ip link set ub up",
        delete: "ip link del ua",
    },
];

/// Ways between the two stacks, from either side; `@` is the number of the side's own address, `%` the other's.
const PAIRS: [(&str, [&str; 2]); 5] = [
    ("raw", ["transport=raw,ifname=va", "transport=raw,ifname=vb"]),
    ("vxlan", ["transport=vxlan,vni=5,src=10.9.0.@,dst=10.9.0.%"; 2]),
    ("geneve", ["transport=geneve,vni=5,src=10.9.0.@,dst=10.9.0.%"; 2]),
    ("gre", ["transport=gre,src=10.9.0.@,dst=10.9.0.%,key=7"; 2]),
    (
        "l2tpv3",
        ["transport=l2tpv3,udp=1,src=10.9.0.@,dst=10.9.0.%,srcport=170@,dstport=170%,rx_session=9,tx_session=9";
            2],
    ),
];

struct Link {
    name: &'static str,
    nics: Vec<(usize, Arc<Vector>, Arc<Dev>)>,
    to: SocketAddr,
    rounds: AtomicU64,
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Opens everything. `None`: the host does not have it all, and says what is missing.
fn open(paths: &[PathBuf; 4], fds: [i32; 2]) -> Option<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    let mut add = |name, lines: Vec<String>| -> Option<()> {
        let n = links.len();
        let mut nics = Vec::new();
        for (side, line) in lines.iter().enumerate() {
            let (v, dev) = nic(side, &format!("vec{n}:{line}"))?;
            nics.push((side, v, dev));
        }
        links.push(Link { name, nics, to: ([10, 90, n as u8, 1], PORT).into(), rounds: AtomicU64::new(0) });
        Some(())
    };
    add("tap", vec!["transport=tap,ifname=t0,gro=1,queues=2".into()])?;
    add("hybrid", vec!["transport=hybrid,ifname=t1".into()])?;
    for (name, lines) in PAIRS {
        let of = |i: usize| lines[i].replace('@', &(i + 1).to_string()).replace('%', &(2 - i).to_string());
        add(name, vec![of(0), of(1)])?;
    }
    let to = |t: &str, p: &PathBuf| format!("transport={t},dst={}", p.display());
    add("stream", vec![to("stream", &paths[0]), to("stream", &paths[1])])?;
    add("bess", vec![to("bess", &paths[2]), to("bess", &paths[3])])?;
    add("fd", fds.iter().map(|fd| format!("transport=fd,fd={fd}")).collect())?;
    Some(links)
}

/// Transfers over one link until the end is near.
async fn load(
    link: Arc<Vec<Link>>,
    i: usize,
    stop: Arc<AtomicBool>,
    failed: Arc<Mutex<BTreeMap<String, u64>>>,
) {
    let l = &link[i];
    let mut random = Random(i as u64);
    while !stop.load(Ordering::Acquire) {
        let bytes = 1 << (10 + random.below(12));
        match round(0, l.to, bytes, random.next(), Duration::from_secs(15)).await {
            Ok(()) => {
                l.rounds.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => {
                // Nobody at the other end, for too long: a new connection.
                *failed.lock().expect("lock").entry(format!("{}: {}", l.name, e.text())).or_default() += 1;
                executor::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn shell(cmd: &'static str) {
    executor::spawn_blocking(move || sh(cmd)).await;
}

/// Turns a knob of a NIC at random.
fn knob(random: &mut Random, side: usize, nic: &Vector, dev: &Arc<Dev>) -> String {
    let ops = nic.ethtool();
    match random.below(5) {
        0 => {
            let rings = ops.rings().expect("rings");
            let (rx, tx) = (1 << (4 + random.below(5)), 1 + random.below(1024) as u32);
            let r = ops.set_rings(&RingParams { rx, tx, ..rings });
            format!("-G rx {rx} tx {tx}: {r:?}")
        }
        1 => {
            let all = dev.hw_features();
            let on = Features::from_bits_truncate(random.next() as u32) & all;
            dev.set_wanted(all, on);
            format!("-K {on:?}")
        }
        2 => {
            let n = [0, 0, 20, 300][random.below(4)];
            let c = Coalesce { rx_usecs: Some(n), rx_frames: Some(8), tx_usecs: Some(n), tx_frames: Some(8) };
            format!("-C usecs {n}: {:?}", ops.set_coalesce(&c))
        }
        3 => {
            let mut c = ops.channels().expect("channels");
            c.combined = 1 + random.below(c.combined_max as usize) as u32;
            format!("-L combined {}: {:?}", c.combined, ops.set_channels(&c))
        }
        _ => {
            let mtu = 1280 + random.below(200) as u32;
            format!("mtu {mtu}: {:?}", net(side).set_mtu(dev, mtu))
        }
    }
}

/// Back to how it was at first.
fn restore(link: &Link) {
    for (side, nic, dev) in &link.nics {
        let ops = nic.ethtool();
        let rings = ops.rings().expect("rings");
        // Slots keep the memory that was touched once: new ones, as at first.
        for rx in [16, 64] {
            let _ = ops.set_rings(&RingParams { rx, tx: 64, ..rings });
        }
        dev.set_wanted(dev.hw_features(), dev.hw_features());
        let zero = Coalesce { rx_usecs: Some(0), rx_frames: Some(0), tx_usecs: Some(0), tx_frames: Some(0) };
        ops.set_coalesce(&zero).expect("coalesce");
        net(*side).set_mtu(dev, 1500).expect("mtu");
    }
}

/// What happens, until the time is up.
async fn chaos(
    links: &[Link],
    paths: &[PathBuf; 4],
    relays: &mut [Option<Relay>; 2],
    seed: u64,
    time: Duration,
) {
    let mut random = Random(seed);
    let end = executor::time::now() + time;
    let (mut events, mut tell) = (0, executor::time::now());
    while executor::time::now() < end {
        executor::time::sleep(Duration::from_millis(20 + random.below(200) as u64)).await;
        let pause = Duration::from_millis(10 + random.below(300) as u64);
        let what = match random.below(8) {
            0 => {
                let t = random.of(&THINGS);
                shell(t.down).await;
                executor::time::sleep(pause).await;
                shell(t.up).await;
                t.down.to_owned()
            }
            1 => {
                let t = random.of(&THINGS);
                shell(t.delete).await;
                executor::time::sleep(pause).await;
                shell(t.make).await;
                t.delete.to_owned()
            }
            2 => {
                let i = random.below(2);
                let old = relays[i].take();
                executor::spawn_blocking(move || drop(old)).await;
                executor::time::sleep(pause).await;
                relays[i] = Some(relay(i, paths));
                format!("relay {i}")
            }
            _ => {
                let l = random.of(links);
                let (side, nic, dev) = random.of(&l.nics);
                format!("{} {side}: {}", l.name, knob(&mut random, *side, nic, dev))
            }
        };
        events += 1;
        if time < Duration::from_secs(60) || executor::time::now() >= tell {
            println!("{events}: {what}");
            tell = executor::time::now() + Duration::from_secs(30);
        }
    }
    println!("{events} events");
}

/// Transfers on all links while everything changes; then all is as at first, and the last of each gets through.
async fn under_load(
    links: &Arc<Vec<Link>>,
    paths: &[PathBuf; 4],
    relays: &mut [Option<Relay>; 2],
    seed: u64,
    time: Duration,
) {
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
    let loads = Arc::new(AtomicUsize::new(links.len()));
    for i in 0..links.len() {
        let (links, stop, failed) = (Arc::clone(links), Arc::clone(&stop), Arc::clone(&failed));
        let loads = Arc::clone(&loads);
        executor::spawn(async move {
            load(links, i, stop, failed).await;
            loads.fetch_sub(1, Ordering::SeqCst);
        });
    }
    chaos(links, paths, relays, seed, time).await;
    stop.store(true, Ordering::Release);
    links.iter().for_each(restore);
    until("the last transfers", || loads.load(Ordering::SeqCst) == 0).await;
    for l in links.iter() {
        for (_, _, dev) in &l.nics {
            until(l.name, || dev.flags().contains(IfFlags::RUNNING)).await;
        }
        println!("{}: {} transfers; a last one", l.name, l.rounds.load(Ordering::Relaxed));
        round(0, l.to, 4 << 20, 2, LIMIT).await.unwrap_or_else(|e| panic!("{}: {}", l.name, e.text()));
    }
    println!("connections that failed: {:?}", failed.lock().expect("lock"));
}

fn relay(i: usize, paths: &[PathBuf; 4]) -> Relay {
    let kind = [Kind::Stream, Kind::SeqPacket][i];
    Relay::start(kind, [&paths[2 * i], &paths[2 * i + 1]])
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

#[test]
fn everything_at_once() {
    if !alone("everything_at_once") {
        return;
    }
    let mut seed = [0; 8];
    arch::host::random::fill(&mut seed).expect("random bytes");
    let seed = number("KIBBLE_SOAK_SEED").unwrap_or(u64::from_le_bytes(seed));
    let time = Duration::from_secs(number("KIBBLE_SOAK_SECONDS").unwrap_or(20));
    println!("KIBBLE_SOAK_SEED={seed} KIBBLE_SOAK_SECONDS={}", time.as_secs());
    let dir = std::env::temp_dir().join(format!("kibble-soak-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directory");
    let paths = ["sa", "sb", "ba", "bb"].map(|n| dir.join(n));
    for t in &THINGS {
        sh(t.make);
    }
    let mut relays = [0, 1].map(|i| Some(relay(i, &paths)));
    let pair = UnixDatagram::pair().expect("pair");
    let Some(links) = open(&paths, [pair.0.as_raw_fd(), pair.1.as_raw_fd()]) else { return };
    let links = Arc::new(links);
    machine(2, async move {
        for (i, l) in links.iter().enumerate() {
            for (side, _, dev) in &l.nics {
                up(*side, dev, [10, 90, i as u8, [2, 1][*side]]);
            }
        }
        echo_host(([0, 0, 0, 0], PORT).into());
        echo_net(1, PORT);
        for l in links.iter() {
            round(0, l.to, 4 << 20, 1, LIMIT).await.unwrap_or_else(|e| panic!("{}: {}", l.name, e.text()));
        }
        executor::time::sleep(Duration::from_millis(200)).await;
        let (fds, list) = (descriptors(), descriptor_list());
        println!("at first: {fds} descriptors, {} MiB", resident() >> 20);
        // What comes with the load itself (pools, buffers) is there after a quarter of the time.
        let mut memory = None;
        for (part, time) in [(0, time / 4), (1, time * 3 / 4)] {
            under_load(&links, &paths, &mut relays, seed.wrapping_add(part), time).await;
            let what = format!("{fds} descriptors again: at first {list:?}, now {:?}", descriptor_list());
            until(&what, || descriptors() <= fds).await;
            let now = resident();
            println!("part {part}: {} descriptors, {} MiB", descriptors(), now >> 20);
            let before = *memory.get_or_insert(now);
            until("memory as before", || resident() <= before + SLACK).await;
        }
        drop(relays);
    });
    let _ = std::fs::remove_dir_all(dir);
}
