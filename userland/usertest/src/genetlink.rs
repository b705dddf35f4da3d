//! Generic netlink and the family `ethtool` against `lo`, and the same by ioctl.
use crate::check::*;
use crate::socket::sock;
use std::collections::HashMap;
use std::os::fd::FromRawFd;

tests![
    genl_lists_families,
    genl_unknown_family,
    ethtool_features_of_lo,
    ethtool_strings,
    ethtool_no_such_device,
    ethtool_extended_ack,
    ethtool_not_supported,
    ethtool_hostile_attributes,
    ethtool_ioctls
];

const CTRL: u16 = 16;

fn genl() -> i32 {
    unsafe { ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 16)) }
}

fn attr(kind: u16, v: &[u8]) -> Vec<u8> {
    let mut a = Vec::from((v.len() as u16 + 4).to_ne_bytes());
    a.extend_from_slice(&kind.to_ne_bytes());
    a.extend_from_slice(v);
    a.resize(a.len().next_multiple_of(4), 0);
    a
}

fn attrs(b: &[u8]) -> HashMap<u16, Vec<u8>> {
    let mut m = HashMap::new();
    let mut at = 0;
    while at + 4 <= b.len() {
        let len = u16::from_ne_bytes([b[at], b[at + 1]]) as usize;
        assert!(len >= 4 && at + len <= b.len(), "attribute length {len}");
        m.insert(u16::from_ne_bytes([b[at + 2], b[at + 3]]) & 0x3fff, b[at + 4..at + len].to_vec());
        at += len.next_multiple_of(4);
    }
    m
}

/// Sends a request and gives the answers, as type and what follows the header, up to the end or the acknowledgement.
fn ask(s: i32, family: u16, flags: u16, cmd: u8, body: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut q = Vec::from((20 + body.len() as u32).to_ne_bytes());
    q.extend_from_slice(&family.to_ne_bytes());
    // NLM_F_REQUEST and NLM_F_ACK
    q.extend_from_slice(&(flags | 5).to_ne_bytes());
    q.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, cmd, 1, 0, 0]);
    q.extend_from_slice(body);
    unsafe { ok!(libc::send(s, q.as_ptr().cast(), q.len(), 0)) };
    let mut out = Vec::new();
    loop {
        let mut p = libc::pollfd { fd: s, events: libc::POLLIN, revents: 0 };
        assert_eq!(unsafe { libc::poll(&mut p, 1, 3000) }, 1, "an answer");
        let mut m = vec![0u8; 65536];
        let n = unsafe { ok!(libc::recv(s, m.as_mut_ptr().cast(), m.len(), 0)) } as usize;
        let mut at = 0;
        while at + 16 <= n {
            let len = u32::from_ne_bytes(m[at..at + 4].try_into().unwrap()) as usize;
            let kind = u16::from_ne_bytes([m[at + 4], m[at + 5]]);
            assert!(len >= 16 && at + len <= n, "message length {len}");
            assert_eq!(m[at + 8], 7, "our sequence number");
            out.push((kind, m[at + 16..at + len].to_vec()));
            // NLMSG_ERROR, NLMSG_DONE
            if kind == 2 || kind == 3 {
                return out;
            }
            at += len.next_multiple_of(4);
        }
    }
}

fn error(answers: &[(u16, Vec<u8>)]) -> i32 {
    let (kind, body) = answers.last().expect("an answer");
    assert_eq!(*kind, 2, "NLMSG_ERROR");
    -i32::from_ne_bytes(body[..4].try_into().unwrap())
}

/// The family `ethtool`; a kernel without it cannot run these.
fn family(s: i32) -> u16 {
    let out = ask(s, CTRL, 0, 3, &attr(2, b"ethtool\0"));
    if error(&out) == libc::ENOENT {
        skip("no family ethtool");
    }
    let a = attrs(&out[0].1[4..]);
    u16::from_ne_bytes(a[&1][..2].try_into().unwrap())
}

fn header(name: &[u8], flags: u32) -> Vec<u8> {
    attr(1 | 0x8000, &[attr(2, name), attr(3, &flags.to_ne_bytes())].concat())
}

fn end(s: i32) {
    drop(unsafe { std::fs::File::from_raw_fd(s) });
}

unsafe fn genl_lists_families() {
    let s = genl();
    // NLM_F_DUMP
    let out = ask(s, CTRL, 0x300, 3, &[]);
    assert_eq!(out.last().unwrap().0, 3, "NLMSG_DONE");
    let names: Vec<Vec<u8>> =
        out.iter().filter(|m| m.0 == CTRL).map(|m| attrs(&m.1[4..])[&2].clone()).collect();
    assert!(names.iter().any(|n| n == b"nlctrl\0"), "{names:?}");
    end(s);
}

unsafe fn genl_unknown_family() {
    let s = genl();
    assert_eq!(error(&ask(s, CTRL, 0, 3, &attr(2, b"nosuchfamily\0"))), libc::ENOENT);
    assert_eq!(error(&ask(s, CTRL, 0, 3, &[])), libc::EINVAL);
    assert_eq!(error(&ask(s, 999, 0, 1, &[])), libc::ENOENT);
    end(s);
}

unsafe fn ethtool_features_of_lo() {
    let s = genl();
    let f = family(s);
    let out = ask(s, f, 0, 11, &header(b"lo\0", 1));
    assert_eq!(error(&out), 0);
    let a = attrs(&out[0].1[4..]);
    let head = attrs(&a[&1]);
    assert_eq!((&head[&1][..], &head[&2][..]), (&1u32.to_ne_bytes()[..], &b"lo\0"[..]));
    let active = attrs(&a[&4]);
    let bits = u64::from_ne_bytes(active[&4][..8].try_into().unwrap());
    assert_eq!(u32::from_ne_bytes(active[&2][..4].try_into().unwrap()), 64, "features");
    for (bit, what) in [(0, "scatter-gather"), (3, "checksums"), (40, "receive checksums")] {
        assert!(bits & (1 << bit) != 0, "{what}: {bits:#x}");
    }
    end(s);
}

unsafe fn ethtool_strings() {
    let s = genl();
    let f = family(s);
    let set = |id: u32| attr(2 | 0x8000, &attr(1 | 0x8000, &attr(1, &id.to_ne_bytes())));
    let out = ask(s, f, 0, 1, &[attr(1 | 0x8000, &[]), set(4)].concat());
    assert_eq!(error(&out), 0);
    let text = &out[0].1;
    for name in [&b"tx-scatter-gather\0"[..], b"tx-tcp-segmentation\0", b"rx-gro\0"] {
        assert!(text.windows(name.len()).any(|w| w == name), "{}", String::from_utf8_lossy(name));
    }
    // Statistics belong to a device.
    assert_eq!(error(&ask(s, f, 0, 1, &[attr(1 | 0x8000, &[]), set(1)].concat())), libc::EINVAL);
    end(s);
}

unsafe fn ethtool_no_such_device() {
    let s = genl();
    let f = family(s);
    assert_eq!(error(&ask(s, f, 0, 6, &header(b"nosuch0\0", 0))), libc::ENODEV);
    assert_eq!(error(&ask(s, f, 0, 6, &[])), libc::EINVAL);
    assert_eq!(error(&ask(s, f, 0, 6, &attr(1 | 0x8000, &[]))), libc::EINVAL);
    end(s);
}

unsafe fn ethtool_extended_ack() {
    let s = genl();
    let f = family(s);
    // NETLINK_EXT_ACK
    let one = 1i32;
    ok!(libc::setsockopt(s, 270, 11, (&raw const one).cast(), 4));
    let q = header(b"nosuch0\0", 0);
    let out = ask(s, f, 0, 6, &q);
    assert_eq!(error(&out), libc::ENODEV);
    // errno, the request with its header, then attributes: message and offset.
    let tail = attrs(&out[0].1[4 + 20 + q.len()..]);
    assert_eq!(tail[&1], b"no device matches name\0");
    assert_eq!(tail[&2], 24u32.to_ne_bytes());
    end(s);
}

unsafe fn ethtool_not_supported() {
    let s = genl();
    let f = family(s);
    // Rings, coalescing, pause frames of lo.
    for cmd in [15, 19, 21] {
        assert_eq!(error(&ask(s, f, 0, cmd, &header(b"lo\0", 0))), libc::EOPNOTSUPP, "command {cmd}");
    }
    end(s);
}

unsafe fn ethtool_hostile_attributes() {
    let s = genl();
    let f = family(s);
    for len in [0u16, 1, 3, 5, 200, 0xffff] {
        let mut q = header(b"lo\0", 0);
        q[..2].copy_from_slice(&len.to_ne_bytes());
        assert_ne!(error(&ask(s, f, 0, 11, &q)), 0, "header of length {len}");
        let mut q = header(b"lo\0", 0);
        q[4..6].copy_from_slice(&len.to_ne_bytes());
        ask(s, f, 0, 11, &q);
    }
    // Still alive and sane.
    assert_eq!(error(&ask(s, f, 0, 6, &header(b"lo\0", 0))), 0);
    end(s);
}

unsafe fn ethtool_ioctls() {
    #[repr(C)]
    struct IfReq {
        name: [u8; 16],
        data: *mut libc::c_void,
        pad: [u8; 16],
    }
    let s = sock(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC);
    let call = |name: &[u8], cmd: &mut [u32]| {
        let mut r = IfReq { name: [0; 16], data: cmd.as_mut_ptr().cast(), pad: [0; 16] };
        r.name[..name.len()].copy_from_slice(name);
        unsafe { libc::ioctl(s, 0x8946, &mut r) }
    };
    // ETHTOOL_GSG, GTXCSUM, GLINK
    for c in [0x18, 0x16, 0x0a] {
        let mut v = [c, 77];
        ok!(call(b"lo", &mut v));
        assert_eq!(v[1], 1, "command {c:#x}");
    }
    // ETHTOOL_GSSET_INFO of features
    let mut v = [0x37, 0, 1 << 4, 0, 0, 0];
    ok!(call(b"lo", &mut v));
    assert_eq!((v[2], v[4]), (1 << 4, 64));
    // ETHTOOL_GFEATURES: available, requested, active, never changed.
    let mut v = [0u32; 10];
    (v[0], v[1]) = (0x3a, 2);
    ok!(call(b"lo", &mut v));
    assert_eq!(v[4] & 0b1001, 0b1001, "scatter-gather and checksums: {v:x?}");
    fails!(call(b"nosuch0", &mut [0x0a, 0]), ENODEV);
    fails!(call(b"lo", &mut [0x10, 0, 0, 0, 0, 0, 0, 0, 0]), EOPNOTSUPP);
    fails!(call(b"lo", &mut [0xffff, 0]), EOPNOTSUPP);
    end(s);
}
