//! Log records as lines on standard error, written by a thread of its own, so that logging never blocks.
//!
//! A standard error that is not read (a full pipe, a stopped terminal) blocks that thread and nothing else. It cannot
//! be made non-blocking, because other processes share it; and since several workers write to one pipe, polling it
//! first guarantees nothing.
//!
//! The thread starts with the first line. The queue is bounded; lines beyond that are dropped and counted, and a line
//! with the count replaces them as soon as lines flow again.

use super::clock::unix_time;
use super::patient::Patient;
use crate::telemetry::log::{Log, Record, json_string, lines_left_out};
use crate::time::calendar::Utc;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The format of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum LogFormat {
    /// `2026-01-31T12:00:00.000Z INFO text`
    #[default]
    Text,
    /// One JSON object per line: `time`, `level`, `event`, `message` and the record's fields.
    Json,
    /// Not a line on standard error, but a record for the logger of the crate [`log`](https://docs.rs/log), with the
    /// target `percore::EVENT`, such as `percore::open`. The server's one thread calls the logger, which must not
    /// block.
    #[cfg(feature = "log")]
    Facade,
}

/// Limit on the bytes waiting to be written.
const MOST_BYTES: usize = 1024 * 1024;
/// A pipe takes up to this many bytes atomically (PIPE_BUF), so that lines of several processes do not mix.
const WRITE_BYTES: usize = 4096;
/// A buffer that grew beyond this is freed.
const KEEP_BYTES: usize = 16 * 1024;
/// The thread's stack.
const STACK_BYTES: usize = 64 * 1024;
/// How long the end of a process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

static STANDARD_ERROR: Lines = Lines::new();

/// Passes on the queued records of a log.
pub fn write_log(format: LogFormat, log: &mut Log) {
    if log.is_empty() {
        return;
    }
    STANDARD_ERROR.left_out.fetch_add(log.left_out(), Relaxed);
    #[cfg(feature = "log")]
    if format == LogFormat::Facade {
        return log.take().iter().for_each(super::log_facade::to_facade);
    }
    STANDARD_ERROR.push(format, &log.take());
}

/// Adds the worker's number to every line from now on.
pub fn name_worker(slot: usize) {
    STANDARD_ERROR.lock().style.worker = Some(slot);
}

/// The number of lines of this process that were dropped, for whatever reason.
pub fn lines_dropped() -> u64 {
    STANDARD_ERROR.left_out.load(Relaxed)
}

/// Writes the last line of a process, after its log. Waits for both as [`finish`] does.
pub fn last_line(line: &str) {
    STANDARD_ERROR.push_lines(&format!("{line}\n"));
    if !STANDARD_ERROR.lock().begun {
        // There can be no thread; and if standard error takes no more, that cannot be reported.
        let _ = writeln!(io::stderr(), "{line}");
    }
    finish();
}

/// Waits until all lines are written, at most a second; not at all if an earlier wait was in vain.
pub fn finish() {
    STANDARD_ERROR.finish(LAST_LINES);
}

/// What all lines of a process share.
#[derive(Clone, Copy)]
struct Style {
    format: LogFormat,
    worker: Option<usize>,
}

struct Queue {
    style: Style,
    waiting: Vec<u8>,
    /// Bytes that the thread has taken but not written yet.
    taken: usize,
    /// Lines dropped after those that wait.
    left_out: u64,
    /// Whether there is a thread.
    begun: bool,
    /// Whether a wait was in vain, and nothing was written since.
    stuck: bool,
}

impl Queue {
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.taken == 0 && self.left_out == 0
    }
}

/// Lines on their way to a descriptor.
struct Lines {
    queue: Mutex<Queue>,
    came: Condvar,
    went: Condvar,
    /// All lines dropped so far.
    left_out: AtomicU64,
}

impl Lines {
    const fn new() -> Lines {
        let style = Style { format: LogFormat::Text, worker: None };
        let queue = Queue { style, waiting: Vec::new(), taken: 0, left_out: 0, begun: false, stuck: false };
        Lines { queue: Mutex::new(queue), came: Condvar::new(), went: Condvar::new(), left_out: AtomicU64::new(0) }
    }

    /// Held only briefly, never during a write.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&'static self, format: LogFormat, records: &[Record]) {
        let time = timestamp();
        let style = {
            let mut queue = self.lock();
            queue.style.format = format;
            queue.style
        };
        let lines: String = records.iter().map(|record| line(style, &time, record)).collect();
        self.push_lines(&lines);
    }

    fn push_lines(&'static self, lines: &str) {
        let mut queue = self.lock();
        if !queue.begun {
            let thread = std::thread::Builder::new().name("log".into()).stack_size(STACK_BYTES);
            queue.begun = thread.spawn(|| self.write_on(io::stderr())).is_ok();
        }
        let before = queue.left_out;
        for line in lines.split_inclusive('\n') {
            let is_full = queue.waiting.len() + queue.taken + line.len() > MOST_BYTES;
            // Once a line is dropped, so are all until the thread reports their number.
            if is_full || queue.left_out > 0 || !queue.begun {
                queue.left_out += 1;
            } else {
                queue.waiting.extend_from_slice(line.as_bytes());
            }
        }
        self.left_out.fetch_add(queue.left_out - before, Relaxed);
        drop(queue);
        self.came.notify_one();
    }

    fn finish(&self, most: Duration) {
        let queue = self.lock();
        if !queue.stuck && queue.begun {
            let waited = self.went.wait_timeout_while(queue, most, |queue| !queue.is_done());
            let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            queue.stuck = !queue.is_done();
        }
    }

    /// Runs the thread.
    fn write_on(&self, stream: impl AsFd) {
        let mut stream = Patient(stream);
        let mut batch = Vec::new();
        loop {
            self.take(&mut batch);
            let mut rest = &batch[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(piece_bytes(rest));
                // A standard error that is gone for good must not end the service.
                if stream.write_all(piece).is_err() {
                    let lines = piece.iter().filter(|&&byte| byte == b'\n').count();
                    self.left_out.fetch_add(lines as u64, Relaxed);
                }
                rest = behind;
                let mut queue = self.lock();
                (queue.taken, queue.stuck) = (rest.len(), false);
                if queue.is_done() {
                    self.went.notify_all();
                }
            }
            batch.clear();
            if batch.capacity() > KEEP_BYTES {
                batch = Vec::new();
            }
        }
    }

    /// Waits for lines, and takes all; `batch` must be empty.
    fn take(&self, batch: &mut Vec<u8>) {
        let waited = self.came.wait_while(self.lock(), |queue| queue.is_done());
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(batch, &mut queue.waiting);
        let left_out = std::mem::take(&mut queue.left_out);
        if left_out > 0 {
            let record = lines_left_out(left_out, "standard error was not read in time");
            batch.extend_from_slice(line(queue.style, &timestamp(), &record).as_bytes());
        }
        queue.taken = batch.len();
    }
}

/// The length of the next piece: lines that a pipe takes atomically, or one longer line.
fn piece_bytes(bytes: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let whole = bytes[..bytes.len().min(WRITE_BYTES)].iter().rposition(is_end);
    whole.or_else(|| bytes.iter().position(is_end)).map_or(bytes.len(), |end| end + 1)
}

fn timestamp() -> String {
    let now = unix_time();
    Utc::from_unix(now.as_secs()).rfc3339(now.subsec_millis())
}

fn line(Style { format, worker }: Style, time: &str, record: &Record) -> String {
    let (level, text) = (record.level.name(), &record.text);
    if format == LogFormat::Text {
        let worker = worker.map_or_else(String::new, |slot| format!(" worker={slot}"));
        return format!("{time} {level} {text}{worker}\n");
    }
    let worker = worker.map_or_else(String::new, |slot| format!(",\"worker\":{slot}"));
    let fields = record.fields.iter().map(|(name, value)| format!(",\"{name}\":{}", value.to_json()));
    let (fields, level) = (fields.collect::<String>(), level.to_ascii_lowercase());
    let (event, message) = (record.event, json_string(text));
    format!(
        "{{\"time\":\"{time}\",\"level\":\"{level}\",\"event\":\"{event}\"{worker}{fields},\"message\":{message}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log::{Level, Value};
    use std::io::{BufRead, BufReader, PipeReader};

    fn record(text: String) -> Record {
        Record { level: Level::Info, event: "open", text, fields: Vec::new() }
    }

    /// Lines with a thread that writes them to a pipe that is not read yet.
    fn lines() -> (&'static Lines, PipeReader) {
        let lines: &Lines = Box::leak(Box::new(Lines::new()));
        let (reader, writer) = io::pipe().expect("a pipe");
        lines.lock().begun = true;
        std::thread::spawn(|| lines.write_on(writer));
        (lines, reader)
    }

    #[test]
    fn how_they_look() {
        let fields = vec![
            ("peer", Value::Text("x".into())),
            ("code", Value::Number(1006)),
            ("after", Value::Time(Duration::from_millis(12_345))),
        ];
        let record = Record { fields, ..record("a \"b\"".into()) };
        let mut style = Style { format: LogFormat::Text, worker: None };
        assert_eq!(line(style, "T", &record), "T INFO a \"b\"\n");
        style.worker = Some(3);
        assert_eq!(line(style, "T", &record), "T INFO a \"b\" worker=3\n");
        style.format = LogFormat::Json;
        let json = r#"{"time":"T","level":"info","event":"open","worker":3,"peer":"x","code":1006,"after":12.3,"message":"a \"b\""}"#;
        assert_eq!(line(style, "T", &record), format!("{json}\n"));
    }

    #[test]
    fn who_logs_does_not_wait_and_the_number_of_what_is_lost_is_told() {
        let (lines, reader) = lines();
        let (text, mut pushed) = ("x".repeat(1000), 0);
        while lines.left_out.load(Relaxed) < 100 {
            let batch: Vec<Record> = (0..10).map(|n| record(format!("{} {text}", pushed + n))).collect();
            lines.push(LogFormat::Text, &batch);
            pushed += 10;
        }
        assert!(pushed < 1500, "{pushed} lines of a thousand bytes wait");
        let lost = lines.left_out.load(Relaxed);
        // The pipe is not read, so the second wait ends at once.
        lines.finish(Duration::from_millis(20));
        assert!(lines.lock().stuck);
        lines.finish(Duration::from_secs(3600));

        let mut read = BufReader::new(reader).lines().map_while(Result::ok);
        for number in 0..pushed - lost {
            let line = read.next().expect("a line");
            assert!(line.contains(&format!(" INFO {number} ")), "{line}");
        }
        let line = read.next().expect("a line");
        let told = format!(" WARN {lost} log lines left out: standard error was not read in time");
        assert!(line.ends_with(&told), "{line}");
        lines.push(LogFormat::Text, &[record("it flows again".into())]);
        assert!(read.next().expect("a line").ends_with(" INFO it flows again"));
        lines.finish(Duration::from_secs(3600));
        assert!(lines.lock().is_done() && lines.lock().waiting.capacity() <= KEEP_BYTES);
    }

    #[test]
    fn a_stream_that_is_gone_is_counted() {
        let (lines, reader) = lines();
        drop(reader);
        lines.push(LogFormat::Text, &[record("a".into()), record("b".into())]);
        lines.finish(Duration::from_secs(3600));
        assert_eq!(lines.left_out.load(Relaxed), 2);
    }

    #[test]
    fn pieces_are_whole_lines() {
        let line = |bytes: usize| format!("{}\n", "y".repeat(bytes - 1));
        let lengths = |lines: &[usize]| {
            let (text, mut lengths) = (lines.iter().map(|&bytes| line(bytes)).collect::<String>(), Vec::new());
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                lengths.push(piece_bytes(rest));
                rest = &rest[piece_bytes(rest)..];
            }
            lengths
        };
        assert_eq!(lengths(&[10, 20, 30]), [60]);
        assert_eq!(lengths(&[4000, 96, 1]), [4096, 1]);
        assert_eq!(lengths(&[4000, 97, 10_000, 5]), [4000, 97, 10_000, 5]);
        assert_eq!(piece_bytes(b"no end"), 6);
    }
}
