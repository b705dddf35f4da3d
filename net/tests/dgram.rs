//! UDP, ICMP, raw and ping sockets, fragments, forwarding.

mod sim;

use net::dev::Features;
use net::{Family, RawSock, SendCtl, Skb, UdpSock, poll};
use sim::{Sim, TSO};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use uapi::Errno;

fn sa(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn udp_both_versions_with_fragments() {
    for f in [TSO, Features::empty()] {
        let mut sim = Sim::new(f, f);
        for (bind, to) in
            [("0.0.0.0:53", "10.0.0.2:53"), ("[::]:54", "[fd00::2]:54"), ("[::]:55", "10.0.0.2:55")]
        {
            let fam = |a: &SocketAddr| if a.is_ipv4() { Family::V4 } else { Family::V6 };
            let s = UdpSock::new(&sim.b.net, fam(&sa(bind)));
            s.bind(sa(bind)).unwrap();
            let c = UdpSock::new(&sim.a.net, fam(&sa(to)));
            for len in [0usize, 1, 1000, 1472, 1473, 9000, 60_000] {
                let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
                assert_eq!(c.send_to(&data, Some(sa(to))), Ok(len));
                sim.run(MS);
                assert!(s.poll_mask() & poll::IN != 0, "{to} {len}");
                let mut buf = vec![0; 65_536];
                let (n, m) = s.recv_from(&mut buf).unwrap();
                assert_eq!((n, &buf[..n]), (len, &data[..]));
                assert_eq!(m.src.port(), c.local_addr().port());
                assert_eq!(m.src.is_ipv4(), bind.starts_with('0'));
                assert_eq!(s.send_to(b"answer", Some(m.src)), Ok(6));
                sim.run(MS);
                assert_eq!(c.recv_from(&mut buf).map(|r| r.0), Ok(6));
            }
        }
    }
}

#[test]
fn udp_errors_and_gso() {
    let mut sim = Sim::new(TSO, TSO);
    let c = UdpSock::new(&sim.a.net, Family::V4);
    assert_eq!(c.send_to(b"x", None), Err(Errno::EDESTADDRREQ));
    assert_eq!(c.send_to(&[0; 65_508], Some(sa("10.0.0.2:9"))), Err(Errno::EMSGSIZE));
    assert_eq!(c.send_to(b"x", Some(sa("10.0.0.255:9"))), Err(Errno::EACCES));
    c.connect(sa("10.0.0.2:9")).unwrap();
    assert_eq!(c.local_addr().ip(), sa("10.0.0.1:0").ip());
    c.send_to(b"x", None).unwrap();
    sim.run(MS);
    assert!(c.poll_mask() & poll::ERR != 0);
    assert_eq!(c.recv_from(&mut [0; 4]).err(), Some(Errno::ECONNREFUSED));
    assert_eq!(c.recv_from(&mut [0; 4]).err(), Some(Errno::EAGAIN));
    let s = UdpSock::new(&sim.b.net, Family::V4);
    s.bind(sa("10.0.0.2:9")).unwrap();
    assert_eq!(UdpSock::new(&sim.b.net, Family::V4).bind(sa("10.0.0.2:9")), Err(Errno::EADDRINUSE));
    let ctl = SendCtl { gso_size: 100, ..SendCtl::default() };
    assert_eq!(
        c.send_with(250, None, &ctl, |b| {
            b.fill(7);
            b.len()
        }),
        Ok(250)
    );
    sim.run(MS);
    let got: Vec<usize> = (0..3).map(|_| s.recv_from(&mut [0; 400]).unwrap().0).collect();
    assert_eq!(got, [100, 100, 50]);
    // A copy that fails half-way sends nothing.
    assert_eq!(c.send_with(10, None, &SendCtl::default(), |_| 4), Err(Errno::EFAULT));
    sim.run(MS);
    assert_eq!(s.recv_from(&mut [0; 4]).err(), Some(Errno::EAGAIN));
    // Broadcast with permission.
    c.disconnect();
    c.setsockopt(1, 6, &1i32.to_ne_bytes()).unwrap();
    let any = UdpSock::new(&sim.b.net, Family::V4);
    any.bind(sa("0.0.0.0:10")).unwrap();
    c.send_to(b"all", Some(sa("10.0.0.255:10"))).unwrap();
    sim.run(MS);
    assert_eq!(any.recv_from(&mut [0; 8]).map(|r| r.0), Ok(3));
}

fn echo(v6: bool, seq: u8, len: usize) -> Vec<u8> {
    let mut p = vec![0u8; 8 + len];
    p[0] = if v6 { 128 } else { 8 };
    p[7] = seq;
    p
}

#[test]
fn ping_and_raw() {
    let mut sim = Sim::new(TSO, TSO);
    for (fam, to) in [
        (Family::V4, "10.0.0.2:0"),
        (Family::V6, "[fd00::2]:0"),
        (Family::V4, "127.0.0.1:0"),
        (Family::V6, "[::1]:0"),
    ] {
        let v6 = fam == Family::V6;
        let p = RawSock::new_ping(&sim.a.net, fam);
        for len in [56usize, 4000] {
            p.send_to(&echo(v6, 1, len), Some(sa(to))).unwrap();
            sim.run(MS * 3);
            let n = p.recv_with(false, |m, d| {
                assert_eq!(m.ttl, 64);
                assert_eq!(d[0], if v6 { 129 } else { 0 });
                d.len()
            });
            assert_eq!(n, Ok(8 + len), "{to}");
        }
        let r = RawSock::new(&sim.a.net, fam, if v6 { 58 } else { 1 });
        let mut e = echo(v6, 2, 10);
        if !v6 {
            e[4] = 9;
            let c = net::csum::checksum(&e, 0);
            e[2..4].copy_from_slice(&c.to_be_bytes());
        }
        r.send_to(&e, Some(sa(to))).unwrap();
        sim.run(MS * 3);
        let mut kinds = Vec::new();
        while let Ok(k) = r.recv_with(false, |_, d| if v6 { d[0] } else { d[20] }) {
            kinds.push(k);
        }
        assert!(kinds.contains(&if v6 { 129 } else { 0 }), "{to}: {kinds:?}");
    }
}

#[test]
fn packets_between_devices_are_forwarded() {
    // b forwards from its wire to itself as a second network: a -> b -> (same wire) a's second address.
    let mut sim = Sim::new(TSO, TSO);
    sim.b.net.sysctl_set("ipv4/ip_forward", "1").unwrap();
    let a = Arc::clone(&sim.a.net);
    let mut e = net::route::FibEntry::new(
        net::route::Prefix::new("10.9.0.0".parse().unwrap(), 16).unwrap(),
        Some("10.0.0.2".parse().unwrap()),
        sim.a.ifindex,
    );
    e.scope = 0;
    a.fib.write().insert(e, false, true, false).unwrap();
    a.bump_routes();
    // No route beyond: b says so.
    let c = UdpSock::new(&a, Family::V4);
    c.setsockopt(0, 11, &1i32.to_ne_bytes()).unwrap();
    c.connect(sa("10.9.1.1:7")).unwrap();
    c.send_to(b"x", None).unwrap();
    sim.run(MS * 2);
    assert_eq!(c.take_error(), Some(Errno::ENETUNREACH));
    c.setsockopt(0, 2, &1i32.to_ne_bytes()).unwrap();
    c.send_to(b"x", None).unwrap();
    sim.run(MS * 2);
    assert_eq!(c.take_error(), Some(Errno::EHOSTUNREACH), "TTL 1 ends at the router");
}

/// Hostile frames: random, and mutations of real traffic.
#[test]
fn no_frame_breaks_the_stack() {
    let mut x = 0x1234_5678_9abc_def1u64;
    let mut rnd = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let rounds: usize = std::env::var("FUZZ_ROUNDS").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    for round in 0..rounds {
        let f = [TSO, Features::empty(), Features::GRO | Features::RXCSUM][round % 3];
        let mut sim = Sim::new(f, f);
        let l = net::TcpSock::new(&sim.b.net, Family::V6);
        l.bind(sa("[::]:80")).unwrap();
        l.listen(16).unwrap();
        let u = UdpSock::new(&sim.b.net, Family::V6);
        u.bind(sa("[::]:53")).unwrap();
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut socks = Vec::new();
        let (mut accepted, log) = (Vec::new(), Arc::new(klib::sync::Mutex::new(Vec::<Vec<u8>>::new())));
        let tap = Arc::clone(&log);
        sim.loss = Box::new(move |_, s: &Skb| {
            let mut t = tap.lock();
            if t.len() < 400 && s.len() < 4000 {
                t.push(s.data().to_vec());
            }
            false
        });
        for step in 0..120 {
            if step % 10 == 0 {
                let to = if step % 20 == 0 { "10.0.0.2:80" } else { "[fd00::2]:80" };
                let c = net::TcpSock::new(&sim.a.net, if step % 20 == 0 { Family::V4 } else { Family::V6 });
                let _ = c.connect(sa(to));
                socks.push(c);
                let c = UdpSock::new(&sim.a.net, Family::V4);
                let _ = c.send_to(&vec![1; (rnd() % 5000) as usize], Some(sa("10.0.0.2:53")));
            }
            for (i, c) in socks.iter().enumerate() {
                match rnd() % 6 {
                    0 => drop(c.send(&vec![i as u8; (rnd() % 20_000) as usize])),
                    1 => drop(c.recv(&mut vec![0; 10_000])),
                    2 if rnd() % 8 == 0 => drop(c.shutdown(net::Shutdown::Write)),
                    3 if rnd() % 16 == 0 => c.close(),
                    _ => {}
                }
            }
            accepted.extend(l.accept().ok());
            for s in &accepted {
                let s: &Arc<net::TcpSock> = s;
                let _ = s.recv(&mut vec![0; (rnd() % 9000) as usize]);
                let _ = s.send(&vec![5; (rnd() % 9000) as usize]);
                if rnd() % 40 == 0 {
                    s.close();
                }
            }
            while u.recv_from(&mut [0; 100]).is_ok() {}
            sim.run(Duration::from_micros(rnd() % 20_000));
            if step % 40 == 39 {
                sim.run(Duration::from_secs(rnd() % 40));
            }
            seen.append(&mut log.lock());
            let n = seen.len();
            if n > 2000 {
                seen.drain(..n - 2000);
            }
            for _ in 0..60 {
                let mut d = if seen.is_empty() || rnd() % 8 == 0 {
                    (0..rnd() % 120).map(|_| rnd() as u8).collect()
                } else {
                    seen[(rnd() as usize) % seen.len()].clone()
                };
                for _ in 0..rnd() % 5 {
                    if d.is_empty() {
                        break;
                    }
                    let n = d.len();
                    // Mostly headers.
                    let at = if rnd() % 3 == 0 { rnd() as usize % n } else { 12 + rnd() as usize % 60 };
                    if at < n {
                        d[at] = match rnd() % 4 {
                            0 => d[at].wrapping_add(1),
                            1 => 0xff,
                            2 => 0,
                            _ => rnd() as u8,
                        };
                    }
                }
                if rnd() % 10 == 0 {
                    d.truncate(rnd() as usize % (d.len() + 1));
                }
                // The IP header checksum is set right again, else nothing gets far.
                if d.len() > 34 && d[12] == 8 && d[13] == 0 {
                    d[24..26].fill(0);
                    let hl = (usize::from(d[14] & 15) * 4).clamp(20, d.len() - 14);
                    let c = net::csum::checksum(&d[14..14 + hl], 0);
                    d[24..26].copy_from_slice(&c.to_be_bytes());
                }
                let len = d.len();
                let mut s = Skb::from_vec(d, 0, len);
                s.csum = if rnd() % 4 == 0 { net::CsumStatus::None } else { net::CsumStatus::Unnecessary };
                if rnd() % 8 == 0 {
                    s.gso = Some(net::GsoInfo {
                        kind: [net::GsoType::TcpV4, net::GsoType::TcpV6, net::GsoType::Udp]
                            [rnd() as usize % 3],
                        size: rnd() as u16,
                        hdr_len: rnd() as u16,
                    });
                    s.csum =
                        net::CsumStatus::Partial { start: rnd() as u16 % 200, offset: rnd() as u16 % 40 };
                }
                let side = if rnd() % 2 == 0 { &sim.a } else { &sim.b };
                side.net.rx(side.ifindex, std::iter::once(s));
            }
        }
    }
}
