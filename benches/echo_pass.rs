//! A whole pass of the echo server but for the kernel: bytes in, frames, app, queue, bytes out; beside tungstenite's
//! `WebSocket` on the same bytes, copied into its read buffer and counted as they are written. Elements are messages.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use percore::Kind;
use std::io::{self, Read, Write};
use std::time::Duration;
use support::{KEY, Load, Percore};
use tungstenite::protocol::Role;
use tungstenite::{Error, WebSocket};

/// Payload in bytes, and messages in flight.
const LOADS: [(usize, usize); 7] = [(20, 1), (20, 32), (125, 1), (125, 32), (1024, 1), (16 << 10, 1), (1 << 20, 1)];

/// tungstenite's `WebSocket` over memory.
struct Tungstenite {
    socket: WebSocket<Memory>,
    answer_bytes: usize,
}

/// A stream that would block once `input` was read, until it is rewound.
struct Memory {
    input: Vec<u8>,
    read: usize,
    written: usize,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = buffer.len().min(self.input.len() - self.read);
        if bytes == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..bytes].copy_from_slice(&self.input[self.read..self.read + bytes]);
        self.read += bytes;
        Ok(bytes)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tungstenite {
    /// A connection that is open.
    fn new(load: Load) -> Tungstenite {
        let memory = Memory { input: load.frames(Some(KEY)), read: 0, written: 0 };
        let socket = WebSocket::from_raw_socket(memory, Role::Server, None);
        Tungstenite { socket, answer_bytes: load.frames(None).len() }
    }

    /// Reads all there is, queues the answers, and writes them.
    fn pass(&mut self) {
        let memory = self.socket.get_mut();
        (memory.read, memory.written) = (0, 0);
        loop {
            match self.socket.read() {
                Ok(message) => self.socket.write(message).expect("memory takes it"),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("the frames are right: {error}"),
            }
        }
        self.socket.flush().expect("memory takes it");
        assert_eq!(self.socket.get_ref().written, self.answer_bytes);
    }
}

fn echo_pass(c: &mut Criterion) {
    for (name, kind) in [("binary", Kind::Binary), ("text", Kind::Text)] {
        let mut group = c.benchmark_group(format!("echo_pass/{name}"));
        for (size, in_flight) in LOADS {
            let load = Load { kind, size, in_flight };
            let parameter = format!("{size}x{in_flight}");
            group.throughput(Throughput::Elements(in_flight as u64));
            group.bench_with_input(BenchmarkId::new("percore", &parameter), &load, |b, load| {
                let mut percore = Percore::new(*load);
                b.iter(|| percore.pass());
            });
            group.bench_with_input(BenchmarkId::new("tungstenite", &parameter), &load, |b, load| {
                let mut tungstenite = Tungstenite::new(*load);
                b.iter(|| tungstenite.pass());
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = echo_pass
}
criterion_main!(benches);
