//! One stack used from several threads at once.

use klib::ktime::Ktime;
use net::{Family, Net, NetHost, TcpSock, UdpSock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uapi::Errno;

struct Host(Instant, AtomicBool);

impl NetHost for Host {
    fn now(&self) -> Ktime {
        Ktime(self.0.elapsed().as_nanos() as u64)
    }
    fn random(&self, out: &mut [u8]) {
        out.fill(0x5a);
    }
    fn raise_softirq(&self) {
        self.1.store(true, Ordering::SeqCst);
    }
    fn timer_armed(&self, _at: Ktime) {}
}

const BYTES: usize = 8 << 20;

fn client(net: &Arc<Net>, to: SocketAddr, seed: u8, limit: Instant) {
    let c = TcpSock::new(net, Family::V4);
    assert_eq!(c.connect(to), Err(Errno::EINPROGRESS));
    let (mut sent, mut got) = (0usize, 0usize);
    // The server echoes; every byte is checked.
    while got < BYTES {
        assert!(Instant::now() < limit, "echo: sent {sent}, got {got} of {BYTES}, {:?}", c.state());
        if sent < BYTES {
            let r = c.send_with(BYTES - sent, false, |room| {
                let n = room.len().min(70_000);
                for (i, b) in room[..n].iter_mut().enumerate() {
                    *b = ((sent + i) >> 3) as u8 ^ seed;
                }
                sent += n;
                n
            });
            assert!(matches!(r, Ok(_) | Err(Errno::EAGAIN)), "{r:?}");
        }
        let r = c.recv_with(usize::MAX, false, |d| {
            for (i, b) in d.iter().enumerate() {
                assert_eq!(*b, ((got + i) >> 3) as u8 ^ seed, "byte {}", got + i);
            }
            got += d.len();
            d.len()
        });
        match r {
            Ok(n) => assert!(n > 0, "early end after {got}"),
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            Err(e) => panic!("{e:?}"),
        }
    }
    c.close();
}

#[test]
fn echo_over_loopback_from_many_threads() {
    let host = Arc::new(Host(Instant::now(), AtomicBool::new(false)));
    let net = Net::new(Arc::clone(&host) as Arc<dyn NetHost>);
    net.set_link_up(net.lo.ifindex, true).unwrap();
    let to: SocketAddr = "127.0.0.1:7".parse().unwrap();
    let l = TcpSock::new(&net, Family::V4);
    l.bind(to).unwrap();
    l.listen(64).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            // Timers and softirq.
            while !stop.load(Ordering::SeqCst) {
                if host.1.swap(false, Ordering::SeqCst) {
                    net.run_softirq();
                }
                net.run_timers(host.now());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        s.spawn(|| {
            let u = UdpSock::new(&net, Family::V4);
            u.bind("127.0.0.1:9".parse().unwrap()).unwrap();
            while !stop.load(Ordering::SeqCst) {
                let _ = u.send_to(&[1; 3000], Some("127.0.0.1:9".parse().unwrap()));
                let _ = u.recv_from(&mut [0; 4000]);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let clients: Vec<_> = (0..3u8)
            .map(|i| {
                s.spawn({
                    let net = &net;
                    move || client(net, to, i * 37, limit)
                })
            })
            .collect();
        let mut served = Vec::new();
        let mut buf = vec![0u8; 65_536];
        let mut held: Vec<(Arc<TcpSock>, Vec<u8>)> = Vec::new();
        while clients.iter().any(|c| !c.is_finished()) {
            assert!(Instant::now() < limit, "clients did not finish");
            if let Ok(c) = l.accept() {
                held.push((c, Vec::new()));
            }
            for (c, pending) in &mut held {
                if pending.is_empty()
                    && let Ok(n) = c.recv(&mut buf)
                {
                    pending.extend_from_slice(&buf[..n]);
                }
                if !pending.is_empty()
                    && let Ok(n) = c.send(pending)
                {
                    pending.drain(..n);
                }
            }
            std::thread::yield_now();
        }
        served.append(&mut held);
        for c in clients {
            c.join().unwrap();
        }
        stop.store(true, Ordering::SeqCst);
    });
}
