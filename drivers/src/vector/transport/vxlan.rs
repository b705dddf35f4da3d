//! `transport=vxlan` and `transport=vxlan-gpe`: one segment to one peer, as Linux's vxlan devices speak the first.

use super::tunnel::{DST, DSTPORT, Ends, Ports, RX_VNI, SRC, SRCPORT, TX_VNI, Tunnel, V6, VNI};
use super::{Kind, Plan, Setup, Transport};
use crate::vector::encap::{Nsh, Vxlan, VxlanGpe};
use crate::vector::header::Header;
use crate::vector::options::{DF, Key, Options, TOS, TTL, Type};
use std::sync::Arc;

/// `localport=`.
pub const LOCALPORT: Key = Key::new(
    "localport",
    Type::Number { min: 1, max: 65535 },
    "UDP port frames come to; as dstport if absent",
);

/// VXLAN on the command line.
pub static KIND: Kind = Kind {
    name: "vxlan",
    about: "Ethernet over VXLAN over UDP",
    keys: &[SRC, DST, V6, DSTPORT.default("4789"), SRCPORT, LOCALPORT, VNI, RX_VNI, TX_VNI, TTL, TOS, DF],
    parse: parse_vxlan,
};

/// VXLAN-GPE on the command line.
pub static GPE_KIND: Kind = Kind {
    name: "vxlan-gpe",
    about: "Ethernet over VXLAN-GPE, with or without a service path (NSH)",
    keys: &[
        SRC,
        DST,
        V6,
        DSTPORT.default("4790"),
        SRCPORT,
        LOCALPORT,
        VNI,
        RX_VNI,
        TX_VNI,
        Key::new("nsh_path", Type::Integer { bits: 24 }, "service path of frames sent").alias(&["spi"]),
        Key::new("nsh_index", Type::Number { min: 0, max: 255 }, "service index of frames sent; 255")
            .alias(&["si"]),
        TTL,
        TOS,
        DF,
    ],
    parse: parse_gpe,
};

/// A segment to one peer: what VXLAN, VXLAN-GPE and Geneve have in common.
#[derive(Debug)]
pub struct Segment {
    ends: Ends,
    ports: Ports,
    /// Key of the port that frames come to.
    port: &'static str,
    /// (expected, sent).
    pub vni: (u32, u32),
}

impl Segment {
    /// Reads addresses, ports and identifiers.
    pub fn parse(o: &Options, transport: &'static str) -> Result<Self, String> {
        let ends = Ends::parse(o, transport, false)?;
        let port = |name| o.number(name).and_then(|n| u16::try_from(n).ok());
        let dst = port("dstport").unwrap_or(0);
        let own = port("localport").unwrap_or(dst);
        let ports = port("srcport").map_or(Ports::ByFlow(own, dst), |from| Ports::From(own, dst, from));
        let (rx, tx) = o.pair("vni")?.ok_or_else(|| {
            format!(
                "transport={transport}: vni= is missing; expected a network identifier from 0 to 0xffffff"
            )
        })?;
        let name = if o.given("localport") { "localport" } else { "dstport" };
        Ok(Self { ends, ports, port: name, vni: (rx as u32, tx as u32) })
    }

    /// Opens the sockets.
    pub fn open(
        &self,
        setup: &Setup,
        header: Arc<dyn Header>,
        more: &str,
    ) -> Result<Box<dyn Transport>, String> {
        let (rx, tx) = self.vni;
        let about = if rx == tx { format!("vni {rx}{more}") } else { format!("vni {rx}/{tx}{more}") };
        Ok(Box::new(Tunnel::udp(&self.ends, setup, self.ports, self.port, header, &about)?))
    }
}

#[derive(Debug)]
struct VxlanPlan {
    segment: Segment,
    gpe: bool,
    nsh: Option<Nsh>,
}

fn parse_vxlan(o: &Options) -> Result<Arc<dyn Plan>, String> {
    let segment = Segment::parse(o, KIND.name)?;
    Ok(Arc::new(VxlanPlan { segment, gpe: false, nsh: None }))
}

fn parse_gpe(o: &Options) -> Result<Arc<dyn Plan>, String> {
    let segment = Segment::parse(o, GPE_KIND.name)?;
    let index = o.number("nsh_index").and_then(|n| u8::try_from(n).ok());
    let nsh = match (o.u32("nsh_path"), index) {
        (Some(path), index) => Some(Nsh { path, index: index.unwrap_or(255) }),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(format!(
                "{}: an index on no path; expected nsh_path= as well",
                o.written("nsh_index")
            ));
        }
    };
    Ok(Arc::new(VxlanPlan { segment, gpe: true, nsh }))
}

impl Plan for VxlanPlan {
    fn open(&self, setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let (rx_vni, tx_vni) = self.segment.vni;
        if !self.gpe {
            return self.segment.open(setup, Arc::new(Vxlan { rx_vni, tx_vni }), "");
        }
        let more =
            self.nsh.map_or_else(String::new, |n| format!(", service path {} index {}", n.path, n.index));
        self.segment.open(setup, Arc::new(VxlanGpe { rx_vni, tx_vni, nsh: self.nsh }), &more)
    }
}
