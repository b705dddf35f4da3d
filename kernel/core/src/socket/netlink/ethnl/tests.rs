//! Requests in the form ethtool(8) sends them, against `lo` and a device of our own; no sockets.

use super::*;
use klib::ktime::Ktime;
use klib::sync::Mutex;
use net::dev::EthtoolOps;
use net::dev::ethtool::{Coalesce, RingParams};
use net::{DevStats, Features, NetDevice, NetHost, NetRef, Skb};
use std::borrow::Cow;

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

struct Nic {
    rings: Mutex<RingParams>,
    features: Mutex<Features>,
}
const HW: Features = Features::TSO4.union(Features::RXCSUM).union(Features::LRO).union(Features::GRO);
impl NetDevice for Nic {
    fn kind(&self) -> &str {
        "vec"
    }
    fn attach(&self, _net: NetRef, _ifindex: u32) {}
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn mtu(&self) -> u32 {
        1500
    }
    fn features(&self) -> Features {
        *self.features.lock()
    }
    fn hw_features(&self) -> Features {
        HW
    }
    fn set_features(&self, wanted: Features) -> Features {
        *self.features.lock() = wanted;
        wanted
    }
    fn open(&self) -> uapi::Result<()> {
        Ok(())
    }
    fn close(&self) {}
    fn xmit(&self, _skb: Skb) -> Result<(), Skb> {
        Ok(())
    }
    fn stats(&self) -> DevStats {
        DevStats::default()
    }
    fn ethtool(&self) -> &dyn EthtoolOps {
        self
    }
}
impl EthtoolOps for Nic {
    fn stats(&self) -> Vec<(Cow<'static, str>, u64)> {
        vec![("rx_queue_max".into(), 1)]
    }
    fn rings(&self) -> uapi::Result<RingParams> {
        Ok(*self.rings.lock())
    }
    fn set_rings(&self, p: &RingParams) -> uapi::Result<()> {
        *self.rings.lock() = *p;
        Ok(())
    }
    fn coalesce(&self) -> uapi::Result<Coalesce> {
        Ok(Coalesce { tx_usecs: Some(50), ..Coalesce::default() })
    }
}

fn net() -> Arc<Net> {
    let net = Net::new(Arc::new(Host));
    let rings = RingParams { rx_max: 64, tx_max: 1024, rx: 32, tx: 64 };
    let features = HW | Features::SG | Features::HW_CSUM;
    let nic = Nic { rings: Mutex::new(rings), features: Mutex::new(features) };
    net.register(Arc::new(nic)).expect("a name is free");
    net
}

fn message(cmd: u8, dev: &str, flags: u32, f: impl FnOnce(&mut Msg)) -> Vec<u8> {
    let mut m = Msg::new(ID, 1, 7, 9);
    m.put(&[cmd, 1, 0, 0]);
    m.nest(HEADER | NESTED, |m| {
        if !dev.is_empty() {
            m.attr_str(2, dev);
        }
        m.attr_u32(3, flags);
    });
    f(&mut m);
    m.finish()
}

fn ask_as(net: &Net, whole: &[u8], admin: bool) -> Result<Vec<Vec<u8>>, Nack> {
    let cmd = whole.get(16).copied().unwrap_or(0);
    let req = GenlRequest { cmd, whole, seq: 7, port: 9, dump: false, admin };
    let mut out = Vec::new();
    handle(net, &req, &mut out).map(|()| out)
}

fn ask(net: &Net, whole: &[u8]) -> Result<Vec<Vec<u8>>, Nack> {
    ask_as(net, whole, true)
}

fn number(answer: &[u8], kind: u16) -> Option<u32> {
    let a = attr::parse(answer, 20, answer.len()).expect("well formed");
    attr::find(&a, kind).map(|a| a.number().expect("a number"))
}

fn words(answer: &[u8], kind: u16) -> (u64, u64) {
    let a = attr::parse(answer, 20, answer.len()).expect("well formed");
    let set = attr::find(&a, kind).expect("there").nested().expect("well formed");
    let w = |k: u16| {
        attr::find(&set, k).map_or(0, |a| u64::from_ne_bytes(a.value().try_into().expect("two words")))
    };
    (w(4), w(5))
}

#[test]
fn rings_are_told_and_changed_within_their_bounds() {
    let net = net();
    let out = ask(&net, &message(15, "vec0", 0, |_| {})).expect("rings");
    assert_eq!(out[0][16], 16, "ETHTOOL_MSG_RINGS_GET_REPLY");
    let get = |k| number(&out[0], k);
    assert_eq!((get(2), get(5), get(6), get(9), get(3)), (Some(64), Some(1024), Some(32), Some(64), None));
    let set = message(16, "vec0", 0, |m| m.attr_u32(9, 512));
    assert_eq!(ask_as(&net, &set, false), Err(Errno::EPERM.into()));
    assert_eq!(ask(&net, &set), Ok(vec![]));
    assert_eq!(number(&ask(&net, &message(15, "vec0", 0, |_| {})).expect("rings")[0], 9), Some(512));
    let big = message(16, "vec0", 0, |m| m.attr_u32(9, 1025));
    let e = ask(&net, &big).expect_err("too big");
    assert_eq!((e.errno, e.text, e.at), (Errno::EINVAL, "requested ring size exceeds maximum", 44));
    let mini = message(16, "vec0", 0, |m| m.attr_u32(7, 1));
    assert_eq!(ask(&net, &mini).map_err(|e| e.text), Err("cannot modify an unsupported parameter"));
    assert!(ask(&net, &message(16, "vec0", 0, |m| m.attr_u32(6, 0))).is_err());
    assert_eq!(ask(&net, &message(15, "lo", 0, |_| {})), Err(Errno::EOPNOTSUPP.into()));
}

#[test]
fn coalescing_has_what_the_device_has() {
    let net = net();
    let out = ask(&net, &message(19, "vec0", 0, |_| {})).expect("coalesce");
    assert_eq!((number(&out[0], 6), number(&out[0], 2)), (Some(50), None));
    let e = ask(&net, &message(20, "vec0", 0, |m| m.attr_u32(2, 30))).expect_err("no rx-usecs");
    assert_eq!((e.text, e.at), ("cannot modify an unsupported parameter", 44));
}

#[test]
fn features_are_switched_by_name_and_refusals_told() {
    let net = net();
    let out = ask(&net, &message(11, "vec0", 1, |_| {})).expect("features");
    let (hw, mask) = words(&out[0], 2);
    assert_eq!(mask, u64::MAX);
    assert_eq!(hw, 1 << 11 | 1 << 14 | 1 << 16 | 1 << 40 | 1 << 55);
    assert_eq!(words(&out[0], 4).0 & (1 << 3), 1 << 3, "checksums are on and fixed");
    // ethtool -K vec0 rx off tx off: the first takes rx-gro-hw with it, the second is fixed.
    let off = message(12, "vec0", 1, |m| {
        m.nest(3, |m| {
            m.nest(3, |m| {
                for n in ["rx-checksum", "tx-checksum-ip-generic"] {
                    m.nest(1, |m| m.attr_str(2, n));
                }
            });
        });
    });
    let out = ask(&net, &off).expect("features");
    assert_eq!(words(&out[0], 3), (0, 1 << 3), "wished off, still on");
    assert_eq!(words(&out[0], 4), (0, 1 << 40 | 1 << 55), "off now");
    let none =
        message(12, "vec0", 1, |m| m.nest(3, |m| m.nest(3, |m| m.nest(1, |m| m.attr_str(2, "nosuch")))));
    assert_eq!(
        ask(&net, &none).map_err(|e| (e.errno, e.text)),
        Err((Errno::EOPNOTSUPP, "bit name not found"))
    );
}

#[test]
fn strings_come_with_and_without_a_device() {
    let net = net();
    let set = |id: u32| move |m: &mut Msg| m.nest(2, |m| m.nest(1, |m| m.attr_u32(1, id)));
    let out = ask(&net, &message(1, "", 0, set(4))).expect("features");
    assert!(out[0].windows(19).any(|w| w == b"tx-tcp-segmentation"));
    assert_eq!(ask(&net, &message(1, "", 0, set(1))).map_err(|e| e.errno), Err(Errno::EINVAL));
    let out = ask(&net, &message(1, "vec0", 0, set(1))).expect("statistics");
    assert!(out[0].windows(12).any(|w| w == b"rx_queue_max"));
}

#[test]
fn whoever_is_not_there_is_said_not_to_be() {
    let net = net();
    let e = ask(&net, &message(6, "vec7", 0, |_| {})).expect_err("no device");
    assert_eq!((e.errno, e.text, e.at), (Errno::ENODEV, "no device matches name", 24));
    assert_eq!(ask(&net, &message(6, "", 0, |_| {})).map_err(|e| e.errno), Err(Errno::EINVAL));
    assert_eq!(ask(&net, &message(21, "vec0", 0, |_| {})), Err(Errno::EOPNOTSUPP.into()));
    let all =
        GenlRequest { cmd: 6, whole: &message(6, "", 0, |_| {}), seq: 7, port: 9, dump: true, admin: false };
    let mut out = Vec::new();
    assert_eq!(handle(&net, &all, &mut out), Ok(()));
    assert_eq!(out.len(), 2, "lo and vec0");
}

#[test]
fn hostile_requests_are_refused_or_answered_and_no_more() {
    let net = net();
    let mut seed = 0x9e37_79b9_u32;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    };
    for _ in 0..20_000 {
        let cmd = (random() % 40) as u8;
        let mut m = message(cmd, "vec0", 1, |m| {
            m.nest(3, |m| {
                m.attr_u32(2, 64);
                m.attr(4, &[0; 8]);
                m.attr(5, &[0xff; 8]);
            });
        });
        for _ in 0..=random() % 4 {
            let at = 20 + random() as usize % (m.len() - 20);
            m[at] = random() as u8;
        }
        let len = m.len() - random() as usize % 8;
        let _ = ask(&net, &m[..len]);
    }
}
