//! Messages of tunnels with any bytes: a frame within the message or a reason, never a panic. The fuzz body is an ordinary
//! function over bytes, run here with random ones; `ENCAP_FUZZ_ROUNDS` and `ENCAP_FUZZ_SEED` make more of them.

use drivers::vector::encap::{Geneve, Gre, GreConfig, L2tpv3, L2tpv3Config, Nsh, OverIpv4, Vxlan, VxlanGpe};
use drivers::vector::{ETH_HLEN, Header, Outgoing};
use net::CsumStatus;

/// A small generator of its own (xorshift), so that a seed says it all.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Every codec in its forms, each understanding what it sends itself.
fn codecs() -> Vec<(&'static str, Box<dyn Header>, bool)> {
    let gre = GreConfig { key: Some((5, 5)), sequence: true, checksum: false, pin_sequence: false };
    let l2tp = L2tpv3Config {
        udp: true,
        rx_session: 9,
        tx_session: 9,
        cookie: Some((77, 77)),
        cookie64: true,
        counter: true,
        ..L2tpv3Config::default()
    };
    let gpe = VxlanGpe { rx_vni: 3, tx_vni: 3, nsh: None };
    vec![
        ("gre", Box::new(Gre::new(GreConfig::default())), false),
        ("gre, key and sequence", Box::new(Gre::new(gre)), false),
        ("gre, checksum", Box::new(Gre::new(GreConfig { checksum: true, ..gre })), false),
        ("gre over IPv4", Box::new(OverIpv4(Gre::new(gre))), true),
        ("l2tpv3 over UDP", Box::new(L2tpv3::new(l2tp)), false),
        ("l2tpv3 over IPv4", Box::new(OverIpv4(L2tpv3::new(L2tpv3Config { udp: false, ..l2tp }))), true),
        ("vxlan", Box::new(Vxlan { rx_vni: 3, tx_vni: 3 }), false),
        ("vxlan-gpe", Box::new(gpe), false),
        ("vxlan-gpe, nsh", Box::new(VxlanGpe { nsh: Some(Nsh { path: 1, index: 2 }), ..gpe }), false),
        ("geneve", Box::new(Geneve { rx_vni: 3, tx_vni: 3 }), false),
    ]
}

/// What must hold of any message; true if a frame was found.
fn fuzz_body(h: &dyn Header, msg: &[u8]) -> bool {
    match h.rx(msg) {
        Ok(s) => {
            assert!(s.len >= ETH_HLEN && s.at + s.len <= msg.len(), "{s:?} of {}", msg.len());
            true
        }
        Err(_) => false,
    }
}

fn message(h: &dyn Header, ipv4: bool, frame: &[u8]) -> Vec<u8> {
    let mut msg = if ipv4 { [&[0x45u8][..], &[0; 19]].concat() } else { Vec::new() };
    let at = msg.len();
    msg.resize(at + h.tx_len(), 0xee);
    h.tx(&mut msg[at..], Outgoing { frame, csum: CsumStatus::None, gso: None });
    msg.extend_from_slice(frame);
    msg
}

#[test]
fn any_bytes() {
    let rounds = env("ENCAP_FUZZ_ROUNDS", 20_000);
    let mut rng = Rng(env("ENCAP_FUZZ_SEED", 0x9e37_79b9_7f4a_7c15).max(1));
    for (name, h, ipv4) in codecs() {
        let (mut good, mut bad) = (0, 0);
        for _ in 0..rounds {
            let len = rng.below(120);
            let frame: Vec<u8> = (0..ETH_HLEN + len).map(|_| rng.next() as u8).collect();
            let mut msg = message(&*h, ipv4, &frame);
            let head = msg.len() - frame.len();
            let s = h.rx(&msg).unwrap_or_else(|e| panic!("{name}: its own message: {e:?}"));
            assert_eq!(&msg[s.at..s.at + s.len], frame, "{name}");
            // Bits of the header turned, the message cut, or nothing but noise.
            match rng.below(4) {
                0 => msg.iter_mut().for_each(|b| *b = rng.next() as u8),
                1 => msg.truncate(rng.below(msg.len())),
                _ => {}
            }
            for _ in 0..rng.below(4) {
                let n = (head + 8).min(msg.len());
                if n > 0 {
                    msg[rng.below(n)] ^= 1 << rng.below(8);
                }
            }
            if fuzz_body(&*h, &msg) { good += 1 } else { bad += 1 }
        }
        println!("{name}: {good} frames, {bad} dropped");
        assert!(good > 0 && bad > 0, "{name}: both outcomes are reached");
    }
}
