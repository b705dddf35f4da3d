//! One stack with its wire on standard input and output, in real time: each frame behind its length (two bytes, big-endian).
//! For trials against another system; without one there is nothing to test.

use klib::ktime::Ktime;
use klib::sync::Mutex;
use net::dev::{DevStats, Features, NetDevice};
use net::netns::{NetHost, NetRef};
use net::{Family, IfAddr, Net, Skb, TcpSock};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

struct Host(Instant);

impl NetHost for Host {
    fn now(&self) -> Ktime {
        Ktime(self.0.elapsed().as_nanos() as u64 + 1_000_000_000)
    }
    fn random(&self, out: &mut [u8]) {
        let seed = self.0.elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 20;
        for (i, b) in out.iter_mut().enumerate() {
            *b = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 7 * 8)) as u8;
        }
    }
    fn raise_softirq(&self) {}
    fn timer_armed(&self, _at: Ktime) {}
}

#[derive(Default)]
struct Wire(Mutex<Vec<u8>>);

impl NetDevice for Wire {
    fn kind(&self) -> &str {
        "pipe"
    }
    fn attach(&self, _net: NetRef, _ifindex: u32) {}
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 2]
    }
    fn mtu(&self) -> u32 {
        1500
    }
    fn features(&self) -> Features {
        Features::GRO
    }
    fn open(&self) -> uapi::Result<()> {
        Ok(())
    }
    fn close(&self) {}
    fn xmit(&self, skb: Skb) -> Result<(), Skb> {
        let mut out = self.0.lock();
        out.extend_from_slice(&(skb.len() as u16).to_be_bytes());
        out.extend_from_slice(skb.data());
        Ok(())
    }
    fn stats(&self) -> DevStats {
        DevStats::default()
    }
}

fn var(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

#[test]
#[ignore = "needs a peer: MODE=send|recv ALGO=reno|cubic SECS=n PEER=address:port"]
fn over_pipes() {
    let net = Net::new(Arc::new(Host(Instant::now())));
    let wire = Arc::new(Wire::default());
    let dev = net.register(Arc::clone(&wire) as Arc<dyn NetDevice>).unwrap();
    net.set_link_up(net.lo.ifindex, true).unwrap();
    net.set_link_up(dev.ifindex, true).unwrap();
    net.addr_add(dev.ifindex, IfAddr::new([10, 0, 0, 2].into(), 24)).unwrap();
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut len = [0; 2];
        while stdin.read_exact(&mut len).is_ok() {
            let mut f = vec![0; usize::from(u16::from_be_bytes(len))];
            if stdin.read_exact(&mut f).is_err() || tx.send(f).is_err() {
                return;
            }
        }
    });
    let s = TcpSock::new(&net, Family::V4);
    s.setsockopt(6, 13, var("ALGO", "cubic").as_bytes()).unwrap();
    let _ = s.connect(var("PEER", "10.0.0.1:5201").parse().unwrap());
    let send = var("MODE", "send") == "send";
    let end = Instant::now() + Duration::from_secs_f64(var("SECS", "10").parse().unwrap());
    let mut out = std::fs::File::create(var("OUT", "/dev/stdout")).unwrap();
    let (data, mut sink, mut got) = (vec![7u8; 1 << 16], vec![0u8; 1 << 20], 0u64);
    while Instant::now() < end {
        let next = net.next_timer().map_or(Duration::from_millis(50), |t| t.since(net.now()));
        match rx.recv_timeout(next.clamp(Duration::from_micros(100), Duration::from_millis(50))) {
            Ok(f) => {
                let frames = std::iter::once(f).chain(rx.try_iter().take(31));
                net.rx(dev.ifindex, frames.map(|f| net.pool().copy_from(&f)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        net.run_timers(net.now());
        net.run_softirq();
        while send && s.send(&data).is_ok() {}
        while let Ok(n) = s.recv(&mut sink) {
            got += n as u64;
            if n == 0 {
                break;
            }
        }
        let bytes = std::mem::take(&mut *wire.0.lock());
        if out.write_all(&bytes).is_err() {
            break;
        }
    }
    let i = s.getsockopt(6, 11).unwrap();
    let w = |at: usize| u32::from_ne_bytes(i[at..at + 4].try_into().unwrap());
    eprintln!(
        "state {} options {} received {got}, retrans {}, srtt {} us, cwnd {}, ssthresh {}, time-outs {}, mss {}, dsack {}, reord {}",
        i[0],
        i[5],
        w(100),
        w(68),
        w(80),
        w(76),
        u16::from_ne_bytes([i[240], i[241]]),
        w(16),
        w(216),
        w(220),
    );
}
