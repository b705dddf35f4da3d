//! `vecN:key=value,...`: what the command line says of a NIC.

use std::fmt::Display;
use std::str::FromStr;

/// Link-layer address.
pub type Mac = [u8; 6];

/// How frames reach the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransportConfig {
    /// A tap device with virtio-net headers.
    Tap {
        /// Interface on the host; absent: a new one.
        ifname: Option<String>,
    },
}

/// One NIC of the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VectorConfig {
    /// Unit number: `vec3` is 3.
    pub unit: u32,
    /// The way to the host, with its own options.
    pub transport: TransportConfig,
    /// Frames in the transmit queue and, up to a bound, receive slots.
    pub depth: usize,
    /// Link-layer address; absent: random, locally administered.
    pub mac: Option<Mac>,
    /// Largest IP packet at first.
    pub mtu: u32,
    /// `gro=1`.
    pub gro: bool,
}

const TRANSPORTS: [&str; 8] = ["tap", "hybrid", "raw", "fd", "gre", "l2tpv3", "bess", "vde"];
/// Keys that are understood by some transport and not yet by ours.
const LATER: [&str; 26] = [
    "ifup",
    "bpffile",
    "bpfflash",
    "fd",
    "src",
    "dst",
    "srcport",
    "dstport",
    "v6",
    "udp",
    "rx_key",
    "tx_key",
    "sequence",
    "pin_sequence",
    "rx_session",
    "tx_session",
    "rx_cookie",
    "tx_cookie",
    "cookie64",
    "counter",
    "pin_counter",
    "vnl",
    "descr",
    "port",
    "mode",
    "group",
];
const KEYS: &str = "transport, ifname, depth, mac, mtu, gro, vec, headroom";

fn number<T: FromStr + PartialOrd + Display>(key: &str, val: &str, min: T, max: T) -> Result<T, String> {
    match val.parse::<T>() {
        Ok(n) if n >= min && n <= max => Ok(n),
        _ => Err(format!("{key}={val}: expected a number from {min} to {max}")),
    }
}

/// A C integer: decimal, 0x or 0 in front for hexadecimal or octal.
fn c_integer(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    }
    .filter(|_| text.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn parse_mac(val: &str) -> Result<Mac, String> {
    let expected = || format!("mac={val}: expected six pairs of hexadecimal digits, as in 02:00:00:12:34:56");
    let mut mac = [0u8; 6];
    let mut parts = val.split(':');
    for b in &mut mac {
        let p = parts.next().ok_or_else(expected)?;
        let hex = (1..=2).contains(&p.len()) && p.bytes().all(|c| c.is_ascii_hexdigit());
        *b = u8::from_str_radix(p, 16).ok().filter(|_| hex).ok_or_else(expected)?;
    }
    if parts.next().is_some() {
        return Err(expected());
    }
    if mac[0] & 1 != 0 {
        return Err(format!("mac={val}: a multicast address cannot be that of a device"));
    }
    if mac == [0; 6] {
        return Err(format!("mac={val}: an address of zeros cannot be that of a device"));
    }
    if mac[0] & 2 == 0 {
        log::warn!(target: "vector", "mac={val} is globally administered: make sure that you own it (02:... is free)");
    }
    Ok(mac)
}

fn parse_ifname(val: &str) -> Result<String, String> {
    let bad = val.is_empty()
        || val.len() > arch::host::tap::MAX_NAME
        || val.bytes().any(|b| b == b'/' || b == b'%' || b == b':' || b.is_ascii_whitespace() || b == 0)
        || val == "."
        || val == "..";
    if bad {
        return Err(format!("ifname={val}: expected the name of a host interface, 1 to 15 characters"));
    }
    Ok(val.to_owned())
}

fn flag(key: &str, val: &str) -> Result<bool, String> {
    match val {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{key}={val}: expected 0 or 1")),
    }
}

impl VectorConfig {
    /// Parses a whole argument: `vec0:transport=tap,ifname=tap0,...`. `Err` is one line for the user that begins with the
    /// argument's name.
    pub fn parse(arg: &str) -> Result<Self, String> {
        let rest = arg.strip_prefix("vec").ok_or_else(|| format!("{arg}: expected vecN:key=value,..."))?;
        let (unit, opts) = rest.split_once(':').ok_or_else(|| {
            format!("{arg}: expected ':' after the device number, as in vec0:transport=tap")
        })?;
        let n = c_integer(unit)
            .ok_or_else(|| format!("vec{unit}: bad device number, expected 0 to 4294967295"))?;
        Self::parse_options(n, opts)
    }

    /// Parses what follows `vecN:`.
    pub fn parse_options(unit: u32, opts: &str) -> Result<Self, String> {
        Self::parse_inner(unit, opts).map_err(|e| format!("vec{unit}: {e}"))
    }

    fn parse_inner(unit: u32, opts: &str) -> Result<Self, String> {
        let mut seen: Vec<&str> = Vec::new();
        let (mut transport, mut ifname) = (None, None);
        let mut cfg = Self {
            unit,
            transport: TransportConfig::Tap { ifname: None },
            depth: 64,
            mac: None,
            mtu: 1500,
            gro: false,
        };
        for part in opts.split(',') {
            let (key, val) = part
                .split_once('=')
                .ok_or_else(|| format!("'{part}': expected key=value; keys are {KEYS}"))?;
            if val.contains('=') {
                return Err(format!("'{part}': a value cannot contain '='"));
            }
            if seen.contains(&key) {
                return Err(format!("{key}={val}: the key {key} is given twice"));
            }
            seen.push(key);
            match key {
                "transport" => transport = Some(val),
                "ifname" => ifname = Some(parse_ifname(val)?),
                "depth" => cfg.depth = number(key, val, 1, 1024)?,
                "mac" => cfg.mac = Some(parse_mac(val)?),
                "mtu" => cfg.mtu = number(key, val, 576, 65535)?,
                "gro" => cfg.gro = flag(key, val)?,
                // Frames travel in batches of the ring either way, and room in front of them is always there.
                "vec" => drop(flag(key, val)?),
                "headroom" => drop(number(key, val, 0, 65535)?),
                k if LATER.contains(&k) => return Err(format!("{key}={val}: this key is not yet supported")),
                _ => return Err(format!("{key}={val}: unknown key; expected one of {KEYS}")),
            }
        }
        cfg.transport = match transport {
            None => return Err(format!("no transport given; expected transport=tap{}", others())),
            Some("tap") => TransportConfig::Tap { ifname },
            Some(t) if TRANSPORTS.contains(&t) => {
                return Err(format!("transport={t}: not yet supported; expected tap"));
            }
            Some(t) => return Err(format!("transport={t}: unknown; expected tap{}", others())),
        };
        Ok(cfg)
    }
}

fn others() -> String {
    format!(" ({} are not yet supported)", TRANSPORTS[1..].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_manual() {
        let c = VectorConfig::parse("vec0:transport=tap,ifname=tap4,depth=128,gro=1").expect("valid");
        assert_eq!(c.transport, TransportConfig::Tap { ifname: Some("tap4".into()) });
        assert_eq!((c.unit, c.depth, c.gro, c.mtu, c.mac), (0, 128, true, 1500, None));
        let c = VectorConfig::parse("vec0x1f:transport=tap,mac=02:0:0:a:B:1,mtu=9000").expect("valid");
        assert_eq!((c.unit, c.mac, c.mtu), (31, Some([2, 0, 0, 10, 11, 1]), 9000));
    }

    #[test]
    fn mistakes_name_key_value_and_what_was_expected() {
        for (arg, want) in [
            ("vec0", "expected ':'"),
            ("vecx:transport=tap", "bad device number"),
            ("vec0:", "expected key=value"),
            ("vec0:depth=64", "no transport"),
            ("vec0:transport=TAP", "transport=TAP: unknown"),
            ("vec0:transport=tapfoo", "unknown"),
            ("vec0:transport=raw,ifname=x", "transport=raw: not yet supported"),
            ("vec0:transport=tap,depth=0", "depth=0: expected a number from 1 to 1024"),
            ("vec0:transport=tap,depth=-1", "depth=-1"),
            ("vec0:transport=tap,mtu=575", "mtu=575: expected a number from 576 to 65535"),
            ("vec0:transport=tap,mac=01:00:00:00:00:01", "multicast"),
            ("vec0:transport=tap,mac=00:00:00:00:00:00", "zeros"),
            ("vec0:transport=tap,mac=1:2:3", "six pairs"),
            ("vec0:transport=tap,mac=02:00:00:00:00:+1", "six pairs"),
            ("vec0:transport=tap,gro=2", "gro=2: expected 0 or 1"),
            ("vec0:transport=tap,depth=1,depth=1", "given twice"),
            ("vec0:transport=tap,ifname=a=b", "cannot contain"),
            ("vec0:transport=tap,ifname=", "ifname="),
            ("vec0:transport=tap,ifname=averyverylongname", "1 to 15"),
            ("vec0:transport=tap,nope=1", "nope=1: unknown key"),
            ("vec0:transport=tap,ifup=/bin/true", "not yet supported"),
        ] {
            let e = VectorConfig::parse(arg).expect_err(arg);
            assert!(e.contains(want) && !e.contains('\n'), "{arg}: {e}");
        }
    }
}
