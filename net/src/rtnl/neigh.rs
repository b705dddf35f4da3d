//! RTM_*NEIGH: neighbours (linux/neighbour.h).

use super::Request;
use super::codec::{Attrs, Dump, Msg, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, byte, word};
use crate::neigh::{NeighInfo, Nud, SetHow};
use crate::netns::Net;
use klib::ktime::Ktime;
use uapi::{Errno, Result};

pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_DELNEIGH: u16 = 29;
pub(crate) const RTM_GETNEIGH: u16 = 30;

const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NDA_PROBES: u16 = 4;
const NDA_IFINDEX: u16 = 8;
const NTF_PROXY: u8 = 8;

fn fill(m: &mut Msg, n: &NeighInfo, now: Ktime) {
    let family = if n.key.1.is_ipv4() { 2 } else { 10 };
    let mut head = [0u8; NDMSG];
    head[0] = family;
    head[4..8].copy_from_slice(&n.key.0.to_ne_bytes());
    head[8..10].copy_from_slice(&(n.nud as u16).to_ne_bytes());
    // RTN_UNICAST
    head[11] = 1;
    m.put(&head);
    m.attr_ip(NDA_DST, n.key.1);
    if let Some(mac) = n.mac {
        m.attr(NDA_LLADDR, &mac);
    }
    // Ages in hundredths of a second.
    let age = |t: Ktime| u32::try_from(now.since(t).as_millis() / 10).unwrap_or(u32::MAX);
    let (used, confirmed, updated) = n.times;
    let mut c = Vec::new();
    for v in [age(confirmed), age(used), age(updated), 1] {
        c.extend_from_slice(&v.to_ne_bytes());
    }
    m.attr(NDA_CACHEINFO, &c);
    m.attr_u32(NDA_PROBES, n.probes);
}

pub(super) fn dump(net: &Net, req: &Request<'_>, d: &mut Dump) -> Result<()> {
    let family = byte(req.body, 0);
    let a = Attrs::parse(req.body, NDMSG)?;
    let index = a.u32(NDA_IFINDEX)?.unwrap_or(0);
    // Proxy entries and other families (bridges): there are none.
    let proxy = byte(req.body, 10) & NTF_PROXY != 0;
    if proxy || !matches!(family, 0 | 2 | 10) {
        return Ok(());
    }
    let now = net.now();
    for n in net.neigh.list() {
        let v4 = n.key.1.is_ipv4();
        if (family == 2 && !v4) || (family == 10 && v4) || (index != 0 && n.key.0 != index) {
            continue;
        }
        let mut m = d.msg(RTM_NEWNEIGH);
        fill(&mut m, &n, now);
        d.push(m);
    }
    Ok(())
}

pub(super) fn get(net: &Net, req: &Request<'_>, out: &mut Vec<Vec<u8>>) -> Result<()> {
    let a = Attrs::parse(req.body, NDMSG)?;
    let ip = a.ip(NDA_DST)?.ok_or(Errno::EINVAL)?;
    let index = word(req.body, 4);
    net.devs.get(index).ok_or(Errno::ENODEV)?;
    let n = net.neigh.list().into_iter().find(|n| n.key == (index, ip)).ok_or(Errno::ENOENT)?;
    let mut m = Msg::new(RTM_NEWNEIGH, 0, req.h.seq, req.portid);
    fill(&mut m, &n, net.now());
    out.push(m.finish());
    Ok(())
}

pub(super) fn add(net: &Net, req: &Request<'_>) -> Result<()> {
    if req.body.len() < NDMSG {
        return Err(Errno::EINVAL);
    }
    let a = Attrs::parse(req.body, NDMSG)?;
    let ip = a.ip(NDA_DST)?.ok_or(Errno::EINVAL)?;
    let dev = net.devs.get(word(req.body, 4)).ok_or(Errno::ENODEV)?;
    if byte(req.body, 10) & NTF_PROXY != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mac = match a.get(NDA_LLADDR) {
        Some(m) => Some(<[u8; 6]>::try_from(m).map_err(|_| Errno::EINVAL)?),
        None => None,
    };
    let state = u16::from_ne_bytes([byte(req.body, 8), byte(req.body, 9)]);
    let nud = Nud::from_bits(state).unwrap_or(Nud::Permanent);
    let flags = req.h.flags;
    let known = matches!(nud, Nud::Permanent | Nud::Reachable | Nud::Stale | Nud::NoArp);
    if mac.is_none() && known && flags & NLM_F_EXCL != 0 {
        return Err(Errno::EINVAL);
    }
    let replace = flags & NLM_F_REPLACE != 0 || flags & NLM_F_EXCL == 0;
    net.neigh.set(net, &dev, ip, mac, nud, SetHow { create: flags & NLM_F_CREATE != 0, replace })
}

pub(super) fn del(net: &Net, req: &Request<'_>) -> Result<()> {
    let a = Attrs::parse(req.body, NDMSG)?;
    let ip = a.ip(NDA_DST)?.ok_or(Errno::EINVAL)?;
    let index = word(req.body, 4);
    net.devs.get(index).ok_or(Errno::ENODEV)?;
    net.neigh.remove(&(index, ip))
}
