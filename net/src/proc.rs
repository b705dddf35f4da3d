//! Texts of /proc/net (proc(5)).

use crate::dev::is_link_local;
use crate::diag::{self, Row};
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

/// Lines of a table of sockets; datagram sockets end with their drops, the others with what Linux shows of idle ones.
fn table(rows: Vec<Row>, v6: bool, head: &str, dgram: bool) -> String {
    let mut s = String::from(head);
    for (i, r) in rows.iter().filter(|r| r.v6 == v6).enumerate() {
        let (rx, tx) = if r.state == TcpState::Listen as u8 { (r.rx, 0) } else { (r.rx, r.tx) };
        let _ = write!(
            s,
            "{i:4}: {} {} {:02X} {tx:08X}:{rx:08X} {:02X}:{:08X} {:08X} {:5}        0 {} 1 0000000000000000",
            hex(r.local, v6),
            hex(r.remote, v6),
            r.state,
            r.timer.kind,
            // In hundredths of a second.
            r.timer.left.as_millis() / 10,
            r.timer.retrans,
            r.owner.uid,
            r.owner.ino
        );
        if dgram {
            let _ = writeln!(s, " {}", r.drops());
        } else {
            s.push_str(" 100 0 0 10 0\n");
        }
    }
    s
}

const DGRAM_HEAD: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

/// /proc/net/tcp, or tcp6.
pub fn net_tcp(net: &Net, v6: bool) -> String {
    let head =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    table(diag::tcp(net), v6, head, false)
}

/// /proc/net/udp, or udp6.
pub fn net_udp(net: &Net, v6: bool) -> String {
    table(diag::udp(net), v6, DGRAM_HEAD, true)
}

/// /proc/net/raw, or raw6.
pub fn net_raw(net: &Net, v6: bool) -> String {
    table(diag::raw(net), v6, DGRAM_HEAD, true)
}

/// /proc/net/sockstat, or sockstat6. `used`: sockets of all kinds. Memory is counted in pages.
pub fn net_sockstat(net: &Net, v6: bool, used: usize) -> String {
    let c = diag::sockstat(net, v6);
    let pages = |bytes: usize| bytes.div_ceil(4096);
    let (held, orphan, tw) = c.tcp;
    if v6 {
        return format!(
            "TCP6: inuse {held}\nUDP6: inuse {}\nUDPLITE6: inuse 0\nRAW6: inuse {}\nFRAG6: inuse {} memory 0\n",
            c.udp.0, c.raw, c.frags
        );
    }
    format!(
        "sockets: used {used}\nTCP: inuse {held} orphan {orphan} tw {tw} alloc {} mem {}\nUDP: inuse {} mem {}\nUDPLITE: inuse 0\n\
         RAW: inuse {}\nFRAG: inuse {} memory 0\n",
        held + orphan,
        pages(c.tcp_bytes),
        c.udp.0,
        pages(c.udp.1),
        c.raw,
        c.frags
    )
}

/// /proc/net/snmp, as far as it is counted.
pub fn net_snmp(net: &Net) -> String {
    let stands = [TcpState::Established as u8, TcpState::CloseWait as u8];
    let n = diag::tcp(net).iter().filter(|r| stands.contains(&r.state)).count();
    let forwards = if net.sysctl.flag("ipv4/ip_forward") { 1 } else { 2 };
    let ttl = net.sysctl.default_ttl();
    format!(
        "Ip: Forwarding DefaultTTL\nIp: {forwards} {ttl}\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn CurrEstab\nTcp: 1 200 120000 -1 {n}\n"
    )
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
