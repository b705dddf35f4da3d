//! `ip=<client>:<server>:<gateway>:<netmask>:<hostname>:<device>:<autoconf>:<dns0>:<dns1>:<ntp0>` (nfsroot(5) of the
//! kernel's documentation): an address at boot.

use std::net::Ipv4Addr;

/// A fixed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// Our address.
    pub address: Ipv4Addr,
    /// Bits of the network.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Host name.
    pub hostname: Option<String>,
    /// Device; `None`: the first one.
    pub device: Option<String>,
    /// Name servers, for /proc/net/pnp.
    pub dns: Vec<Ipv4Addr>,
}

const EXPECTED: &str = "expected ip=ADDRESS::GATEWAY:NETMASK:HOSTNAME:DEVICE:off or ip=off";

/// Parses the value; `None`: nothing is to be done.
pub(super) fn parse(value: &str) -> Result<Option<IpConfig>, String> {
    match value {
        "off" | "none" => return Ok(None),
        "" => return Err(format!("no address given; {EXPECTED}")),
        _ => {}
    }
    let fields: Vec<&str> = value.split(':').collect();
    let field = |i: usize| fields.get(i).copied().filter(|f| !f.is_empty());
    if fields.len() > 10 {
        return Err(format!("too many fields; {EXPECTED}"));
    }
    let autoconf =
        if fields.len() == 1 && value.parse::<Ipv4Addr>().is_err() { Some(value) } else { field(6) };
    match autoconf {
        None | Some("off" | "none") => {}
        Some("on" | "any" | "dhcp" | "bootp" | "rarp" | "both") => {
            return Err(format!("asking the network for an address is not yet supported; {EXPECTED}"));
        }
        Some(word) => return Err(format!("'{word}' is neither an address nor a protocol; {EXPECTED}")),
    }
    let address = |i: usize, what: &str| match field(i) {
        None => Ok(None),
        Some(t) => match t.parse::<Ipv4Addr>() {
            Ok(a) => Ok(Some(a).filter(|a| !a.is_unspecified())),
            Err(_) => Err(format!("{what} '{t}' is not an IPv4 address; {EXPECTED}")),
        },
    };
    let client = address(0, "address")?.ok_or_else(|| format!("no address given; {EXPECTED}"))?;
    address(1, "server")?;
    let prefix = match address(3, "netmask")? {
        None => match client.octets() {
            // The classes of old, as the kernel guesses.
            [0..=127, ..] => 8,
            [128..=191, ..] => 16,
            _ => 24,
        },
        Some(mask) => {
            let bits = mask.to_bits();
            if bits.leading_ones() + bits.trailing_zeros() != 32 {
                return Err(format!("netmask '{mask}' has holes; expected one such as 255.255.255.0"));
            }
            bits.count_ones() as u8
        }
    };
    let mut dns = Vec::new();
    for i in [7, 8] {
        dns.extend(address(i, "name server")?);
    }
    Ok(Some(IpConfig {
        address: client,
        prefix,
        gateway: address(2, "gateway")?,
        hostname: field(4).map(Into::into),
        device: field(5).map(Into::into),
        dns,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed() {
        let c = parse("10.0.0.2::10.0.0.1:255.255.255.0:box:vec0:off:10.0.0.53").unwrap().unwrap();
        assert_eq!((c.address, c.prefix), (Ipv4Addr::new(10, 0, 0, 2), 24));
        assert_eq!(c.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!((c.hostname.as_deref(), c.device.as_deref()), (Some("box"), Some("vec0")));
        assert_eq!(c.dns, [Ipv4Addr::new(10, 0, 0, 53)]);
        assert_eq!(parse("192.168.1.5").unwrap().unwrap().prefix, 24);
        assert_eq!(parse("10.1.1.5").unwrap().unwrap().prefix, 8);
        assert_eq!(parse("off"), Ok(None));
    }

    #[test]
    fn wrong() {
        for bad in [
            "",
            "dhcp",
            "::::::dhcp",
            "10.0.0",
            "10.0.0.2:::255.0.255.0",
            "10.0.0.2::x",
            "1:2:3:4:5:6:7:8:9:10:11",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
