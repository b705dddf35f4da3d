//! `transport=geneve`: one segment to one peer, as Linux's geneve devices speak it.

use super::tunnel::{DST, DSTPORT, RX_VNI, SRC, SRCPORT, TX_VNI, V6, VNI};
use super::vxlan::{LOCALPORT, Segment};
use super::{Kind, Plan, Setup, Transport};
use crate::vector::encap::Geneve;
use crate::vector::options::{DF, Options, TOS, TTL};
use std::sync::Arc;

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "geneve",
    about: "Ethernet over Geneve over UDP",
    keys: &[SRC, DST, V6, DSTPORT.default("6081"), SRCPORT, LOCALPORT, VNI, RX_VNI, TX_VNI, TTL, TOS, DF],
    parse,
};

#[derive(Debug)]
struct GenevePlan(Segment);

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    Ok(Arc::new(GenevePlan(Segment::parse(o, KIND.name)?)))
}

impl Plan for GenevePlan {
    fn open(&self, setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let (rx_vni, tx_vni) = self.0.vni;
        self.0.open(setup, Arc::new(Geneve { rx_vni, tx_vni }), "")
    }
}
