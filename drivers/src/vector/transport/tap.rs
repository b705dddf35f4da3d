//! `transport=tap`: one tap device, virtio-net headers, checksums and TCP segments left to the host. A tap that was made for it
//! has a descriptor for each queue; the host learns from what it gets by which queue a flow's frames come back.

use super::common::ifup;
use super::{Again, Kind, Lane, Plan, RxEnd, Setup, Transport, TxEnd};
use crate::vector::header::{Bare, Header};
use crate::vector::options::{IFNAME, IFUP, Options, QUEUES};
use crate::vector::vnet_hdr::{VNET_HDR_LEN, Vnet};
use arch::host::fd::HostFd;
use arch::host::packet::link;
use arch::host::tap::{self, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, Tap, TapStep};
use executor::irq::{RxKind, TxKind};
use klib::sync::Mutex;
use net::Features;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uapi::Errno;

/// After its last user has gone the host keeps a tap busy for a moment, while a ring lets go of it.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "tap",
    about: "a tap device of the host, with virtio-net headers; a new one if ifname is absent",
    keys: &[IFNAME, IFUP, QUEUES],
    parse,
};

#[derive(Debug)]
struct TapPlan {
    ifname: Option<String>,
    ifup: Option<String>,
    queues: Option<usize>,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    let queues = o.number("queues").and_then(|n| usize::try_from(n).ok());
    Ok(Arc::new(TapPlan { ifname: o.text("ifname"), ifup: o.text("ifup"), queues }))
}

impl Plan for TapPlan {
    fn open(&self, setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let want = self.queues.unwrap_or(setup.cpus);
        let (tap, multi) = take(self.ifname.as_deref(), want > 1)?;
        let name = tap.name;
        let index = link(&name).ok().map(|l| l.index);
        let mut state = State { fds: vec![tap.fd], index, bits: ALL_BITS, multi };
        if multi && let Err((step, e)) = state.resize(&name, want) {
            // So many the host does not lend.
            log::warn!(target: "vector", "{}", explain(Some(&name), step, e));
        }
        ifup(self.ifup.as_deref(), &name)?;
        let state = Mutex::new(state);
        let max = want.max(setup.cpus);
        Ok(Box::new(OpenTap { kind: "tap", name, vnet: true, named: true, max, state }))
    }
}

/// An open tap.
pub struct OpenTap {
    kind: &'static str,
    name: String,
    vnet: bool,
    /// It can be taken again by its name.
    named: bool,
    /// Most queues, if it can have several.
    max: usize,
    state: Mutex<State>,
}

struct State {
    /// One a queue, at least one.
    fds: Vec<HostFd>,
    /// Number of the interface.
    index: Option<u32>,
    /// TUN_F_ bits that are on.
    bits: u32,
    /// It was made for several queues.
    multi: bool,
}

impl State {
    /// So many queues; at an error as many as there could be.
    fn resize(&mut self, name: &str, n: usize) -> Result<(), (TapStep, Errno)> {
        self.fds.truncate(n.max(1));
        while self.fds.len() < n {
            let tap = tap::open(name, VNET_HDR_LEN as i32, self.bits, true)?;
            self.fds.push(tap.fd);
        }
        Ok(())
    }

    fn fd(&self) -> Option<&HostFd> {
        self.fds.first()
    }
}

/// Everything that the host can do.
pub const ALL_BITS: u32 = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

/// TUN_F_ bits for what is on.
fn tun_bits(on: Features) -> u32 {
    // Without checksums there are no super-frames either.
    if !on.contains(Features::RXCSUM) {
        return 0;
    }
    if on.contains(Features::LRO) { TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 } else { TUN_F_CSUM }
}

impl OpenTap {
    /// A tap that somebody else opened.
    pub fn adopt(
        kind: &'static str,
        fd: HostFd,
        name: String,
        vnet: bool,
    ) -> Result<Box<dyn Transport>, String> {
        if vnet {
            let header = i32::try_from(VNET_HDR_LEN).map_err(|_| "header size".to_owned())?;
            tap::set_header(&fd, header)
                .map_err(|e| format!("cannot set the size of virtio-net headers: {}", e.text()))?;
            tap::set_offload(&fd, ALL_BITS)
                .map_err(|e| format!("cannot switch checksum and TSO offload on: {}", e.text()))?;
        }
        // It may live in another network namespace: there is no name here that could be asked for its number.
        let state = Mutex::new(State { fds: vec![fd], index: None, bits: ALL_BITS, multi: false });
        Ok(Box::new(Self { kind, name, vnet, named: false, max: 1, state }))
    }
}

/// Takes the tap `ifname`, or makes one, for several queues if that is wanted and possible; true if it has been made for them.
pub fn take(ifname: Option<&str>, multi: bool) -> Result<(Tap, bool), String> {
    let name = ifname.unwrap_or("tap%d");
    let until = Instant::now() + BUSY_WAIT;
    loop {
        match open(name, ALL_BITS, multi) {
            Ok(tap) => return Ok(tap),
            Err((TapStep::SetIff, Errno::EBUSY)) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err((step, e)) => return Err(explain(ifname, step, e)),
        }
    }
}

/// As it was made, if there is one: the host refuses the other kind.
fn open(name: &str, bits: u32, multi: bool) -> Result<(Tap, bool), (TapStep, Errno)> {
    let of = |multi| tap::open(name, VNET_HDR_LEN as i32, bits, multi).map(|t| (t, multi));
    match of(multi) {
        Err((TapStep::SetIff, Errno::EINVAL)) => of(!multi),
        r => r,
    }
}

/// Takes a tap again that was deleted, once there is one of its name; with its number, and whether it is for several
/// queues.
pub fn retake(name: &str, bits: u32, multi: bool) -> Result<(HostFd, u32, bool), Again> {
    // A look first: the host makes a tap of its own for whoever may.
    let now = link(name).map_err(|_| Again::News)?;
    match open(name, bits, multi) {
        Ok((tap, multi)) => Ok((tap.fd, now.index, multi)),
        Err((step, e)) => Err(Again::Later(explain(Some(name), step, e))),
    }
}

/// False if the interface of a tap's descriptor was deleted.
pub fn is_alive(fd: &HostFd) -> bool {
    tap::inspect(fd).is_ok()
}

/// The line a user can act on.
fn explain(ifname: Option<&str>, step: TapStep, e: Errno) -> String {
    let what = ifname.map_or_else(|| "transport=tap".to_owned(), |n| format!("ifname={n}"));
    let name = ifname.unwrap_or("tap0");
    match (step, e) {
        (TapStep::Open, Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            format!(
                "{what}: this host has no /dev/net/tun; load the module tun, or give the container the device"
            )
        }
        (TapStep::Open, Errno::EACCES | Errno::EPERM) => {
            format!("{what}: /dev/net/tun may not be opened for reading and writing by this user")
        }
        (TapStep::Open, e) => format!("{what}: cannot open /dev/net/tun: {}", e.text()),
        (TapStep::Features, _) => {
            format!("{what}: taps of this host have no virtio-net headers (IFF_VNET_HDR)")
        }
        (TapStep::SetIff, Errno::EPERM | Errno::EACCES) => format!(
            "{what}: not permitted: needs CAP_NET_ADMIN, or a tap that root has made for this user with \
             'ip tuntap add {name} mode tap user NAME vnet_hdr'"
        ),
        (TapStep::SetIff, Errno::EBUSY) => format!("{what}: the tap is in use by another process"),
        (TapStep::SetIff, Errno::EINVAL) => {
            format!("{what}: the interface exists and is not a plain tap (a tun, or no tap at all)")
        }
        (TapStep::SetIff, e) => format!("{what}: cannot take the tap: {}", e.text()),
        (TapStep::HeaderSize, e) => {
            format!("{what}: cannot set the size of virtio-net headers: {}", e.text())
        }
        (TapStep::Offload, e) => format!("{what}: cannot switch checksum and TSO offload on: {}", e.text()),
    }
}

impl Transport for OpenTap {
    fn name(&self) -> &'static str {
        self.kind
    }

    fn describe(&self) -> String {
        let how = if self.vnet { "using vnet headers for tso and tx/rx checksum" } else { "no vnet headers" };
        let state = self.state.lock();
        let queues = match state.fds.len() {
            1 if self.max > 1 && !state.multi => {
                ", one queue: the tap was made without multi_queue".to_owned()
            }
            1 => String::new(),
            n => format!(", {n} queues"),
        };
        format!("{} {}: {how}{queues}", self.kind, self.name)
    }

    fn host_ifname(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn host_ifindex(&self) -> Option<u32> {
        self.state.lock().index
    }

    fn is_alive(&self) -> bool {
        self.state.lock().fd().is_some_and(is_alive)
    }

    fn reopen(&self) -> Result<(), Again> {
        if !self.named {
            return Err(Again::Never);
        }
        if self.is_alive() {
            return Ok(());
        }
        let (bits, n) = {
            let state = self.state.lock();
            (state.bits, state.fds.len())
        };
        let (fd, index, multi) = retake(&self.name, bits, self.max > 1)?;
        let mut new = State { fds: vec![fd], index: Some(index), bits, multi };
        if multi {
            new.resize(&self.name, n)
                .map_err(|(step, e)| Again::Later(explain(Some(&self.name), step, e)))?;
        }
        *self.state.lock() = new;
        Ok(())
    }

    fn lanes(&self) -> Vec<Lane> {
        let header: Arc<dyn Header> = if self.vnet { Arc::new(Vnet) } else { Arc::new(Bare) };
        let lane = |fd: &HostFd| {
            let rx = RxEnd { fd: fd.clone(), kind: RxKind::Read, header: Arc::clone(&header) };
            Lane { rx: Some(rx), tx: Some(TxEnd::plain(fd, TxKind::Write, Arc::clone(&header))) }
        };
        self.state.lock().fds.iter().map(lane).collect()
    }

    fn max_lanes(&self) -> usize {
        if self.state.lock().multi { self.max } else { 1 }
    }

    fn set_lanes(&self, n: usize) -> uapi::Result<()> {
        if !(1..=self.max_lanes()).contains(&n) {
            return Err(Errno::EINVAL);
        }
        self.state.lock().resize(&self.name, n).map_err(|(_, e)| e)
    }

    fn offload(&self) -> Features {
        if self.vnet {
            Features::HW_CSUM | Features::RXCSUM | Features::TSO4 | Features::TSO6 | Features::LRO
        } else {
            Features::empty()
        }
    }

    fn set_offload(&self, on: Features) {
        if !self.vnet {
            return;
        }
        let mut state = self.state.lock();
        state.bits = tun_bits(on);
        let Some(fd) = state.fds.first() else { return };
        match tap::set_offload(fd, state.bits) {
            // EBADFD: the interface is gone; when it is back it will be told.
            Ok(()) | Err(Errno::EBADFD) => {}
            Err(e) => log::warn!(target: "vector", "{}: cannot switch offloads: {}", self.name, e.text()),
        }
    }
}
