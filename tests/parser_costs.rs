//! What a byte of input costs is bounded, for every parser and for any input: bytes allocated, bytes held, and
//! instructions. The bounds stand in `parser_costs/parsers.rs`; most parsers stay far below them.
//!
//! Instructions are counted by callgrind, where valgrind is installed: as the difference between inputs of which one is
//! twice as long as the other, so that a parser whose cost grows with the square of its input is found out.

#![allow(unsafe_code)]

#[path = "parser_costs/allocation.rs"]
mod allocation;
#[path = "parser_costs/inputs.rs"]
mod inputs;
#[path = "parser_costs/parsers.rs"]
mod parsers;
#[path = "parser_costs/services.rs"]
mod services;

use inputs::Input;
use parsers::{PARSERS, Parser, shown};
use proptest::prelude::*;
use std::path::Path;
use std::process::{Command, Stdio};

/// Lengths of inputs whose instructions are counted, the second twice the first.
const COUNTED: [usize; 2] = [8 << 10, 16 << 10];
/// Instructions that a byte may cost. Most cost far fewer; those that come one at a time cost 200 to 400.
const INSTRUCTIONS: u64 = 1000;

#[test]
fn hostile_input_takes_memory_within_its_bounds() {
    let mut above = Vec::new();
    for (parser, input) in hostile() {
        for length in [0, 20, 1000, 100_000] {
            let bytes = input.bytes(length);
            above.extend(parser.pieces.iter().filter_map(|piece| parser.check(&bytes, *piece).err()));
        }
    }
    assert!(above.is_empty(), "{}", above.join("\n"));
}

fn hostile() -> impl Iterator<Item = (&'static Parser, &'static Input)> {
    PARSERS.iter().flat_map(|parser| parser.hostile.iter().map(move |input| (parser, input)))
}

/// Input that is hostile, or noise, or hostile with some noise in it.
fn input() -> impl Strategy<Value = (usize, Vec<u8>, usize)> {
    let place = any::<prop::sample::Index>;
    let noise = prop::collection::vec((place(), any::<u8>()), 0..4);
    (0..PARSERS.len(), place(), 0usize..3000, noise, prop::collection::vec(any::<u8>(), 0..600), place()).prop_map(
        |(parser, hostile, length, changes, noise, piece)| {
            let Parser { hostile: inputs, pieces, .. } = &PARSERS[parser];
            let piece = pieces[piece.index(pieces.len())];
            let chosen = hostile.index(inputs.len() + 1);
            let Some(input) = inputs.get(chosen) else { return (parser, noise, piece) };
            let mut bytes = input.bytes(length);
            for (place, byte) in changes {
                let length = bytes.len().max(1);
                bytes.get_mut(place.index(length)).into_iter().for_each(|old| *old = byte);
            }
            (parser, bytes, piece)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_input_takes_memory_within_its_bounds((parser, bytes, piece) in input()) {
        prop_assert_eq!(PARSERS[parser].check(&bytes, piece), Ok(()));
    }
}

/// Every hostile input of every parser, in the pieces that cost most.
fn counted() -> impl Iterator<Item = (&'static Parser, Vec<u8>, usize)> {
    hostile().flat_map(|(parser, input)| COUNTED.map(|length| (parser, input.bytes(length), parser.pieces[0])))
}

/// What callgrind counts. Never inlined, so that it has a name.
#[inline(never)]
fn counted_by_callgrind(parser: &Parser, bytes: &[u8], piece: usize) -> usize {
    parser.read(bytes, piece)
}

#[test]
#[ignore = "is run by the test below, under callgrind"]
fn everything_once() {
    for (parser, bytes, piece) in counted() {
        // What is set up with the first call is not counted.
        let came_out = parser.read(&bytes, piece);
        assert_eq!(counted_by_callgrind(parser, &bytes, piece), came_out);
    }
}

#[test]
fn instructions_for_each_byte_are_bounded() {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        return eprintln!("not counted: there is no valgrind");
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("parser-costs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let own = std::env::current_exe().expect("a path");
    let function = "parser_costs::counted_by_callgrind";
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect={function}"), &format!("--dump-after={function}")])
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(own)
        .args(["--exact", "everything_once", "--ignored", "--test-threads=1"])
        .output()
        .expect("valgrind runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let count = |number: usize| -> u64 {
        let dump = std::fs::read_to_string(folder.join(format!("out.{number}"))).expect("a dump for each call");
        let totals = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        totals.and_then(|total| total.trim().parse().ok()).expect("a number")
    };
    let cases: Vec<_> = counted().collect();
    let mut above = Vec::new();
    for (number, pair) in cases.chunks(2).enumerate() {
        let [(parser, short, piece), (_, long, _)] = pair else { panic!("pairs") };
        let size = |bytes: &Vec<u8>| (bytes.len() + parser.read(bytes, *piece)) as u64;
        let more = count(2 * number + 2).saturating_sub(count(2 * number + 1));
        let each = more / size(long).saturating_sub(size(short)).max(1);
        println!("{:>30} {each:>5} {}", parser.name, shown(short));
        if each > INSTRUCTIONS {
            above.push(format!("{}: {each} instructions a byte: {}", parser.name, shown(short)));
        }
    }
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(above.is_empty(), "{}", above.join("\n"));
}
