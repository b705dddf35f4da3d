//! Congestion control: how much may be in flight. Reno (RFC 5681) and CUBIC (RFC 9438); the window counts bytes.

use klib::ktime::Ktime;
use std::time::Duration;

/// Largest window: no path needs more, and sums with it stay in 32 bits.
const MAX_WINDOW: u32 = 1 << 30;
/// CUBIC: multiplicative decrease and the constant C (RFC 9438 section 4).
const BETA: f64 = 0.7;
const C: f64 = 0.4;

/// The algorithms, by Linux's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681.
    Reno,
}

impl Algorithm {
    /// All names, as tcp_available_congestion_control shows them.
    pub const NAMES: &'static str = "reno cubic";

    /// The algorithm of a name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cubic" => Some(Self::Cubic),
            "reno" => Some(Self::Reno),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
        }
    }
}

/// CUBIC's memory, in segments and seconds.
#[derive(Clone, Copy, Default, Debug)]
struct Cubic {
    w_max: f64,
    k: f64,
    epoch: Option<Ktime>,
    w_est: f64,
    /// The window before the last reduction.
    prior: f64,
    /// Fraction of a byte that was not added yet.
    carry: f64,
}

/// The window of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Cc {
    algo: Algorithm,
    mss: u32,
    /// Bytes that may be in flight.
    pub cwnd: u32,
    /// Slow start ends here.
    pub ssthresh: u32,
    acked: u32,
    cubic: Cubic,
}

impl Cc {
    /// A window of ten segments (RFC 6928).
    pub fn new(algo: Algorithm, mss: u32) -> Self {
        let mss = mss.max(1);
        Self { algo, mss, cwnd: 10 * mss, ssthresh: u32::MAX, acked: 0, cubic: Cubic::default() }
    }

    /// The algorithm in use.
    pub fn algorithm(&self) -> Algorithm {
        self.algo
    }

    /// Changes the algorithm; the window stays.
    pub fn set_algorithm(&mut self, algo: Algorithm) {
        if self.algo != algo {
            self.algo = algo;
            self.cubic = Cubic::default();
            self.acked = 0;
        }
    }

    /// The segment size changed.
    pub fn set_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
        self.cwnd = self.cwnd.max(self.mss);
    }

    /// Slow start?
    pub fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    fn add(&mut self, n: u32) {
        self.cwnd = self.cwnd.saturating_add(n).min(MAX_WINDOW);
    }

    /// `acked` bytes arrived while the window was what limited us.
    pub fn grow(&mut self, now: Ktime, mut acked: u32, rtt: Duration) {
        if self.in_slow_start() {
            let n = acked.min(self.ssthresh - self.cwnd);
            self.add(n);
            acked -= n;
        }
        if acked == 0 {
            return;
        }
        match self.algo {
            Algorithm::Reno => {
                self.acked += acked;
                if self.acked >= self.cwnd {
                    self.acked -= self.cwnd;
                    self.add(self.mss);
                }
            }
            Algorithm::Cubic => self.grow_cubic(now, acked, rtt),
        }
    }

    fn grow_cubic(&mut self, now: Ktime, acked: u32, rtt: Duration) {
        let mss = f64::from(self.mss);
        let (w, n) = (f64::from(self.cwnd) / mss, f64::from(acked) / mss);
        let c = &mut self.cubic;
        let epoch = *c.epoch.get_or_insert_with(|| {
            if w < c.w_max {
                c.k = ((c.w_max - w) / C).cbrt();
            } else {
                (c.w_max, c.k) = (w, 0.0);
            }
            c.w_est = w;
            now
        });
        let t = now.since(epoch).as_secs_f64();
        let at = |t: f64| C * (t - c.k).powi(3) + c.w_max;
        let target = at(t + rtt.as_secs_f64()).clamp(w, 1.5 * w);
        // The window that Reno would have (RFC 9438 section 4.3).
        let alpha = if c.w_est < c.prior { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        c.w_est += alpha * n / w;
        let inc = if at(t) < c.w_est { (c.w_est - w).clamp(0.0, n) } else { (target - w) / w * n };
        let bytes = inc * mss + c.carry;
        let whole = bytes.floor().clamp(0.0, f64::from(MAX_WINDOW));
        c.carry = bytes - whole;
        self.add(whole as u32);
    }

    fn reduce(&mut self) {
        let w = f64::from(self.cwnd) / f64::from(self.mss);
        self.ssthresh = match self.algo {
            Algorithm::Reno => self.cwnd / 2,
            Algorithm::Cubic => {
                let c = &mut self.cubic;
                // Fast convergence (RFC 9438 section 4.7).
                c.w_max = if w < c.w_max { w * (1.0 + BETA) / 2.0 } else { w };
                c.prior = w;
                c.epoch = None;
                (f64::from(self.cwnd) * BETA) as u32
            }
        }
        .max(2 * self.mss);
        self.acked = 0;
    }

    /// Something was lost: the threshold falls; the caller lets the window follow it.
    pub fn on_loss(&mut self) {
        self.reduce();
    }

    /// Nothing came back in time: one segment.
    pub fn on_rto(&mut self, first: bool) {
        if first {
            self.reduce();
        }
        self.cwnd = self.mss;
    }

    /// Nothing was sent for `rtos` time-outs (RFC 5681 section 4.1, RFC 2861): what was known of the path is old.
    pub fn idle(&mut self, rtos: u32) {
        let floor = (10 * self.mss).min(self.cwnd);
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        self.cwnd = (self.cwnd >> rtos.min(31)).max(floor);
        self.cubic.epoch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends whole windows and loses one segment every `period` packets; returns packets a round trip.
    fn average(algo: Algorithm, rtt_ms: u64, period: u32) -> f64 {
        let mut cc = Cc::new(algo, 1000);
        let (mut now, mut sent, mut since, mut rounds) = (0, 0u64, 0, 0u64);
        let rtt = Duration::from_millis(rtt_ms);
        for _ in 0..20_000 {
            now += rtt_ms;
            let w = cc.cwnd / 1000;
            for _ in 0..w {
                cc.grow(Ktime(now * 1_000_000), 1000, rtt);
            }
            since += w;
            sent += u64::from(w);
            rounds += 1;
            if since >= period {
                since -= period;
                cc.on_loss();
                cc.cwnd = cc.ssthresh;
            }
        }
        sent as f64 / rounds as f64
    }

    #[test]
    fn follows_the_response_functions() {
        for period in [100, 1000, 10_000] {
            let p = 1.0 / f64::from(period);
            let reno = average(Algorithm::Reno, 20, period);
            let want = (1.5 / p).sqrt();
            assert!((0.85..1.2).contains(&(reno / want)), "reno p={p}: {reno} of {want}");
            let cubic = average(Algorithm::Cubic, 20, period);
            // RFC 9438 section 5.2: 1.054 (RTT^3 / p^3)^(1/4), or Reno's where that is more.
            let want = (1.054 * (0.02f64 / p).powf(0.75)).max(want);
            assert!((0.85..1.35).contains(&(cubic / want)), "cubic p={p}: {cubic} of {want}");
        }
        let want = 1.054 * (0.1f64 * 10_000.0).powf(0.75);
        let cubic = average(Algorithm::Cubic, 100, 10_000);
        assert!((0.8..1.3).contains(&(cubic / want)), "cubic: {cubic} of {want}");
    }

    #[test]
    fn starts_with_ten_and_survives_extremes() {
        let mut cc = Cc::new(Algorithm::Cubic, 1448);
        assert_eq!((cc.cwnd, cc.in_slow_start()), (14_480, true));
        for i in 0..100 {
            cc.grow(Ktime(i << 40), u32::MAX / 2, Duration::from_secs(100));
        }
        assert_eq!(cc.cwnd, MAX_WINDOW);
        for _ in 0..100 {
            cc.on_loss();
            cc.cwnd = cc.ssthresh;
        }
        cc.on_rto(true);
        assert_eq!((cc.cwnd, cc.ssthresh), (1448, 2896));
        cc.idle(40);
        assert_eq!(cc.cwnd, 1448);
    }
}
