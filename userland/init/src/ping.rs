//! `ping [-c N] HOST`: ICMP echo over a datagram socket (icmp(7)), a raw one where the kernel has no such.
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: i32) {
    STOP.store(true, Relaxed);
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(b: &[u8]) -> u16 {
    let sum: u32 = b.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// A socket, and whether it is a raw one (then answers carry an IPv4 header and all pings' answers come).
fn socket(v4: bool) -> std::io::Result<(OwnedFd, bool)> {
    let (family, proto) =
        if v4 { (libc::AF_INET, libc::IPPROTO_ICMP) } else { (libc::AF_INET6, libc::IPPROTO_ICMPV6) };
    for (kind, raw) in [(libc::SOCK_DGRAM, false), (libc::SOCK_RAW, true)] {
        let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, proto) };
        if fd >= 0 {
            return Ok((unsafe { OwnedFd::from_raw_fd(fd) }, raw));
        }
    }
    Err(std::io::Error::last_os_error())
}

fn request(v4: bool, seq: u16) -> [u8; 64] {
    let mut p = [0u8; 64];
    p[0] = if v4 { 8 } else { 128 };
    p[4..6].copy_from_slice(&(std::process::id() as u16).to_be_bytes());
    p[6..8].copy_from_slice(&seq.to_be_bytes());
    for (i, b) in p[8..].iter_mut().enumerate() {
        *b = i as u8;
    }
    if v4 {
        let sum = checksum(&p);
        p[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    p
}

fn resolve(host: &str) -> Option<IpAddr> {
    host.parse().ok().or_else(|| (host, 0).to_socket_addrs().ok()?.map(|a| a.ip()).next())
}

/// Waits at most a second for the answer to `seq`.
fn answer(
    s: &std::net::UdpSocket,
    v4: bool,
    raw: bool,
    seq: u16,
    sent: Instant,
) -> Option<(usize, Duration)> {
    let mut b = [0u8; 2048];
    loop {
        let left = Duration::from_secs(1).checked_sub(sent.elapsed()).filter(|d| !d.is_zero())?;
        s.set_read_timeout(Some(left)).ok()?;
        let n = match s.recv_from(&mut b) {
            Ok((n, _)) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted && !STOP.load(Relaxed) => continue,
            Err(_) => return None,
        };
        let skip = if raw && v4 { usize::from(b[0] & 15) * 4 } else { 0 };
        let Some(m) = b.get(skip..n) else { continue };
        let ours =
            m.first() == Some(if v4 { &0 } else { &129 }) && m.get(6..8) == Some(&seq.to_be_bytes()[..]);
        if ours {
            return Some((m.len(), sent.elapsed()));
        }
    }
}

/// The command; 0 where at least one answer came.
pub fn ping(args: &[String]) -> i32 {
    let (mut count, mut host) = (4u16, None);
    let mut it = args.iter();
    while let Some(a) = it.next() {
        match a.as_str() {
            "-c" => count = it.next().and_then(|n| n.parse().ok()).unwrap_or(count),
            a => host = Some(a.to_owned()),
        }
    }
    let Some(ip) = host.as_deref().and_then(resolve) else {
        eprintln!("ping: expected a host, got {host:?}");
        return 2;
    };
    let v4 = ip.is_ipv4();
    let (fd, raw) = match socket(v4) {
        Ok(s) => s,
        Err(e) => {
            eprintln!("ping: {e}");
            return 2;
        }
    };
    STOP.store(false, Relaxed);
    // Without SA_RESTART, so that a wait ends; the prompt ignores the signal again afterwards.
    let mut sa: libc::sigaction = unsafe { std::mem::zeroed() };
    sa.sa_sigaction = stop as *const () as usize;
    unsafe { libc::sigaction(libc::SIGINT, &sa, std::ptr::null_mut()) };
    // std's UdpSocket is only used for its send_to, recv_from and time limit.
    let s = std::net::UdpSocket::from(fd);
    println!("PING {ip}");
    let (mut sent, mut times) = (0, Vec::new());
    for seq in 1..=count {
        let t = Instant::now();
        sent += 1;
        match s.send_to(&request(v4, seq), SocketAddr::new(ip, 0)) {
            Err(e) => println!("ping: {e}"),
            Ok(_) => match answer(&s, v4, raw, seq, t) {
                Some((n, d)) => {
                    times.push(d.as_secs_f64() * 1e3);
                    println!("{n} bytes from {ip}: icmp_seq={seq} time={:.3} ms", d.as_secs_f64() * 1e3);
                }
                None => println!("no answer: icmp_seq={seq}"),
            },
        }
        if STOP.load(Relaxed) {
            break;
        }
        if seq < count {
            std::thread::sleep(Duration::from_secs(1).saturating_sub(t.elapsed()));
        }
    }
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
    println!("{sent} sent, {} received, mean {mean:.3} ms", times.len());
    i32::from(times.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_a_request_verifies() {
        assert_eq!(checksum(&request(true, 7)), 0);
        assert_eq!(resolve("127.0.0.1"), Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)));
    }
}
