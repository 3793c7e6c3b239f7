//! The timer wheel with 10,000 timers, spread over half a minute as heartbeats are.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use percore::internal::time::wheel::{TICK, Wheel};
use std::hint::black_box;
use std::time::Duration;

const TIMERS: u32 = 10_000;
const ROUND: Duration = Duration::from_secs(30);

/// When the timer of `key` is due, counted from some tick: evenly spread, neighbours far apart.
fn delay(key: u32) -> Duration {
    ROUND * (key.wrapping_mul(7919) % TIMERS) / TIMERS
}

fn armed() -> Wheel {
    let mut wheel = Wheel::new();
    for key in 0..TIMERS {
        wheel.arm(key, delay(key));
    }
    wheel
}

fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    group.bench_function("arm_10000_from_empty", |b| b.iter(armed));
    group.bench_function("cancel_10000", |b| {
        let cancel_all = |mut wheel: Wheel| {
            (0..TIMERS).for_each(|key| wheel.cancel(key));
            wheel
        };
        b.iter_batched(armed, cancel_all, BatchSize::PerIteration);
    });
    group.bench_function("move_one", |b| {
        let (mut wheel, mut key) = (armed(), 0);
        b.iter(|| {
            key = (key + 1) % TIMERS;
            wheel.arm(black_box(key), delay(key) + ROUND);
        });
    });
    // A tick as the loop has it: what has expired, about ten timers, is armed anew.
    group.bench_function("advance_a_tick", |b| {
        let (mut wheel, mut now, mut expired) = (armed(), Duration::ZERO, Vec::new());
        b.iter(|| {
            now += TICK;
            wheel.advance(now, &mut expired);
            expired.drain(..).for_each(|key| wheel.arm(key, now + ROUND));
        });
    });
    group.bench_function("next_deadline", |b| {
        let wheel = armed();
        b.iter(|| black_box(&wheel).next_deadline());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = wheel
}
criterion_main!(benches);
