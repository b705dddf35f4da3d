//! `vecN:key=value,...`: what the command line says of a NIC.

use super::options::{self, Key, Options, Type, c_integer};
use super::transport::{KINDS, Kind, Plan};
use std::sync::Arc;

/// Link-layer address.
pub type Mac = [u8; 6];

/// One NIC of the command line.
#[derive(Clone, Debug)]
pub struct VectorConfig {
    /// Unit number: `vec3` is 3.
    pub unit: u32,
    /// The way to the host.
    pub kind: &'static Kind,
    /// Its own options, checked.
    pub plan: Arc<dyn Plan>,
    /// Frames in the transmit queue and, up to a bound, receive slots.
    pub depth: usize,
    /// Link-layer address; absent: random, locally administered.
    pub mac: Option<Mac>,
    /// Largest IP packet at first.
    pub mtu: u32,
    /// `gro=1`.
    pub gro: bool,
    /// Host file with a classic BPF program for the receiving socket.
    pub bpffile: Option<String>,
    /// `ethtool -f` may replace that program.
    pub bpfflash: bool,
    /// Host file for copies of all frames.
    pub pcap: Option<String>,
    /// CPUs that there will be: a transport has no more queues unless it is told to.
    pub cpus: usize,
}

/// Transports that are announced; those without a line in `KINDS` are not there yet.
const ANNOUNCED: [&str; 12] =
    ["tap", "hybrid", "raw", "fd", "gre", "l2tpv3", "bess", "vde", "stream", "vxlan", "vxlan-gpe", "geneve"];

/// Keys of every transport.
pub static COMMON: [Key; 10] = [
    Key::new("transport", Type::Text, "the way to the host"),
    Key::new("depth", Type::Number { min: 1, max: 1024 }, "frames in a queue").default("64"),
    Key::new("mac", Type::Text, "link-layer address; random if absent"),
    Key::new("mtu", Type::Number { min: 576, max: 65535 }, "largest IP packet at first").default("1500"),
    Key::new("gro", Type::Flag, "merge received frames").default("0"),
    Key::new(
        "bpffile",
        Type::Path { max: 4095 },
        "host file with a classic BPF program for the receiving socket",
    ),
    Key::new("bpfflash", Type::Flag, "ethtool -f may replace that program").default("0"),
    Key::new(
        "pcap",
        Type::Path { max: 4095 },
        "host file that takes copies of all frames, at most 64 MiB and its predecessor",
    ),
    // Frames travel in batches of the ring either way, and room in front of them is always there.
    Key::new("vec", Type::Flag, "checked and without effect").default("1"),
    Key::new("headroom", Type::Number { min: 0, max: 65535 }, "checked and without effect").default("2"),
];

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
        return Err(format!(
            "mac={val}: a multicast address cannot be that of a device; expected an even first byte, as in 02:00:00:12:34:56"
        ));
    }
    if mac == [0; 6] {
        return Err(format!(
            "mac={val}: an address of zeros cannot be that of a device; expected another one, as in 02:00:00:12:34:56"
        ));
    }
    if mac[0] & 2 == 0 {
        log::warn!(target: "vector", "mac={val} is globally administered: make sure that you own it (02:... is free)");
    }
    Ok(mac)
}

impl VectorConfig {
    /// Parses a whole argument: `vec0:transport=tap,ifname=tap0,...`. `Err` is one line for the user that begins with the
    /// argument's name.
    pub fn parse(arg: &str) -> Result<Self, String> {
        let rest = arg.strip_prefix("vec").ok_or_else(|| format!("{arg}: expected vecN:key=value,..."))?;
        let (unit, opts) = rest.split_once(':').ok_or_else(|| {
            format!("{arg}: expected ':' after the device number, as in vec0:transport=tap")
        })?;
        let n = c_integer(unit, 32)
            .filter(|_| !unit.starts_with('-'))
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| format!("vec{unit}: bad device number, expected 0 to 4294967295"))?;
        Self::parse_options(n, opts)
    }

    /// Parses what follows `vecN:`.
    pub fn parse_options(unit: u32, opts: &str) -> Result<Self, String> {
        Self::parse_inner(unit, opts).map_err(|e| format!("vec{unit}: {e}"))
    }

    fn parse_inner(unit: u32, opts: &str) -> Result<Self, String> {
        let mut word = None;
        for part in opts.split(',') {
            let (key, val) = options::split(part, || options::list(&[&COMMON]))?;
            if key == "transport" && word.is_none() {
                word = Some(val);
            }
        }
        let Some(word) = word else {
            return Err(format!("no transport given; expected transport={}", names()));
        };
        let Some(kind) = KINDS.iter().copied().find(|k| k.name == word) else {
            let what = if ANNOUNCED.contains(&word) { "not yet supported" } else { "unknown" };
            return Err(format!("transport={word}: {what}; expected {}", names()));
        };
        let o = Options::parse(opts, &[&COMMON, kind.keys])?;
        let number = |name| o.u32(name).unwrap_or(0);
        Ok(Self {
            unit,
            kind,
            depth: number("depth") as usize,
            mac: o.text("mac").map(|m| parse_mac(&m)).transpose()?,
            mtu: number("mtu"),
            gro: o.flag("gro"),
            bpffile: o.text("bpffile"),
            bpfflash: o.flag("bpfflash"),
            pcap: o.text("pcap"),
            cpus: 1,
            plan: (kind.parse)(&o)?,
        })
    }
}

/// The transports there are, and those to come.
fn names() -> String {
    let there: Vec<&str> = KINDS.iter().map(|k| k.name).collect();
    let later: Vec<&str> = ANNOUNCED.iter().copied().filter(|n| !there.contains(n)).collect();
    let later = match later.len() {
        0 => String::new(),
        1 => format!(" ({} is not yet supported)", later[0]),
        _ => format!(" ({} are not yet supported)", later.join(", ")),
    };
    format!("{}{later}", there.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_manual() {
        let c = VectorConfig::parse("vec0:transport=tap,ifname=tap4,depth=128,gro=1").expect("valid");
        assert_eq!(
            (c.kind.name, format!("{:?}", c.plan)),
            ("tap", "TapPlan { ifname: Some(\"tap4\"), ifup: None, queues: None }".into())
        );
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
            ("vec0:transport=geneve,vni=1", "transport=geneve: dst= is missing"),
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
            ("vec0:transport=tap,rx_key=1", "rx_key=1: unknown key; expected one of transport, depth"),
        ] {
            let e = VectorConfig::parse(arg).expect_err(arg);
            assert!(e.contains(want) && !e.contains('\n'), "{arg}: {e}");
        }
    }
}
