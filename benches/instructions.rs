//! Echo passes and nothing else, to be counted by callgrind: instructions repeat where times do not.
//!
//! `--passes N --size BYTES --in-flight N [--text]`; the README beside this file has the whole command.
//! Without arguments, as `cargo bench` calls it, it does nothing.

mod support;

use clap::Parser;
use percore::Kind;
use std::hint::black_box;
use support::{Load, Percore};

#[derive(Parser)]
struct Args {
    /// How many passes to count; 0 for none
    #[arg(long, default_value_t = 0)]
    passes: u64,
    /// Payload of each message, in bytes
    #[arg(long, default_value_t = 125)]
    size: usize,
    /// Messages that come in one pass
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Text instead of binary
    #[arg(long)]
    text: bool,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    if args.passes == 0 {
        return;
    }
    let kind = if args.text { Kind::Text } else { Kind::Binary };
    let load = Load { kind, size: args.size, in_flight: args.in_flight };
    let mut percore = Percore::new(load);
    counted_passes(args.passes, &mut percore);
}

/// What callgrind collects. Never inlined, so that it has a name.
#[inline(never)]
fn counted_passes(passes: u64, percore: &mut Percore) {
    for _ in 0..black_box(passes) {
        percore.pass();
    }
}
