//! Networking at boot: the stack on the executor, the devices, the loopback, and `ip=` of the command line.

use super::{host, stack};
use crate::param::IpConfig;
use net::{IfAddr, NetDevice};
use std::net::IpAddr;
use std::sync::Arc;

/// Starts the stack on the executor, registers the devices, brings `lo` up and applies `ip=`. To be called on a CPU of the
/// executor; frames are received on that CPU. `Err` is one line for the user.
pub fn net_init(nics: &[Arc<dyn NetDevice>], ip: Option<&IpConfig>) -> Result<(), String> {
    host::start();
    let net = stack();
    let fail = |what: &str, e: uapi::Errno| format!("{what}: {}", e.text());
    for nic in nics {
        net.register(Arc::clone(nic))
            .map_err(|e| fail(&format!("cannot register a {} device", nic.kind()), e))?;
    }
    if let Some(lo) = net.devs.by_name("lo") {
        net.set_link_up(lo.ifindex, true).map_err(|e| fail("lo: cannot be brought up", e))?;
        let first: [(IpAddr, u8); 2] =
            [([127, 0, 0, 1].into(), 8), (std::net::Ipv6Addr::LOCALHOST.into(), 128)];
        for (addr, prefix) in first {
            match net.addr_add(lo.ifindex, IfAddr::new(addr, prefix)) {
                Ok(()) | Err(uapi::Errno::EEXIST) => {}
                Err(e) => return Err(fail(&format!("lo: cannot get {addr}"), e)),
            }
        }
    }
    let Some(p) = ip else { return Ok(()) };
    let dev = match &p.device {
        Some(name) => {
            net.devs.by_name(name).ok_or_else(|| format!("ip=: there is no network device '{name}'"))?
        }
        None => {
            let all = net.devs.all();
            let first = all.iter().find(|d| !d.is_loopback());
            first.cloned().ok_or_else(|| "ip=: there is no network device; expected vec0:...".to_owned())?
        }
    };
    let name = dev.name();
    net.set_link_up(dev.ifindex, true).map_err(|e| fail(&format!("ip=: {name} cannot be brought up"), e))?;
    let addr = IfAddr::new(p.address.into(), p.prefix);
    net.addr_add(dev.ifindex, addr).map_err(|e| fail(&format!("ip=: {name} cannot get {}", p.address), e))?;
    if let Some(gw) = p.gateway {
        super::route_default(gw, dev.ifindex)
            .map_err(|e| fail(&format!("ip=: no route by gateway {gw}"), e))?;
    }
    let gateway = p.gateway.map_or_else(|| "no gateway".to_owned(), |gw| format!("gateway {gw}"));
    log::info!(target: "", "IP-Config: {name}: {}/{} {gateway}", p.address, p.prefix);
    Ok(())
}
