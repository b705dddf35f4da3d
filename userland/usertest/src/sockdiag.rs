//! NETLINK_SOCK_DIAG (sock_diag(7)): what ss(8) asks, and that /proc/net says the same.
use crate::check::*;
use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

tests![
    diag_lists_listener_and_connection,
    diag_tcp_info_and_memory,
    diag_one_socket_by_its_ends,
    diag_timewait,
    diag_udp,
    diag_states_ports_and_filter_choose,
    diag_agrees_with_proc,
    diag_refusals
];

const TCP: u8 = 6;
const UDP: u8 = 17;
const ALL: u32 = 0xfff;
const LISTEN: u8 = 10;

/// `struct inet_diag_msg` with its attributes.
struct Row {
    state: u8,
    timer: u8,
    sport: u16,
    dport: u16,
    src: [u8; 16],
    cookie: [u8; 8],
    rqueue: u32,
    wqueue: u32,
    uid: u32,
    inode: u32,
    attrs: HashMap<u16, Vec<u8>>,
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(b[at..at + 4].try_into().unwrap())
}

fn row(b: &[u8]) -> Row {
    let mut attrs = HashMap::new();
    let mut at = 72;
    while at + 4 <= b.len() {
        let len = u16::from_ne_bytes([b[at], b[at + 1]]) as usize;
        assert!(len >= 4 && at + len <= b.len(), "attribute length {len}");
        attrs.insert(u16::from_ne_bytes([b[at + 2], b[at + 3]]), b[at + 4..at + len].to_vec());
        at += len.next_multiple_of(4);
    }
    Row {
        state: b[1],
        timer: b[2],
        sport: u16::from_be_bytes([b[4], b[5]]),
        dport: u16::from_be_bytes([b[6], b[7]]),
        src: b[8..24].try_into().unwrap(),
        cookie: b[44..52].try_into().unwrap(),
        rqueue: word(b, 56),
        wqueue: word(b, 60),
        uid: word(b, 64),
        inode: word(b, 68),
        attrs,
    }
}

/// `struct inet_diag_req_v2` with these ends.
fn req(protocol: u8, ext: u8, states: u32, ports: (u16, u16), addrs: [[u8; 4]; 2]) -> Vec<u8> {
    let mut b = vec![libc::AF_INET as u8, protocol, ext, 0];
    b.extend_from_slice(&states.to_ne_bytes());
    b.extend_from_slice(&ports.0.to_be_bytes());
    b.extend_from_slice(&ports.1.to_be_bytes());
    for a in addrs {
        b.extend_from_slice(&a);
        b.extend_from_slice(&[0; 12]);
    }
    b.extend_from_slice(&[0; 4]);
    b.extend_from_slice(&[0xff; 8]);
    b
}

/// Sends a request of a type; the rows, or the errno.
fn ask(kind: u16, dump: bool, body: &[u8]) -> Result<Vec<Row>, i32> {
    let fd = unsafe { ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 4)) };
    let s = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut q = Vec::from((16 + body.len() as u32).to_ne_bytes());
    q.extend_from_slice(&kind.to_ne_bytes());
    let flags: u16 = if dump { 0x301 } else { 1 };
    q.extend_from_slice(&flags.to_ne_bytes());
    q.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]);
    q.extend_from_slice(body);
    unsafe { ok!(libc::send(fd, q.as_ptr().cast(), q.len(), 0)) };
    let mut rows = Vec::new();
    loop {
        let mut p = libc::pollfd { fd: s.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        assert_eq!(unsafe { libc::poll(&mut p, 1, 3000) }, 1, "an answer");
        let mut m = vec![0u8; 65536];
        let n = unsafe { ok!(libc::recv(fd, m.as_mut_ptr().cast(), m.len(), 0)) } as usize;
        let mut at = 0;
        while at + 16 <= n {
            let len = word(&m, at) as usize;
            assert!(len >= 16 && at + len <= n, "message length {len}");
            assert_eq!(m[at + 8], 9, "our sequence number");
            match u16::from_ne_bytes([m[at + 4], m[at + 5]]) {
                2 => return Err(-(word(&m, at + 16) as i32)),
                3 => return Ok(rows),
                20 => rows.push(row(&m[at + 16..at + len])),
                other => panic!("message type {other}"),
            }
            if !dump {
                return Ok(rows);
            }
            at += len.next_multiple_of(4);
        }
    }
}

fn dump(protocol: u8, ext: u8, states: u32, ports: (u16, u16)) -> Vec<Row> {
    match ask(20, true, &req(protocol, ext, states, ports, [[0; 4]; 2])) {
        Ok(r) => r,
        Err(libc::ENOENT) => skip("no inet_diag"),
        Err(e) => panic!("errno {e}"),
    }
}

fn inode(s: &impl AsRawFd) -> u32 {
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    unsafe { ok!(libc::fstat(s.as_raw_fd(), &mut st)) };
    st.st_ino as u32
}

fn port(a: std::io::Result<SocketAddr>) -> u16 {
    a.unwrap().port()
}

/// A listener, and the two ends of a connection to it.
fn pair() -> (TcpListener, TcpStream, TcpStream) {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let c = TcpStream::connect(l.local_addr().unwrap()).unwrap();
    let s = l.accept().unwrap().0;
    (l, c, s)
}

/// Waits until `s` has `n` bytes to read.
fn arrived(s: &TcpStream, n: usize) {
    let mut b = vec![0; n];
    for _ in 0..300 {
        if s.peek(&mut b).unwrap() == n {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{n} bytes do not arrive");
}

unsafe fn diag_lists_listener_and_connection() {
    let (l, mut c, s) = pair();
    c.write_all(b"hello").unwrap();
    arrived(&s, 5);
    let lport = port(l.local_addr());
    let rows = dump(TCP, 0, ALL, (0, 0));
    let by = |ino: u32| rows.iter().find(|r| r.inode == ino).expect("a row");
    let r = by(inode(&l));
    assert_eq!((r.state, r.sport, r.dport, r.rqueue, r.timer), (LISTEN, lport, 0, 0, 0));
    assert!(r.wqueue >= 1, "backlog {}", r.wqueue);
    assert_eq!(&r.src[..4], &[127, 0, 0, 1]);
    let r = by(inode(&s));
    assert_eq!((r.state, r.sport, r.dport, r.rqueue, r.wqueue), (1, lport, port(c.local_addr()), 5, 0));
    assert_eq!(r.uid, unsafe { libc::geteuid() });
    assert_eq!(r.attrs[&8], [0], "INET_DIAG_SHUTDOWN");
    let r = by(inode(&c));
    assert_eq!((r.state, r.sport, r.dport, r.rqueue), (1, port(c.local_addr()), lport, 0));
    // A connection that nobody has accepted has no inode, and counts in the listener's queue.
    let c2 = TcpStream::connect(l.local_addr().unwrap()).unwrap();
    let rows = dump(TCP, 0, ALL, (lport, 0));
    let listener = rows.iter().find(|r| r.state == LISTEN).unwrap();
    assert_eq!(listener.rqueue, 1);
    let waiting = rows.iter().find(|r| r.dport == port(c2.local_addr())).unwrap();
    assert_eq!((waiting.state, waiting.inode), (1, 0));
}

unsafe fn diag_tcp_info_and_memory() {
    let (l, mut c, s) = pair();
    c.write_all(&[7; 3000]).unwrap();
    arrived(&s, 3000);
    c.shutdown(std::net::Shutdown::Write).unwrap();
    // MEMINFO, INFO, CONG, TOS, SKMEMINFO
    let rows = dump(TCP, 1 | 2 | 8 | 16 | 64, ALL, (0, 0));
    let r = rows.iter().find(|r| r.inode == inode(&s)).unwrap();
    let info = &r.attrs[&2];
    assert!(info.len() >= 232, "tcp_info of {} bytes", info.len());
    // tcpi_state, tcpi_bytes_received
    assert_eq!(info[0], r.state);
    let received = u64::from_ne_bytes(info[128..136].try_into().unwrap());
    // Linux counts the FIN.
    assert!((3000..=3001).contains(&received), "bytes_received {received}");
    let mut name = [0u8; 16];
    let mut len = 16u32;
    unsafe { ok!(libc::getsockopt(s.as_raw_fd(), 6, 13, name.as_mut_ptr().cast(), &mut len)) };
    let shown = &r.attrs[&4];
    assert_eq!(shown.last(), Some(&0), "a NUL behind the name");
    assert_eq!(&shown[..shown.len() - 1], &name[..shown.len() - 1]);
    assert_eq!(r.attrs[&5], [0], "TOS");
    assert_eq!(r.attrs[&1].len(), 16, "MEMINFO");
    let mem = &r.attrs[&7];
    assert_eq!(mem.len(), 36, "SKMEMINFO");
    assert!(word(mem, 0) >= 3000, "rmem_alloc {}", word(mem, 0));
    let c_row = rows.iter().find(|r| r.inode == inode(&c)).unwrap();
    assert_eq!(c_row.attrs[&8], [2], "closed for sending");
    // bytes_acked counts the SYN on Linux.
    let acked = u64::from_ne_bytes(c_row.attrs[&2][120..128].try_into().unwrap());
    assert!((3000..=3002).contains(&acked), "bytes_acked {acked}");
    let lr = rows.iter().find(|r| r.inode == inode(&l)).unwrap();
    assert_eq!(lr.attrs[&2][0], LISTEN);
    assert!(!rows.iter().any(|r| r.attrs.contains_key(&6)), "TCLASS was not asked for");
}

unsafe fn diag_one_socket_by_its_ends() {
    let (l, c, s) = pair();
    let (lp, cp) = (port(l.local_addr()), port(c.local_addr()));
    let lo = [127, 0, 0, 1];
    let get = |ports, addrs| ask(20, false, &req(TCP, 0, ALL, ports, addrs));
    let got = match get((lp, cp), [lo, lo]) {
        Err(libc::ENOENT) if dump(TCP, 0, ALL, (0, 0)).is_empty() => skip("no inet_diag"),
        r => r.expect("a socket"),
    };
    assert_eq!((got.len(), got[0].inode), (1, inode(&s)));
    let mut cookie = [0u8; 8];
    let mut len = 8u32;
    // SO_COOKIE
    unsafe { ok!(libc::getsockopt(s.as_raw_fd(), 1, 57, cookie.as_mut_ptr().cast(), &mut len)) };
    assert_eq!(got[0].cookie, cookie);
    let mut q = req(TCP, 0, ALL, (lp, cp), [lo, lo]);
    q[48..56].copy_from_slice(&cookie);
    assert_eq!(ask(20, false, &q).expect("the same")[0].inode, inode(&s));
    q[48] ^= 1;
    assert_eq!(ask(20, false, &q).err(), Some(libc::ENOENT), "another cookie");
    assert_eq!(get((lp, 0), [lo, [0; 4]]).expect("the listener")[0].inode, inode(&l));
    drop(l);
    assert_eq!(get((lp, 1), [lo, [127, 0, 0, 9]]).err(), Some(libc::ENOENT));
}

unsafe fn diag_timewait() {
    let (l, c, s) = pair();
    let (lp, cp) = (port(l.local_addr()), port(c.local_addr()));
    drop(s);
    drop(c);
    for _ in 0..300 {
        let rows = dump(TCP, 0xff, 1 << 6, (lp, cp));
        if let [r] = rows.as_slice() {
            assert_eq!((r.state, r.timer, r.inode, r.rqueue), (6, 3, 0, 0));
            assert!(r.attrs.is_empty() || !r.attrs.contains_key(&2), "no tcp_info");
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never in TIME-WAIT");
}

unsafe fn diag_udp() {
    let a = UdpSocket::bind("127.0.0.1:0").unwrap();
    let b = UdpSocket::bind("127.0.0.1:0").unwrap();
    b.connect(a.local_addr().unwrap()).unwrap();
    b.send(b"four").unwrap();
    let mut buf = [0; 8];
    assert_eq!(a.peek(&mut buf).unwrap(), 4);
    let rows = match ask(20, true, &req(UDP, 64, ALL, (0, 0), [[0; 4]; 2])) {
        Err(libc::ENOENT) => skip("no udp_diag"),
        r => r.unwrap(),
    };
    let by = |s: &UdpSocket| rows.iter().find(|r| r.inode == inode(s)).expect("a row");
    let (ra, rb) = (by(&a), by(&b));
    assert_eq!((ra.state, ra.sport, ra.dport), (7, port(a.local_addr()), 0));
    assert!(ra.rqueue >= 4, "rqueue {}", ra.rqueue);
    assert_eq!((rb.state, rb.sport, rb.dport), (1, port(b.local_addr()), port(a.local_addr())));
    assert_eq!(ra.attrs[&7].len(), 36, "SKMEMINFO");
}

unsafe fn diag_states_ports_and_filter_choose() {
    let (l, c, s) = pair();
    let (lp, cp) = (port(l.local_addr()), port(c.local_addr()));
    let inodes = |r: Vec<Row>| {
        let mut v: Vec<u32> = r.iter().map(|r| r.inode).collect();
        v.sort_unstable();
        v
    };
    let mut both = vec![inode(&l), inode(&s)];
    both.sort_unstable();
    assert_eq!(inodes(dump(TCP, 0, ALL, (lp, 0))), both);
    assert_eq!(inodes(dump(TCP, 0, 1 << LISTEN, (lp, 0))), [inode(&l)]);
    assert_eq!(inodes(dump(TCP, 0, 1 << 1, (0, lp))), [inode(&c)]);
    // A program: dport >= cp and dport <= cp.
    let code: Vec<u8> = [[4, 8], [0, 0], [5, 8], [0, 0]]
        .iter()
        .zip([20u16, cp, 12, cp])
        .flat_map(|(op, no)| [op[0], op[1], no.to_ne_bytes()[0], no.to_ne_bytes()[1]])
        .collect();
    let with = |code: &[u8]| {
        let mut q = req(TCP, 0, ALL, (lp, 0), [[0; 4]; 2]);
        q.extend_from_slice(&(code.len() as u16 + 4).to_ne_bytes());
        q.extend_from_slice(&[1, 0]);
        q.extend_from_slice(code);
        ask(20, true, &q)
    };
    assert_eq!(inodes(with(&code).expect("a dump")), [inode(&s)]);
    // "src 127.0.0.0/8", "src 10.0.0.0/8"
    let cond = |net: u8| [vec![7, 16, 20, 0, 2, 8, 0, 0], vec![0xff; 4], vec![net, 0, 0, 0]].concat();
    assert_eq!(inodes(with(&cond(127)).expect("a dump")), both);
    assert!(with(&cond(10)).expect("a dump").is_empty());
    assert_eq!(with(&[99, 4, 8, 0]).err(), Some(libc::EINVAL));
    assert_eq!(with(&[4, 8, 20, 0]).err(), Some(libc::EINVAL));
}

unsafe fn diag_agrees_with_proc() {
    let (l, mut c, s) = pair();
    c.write_all(b"12345").unwrap();
    arrived(&s, 5);
    let rows = dump(TCP, 0, ALL, (0, 0));
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    for ino in [inode(&l), inode(&c), inode(&s)] {
        let r = rows.iter().find(|r| r.inode == ino).expect("a row");
        let line: Vec<&str> = text
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .find(|w| w.get(9) == Some(&ino.to_string().as_str()))
            .expect("a line in /proc/net/tcp");
        let hex = |t: &str| u32::from_str_radix(t, 16).unwrap();
        let (local, remote) = (line[1].split_once(':').unwrap(), line[2].split_once(':').unwrap());
        assert_eq!((hex(local.1), hex(remote.1)), (r.sport.into(), r.dport.into()));
        assert_eq!(hex(local.0).to_ne_bytes(), r.src[..4]);
        assert_eq!(hex(line[3]), r.state.into());
        assert_eq!(hex(line[4].split_once(':').unwrap().1), r.rqueue);
        assert_eq!(line[7].parse::<u32>().unwrap(), r.uid);
    }
}

unsafe fn diag_refusals() {
    dump(TCP, 0, 0, (0, 0));
    let lo = [127, 0, 0, 1];
    let mut q = req(TCP, 0, ALL, (0, 0), [lo, lo]);
    assert_eq!(ask(20, true, &q[..30]).err(), Some(libc::EINVAL), "cut off");
    assert_eq!(ask(99, true, &q).err(), Some(libc::EINVAL), "type");
    q[0] = 200;
    assert_eq!(ask(20, true, &q).err(), Some(libc::EINVAL), "family");
}
