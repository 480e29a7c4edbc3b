//! Token bucket: a rate with a burst, in integers and without a clock of its own.
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(super) struct Bucket {
    per_s: u64,
    burst: u64,
    tokens: u64,
    filled: Instant,
}

impl Bucket {
    /// Full at first. A rate of 0 is treated as 1: a bucket that never fills would block for ever.
    pub(super) fn new(per_s: u64, burst: u64, now: Instant) -> Self {
        Self {
            per_s: per_s.max(1),
            burst: burst.max(1),
            tokens: burst.max(1),
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let grown = u64::try_from(u128::from(nanos) * u128::from(self.per_s) / 1_000_000_000)
            .unwrap_or(u64::MAX);
        if grown == 0 {
            return; // keep the fraction
        }
        self.tokens = self.tokens.saturating_add(grown).min(self.burst);
        self.filled = now;
    }

    /// Tokens that are there now.
    pub(super) fn available(&mut self, now: Instant) -> u64 {
        self.fill(now);
        self.tokens
    }

    /// Take one if there is one.
    pub(super) fn take_one(&mut self, now: Instant) -> bool {
        self.fill(now);
        let some = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        some
    }

    /// Take what was used; a bucket does not go below empty.
    pub(super) fn spend(&mut self, amount: u64) {
        self.tokens = self.tokens.saturating_sub(amount);
    }

    /// How long until `amount` tokens are there, at most a full bucket.
    pub(super) fn wait(&mut self, amount: u64, now: Instant) -> Duration {
        self.fill(now);
        let missing = amount.min(self.burst).saturating_sub(self.tokens);
        let nanos = u128::from(missing) * 1_000_000_000 / u128::from(self.per_s);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)) + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 3, start);
        assert_eq!((0..5).filter(|_| bucket.take_one(start)).count(), 3);
        let later = start + Duration::from_millis(250);
        assert_eq!((0..5).filter(|_| bucket.take_one(later)).count(), 2);
        assert_eq!(bucket.available(start + Duration::from_secs(60)), 3);
    }

    #[test]
    fn waiting_as_long_as_it_says_is_enough() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1_000, 100, start);
        bucket.spend(100);
        let wait = bucket.wait(40, start);
        assert!(bucket.available(start + wait) >= 40);
        assert_eq!(Bucket::new(1, 1, start).available(start), 1);
    }
}
