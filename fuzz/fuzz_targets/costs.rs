//! Any bytes to any parser: it stays within the bounds on memory that `tests/parser_costs` checks.
//!
//! The first two bytes of the input choose the parser and the pieces.

#![no_main]

#[path = "../../tests/parser_costs/allocation.rs"]
mod allocation;
#[allow(dead_code)]
#[path = "../../tests/parser_costs/inputs.rs"]
mod inputs;
#[allow(dead_code)]
#[path = "../../tests/parser_costs/parsers.rs"]
mod parsers;
#[path = "../../tests/parser_costs/services.rs"]
mod services;

use libfuzzer_sys::fuzz_target;
use parsers::PARSERS;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[parser, piece], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let parser = &PARSERS[usize::from(parser) % PARSERS.len()];
    let piece = parser.pieces[usize::from(piece) % parser.pieces.len()];
    assert_eq!(parser.check(bytes, piece), Ok(()));
});
