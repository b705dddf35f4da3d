//! Path MTUs that routers told of (RFC 1191, RFC 8201).

use klib::ktime::Ktime;
use klib::sync::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a path MTU is believed (Linux: ip_rt_mtu_expires).
const EXPIRES: Duration = Duration::from_secs(600);
/// Least path MTU that is believed (Linux: ip_rt_min_pmtu; RFC 8200).
const MIN_V4: u32 = 552;
const MIN_V6: u32 = 1280;
/// Destinations remembered.
const MAX: usize = 1024;

/// What is known of paths.
#[derive(Default)]
pub struct PmtuCache {
    any: AtomicBool,
    map: Mutex<HashMap<IpAddr, (u32, Ktime)>>,
}

impl PmtuCache {
    /// The MTU of the path to `dst`, at most `mtu`.
    pub fn limit(&self, dst: IpAddr, mtu: u32, now: Ktime) -> u32 {
        if !self.any.load(Ordering::Acquire) {
            return mtu;
        }
        match self.map.lock().get(&dst) {
            Some((m, until)) if *until > now => mtu.min(*m),
            _ => mtu,
        }
    }

    /// A router said that only `mtu` bytes pass; returns what is believed.
    pub fn learn(&self, dst: IpAddr, mtu: u32, now: Ktime) -> u32 {
        let mtu = mtu.max(if dst.is_ipv4() { MIN_V4 } else { MIN_V6 });
        let mut m = self.map.lock();
        if m.len() >= MAX && !m.contains_key(&dst) {
            m.retain(|_, e| e.1 > now);
            if m.len() >= MAX {
                return mtu;
            }
        }
        m.insert(dst, (mtu, now + EXPIRES));
        self.any.store(true, Ordering::Release);
        mtu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learnt_bounded_and_forgotten() {
        let c = PmtuCache::default();
        let (d, t) = (IpAddr::from([10, 0, 0, 1]), Ktime(5));
        assert_eq!(c.limit(d, 1500, t), 1500);
        assert_eq!(c.learn(d, 68, t), 552);
        assert_eq!(c.learn(d, 1400, t), 1400);
        assert_eq!((c.limit(d, 1500, t), c.limit(d, 1300, t)), (1400, 1300));
        assert_eq!(c.limit(d, 1500, t + EXPIRES), 1500);
        for i in 0..5000u32 {
            c.learn(IpAddr::from(i.to_be_bytes()), 1400, t);
        }
        assert!(c.map.lock().len() <= MAX);
    }
}
