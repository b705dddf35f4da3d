//! The vector NIC with peers that others wrote: User-Mode Linux over gre, l2tpv3 and fd, tunnel devices of the host's kernel,
//! and passt. Over each: ping, and a TCP transfer each way whose sum is compared.
//!
//! Each test makes namespaces for itself. A peer that this host lacks is skipped with the reason printed.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::machine::{Boot, LIMIT, Machine, have, missing};
use tests::ns::{Peer, inside, quiet, scratch, sh};

/// What is carried: lines of numbers, a megabyte of them.
const LAST: u32 = 160_000;

fn payload() -> Vec<u8> {
    (1..=LAST).flat_map(|i| format!("{i}\n").into_bytes()).collect()
}

/// The sum of the payload as md5sum writes it.
fn sum(m: &mut Machine) -> String {
    m.ok(&format!("seq 1 {LAST} | md5sum"))
}

/// One transfer from one guest to another one at `to`.
fn carry(from: &mut Machine, into: &mut Machine, to: &str, what: &str) {
    // nc ends with what it receives, whatever is left to send: its own input stays open.
    into.ok("rm -f /tmp/sum; (sleep 30 | timeout 25 busybox nc -l -p 7000 | md5sum >/tmp/sum) &");
    // The other one may not listen yet.
    from.ok(&format!(
        "for i in 1 2 3 4 5 6 7 8 9; do seq 1 {LAST} | timeout 20 busybox nc {to} 7000 >/dev/null && break; sleep 0.2; done"
    ));
    let want = sum(from);
    into.until("cat /tmp/sum", " ");
    assert_eq!(into.ok("cat /tmp/sum"), want, "{what}");
}

/// The packaged User-Mode Linux at the other end of gre, l2tpv3 over UDP and fd.
#[test]
fn user_mode_linux() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    if !have("linux.uml") {
        return println!("skipped: no linux.uml here (package user-mode-linux)");
    }
    if !inside("user_mode_linux") {
        return;
    }
    let (a, b) = UnixDatagram::pair().expect("pair");
    let gre = |us: u8, keys: &str| {
        format!("transport=gre,src=127.0.0.{us},dst=127.0.0.{},{keys},sequence=1", 3 - us)
    };
    let l2tp = |us: u8, rest: &str| {
        let ports = format!("srcport=170{us},dstport=170{}", 3 - us);
        format!(
            "transport=l2tpv3,udp=1,src=127.0.0.{us},dst=127.0.0.{},{ports},{rest},cookie64=1,counter=1",
            3 - us
        )
    };
    let ours = [
        format!("vec0:{},depth=128", gre(1, "rx_key=5,tx_key=6")),
        format!("vec1:{}", l2tp(1, "rx_session=1,tx_session=2,rx_cookie=3,tx_cookie=4")),
        "vec2:transport=fd,fd=7".to_owned(),
    ];
    let theirs = [
        format!("vec0:{},depth=128", gre(2, "rx_key=6,tx_key=5")),
        format!("vec1:{}", l2tp(2, "rx_session=2,tx_session=1,rx_cookie=4,tx_cookie=3")),
        "vec2:transport=fd,fd=7".to_owned(),
    ];
    let boot = |name, kernel, words: &[String], fd: UnixDatagram| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Machine::boot(name, Boot { kernel, words: &words, fd7: Some(fd.into()), ..Boot::default() })
    };
    let uml = sh("PATH=$PATH:/usr/sbin:/sbin command -v linux.uml");
    let mut ours = boot("kibble", None, &ours, a);
    let mut uml = boot("uml", Some(Path::new(uml.trim())), &theirs, b);
    for (n, kind) in ["gre", "l2tpv3 over UDP", "fd"].iter().enumerate() {
        let (us, they) = (format!("10.20.{n}.1"), format!("10.20.{n}.2"));
        ours.ok(&format!("ip addr add {us}/24 dev vec{n}; ip link set vec{n} up"));
        uml.ok(&format!("ip addr add {they}/24 dev vec{n}; ip link set vec{n} up"));
        ours.ok(&format!("ping -c 3 -i 0.1 -W 5 {they}; ping -c 1 -W 5 -s 4000 {they}"));
        uml.ok(&format!("ping -c 3 -i 0.2 -W 5 {us}"));
        carry(&mut ours, &mut uml, &they, &format!("{kind}: Kibble to UML"));
        carry(&mut uml, &mut ours, &us, &format!("{kind}: UML to Kibble"));
        println!("{kind}: passed");
    }
    uml.poweroff();
    ours.poweroff();
}

/// A server on this side: it takes the payload from the first who comes, and sends it to the second. Nobody closes one half:
/// passt of 2023 repeats what it sends to a guest that has sent its FIN.
struct Server {
    at: SocketAddr,
    thread: JoinHandle<()>,
}

fn limited(c: &TcpStream) {
    c.set_read_timeout(Some(LIMIT)).expect("limit");
    c.set_write_timeout(Some(LIMIT)).expect("limit");
}

impl Server {
    fn new(addr: IpAddr) -> Self {
        let listener = TcpListener::bind((addr, 0)).expect("listener");
        let at = listener.local_addr().expect("address");
        let thread = std::thread::spawn(move || {
            let next = || listener.accept().expect("accepted").0;
            let (mut c, mut got) = (next(), Vec::new());
            limited(&c);
            c.read_to_end(&mut got).expect("received");
            assert!(got == payload(), "{} bytes came, and not the right ones", got.len());
            let mut c = next();
            limited(&c);
            c.write_all(&got).expect("sent");
        });
        Self { at, thread }
    }

    /// A guest talks to it.
    fn serve(self, m: &mut Machine, what: &str) {
        let to = format!("/dev/tcp/{}/{}", self.at.ip(), self.at.port());
        m.ok(&format!("seq 1 {LAST} >{to}"));
        let got = m.ok(&format!("md5sum <{to}"));
        assert_eq!(got, sum(m), "{what}: what the guest received");
        let end = Instant::now() + LIMIT;
        while !self.thread.is_finished() {
            assert!(Instant::now() < end, "{what}: waited {LIMIT:?} for the server");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.thread.join().unwrap_or_else(|_| panic!("{what}: what the server received"));
    }
}

/// A tunnel between the guest (10.9.0.1, fd09::1) and the host's kernel (10.9.0.2, fd09::2).
struct Tunnel {
    name: &'static str,
    /// What brings `DEV` up in the kernel.
    kernel: &'static str,
    /// What the guest's line says.
    guest: &'static str,
}

const TUNNELS: &[Tunnel] = &[
    Tunnel {
        name: "vxlan",
        kernel: "ip link add DEV type vxlan id 7 local 10.9.0.2 remote 10.9.0.1 dstport 4789",
        guest: "transport=vxlan,vni=7,src=10.9.0.1,dst=10.9.0.2",
    },
    Tunnel {
        name: "vxlan over IPv6",
        kernel: "ip link add DEV type vxlan id 8 local fd09::2 remote fd09::1 dstport 8472",
        guest: "transport=vxlan,vni=8,src=fd09::1,dst=fd09::2,dstport=8472",
    },
    Tunnel {
        name: "vxlan with checksums",
        kernel: "ip link add DEV type vxlan id 9 local 10.9.0.2 remote 10.9.0.1 dstport 8473 udpcsum",
        guest: "transport=vxlan,vni=9,src=10.9.0.1,dst=10.9.0.2,dstport=8473",
    },
    Tunnel {
        name: "gretap",
        kernel: "ip link add DEV type gretap local 10.9.0.2 remote 10.9.0.1 ikey 6 okey 5 seq csum",
        guest: "transport=gre,src=10.9.0.1,dst=10.9.0.2,rx_key=5,tx_key=6,sequence=1,checksum=1",
    },
    Tunnel {
        name: "gretap over IPv6",
        kernel: "ip link add DEV type ip6gretap local fd09::2 remote fd09::1",
        guest: "transport=gre,src=fd09::1,dst=fd09::2",
    },
    Tunnel {
        name: "geneve",
        kernel: "ip link add DEV type geneve id 7 remote 10.9.0.1",
        guest: "transport=geneve,vni=7,src=10.9.0.1,dst=10.9.0.2",
    },
    Tunnel {
        name: "l2tpv3 over UDP",
        kernel: "ip l2tp add tunnel tunnel_id 1 peer_tunnel_id 1 encap udp local 10.9.0.2 remote 10.9.0.1 \
                 udp_sport 1702 udp_dport 1701 && ip l2tp add session name DEV tunnel_id 1 session_id 2 peer_session_id 1 \
                 l2spec_type none cookie 0000000400000003 peer_cookie 0000000600000005",
        guest: "transport=l2tpv3,udp=1,src=10.9.0.1,dst=10.9.0.2,srcport=1701,dstport=1702,rx_session=1,tx_session=2,\
                cookie64=1,rx_cookie=0x0000000400000003,tx_cookie=0x0000000600000005",
    },
    Tunnel {
        name: "l2tpv3 over IP",
        kernel: "ip l2tp add tunnel tunnel_id 3 peer_tunnel_id 4 encap ip local 10.9.0.2 remote 10.9.0.1 && \
                 ip l2tp add session name DEV tunnel_id 3 session_id 4 peer_session_id 3 l2spec_type none",
        guest: "transport=l2tpv3,src=10.9.0.1,dst=10.9.0.2,rx_session=3,tx_session=4",
    },
];

/// The tunnel devices of the host's kernel, as many as it has.
#[test]
fn tunnels_of_the_kernel() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    if !inside("tunnels_of_the_kernel") {
        return;
    }
    let there = Peer::new("under0", "under1");
    sh("ip addr add 10.9.0.2/24 dev under0; ip addr add fd09::2/64 dev under0 nodad");
    there.sh("ip addr add 10.9.0.1/24 dev under1; ip addr add fd09::1/64 dev under1 nodad");
    let mut found = Vec::new();
    for t in TUNNELS {
        let dev = format!("k{}", found.len());
        if quiet(&t.kernel.replace("DEV", &dev)) {
            let addr = format!(
                "ip addr add 10.21.{0}.2/24 dev {dev}; ip addr add fd21:{0}::2/64 dev {dev} nodad",
                found.len()
            );
            sh(&format!("{addr}; ip link set {dev} up mtu 1400"));
            found.push(t);
        } else {
            println!("skipped: {}: this host's kernel refuses '{}'", t.name, t.kernel);
        }
    }
    if found.is_empty() {
        return;
    }
    let words: Vec<String> = found.iter().enumerate().map(|(n, t)| format!("vec{n}:{}", t.guest)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut m = Machine::boot("kibble", Boot { words: &words, before: &there.words(), ..Boot::default() });
    for (n, t) in found.iter().enumerate() {
        m.ok(&format!(
            "ip addr add 10.21.{n}.1/24 dev vec{n}; ip addr add fd21:{n}::1/64 dev vec{n} nodad; ip link set vec{n} up mtu 1400"
        ));
        for to in [format!("10.21.{n}.2"), format!("fd21:{n}::2")] {
            m.ok(&format!("ping -c 3 -i 0.1 -W 5 {to}; ping -c 1 -W 5 -s 4000 {to}"));
            Server::new(to.parse().expect("address")).serve(&mut m, t.name);
        }
        println!("{}: passed", t.name);
    }
    m.poweroff();
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The packaged passt: a guest without rights on the network reaches what its user reaches.
#[test]
fn passt() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    if !have("passt") {
        return println!("skipped: no passt here (package passt)");
    }
    if !inside("passt") {
        return;
    }
    // passt has the rights of a user in a namespace whose way out is through ours; the server is beyond its gateway.
    // Without a link-local address it would do no IPv6.
    let there = Peer::new("out0", "out1");
    sh("ip addr add 10.9.0.2/24 dev out0; ip addr add fd09::2/64 dev out0 nodad");
    sh("ip addr add 10.8.0.1/32 dev lo; ip addr add fd08::1/128 dev lo nodad");
    there.sh("ip addr add 10.9.0.1/24 dev out1; ip addr add fd09::1/64 dev out1 nodad; ip addr add fe80::1/64 dev out1 nodad
         ip route add default via 10.9.0.2; ip -6 route add default via fd09::2");
    // It sends echo requests from ping sockets, which a new namespace allows to nobody. A user has one group in there.
    there.sh("f=/proc/sys/net/ipv4/ping_group_range; echo '0 2147483647' >$f || echo '0 0' >$f");
    let dir = scratch("passt");
    let socket = dir.join("socket");
    let log = std::fs::File::create(dir.join("log")).expect("file");
    let words = there.words();
    let mut cmd = Command::new(&words[0]);
    cmd.args(&words[1..]).args(["passt", "-f", "-1", "-t", "8080", "-s"]).arg(&socket);
    let null = Stdio::null;
    let passt = Ended(cmd.stdin(null()).stdout(null()).stderr(log).spawn().expect("passt starts"));
    println!("waiting for passt to listen");
    let end = Instant::now() + LIMIT;
    let said = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    while !(socket.exists() && said().contains("qemu")) {
        assert!(Instant::now() < end, "waited {LIMIT:?} for passt: {}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let line = format!("vec0:transport=stream,dst={}", socket.display());
    let mut m = Machine::boot("kibble", Boot { words: &[&line], ..Boot::default() });
    m.ok("ip addr add 10.9.0.1/24 dev vec0; ip addr add fd09::1/64 dev vec0 nodad; ip link set vec0 up");
    m.ok("ip route add default via 10.9.0.2; ip -6 route add default via fd09::2");
    for to in ["10.8.0.1", "fd08::1"] {
        Server::new(to.parse().expect("address")).serve(&mut m, &format!("passt to {to}"));
        m.ok(&format!("ping -c 2 -i 0.2 -W 5 {to}"));
        println!("passt to {to}: passed");
    }
    // The other way: a port of the user's is the guest's.
    m.ok("(sleep 30 | timeout 25 busybox nc -l -p 8080 | md5sum >/tmp/sum) &");
    m.until("cat /proc/net/tcp /proc/net/tcp6", ":1F90 ");
    let mut c = TcpStream::connect("10.9.0.1:8080").expect("connected");
    limited(&c);
    c.write_all(&payload()).expect("sent");
    c.shutdown(Shutdown::Write).expect("shut");
    let want = sum(&mut m);
    m.until("cat /tmp/sum", want.trim());
    m.poweroff();
    drop(passt);
    let _ = std::fs::remove_dir_all(dir);
}
