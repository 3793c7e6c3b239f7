//! Workers and the keeper of their history, from a seed: what they say to each other is late or lapped, each of them is killed at any
//! step, the log is torn, cut and compacted, and the disk is full. Each client hears every publication once and in order, or is told
//! that it missed some; what was answered as published is there once, and what was answered as failed is nowhere.
//!
//! `PERCORE_SEED=n` replays one seed.

use crate::history_world::World;

const STEPS: usize = 700;

fn run(seed: u64) -> [u64; 4] {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.end()
}

#[test]
fn everyone_hears_what_was_accepted_and_nothing_else() {
    if let Some(seed) = std::env::var("PERCORE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let mut all = [0; 4];
    for seed in 0..80 {
        println!("PERCORE_SEED={seed}");
        let counts = run(seed);
        all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let [heard, recovered, lost, failed] = all;
    // All of it happens.
    assert!(heard > 5_000 && recovered > 500 && lost > 100 && failed > 50, "{all:?}");
}
