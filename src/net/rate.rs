//! Limits how much a client may send: a token bucket for messages and one for bytes, kept as two points in time.
//!
//! Each bucket is the time at which it will be full again (the generic cell rate algorithm): taking from it moves that
//! time on, and more may be taken while it lies at most a burst ahead.

use std::time::Duration;

/// How much a client may send on average; it may send two seconds' worth at once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RateRules {
    /// Messages and HTTP requests a second; 0 for no limit.
    pub messages: u32,
    /// Payload bytes a second, after decompression; 0 for no limit.
    pub bytes: usize,
    /// Bytes a second that a channel carries, to each subscriber, of what all clients publish; 0 for no limit. More
    /// than 64 subscribers share the total of 64.
    pub channel: usize,
}

/// A burst is what a client may send in this time.
const BURST: Duration = Duration::from_secs(2);

/// When each of a client's buckets will be full, in nanoseconds since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bucket {
    messages: u64,
    bytes: u64,
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

impl RateRules {
    /// Returns whether any limit is set.
    pub fn is_limited(&self) -> bool {
        self.messages > 0 || self.bytes > 0 || self.channel > 0
    }

    /// The cost of a number of messages.
    fn message_nanos(&self, count: u64) -> u64 {
        (count * 1_000_000_000).checked_div(self.messages.into()).unwrap_or(0)
    }

    fn byte_nanos(&self, count: u64) -> u64 {
        let nanos = (u128::from(count) * 1_000_000_000).checked_div(self.bytes as u128).unwrap_or(0);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// How many messages may be taken now, at least 1.
    #[doc(hidden)]
    pub fn allowance(&self, bucket: &Bucket, now: Duration) -> u64 {
        if self.messages == 0 {
            return u64::MAX;
        }
        let ahead = bucket.messages.saturating_sub(nanos(now));
        (nanos(BURST).saturating_sub(ahead) / self.message_nanos(1).max(1)).max(1)
    }

    /// Takes messages and bytes that have arrived. It may take more than is available; the client then waits.
    #[doc(hidden)]
    pub fn take(&self, bucket: &mut Bucket, messages: u64, bytes: u64, now: Duration) {
        bucket.messages = bucket.messages.max(nanos(now)).saturating_add(self.message_nanos(messages));
        bucket.bytes = bucket.bytes.max(nanos(now)).saturating_add(self.byte_nanos(bytes));
    }

    /// When more may be taken; `None` for now.
    #[doc(hidden)]
    pub fn wait_until(&self, bucket: &Bucket, now: Duration) -> Option<Duration> {
        // Another message must fit; for bytes it suffices that there is no debt.
        let messages = bucket.messages.saturating_add(self.message_nanos(1));
        let ready = messages.max(bucket.bytes).saturating_sub(nanos(BURST));
        (ready > nanos(now)).then(|| Duration::from_nanos(ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over any time, whatever is requested, at most the rate and a burst are taken; a client that waits as told
        /// gets the whole rate.
        #[test]
        fn the_rate_holds(
            messages in 1u32..5_000, bytes in 1usize..1_000_000,
            steps in prop::collection::vec((0u64..400, 1u64..300, 0u64..50_000), 1..300)
        ) {
            let rules = RateRules { messages, bytes, channel: 0 };
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            let (mut taken, mut taken_bytes, mut last_bytes) = (0u64, 0u64, 0);
            for (pause, wanted, size) in steps {
                now += Duration::from_millis(pause);
                if let Some(until) = rules.wait_until(&bucket, now) {
                    prop_assert!(until > now);
                    now = until;
                }
                prop_assert_eq!(rules.wait_until(&bucket, now), None);
                let count = wanted.min(rules.allowance(&bucket, now));
                rules.take(&mut bucket, count, size, now);
                taken += count;
                taken_bytes += size;
                last_bytes = size;
                let seconds = (now + BURST).as_secs_f64();
                prop_assert!(taken as f64 <= f64::from(messages) * seconds + 1.01, "{taken} messages");
                prop_assert!(taken_bytes as f64 <= bytes as f64 * seconds + last_bytes as f64 + 1.0, "{taken_bytes} bytes");
            }
            // The wait never exceeds what was taken is worth.
            let worth = (taken as f64 / f64::from(messages)).max(taken_bytes as f64 / bytes as f64);
            let wait = rules.wait_until(&bucket, now).unwrap_or(now) - now;
            prop_assert!(wait.as_secs_f64() <= worth + 1e-6 || last_bytes > 0);
        }
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let (rules, mut bucket) = (RateRules::default(), Bucket::default());
        rules.take(&mut bucket, u64::from(u32::MAX), u64::MAX, Duration::ZERO);
        assert_eq!(rules.wait_until(&bucket, Duration::ZERO), None);
        assert_eq!(rules.allowance(&bucket, Duration::ZERO), u64::MAX);
        assert!(!rules.is_limited());
    }
}
