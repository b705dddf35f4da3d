//! TCP between two stacks on virtual time.

mod sim;

use net::dev::Features;
use net::tcp::TcpState;
use net::{Family, Net, Shutdown, TcpSock, poll};
use sim::{Sim, TSO};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use uapi::Errno;

fn sa(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

fn listener(net: &Arc<Net>, addr: &str, backlog: i32) -> Arc<TcpSock> {
    let addr = sa(addr);
    let l = TcpSock::new(net, if addr.is_ipv4() { Family::V4 } else { Family::V6 });
    l.bind(addr).unwrap();
    l.listen(backlog).unwrap();
    l
}

fn connect(sim: &mut Sim, l: &Arc<TcpSock>, to: &str) -> (Arc<TcpSock>, Arc<TcpSock>) {
    let to = sa(to);
    let c = TcpSock::new(&sim.a.net, if to.is_ipv4() { Family::V4 } else { Family::V6 });
    assert_eq!(c.connect(to), Err(Errno::EINPROGRESS));
    let mut s = None;
    sim.until("handshake", Duration::from_secs(5), |_| {
        s = s.take().or_else(|| l.accept().ok());
        s.is_some() && c.poll_mask() & poll::OUT != 0
    });
    assert_eq!(c.take_error(), None);
    (c, s.unwrap())
}

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8)) as u8
}

/// Sends `total` bytes from `from` to `to` and checks each.
fn pump(sim: &mut Sim, from: &TcpSock, to: &TcpSock, total: usize, limit: Duration) {
    let (mut sent, mut got) = (0, 0);
    sim.until("bulk transfer", limit, |sim| {
        loop {
            let mut moved = false;
            if sent < total {
                let r = from.send_with((total - sent).min(128 << 10), false, |room| {
                    for (i, b) in room.iter_mut().enumerate() {
                        *b = pattern(sent + i);
                    }
                    sent += room.len();
                    room.len()
                });
                match r {
                    Ok(_) => moved = true,
                    Err(Errno::EAGAIN) => {}
                    Err(e) => panic!("send: {e:?} after {sent}"),
                }
            }
            let r = to.recv_with(usize::MAX, false, |d| {
                for (i, b) in d.iter().enumerate() {
                    assert_eq!(*b, pattern(got + i), "byte {}", got + i);
                }
                got += d.len();
                d.len()
            });
            match r {
                Ok(n) => moved |= n > 0,
                Err(Errno::EAGAIN) => {}
                Err(e) => panic!("recv: {e:?} after {got}"),
            }
            sim.settle();
            if !moved {
                break;
            }
        }
        got == total
    });
}

#[test]
fn handshake_data_and_close() {
    for (listen, to) in
        [("10.0.0.2:80", "10.0.0.2:80"), ("[::]:80", "10.0.0.2:80"), ("[fd00::2]:80", "[fd00::2]:80")]
    {
        let mut sim = Sim::new(TSO, TSO);
        let l = listener(&sim.b.net, listen, 8);
        assert_eq!(l.accept().err(), Some(Errno::EAGAIN));
        let (c, s) = connect(&mut sim, &l, to);
        assert_eq!(c.local_addr(), {
            let p = s.peer_addr().unwrap();
            match p {
                SocketAddr::V6(v) if v.ip().to_ipv4_mapped().is_some() => {
                    SocketAddr::new(v.ip().to_ipv4_mapped().unwrap().into(), v.port())
                }
                p => p,
            }
        });
        assert_eq!(c.send(b"hello").unwrap(), 5);
        sim.run(Duration::from_millis(1));
        assert!(s.poll_mask() & poll::IN != 0);
        let mut b = [0; 16];
        assert_eq!(s.recv_with(16, true, |d| d.len()), Ok(5));
        assert_eq!(s.recv(&mut b), Ok(5));
        assert_eq!(&b[..5], b"hello");
        assert_eq!(s.recv(&mut b), Err(Errno::EAGAIN));
        c.shutdown(Shutdown::Write).unwrap();
        sim.run(Duration::from_millis(1));
        assert_eq!(s.recv(&mut b), Ok(0));
        assert!(s.poll_mask() & poll::RDHUP != 0);
        assert_eq!(s.send(b"bye").unwrap(), 3);
        s.close();
        sim.run(Duration::from_millis(1));
        assert_eq!(c.recv(&mut b), Ok(3));
        assert_eq!(c.recv(&mut b), Ok(0));
        assert_eq!(c.send(b"x"), Err(Errno::EPIPE));
        assert_eq!(c.state(), TcpState::TimeWait);
        c.close();
        sim.run(Duration::from_millis(100));
        assert_eq!((sim.a.net.tcp.timewait.len(), sim.b.net.tcp.timewait.len()), (1, 0));
        assert!(sim.a.net.tcp.ehash.all().is_empty() && sim.b.net.tcp.ehash.all().is_empty());
        sim.run(Duration::from_secs(63));
        assert_eq!(sim.a.net.tcp.timewait.len(), 0);
    }
}

#[test]
fn bulk_both_ways_with_and_without_offload() {
    let gro = Features::GRO;
    for (fa, fb, big) in
        [(TSO, TSO, true), (Features::empty(), Features::empty(), false), (Features::empty(), gro, false)]
    {
        for to in ["10.0.0.2:5201", "[fd00::2]:5201"] {
            let mut sim = Sim::new(fa, fb);
            let l = listener(&sim.b.net, to, 8);
            let (c, s) = connect(&mut sim, &l, to);
            pump(&mut sim, &c, &s, 24 << 20, Duration::from_secs(20));
            pump(&mut sim, &s, &c, 3 << 20, Duration::from_secs(20));
            let biggest = sim.a.nic.biggest.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(biggest > 30_000, big, "{to}: biggest frame {biggest}");
            assert!(big || biggest <= 1514, "{to}: biggest frame {biggest}");
        }
    }
}

#[test]
fn one_percent_loss_recovers() {
    for to in ["10.0.0.2:5201", "[fd00::2]:5201"] {
        for f in [TSO, Features::empty()] {
            let mut sim = Sim::new(f, f);
            let mut x = 12_345u64;
            sim.loss = Box::new(move |_, _| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (x >> 33).is_multiple_of(100)
            });
            let l = listener(&sim.b.net, to, 8);
            let (c, s) = connect(&mut sim, &l, to);
            let t0 = sim.now();
            pump(&mut sim, &c, &s, 4 << 20, Duration::from_secs(300));
            eprintln!("{to} {f:?}: 4 MiB at 1 % loss in {} ms", (sim.now() - t0) / 1_000_000);
        }
    }
}

#[test]
fn refused_reset_and_backlog() {
    let mut sim = Sim::new(TSO, TSO);
    let c = TcpSock::new(&sim.a.net, Family::V4);
    assert_eq!(c.connect(sa("10.0.0.2:1")), Err(Errno::EINPROGRESS));
    assert_eq!(c.connect(sa("10.0.0.2:1")), Err(Errno::EALREADY));
    sim.run(Duration::from_millis(10));
    assert!(c.poll_mask() & poll::ERR != 0);
    assert_eq!(c.take_error(), Some(Errno::ECONNREFUSED));

    let l = listener(&sim.b.net, "10.0.0.2:80", 2);
    let many: Vec<_> = (0..6)
        .map(|_| {
            let c = TcpSock::new(&sim.a.net, Family::V4);
            assert_eq!(c.connect(sa("10.0.0.2:80")), Err(Errno::EINPROGRESS));
            sim.run(Duration::from_millis(2));
            c
        })
        .collect();
    let up = many.iter().filter(|c| c.state() == TcpState::Established).count();
    assert_eq!(up, 3, "a backlog of 2 holds 3");
    let s = l.accept().unwrap();
    sim.run(Duration::from_secs(4));
    assert!(
        many.iter().filter(|c| c.state() == TcpState::Established).count() >= 4,
        "a dropped SYN is sent again"
    );

    // Unread data at close resets the other side.
    let c = many.iter().find(|c| c.local_addr() == s.peer_addr().unwrap()).unwrap();
    c.send(b"unread").unwrap();
    sim.run(Duration::from_millis(10));
    s.close();
    sim.run(Duration::from_millis(10));
    assert_eq!(c.recv(&mut [0; 8]), Err(Errno::ECONNRESET));
    assert_eq!(c.recv(&mut [0; 8]), Ok(0));
    assert_eq!(c.send(b"x"), Err(Errno::EPIPE));
    l.close();
    sim.run(Duration::from_millis(10));
    assert!(many.iter().all(|c| c.state() != TcpState::Established));
    assert!(sim.b.net.tcp.ehash.all().is_empty());
}

#[test]
fn nobody_there_times_out_and_arp_failure_is_told() {
    let mut sim = Sim::new(TSO, TSO);
    let c = TcpSock::new(&sim.a.net, Family::V4);
    assert_eq!(c.connect(sa("10.0.0.77:1")), Err(Errno::EINPROGRESS));
    sim.run(Duration::from_secs(5));
    assert_eq!(c.take_error(), Some(Errno::EHOSTUNREACH));
    sim.loss = Box::new(|_, _| true);
    let c = TcpSock::new(&sim.a.net, Family::V4);
    sim.a.net.neigh.flush(sim.a.ifindex, true);
    let dev = sim.a.net.devs.get(sim.a.ifindex).unwrap();
    sim.a
        .net
        .neigh
        .set(
            &sim.a.net,
            &dev,
            "10.0.0.2".parse().unwrap(),
            Some([2, 0, 0, 0, 0, 2]),
            net::neigh::Nud::Permanent,
            net::neigh::SetHow { create: true, replace: true },
        )
        .unwrap();
    assert_eq!(c.connect(sa("10.0.0.2:1")), Err(Errno::EINPROGRESS));
    sim.run(Duration::from_secs(140));
    assert_eq!(c.take_error(), Some(Errno::ETIMEDOUT));
    assert_eq!(TcpSock::new(&sim.a.net, Family::V4).connect(sa("192.168.9.9:1")), Err(Errno::ENETUNREACH));
}

#[test]
fn many_flows_cost_the_same_a_packet() {
    use std::sync::atomic::Ordering::Relaxed;
    // Work, not time: what the machine does besides must not matter. (With many flows each rests longer: its timers count too.)
    let cost = |n: usize| {
        let mut sim = Sim::new(TSO, TSO);
        let l = listener(&sim.b.net, "10.0.0.2:80", 4096);
        let pairs: Vec<_> = (0..n).map(|_| connect(&mut sim, &l, "10.0.0.2:80")).collect();
        let work = |sim: &Sim| {
            let side = |s: &sim::Side| s.host.calls.load(Relaxed) + s.nic.frames.load(Relaxed);
            side(&sim.a) + side(&sim.b)
        };
        let before = work(&sim);
        let rounds = 2000;
        for i in 0..rounds {
            let (c, s) = &pairs[(i * 7919) % n];
            c.send(b"ping").unwrap();
            sim.run(Duration::from_micros(60));
            assert_eq!(s.recv(&mut [0; 8]), Ok(4));
            s.send(b"pong").unwrap();
            sim.run(Duration::from_micros(60));
            assert_eq!(c.recv(&mut [0; 8]), Ok(4));
        }
        (work(&sim) - before) as f64 / rounds as f64
    };
    let (few, many) = (cost(10), cost(1000));
    eprintln!("frames and calls of the host in a request/response: {few} with 10 flows, {many} with 1000");
    assert!(many < few * 2.0, "{few} with 10 flows, {many} with 1000");
}

#[test]
fn loopback_carries_big_frames() {
    for to in ["127.0.0.1:9", "[::1]:9", "10.0.0.1:9"] {
        let mut sim = Sim::new(TSO, TSO);
        let l = listener(&sim.a.net, to, 8);
        let (c, s) = connect(&mut sim, &l, to);
        pump(&mut sim, &c, &s, 16 << 20, Duration::from_secs(5));
        let st = sim.a.net.lo.stats();
        assert!(st.tx_bytes / st.tx_packets > 8_000, "{to}: {st:?}");
        assert!(sim.a.nic.frames.load(std::sync::atomic::Ordering::Relaxed) <= 40);
    }
}

#[test]
fn options_are_shown_as_linux_shows_them() {
    let sim = Sim::new(TSO, TSO);
    let s = TcpSock::new(&sim.a.net, Family::V4);
    let int = |v: Vec<u8>| i32::from_ne_bytes(v[..4].try_into().unwrap());
    s.setsockopt(1, 8, &100_000i32.to_ne_bytes()).unwrap();
    assert_eq!(int(s.getsockopt(1, 8).unwrap()), 200_000);
    s.setsockopt(6, 1, &1i32.to_ne_bytes()).unwrap();
    assert_eq!(int(s.getsockopt(6, 1).unwrap()), 1);
    assert_eq!(&s.getsockopt(6, 13).unwrap()[..6], b"cubic\0");
    assert_eq!(int(s.getsockopt(6, 2).unwrap()), 536);
    assert_eq!(s.getsockopt(6, 11).unwrap()[0], 7);
    assert_eq!(s.setsockopt(6, 9999, &1i32.to_ne_bytes()), Err(Errno::ENOPROTOOPT));
    assert_eq!(s.setsockopt(1, 2, &[1]), Err(Errno::EINVAL));
    assert_eq!(s.bind(sa("1.2.3.4:5")), Err(Errno::EADDRNOTAVAIL));
    s.bind(sa("0.0.0.0:0")).unwrap();
    assert!(s.local_addr().port() >= 32768);
    assert_eq!(s.poll_mask(), poll::OUT | poll::WRNORM | poll::HUP);
}

#[test]
fn a_full_device_holds_flows_back_and_loses_nothing() {
    for to in ["10.0.0.2:5201", "[fd00::2]:5201"] {
        for f in [TSO, Features::empty()] {
            let mut sim = Sim::new(f, f);
            sim.a.nic.room.store(2, std::sync::atomic::Ordering::Relaxed);
            let l = listener(&sim.b.net, to, 8);
            let pairs: Vec<_> = (0..4).map(|_| connect(&mut sim, &l, to)).collect();
            for (c, s) in &pairs {
                let _ = c.send(&vec![1; 900_000]);
                pump(&mut sim, s, c, 1 << 20, Duration::from_secs(20));
            }
            sim.until("all data", Duration::from_secs(20), |_| pairs.iter().all(|(_, s)| s.inq() == 900_000));
            let dev = sim.a.net.devs.get(sim.a.ifindex).unwrap();
            assert_eq!(dev.stats().tx_dropped, 0);
            for (c, _) in &pairs {
                let i = c.getsockopt(6, 11).unwrap();
                assert_eq!(u32::from_ne_bytes(i[100..104].try_into().unwrap()), 0, "retransmissions");
            }
        }
    }
}

#[test]
fn keepalive_and_user_timeout_end_dead_connections() {
    let mut sim = Sim::new(TSO, TSO);
    let l = listener(&sim.b.net, "10.0.0.2:80", 8);
    let (c, _s) = connect(&mut sim, &l, "10.0.0.2:80");
    let (d, _t) = connect(&mut sim, &l, "10.0.0.2:80");
    for (n, v) in [(4, 10), (5, 2), (6, 3)] {
        c.setsockopt(6, n, &i32::to_ne_bytes(v)).unwrap();
    }
    c.setsockopt(1, 9, &1i32.to_ne_bytes()).unwrap();
    sim.run(Duration::from_secs(100));
    assert_eq!(c.state(), TcpState::Established, "the peer answers probes");
    d.setsockopt(6, 18, &5000i32.to_ne_bytes()).unwrap();
    sim.loss = Box::new(|_, _| true);
    d.send(b"lost").unwrap();
    sim.run(Duration::from_secs(6));
    assert_eq!(d.take_error(), Some(Errno::ETIMEDOUT));
    sim.run(Duration::from_secs(20));
    assert_eq!(c.take_error(), Some(Errno::ETIMEDOUT));
    assert!(sim.a.net.tcp.ehash.all().is_empty());
}

#[test]
fn unread_data_survives_the_peers_close_for_long() {
    let mut sim = Sim::new(TSO, TSO);
    let l = listener(&sim.b.net, "10.0.0.2:80", 8);
    let (c, s) = connect(&mut sim, &l, "10.0.0.2:80");
    c.shutdown(Shutdown::Write).unwrap();
    sim.run(Duration::from_millis(1));
    s.send(b"late").unwrap();
    s.close();
    sim.run(Duration::from_secs(300));
    assert_eq!(c.recv(&mut [0; 8]), Ok(4));
    assert_eq!(c.recv(&mut [0; 8]), Ok(0));
    c.close();
    sim.run(Duration::from_millis(1));
    assert!(sim.a.net.tcp.ehash.all().is_empty());
}

/// tcpi_total_retrans (linux/tcp.h).
fn total_retrans(s: &TcpSock) -> u32 {
    let info = s.getsockopt(6, 11).unwrap();
    u32::from_ne_bytes(info[100..104].try_into().unwrap())
}

#[test]
fn a_reader_that_lags_behind_costs_no_retransmission() {
    for features in [TSO, Features::empty()] {
        let mut sim = Sim::new(features, features);
        let l = listener(&sim.b.net, "0.0.0.0:80", 8);
        // SO_RCVBUF
        l.setsockopt(1, 8, &400_000i32.to_ne_bytes()).unwrap();
        let (c, s) = connect(&mut sim, &l, "10.0.0.2:80");
        let (mut sent, mut got) = (0, 0);
        let mut buf = vec![0; 300_001];
        // The window is full most of the time, and its edge falls on odd bytes.
        for round in 0..200 {
            while let Ok(n) = c.send(&vec![7; 100_003]) {
                sent += n;
            }
            sim.run(Duration::from_millis(2));
            let want = [300_001, 77_777, 1_461, 64_300][round % 4];
            got += s.recv(&mut buf[..want]).unwrap_or(0);
            sim.run(Duration::from_millis(2));
        }
        assert!(got > 20_000_000, "only {got} of {sent} bytes came");
        assert_eq!(total_retrans(&c), 0);
    }
}

#[test]
fn two_super_frames_at_once_are_acknowledged_at_once() {
    let mut sim = Sim::new(TSO, TSO);
    let l = listener(&sim.b.net, "0.0.0.0:80", 8);
    let (c, s) = connect(&mut sim, &l, "10.0.0.2:80");
    // Request and response: from now on acknowledgements wait for data to ride on.
    for _ in 0..4 {
        c.send(b"request").unwrap();
        sim.run(Duration::from_millis(1));
        s.recv(&mut [0; 64]).unwrap();
        s.send(b"answer").unwrap();
        sim.run(Duration::from_millis(1));
        c.recv(&mut [0; 64]).unwrap();
    }
    let begun = sim.now();
    pump(&mut sim, &c, &s, 20_000_000, Duration::from_secs(60));
    let took = Duration::from_nanos(sim.now() - begun);
    assert!(took < Duration::from_millis(200), "{took:?}: acknowledgements were held back");
}

#[test]
fn a_disconnected_socket_connects_again() {
    let mut sim = Sim::new(TSO, TSO);
    let l = listener(&sim.b.net, "0.0.0.0:80", 8);
    let (c, s) = connect(&mut sim, &l, "10.0.0.2:80");
    c.disconnect();
    sim.run(Duration::from_millis(5));
    assert_eq!(s.recv(&mut [0; 8]), Err(Errno::ECONNRESET));
    assert_eq!(c.send(b"x"), Err(Errno::EPIPE));
    assert_eq!(c.connect(sa("10.0.0.2:80")), Err(Errno::EINPROGRESS));
    sim.run(Duration::from_millis(5));
    assert_eq!(c.connect(sa("10.0.0.2:80")), Ok(()));
    let s = l.accept().unwrap();
    s.disconnect();
    assert_eq!(s.listen(1), Ok(()));
    l.disconnect();
    assert_eq!(l.accept().err(), Some(Errno::EINVAL));
    assert_eq!(l.listen(4), Ok(()));
}

#[test]
fn a_connection_that_lay_still_goes_on() {
    for f in [TSO, Features::empty()] {
        for (to, stamps) in [("10.0.0.2:80", "1"), ("[fd00::2]:80", "0")] {
            let mut sim = Sim::new(f, f);
            for side in [&sim.a, &sim.b] {
                side.net.sysctl_set("ipv4/tcp_timestamps", stamps).unwrap();
            }
            let l = listener(&sim.b.net, to, 8);
            let (c, s) = connect(&mut sim, &l, to);
            for round in 0..6 {
                pump(&mut sim, &c, &s, 300_000 + round, Duration::from_secs(20));
                pump(&mut sim, &s, &c, 200_000 + round, Duration::from_secs(20));
                // Rings go back after two seconds.
                sim.run(Duration::from_millis(1500 + 1000 * round as u64));
                let frames = sim.a.nic.frames.load(std::sync::atomic::Ordering::Relaxed);
                sim.run(Duration::from_secs(4));
                let after = sim.a.nic.frames.load(std::sync::atomic::Ordering::Relaxed);
                // The neighbour is asked for once.
                assert!(after == frames || round == 0, "quiet connections say nothing");
            }
            assert_eq!((total_retrans(&c), total_retrans(&s)), (0, 0));
            // The first bytes after a rest, not acknowledged before the next ones, and the end.
            pump(&mut sim, &c, &s, 200_000, Duration::from_secs(20));
            sim.run(Duration::from_secs(5));
            s.send(b"first").unwrap();
            c.send(b"other").unwrap();
            sim.run(Duration::from_millis(1));
            c.shutdown(Shutdown::Write).unwrap();
            s.close();
            sim.run(Duration::from_millis(5));
            assert_eq!(c.recv(&mut [0; 8]), Ok(5));
            c.close();
            sim.run(Duration::from_secs(5));
            assert!(sim.a.net.tcp.ehash.all().is_empty() && sim.b.net.tcp.ehash.all().is_empty());
        }
    }
}

#[test]
fn a_port_in_time_wait_is_taken_again() {
    let mut sim = Sim::new(TSO, TSO);
    let l = listener(&sim.b.net, "10.0.0.2:80", 8);
    for round in 0..20 {
        let c = TcpSock::new(&sim.a.net, Family::V4);
        // SO_REUSEADDR
        c.setsockopt(1, 2, &1i32.to_ne_bytes()).unwrap();
        c.bind(sa("10.0.0.1:4000")).unwrap();
        assert_eq!(c.connect(sa("10.0.0.2:80")), Err(Errno::EINPROGRESS));
        sim.run(Duration::from_millis(2));
        assert_eq!(c.connect(sa("10.0.0.2:80")), Ok(()), "round {round}");
        let s = l.accept().expect("a connection");
        s.close();
        sim.run(Duration::from_millis(2));
        assert_eq!(c.recv(&mut [0; 8]), Ok(0));
        c.close();
        sim.run(Duration::from_millis(2));
        assert_eq!((sim.a.net.tcp.timewait.len(), sim.b.net.tcp.timewait.len()), (0, 1));
    }
}
