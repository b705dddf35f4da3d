//! Requests in the form iproute2 and glibc send them.

use super::request;
use crate::netns::{Net, NetHost};
use klib::ktime::Ktime;
use std::sync::Arc;

struct Host;
impl NetHost for Host {
    fn now(&self) -> Ktime {
        Ktime(1)
    }
    fn random(&self, out: &mut [u8]) {
        out.fill(3);
    }
    fn raise_softirq(&self) {}
    fn timer_armed(&self, _at: Ktime) {}
}

struct Nic;
impl crate::NetDevice for Nic {
    fn kind(&self) -> &str {
        "vec"
    }
    fn attach(&self, _net: crate::NetRef, _ifindex: u32) {}
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn mtu(&self) -> u32 {
        1500
    }
    fn features(&self) -> crate::Features {
        crate::Features::empty()
    }
    fn open(&self) -> uapi::Result<()> {
        Ok(())
    }
    fn close(&self) {}
    fn xmit(&self, _skb: crate::Skb) -> Result<(), crate::Skb> {
        Ok(())
    }
    fn stats(&self) -> crate::DevStats {
        crate::DevStats { rx_packets: 77, ..Default::default() }
    }
}

fn msg(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut v = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    v.extend_from_slice(&kind.to_ne_bytes());
    v.extend_from_slice(&flags.to_ne_bytes());
    v.extend_from_slice(&42u32.to_ne_bytes());
    v.extend_from_slice(&0u32.to_ne_bytes());
    v.extend_from_slice(body);
    v
}

fn attr(kind: u16, v: &[u8]) -> Vec<u8> {
    let mut a = ((4 + v.len()) as u16).to_ne_bytes().to_vec();
    a.extend_from_slice(&kind.to_ne_bytes());
    a.extend_from_slice(v);
    while !a.len().is_multiple_of(4) {
        a.push(0);
    }
    a
}

/// Types of all messages in the replies, errno of errors instead of type 2.
fn kinds(replies: &[Vec<u8>]) -> Vec<i32> {
    let mut out = Vec::new();
    for r in replies {
        let mut d = r.as_slice();
        while d.len() >= 16 {
            let len = u32::from_ne_bytes(d[..4].try_into().unwrap()) as usize;
            let kind = u16::from_ne_bytes(d[4..6].try_into().unwrap());
            assert_eq!(u32::from_ne_bytes(d[8..12].try_into().unwrap()), 42, "sequence number");
            out.push(if kind == 2 {
                i32::from_ne_bytes(d[16..20].try_into().unwrap())
            } else {
                i32::from(kind)
            });
            d = &d[(len + 3) & !3..];
        }
    }
    out
}

fn up() -> Arc<Net> {
    let net = Net::new(Arc::new(Host));
    net.register(Arc::new(Nic)).unwrap();
    net
}

#[test]
fn link_addr_route_neigh_as_iproute2_does() {
    let net = up();
    let go = |kind, flags, body: &[u8]| request(&net, &msg(kind, flags, body), 9, true);
    // ip link: ifinfomsg with IFLA_EXT_MASK.
    let mut body = vec![0u8; 16];
    body.extend(attr(29, &9u32.to_ne_bytes()));
    assert_eq!(kinds(&go(18, 0x301, &body)), [16, 16, 3]);
    // getifaddrs of glibc: one byte of rtgenmsg, padded.
    assert_eq!(kinds(&go(18, 0x301, &[0, 0, 0, 0])), [16, 16, 3]);
    assert_eq!(kinds(&go(22, 0x301, &[0, 0, 0, 0])), [3]);
    // Name to number.
    let mut body = vec![0u8; 16];
    body.extend(attr(3, b"vec0\0"));
    assert_eq!(kinds(&go(18, 1, &body)), [16]);
    let mut body = vec![0u8; 16];
    body.extend(attr(3, b"eth9\0"));
    assert_eq!(kinds(&go(18, 1, &body)), [-19]);
    // ip link set vec0 up (index 2), then lo.
    for i in [2u8, 1] {
        let mut body = vec![0u8; 16];
        body[4] = i;
        body[8] = 1;
        body[12] = 1;
        assert_eq!(kinds(&go(16, 5, &body)), [0]);
        assert!(net.devs.get(u32::from(i)).unwrap().is_up());
    }
    // ip addr add 10.0.0.1/24 dev vec0
    let mut body = vec![2, 24, 0, 0, 2, 0, 0, 0];
    body.extend(attr(2, &[10, 0, 0, 1]));
    body.extend(attr(1, &[10, 0, 0, 1]));
    assert_eq!(kinds(&go(20, 0x605, &body)), [0]);
    assert_eq!(kinds(&go(20, 0x605, &body)), [-17]);
    // lo 127.0.0.1, vec0 10.0.0.1; ::1, fe80::.
    assert_eq!(kinds(&go(22, 0x301, &[0; 8])), [20, 20, 20, 20, 3]);
    assert_eq!(kinds(&go(22, 0x301, &[2, 0, 0, 0, 2, 0, 0, 0])), [20, 3]);
    // ip route add default via 10.0.0.254; again; replace; unreachable gateway.
    let route = |gw: [u8; 4]| {
        let mut b = vec![2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        b.extend(attr(5, &gw));
        b
    };
    assert_eq!(kinds(&go(24, 0x605, &route([10, 0, 0, 254]))), [0]);
    assert_eq!(kinds(&go(24, 0x605, &route([10, 0, 0, 253]))), [-17]);
    assert_eq!(kinds(&go(24, 0x505, &route([10, 0, 0, 253]))), [0]);
    assert_eq!(kinds(&go(24, 0x605, &route([192, 168, 7, 7]))), [-101]);
    let mut b = vec![2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    b.extend(attr(15, &254u32.to_ne_bytes()));
    assert_eq!(kinds(&go(26, 0x301, &b)), [24, 24, 3], "default and the connected route");
    let r = net.route_lookup("8.8.8.8".parse().unwrap(), None, 0).unwrap();
    assert_eq!((r.gateway, r.src), (Some("10.0.0.253".parse().unwrap()), "10.0.0.1".parse().unwrap()));
    // ip route get 8.8.8.8
    let mut b = vec![2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    b.extend(attr(1, &[8, 8, 8, 8]));
    assert_eq!(kinds(&go(26, 1, &b)), [24]);
    // ip route del default
    let mut b = route([10, 0, 0, 253]);
    b[6] = 255;
    assert_eq!(kinds(&go(25, 5, &b)), [0]);
    assert_eq!(kinds(&go(25, 5, &b)), [-3]);
    // ip neigh add 10.0.0.9 lladdr 02:..:09 dev vec0; show; del
    let mut b = vec![2, 0, 0, 0, 2, 0, 0, 0, 0x80, 0, 0, 0];
    b.extend(attr(1, &[10, 0, 0, 9]));
    let bare = b.clone();
    b.extend(attr(2, &[2, 0, 0, 0, 0, 9]));
    assert_eq!(kinds(&go(28, 0x605, &b)), [0]);
    assert_eq!(kinds(&go(30, 0x301, &[0; 12])), [28, 3]);
    assert_eq!(kinds(&go(29, 5, &bare)), [0]);
    // ip link set vec0 down: addresses of IPv4 stay, routes go.
    let mut body = vec![0u8; 16];
    body[4] = 2;
    body[12] = 1;
    assert_eq!(kinds(&go(16, 5, &body)), [0]);
    assert!(net.fib.read().iter().all(|r| r.oif != 2));
    assert_eq!(net.devs.get(2).unwrap().addrs.read().len(), 1);
    // Without CAP_NET_ADMIN.
    assert_eq!(kinds(&request(&net, &msg(16, 5, &body), 9, false)), [-1]);
    // What is not there.
    assert_eq!(kinds(&go(100, 5, &[0; 16])), [-95]);
}

#[test]
fn garbage_is_answered_and_nothing_breaks() {
    let net = up();
    let mut x = 88_172_645_463_325_252u64;
    let mut rnd = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for i in 0..20_000 {
        let len = (rnd() % 80) as usize;
        let mut body: Vec<u8> = (0..len).map(|_| (rnd() >> 11) as u8).collect();
        if i % 3 == 0 {
            body.iter_mut().for_each(|b| *b &= 3);
        }
        let kind = 16 + (rnd() % 24) as u16;
        let mut m = msg(kind, (rnd() as u16) | 1, &body);
        if i % 5 == 0 {
            m.truncate((rnd() % 96) as usize);
        }
        let _ = request(&net, &m, 1, true);
    }
}
