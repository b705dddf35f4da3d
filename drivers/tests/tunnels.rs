//! The tunnels of the vector NIC byte for byte, with plain sockets of the host as peers, in a network namespace that the test
//! makes for itself. Needs root (or a user namespace that may make network namespaces) and iproute2; otherwise it says so and
//! passes. All devices are up at once.

mod common;

use arch::host::fd::HostFd;
use arch::host::rawip;
use arch::host::udp::{self, IpOptions};
use common::{in_namespace, on_a_cpu, sh, stack};
use drivers::vector::{Vector, VectorConfig};
use net::dev::Dev;
use net::{CsumStatus, GsoInfo, GsoType, IfAddr, Skb};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).expect("text"), 16).expect("digits");
    digits.chunks(2).map(pair).collect()
}

/// How the peer is reached.
#[derive(Clone, Copy)]
enum Outer {
    /// UDP: port of the peer, port of the guest.
    Udp(u16, u16),
    /// An IP protocol.
    Ip(u8),
}

struct Case {
    /// Options besides addresses.
    line: &'static str,
    v6: bool,
    outer: Outer,
    /// Header that the guest sends; `N` stands for the number of the frame, in four bytes.
    sent: &'static str,
    /// Header that it expects.
    expected: &'static str,
    /// A header that it must drop, and the counter that tells.
    bad: (&'static str, &'static str),
}

const CASES: &[Case] = &[
    Case {
        line: "transport=gre",
        v6: false,
        outer: Outer::Ip(47),
        sent: "0000 6558",
        expected: "0000 6558",
        bad: ("0000 0800", "rx_drop_protocol"),
    },
    Case {
        line: "transport=gre,rx_key=0x1234,tx_key=0x5678,sequence=1",
        v6: true,
        outer: Outer::Ip(47),
        sent: "3000 6558 00005678 N",
        expected: "3000 6558 00001234 0000abcd",
        bad: ("3000 6558 00001235 00000001", "rx_drop_key"),
    },
    Case {
        line: "transport=l2tpv3,rx_session=0x55,tx_session=0x66,rx_cookie=0x77,tx_cookie=0x88,counter=1",
        v6: false,
        outer: Outer::Ip(115),
        sent: "00000066 00000088 N",
        expected: "00000055 00000077 00000000",
        bad: ("00000055 00000078 00000000", "rx_drop_cookie"),
    },
    Case {
        line: "transport=l2tpv3,rx_session=0x55,tx_session=0x66,counter=1,pin_counter=1",
        v6: true,
        outer: Outer::Ip(115),
        sent: "00000066 00000000",
        expected: "00000055 00000007",
        bad: ("00000056 00000000", "rx_drop_key"),
    },
    Case {
        line: "transport=l2tpv3,udp=1,srcport=1707,dstport=1706,depth=128",
        v6: false,
        outer: Outer::Udp(1706, 1707),
        sent: "00030000 ffffffff",
        expected: "00030000 ffffffff",
        bad: ("80030000 ffffffff", "rx_drop_header"),
    },
    Case {
        line: "transport=l2tpv3,ipv6=on,udp=on,srcport=1707,dstport=1706,txsession=0x22,rxsession=0x11,\
               txcookie=0x1122334455667788,rxcookie=0x8877665544332211,cookie64=on,counter=on",
        v6: true,
        outer: Outer::Udp(1706, 1707),
        sent: "00030000 00000022 1122334455667788 N",
        expected: "00030000 00000011 8877665544332211 00000000",
        bad: ("00030000 00000011 8877665544332210 00000000", "rx_drop_cookie"),
    },
    Case {
        line: "transport=vxlan,vni=0x123456",
        v6: false,
        outer: Outer::Udp(4789, 4789),
        sent: "08000000 12345600",
        expected: "08000000 12345600",
        bad: ("08000000 12345700", "rx_drop_key"),
    },
    Case {
        line: "transport=vxlan,rx_vni=1,tx_vni=2,dstport=8472,srcport=5000,localport=8473",
        v6: true,
        outer: Outer::Udp(8472, 8473),
        sent: "08000000 00000200",
        expected: "08000000 00000100",
        bad: ("00000000 00000100", "rx_drop_header"),
    },
    Case {
        line: "transport=vxlan-gpe,vni=7,nsh_path=0x010203,nsh_index=9",
        v6: false,
        outer: Outer::Udp(4790, 4790),
        sent: "0c000004 00000700 0fc20203 01020309",
        expected: "0c000004 00000700 0fc60103 00000501 00000000000000000000000000000000",
        bad: ("0c000001 00000700", "rx_drop_protocol"),
    },
    Case {
        line: "transport=geneve,id=9",
        v6: false,
        outer: Outer::Udp(6081, 6081),
        sent: "0000 6558 00000900",
        expected: "0200 6558 00000900 0102 03 01 deadbeef",
        bad: ("0240 6558 00000900 0102 83 01 deadbeef", "rx_drop_option"),
    },
];

/// An ARP message; a request goes to everybody.
fn arp(reply: bool, mac: [u8; 6], ip: [u8; 4], to_mac: [u8; 6], to: [u8; 4]) -> Vec<u8> {
    let mut f = if reply { to_mac.to_vec() } else { vec![0xff; 6] };
    f.extend(mac);
    f.extend(hex("0806 0001 0800 06 04 00"));
    f.push(if reply { 2 } else { 1 });
    f.extend(mac);
    f.extend(ip);
    f.extend(if reply { to_mac } else { [0; 6] });
    f.extend(to);
    f
}

/// The peer of one device.
struct Peer {
    fd: HostFd,
    /// What stands in front of each message received.
    skip: usize,
    /// Messages received so far.
    seen: u32,
    to: SocketAddr,
    udp: bool,
}

impl Peer {
    fn open(case: &Case, guest: IpAddr, peer: IpAddr) -> Self {
        let how = IpOptions::default();
        let (fd, to, udp) = match case.outer {
            Outer::Udp(own, to) => {
                let to = SocketAddr::new(guest, to);
                (udp::open(SocketAddr::new(peer, own), how, false).expect("peer"), to, true)
            }
            Outer::Ip(proto) => {
                let to = SocketAddr::new(guest, 0);
                (rawip::open(SocketAddr::new(peer, 0), to, proto, how).expect("peer"), to, false)
            }
        };
        let skip = if case.v6 || udp { 0 } else { 20 };
        Self { fd, skip, seen: 0, to, udp }
    }

    fn send(&self, msg: &[u8]) {
        if self.udp {
            let s = std::net::UdpSocket::bind((self.to.ip(), 0)).expect("any other port will do");
            s.send_to(msg, self.to).expect("sent");
        } else {
            assert_eq!(self.fd.send_now(msg), Ok(msg.len()));
        }
    }

    async fn next(&mut self, dev: &Dev, what: &str) -> Vec<u8> {
        let end = Instant::now() + LIMIT;
        let mut buf = vec![0; 70_000];
        loop {
            if let Ok(n) = self.fd.recv_now(&mut buf) {
                self.seen += 1;
                return buf[self.skip..n].to_vec();
            }
            if Instant::now() >= end {
                let counters: Vec<_> = dev.drv.ethtool().stats().into_iter().filter(|s| s.1 > 0).collect();
                panic!(
                    "waited {LIMIT:?} for {what}; {} messages so far; {:?} {counters:?}",
                    self.seen,
                    dev.stats()
                );
            }
            executor::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The header of the message that was received last.
    fn head(&self, case: &Case) -> Vec<u8> {
        hex(&case.sent.replace('N', &format!("{:08x}", self.seen)))
    }
}

/// A frame of five TCP segments.
fn super_frame(pool: &Arc<net::SkbPool>) -> Skb {
    let mut f = [&PEER_MAC[..], &GUEST_MAC, &[8, 0]].concat();
    f.extend(hex("4500 13b0 0001 4000 40 06 0000 0a5c0002 0a5c0001"));
    f.extend(hex("0400 0500 00000000 00000000 5010 ffff 0000 0000"));
    f.extend((0..5000u32).map(|i| (i / 3) as u8));
    let total = u16::try_from(f.len() - 14).expect("fits");
    f[16..18].copy_from_slice(&total.to_be_bytes());
    let sum = net::csum::checksum(&f[14..34], 0);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    let mut skb = pool.copy_from(&f);
    skb.csum = CsumStatus::Partial { start: 34, offset: 16 };
    skb.gso = Some(GsoInfo { kind: GsoType::TcpV4, size: 1000, hdr_len: 40 });
    skb
}

async fn drive(case: &Case, n: usize, dev: Arc<Dev>, mut peer: Peer) {
    let net = stack();
    let (guest, host) = ([10, 92, n as u8, 2], [10, 92, n as u8, 1]);
    net.set_link_up(dev.ifindex, true).expect("up");
    net.addr_add(dev.ifindex, IfAddr::new(guest.into(), 24)).expect("address");
    // What is not ours is counted, and changes nothing.
    let request = arp(false, PEER_MAC, host, [0; 6], guest);
    let (bad, counter) = case.bad;
    peer.send(&[hex(bad), request.clone()].concat());
    peer.send(&[0]);
    peer.send(&[hex(case.expected), request[..13].to_vec()].concat());
    peer.send(&[hex(case.expected), request].concat());
    // The device may have said other things before.
    let reply = arp(true, GUEST_MAC, guest, PEER_MAC, host);
    loop {
        let msg = peer.next(&dev, "the answer to ARP").await;
        let head = peer.head(case);
        assert_eq!(&msg[..head.len().min(msg.len())], head, "{}: message {}", case.line, peer.seen);
        if msg[head.len()..] == reply {
            break;
        }
    }
    let stat = |name: &str| {
        dev.drv.ethtool().stats().iter().find(|s| s.0 == name).unwrap_or_else(|| panic!("no {name}")).1
    };
    assert_eq!((stat(counter), stat("rx_drop_short")), (1, 2), "{}", case.line);
    assert_eq!((dev.stats().rx_packets, dev.stats().rx_errors), (1, 3), "{}", case.line);
    // A super-frame leaves as frames, each with its header.
    let before = dev.stats().tx_packets;
    assert!(dev.drv.xmit(super_frame(net.pool())).is_ok());
    dev.drv.flush();
    let mut payload = Vec::new();
    while payload.len() < 5000 {
        let msg = peer.next(&dev, "a segment").await;
        let head = peer.head(case);
        assert_eq!(&msg[..head.len()], head, "{}: message {}", case.line, peer.seen);
        let frame = &msg[head.len()..];
        if frame[12..14] == [8, 0] && frame[23] == 6 {
            assert_eq!(frame.len(), 14 + 40 + 1000);
            let ip = net::ip::parse(&frame[14..]).expect("valid");
            let tcp = &frame[34..];
            let sum = net::csum::checksum(tcp, net::csum::pseudo(ip.src, ip.dst, 6, tcp.len()));
            assert_eq!(sum, 0, "the checksum is complete");
            assert_eq!(u32::from_be_bytes(tcp[4..8].try_into().expect("four")), payload.len() as u32);
            payload.extend_from_slice(&tcp[20..]);
        }
    }
    assert!(payload.iter().enumerate().all(|(i, b)| *b == (i / 3) as u8));
    let end = Instant::now() + LIMIT;
    while dev.stats().tx_packets < before + 5 {
        assert!(Instant::now() < end, "waited {LIMIT:?} for the counter of sent frames");
        executor::time::sleep(Duration::from_millis(1)).await;
    }
    let s = dev.stats();
    assert_eq!((s.tx_errors, s.tx_dropped), (0, 0), "{}", case.line);
    println!("{}: {} messages", case.line, peer.seen);
}

#[test]
fn the_wire_byte_for_byte() {
    if !in_namespace("the_wire_byte_for_byte") {
        return;
    }
    let up = "ip link set lo up && ip -6 addr add fd92::1/128 dev lo nodad && ip -6 addr add fd92::2/128 dev lo nodad";
    sh(up);
    let net = stack();
    let mut all = Vec::new();
    for (n, case) in CASES.iter().enumerate() {
        let (src, dst) = if case.v6 { ("fd92::1", "fd92::2") } else { ("127.0.0.1", "127.0.0.2") };
        let line = format!("vec{n}:{},src={src},dst={dst},mac=02:00:00:00:00:01", case.line);
        let cfg = VectorConfig::parse(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let nic = Vector::new(&cfg).unwrap_or_else(|e| panic!("{line}: {e}"));
        let peer = Peer::open(case, src.parse().expect("address"), dst.parse().expect("address"));
        all.push((case, n, net.register(nic).expect("registered"), peer));
    }
    on_a_cpu(async move {
        for (case, n, dev, peer) in all {
            drive(case, n, dev, peer).await;
        }
    });
}

#[test]
fn mistakes_are_one_line_that_says_what_to_do() {
    for (line, want) in [
        ("transport=gre", "transport=gre: src= is missing; expected"),
        ("transport=gre,src=10.0.0.1", "transport=gre: dst= is missing; expected"),
        (
            "transport=gre,src=10.0.0.1,dst=fd00::1",
            "dst=fd00::1: an IPv6 address; expected two addresses of one kind",
        ),
        ("transport=gre,src=fd00::1,dst=fd00::2,v6=0", "src=fd00::1: an IPv6 address; expected v6=1"),
        ("transport=gre,src=10.0.0.1,dst=10.0.0.2,v6=1", "src=10.0.0.1: an IPv4 address; expected v6=0"),
        ("transport=gre,src=10.0.0.1,dst=224.0.0.1", "dst=224.0.0.1: a multicast address"),
        ("transport=gre,src=10.0.0.1,dst=10.0.0.2,rx_key=1", "rx_key=1: tx_key= is missing"),
        ("transport=gre,src=10.0.0.1,dst=10.0.0.2,key=1,tx_key=2", "contradicts key=1"),
        ("transport=gre,src=10.0.0.1,dst=10.0.0.2,key=0x100000000", "key=0x100000000: expected"),
        (
            "transport=gre,src=10.0.0.1,dst=10.0.0.2,pin_sequence=1",
            "pin_sequence=1: there is no number to pin",
        ),
        ("transport=gre,src=10.0.0.1,dst=10.0.0.2,ttl=0", "ttl=0: expected a number from 1 to 255"),
        ("transport=gre,src=10.0.0.1,dst=10.0.0.2,udp=1", "udp=1: unknown key; expected one of"),
        ("transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,udp=1", "dstport= is missing"),
        (
            "transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,dstport=5",
            "dstport=5: only UDP has ports; expected udp=1",
        ),
        (
            "transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,udp=1,dstport=65536",
            "expected a number from 1 to 65535",
        ),
        ("transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,rx_session=1", "rx_session=1: tx_session= is missing"),
        ("transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,tx_cookie=1", "tx_cookie=1: rx_cookie= is missing"),
        ("transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,cookie64=1", "cookie64=1: there is no cookie"),
        (
            "transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,rx_cookie=1,tx_cookie=0x100000000",
            "tx_cookie=0x100000000: more than 32 bits; expected cookie64=1",
        ),
        (
            "transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,pin_counter=1",
            "pin_counter=1: there is no counter to pin",
        ),
        ("transport=vxlan,dst=10.0.0.2", "transport=vxlan: vni= is missing; expected"),
        ("transport=vxlan,dst=10.0.0.2,vni=0x1000000", "vni=0x1000000: expected"),
        ("transport=vxlan,vni=1", "transport=vxlan: dst= is missing"),
        ("transport=vxlan-gpe,dst=10.0.0.2,vni=1,nsh_index=3", "nsh_index=3: an index on no path"),
        ("transport=geneve,dst=10.0.0.2,rx_vni=1", "rx_vni=1: tx_vni= is missing"),
    ] {
        let line = format!("vec0:{line}");
        let e = VectorConfig::parse(&line).map(drop).expect_err(&line);
        assert!(e.starts_with("vec0: ") && e.contains(want) && !e.contains('\n'), "{line}: {e}");
    }
}

#[test]
fn what_the_host_refuses_is_one_line_too() {
    if !in_namespace("what_the_host_refuses_is_one_line_too") {
        return;
    }
    let up = "ip link set lo up";
    sh(up);
    let _taken = std::net::UdpSocket::bind("127.0.0.1:4789").expect("bound");
    for (line, want) in [
        ("transport=vxlan,src=127.0.0.1,dst=127.0.0.2,vni=1", "dstport=4789: the port is in use"),
        ("transport=vxlan,src=192.0.2.1,dst=127.0.0.2,vni=1", "src=192.0.2.1: not an address of this host"),
        ("transport=vxlan,dst=192.0.2.9,vni=1,dstport=4788", "dst=192.0.2.9: this host has no route to it"),
        (
            "transport=vxlan,dst=no-such-host.invalid,vni=1,dstport=4788",
            "dst=no-such-host.invalid: no such host",
        ),
        ("transport=gre,src=127.0.0.1,dst=192.0.2.9", "dst=192.0.2.9: this host has no route to it"),
        (
            "transport=gre,src=127.0.0.1,dst=127.0.0.2,mtu=65535",
            "mtu=65535: transport=gre carries at most 65493",
        ),
    ] {
        let line = format!("vec0:{line}");
        let cfg = VectorConfig::parse(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let e = Vector::new(&cfg).map(drop).expect_err(&line);
        println!("{e}");
        assert!(e.starts_with("vec0: ") && e.contains(want) && !e.contains('\n'), "{line}: {e}");
    }
}
