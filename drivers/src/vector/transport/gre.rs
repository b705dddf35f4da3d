//! `transport=gre`: Ethernet over GRE over IPv4 or IPv6, as Linux's gretap and ip6gretap devices and User-Mode Linux speak it.

use super::tunnel::{DST, Ends, SRC, Tunnel, V6};
use super::{Kind, Plan, Setup, Transport};
use crate::vector::encap::{Gre, GreConfig, OverIpv4};
use crate::vector::header::Header;
use crate::vector::options::{DF, Key, Options, TOS, TTL, Type};
use arch::host::rawip::IPPROTO_GRE;
use std::sync::Arc;

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "gre",
    about: "Ethernet over GRE (needs CAP_NET_RAW)",
    keys: &[
        SRC,
        DST,
        V6,
        Key::new("key", Type::Integer { bits: 32 }, "key in both directions"),
        Key::new("rx_key", Type::Integer { bits: 32 }, "key expected"),
        Key::new("tx_key", Type::Integer { bits: 32 }, "key sent"),
        Key::new("sequence", Type::Flag, "number the frames, and expect numbers").default("0"),
        Key::new("pin_sequence", Type::Flag, "the number is always 0").default("0"),
        Key::new("checksum", Type::Flag, "sum up frames, and expect sums").alias(&["csum"]).default("0"),
        TTL,
        TOS,
        DF,
    ],
    parse,
};

#[derive(Debug)]
struct GrePlan {
    ends: Ends,
    cfg: GreConfig,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    let ends = Ends::parse(o, KIND.name, true)?;
    let (sequence, pin_sequence) = (o.flag("sequence"), o.flag("pin_sequence"));
    if pin_sequence && !sequence {
        return Err(format!(
            "{}: there is no number to pin; expected sequence=1 as well",
            o.written("pin_sequence")
        ));
    }
    let key = o.pair("key")?.map(|(rx, tx)| (rx as u32, tx as u32));
    Ok(Arc::new(GrePlan {
        ends,
        cfg: GreConfig { key, sequence, pin_sequence, checksum: o.flag("checksum") },
    }))
}

impl Plan for GrePlan {
    fn open(&self, setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let gre = Gre::new(self.cfg);
        let header: Arc<dyn Header> = if self.ends.is_v6() { Arc::new(gre) } else { Arc::new(OverIpv4(gre)) };
        let about = match self.cfg.key {
            Some((rx, tx)) => format!("keys {rx:#x}/{tx:#x}"),
            None => "no key".to_owned(),
        };
        Ok(Box::new(Tunnel::ip(&self.ends, setup, IPPROTO_GRE, header, &about)?))
    }
}
