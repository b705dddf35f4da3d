//! `transport=hybrid`: a tap to write to, and a packet socket on the same interface to read from. The socket sees what
//! was written as well, so a program drops whatever has our own address as its source (bridges behind the guest need
//! `tap` or a program of their own, `bpffile=`).

use super::common::{ethernet, ifup};
use super::{Again, Kind, Lane, Plan, RxEnd, Setup, Transport, TxEnd, raw, tap};
use crate::vector::config::Mac;
use crate::vector::options::{IFNAME, IFUP, Options};
use crate::vector::vnet_hdr::Vnet;
use arch::host::fd::HostFd;
use arch::host::netif;
use arch::host::packet::{self, ETH_P_ALL, Insn};
use executor::irq::{RxKind, TxKind};
use klib::sync::Mutex;
use net::Features;
use std::sync::Arc;
use uapi::Result;

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "hybrid",
    about: "writes to a tap, reads by a packet socket on it",
    keys: &[IFNAME, IFUP],
    parse,
};

#[derive(Debug)]
struct HybridPlan {
    ifname: String,
    ifup: Option<String>,
}

fn parse(o: &Options) -> std::result::Result<Arc<dyn Plan>, String> {
    Ok(Arc::new(HybridPlan { ifname: o.require("ifname", "hybrid")?, ifup: o.text("ifup") }))
}

impl Plan for HybridPlan {
    fn open(&self, setup: &Setup) -> std::result::Result<Box<dyn Transport>, String> {
        // First what needs the rarer right, so that no tap is made in vain.
        let (fd, vnet) = raw::socket(&self.ifname)?;
        let (tap, _) = tap::take(Some(&self.ifname), false)?;
        let link = ethernet(&self.ifname)?;
        let own = Mutex::new((setup.mac, true));
        let state = Mutex::new((tap.fd, link.index));
        let this = HybridTransport { name: tap.name, state, fd, vnet, own };
        let failed = |e: uapi::Errno| format!("ifname={}: cannot read from it: {}", self.ifname, e.text());
        this.set_filter(None).map_err(failed)?;
        packet::bind(&this.fd, link.index, ETH_P_ALL).map_err(failed)?;
        ifup(self.ifup.as_deref(), &this.name)?;
        Ok(Box::new(this))
    }
}

struct HybridTransport {
    name: String,
    /// The tap, and the number of its interface.
    state: Mutex<(HostFd, u32)>,
    fd: HostFd,
    /// The socket has virtio-net headers; the tap always does.
    vnet: bool,
    /// Our address, and whether the program that drops it is attached.
    own: Mutex<(Mac, bool)>,
}

impl Transport for HybridTransport {
    fn name(&self) -> &'static str {
        "hybrid"
    }

    fn describe(&self) -> String {
        let how = if self.vnet { "tso and tx/rx checksum" } else { "tso and tx checksum" };
        format!("tap/raw hybrid {}: using vnet headers for {how}", self.name)
    }

    fn host_ifname(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn host_ifindex(&self) -> Option<u32> {
        Some(self.state.lock().1)
    }

    fn is_alive(&self) -> bool {
        let state = self.state.lock();
        tap::is_alive(&state.0) && netif::name_of(state.1).is_ok()
    }

    fn reopen(&self) -> std::result::Result<(), Again> {
        if self.is_alive() {
            return Ok(());
        }
        let (tap, index, _) = tap::retake(&self.name, tap::ALL_BITS, false)?;
        packet::bind(&self.fd, index, ETH_P_ALL).map_err(|e| Again::Later(e.text().to_owned()))?;
        *self.state.lock() = (tap, index);
        Ok(())
    }

    fn lanes(&self) -> Vec<Lane> {
        let rx = RxEnd { fd: self.fd.clone(), kind: RxKind::Recv, header: raw::header(self.vnet) };
        let tx = TxEnd::plain(&self.state.lock().0, TxKind::Write, Arc::new(Vnet));
        vec![Lane { rx: Some(rx), tx: Some(tx) }]
    }

    fn offload(&self) -> Features {
        let tx = Features::HW_CSUM | Features::TSO4 | Features::TSO6;
        if self.vnet { tx | Features::RXCSUM | Features::LRO } else { tx }
    }

    fn set_mac(&self, mac: Mac) -> Result<()> {
        let mut own = self.own.lock();
        own.0 = mac;
        if own.1 { packet::attach_filter(&self.fd, &packet::not_from(mac)) } else { Ok(()) }
    }

    fn set_filter(&self, program: Option<&[Insn]>) -> Result<()> {
        let mut own = self.own.lock();
        match program {
            Some(p) => packet::attach_filter(&self.fd, p)?,
            None => packet::attach_filter(&self.fd, &packet::not_from(own.0))?,
        }
        own.1 = program.is_none();
        Ok(())
    }
}
