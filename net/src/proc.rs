//! Texts of /proc/net (proc(5)).

use crate::dev::is_link_local;
use crate::neigh::Nud;
use crate::netns::Net;
use crate::tcp::TcpState;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Addresses as the kernel prints them: 32-bit words of memory in hexadecimal.
fn hex(a: SocketAddr, v6: bool) -> String {
    let octets: Vec<u8> = match a.ip() {
        IpAddr::V4(x) if v6 => x.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V4(x) => x.octets().to_vec(),
        IpAddr::V6(x) => x.octets().to_vec(),
    };
    let mut s = String::new();
    for w in octets.chunks_exact(4) {
        let _ = write!(s, "{:08X}", u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
    }
    let _ = write!(s, ":{:04X}", a.port());
    s
}

/// /proc/net/dev
pub fn net_dev(net: &Net) -> String {
    let mut s = String::from(
        "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame \
         compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for d in net.devs.all() {
        let t = d.stats();
        let _ = writeln!(
            s,
            "{:>6}: {:7} {:7} {:4} {:4} {:4} {:5} {:10} {:9} {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}",
            d.name(),
            t.rx_bytes,
            t.rx_packets,
            t.rx_errors,
            t.rx_dropped,
            0,
            0,
            0,
            t.multicast,
            t.tx_bytes,
            t.tx_packets,
            t.tx_errors,
            t.tx_dropped,
            0,
            0,
            0,
            0
        );
    }
    s
}

/// /proc/net/route
pub fn net_route(net: &Net) -> String {
    let mut s =
        String::from("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n");
    let word = |a: Ipv4Addr| u32::from_ne_bytes(a.octets());
    for r in net.fib.read().iter() {
        let IpAddr::V4(dst) = r.dst.addr else { continue };
        let name = net.devs.get(r.oif).map_or_else(|| "*".into(), |d| d.name());
        let (gw, flag) = match r.gateway {
            Some(IpAddr::V4(g)) => (word(g), 3),
            _ => (0, 1),
        };
        let flag = flag | if r.dst.len == 32 { 4 } else { 0 };
        let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(r.dst.len)).unwrap_or(0));
        let _ = writeln!(
            s,
            "{name}\t{:08X}\t{gw:08X}\t{flag:04X}\t0\t0\t{}\t{:08X}\t{}\t0\t0",
            word(dst),
            r.metric,
            word(mask),
            r.mtu
        );
    }
    s
}

/// /proc/net/arp
pub fn net_arp(net: &Net) -> String {
    let mut s =
        String::from("IP address       HW type     Flags       HW address            Mask     Device\n");
    for n in net.neigh.list() {
        let IpAddr::V4(a) = n.key.1 else { continue };
        let m = n.mac.unwrap_or_default();
        let flags = match n.nud {
            Nud::Permanent => 6,
            Nud::Incomplete | Nud::Failed => 0,
            _ => 2,
        };
        let mac = m.map(|b| format!("{b:02x}")).join(":");
        let dev = net.devs.get(n.key.0).map_or_else(|| "?".into(), |d| d.name());
        let _ = writeln!(s, "{:<16} 0x{:<10x}0x{flags:<10x}{mac}     *        {dev}", a.to_string(), 1);
    }
    s
}

/// /proc/net/if_inet6
pub fn net_if_inet6(net: &Net) -> String {
    let mut s = String::new();
    for d in net.devs.all() {
        for a in d.addrs.read().iter() {
            let IpAddr::V6(v) = a.addr else { continue };
            let scope = if v.is_loopback() {
                0x10
            } else if is_link_local(&v) {
                0x20
            } else {
                0
            };
            let _ = writeln!(
                s,
                "{:032x} {:02x} {:02x} {scope:02x} {:02x} {:>8}",
                u128::from(v),
                d.ifindex,
                a.prefix,
                a.flags,
                d.name()
            );
        }
    }
    s
}

struct Row {
    local: SocketAddr,
    remote: Option<SocketAddr>,
    state: u8,
    tx: usize,
    rx: usize,
    ino: u64,
    drops: Option<u64>,
}

fn table(rows: Vec<Row>, v6: bool, head: &str) -> String {
    let mut s = String::from(head);
    let any: SocketAddr = if v6 { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
    for (i, r) in rows.iter().enumerate() {
        let _ = write!(
            s,
            "{i:4}: {} {} {:02X} {:08X}:{:08X} 00:00000000 00000000     0        0 {} 1 0000000000000000",
            hex(r.local, v6),
            hex(r.remote.unwrap_or(any), v6),
            r.state,
            r.tx,
            r.rx,
            r.ino
        );
        let _ = match r.drops {
            Some(d) => writeln!(s, " {d}"),
            None => writeln!(s, " 100 0 0 10 0"),
        };
    }
    s
}

/// /proc/net/tcp, or tcp6.
pub fn net_tcp(net: &Net, v6: bool) -> String {
    let mut rows = Vec::new();
    for l in net.tcp.listeners.all() {
        if l.local.is_ipv6() == v6 {
            let state = TcpState::Listen as u8;
            rows.push(Row { local: l.local, remote: None, state, tx: 0, rx: l.ready(), ino: 0, drops: None });
        }
    }
    for c in net.tcp.ehash.all() {
        if c.key.laddr.is_ipv6() == v6 {
            let (state, tx, rx) = c.summary();
            let (local, remote) = (c.key.local(), Some(c.key.remote()));
            rows.push(Row { local, remote, state: state as u8, tx, rx, ino: c.ino, drops: None });
        }
    }
    for k in net.tcp.timewait.keys() {
        if k.laddr.is_ipv6() == v6 {
            let state = TcpState::TimeWait as u8;
            rows.push(Row {
                local: k.local(),
                remote: Some(k.remote()),
                state,
                tx: 0,
                rx: 0,
                ino: 0,
                drops: None,
            });
        }
    }
    let head =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    table(rows, v6, head)
}

/// /proc/net/udp, or udp6.
pub fn net_udp(net: &Net, v6: bool) -> String {
    let rows = net.udp.list().into_iter().filter(|(l, ..)| l.is_ipv6() == v6).map(
        |(local, remote, ino, rx, drops)| {
            let state = if remote.is_some() { 1 } else { 7 };
            Row { local, remote, state, tx: 0, rx, ino, drops: Some(drops) }
        },
    );
    let head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
    table(rows.collect(), v6, head)
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn addresses_print_as_linux_does() {
        assert_eq!(hex("127.0.0.1:80".parse().unwrap(), false), "0100007F:0050");
        assert_eq!(hex("[::1]:80".parse().unwrap(), true), "00000000000000000000000001000000:0050");
    }
}
