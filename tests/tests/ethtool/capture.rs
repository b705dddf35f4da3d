//! Counting frames without the guest: tcpdump on an interface of the host, and files of `pcap=`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tests::machine::LIMIT;

/// Frames and their bytes.
pub type Sum = (u64, u64);
/// Sent by the guest, and received.
pub type Both = [Sum; 2];

/// A packet of a capture file: its bytes as far as they are there, and its length on the wire.
fn packets(file: &[u8]) -> Vec<(&[u8], u64)> {
    let word = |at: usize| file.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let (mut at, mut all) = (24, Vec::new());
    while let (Some(len), Some(full)) = (word(at + 8), word(at + 12)) {
        // The last one may be half written.
        let Some(bytes) = file.get(at + 16..at + 16 + len as usize) else { break };
        all.push((bytes, u64::from(full)));
        at += 16 + len as usize;
    }
    all
}

fn add(sums: &mut Both, sent: bool, bytes: u64) {
    let side = &mut sums[usize::from(!sent)];
    *side = (side.0 + 1, side.1 + bytes);
}

/// What a file says of the frames to and from `mac`.
pub fn frames(file: &Path, mac: [u8; 6]) -> Both {
    let file = std::fs::read(file).unwrap_or_default();
    let mut sums = Both::default();
    for (bytes, len) in packets(&file) {
        add(&mut sums, bytes.get(6..12) == Some(&mac[..]), len);
    }
    sums
}

/// Outer packets of one tunnel.
#[derive(Clone, Copy)]
pub struct Outer {
    /// IP protocol.
    pub proto: u8,
    /// UDP port to which the guest sends, 0 for any.
    pub port: u16,
    /// Bytes between the IP (and UDP) header and the frame.
    pub header: u64,
}

/// What a file says of the frames in a tunnel's packets over IPv4; `guest` is its end.
pub fn tunnelled(file: &Path, outer: Outer, guest: [u8; 4]) -> Both {
    let file = std::fs::read(file).unwrap_or_default();
    let mut sums = Both::default();
    for (p, _) in packets(&file) {
        let be16 = |at: usize| p.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        if be16(12) != 0x0800 || p.get(23) != Some(&outer.proto) {
            continue;
        }
        let sent = p.get(26..30) == Some(&guest[..]);
        let udp = if outer.proto == 17 { 8 } else { 0 };
        // Towards the guest the ports are its own, which for some kinds is another one.
        if outer.port != 0 && sent && be16(36) != outer.port {
            continue;
        }
        if outer.port != 0 && !sent && be16(34) != outer.port && be16(36) != outer.port {
            continue;
        }
        add(&mut sums, sent, u64::from(be16(16)) - 20 - udp - outer.header);
    }
    sums
}

/// A running tcpdump; ended when dropped.
pub struct Tcpdump {
    child: Child,
    /// What it writes.
    pub file: PathBuf,
}

impl Tcpdump {
    /// Listens on an interface; `before` are words in front of the command. `None` where there is no tcpdump.
    pub fn start(before: &[String], ifname: &str, dir: &Path) -> Option<Self> {
        let file = dir.join(format!("{ifname}.pcap"));
        let mut words = before.to_vec();
        words.extend(
            ["tcpdump", "-n", "-U", "--immediate-mode", "-B", "16384", "-Z", "root"].map(str::to_owned),
        );
        words.extend(["-s", "96", "-i", ifname, "-w"].map(str::to_owned));
        words.push(file.display().to_string());
        let mut cmd = Command::new(&words[0]);
        cmd.args(&words[1..]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        cmd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match cmd.spawn() {
            Ok(c) => c,
            Err(e) => {
                println!("skipped: no tcpdump: {e}");
                return None;
            }
        };
        println!("waiting for tcpdump to listen on {ifname}, at most {LIMIT:?}");
        let err = child.stderr.take().expect("piped");
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        loop {
            let line = told.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("tcpdump on {ifname}: {e}"));
            if line.contains("listening on") {
                break;
            }
        }
        Some(Self { child, file })
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
