//! UTF-8 checks: a whole text (the validator of whole messages, beside the standard library's), and a stream of pieces.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percore::internal::protocol::utf8::Utf8Stream;
use std::hint::black_box;
use std::time::Duration;

const SIZES: [usize; 3] = [125, 1024, 16 << 10];
/// What a stream is cut into. Odd, so that characters are cut as well.
const PIECE_BYTES: usize = 1447;

/// `sentence` again and again, to at most `size` bytes.
fn text(sentence: &str, size: usize) -> String {
    let mut left = size;
    let fits = |c: &char| left.checked_sub(c.len_utf8()).inspect(|rest| left = *rest).is_some();
    sentence.chars().cycle().take_while(fits).collect()
}

fn utf8(c: &mut Criterion) {
    for (name, sentence) in [
        ("ascii", "The quick brown fox jumps over the lazy dog. "),
        ("multi_byte", "Zwölf Boxkämpfer jagen Viktor, 十二人のボクサーが追う 🥊 "),
    ] {
        let mut group = c.benchmark_group(format!("utf8/{name}"));
        for size in SIZES {
            let text = text(sentence, size);
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_with_input(BenchmarkId::new("whole", size), text.as_bytes(), |b, bytes| {
                b.iter(|| simdutf8::basic::from_utf8(black_box(bytes)).is_ok());
            });
            group.bench_with_input(BenchmarkId::new("std", size), text.as_bytes(), |b, bytes| {
                b.iter(|| std::str::from_utf8(black_box(bytes)).is_ok());
            });
            group.bench_with_input(BenchmarkId::new("stream", size), text.as_bytes(), |b, bytes| {
                b.iter(|| {
                    let mut stream = Utf8Stream::default();
                    black_box(bytes).chunks(PIECE_BYTES).all(|piece| stream.push(piece).is_ok())
                        && stream.finish().is_ok()
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = utf8
}
criterion_main!(benches);
