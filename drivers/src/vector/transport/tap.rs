//! `transport=tap`: one tap device, virtio-net headers, checksums and TCP segments left to the host.

use super::common::ifup;
use super::{Kind, Lane, Plan, RxEnd, Setup, Transport, TxEnd};
use crate::vector::header::{Bare, Header};
use crate::vector::options::{IFNAME, IFUP, Options};
use crate::vector::vnet_hdr::{VNET_HDR_LEN, Vnet};
use arch::host::fd::HostFd;
use arch::host::tap::{self, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, Tap, TapStep};
use executor::irq::{RxKind, TxKind};
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
    keys: &[IFNAME, IFUP],
    parse,
};

#[derive(Debug)]
struct TapPlan {
    ifname: Option<String>,
    ifup: Option<String>,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    Ok(Arc::new(TapPlan { ifname: o.text("ifname"), ifup: o.text("ifup") }))
}

impl Plan for TapPlan {
    fn open(&self, _setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let tap = take(self.ifname.as_deref())?;
        ifup(self.ifup.as_deref(), &tap.name)?;
        Ok(Box::new(OpenTap { kind: "tap", tap, vnet: true }))
    }
}

/// An open tap.
pub struct OpenTap {
    kind: &'static str,
    tap: Tap,
    vnet: bool,
}

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
            tap::set_offload(&fd, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
                .map_err(|e| format!("cannot switch checksum and TSO offload on: {}", e.text()))?;
        }
        Ok(Box::new(Self { kind, tap: Tap { fd, name }, vnet }))
    }
}

/// Takes the tap `ifname`, or makes one.
pub fn take(ifname: Option<&str>) -> Result<Tap, String> {
    let header = i32::try_from(VNET_HDR_LEN).map_err(|_| "header size".to_owned())?;
    let name = ifname.unwrap_or("tap%d");
    let until = Instant::now() + BUSY_WAIT;
    loop {
        match tap::open(name, header, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) {
            Ok(tap) => return Ok(tap),
            Err((TapStep::SetIff, Errno::EBUSY)) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err((step, e)) => return Err(explain(ifname, step, e)),
        }
    }
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
        (TapStep::SetIff, Errno::EINVAL) => format!(
            "{what}: the interface exists and is not a plain tap (a tun, a multi-queue tap, or no tap at all)"
        ),
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
        format!("{} {}: {how}", self.kind, self.tap.name)
    }

    fn host_ifname(&self) -> Option<&str> {
        Some(&self.tap.name)
    }

    fn lanes(&self) -> Vec<Lane> {
        let header: Arc<dyn Header> = if self.vnet { Arc::new(Vnet) } else { Arc::new(Bare) };
        let rx = RxEnd { fd: self.tap.fd.clone(), kind: RxKind::Read, header: Arc::clone(&header) };
        vec![Lane { rx: Some(rx), tx: Some(TxEnd::plain(&self.tap.fd, TxKind::Write, header)) }]
    }

    fn offload(&self) -> Features {
        if self.vnet {
            Features::HW_CSUM | Features::RXCSUM | Features::TSO4 | Features::TSO6 | Features::LRO
        } else {
            Features::empty()
        }
    }

    fn set_offload(&self, on: Features) {
        if self.vnet
            && let Err(e) = tap::set_offload(&self.tap.fd, tun_bits(on))
        {
            log::warn!(target: "vector", "{}: cannot switch offloads: {}", self.tap.name, e.text());
        }
    }
}
