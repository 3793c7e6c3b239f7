//! Frame headers: read in general, read in the short way of whole messages, and written; beside tungstenite's own.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use percore::internal::protocol::frame::{MAX_HEADER_BYTES, decode, decode_short, encode};
use std::hint::black_box;
use std::io::Cursor;
use std::time::Duration;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

const SIZES: [usize; 4] = [20, 125, 1024, 65_536];
const BINARY: OpCode = OpCode::Data(Data::Binary);

/// A masked binary frame, as a client sends it.
fn frame(payload_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; MAX_HEADER_BYTES + payload_bytes];
    let header_bytes = encode(&mut bytes, BINARY, false, payload_bytes, Some([1, 2, 3, 4]));
    bytes.truncate(header_bytes + payload_bytes);
    bytes
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/read");
    for size in SIZES {
        let bytes = frame(size);
        group.bench_with_input(BenchmarkId::new("decode", size), &bytes, |b, bytes| {
            b.iter(|| decode(black_box(bytes)));
        });
        // The short way is for lengths of at most 16 bits.
        if size <= usize::from(u16::MAX) {
            assert!(decode_short::<true>(&bytes).is_some());
            group.bench_with_input(BenchmarkId::new("decode_short", size), &bytes, |b, bytes| {
                b.iter(|| decode_short::<true>(black_box(bytes)));
            });
        }
        group.bench_with_input(BenchmarkId::new("tungstenite", size), &bytes, |b, bytes| {
            b.iter(|| FrameHeader::parse(&mut Cursor::new(black_box(bytes))));
        });
    }
    group.finish();
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/write");
    for size in SIZES {
        let mut out = [0; MAX_HEADER_BYTES];
        group.bench_function(BenchmarkId::new("encode", size), |b| {
            b.iter(|| encode(black_box(&mut out), BINARY, false, black_box(size), None));
        });
        group.bench_function(BenchmarkId::new("tungstenite", size), |b| {
            let (rsv1, rsv2, rsv3) = (false, false, false);
            b.iter(|| {
                let header = FrameHeader { is_final: true, rsv1, rsv2, rsv3, opcode: BINARY, mask: None };
                header.format(black_box(size as u64), &mut black_box(&mut out[..]))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = read, write
}
criterion_main!(benches);
