//! The tunables under /proc/sys/net.

use crate::tcp::loss::Algorithm;
use klib::sync::RwLock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use uapi::{Errno, Result};

/// Names (below /proc/sys/net) and defaults.
const DEFAULTS: &[(&str, &str)] = &[
    ("core/rmem_default", "212992"),
    ("core/rmem_max", "4194304"),
    ("core/wmem_default", "212992"),
    ("core/wmem_max", "4194304"),
    ("core/somaxconn", "4096"),
    ("core/netdev_max_backlog", "1000"),
    ("core/optmem_max", "131072"),
    ("core/default_qdisc", "pfifo_fast"),
    ("ipv4/ip_forward", "0"),
    ("ipv4/ip_default_ttl", "64"),
    ("ipv4/ip_local_port_range", "32768\t60999"),
    ("ipv4/ip_nonlocal_bind", "0"),
    ("ipv4/ip_unprivileged_port_start", "1024"),
    ("ipv4/ping_group_range", "0\t2147483647"),
    ("ipv4/icmp_echo_ignore_all", "0"),
    ("ipv4/icmp_echo_ignore_broadcasts", "1"),
    ("ipv4/tcp_rmem", "4096\t2097152\t6291456"),
    ("ipv4/tcp_wmem", "4096\t1048576\t4194304"),
    ("ipv4/tcp_congestion_control", "cubic"),
    ("ipv4/tcp_available_congestion_control", Algorithm::NAMES),
    ("ipv4/tcp_allowed_congestion_control", Algorithm::NAMES),
    ("ipv4/tcp_sack", "1"),
    ("ipv4/tcp_timestamps", "1"),
    ("ipv4/tcp_window_scaling", "1"),
    ("ipv4/tcp_fin_timeout", "60"),
    ("ipv4/tcp_keepalive_time", "7200"),
    ("ipv4/tcp_keepalive_intvl", "75"),
    ("ipv4/tcp_keepalive_probes", "9"),
    ("ipv4/tcp_syn_retries", "6"),
    ("ipv4/tcp_synack_retries", "5"),
    ("ipv4/tcp_max_syn_backlog", "512"),
    ("ipv4/tcp_max_tw_buckets", "16384"),
    ("ipv4/tcp_tw_reuse", "0"),
    ("ipv4/conf/all/forwarding", "0"),
    ("ipv4/conf/default/forwarding", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/bindv6only", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/default/forwarding", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
];

/// All tunables; those that packets depend on are kept as numbers beside the text.
pub struct Sysctl {
    values: RwLock<BTreeMap<&'static str, String>>,
    forward4: AtomicBool,
    forward6: AtomicBool,
    ttl: AtomicU32,
    rmem_default: AtomicUsize,
    wmem_default: AtomicUsize,
}

impl Default for Sysctl {
    fn default() -> Self {
        Self {
            values: RwLock::new(DEFAULTS.iter().map(|(k, v)| (*k, (*v).to_owned())).collect()),
            forward4: AtomicBool::new(false),
            forward6: AtomicBool::new(false),
            ttl: AtomicU32::new(64),
            rmem_default: AtomicUsize::new(212_992),
            wmem_default: AtomicUsize::new(212_992),
        }
    }
}

impl Sysctl {
    /// The text of a tunable, without a newline.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.read().get(name).cloned()
    }

    /// Changes a tunable. ENOENT if there is none of that name, EINVAL if the value does not fit.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let value = value.trim();
        let key = DEFAULTS.iter().find(|(k, _)| *k == name).ok_or(Errno::ENOENT)?;
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        let numeric = key.1.split_ascii_whitespace().all(|w| w.parse::<i64>().is_ok());
        if numeric {
            let want = key.1.split_ascii_whitespace().count();
            if words.len() != want || !words.iter().all(|w| w.parse::<i64>().is_ok_and(|n| n >= 0)) {
                return Err(Errno::EINVAL);
            }
        } else if name == "ipv4/tcp_available_congestion_control" {
            return Err(Errno::EACCES);
        } else if name.contains("congestion") {
            // As Linux: ENOENT for a name that there is not, EINVAL for one name too many.
            if words.is_empty() || words.iter().any(|w| Algorithm::parse(w).is_none()) {
                return Err(Errno::ENOENT);
            }
            if name == "ipv4/tcp_congestion_control" && words.len() != 1 {
                return Err(Errno::EINVAL);
            }
        } else if words.len() != 1 {
            return Err(Errno::ENOENT);
        }
        let sep = if numeric { "\t" } else { " " };
        self.values.write().insert(key.0, words.join(sep));
        let n = words.first().and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        match name {
            "ipv4/ip_forward" | "ipv4/conf/all/forwarding" => {
                self.forward4.store(n != 0, Ordering::Relaxed);
                let v = u8::from(n != 0).to_string();
                let mut m = self.values.write();
                m.insert("ipv4/ip_forward", v.clone());
                m.insert("ipv4/conf/all/forwarding", v);
            }
            "ipv6/conf/all/forwarding" => self.forward6.store(n != 0, Ordering::Relaxed),
            "ipv4/ip_default_ttl" => self.ttl.store(n.clamp(1, 255) as u32, Ordering::Relaxed),
            "core/rmem_default" => self.rmem_default.store(n as usize, Ordering::Relaxed),
            "core/wmem_default" => self.wmem_default.store(n as usize, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    }

    /// All names.
    pub fn list(&self) -> Vec<&'static str> {
        self.values.read().keys().copied().collect()
    }

    /// True if a tunable is a number other than 0.
    pub fn flag(&self, name: &str) -> bool {
        self.number(name, 0, 0) != 0
    }

    fn number(&self, name: &str, word: usize, default: usize) -> usize {
        let v = self.values.read();
        let w = v.get(name).and_then(|s| s.split_ascii_whitespace().nth(word));
        w.and_then(|s| s.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn forwarding(&self, v4: bool) -> bool {
        if v4 { self.forward4.load(Ordering::Relaxed) } else { self.forward6.load(Ordering::Relaxed) }
    }

    pub(crate) fn default_ttl(&self) -> u8 {
        self.ttl.load(Ordering::Relaxed).clamp(1, 255) as u8
    }

    pub(crate) fn port_range(&self) -> (u16, u16) {
        let n = |w, d| u16::try_from(self.number("ipv4/ip_local_port_range", w, d)).unwrap_or(d as u16);
        (n(0, 32_768).max(1), n(1, 60_999))
    }

    pub(crate) fn somaxconn(&self) -> usize {
        self.number("core/somaxconn", 0, 4096)
    }

    /// The congestion control of new sockets.
    pub(crate) fn congestion(&self) -> Algorithm {
        self.values
            .read()
            .get("ipv4/tcp_congestion_control")
            .and_then(|v| Algorithm::parse(v))
            .unwrap_or_default()
    }

    /// Default sizes of TCP rings: receive, send.
    pub(crate) fn tcp_buffers(&self) -> (usize, usize) {
        (self.number("ipv4/tcp_rmem", 1, 2 << 20), self.number("ipv4/tcp_wmem", 1, 1 << 20))
    }

    pub(crate) fn mem_default(&self) -> (usize, usize) {
        (self.rmem_default.load(Ordering::Relaxed), self.wmem_default.load(Ordering::Relaxed))
    }

    pub(crate) fn mem_max(&self) -> (usize, usize) {
        (self.number("core/rmem_max", 0, 4 << 20), self.number("core/wmem_max", 0, 4 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_mirrored() {
        let s = Sysctl::default();
        assert_eq!(s.get("ipv4/ip_forward").as_deref(), Some("0"));
        s.set("ipv4/ip_forward", "1\n").unwrap();
        assert!(s.forwarding(true) && !s.forwarding(false));
        assert_eq!(s.get("ipv4/conf/all/forwarding").as_deref(), Some("1"));
        assert_eq!(s.set("ipv4/ip_forward", "x"), Err(Errno::EINVAL));
        assert_eq!(s.set("ipv4/nothing", "1"), Err(Errno::ENOENT));
        s.set("ipv4/ip_local_port_range", "1000 2000").unwrap();
        assert_eq!(s.port_range(), (1000, 2000));
    }
}
