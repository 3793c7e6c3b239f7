//! permessage-deflate of JSON texts of 1 KiB: each message by itself, and with the window of those before.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use percore::internal::protocol::deflate::{Deflater, Inflater, Output};
use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

const SIZE: usize = 1024;
const WINDOW_BITS: u8 = 15;
/// More texts than a window holds, so that none is found there whole.
const TEXTS: u32 = 64;

/// A list of quotes, no two alike.
fn json(mut n: u32) -> String {
    let mut text = String::from("[");
    while text.len() < SIZE {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (id, cents) = (n >> 16, n % 1000);
        let _ = write!(text, r#"{{"symbol":"S{id}","price":{id}.{cents:03},"volume":{cents},"open":true}},"#);
    }
    text.truncate(SIZE);
    text
}

fn deflate(c: &mut Criterion) {
    let texts: Vec<String> = (0..TEXTS).map(json).collect();
    let mut group = c.benchmark_group("deflate");
    group.throughput(Throughput::Bytes(SIZE as u64));
    for (name, level, takeover) in [("level_1", 1, false), ("level_6", 6, false), ("level_1_takeover", 1, true)] {
        let (mut deflater, mut out) = (Deflater::new(level, WINDOW_BITS, takeover), Output::new());
        let mut texts = texts.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| {
                let text = texts.next().expect("a cycle has no end");
                deflater.deflate(&[black_box(text.as_bytes())], &mut out);
            });
        });
    }
    group.finish();
}

fn inflate(c: &mut Criterion) {
    let (text, mut small, mut out) = (json(0), Output::new(), Output::new());
    Deflater::new(1, WINDOW_BITS, false).deflate(&[text.as_bytes()], &mut small);
    assert!(small.len() < SIZE);
    let mut inflater = Inflater::new();
    let mut group = c.benchmark_group("inflate");
    group.throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("level_1", |b| {
        b.iter(|| {
            inflater.reset();
            inflater.inflate(black_box(&small), &mut out, SIZE)
        });
    });
    group.finish();
    assert_eq!(&out[..], text.as_bytes());
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = deflate, inflate
}
criterion_main!(benches);
