//! Participants of a bus on a simulated region, with simulated locks, links, lists and time: thousands of joins,
//! deaths, stops, laps, reused slots, and damage, in any order.
//!
//! Each run follows from its seed. A model determines what each participant must receive: the messages published since
//! it joined, of each slot in order and at most once, with all others counted; the participants, and the members of
//! their channels. A run that fails prints its seed, and `PERCORE_SEED=<seed> cargo test --test model bus_simulation`
//! repeats it alone.

use crate::bus_world::World;
use crate::simulation::random::Random;
use std::time::{SystemTime, UNIX_EPOCH};

const RUNS: u64 = 150;
const STEPS: u32 = 3_000;

/// Prints the seed when a run panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat this: PERCORE_SEED={} cargo test --test model bus_simulation", self.0);
        }
    }
}

fn simulate(seed: u64, is_damaged: bool) -> World {
    let _printed_on_failure = Seed(seed);
    let mut world = World::new(Random::new(seed), is_damaged);
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
    world
}

/// Runs from the seed that was asked for alone, else many from `otherwise` on.
fn simulate_from(otherwise: u64, is_damaged: bool) {
    if let Ok(text) = std::env::var("PERCORE_SEED") {
        simulate(text.parse().expect("PERCORE_SEED is a number"), is_damaged);
        return;
    }
    let (mut heard, mut lost, mut joins) = (0, 0, 0);
    for seed in otherwise..otherwise + RUNS {
        let world = simulate(seed, is_damaged);
        (heard, lost, joins) = (heard + world.heard, lost + world.lost, joins + world.joins);
    }
    println!("{joins} joins; {heard} records heard, {lost} lost and counted");
    assert!(heard > 10_000 && lost > 1_000 && joins > 1_000, "something happens");
}

#[test]
fn what_was_published_is_heard_in_order_and_once_or_counted() {
    simulate_from(1, false);
}

#[test]
fn damage_costs_what_it_hit_and_no_more() {
    simulate_from(100_001, true);
}

#[test]
fn new_seeds() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let seed = since.as_nanos() as u64 >> 10;
    println!("seeds from {seed} on");
    simulate_from(seed, false);
    simulate_from(seed, true);
}
