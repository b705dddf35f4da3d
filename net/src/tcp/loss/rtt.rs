//! Round-trip time and retransmission time-out (RFC 6298, with Linux's floor of 200 ms below the variation).

use std::time::Duration;

/// Least variation that the time-out reckons with (Linux: TCP_RTO_MIN).
const RTO_MIN_US: u64 = 200_000;
/// Longest time-out (Linux: TCP_RTO_MAX).
const RTO_MAX_US: u64 = 120_000_000;
/// Time-out before anything was measured (RFC 6298 section 2).
const RTO_INIT_US: u64 = 1_000_000;

/// The estimator. All times are microseconds; zero = not measured.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rtt {
    /// Smoothed round-trip time.
    pub srtt_us: u64,
    /// Its variation.
    pub rttvar_us: u64,
    /// The smallest that was seen.
    pub min_us: u64,
    /// The latest.
    pub last_us: u64,
}

impl Rtt {
    /// A measurement.
    pub fn sample(&mut self, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).clamp(1, RTO_MAX_US);
        self.last_us = us;
        if self.srtt_us == 0 {
            (self.srtt_us, self.rttvar_us, self.min_us) = (us, us / 2, us);
            return;
        }
        self.rttvar_us = (self.rttvar_us * 3 + self.srtt_us.abs_diff(us)) / 4;
        self.srtt_us = ((self.srtt_us * 7 + us) / 8).max(1);
        self.min_us = self.min_us.min(us);
    }

    /// The time-out, without back-off.
    pub fn rto_us(&self) -> u64 {
        if self.srtt_us == 0 {
            return RTO_INIT_US;
        }
        (self.srtt_us + (4 * self.rttvar_us).max(RTO_MIN_US)).min(RTO_MAX_US)
    }

    /// The time-out after `backoff` doublings.
    pub fn rto(&self, backoff: u32) -> Duration {
        Duration::from_micros(self.rto_us().saturating_mul(1 << backoff.min(16)).min(RTO_MAX_US))
    }

    /// The smoothed time, or `None`.
    pub fn srtt(&self) -> Option<Duration> {
        (self.srtt_us != 0).then(|| Duration::from_micros(self.srtt_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6298_with_linux_floor() {
        let mut r = Rtt::default();
        assert_eq!(r.rto(0), Duration::from_secs(1));
        assert_eq!(r.rto(3), Duration::from_secs(8));
        r.sample(Duration::from_millis(20));
        assert_eq!((r.srtt_us, r.rttvar_us, r.rto_us()), (20_000, 10_000, 220_000));
        r.sample(Duration::from_millis(500));
        assert_eq!(r.srtt_us, 80_000);
        assert!(r.rto_us() > 500_000);
        assert_eq!(r.rto(60), Duration::from_secs(120));
    }
}
