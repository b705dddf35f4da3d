//! How fast two stacks in one thread are. `cargo test -p net --release --test bench -- --ignored --nocapture`

mod sim;

use net::dev::Features;
use net::{Family, TcpSock};
use sim::{Sim, TSO};
use std::time::{Duration, Instant};
use uapi::Errno;

/// Time this thread has run: a busy machine does not change the figures much.
fn cpu() -> Duration {
    let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(s.split(' ').next().and_then(|w| w.parse().ok()).unwrap_or(0))
}

fn run(name: &str, mut sim: Sim, to: &str) {
    let server = if to.starts_with("127") || to == "[::1]:1" { &sim.a.net } else { &sim.b.net };
    let fam = if to.starts_with('[') { Family::V6 } else { Family::V4 };
    let l = TcpSock::new(server, fam);
    l.bind(to.parse().unwrap()).unwrap();
    l.listen(8).unwrap();
    let c = TcpSock::new(&sim.a.net, fam);
    assert_eq!(c.connect(to.parse().unwrap()), Err(Errno::EINPROGRESS));
    sim.run(Duration::from_millis(5));
    let s = l.accept().unwrap();
    let src = vec![7u8; 128 << 10];
    let mut dst = vec![0u8; 128 << 10];
    let (mut got, mut best) = (0u64, 0f64);
    for _ in 0..3 {
        let (t0, c0, g0) = (Instant::now(), cpu(), got);
        while t0.elapsed() < Duration::from_millis(700) {
            for _ in 0..8 {
                let _ = c.send(&src);
                while let Ok(n) = s.recv(&mut dst) {
                    got += n as u64;
                }
            }
            sim.step(Duration::from_micros(50));
            while let Ok(n) = s.recv(&mut dst) {
                got += n as u64;
            }
        }
        best = best.max((got - g0) as f64 * 8.0 / (cpu() - c0).as_secs_f64() / 1e9);
    }
    let frames = sim.a.nic.frames.load(std::sync::atomic::Ordering::Relaxed).max(1);
    eprintln!("{name:32} {best:6.1} Gbit/s of one CPU, {} B a frame, retrans {}", got / frames, {
        let i = c.getsockopt(6, 11).unwrap();
        u32::from_ne_bytes(i[100..104].try_into().unwrap())
    });
}

#[test]
#[ignore = "a measurement"]
fn throughput_of_two_stacks_in_one_thread() {
    run("v4 super-frames", Sim::new(TSO, TSO), "10.0.0.2:1");
    let sim = Sim::new(TSO, TSO);
    sim.a.net.sysctl_set("ipv4/tcp_timestamps", "1").unwrap();
    sim.b.net.sysctl_set("ipv4/tcp_timestamps", "1").unwrap();
    run("v4 super-frames, timestamps", sim, "10.0.0.2:1");
    run("v6 super-frames", Sim::new(TSO, TSO), "[fd00::2]:1");
    run("v4 MTU frames, offloaded csum", Sim::new(Features::HW_CSUM, Features::RXCSUM), "10.0.0.2:1");
    run("v4 MTU frames, software GRO", Sim::new(Features::empty(), Features::GRO), "10.0.0.2:1");
    run("v4 MTU frames", Sim::new(Features::empty(), Features::empty()), "10.0.0.2:1");
    run("loopback", Sim::new(TSO, TSO), "127.0.0.1:1");
}

#[test]
#[ignore = "a measurement"]
fn request_response_and_connections() {
    let mut sim = Sim::new(TSO, TSO);
    let l = TcpSock::new(&sim.b.net, Family::V4);
    l.bind("10.0.0.2:1".parse().unwrap()).unwrap();
    l.listen(1024).unwrap();
    let n = 5000;
    let t0 = Instant::now();
    for _ in 0..n {
        let c = TcpSock::new(&sim.a.net, Family::V4);
        let _ = c.connect("10.0.0.2:1".parse().unwrap());
        sim.run(Duration::from_micros(200));
        let s = l.accept().unwrap();
        c.close();
        sim.run(Duration::from_micros(100));
        s.close();
        sim.run(Duration::from_micros(200));
    }
    eprintln!("connection: {:?} of both ends (open, close)", t0.elapsed() / n);
    let c = TcpSock::new(&sim.a.net, Family::V4);
    let _ = c.connect("10.0.0.2:1".parse().unwrap());
    sim.run(Duration::from_millis(1));
    let s = l.accept().unwrap();
    let n = 100_000;

    let f0 = sim.a.nic.frames.load(std::sync::atomic::Ordering::Relaxed)
        + sim.b.nic.frames.load(std::sync::atomic::Ordering::Relaxed);
    let t0 = Instant::now();
    let mut b = [0; 8];
    for _ in 0..n {
        c.send(b"x").unwrap();
        while s.recv(&mut b).is_err() {
            sim.step(Duration::from_micros(50));
        }
        s.send(b"y").unwrap();
        while c.recv(&mut b).is_err() {
            sim.step(Duration::from_micros(50));
        }
    }
    let el = t0.elapsed() / n;
    let f = sim.a.nic.frames.load(std::sync::atomic::Ordering::Relaxed)
        + sim.b.nic.frames.load(std::sync::atomic::Ordering::Relaxed)
        - f0;
    eprintln!("request/response: {el:?} of both ends, {:.2} frames", f as f64 / f64::from(n));
}
