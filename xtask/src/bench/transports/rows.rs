//! The rows and their bars, as data.

use crate::system::far::{Tunnel, Way};

/// A way of the vector NIC to the host.
pub struct Row {
    /// Its name, as `transport=` and as in `--only`.
    pub key: &'static str,
    /// What comes after `vec0:` for both kernels.
    pub line: &'static str,
    /// Where it leads.
    pub way: Way,
    /// Whether User-Mode Linux has it.
    pub uml: bool,
    /// Whether the host's own veth pair is measured beside it.
    pub native: bool,
    /// Rows of one group are measured in the same rounds.
    pub group: u32,
}

const fn udp(kind: &'static str, header: &'static str) -> Way {
    Way::Tunnel(Tunnel { kind, header })
}

/// All rows.
pub static ROWS: [Row; 7] = [
    Row {
        key: "tap",
        line: "transport=tap,ifname=tap0,depth=128,gro=1",
        way: Way::Tap,
        uml: true,
        native: true,
        group: 0,
    },
    Row {
        key: "hybrid",
        line: "transport=hybrid,ifname=tap0,depth=128,gro=1",
        way: Way::Tap,
        uml: true,
        native: false,
        group: 1,
    },
    Row {
        key: "raw",
        line: "transport=raw,ifname=vr0,depth=128,gro=1",
        way: Way::Veth,
        uml: true,
        native: true,
        group: 2,
    },
    Row {
        key: "l2tpv3-udp",
        line: "transport=l2tpv3,udp=1,src=10.9.0.1,dst=10.9.0.2,srcport=1701,dstport=1701,rx_session=1,tx_session=1,depth=128,gro=1",
        way: udp("udp:1701", "0003000000000001"),
        uml: true,
        native: false,
        group: 3,
    },
    Row {
        key: "vxlan",
        line: "transport=vxlan,src=10.9.0.1,dst=10.9.0.2,vni=1,depth=128,gro=1",
        way: udp("udp:4789", "0800000000000100"),
        uml: false,
        native: false,
        group: 3,
    },
    Row {
        key: "geneve",
        line: "transport=geneve,src=10.9.0.1,dst=10.9.0.2,vni=1,depth=128,gro=1",
        way: udp("udp:6081", "0000655800000100"),
        uml: false,
        native: false,
        group: 3,
    },
    Row {
        key: "gre",
        line: "transport=gre,src=10.9.0.1,dst=10.9.0.2,depth=128,gro=1",
        way: udp("ip:47", "00006558"),
        uml: true,
        native: false,
        group: 4,
    },
];

/// The row of a name.
pub fn row(key: &str) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.key == key)
}

/// What ours is held against.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Other {
    /// UML's better figure, as it comes or pinned to one core.
    Uml,
    /// The host's own veth pair.
    Native,
    /// Our own row of l2tpv3 over UDP.
    L2tpv3,
}

/// A bar: ours over the other's, at least or, for times, at most.
pub struct Bar {
    /// The row.
    pub row: &'static str,
    /// The metric.
    pub metric: &'static str,
    /// The other.
    pub other: Other,
    /// How many times.
    pub times: f64,
}

const fn bar(row: &'static str, metric: &'static str, other: Other, times: f64) -> Bar {
    Bar { row, metric, other, times }
}

/// All bars but those that every row with a figure of UML has.
const OWN: [Bar; 18] = [
    bar("tap", "tx", Other::Uml, 1.8),
    bar("tap", "rx", Other::Uml, 2.0),
    bar("tap", "tx", Other::Native, 0.9),
    bar("tap", "rx", Other::Native, 0.6),
    bar("hybrid", "tx", Other::Uml, 1.8),
    bar("hybrid", "rx", Other::Uml, 2.0),
    bar("raw", "tx", Other::Uml, 2.5),
    bar("raw", "rx", Other::Uml, 2.0),
    bar("raw", "tx", Other::Native, 0.9),
    bar("raw", "rx", Other::Native, 0.6),
    bar("l2tpv3-udp", "tx", Other::Uml, 5.0),
    bar("l2tpv3-udp", "rx", Other::Uml, 4.0),
    bar("vxlan", "tx", Other::L2tpv3, 0.8),
    bar("vxlan", "rx", Other::L2tpv3, 0.8),
    bar("geneve", "tx", Other::L2tpv3, 0.8),
    bar("geneve", "rx", Other::L2tpv3, 0.8),
    bar("gre", "tx", Other::Uml, 3.0),
    bar("gre", "rx", Other::Uml, 3.0),
];

/// All bars of a row.
pub fn bars(r: &Row) -> Vec<Bar> {
    let mut all: Vec<Bar> =
        OWN.iter().filter(|b| b.row == r.key).map(|b| bar(b.row, b.metric, b.other, b.times)).collect();
    if r.uml {
        all.push(bar(r.key, "udptx", Other::Uml, 4.0));
        all.push(bar(r.key, "udprx", Other::Uml, 2.0));
        all.push(bar(r.key, "rr", Other::Uml, 0.8));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{OWN, ROWS, bars, row};

    #[test]
    fn every_bar_has_its_row() {
        assert!(OWN.iter().all(|b| row(b.row).is_some()));
        assert!(ROWS.iter().all(|r| bars(r).len() >= 2));
    }
}
