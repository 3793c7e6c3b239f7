//! Masking: where the payload lies, and on the way to another place; beside a loop over the bytes as the RFC writes it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percore::internal::protocol::mask::{Mask, apply, copy};
use std::hint::black_box;
use std::time::Duration;

const SIZES: [usize; 5] = [20, 125, 1024, 16 << 10, 1 << 20];
const KEY: Mask = [0x37, 0xfa, 0x21, 0x3d];

/// RFC 6455, section 5.3, word for word.
fn byte_by_byte(bytes: &mut [u8], key: Mask) {
    for i in 0..bytes.len() {
        bytes[i] ^= key[i % 4];
    }
}

fn mask(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    for size in SIZES {
        let (mut bytes, mut target) = (vec![b'x'; size], vec![0; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("apply", size), |b| {
            b.iter(|| apply(black_box(&mut bytes), black_box(KEY)));
        });
        group.bench_function(BenchmarkId::new("copy", size), |b| {
            b.iter(|| copy(black_box(&bytes), black_box(&mut target), black_box(KEY)));
        });
        group.bench_function(BenchmarkId::new("byte_by_byte", size), |b| {
            b.iter(|| byte_by_byte(black_box(&mut bytes), black_box(KEY)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = mask
}
criterion_main!(benches);
