//! Very many TCP connections: an echo server and its clients, each one thread with epoll(7).
//!
//! A message is 64 bytes: what the server shall do (`e` echo, `q` echo and close), then numbers that tell it from all others,
//! which the client compares. Everything is counted; the times are for people to read.

use super::epoll::{Epoll, IN, OUT, allow_files};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

const MSG: usize = 64;
/// Handshakes that a client lets be under way at once.
const OPENING: usize = 256;
/// Connections that are there at once while they come and go.
const CHURNING: usize = 200;
/// Nothing at all happens for so long: something is lost.
const STUCK_MS: i32 = 20_000;

/// The subcommands of this file.
pub fn main(w: &[&str]) -> Result<()> {
    let n = |t: &str| super::number(t).map(|n| n as usize);
    match w {
        ["many-server", port, ports] => server(n(port)? as u16, n(ports)? as u16),
        ["many", host, port, ports, conns, messages] => {
            hold(host, n(port)? as u16, n(ports)? as u16, n(conns)?, n(messages)?)
        }
        ["churn", host, port, ports, rate, s] => {
            let d = Duration::from_secs(super::number(s)?);
            churn(host, n(port)? as u16, n(ports)? as u16, super::number(rate)?, d)
        }
        _ => Err(Error::other(super::USAGE)),
    }
}

fn message(what: u8, id: usize, round: u64) -> [u8; MSG] {
    let mut m = [what; MSG];
    m[8..16].copy_from_slice(&(id as u64).to_le_bytes());
    m[16..24].copy_from_slice(&round.to_le_bytes());
    m
}

fn listen(port: u16) -> Result<TcpListener> {
    let l = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    // The library asks for a backlog of 128, which a burst of handshakes overruns.
    if unsafe { libc::listen(l.as_raw_fd(), 4096) } < 0 {
        return Err(Error::last_os_error());
    }
    l.set_nonblocking(true)?;
    Ok(l)
}

/// Echoes messages on all connections to `ports` ports from `port` on, for ever.
fn server(port: u16, ports: u16) -> Result<()> {
    allow_files(usize::from(ports) + 20_000).or_else(|_| allow_files(usize::from(ports) + 1000))?;
    let ep = Epoll::new()?;
    let listeners: Vec<TcpListener> =
        (0..ports).map(|i| listen(port.wrapping_add(i))).collect::<Result<_>>()?;
    for (i, l) in listeners.iter().enumerate() {
        ep.add(l, i, IN)?;
    }
    let first = listeners.len();
    let mut conns: Vec<Option<TcpStream>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    println!("listening on {} ports from {port}", listeners.len());
    let mut buf = [0u8; 4096];
    loop {
        for ev in ep.wait(-1)? {
            let Some(slot) = ev.id.checked_sub(first) else {
                while let Ok((c, _)) = listeners[ev.id].accept() {
                    c.set_nonblocking(true)?;
                    let _ = c.set_nodelay(true);
                    let slot = free.pop().unwrap_or(conns.len());
                    conns.resize_with(conns.len().max(slot + 1), || None);
                    ep.add(&c, first + slot, IN)?;
                    conns[slot] = Some(c);
                }
                continue;
            };
            let Some(c) = conns.get_mut(slot).and_then(Option::as_mut) else { continue };
            let keep = match c.read(&mut buf) {
                Ok(0) => false,
                Ok(n) => c.write_all(&buf[..n]).is_ok() && buf[0] != b'q',
                Err(e) => e.kind() == ErrorKind::WouldBlock,
            };
            if !keep {
                conns[slot] = None;
                free.push(slot);
            }
        }
    }
}

/// A connection that begins; its end shows as writable.
fn begin(to: &SocketAddr) -> Result<TcpStream> {
    let (family, len) = match to {
        SocketAddr::V4(_) => (libc::AF_INET, size_of::<libc::sockaddr_in>()),
        SocketAddr::V6(_) => (libc::AF_INET6, size_of::<libc::sockaddr_in6>()),
    };
    let mut sa = [0u8; 28];
    sa[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    sa[2..4].copy_from_slice(&to.port().to_be_bytes());
    match to {
        SocketAddr::V4(a) => sa[4..8].copy_from_slice(&a.ip().octets()),
        SocketAddr::V6(a) => sa[8..24].copy_from_slice(&a.ip().octets()),
    }
    let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = unsafe { libc::socket(family, flags, 0) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    let s = unsafe { TcpStream::from_raw_fd(fd) };
    let r = unsafe { libc::connect(fd, sa.as_ptr().cast(), len as u32) };
    match Error::last_os_error() {
        e if r < 0 && e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(s),
    }
}

fn address(host: &str, port: u16) -> Result<SocketAddr> {
    (host, port).to_socket_addrs()?.next().ok_or_else(|| Error::other(format!("{host}: no address")))
}

fn stuck(what: &str) -> Error {
    Error::other(format!("nothing happens for {} s while waiting for {what}", STUCK_MS / 1000))
}

struct Many {
    ep: Epoll,
    conns: Vec<TcpStream>,
    /// Rounds that each connection has done.
    rounds: Vec<u64>,
}

impl Many {
    fn open(host: &str, port: u16, n: usize, ports: u16) -> Result<Self> {
        let mut m = Self { ep: Epoll::new()?, conns: Vec::with_capacity(n), rounds: vec![0; n] };
        let mut done = 0;
        while done < n {
            while m.conns.len() < n && m.conns.len() - done < OPENING {
                let i = m.conns.len();
                let c = begin(&address(host, port.wrapping_add(i as u16 % ports))?)?;
                let _ = c.set_nodelay(true);
                m.ep.add(&c, i, OUT)?;
                m.conns.push(c);
            }
            let events = m.ep.wait(STUCK_MS)?;
            if events.is_empty() {
                return Err(stuck(&format!("{} handshakes of {n}", n - done)));
            }
            for e in events {
                let c = &m.conns[e.id];
                if let Some(err) = c.take_error()? {
                    return Err(Error::other(format!("connection {}: {err}", e.id)));
                }
                m.ep.modify(c, e.id, IN)?;
                done += 1;
            }
        }
        Ok(m)
    }

    /// `total` messages there and back on the first `over` connections in turn, up to `window` of them at once; microseconds
    /// a message.
    fn run(&mut self, over: usize, window: usize, total: usize) -> Result<f64> {
        let (start, window) = (Instant::now(), window.min(over));
        let (mut sent, mut back) = (0, 0);
        while back < total {
            while sent < total && sent - back < window {
                let i = sent % over;
                self.conns[i].write_all(&message(b'e', i, self.rounds[i]))?;
                sent += 1;
            }
            let events = self.ep.wait(STUCK_MS)?;
            if events.is_empty() {
                return Err(stuck(&format!("{} answers of {total}", total - back)));
            }
            for e in events {
                let mut b = [0; MSG];
                match self.conns[e.id].read_exact(&mut b) {
                    Ok(()) if b == message(b'e', e.id, self.rounds[e.id]) => {}
                    Ok(()) => return Err(Error::other(format!("connection {}: a foreign answer", e.id))),
                    Err(err) => return Err(Error::other(format!("connection {}: {err}", e.id))),
                }
                self.rounds[e.id] += 1;
                back += 1;
            }
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / total as f64)
    }
}

/// Opens `n` connections to `ports` ports, exchanges messages on them, holds them until standard input says more.
fn hold(host: &str, port: u16, ports: u16, n: usize, total: usize) -> Result<()> {
    allow_files(n)?;
    let start = Instant::now();
    let mut m = Many::open(host, port, n, ports)?;
    println!("many_open {n} connections\nmany_open_rate {:.0} /s", n as f64 / start.elapsed().as_secs_f64());
    println!("many_one {:.1} us", m.run(1, 1, total)?);
    println!("many_all {:.1} us", m.run(n, 1, total.max(n))?);
    println!("many_busy {:.2} us", m.run(n, 64, total.max(n))?);
    println!("many_one_again {:.1} us", m.run(1, 1, total)?);
    println!("many_held {n}");
    std::io::stdout().flush()?;
    let _ = std::io::stdin().read_line(&mut String::new());
    println!("many_after {:.1} us", m.run(n, 1, n)?);
    drop(m);
    println!("many_closed {n}");
    Ok(())
}

struct Short {
    conn: TcpStream,
    number: u64,
    born: Instant,
    answered: bool,
}

/// `rate` connections a second for `d` (0: as many as go), each for one message; the server closes.
fn churn(host: &str, port: u16, ports: u16, rate: u64, d: Duration) -> Result<()> {
    let window = CHURNING;
    allow_files(window)?;
    let ep = Epoll::new()?;
    let mut slots: Vec<Option<Short>> = (0..window).map(|_| None).collect();
    let mut free: Vec<usize> = (0..window).collect();
    let (start, mut begun, mut done, mut failed, mut first) = (Instant::now(), 0u64, 0u64, 0u64, None);
    let mut slowest = Duration::ZERO;
    loop {
        let past = start.elapsed();
        let due = if rate == 0 { u64::MAX } else { (past.min(d).as_secs_f64() * rate as f64) as u64 };
        while past < d && begun < due && !free.is_empty() {
            let Some(i) = free.pop() else { break };
            let to = address(host, port.wrapping_add((begun % u64::from(ports)) as u16))?;
            begun += 1;
            match begin(&to) {
                Ok(conn) => {
                    ep.add(&conn, i, OUT)?;
                    slots[i] = Some(Short { conn, number: begun, born: Instant::now(), answered: false });
                }
                Err(e) => {
                    failed += 1;
                    first.get_or_insert(e.to_string());
                    free.push(i);
                }
            }
        }
        if past >= d && free.len() == window {
            break;
        }
        let idle = free.len() == window;
        let events = ep.wait(if begun < due || idle { 1 } else { STUCK_MS })?;
        if events.is_empty() && begun >= due && !idle {
            return Err(stuck(&format!("{} connections", window - free.len())));
        }
        for e in events {
            let Some(s) = &mut slots[e.id] else { continue };
            let over = match step(&ep, s, &e) {
                Ok(over) => over,
                Err(err) => {
                    failed += 1;
                    first.get_or_insert(err.to_string());
                    true
                }
            };
            if over {
                done += u64::from(s.answered);
                slowest = slowest.max(s.born.elapsed());
                slots[e.id] = None;
                free.push(e.id);
            }
        }
    }
    let secs = start.elapsed().as_secs_f64();
    println!(
        "churn_begun {begun}\nchurn_done {done}\nchurn_failed {failed}\nchurn_rate {:.0} /s",
        done as f64 / secs
    );
    println!("churn_slowest {:.1} ms", slowest.as_secs_f64() * 1e3);
    if let Some(e) = first {
        println!("churn_first_error {e}");
    }
    Ok(())
}

/// One event of a short connection; true when it is over.
fn step(ep: &Epoll, s: &mut Short, e: &super::epoll::Event) -> Result<bool> {
    let mine = message(b'q', e.id, s.number);
    if e.writable {
        if let Some(err) = s.conn.take_error()? {
            return Err(err);
        }
        s.conn.write_all(&mine)?;
        ep.modify(&s.conn, e.id, IN)?;
        return Ok(false);
    }
    let mut b = [0; 2 * MSG];
    match s.conn.read(&mut b)? {
        0 if s.answered => Ok(true),
        0 => Err(Error::other("closed without an answer")),
        MSG if b[..MSG] == mine => {
            s.answered = true;
            Ok(false)
        }
        n => Err(Error::other(format!("a foreign answer of {n} bytes"))),
    }
}
