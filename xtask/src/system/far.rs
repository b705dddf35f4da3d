//! The far end of a measurement: the servers that a system under test talks to, and the way that leads there.
//!
//! The host's kernel often has no tunnel devices but those of VXLAN, and the far end must be the same for all. So the end of a tunnel is a
//! tap in a namespace of its own with `nettool relay` between it and the tunnel's socket; the host's TCP stands behind the tap.

use super::uml::{GUEST, HOST};
use crate::cpu::Meter;
use crate::ns::{Peer, Tap};
use crate::sh::Cmd;
use anyhow::{Context, Result, bail};
use std::process::{Child, Stdio};
use std::time::Duration;

/// How a system reaches the far end.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Way {
    /// By a network that the system makes itself; the servers stand in our own namespace.
    Own,
    /// `tap0` in our own namespace, where the servers stand.
    Tap,
    /// `vr0`, one end of a veth pair; the servers stand at the other.
    Veth,
    /// A tunnel from [`NEAR`] to [`FAR`] over a veth pair.
    Tunnel(Tunnel),
}

/// A tunnel in the words of `nettool relay`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tunnel {
    /// `udp:PORT` or `ip:PROTOCOL`.
    pub kind: &'static str,
    /// What stands before each frame, in hexadecimal.
    pub header: &'static str,
}

/// Our end of a tunnel.
pub const NEAR: &str = "10.9.0.1";
/// Its far end.
pub const FAR: &str = "10.9.0.2";
/// MTU of the way below a tunnel: frames of 1500 bytes with any header fit.
const UNDERLAY: &str = "1600";
/// Super-frames of the host's TCP: as many segments of a 1500-byte network as fit into one UDP_SEGMENT train.
const GSO_MAX: &str = "60900";

/// Servers and their network, for as long as this lives.
pub struct Far {
    procs: Vec<Child>,
    peer: Option<Peer>,
    _tap: Option<Tap>,
}

impl Far {
    /// Makes the way and starts the servers: iperf3, `nettool rr-server` at 5202, `nettool udp-server` at 5203.
    pub fn start(way: Way, meter: &Meter) -> Result<Self> {
        let mut far = Self { procs: Vec::new(), peer: None, _tap: None };
        match way {
            Way::Own => {}
            Way::Tap => far._tap = Some(Tap::new("tap0", HOST)?),
            Way::Veth => {
                let peer = Peer::new("vr0", "10.0.2.9", HOST)?;
                // Whoever attaches to this end is the only one there.
                Cmd::line("ip addr flush dev vr0").read()?;
                Cmd::line("ip link set vr0 promisc on").read()?;
                far.peer = Some(peer);
            }
            Way::Tunnel(t) => {
                let peer = Peer::new("vt0", NEAR, FAR)?;
                Cmd::line("ip link set vt0 mtu").arg(UNDERLAY).read()?;
                for c in [
                    format!("ip link set eth0 mtu {UNDERLAY}"),
                    "ip tuntap add dev tun0 mode tap vnet_hdr".to_owned(),
                    format!("ip addr add {HOST}/24 dev tun0"),
                    format!("ip link set tun0 gso_max_size {GSO_MAX}"),
                    "ip link set tun0 up".to_owned(),
                ] {
                    Cmd::new(peer.enter()).args(c.split_whitespace()).read()?;
                }
                far.peer = Some(peer);
                far.spawn(meter, &relay("tun0", t, FAR, NEAR))?;
            }
        }
        let nettool = crate::paths::guest_bin("nettool").display().to_string();
        for words in ["iperf3 -s", "NETTOOL rr-server 5202", "NETTOOL udp-server 5203"] {
            let words: Vec<String> = words.split(' ').map(|w| w.replace("NETTOOL", &nettool)).collect();
            far.spawn(meter, &words)?;
        }
        std::thread::sleep(Duration::from_millis(200));
        far.alive()?;
        Ok(far)
    }

    fn spawn(&mut self, meter: &Meter, words: &[String]) -> Result<()> {
        let enter = self.peer.as_ref().map(Peer::enter).unwrap_or_default();
        self.procs.push(start(meter.prefix().into_iter().chain(enter), words)?);
        Ok(())
    }

    /// An error if one of its programs has ended.
    pub fn alive(&mut self) -> Result<()> {
        for p in &mut self.procs {
            if let Some(status) = p.try_wait()? {
                bail!("a program of the far end has ended: {status}");
            }
        }
        Ok(())
    }

    /// CPU seconds of its programs so far.
    pub fn cpu(&self) -> f64 {
        self.procs.iter().map(|p| crate::cpu::of_process(p.id())).sum()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        for p in &mut self.procs {
            end(p);
        }
    }
}

fn start(prefix: impl Iterator<Item = String>, words: &[String]) -> Result<Child> {
    let mut cmd = Cmd::new(prefix.chain(words.iter().cloned())).into_inner();
    cmd.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).stdout(Stdio::null());
    cmd.spawn().context("cannot start the far end")
}

fn end(p: &mut Child) {
    let _ = p.kill();
    let _ = p.wait();
}

fn relay(tap: &str, t: Tunnel, local: &str, peer: &str) -> Vec<String> {
    let nettool = crate::paths::guest_bin("nettool").display().to_string();
    [&nettool, "relay", tap, t.kind, local, peer, t.header].map(str::to_owned).to_vec()
}

/// A relay at our own end too: the host's TCP here and there, to see what the far end of a tunnel can do.
pub struct Near {
    relay: Child,
    _tap: Tap,
}

impl Near {
    /// Makes a tap with the guest's address behind our end of the tunnel.
    pub fn start(t: Tunnel, meter: &Meter) -> Result<Self> {
        let tap = Tap::new("tn0", GUEST)?;
        Cmd::line(&format!("ip link set tn0 gso_max_size {GSO_MAX}")).read()?;
        let relay = start(meter.prefix().into_iter(), &relay("tn0", t, NEAR, FAR))?;
        Ok(Self { relay, _tap: tap })
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        end(&mut self.relay);
    }
}
