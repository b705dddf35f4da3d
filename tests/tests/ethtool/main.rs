//! Every command of the unmodified ethtool(8) against the vector NIC in a guest, on every kind of transport: docs/ethtool.md
//! is its transcript, and must have the same shape as what comes now. `KIBBLE_WRITE_DOCS=1 cargo test -p tests --test ethtool`
//! writes it anew. Frames and bytes are compared with what tcpdump saw on the host's side, or with the relay between two
//! guests where there is no interface to look at; drops are provoked, one of each reason.
//!
//! Skipped with a reason where ./vmlinux or the image are not built, or the host has no namespaces or taps for us.

mod capture;
mod relay;

use capture::{Both, Outer, Tcpdump, frames, tunnelled};
use relay::Relay;
use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::machine::{Boot, LIMIT, Machine, have, missing};
use tests::ns::{Peer, inside, quiet, scratch, sh};
use tests::workspace::root;

/// Who counts the frames on the way.
enum Wire {
    /// tcpdump on this interface, in the guest's namespace.
    Interface(&'static str),
    /// tcpdump under the tunnel.
    Tunnel(Outer),
    /// The relay to the other guest.
    Relay,
}

/// A message that is no frame of ours: what is wrong with it, its bytes, and the counter that tells.
struct Bad(&'static str, &'static str, &'static str);

/// One kind of transport.
struct Nic {
    name: &'static str,
    /// Its line; `DIR` stands for a directory.
    line: &'static str,
    /// The line of the guest at the other end, if it takes one.
    other: &'static str,
    wire: Wire,
    bad: &'static [Bad],
}

const fn udp(port: u16, header: u64) -> Wire {
    Wire::Tunnel(Outer { proto: 17, port, header })
}

const fn ip(proto: u8, header: u64) -> Wire {
    Wire::Tunnel(Outer { proto, port: 0, header })
}

const SHORT_FRAME: &[Bad] = &[Bad("too short", "0102030405", "rx_drop_short")];

/// The NICs of one guest; the number of the device is the index.
const NICS: &[Nic] = &[
    Nic {
        name: "tap",
        line: "transport=tap,ifname=tap4,depth=128,gro=1,pcap=DIR/tap.pcap",
        other: "",
        wire: Wire::Interface("tap4"),
        bad: &[],
    },
    Nic {
        name: "hybrid",
        line: "transport=hybrid,ifname=tap5,bpfflash=1",
        other: "",
        wire: Wire::Interface("tap5"),
        bad: &[],
    },
    Nic {
        name: "raw",
        line: "transport=raw,ifname=raw1",
        other: "",
        wire: Wire::Interface("raw1"),
        bad: &[],
    },
    Nic {
        name: "gre",
        line: "transport=gre,src=10.9.0.1,dst=10.9.0.2,rx_key=1,tx_key=2,sequence=1",
        other: "transport=gre,src=10.9.0.2,dst=10.9.0.1,rx_key=2,tx_key=1,sequence=1",
        wire: ip(47, 12),
        bad: &[
            Bad("too short", "30", "rx_drop_short"),
            Bad("another key", "3000 6558 00000009 00000001 FRAME", "rx_drop_key"),
            Bad("a wrong sum", "b000 6558 dead0000 00000001 00000001 FRAME", "rx_drop_checksum"),
            Bad("no Ethernet in it", "3000 0800 00000001 00000001 FRAME", "rx_drop_protocol"),
            Bad("no number", "2000 6558 00000001 FRAME", "rx_drop_header"),
        ],
    },
    Nic {
        name: "l2tpv3 over UDP",
        line: "transport=l2tpv3,udp=1,src=10.9.0.1,dst=10.9.0.2,srcport=1701,dstport=1702,\
               rx_session=1,tx_session=2,rx_cookie=3,tx_cookie=4",
        other: "transport=l2tpv3,udp=1,src=10.9.0.2,dst=10.9.0.1,srcport=1702,dstport=1701,\
                rx_session=2,tx_session=1,rx_cookie=4,tx_cookie=3",
        wire: udp(1702, 12),
        bad: &[
            Bad("too short", "00", "rx_drop_short"),
            Bad("another session", "00030000 00000009 00000003 FRAME", "rx_drop_key"),
            Bad("another cookie", "00030000 00000001 00000009 FRAME", "rx_drop_cookie"),
            Bad("a control message", "80030000 00000001 00000003 FRAME", "rx_drop_header"),
        ],
    },
    Nic {
        name: "l2tpv3 over IP",
        line: "transport=l2tpv3,src=10.9.0.1,dst=10.9.0.2,rx_session=1,tx_session=2,cookie64=1,rx_cookie=3,tx_cookie=4",
        other: "transport=l2tpv3,src=10.9.0.2,dst=10.9.0.1,rx_session=2,tx_session=1,cookie64=1,rx_cookie=4,tx_cookie=3",
        wire: ip(115, 12),
        bad: &[
            Bad("too short", "00", "rx_drop_short"),
            Bad("another session", "00000009 0000000000000003 FRAME", "rx_drop_key"),
            Bad("another cookie", "00000001 0000000000000009 FRAME", "rx_drop_cookie"),
        ],
    },
    Nic {
        name: "vxlan",
        line: "transport=vxlan,vni=7,src=10.9.0.1,dst=10.9.0.2",
        other: "transport=vxlan,vni=7,src=10.9.0.2,dst=10.9.0.1",
        wire: udp(4789, 8),
        bad: &[
            Bad("too short", "08000000 000007", "rx_drop_short"),
            Bad("another identifier", "08000000 00000900 FRAME", "rx_drop_key"),
            Bad("no identifier", "00000000 00000700 FRAME", "rx_drop_header"),
        ],
    },
    Nic {
        name: "vxlan-gpe",
        line: "transport=vxlan-gpe,vni=7,src=10.9.0.1,dst=10.9.0.2",
        other: "transport=vxlan-gpe,vni=7,src=10.9.0.2,dst=10.9.0.1",
        wire: udp(4790, 8),
        bad: &[
            Bad("too short", "0c000003 000007", "rx_drop_short"),
            Bad("another identifier", "0c000003 00000900 FRAME", "rx_drop_key"),
            Bad("no Ethernet in it", "0c000001 00000700 FRAME", "rx_drop_protocol"),
        ],
    },
    Nic {
        name: "geneve",
        line: "transport=geneve,vni=7,src=10.9.0.1,dst=10.9.0.2",
        other: "transport=geneve,vni=7,src=10.9.0.2,dst=10.9.0.1",
        wire: udp(6081, 8),
        bad: &[
            Bad("too short", "0000 6558 000007", "rx_drop_short"),
            Bad("another identifier", "0000 6558 00000900 FRAME", "rx_drop_key"),
            Bad("no Ethernet in it", "0000 0800 00000700 FRAME", "rx_drop_protocol"),
            Bad(
                "an unknown critical option",
                "0200 6558 00000700 0102 83 01 deadbeef FRAME",
                "rx_drop_option",
            ),
        ],
    },
    Nic {
        name: "bess",
        line: "transport=bess,dst=DIR/bess-a,pcap=DIR/bess.pcap",
        other: "transport=bess,dst=DIR/bess-b",
        wire: Wire::Relay,
        bad: SHORT_FRAME,
    },
    Nic {
        name: "fd",
        line: "transport=fd,fd=7,pcap=DIR/fd.pcap",
        other: "transport=fd,fd=7",
        wire: Wire::Relay,
        bad: SHORT_FRAME,
    },
    Nic {
        name: "vde",
        line: "transport=vde,vnl=DIR/vde-a,pcap=DIR/vde.pcap",
        other: "transport=vde,vnl=DIR/vde-b",
        wire: Wire::Relay,
        bad: SHORT_FRAME,
    },
    Nic {
        name: "stream",
        line: "transport=stream,dst=DIR/stream-a,pcap=DIR/stream.pcap",
        other: "transport=stream,dst=DIR/stream-b",
        wire: Wire::Relay,
        bad: SHORT_FRAME,
    },
];

/// Against each NIC, `DEV`.
const EVERY: &[&str] = &[
    "ethtool DEV",
    "ethtool -i DEV",
    "ethtool -P DEV",
    "ethtool -k DEV",
    "ethtool -K DEV tso off",
    "ethtool -K DEV tso on",
    "ethtool -K DEV rx off",
    "ethtool -k DEV | grep -v fixed",
    "ethtool -K DEV rx on",
    "ethtool -K DEV gro off",
    "ethtool -K DEV gro on",
    "ethtool -S DEV",
    "ethtool -g DEV",
    "ethtool -G DEV rx 128 tx 512",
    "ethtool -g DEV | tail -n 10",
    "ethtool -c DEV",
    "ethtool -C DEV tx-usecs 3000 tx-frames 16 rx-usecs 2000",
    "ethtool -c DEV | grep -v n/a",
    "ethtool -C DEV tx-usecs 0 tx-frames 0 rx-usecs 0",
    "ethtool -l DEV",
    "ethtool -L DEV combined 9",
    "ethtool -t DEV",
    "ethtool -T DEV",
    "ethtool -f DEV nosuch.bpf",
    "ethtool -s DEV msglvl drv on link on",
    "ethtool DEV | tail -n 3",
    "ethtool -s DEV speed 100",
];

/// What besides the first one is shown: refusals, other devices, other users.
const MORE: &[&str] = &[
    "ethtool -K vec0 rxvlan on",
    "ethtool -K vec0 nosuch on",
    "ethtool -G vec0 rx 5000",
    "ethtool -G vec0 rx-mini 5",
    "ethtool -C vec0 rx-usecs-irq 5",
    "ethtool -a vec0",
    "ethtool -m vec0",
    "ethtool -d vec0",
    "ethtool -e vec0",
    "ethtool -p vec0 1",
    "ethtool nosuch",
    "ethtool -k lo | grep -v fixed",
    "su -s /bin/sh nobody -c 'ethtool -G vec0 rx 64'",
];

/// Link-layer address of a NIC.
fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, n as u8]
}

/// Both guests, and what is between them and the host.
struct Bench {
    dir: PathBuf,
    guest: Machine,
    other: Machine,
    relays: Vec<(usize, Relay)>,
    dumps: Vec<Tcpdump>,
    /// The guest's namespace; the test and the other guest are in the outer one.
    there: Peer,
}

impl Bench {
    fn new() -> Self {
        let dir = scratch("ethtool");
        let there = Peer::new("under0", "under1");
        // Tunnels of full frames fit, so that no outer packet is a fragment.
        sh("ip link set under0 mtu 2000; ip addr add 10.9.0.2/24 dev under0");
        there.sh("ip link set under1 mtu 2000; ip addr add 10.9.0.1/24 dev under1");
        there.sh("for t in tap4 tap5; do ip tuntap add $t mode tap vnet_hdr; ip link set $t up; done");
        there.sh("ip addr add 10.30.0.2/24 dev tap4; ip addr add 10.30.1.2/24 dev tap5");
        sh(&format!("ip link add raw0 type veth peer name raw1 netns {}", there.pid()));
        sh("ip addr add 10.30.2.2/24 dev raw0; ip link set raw0 up");
        there.sh("ip link set raw1 up");
        // Nobody listens where injected messages come from, and that is nobody's business.
        let at = |name: &str| dir.join(name);
        let (fd, a, b) = Relay::fd();
        let mut relays = Vec::new();
        for (n, nic) in NICS.iter().enumerate() {
            match nic.name {
                "bess" => relays.push((n, Relay::seqpacket(&at("bess-a"), &at("bess-b")))),
                "vde" => relays.push((n, Relay::vde(&at("vde-a"), &at("vde-b")))),
                "stream" => relays.push((n, Relay::stream(&at("stream-a"), &at("stream-b")))),
                _ => {}
            }
        }
        relays.push((NICS.iter().position(|n| n.name == "fd").expect("fd"), fd));
        let line = |(n, l): (usize, &str)| (!l.is_empty()).then(|| line(n, l, &dir));
        let words: Vec<String> = NICS
            .iter()
            .enumerate()
            .filter_map(|(n, nic)| line((n, nic.line)).map(|l| format!("{l},mac=02:00:00:00:01:{n:02x}")))
            .collect();
        let others: Vec<String> = NICS.iter().map(|n| n.other).enumerate().filter_map(line).collect();
        let boot = |name, words: &[String], before: &[String], fd: std::os::unix::net::UnixDatagram| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Machine::boot(name, Boot { words: &words, before, fd7: Some(fd.into()), ..Boot::default() })
        };
        let guest = boot("guest", &words, &there.words(), a);
        let other = boot("other", &others, &[], b);
        let dumps = [("tap4", true), ("tap5", true), ("raw1", true), ("under0", false)];
        let dumps = dumps
            .iter()
            .filter_map(|(i, inner)| {
                let before = if *inner { there.words().to_vec() } else { Vec::new() };
                Tcpdump::start(&before, i, &dir)
            })
            .collect();
        let mut this = Self { dir, guest, other, relays, dumps, there };
        for (n, nic) in NICS.iter().enumerate() {
            this.guest.ok(&format!("ip addr add 10.30.{n}.1/24 dev vec{n}; ip link set vec{n} up"));
            if !nic.other.is_empty() {
                this.other.ok(&format!("ip addr add 10.30.{n}.2/24 dev vec{n}; ip link set vec{n} up"));
            }
        }
        this
    }

    fn relay(&self, n: usize) -> &Relay {
        &self.relays.iter().find(|r| r.0 == n).expect("a relay").1
    }

    /// What went over the wire of a NIC so far, and who says so.
    fn wire(&self, n: usize) -> Option<(&'static str, Both)> {
        let dump = |ifname: &str| {
            let name = format!("{ifname}.pcap");
            self.dumps.iter().find(|d| d.file.ends_with(&name)).map(|d| d.file.as_path())
        };
        Some(match NICS[n].wire {
            Wire::Interface(i) => ("tcpdump", frames(dump(i)?, mac(n))),
            Wire::Tunnel(outer) => ("tcpdump", tunnelled(dump("under0")?, outer, [10, 9, 0, 1])),
            Wire::Relay => ("relay", self.relay(n).sums()),
        })
    }

    /// What the guest says of it, by `/sys`.
    fn counted(&mut self, n: usize) -> Both {
        let files = "tx_packets tx_bytes rx_packets rx_bytes";
        let out = self.guest.ok(&format!("cd /sys/class/net/vec{n}/statistics; cat {files}; cd /"));
        let v: Vec<u64> = out.split_whitespace().map(|w| w.parse().expect("a number")).collect();
        [(v[0], v[1]), (v[2], v[3])]
    }

    fn stat(&mut self, n: usize, name: &str) -> u64 {
        self.guest.number(&format!("ethtool -S vec{n} | grep ' {name}:' | tr -dc '0-9\\n'"))
    }
}

fn line(n: usize, line: &str, dir: &Path) -> String {
    format!("vec{n}:{}", line.replace("DIR", &dir.display().to_string()))
}

/// Lines without what differs from run to run: numbers, and the ends of lines.
fn shape(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for l in text.lines() {
        let mut s = String::new();
        for c in l.trim_end().chars() {
            match c {
                '0'..='9' if s.ends_with('#') => {}
                '0'..='9' => s.push('#'),
                c => s.push(c),
            }
        }
        lines.push(s);
    }
    lines
}

fn show(doc: &mut String, cmd: &str, (out, rc): &(String, String)) {
    let _ = write!(doc, "```\n# {cmd}\n{out}");
    if rc != "0" {
        let _ = writeln!(doc, "(status {rc})");
    }
    doc.push_str("```\n\n");
}

/// Every place that counts frames agrees with those who count them on the way, for every NIC; a table for the manual.
fn counters_agree(b: &mut Bench) -> String {
    let mut doc = String::from(
        "| Kind | On the way counts | Out, frames | bytes | In, frames | bytes |\n|---|---|---|---|---|---|\n",
    );
    for (n, nic) in NICS.iter().enumerate() {
        let to = format!("10.30.{n}.2");
        b.guest.ok(&format!(
            "ping -q -c 40 -i 0.005 -W 5 -s 1000 {to} && ping -q -c 5 -i 0.005 -W 5 -s 9000 {to}"
        ));
        // A late ARP message may be on its way: at some moment all agree.
        let end = Instant::now() + LIMIT;
        let (who, both) = loop {
            let Some((who, wire)) = b.wire(n) else {
                println!("skipped: the counters of {}", nic.name);
                break ("nobody", b.counted(n));
            };
            let guest = b.counted(n);
            // Not more than the wire has seen is in the file of the guest's own capture, and in the end as much.
            let own =
                nic.line.contains("pcap=").then(|| frames(&b.dir.join(format!("{}.pcap", nic.name)), mac(n)));
            if guest == wire && own.is_none_or(|o| o == wire) {
                break (who, wire);
            }
            assert!(
                Instant::now() < end,
                "{}: (frames, bytes) out and in: the guest counts {guest:?}, pcap= {own:?}, {who} {wire:?}",
                nic.name
            );
            std::thread::sleep(Duration::from_millis(100));
        };
        assert!(both[0].0 >= 75 && both[1].0 >= 75, "{}: {both:?}", nic.name);
        let (s, r) = (both[0], both[1]);
        let who = if nic.line.contains("pcap=") { format!("{who}, pcap=") } else { who.to_owned() };
        let _ = writeln!(doc, "| {} | {who} | {} | {} | {} | {} |", nic.name, s.0, s.1, r.0, r.1);
        // The other places that show them, at one moment.
        let places = format!(
            "grep vec{n}: /proc/net/dev | tr -s ' ' | sed 's/^ *vec{n}: *//' | cut -d' ' -f1,2,9,10; \
             ip -s link show vec{n} | sed -n '4p;6p' | tr -s ' ' | sed 's/^ //' | cut -d' ' -f1,2 | tr '\\n' ' '; echo; \
             ethtool -S vec{n} | grep -E '[rt]x_queue_0_(frames|bytes)' | tr -s ' ' | sort"
        );
        let (sys, out) = (b.counted(n), b.guest.ok(&places));
        if sys == both {
            let want = format!("{} {} {} {}", r.1, r.0, s.1, s.0);
            let mut lines = out.lines().map(str::trim);
            assert_eq!(lines.next(), Some(want.as_str()), "{}: /proc/net/dev", nic.name);
            assert_eq!(lines.next(), Some(want.as_str()), "{}: ip -s link", nic.name);
            println!("{}: per queue since link-up: {:?}", nic.name, lines.collect::<Vec<_>>());
        }
    }
    doc
}

fn hex(text: &str) -> Vec<u8> {
    // A frame to nobody, of a kind that no stack knows.
    let text = text.replace("FRAME", "020000009999 0200000000ff 88b5 0000000000000000");
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).expect("text"), 16).expect("digits");
    digits.chunks(2).map(pair).collect()
}

/// Sends a packet of an IP protocol, as std cannot.
fn send_ip(proto: u8, msg: &[u8]) {
    let digits: String = msg.iter().map(|b| format!("{b:02x}")).collect();
    sh(&format!(
        "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, {proto}); \
         s.bind((\"10.9.0.2\", 0)); s.sendto(bytes.fromhex(\"{digits}\"), (\"10.9.0.1\", 0))'"
    ));
}

/// Messages that are none of ours are counted, each under its reason, and nothing else is; a table for the manual.
fn drops_are_counted(b: &mut Bench) -> String {
    let mut doc = String::from("| Kind | Message | Counter |\n|---|---|---|\n");
    for (n, nic) in NICS.iter().enumerate() {
        let errors = format!("cat /sys/class/net/vec{n}/statistics/rx_errors");
        assert_eq!(b.guest.number(&errors), 0, "{}: errors before any was made", nic.name);
        for Bad(what, bytes, counter) in nic.bad {
            let msg = hex(bytes);
            match nic.wire {
                Wire::Tunnel(Outer { proto: 17, port, .. }) => {
                    // That of l2tpv3 is the other one's.
                    let port = if port == 1702 { 1701 } else { port };
                    let s = UdpSocket::bind("10.9.0.2:0").expect("any port will do");
                    s.send_to(&msg, ("10.9.0.1", port)).expect("sent");
                }
                Wire::Tunnel(Outer { proto, .. }) => send_ip(proto, &msg),
                _ => b.relay(n).inject(&msg),
            }
            let end = Instant::now() + LIMIT;
            while b.stat(n, counter) == 0 {
                assert!(Instant::now() < end, "{}: {what}: waited {LIMIT:?} for {counter}", nic.name);
            }
            let _ = writeln!(doc, "| {} | {what} | {counter} |", nic.name);
        }
        let all = b.guest.ok(&format!("ethtool -S vec{n} | grep rx_drop_"));
        let sum: u64 = all.lines().filter_map(|l| l.split(": ").nth(1)?.trim().parse::<u64>().ok()).sum();
        let want = nic.bad.len() as u64;
        assert_eq!((sum, b.guest.number(&errors)), (want, want), "{}: all drops:\n{all}", nic.name);
    }
    doc
}

/// Full rings: frames wait or are counted, and the link works on; lines for the manual.
fn full_rings(b: &mut Bench) -> String {
    let n = NICS.iter().position(|n| n.name == "vxlan").expect("vxlan");
    // A queue of one frame is full as soon as a datagram has fragments; nothing is lost.
    b.guest.ok(&format!("ethtool -G vec{n} rx 16 tx 1"));
    let sent = b.counted(n)[0].0;
    b.guest.ok(&format!("ping -q -c 1 -W 10 -s 60000 10.30.{n}.2"));
    let (off, sent) = (b.stat(n, "tx_flow_control_xoff"), b.counted(n)[0].0 - sent);
    assert!(off > 0 && sent >= 41, "a full transmit queue: xoff {off}, {sent} frames");
    // While the guest stands still more frames come than there are slots.
    let before = b.counted(n)[1].0;
    let pid = b.guest.pid();
    sh(&format!("kill -STOP {pid}"));
    let s = UdpSocket::bind("10.9.0.2:0").expect("any port will do");
    for i in 0..100 {
        let mut msg = hex("08000000 00000700 FRAME");
        msg.resize(msg.len() + i, 0);
        s.send_to(&msg, ("10.9.0.1", 4789)).expect("sent");
    }
    sh(&format!("kill -CONT {pid}"));
    let end = Instant::now() + LIMIT;
    while b.counted(n)[1].0 < before + 100 {
        assert!(Instant::now() < end, "waited {LIMIT:?} for 100 frames: {}", b.counted(n)[1].0 - before);
    }
    let starved = b.stat(n, "rx_ring_starved");
    assert!(starved > 0, "100 frames in 16 slots and none was wanting");
    format!(
        "A transmit queue of one frame stopped the stack {off} times for {sent} frames (tx_flow_control_xoff); 100 frames for 16 \
         receive slots found none {starved} times (rx_ring_starved) and waited in the host. None was lost.\n"
    )
}

#[test]
fn every_command_answers_as_the_manual_shows() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    if !have("python3") {
        return println!("skipped: no python3");
    }
    if !inside("every_command_answers_as_the_manual_shows") {
        return;
    }
    if !quiet("ip tuntap add tap4 mode tap vnet_hdr && ip link del tap4") {
        return println!("skipped: no taps for us");
    }
    let b = &mut Bench::new();
    let counters = counters_agree(b);
    let drops = drops_are_counted(b);
    let mut doc = String::from(INTRODUCTION);
    // What was shown already, command by command: on which kind, and the answer.
    let mut shown: Vec<Vec<(usize, (String, String))>> = vec![Vec::new(); EVERY.len()];
    for (n, nic) in NICS.iter().enumerate() {
        let dev = format!("vec{n}");
        let _ = write!(doc, "## {}\n\n`{}`\n\n", nic.name, line(n, nic.line, Path::new("DIR")));
        let mut same = vec![Vec::new(); n];
        for (cmd, known) in EVERY.iter().zip(&mut shown) {
            let r = b.guest.run(&cmd.replace("DEV", &dev));
            assert!(!cmd.contains(" -t ") || r.0.contains("result is PASS"), "{}: {cmd}: {}", nic.name, r.0);
            let plain = (r.0.replace(&dev, "DEV"), r.1.clone());
            if let Some((at, _)) = known.iter().find(|(_, k)| alike(cmd, k, &plain)) {
                same[*at].push(format!("`{}`", cmd.trim_start_matches("ethtool ").replace("DEV", &dev)));
                continue;
            }
            show(&mut doc, &cmd.replace("DEV", &dev), &r);
            known.push((n, plain));
        }
        for (other, cmds) in NICS.iter().zip(same).filter(|(_, cmds)| !cmds.is_empty()) {
            let _ = write!(doc, "As on {}: {}.\n\n", other.name, cmds.join(", "));
        }
        if n > 0 {
            continue;
        }
        for cmd in MORE {
            let r = b.guest.run(cmd);
            show(&mut doc, cmd, &r);
        }
        doc.push_str("The interface on the host is set down and up again:\n\n");
        for (state, want) in [("down", "Link detected: no"), ("up", "Link detected: yes")] {
            b.there.sh(&format!("ip link set tap4 {state}"));
            b.guest.until("ethtool vec0", want);
            let cmd =
                "ethtool vec0 | tail -n 1; cat /sys/class/net/vec0/carrier /sys/class/net/vec0/operstate";
            let r = b.guest.run(cmd);
            show(&mut doc, cmd, &r);
        }
    }
    let _ = write!(
        doc,
        "## Frames and bytes\n\nWhat the guest counts and what is counted on the way are the same:\n\n{counters}\n"
    );
    let _ = write!(
        doc,
        "## Drops\n\nOne message of each sort was sent to the guest; each is counted once:\n\n{drops}\n"
    );
    let _ = write!(doc, "## Full rings\n\n{}", full_rings(b));
    let _ = std::fs::remove_dir_all(&b.dir);
    let path = root().join("docs/ethtool.md");
    let doc = format!("{}\n", doc.trim_end());
    if std::env::var_os("KIBBLE_WRITE_DOCS").is_some() {
        std::fs::write(&path, doc).expect("docs/ethtool.md can be written");
        return;
    }
    let old = std::fs::read_to_string(&path).expect("docs/ethtool.md is there");
    let (old, new) = (shape(&old), shape(&doc));
    for (i, (o, n)) in old.iter().zip(&new).enumerate() {
        assert_eq!(o, n, "line {} of docs/ethtool.md", i + 1);
    }
    assert_eq!(old.len(), new.len(), "lines of docs/ethtool.md");
}

/// Whether two answers are the same; counters are, whatever they count.
fn alike(cmd: &str, a: &(String, String), b: &(String, String)) -> bool {
    if cmd.contains(" -S ") { (shape(&a.0), &a.1) == (shape(&b.0), &b.1) } else { a == b }
}

const INTRODUCTION: &str = "# ethtool

What Debian's ethtool 6.1 shows of the vector NIC, on every kind of transport. Made by `KIBBLE_WRITE_DOCS=1 cargo test -p tests --test ethtool`; \
without the variable the test fails if the answers no longer have this shape. Numbers differ from run to run.

- Rings can be resized while frames flow: `tx` is a bound and changes at once, receive slots are powers of two from 16 to 256. A stream has no slots to resize.
- `tx-usecs`, `tx-frames`, `rx-usecs`, `rx-frames` hold frames back for company; 0 microseconds, as at boot, holds nothing. \
A full queue never waits. At most one second.
- Statistics begin with UML's fourteen names. Frames, bytes, errors and drops count since boot, the others since the last link-up; \
`host_calls` and `host_waits` are those of all CPUs.
- Carrier, speed and duplex are those of the interface on the host behind tap, hybrid and raw.
- `-t` puts headers on and takes them off in memory, cuts a super-frame and looks at the link; nothing is sent.
- `-K` acts at once, on connections that are there too. What the device does not cut the stack or the driver cuts at the last moment, \
so `tso off` puts MTU frames on the wire; `gso off` is kept and changes nothing besides, since TCP hands over super-frames either way.
- `-f` takes a classic BPF program from the guest's /lib/firmware if the line of the NIC has `bpfflash=1`; a wrong or missing file leaves the old program in force.
- The last sections compare the counters with what is seen on the way, and provoke what the others count.

";
