//! Networking at boot: the loopback, and `ip=` of the command line.

use super::{host, stack};
use net::IfAddr;
use std::net::{IpAddr, Ipv4Addr};

/// `ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1` (nfsroot.txt of the kernel's documentation).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IpParam {
    /// Our address.
    pub client: Option<Ipv4Addr>,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Bits of the network.
    pub prefix: Option<u8>,
    /// Host name, for `uname -n`.
    pub hostname: Option<String>,
    /// Device; absent: the first that is not the loopback.
    pub device: Option<String>,
}

fn class_prefix(a: Ipv4Addr) -> u8 {
    match a.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

impl IpParam {
    /// Parses the value of `ip=`; `Ok(None)` for `off` and `none`. `Err` is one line for the user.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        const FORM: &str = "CLIENT::GATEWAY:NETMASK:HOSTNAME:DEVICE:off";
        if matches!(text, "off" | "none" | "") {
            return Ok(None);
        }
        if matches!(text, "on" | "any" | "dhcp" | "bootp" | "rarp" | "both") {
            return Err(format!(
                "ip={text}: automatic configuration is not yet supported; expected ip={FORM}"
            ));
        }
        let f: Vec<&str> = text.split(':').collect();
        if f.len() > 10 {
            return Err(format!("ip={text}: too many fields; expected ip={FORM}"));
        }
        let field = |i: usize| f.get(i).copied().filter(|s| !s.is_empty());
        let addr = |i: usize, what: &str| {
            field(i)
                .map(|s| {
                    s.parse::<Ipv4Addr>().map_err(|_| format!("ip={text}: {what} '{s}' is no IPv4 address"))
                })
                .transpose()
        };
        match field(6) {
            None | Some("off" | "none" | "static") => {}
            Some(a) => {
                return Err(format!(
                    "ip={text}: automatic configuration '{a}' is not yet supported; expected off"
                ));
            }
        }
        let client = addr(0, "the address")?;
        let prefix = match addr(3, "the netmask")? {
            None => None,
            Some(m) => {
                let bits = u32::from(m);
                if bits.leading_ones() + bits.trailing_zeros() < 32 {
                    return Err(format!("ip={text}: the netmask '{m}' has holes"));
                }
                u8::try_from(bits.leading_ones()).ok()
            }
        };
        Ok(Some(Self {
            client,
            gateway: addr(2, "the gateway")?,
            prefix: prefix.or(client.map(class_prefix)),
            hostname: field(4).map(str::to_owned),
            device: field(5).map(str::to_owned),
        }))
    }
}

/// Starts the stack on the executor, brings `lo` up and applies `ip=`. The devices have been registered with
/// [`stack`]; to be called on a CPU of the executor. `Err` is one line for the user.
pub fn net_init(ip: Option<&IpParam>) -> Result<(), String> {
    host::start();
    let net = stack();
    let fail = |what: &str, e: uapi::Errno| format!("{what}: {}", e.text());
    if let Some(lo) = net.devs.by_name("lo") {
        net.set_link_up(lo.ifindex, true).map_err(|e| fail("lo: cannot be brought up", e))?;
        let addrs = lo.addrs.read().len();
        if addrs == 0 {
            for a in [
                IfAddr::new(IpAddr::from([127, 0, 0, 1]), 8),
                IfAddr::new(IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]), 128),
            ] {
                let ip = a.addr;
                net.addr_add(lo.ifindex, a).map_err(|e| fail(&format!("lo: cannot get {ip}"), e))?;
            }
        }
    }
    let Some(p) = ip else { return Ok(()) };
    let dev = match &p.device {
        Some(name) => net.devs.by_name(name).ok_or_else(|| format!("ip=: there is no device '{name}'"))?,
        None => {
            let all = net.devs.all();
            let first = all.iter().find(|d| !d.is_loopback());
            first
                .cloned()
                .ok_or_else(|| "ip=: there is no network device; give one with vec0:...".to_owned())?
        }
    };
    let name = dev.name();
    net.set_link_up(dev.ifindex, true).map_err(|e| fail(&format!("ip=: {name} cannot be brought up"), e))?;
    if let Some(a) = p.client {
        let addr = IfAddr::new(a.into(), p.prefix.unwrap_or(32));
        net.addr_add(dev.ifindex, addr).map_err(|e| fail(&format!("ip=: {name} cannot get {a}"), e))?;
    }
    if let Some(gw) = p.gateway {
        super::route_default(gw, dev.ifindex)
            .map_err(|e| fail(&format!("ip=: no route by gateway {gw}"), e))?;
    }
    log::info!(target: "net", "IP-Config: device={name}, addr={:?}, prefix={:?}, gw={:?}", p.client, p.prefix, p.gateway);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_format() {
        let p = IpParam::parse("192.168.9.2::192.168.9.1:255.255.255.0:box:vec0:off")
            .expect("valid")
            .expect("some");
        assert_eq!(p.client, Some(Ipv4Addr::new(192, 168, 9, 2)));
        assert_eq!((p.gateway, p.prefix), (Some(Ipv4Addr::new(192, 168, 9, 1)), Some(24)));
        assert_eq!((p.hostname.as_deref(), p.device.as_deref()), (Some("box"), Some("vec0")));
        assert_eq!(IpParam::parse("10.0.0.1").expect("valid").and_then(|p| p.prefix), Some(8));
        assert_eq!(IpParam::parse("off"), Ok(None));
        for bad in ["dhcp", ":::::vec0:dhcp", "1.2.3", "1.2.3.4:::255.0.255.0", "1.2.3.4::x"] {
            let e = IpParam::parse(bad).expect_err(bad);
            assert!(e.starts_with("ip=") && !e.contains('\n'), "{e}");
        }
    }
}
