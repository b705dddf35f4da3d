//! Network load and latency from inside a guest: one-byte TCP ping-pong, datagram rates, connections a second, a busy loop; and the
//! far end of a tunnel.
#![allow(clippy::undocumented_unsafe_blocks, missing_docs)]

mod epoll;
mod loss;
mod many;
mod relay;
mod udp;

use std::io::{Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: nettool rr-server PORT | rr HOST PORT SECONDS | cps HOST PORT SECONDS | udp-server PORT \
                     | udp-flood HOST PORT SECONDS | udp-count HOST PORT SECONDS | udp-rx PORT SECONDS | udp-tx HOST PORT SECONDS \
                     | spin SECONDS | relay TAP udp:PORT|ip:PROTOCOL LOCAL PEER HEADER | many-server PORT PORTS \
                     | many HOST PORT PORTS CONNECTIONS MESSAGES | churn HOST PORT PORTS RATE SECONDS | stream-rx PORT \
                     | stream-tx HOST PORT BYTES ALGORITHM|- | loss-relay TAP fd|tap:NAME DELAY_US LOSS LOSS_ALL LATE SEED COMMAND...";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let w: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match w.as_slice() {
        ["rr-server", port] => number(port).and_then(|p| server(p as u16)),
        ["rr", host, port, s] => times(port, s).and_then(|(p, d)| rr(host, p, d)),
        ["cps", host, port, s] => times(port, s).and_then(|(p, d)| cps(host, p, d)),
        ["udp-rx", port, s] => times(port, s).and_then(|(p, d)| udp::rx(p, d)),
        ["udp-tx", host, port, s] => times(port, s).and_then(|(p, d)| udp::tx(host, p, d)),
        ["udp-server", port] => number(port).and_then(|p| udp::server(p as u16)),
        ["udp-flood", host, port, s] => times(port, s).and_then(|(p, d)| udp::flood_to(host, p, d)),
        ["udp-count", host, port, s] => times(port, s).and_then(|(p, d)| udp::count_from(host, p, d)),
        ["relay", tap, kind, local, peer, header] => relay::run(tap, kind, local, peer, header),
        ["loss-relay" | "stream-rx" | "stream-tx", ..] => loss::main(&w),
        ["many" | "many-server" | "churn", ..] => many::main(&w),
        ["spin", s] => number(s).map(|s| spin(Duration::from_secs(s))),
        _ => Err(Error::other(USAGE)),
    };
    if let Err(e) = done {
        eprintln!("nettool: {e}");
        std::process::exit(1);
    }
}

fn number(t: &str) -> Result<u64> {
    t.parse().map_err(|_| Error::other(format!("{t:?}: expected a number")))
}

fn times(port: &str, s: &str) -> Result<(u16, Duration)> {
    let port = port.parse().map_err(|_| Error::other(format!("{port:?}: expected a port")))?;
    Ok((port, Duration::from_secs(number(s)?)))
}

/// Echoes on every connection, IPv6 and IPv4, each in a thread of its own.
fn server(port: u16) -> Result<()> {
    let l = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    println!("listening on {}", l.local_addr()?);
    loop {
        let (mut c, _) = l.accept()?;
        std::thread::Builder::new().stack_size(65536).spawn(move || {
            let _ = c.set_nodelay(true);
            let mut b = [0u8; 4096];
            while let Ok(n @ 1..) = c.read(&mut b) {
                if c.write_all(&b[..n]).is_err() {
                    return;
                }
            }
        })?;
    }
}

/// One byte there and back, as often as it goes: transactions a second, median and 99th percentile.
fn rr(host: &str, port: u16, d: Duration) -> Result<()> {
    let mut c = TcpStream::connect((host, port))?;
    c.set_nodelay(true)?;
    c.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (start, mut all, mut b) = (Instant::now(), Vec::new(), [7u8]);
    while start.elapsed() < d {
        let t = Instant::now();
        c.write_all(&b)?;
        c.read_exact(&mut b)?;
        all.push(t.elapsed().as_nanos() as f64 / 1e3);
    }
    let rate = all.len() as f64 / start.elapsed().as_secs_f64();
    all.sort_by(f64::total_cmp);
    let at = |p: usize| all.get(all.len() * p / 100).copied().unwrap_or(0.0);
    println!("rr {rate:.0} /s\nrr_p50 {:.1} us\nrr_p99 {:.1} us", at(50), at(99));
    Ok(())
}

/// Connect, one byte there and back, close, as often as it goes.
fn cps(host: &str, port: u16, d: Duration) -> Result<()> {
    let (start, mut n) = (Instant::now(), 0u64);
    while start.elapsed() < d {
        let mut c = TcpStream::connect((host, port))?;
        c.set_nodelay(true)?;
        c.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut b = [1u8];
        c.write_all(&b)?;
        c.read_exact(&mut b)?;
        n += 1;
    }
    println!("cps {:.0} /s", n as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

fn spin(d: Duration) {
    let start = Instant::now();
    let mut x = 1u64;
    while start.elapsed() < d {
        for _ in 0..100_000 {
            x = std::hint::black_box(x.wrapping_mul(3) + 1);
        }
    }
}
