//! A host that has no room and cannot say when it will: how long to wait, and when to stop.

use klib::ktime::Ktime;
use std::time::Duration;

/// First pause: what a fast interface needs to send some of its queue.
const FIRST: Duration = Duration::from_micros(50);
/// Longest one.
const LONGEST: Duration = Duration::from_millis(5);
/// A frame that has been refused for so long is one that will never be taken (longer than the bucket of a shaper, say): it
/// must not stand in the way of the others for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// One frame that is refused again and again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Refusal {
    since: Option<Ktime>,
    pause: Duration,
}

impl Refusal {
    /// Refused once more: how long to wait before the next attempt.
    pub fn pause(&mut self, now: Ktime) -> Duration {
        self.since.get_or_insert(now);
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.pause
    }

    /// True if that was the last attempt for this frame; the next one begins anew.
    pub fn is_final(&mut self, now: Ktime) -> bool {
        let over = self.since.is_some_and(|s| now.since(s) >= PATIENCE);
        if over {
            *self = Self::default();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let (mut r, mut now, mut pauses) = (Refusal::default(), Ktime::default() + FIRST, Vec::new());
        while !r.is_final(now) {
            let p = r.pause(now);
            pauses.push(p);
            now = now + p;
        }
        assert_eq!(pauses[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]) && pauses.last() == Some(&LONGEST));
        let total: Duration = pauses.iter().sum();
        assert!(total >= PATIENCE && total < PATIENCE + LONGEST, "{total:?}");
        assert_eq!((r.is_final(now), r.pause(now)), (false, FIRST), "the next frame begins anew");
    }
}
