//! `transport=l2tpv3`: Ethernet over static L2TPv3 sessions, over UDP or IP, as Linux's l2tp_eth devices (`l2spec_type
//! none`), QEMU and User-Mode Linux speak it.

use super::tunnel::{DST, DSTPORT, Ends, Ports, SRC, SRCPORT, Tunnel, V6};
use super::{Kind, Plan, Setup, Transport};
use crate::vector::encap::{L2tpv3, L2tpv3Config, OverIpv4};
use crate::vector::header::Header;
use crate::vector::options::{DF, Key, Options, TOS, TTL, Type};
use arch::host::rawip::IPPROTO_L2TP;
use std::sync::Arc;

const SESSION: Type = Type::Integer { bits: 32 };
const COOKIE: Type = Type::Integer { bits: 64 };
/// Session in both directions when none is given.
const DEFAULT_SESSION: u64 = 0xffff_ffff;

/// The transport on the command line. Spellings without underscores are QEMU's.
pub static KIND: Kind = Kind {
    name: "l2tpv3",
    about: "Ethernet over L2TPv3, over UDP or IP",
    keys: &[
        SRC,
        DST,
        V6,
        Key::new("udp", Type::Flag, "over UDP, without privileges; else IP protocol 115").default("0"),
        SRCPORT,
        DSTPORT,
        Key::new("rx_session", SESSION, "session expected; 0xffffffff").alias(&["rxsession"]),
        Key::new("tx_session", SESSION, "session sent; 0xffffffff").alias(&["txsession"]),
        Key::new("rx_cookie", COOKIE, "cookie expected").alias(&["rxcookie"]),
        Key::new("tx_cookie", COOKIE, "cookie sent").alias(&["txcookie"]),
        Key::new("cookie64", Type::Flag, "cookies have 64 bits, else 32").default("0"),
        Key::new("counter", Type::Flag, "there is a counter behind the cookie").default("0"),
        Key::new("pin_counter", Type::Flag, "the counter is always 0").alias(&["pincounter"]).default("0"),
        Key::new("offset", Type::Number { min: 0, max: 64 }, "bytes between header and frame").default("0"),
        TTL,
        TOS,
        DF,
    ],
    parse,
};

#[derive(Debug)]
struct L2tpv3Plan {
    ends: Ends,
    ports: Option<Ports>,
    cfg: L2tpv3Config,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    let ends = Ends::parse(o, KIND.name, true)?;
    let udp = o.flag("udp");
    let port = |name| o.number(name).and_then(|n| u16::try_from(n).ok());
    let ports = if udp {
        let peer = port("dstport")
            .ok_or("transport=l2tpv3: dstport= is missing; expected a number from 1 to 65535 with udp=1")?;
        Some(Ports::Pair(port("srcport").unwrap_or(0), peer))
    } else {
        for name in ["srcport", "dstport"] {
            if o.given(name) {
                return Err(format!("{}: only UDP has ports; expected udp=1 as well", o.written(name)));
            }
        }
        None
    };
    let (rx, tx) = o.pair("session")?.unwrap_or((DEFAULT_SESSION, DEFAULT_SESSION));
    let cookie = o.pair("cookie")?;
    let cookie64 = o.flag("cookie64");
    if cookie64 && cookie.is_none() {
        return Err(format!(
            "{}: there is no cookie; expected rx_cookie= and tx_cookie=",
            o.written("cookie64")
        ));
    }
    if let (Some((rx, tx)), false) = (cookie, cookie64) {
        for (name, value) in [("rx_cookie", rx), ("tx_cookie", tx)] {
            if value > u64::from(u32::MAX) {
                return Err(format!("{}: more than 32 bits; expected cookie64=1 as well", o.written(name)));
            }
        }
    }
    let (counter, pin_counter) = (o.flag("counter"), o.flag("pin_counter"));
    if pin_counter && !counter {
        return Err(format!(
            "{}: there is no counter to pin; expected counter=1 as well",
            o.written("pin_counter")
        ));
    }
    let cfg = L2tpv3Config {
        udp,
        rx_session: rx as u32,
        tx_session: tx as u32,
        cookie,
        cookie64,
        counter,
        pin_counter,
        offset: o.number("offset").and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
    };
    Ok(Arc::new(L2tpv3Plan { ends, ports, cfg }))
}

impl Plan for L2tpv3Plan {
    fn open(&self, setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let session = L2tpv3::new(self.cfg);
        let about = format!("sessions {:#x}/{:#x}", self.cfg.rx_session, self.cfg.tx_session);
        Ok(Box::new(match self.ports {
            Some(ports) => Tunnel::udp(&self.ends, setup, ports, "srcport", Arc::new(session), &about)?,
            None => {
                let header: Arc<dyn Header> =
                    if self.ends.is_v6() { Arc::new(session) } else { Arc::new(OverIpv4(session)) };
                Tunnel::ip(&self.ends, setup, IPPROTO_L2TP, header, &about)?
            }
        }))
    }
}
