//! Rates of 64-byte datagrams. A server at the far end counts what arrives or floods on demand; a TCP connection on the same port number
//! says when, so that loss is counted and no clock of two systems is compared.
//!
//! One system call a datagram on the side that is measured. Clocks are read once in `STRIDE` datagrams: in a guest that is a system call.

use std::io::{BufRead, BufReader, Error, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Datagrams between two looks at the clock.
const STRIDE: u64 = 32;
/// Payload of a datagram in bytes.
const SIZE: usize = 64;
/// How long the other end may take for an answer beyond the flood.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is still on its way when the flood ends gets this long.
const TAIL: Duration = Duration::from_millis(100);

/// Serves one client after the other, for ever.
pub fn server(port: u16) -> Result<()> {
    let l = TcpListener::bind(("0.0.0.0", port))?;
    let data = UdpSocket::bind(("0.0.0.0", port))?;
    println!("listening on {}", l.local_addr()?);
    loop {
        let (c, from) = l.accept()?;
        if let Err(e) = serve(c, from, &data) {
            eprintln!("nettool: client {from}: {e}");
        }
    }
}

/// `flood` means that the client floods and we count until its next line; `count PORT MS` that we flood it.
fn serve(c: TcpStream, from: SocketAddr, data: &UdpSocket) -> Result<()> {
    let mut c = Control::new(c)?;
    let line = c.line()?;
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["flood"] => {
            let over = AtomicBool::new(false);
            let n = std::thread::scope(|s| {
                let counter = s.spawn(|| count(data, &over));
                let done = c.say("go").and_then(|()| c.line());
                over.store(true, Ordering::Relaxed);
                let n = counter.join().map_err(|_| Error::other("the counter panicked"))?;
                done.and(n)
            })?;
            c.say(&n.to_string())
        }
        ["count", port, ms] => {
            let (Ok(port), Ok(ms)) = (port.parse(), ms.parse()) else { return Err(Error::other(line)) };
            let out = UdpSocket::bind("0.0.0.0:0")?;
            out.connect((from.ip(), port))?;
            let (sent, _) = flood(&out, Duration::from_millis(ms));
            c.say(&sent.to_string())
        }
        _ => Err(Error::other(format!("{line:?}: not understood"))),
    }
}

/// Floods `host` and prints the rate that arrived there.
pub fn flood_to(host: &str, port: u16, d: Duration) -> Result<()> {
    let mut c = Control::new(TcpStream::connect((host, port))?)?;
    let s = UdpSocket::bind("0.0.0.0:0")?;
    s.connect((host, port))?;
    c.say("flood")?;
    c.line()?;
    let (sent, took) = flood(&s, d);
    c.say("end")?;
    let got: u64 = c.line()?.parse().map_err(Error::other)?;
    report("udp_flood", got, sent, took);
    Ok(())
}

/// Has `host` flood us and prints the rate that arrived here.
pub fn count_from(host: &str, port: u16, d: Duration) -> Result<()> {
    let mut c = Control::new(TcpStream::connect((host, port))?)?;
    let s = UdpSocket::bind("0.0.0.0:0")?;
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let (sent, got) = std::thread::scope(|scope| {
        let counter = scope.spawn(|| count(&s, &over));
        let port = s.local_addr()?.port();
        let sent = c.say(&format!("count {port} {}", d.as_millis())).and_then(|()| c.line());
        over.store(true, Ordering::Relaxed);
        let got = counter.join().map_err(|_| Error::other("the counter panicked"))??;
        Ok::<_, Error>((sent?.parse::<u64>().map_err(Error::other)?, got))
    })?;
    if start.elapsed() < d {
        return Err(Error::other("the flood was shorter than asked for"));
    }
    report("udp_count", got, sent, d);
    Ok(())
}

fn report(name: &str, got: u64, sent: u64, d: Duration) {
    println!(
        "{name} {:.0} packets/s\n{name}_sent {:.0} packets/s",
        got as f64 / d.as_secs_f64(),
        sent as f64 / d.as_secs_f64()
    );
}

/// Sends as fast as it goes; how many datagrams left and how long it took.
fn flood(s: &UdpSocket, d: Duration) -> (u64, Duration) {
    let (start, mut sent) = (Instant::now(), 0);
    loop {
        for _ in 0..STRIDE {
            sent += u64::from(s.send(&[0x55; SIZE]).is_ok());
        }
        let took = start.elapsed();
        if took >= d {
            return (sent, took);
        }
    }
}

/// Counts datagrams until `over` is set and none comes any more.
fn count(s: &UdpSocket, over: &AtomicBool) -> Result<u64> {
    s.set_read_timeout(Some(TAIL))?;
    let (mut n, mut b, mut end) = (0, [0; 2048], None::<Instant>);
    loop {
        let got = s.recv(&mut b).is_ok();
        n += u64::from(got);
        if over.load(Ordering::Relaxed) && (!got || n % STRIDE == 0) {
            // A flood that is late ends here too.
            let end = *end.get_or_insert_with(|| Instant::now() + TAIL * 3);
            if !got || Instant::now() > end {
                return Ok(n);
            }
        }
    }
}

/// Lines there and back.
struct Control(BufReader<TcpStream>);

impl Control {
    fn new(c: TcpStream) -> Result<Self> {
        c.set_nodelay(true)?;
        c.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(c)))
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.0.get_mut().write_all(format!("{text}\n").as_bytes())
    }

    fn line(&mut self) -> Result<String> {
        let mut text = String::new();
        self.0.read_line(&mut text)?;
        if !text.ends_with('\n') {
            return Err(Error::other("the other end has gone"));
        }
        Ok(text.trim().to_owned())
    }
}

/// Counts what comes to a port, without a control connection.
pub fn rx(port: u16, d: Duration) -> Result<()> {
    let s = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)))?;
    s.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (start, mut n, mut first, mut last, mut b) =
        (Instant::now(), 0u64, None, Instant::now(), [0u8; 2048]);
    while start.elapsed() < d {
        if s.recv(&mut b).is_ok() {
            n += 1;
            last = Instant::now();
            first.get_or_insert(last);
        }
    }
    let over = first.map_or(0.0, |f| (last - f).as_secs_f64());
    println!(
        "udp_rx {:.0} packets/s\nudp_rx_total {n} packets",
        if over > 0.0 { n as f64 / over } else { 0.0 }
    );
    Ok(())
}

/// Floods a port, without a control connection.
pub fn tx(host: &str, port: u16, d: Duration) -> Result<()> {
    let s = UdpSocket::bind(if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" })?;
    s.connect((host, port))?;
    let (start, mut n, mut refused) = (Instant::now(), 0u64, 0u64);
    while start.elapsed() < d {
        match s.send(&[0u8; 64]) {
            Ok(_) => n += 1,
            Err(_) => refused += 1,
        }
    }
    println!(
        "udp_tx {:.0} packets/s\nudp_tx_refused {refused} packets",
        n as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}
