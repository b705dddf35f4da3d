//! Between two guests on unix sockets: whatever one sends the other one gets, and it is counted on the way. A message can
//! also be put in by hand.

use super::capture::Both;
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tests::machine::LIMIT;

/// Frames between two guests: those of the first one are `sent`.
pub struct Relay {
    sums: Arc<Mutex<Both>>,
    inject: Arc<Mutex<Inject>>,
    /// The one of bess is a process.
    child: Option<Child>,
}

type Inject = Box<dyn FnMut(&[u8]) -> Result<()> + Send>;

/// std knows no SEQPACKET sockets.
const SEQPACKET: &str = "
import socket, sys, threading
def listen(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.bind(path)
    s.listen(1)
    return s
ears = [listen(p) for p in sys.argv[1:]]
print('ready', flush=True)
a, b = [e.accept()[0] for e in ears]
def copy(src, dst, way):
    while m := src.recv(70000):
        sys.stdout.write('%d %d\\n' % (way, len(m)))
        sys.stdout.flush()
        dst.send(m)
for ends in (a, b, 0), (b, a, 1):
    threading.Thread(target=copy, args=ends, daemon=True).start()
for line in sys.stdin:
    a.send(bytes.fromhex(line))
";

fn count(sums: &Mutex<Both>, way: usize, len: usize) {
    let mut sums = sums.lock().expect("lock");
    sums[way] = (sums[way].0 + 1, sums[way].1 + len as u64);
}

fn copy(
    sums: &Arc<Mutex<Both>>,
    way: usize,
    mut from: impl FnMut(&mut [u8]) -> Result<usize> + Send + 'static,
    mut to: impl FnMut(&[u8]) -> Result<()> + Send + 'static,
) {
    let sums = Arc::clone(sums);
    std::thread::spawn(move || {
        let mut buf = vec![0; 70_000];
        while let Ok(n) = from(&mut buf) {
            if n == 0 {
                break;
            }
            count(&sums, way, n);
            if to(&buf[..n]).is_err() {
                break;
            }
        }
    });
}

/// The next frame of a stream.
fn frame(s: &mut UnixStream, buf: &mut [u8]) -> Result<usize> {
    let mut len = [0; 4];
    s.read_exact(&mut len)?;
    let n = (u32::from_be_bytes(len) as usize).min(buf.len());
    s.read_exact(&mut buf[..n])?;
    Ok(n)
}

fn put(s: &mut UnixStream, frame: &[u8]) -> Result<()> {
    let len = u32::try_from(frame.len()).unwrap_or(0);
    s.write_all(&[&len.to_be_bytes()[..], frame].concat())
}

/// The switch's side of a connection to a VDE switch: where frames to and from this port go. `name` is the port's own socket.
fn vde_port(control: &UnixListener, name: &Path) -> Result<(UnixDatagram, UnixStream)> {
    let (mut c, _) = control.accept()?;
    let mut request = [0; 12 + 110];
    c.read_exact(&mut request)?;
    let path = request[14..].split(|b| *b == 0).next().unwrap_or_default();
    let port = UnixDatagram::bind(name)?;
    port.connect(PathBuf::from(String::from_utf8_lossy(path).into_owned()))?;
    let mut answer = [&[1u8, 0][..], name.as_os_str().as_encoded_bytes()].concat();
    answer.resize(110, 0);
    c.write_all(&answer)?;
    Ok((port, c))
}

impl Relay {
    fn empty() -> Self {
        let nobody: Inject = Box::new(|_| Err(std::io::ErrorKind::NotConnected.into()));
        Self { sums: Arc::default(), inject: Arc::new(Mutex::new(nobody)), child: None }
    }

    fn datagrams(sums: &Arc<Mutex<Both>>, inject: &Mutex<Inject>, a: &UnixDatagram, b: &UnixDatagram) {
        for (way, from, to) in [(0, a, b), (1, b, a)] {
            let (from, to) = (from.try_clone().expect("cloned"), to.try_clone().expect("cloned"));
            copy(sums, way, move |buf| from.recv(buf), move |m| to.send(m).map(drop));
        }
        let a = a.try_clone().expect("cloned");
        *inject.lock().expect("lock") = Box::new(move |m| a.send(m).map(drop));
    }

    /// Between two datagram sockets; gives the guests' ends.
    pub fn fd() -> (Self, UnixDatagram, UnixDatagram) {
        let this = Self::empty();
        let ((ga, a), (gb, b)) = (UnixDatagram::pair().expect("pair"), UnixDatagram::pair().expect("pair"));
        Self::datagrams(&this.sums, &this.inject, &a, &b);
        (this, ga, gb)
    }

    /// Between two guests that connect to these paths, with frames behind their length.
    pub fn stream(a: &Path, b: &Path) -> Self {
        let this = Self::empty();
        let ears = [a, b].map(|p| UnixListener::bind(p).expect("bound"));
        let (sums, inject) = (Arc::clone(&this.sums), Arc::clone(&this.inject));
        std::thread::spawn(move || {
            let [a, b] = ears.map(|e| e.accept().expect("accepted").0);
            for (way, from, to) in [(0, &a, &b), (1, &b, &a)] {
                let (mut from, mut to) = (from.try_clone().expect("cloned"), to.try_clone().expect("cloned"));
                copy(&sums, way, move |buf| frame(&mut from, buf), move |m| put(&mut to, m));
            }
            let mut a = a;
            *inject.lock().expect("lock") = Box::new(move |m| put(&mut a, m));
        });
        this
    }

    /// Between two ports of a VDE switch: directories with a control socket each.
    pub fn vde(a: &Path, b: &Path) -> Self {
        let this = Self::empty();
        let dirs = [a, b].map(Path::to_owned);
        let ears = dirs.clone().map(|d| {
            std::fs::create_dir_all(&d).expect("directory");
            UnixListener::bind(d.join("ctl")).expect("bound")
        });
        let (sums, inject) = (Arc::clone(&this.sums), Arc::clone(&this.inject));
        std::thread::spawn(move || {
            let (a, keep_a) = vde_port(&ears[0], &dirs[0].join("port")).expect("a port");
            let (b, keep_b) = vde_port(&ears[1], &dirs[1].join("port")).expect("a port");
            Self::datagrams(&sums, &inject, &a, &b);
            // A port lasts as long as its control connection.
            std::mem::forget((keep_a, keep_b));
        });
        this
    }

    /// Between two guests that connect SEQPACKET sockets to these paths.
    pub fn seqpacket(a: &Path, b: &Path) -> Self {
        let mut this = Self::empty();
        let mut cmd = Command::new("python3");
        cmd.args(["-c", SEQPACKET]).args([a, b]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = cmd.spawn().expect("python3 starts");
        let out = child.stdout.take().expect("piped");
        let mut input = child.stdin.take().expect("piped");
        let (tell, ready) = std::sync::mpsc::channel();
        let sums = Arc::clone(&this.sums);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                match line.split_once(' ').map(|(way, n)| (way.parse(), n.parse())) {
                    Some((Ok(way @ 0..=1), Ok(n))) => count(&sums, way, n),
                    _ => drop(tell.send(())),
                }
            }
        });
        println!("waiting for the relay to listen, at most {LIMIT:?}");
        ready.recv_timeout(LIMIT).expect("the relay listens");
        *this.inject.lock().expect("lock") = Box::new(move |m| {
            let digits: String = m.iter().map(|b| format!("{b:02x}")).collect();
            writeln!(input, "{digits}")
        });
        this.child = Some(child);
        this
    }

    /// What went by so far.
    pub fn sums(&self) -> Both {
        *self.sums.lock().expect("lock")
    }

    /// A message to the first guest that the second one has not sent.
    pub fn inject(&self, msg: &[u8]) {
        (self.inject.lock().expect("lock"))(msg).expect("sent");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(c) = &mut self.child {
            let _ = c.kill();
            let _ = c.wait();
        }
    }
}
