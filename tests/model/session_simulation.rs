//! Thousands of connections through [`percore::internal::session::Sessions`] on a simulated clock, without a socket.
//!
//! Each run follows from its seed: when clients connect, what is sent in which pieces, which sockets are slow, which
//! peers close, break the protocol, fall silent or reset. Days pass in seconds. A run that fails prints its seed, and
//! `PERCORE_SEED=<seed> cargo test --test model session_simulation` repeats it alone.

use crate::simulation::random::Random;
use crate::simulation::world::World;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CLIENTS: usize = 1_000;
const HOUR: Duration = Duration::from_secs(3600);
/// The sessions count milliseconds in 32 bits, which begin anew after this time.
const WRAP: Duration = Duration::from_millis(1 << 32);
/// The wheel's timers keep 32 bits of their tick, which begin anew after this time.
const ROUND_OF_TICKS: Duration = Duration::from_millis(32 << 32);

/// Prints the seed when a run panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat this: PERCORE_SEED={} cargo test --test model session_simulation", self.0);
        }
    }
}

fn simulate(seed: u64) {
    let _printed_on_failure = Seed(seed);
    let mut random = Random::new(seed);
    let start = *random.pick(&[Duration::ZERO, HOUR * 1_000, WRAP - HOUR, ROUND_OF_TICKS - HOUR, HOUR * 24 * 365 * 40]);
    let span = HOUR * random.between(1, 48) as u32;
    World::new(random.next(), start, span, CLIENTS).run(start + span + HOUR / 10);
}

/// The seed that was asked for, else `otherwise`.
fn seed_or(otherwise: u64) -> u64 {
    let Ok(text) = std::env::var("PERCORE_SEED") else { return otherwise };
    text.parse().expect("PERCORE_SEED is a number")
}

#[test]
fn seed_1() {
    simulate(seed_or(1));
}

#[test]
fn seed_2() {
    simulate(seed_or(2));
}

#[test]
fn seed_3() {
    simulate(seed_or(3));
}

#[test]
fn seed_4() {
    simulate(seed_or(4));
}

#[test]
fn a_new_seed() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let seed = seed_or(since.as_nanos() as u64);
    println!("seed {seed}");
    simulate(seed);
}
