//! `transport=raw`: a packet socket on any Ethernet-like interface, with virtio-net headers where the host has them.
//!
//! One socket serves both directions: the host does not hand a packet socket what it sent itself, and what others send
//! through the interface is left out too. The qdisc is not bypassed: without it the host silently drops frames that
//! it would have to cut.

use super::common::{ethernet, ifup, needs};
use super::{Again, Kind, Lane, Plan, RxEnd, Setup, Transport, TxEnd};
use crate::vector::header::{Bare, Header};
use crate::vector::options::{IFNAME, IFUP, Options};
use crate::vector::vnet_hdr::Vnet;
use arch::host::fd::HostFd;
use arch::host::netif;
use arch::host::packet::{self, ETH_P_ALL, Insn};
use executor::irq::{RxKind, TxKind};
use net::Features;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use uapi::{Errno, Result};

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "raw",
    about: "frames of an Ethernet interface of the host, by a packet socket",
    keys: &[IFNAME, IFUP],
    parse,
};

#[derive(Debug)]
struct RawPlan {
    ifname: String,
    ifup: Option<String>,
}

fn parse(o: &Options) -> std::result::Result<Arc<dyn Plan>, String> {
    Ok(Arc::new(RawPlan { ifname: o.require("ifname", "raw")?, ifup: o.text("ifup") }))
}

impl Plan for RawPlan {
    fn open(&self, setup: &Setup) -> std::result::Result<Box<dyn Transport>, String> {
        let link = ethernet(&self.ifname)?;
        let (fd, vnet) = socket(&self.ifname)?;
        let failed = |what: &str, e: Errno| format!("ifname={}: {what}: {}", self.ifname, e.text());
        let own_filter = packet::ignore_outgoing(&fd).is_err();
        let index = AtomicU32::new(link.index);
        let this = RawTransport { ifname: self.ifname.clone(), index, fd, vnet, own_filter };
        if own_filter {
            this.set_mac(setup.mac).map_err(|e| failed("cannot filter its own frames", e))?;
        }
        this.bind(link.index).map_err(|e| failed("cannot bind to it", e))?;
        ifup(self.ifup.as_deref(), &self.ifname)?;
        Ok(Box::new(this))
    }
}

/// A packet socket that is not bound yet, and whether it has virtio-net headers.
pub fn socket(ifname: &str) -> std::result::Result<(HostFd, bool), String> {
    let fd = packet::open().map_err(|e| match e {
        Errno::EPERM | Errno::EACCES => needs(&format!("ifname={ifname}"), "CAP_NET_RAW"),
        e => format!("ifname={ifname}: this host has no packet sockets: {}", e.text()),
    })?;
    let vnet = packet::set_vnet_hdr(&fd);
    if let Err(e) = vnet {
        log::warn!(target: "vector", "{ifname}: no virtio-net headers on packet sockets: {}", e.text());
    }
    Ok((fd, vnet.is_ok()))
}

/// The header of a packet socket.
pub fn header(vnet: bool) -> Arc<dyn Header> {
    if vnet { Arc::new(Vnet) } else { Arc::new(Bare) }
}

struct RawTransport {
    ifname: String,
    /// Number of the interface that the socket is bound to.
    index: AtomicU32,
    fd: HostFd,
    vnet: bool,
    /// The host cannot leave out what is sent: a program does.
    own_filter: bool,
}

impl RawTransport {
    fn bind(&self, index: u32) -> Result<()> {
        // Frames to our address, which the interface does not have.
        packet::set_promiscuous(&self.fd, index)?;
        packet::bind(&self.fd, index, ETH_P_ALL)?;
        self.index.store(index, Ordering::Relaxed);
        Ok(())
    }
}

impl Transport for RawTransport {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn describe(&self) -> String {
        let how = if self.vnet { "using vnet headers for tso and tx/rx checksum" } else { "no vnet headers" };
        format!("raw {}: {how}", self.ifname)
    }

    fn host_ifname(&self) -> Option<&str> {
        Some(&self.ifname)
    }

    fn host_ifindex(&self) -> Option<u32> {
        Some(self.index.load(Ordering::Relaxed))
    }

    fn is_alive(&self) -> bool {
        netif::name_of(self.index.load(Ordering::Relaxed)).is_ok()
    }

    /// The socket stays, and with it what it may do: it is bound to the interface that has the name now.
    fn reopen(&self) -> std::result::Result<(), Again> {
        packet::link(&self.ifname).map_err(|_| Again::News)?;
        let now = ethernet(&self.ifname).map_err(Again::Later)?;
        self.bind(now.index).map_err(|e| Again::Later(format!("ifname={}: {}", self.ifname, e.text())))
    }

    fn lanes(&self) -> Vec<Lane> {
        let header = header(self.vnet);
        let rx = RxEnd { fd: self.fd.clone(), kind: RxKind::Recv, header: Arc::clone(&header) };
        vec![Lane { rx: Some(rx), tx: Some(TxEnd::plain(&self.fd, TxKind::Send, header)) }]
    }

    fn offload(&self) -> Features {
        if self.vnet {
            // Not LRO: frames of a wire come one by one, and merging those is for us.
            Features::HW_CSUM | Features::RXCSUM | Features::TSO4 | Features::TSO6
        } else {
            Features::empty()
        }
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        if self.own_filter { packet::attach_filter(&self.fd, &packet::not_from(mac)) } else { Ok(()) }
    }

    fn set_filter(&self, program: Option<&[Insn]>) -> Result<()> {
        match program {
            Some(p) => packet::attach_filter(&self.fd, p),
            None => {
                packet::detach_filter(&self.fd);
                Ok(())
            }
        }
    }
}
