//! A wire with delay, loss and reordering between a tap of the host and another machine, and streams whose every byte is checked.
//!
//! The wire is one thread with a queue of frames by their time of arrival. Its far end is a socket pair that a guest kernel gets as
//! descriptor 3 (`transport=fd,fd=3`), or a tap in a network namespace of its own, in which the command then runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Longest frame.
const FRAME: usize = 65_600;
/// Frames with more bytes than this carry data.
const DATA: usize = 200;
/// Frames that come late come up to this much late.
const LATE: Duration = Duration::from_micros(300);

/// The subcommands of this file.
pub fn main(w: &[&str]) -> Result<()> {
    let n = super::number;
    match w {
        ["stream-rx", port] => stream_rx(n(port)? as u16),
        ["stream-tx", host, port, bytes, algorithm] => stream_tx(host, n(port)? as u16, n(bytes)?, algorithm),
        ["loss-relay", tap, far, delay_us, loss, loss_all, late, seed, cmd @ ..] if !cmd.is_empty() => {
            let r = Rules {
                delay: Duration::from_micros(n(delay_us)?),
                loss: n(loss)?,
                loss_all: n(loss_all)?,
                late: n(late)?,
                state: n(seed)?.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            };
            relay(tap, far, r, cmd)
        }
        _ => Err(Error::other(super::USAGE)),
    }
}

/// What the wire does to frames; `n` means one in `n`, 0 none.
struct Rules {
    delay: Duration,
    /// Loses data frames of the far end.
    loss: u64,
    /// Loses any frames.
    loss_all: u64,
    /// Lets frames come late, so that later ones overtake them.
    late: u64,
    state: u64,
}

impl Rules {
    fn random(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn once_in(&mut self, n: u64) -> bool {
        n != 0 && self.random().is_multiple_of(n)
    }

    /// When a frame that came now arrives; `None` if it is lost.
    fn judge(&mut self, from_far: bool, len: usize, now: Instant) -> Option<Instant> {
        if self.once_in(self.loss_all) || (from_far && len > DATA && self.once_in(self.loss)) {
            return None;
        }
        let late = if self.once_in(self.late) {
            LATE.mul_f64((self.random() % 1000) as f64 / 1000.0)
        } else {
            Duration::ZERO
        };
        Some(now + self.delay + late)
    }
}

fn tap(name: &str) -> Result<File> {
    let f = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    req.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    if unsafe { libc::ioctl(f.as_raw_fd(), libc::TUNSETIFF, &req) } < 0 {
        return Err(Error::last_os_error());
    }
    Ok(f)
}

/// Starts the command at the far end; gives that end as well.
fn start(far: &str, cmd: &[&str]) -> Result<(File, Child)> {
    let mut c = Command::new(cmd[0]);
    c.args(&cmd[1..]);
    if let Some(name) = far.strip_prefix("tap:") {
        let home = File::open("/proc/self/ns/net")?;
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            return Err(Error::last_os_error());
        }
        let ends = (tap(name)?, c.spawn()?);
        if unsafe { libc::setns(home.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
            return Err(Error::last_os_error());
        }
        return Ok(ends);
    }
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } < 0 {
        return Err(Error::last_os_error());
    }
    let [ours, theirs] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let room: i32 = 4 << 20;
    for fd in fds {
        let p = std::ptr::from_ref(&room).cast();
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, p, 4) };
    }
    let fd = theirs.as_raw_fd();
    let third = move || match unsafe { libc::dup2(fd, 3) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    };
    unsafe { c.pre_exec(third) };
    Ok((File::from(ours), c.spawn()?))
}

/// A frame on its way: when it arrives, which it is, to which end, its bytes.
type Flying = (Instant, u64, usize, Vec<u8>);

/// Carries frames until the command ends, and ends with its status.
fn relay(near: &str, far: &str, mut rules: Rules, cmd: &[&str]) -> Result<()> {
    let near = tap(near)?;
    let (far, mut child) = start(far, cmd)?;
    let ends = [near, far];
    let mut queue: BinaryHeap<Reverse<Flying>> = BinaryHeap::new();
    let (mut count, mut lost, mut buf) = (0u64, 0u64, vec![0; FRAME]);
    let mut looked = Instant::now();
    loop {
        let now = Instant::now();
        while queue.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, to, frame))) = queue.pop() else { break };
            // An interface that is down takes nothing; that is what a wire does, too.
            let _ = (&ends[to]).write(&frame);
        }
        if now.duration_since(looked) > Duration::from_millis(50) {
            looked = now;
            if let Some(s) = child.try_wait()? {
                eprintln!("relay_frames {count}\nrelay_lost {lost}");
                std::process::exit(s.code().unwrap_or(1));
            }
        }
        let next = queue.peek().map_or(Duration::from_millis(50), |Reverse((at, ..))| at.duration_since(now));
        let next = next.min(Duration::from_millis(50));
        let wait = libc::timespec { tv_sec: 0, tv_nsec: next.subsec_nanos().into() };
        let mut p =
            ends.each_ref().map(|f| libc::pollfd { fd: f.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        unsafe { libc::ppoll(p.as_mut_ptr(), 2, &wait, std::ptr::null()) };
        for (i, p) in p.iter().enumerate().filter(|(_, p)| p.revents & libc::POLLIN != 0) {
            let _ = p;
            let Ok(n @ 1..) = (&ends[i]).read(&mut buf) else { continue };
            count += 1;
            match rules.judge(i == 1, n, Instant::now()) {
                Some(at) => queue.push(Reverse((at, count, 1 - i, buf[..n].to_vec()))),
                None => lost += 1,
            }
        }
    }
}

/// The byte at a place of a stream.
fn word(at: u64) -> [u8; 8] {
    (at >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn fill(b: &mut [u8], from: u64) {
    for (i, w) in b.chunks_mut(8).enumerate() {
        w.copy_from_slice(&word(from + 8 * i as u64)[..w.len()]);
    }
}

/// Takes one connection to its end and checks each byte of it.
fn stream_rx(port: u16) -> Result<()> {
    let l = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    println!("listening on {port}");
    let (mut c, _) = l.accept()?;
    let (start, mut at) = (Instant::now(), 0u64);
    let (mut got, mut want) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    // What a read left of a word of eight.
    let mut held = 0;
    loop {
        let n = c.read(&mut got[held..])?;
        let whole = if n == 0 { held } else { (held + n) / 8 * 8 };
        fill(&mut want[..whole], at);
        if got[..whole] != want[..whole] {
            let i = got.iter().zip(&want).position(|(a, b)| a != b).unwrap_or(0);
            return Err(Error::other(format!("byte {} is wrong", at + i as u64)));
        }
        got.copy_within(whole..held + n, 0);
        (at, held) = (at + whole as u64, held + n - whole);
        if n == 0 {
            break;
        }
    }
    let s = start.elapsed().as_secs_f64();
    println!("stream_bytes {at}\nstream_seconds {s:.1}\nstream_rate {:.1} Mbit/s", at as f64 * 8e-6 / s);
    Ok(())
}

/// Sends `total` bytes with a congestion control (`-`: the default), and waits until the peer has closed too.
fn stream_tx(host: &str, port: u16, total: u64, algorithm: &str) -> Result<()> {
    let mut c = TcpStream::connect((host, port))?;
    if algorithm != "-" {
        let (p, len) = (algorithm.as_ptr().cast(), algorithm.len() as u32);
        if unsafe { libc::setsockopt(c.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, p, len) } < 0 {
            return Err(Error::last_os_error());
        }
    }
    let (mut at, mut b) = (0, vec![0; 1 << 18]);
    while at < total {
        let n = (total - at).min(b.len() as u64) as usize;
        fill(&mut b[..n], at);
        c.write_all(&b[..n])?;
        at += n as u64;
    }
    c.shutdown(std::net::Shutdown::Write)?;
    if c.read(&mut b)? != 0 {
        return Err(Error::other("the peer says something"));
    }
    println!("stream_sent {at}");
    Ok(())
}
