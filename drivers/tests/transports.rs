//! Each transport of the vector NIC against plain host sockets: every byte on the wire, in both directions, and what
//! happens to malformed messages. In network namespaces that the tests make for themselves; where that is not permitted
//! they say so and pass.

mod common;

use arch::host::fd::HostFd;
use arch::host::packet;
use common::{in_namespace, on_a_cpu, sh, stack};
use drivers::vector::{Vector, VectorConfig};
use net::{CsumStatus, GsoInfo, GsoType, IfAddr, NetDevice, Skb};
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const GUEST: [u8; 4] = [10, 91, 0, 2];
const PEER: [u8; 4] = [10, 91, 0, 1];
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LIMIT: Duration = Duration::from_secs(20);

/// The other end, as raw as it gets.
trait Peer: Send {
    fn send(&mut self, msg: &[u8]);
    /// The next message of the guest's; panics after the limit.
    fn recv(&mut self) -> Vec<u8>;
}

/// Waits until a descriptor has something.
fn wait(fd: &HostFd) {
    assert!(fd.poll_wait(1, LIMIT.as_millis() as u32).is_ok_and(|e| e & 1 != 0), "waited for a frame");
}

/// Bare frames on a packet socket of an interface.
struct OnLink(HostFd);

impl OnLink {
    fn new(ifname: &str) -> Self {
        // The host drops what is sent by an interface whose carrier it has not noticed yet.
        let end = Instant::now() + LIMIT;
        let mut link = packet::link(ifname).expect("interface");
        while !link.running {
            assert!(Instant::now() < end, "waited for the carrier of {ifname}");
            std::thread::sleep(Duration::from_millis(5));
            link = packet::link(ifname).expect("interface");
        }
        let fd = packet::open().expect("socket");
        packet::set_promiscuous(&fd, link.index).expect("promiscuous");
        packet::bind(&fd, link.index, packet::ETH_P_ALL).expect("bound");
        Self(fd)
    }
}

impl Peer for OnLink {
    fn send(&mut self, msg: &[u8]) {
        // Shorter ones the host itself refuses.
        if msg.len() >= 14 {
            assert_eq!(self.0.send_now(msg), Ok(msg.len()));
        }
    }
    fn recv(&mut self) -> Vec<u8> {
        let mut buf = vec![0; 70_000];
        loop {
            wait(&self.0);
            let n = self.0.recv_now(&mut buf).expect("received");
            // The host talks on the interface as well.
            if n >= 14 && buf[6..12] == GUEST_MAC {
                return buf[..n].to_vec();
            }
        }
    }
}

/// Messages of a connected socket.
struct Messages(HostFd);

impl Peer for Messages {
    fn send(&mut self, msg: &[u8]) {
        if !msg.is_empty() {
            assert_eq!(self.0.send_now(msg), Ok(msg.len()));
        }
    }
    fn recv(&mut self) -> Vec<u8> {
        let mut buf = vec![0; 70_000];
        wait(&self.0);
        let n = self.0.recv_now(&mut buf).expect("received");
        buf[..n].to_vec()
    }
}

/// Frames behind their length; sent in crumbs.
struct Lengths(UnixStream, usize);

impl Peer for Lengths {
    fn send(&mut self, msg: &[u8]) {
        let mut all = u32::try_from(msg.len()).expect("length").to_be_bytes().to_vec();
        all.extend_from_slice(msg);
        for c in all.chunks(self.1) {
            std::io::Write::write_all(&mut self.0, c).expect("written");
        }
    }
    fn recv(&mut self) -> Vec<u8> {
        self.0.set_read_timeout(Some(LIMIT)).expect("timeout");
        let mut len = [0; 4];
        self.0.read_exact(&mut len).expect("waited for a length");
        let mut buf = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut buf).expect("waited for a frame");
        buf
    }
}

fn eth(dst: [u8; 6], src: [u8; 6], proto: u16) -> Vec<u8> {
    [&dst[..], &src[..], &proto.to_be_bytes()[..]].concat()
}

fn arp(op: u8, dst: [u8; 6], from: ([u8; 6], [u8; 4]), to: ([u8; 6], [u8; 4])) -> Vec<u8> {
    let mut f = eth(dst, from.0, 0x0806);
    f.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, op]);
    for part in [&from.0[..], &from.1, &to.0, &to.1] {
        f.extend_from_slice(part);
    }
    f
}

fn sum(data: &[u8], start: u32) -> u32 {
    data.chunks(2).fold(start, |s, c| s + (u32::from(c[0]) << 8 | c.get(1).map_or(0, |b| u32::from(*b))))
}

fn fold(mut s: u32) -> u16 {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

/// A TCP segment of the guest's with `payload` bytes, checksum left to the device.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut f = eth(PEER_MAC, GUEST_MAC, 0x0800);
    let total = u16::try_from(40 + payload).expect("fits");
    f.extend_from_slice(&[0x45, 0, (total >> 8) as u8, total as u8, 0, 7, 0x40, 0, 64, 6, 0, 0]);
    f.extend_from_slice(&GUEST);
    f.extend_from_slice(&PEER);
    let c = !fold(sum(&f[14..34], 0));
    f[24..26].copy_from_slice(&c.to_be_bytes());
    f.extend_from_slice(&[0x12, 0x34, 0, 80, 0, 0, 0x10, 0, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    f.extend((0..payload).map(|i| i as u8));
    let pseudo = sum(&f[26..34], 6 + 20 + payload as u32);
    f[50..52].copy_from_slice(&fold(pseudo).to_be_bytes());
    f
}

/// `partial`: the host has not completed the checksum, and knows it.
fn check_tcp(f: &[u8], payload: std::ops::Range<usize>, partial: bool) {
    let len = payload.len();
    assert_eq!(f.len(), 54 + len, "length of the segment");
    assert_eq!(usize::from(u16::from_be_bytes([f[16], f[17]])), 40 + len, "length in the IP header");
    assert_eq!(fold(sum(&f[14..34], 0)), 0xffff, "IP checksum");
    let pseudo = sum(&f[26..34], 6 + 20 + len as u32);
    let left = partial && f[50..52] == fold(pseudo).to_be_bytes();
    assert!(left || fold(sum(&f[34..], pseudo)) == 0xffff, "TCP checksum");
    let seq = u32::from_be_bytes([f[38], f[39], f[40], f[41]]);
    assert_eq!(seq as usize, 0x1000 + payload.start);
    assert!(f[54..].iter().zip(payload).all(|(b, i)| *b == i as u8), "payload");
}

/// Sends a frame as the stack would.
fn xmit(nic: &Vector, frame: &[u8], csum: CsumStatus, gso: Option<GsoInfo>) {
    let mut room = vec![0; 256];
    room.extend_from_slice(frame);
    let mut skb = Skb::from_vec(room, 256, frame.len());
    skb.csum = csum;
    skb.gso = gso;
    assert!(nic.xmit(skb).is_ok(), "the queue is full");
    nic.flush();
}

fn stat(nic: &Vector, name: &str) -> u64 {
    nic.ethtool().stats().iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v)
}

/// What the peer does while the NIC is up; it tells the CPU which frames to send.
enum Ask {
    Plain,
    Tcp,
    Super,
    Done,
}

/// The conversation, on a thread of its own.
fn converse(mut peer: Box<dyn Peer>, ask: &mpsc::Sender<Ask>, drops: bool, whole: bool) {
    let request = arp(1, [0xff; 6], (PEER_MAC, PEER), ([0; 6], GUEST));
    let reply = arp(2, PEER_MAC, (GUEST_MAC, GUEST), (PEER_MAC, PEER));
    let question = |peer: &mut Box<dyn Peer>| {
        peer.send(&request);
        loop {
            let got = peer.recv();
            // The guest's stack may have something of its own to say.
            if got.get(12..14) == Some(&[8, 6]) && got.get(21) == Some(&2) {
                assert_eq!(got, reply, "ARP reply");
                break;
            }
        }
    };
    question(&mut peer);
    let next = |peer: &mut Box<dyn Peer>| loop {
        let got = peer.recv();
        if got.get(12..14) != Some(&[8, 6]) && got.get(12..14) != Some(&[0x86, 0xdd]) {
            return got;
        }
    };
    ask.send(Ask::Plain).expect("asked");
    let plain: Vec<u8> = [eth(PEER_MAC, GUEST_MAC, 0x88b5), (0..99u8).collect()].concat();
    assert_eq!(next(&mut peer), plain, "a plain frame");
    ask.send(Ask::Tcp).expect("asked");
    check_tcp(&next(&mut peer), 0..501, whole);
    ask.send(Ask::Super).expect("asked");
    let mut at = 0;
    while at < 3500 {
        let f = next(&mut peer);
        let n = f.len() - 54;
        // A host that cuts by itself may leave that to whoever is behind it.
        if whole && n == 3500 {
            check_tcp(&f, 0..n, true);
            break;
        }
        check_tcp(&f, at..at + n, whole);
        assert_eq!(n, 1000.min(3500 - at));
        at += n;
    }
    if drops {
        for n in [1, 6, 13] {
            peer.send(&vec![0xa5; n]);
        }
    }
    // Frames of odd kinds that the stack has no use for.
    peer.send(&[&eth(GUEST_MAC, PEER_MAC, 0x0800)[..], &[0x4f; 10]].concat());
    peer.send(&[&eth(GUEST_MAC, PEER_MAC, 0x86dd)[..], &[0xff; 60]].concat());
    peer.send(&eth(GUEST_MAC, PEER_MAC, 0x0806));
    question(&mut peer);
    ask.send(Ask::Done).expect("asked");
}

/// Brings a NIC up and lets the peer talk to it. `drops`: the peer can send messages that are no frames; `whole`: it may see
/// super-frames.
fn run(line: &str, peer: impl FnOnce() -> Box<dyn Peer> + Send + 'static, drops: bool, whole: bool) {
    let cfg = VectorConfig::parse(&format!("{line},mac=02:00:00:00:00:02")).expect("valid");
    let nic = match Vector::new(&cfg) {
        Ok(n) => n,
        Err(e) => return println!("skipped: {e}"),
    };
    let net = stack();
    let dev = net.register(nic.clone()).expect("registered");
    on_a_cpu(async move {
        net.set_link_up(dev.ifindex, true).expect("up");
        net.addr_add(dev.ifindex, IfAddr::new(GUEST.into(), 24)).expect("address");
        let (tell, asked) = mpsc::channel();
        let thread = std::thread::spawn(move || converse(peer(), &tell, drops, whole));
        let end = Instant::now() + 3 * LIMIT;
        loop {
            let partial = CsumStatus::Partial { start: 34, offset: 16 };
            match asked.try_recv() {
                Ok(Ask::Plain) => {
                    let f = [eth(PEER_MAC, GUEST_MAC, 0x88b5), (0..99u8).collect()].concat();
                    xmit(&nic, &f, CsumStatus::None, None);
                }
                Ok(Ask::Tcp) => xmit(&nic, &tcp_frame(501), partial, None),
                Ok(Ask::Super) => {
                    let gso = GsoInfo { kind: GsoType::TcpV4, size: 1000, hdr_len: 40 };
                    xmit(&nic, &tcp_frame(3500), partial, Some(gso));
                }
                Ok(Ask::Done) => break,
                Err(mpsc::TryRecvError::Disconnected) => panic!("the peer failed"),
                Err(mpsc::TryRecvError::Empty) => executor::time::sleep(Duration::from_millis(1)).await,
            }
            assert!(Instant::now() < end, "waited for the peer");
        }
        thread.join().expect("peer");
        let s = dev.stats();
        println!("{s:?}");
        println!("{:?}", nic.ethtool().stats());
        assert_eq!((s.tx_errors, s.tx_dropped), (0, 0));
        assert_eq!(stat(&nic, "rx_drop_short"), if drops { 3 } else { 0 });
        assert_eq!(s.rx_errors, stat(&nic, "rx_drop_short"));
        // Two questions and three odd frames: nothing of what it sent has come back.
        assert_eq!(s.rx_packets, 5);
        net.set_link_up(dev.ifindex, false).expect("down");
        net.set_link_up(dev.ifindex, true).expect("up again");
    });
}

/// A directory of its own for sockets.
fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("kibble-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directory");
    dir
}

/// No chatter of the host's own on new interfaces.
fn quiet() {
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
}

#[test]
fn tap() {
    if in_namespace("tap") {
        quiet();
        sh("ip tuntap add t0 mode tap vnet_hdr && ip link set t0 up");
        run("vec0:transport=tap,ifname=t0", || Box::new(OnLink::new("t0")), false, true);
    }
}

#[test]
fn hybrid() {
    if in_namespace("hybrid") {
        quiet();
        sh("ip tuntap add t0 mode tap vnet_hdr && ip link set t0 up");
        run("vec0:transport=hybrid,ifname=t0", || Box::new(OnLink::new("t0")), false, true);
    }
}

#[test]
fn raw() {
    if in_namespace("raw") {
        quiet();
        sh("ip link add va type veth peer name vb && ethtool -K va tso off tx off >/dev/null && \
            ip link set va up && ip link set vb up");
        // A link comes up a moment later; until then it swallows frames.
        sh(
            "for i in $(seq 500); do for l in va vb; do ip link show $l | grep -q 'state UP' || { sleep 0.02; continue 2; }; done; exit 0; done; \
            echo waited 10 s for the links; exit 1",
        );
        run("vec0:transport=raw,ifname=va", || Box::new(OnLink::new("vb")), false, false);
    }
}

#[test]
fn bess() {
    if in_namespace("bess") {
        let dir = scratch("bess");
        let path = dir.join("peer");
        let server = arch::host::unix::socket(arch::host::unix::Kind::SeqPacket).expect("socket");
        arch::host::unix::bind(&server, arch::host::unix::Kind::SeqPacket, &path).expect("bound");
        arch::host::unix::listen(&server).expect("listening");
        let line = format!("vec0:transport=bess,dst={},src={}", path.display(), dir.join("us").display());
        run(&line, move || Box::new(Messages(accept(&server))), true, false);
        let _ = std::fs::remove_dir_all(dir);
    }
}

#[test]
fn fd_datagrams() {
    if in_namespace("fd_datagrams") {
        let (ours, theirs) = UnixDatagram::pair().expect("pair");
        ours.set_nonblocking(true).expect("as somebody else may have left it");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&ours);
        let line = format!("vec0:transport=fd,fd={fd}");
        let peer = move || -> Box<dyn Peer> { Box::new(Messages(std::os::fd::OwnedFd::from(theirs).into())) };
        run(&line, peer, true, false);
        drop(ours);
    }
}

#[test]
fn fd_of_a_tap() {
    if in_namespace("fd_of_a_tap") {
        quiet();
        let tap = match arch::host::tap::open("t0", 12, 0, false) {
            Ok(t) => t,
            Err(e) => return println!("skipped: no tap: {e:?}"),
        };
        sh("ip link set t0 up");
        let line = format!("vec0:transport=fd,fd={}", std::os::fd::AsRawFd::as_raw_fd(&tap.fd));
        run(&line, || Box::new(OnLink::new("t0")), false, true);
    }
}

#[test]
fn stream() {
    if in_namespace("stream") {
        let dir = scratch("stream");
        let path = dir.join("peer");
        let server = UnixListener::bind(&path).expect("bound");
        let line = format!("vec0:transport=stream,dst={}", path.display());
        let accept = move || -> Box<dyn Peer> { Box::new(Lengths(server.accept().expect("accepted").0, 7)) };
        run(&line, accept, true, false);
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// The switch's side of the handshake, by hand.
#[test]
fn vde() {
    if in_namespace("vde") {
        let dir = scratch("vde");
        let server = UnixListener::bind(dir.join("ctl")).expect("bound");
        let port = UnixDatagram::bind(dir.join("port")).expect("bound");
        let answer = dir.join("port");
        let (tell, connected) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut c, _) = server.accept().expect("accepted");
            let mut r = [0; 12 + 110 + 5];
            c.read_exact(&mut r).expect("waited for the request");
            assert_eq!(r[..12], [0xce, 0xfa, 0xed, 0xfe, 3, 0, 0, 0, 0, 7, 0, 0], "magic, version, port");
            assert_eq!(r[122..], *b"guest", "description");
            let end = 14 + r[14..122].iter().position(|b| *b == 0).expect("a path");
            let path = PathBuf::from(String::from_utf8(r[14..end].to_vec()).expect("path"));
            let mut a = vec![1, 0];
            a.extend_from_slice(answer.as_os_str().as_encoded_bytes());
            a.resize(110, 0);
            std::io::Write::write_all(&mut c, &a).expect("answered");
            tell.send((path, c)).expect("told");
        });
        let line = format!("vec0:transport=vde,vnl=vde://{},port=7,descr=guest", dir.display());
        let peer = move || -> Box<dyn Peer> {
            let (path, control) = connected.recv_timeout(LIMIT).expect("waited for the handshake");
            port.connect(path).expect("connected");
            std::mem::forget(control);
            Box::new(Messages(std::os::fd::OwnedFd::from(port).into()))
        };
        run(&line, peer, true, false);
        let _ = std::fs::remove_dir_all(dir);
    }
}

fn accept(fd: &HostFd) -> HostFd {
    wait(fd);
    arch::host::unix::accept(fd).expect("accepted")
}

/// What cannot be opened is one line that says why.
#[test]
fn refusals() {
    if !in_namespace("refusals") {
        return;
    }
    let file = std::env::temp_dir().join(format!("kibble-plain-{}", std::process::id()));
    std::fs::write(&file, "x").expect("file");
    let null = std::fs::File::open("/dev/null").expect("null");
    let n = std::os::fd::AsRawFd::as_raw_fd(&null);
    for (line, want) in [
        ("transport=raw,ifname=nope".to_owned(), "no such interface"),
        ("transport=bess,dst=/nonexistent/s".to_owned(), "no such file"),
        (format!("transport=bess,dst={}", file.display()), "nobody listens"),
        (format!("transport=stream,dst={}", file.display()), "nobody listens"),
        (format!("transport=vde,vnl={}", Path::new("/nonexistent").display()), "no such file"),
        ("transport=fd,fd=999".to_owned(), "not open"),
        (format!("transport=fd,fd={n}"), "neither a tap nor a socket"),
        ("transport=tap,ifname=lo".to_owned(), "not a plain tap"),
        ("transport=tap,ifname=t7,bpffile=/nonexistent".to_owned(), "cannot read it"),
        (format!("transport=tap,ifname=t7,bpffile={}", file.display()), "not a classic BPF program"),
        ("transport=tap,ifname=t7,ifup=/nonexistent".to_owned(), "cannot run it"),
        ("transport=tap,ifname=t7,ifup=/bin/false".to_owned(), "it failed"),
    ] {
        let cfg = VectorConfig::parse(&format!("vec3:{line}")).expect("valid");
        let e = Vector::new(&cfg).err().unwrap_or_default();
        println!("{e}");
        assert!(e.starts_with("vec3: ") && e.contains(want) && !e.contains('\n'), "{line}: {e}");
    }
    let _ = std::fs::remove_file(file);
}
