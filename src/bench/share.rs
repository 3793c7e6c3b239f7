//! One process's share of a load.

use super::plan::{Plan, Workload};
use std::time::Duration;

/// A share of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The number of the process, from 0; the first one publishes.
    pub index: usize,
    /// The number of processes.
    pub workers: usize,
    /// Connections of the processes before it, which take turns with the same addresses.
    pub first: usize,
}

impl Share {
    /// The whole load.
    pub const WHOLE: Share = Share { index: 0, workers: 1, first: 0 };

    /// The delay of this process after the first, so that all together send at even intervals. `rate` is its own.
    pub fn phase(&self, rate: Option<f64>) -> Duration {
        let period = rate.map_or(0.0, |rate| 1.0 / rate);
        Duration::from_secs_f64(period * self.index as f64 / self.workers as f64)
    }
}

impl Plan {
    /// Returns the part of the process with this number. All parts together are the plan.
    #[must_use]
    pub fn part(&self, index: usize, workers: usize) -> Plan {
        let first = before(self.connections, index, workers);
        let connections = before(self.connections, index + 1, workers) - first;
        let portion = connections as f64 / self.connections.max(1) as f64;
        let publishes = self.workload == Workload::Fanout;
        let count = self.count.map(|count| {
            let until = |index: usize| (u128::from(count) * index as u128 / workers as u128) as u64;
            if publishes { count } else { until(index + 1) - until(index) }
        });
        Plan {
            connections,
            count,
            rate: self.rate.map(|rate| if publishes { rate } else { rate * portion }),
            connect_rate: self.connect_rate.map(|rate| rate * portion),
            // The source addresses of all: each process uses them in turn.
            source: self.sources().into_iter().flatten().collect(),
            pids: if index == 0 { self.pids.clone() } else { Vec::new() },
            share: Share { index, workers, first },
            ..self.clone()
        }
    }
}

/// How much of `all` comes before the part with this number.
fn before(all: usize, index: usize, workers: usize) -> usize {
    (all as u128 * index as u128 / workers as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::tests::plan;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_are_the_whole(all in 1usize..5_000_000, workers in 1usize..=1024, count: u64) {
            prop_assume!(all >= workers);
            let whole = Plan { connections: all, count: Some(count), rate: Some(1000.0), ..plan() };
            let parts: Vec<Plan> = (0..workers).map(|index| whole.part(index, workers)).collect();
            let mut first = 0;
            for (index, part) in parts.iter().enumerate() {
                prop_assert_eq!(part.share, Share { index, workers, first });
                prop_assert!(part.connections >= 1);
                first += part.connections;
            }
            prop_assert_eq!(first, all);
            prop_assert_eq!(parts.iter().map(|part| u128::from(part.count.unwrap_or(0))).sum::<u128>(), u128::from(count));
            let rate: f64 = parts.iter().filter_map(|part| part.rate).sum();
            prop_assert!((rate - 1000.0).abs() < 1e-6);
        }
    }

    #[test]
    fn one_publishes_all_of_it() {
        let whole = Plan { workload: Workload::Fanout, count: Some(9), rate: Some(5.0), pids: vec![7], ..plan() };
        let [first, second] = [whole.part(0, 2), whole.part(1, 2)];
        assert_eq!((first.count, second.count, first.rate), (Some(9), Some(9), Some(5.0)));
        assert_eq!((first.pids, second.pids), (vec![7], vec![]));
    }

    #[test]
    fn they_send_in_turn() {
        let shares = [0, 1, 2].map(|index| Share { index, workers: 3, first: 0 });
        let phases = shares.map(|share| share.phase(Some(100.0)).as_micros());
        assert_eq!(phases, [0, 3333, 6666]);
        assert_eq!(shares[2].phase(None), Duration::ZERO);
    }
}
