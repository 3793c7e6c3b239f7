//! Log records: any part of the program queues them here, and the owner of a file descriptor writes them once per pass.

use crate::net::id::{ConnectionId, Participant, Peer};
use std::fmt::{self, Write};
use std::time::Duration;

/// How much a record matters; the most important first: `Error < Debug`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// The process cannot do its work.
    Error,
    /// Something was refused, truncated or lost.
    Warn,
    /// Events of the process and of its connections.
    Info,
    /// Details that help to find a fault.
    Debug,
}

impl Level {
    /// The name in capitals, as in a line of text.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        }
    }
}

/// A value of a record's field.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A count, a size, or an identifying number.
    Number(u64),
    /// A time, shown to the tenth of a second.
    Time(Duration),
    /// Anything else.
    Text(String),
}

impl Value {
    /// The value as JSON: numbers as numbers, a time in seconds.
    pub fn to_json(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::Time(time) => format!("{:.1}", time.as_secs_f64()),
            Value::Text(text) => json_string(text),
        }
    }
}

/// A possible value of a field.
pub trait Field {
    /// Returns the value, to be kept.
    fn value(&self) -> Value;
}

macro_rules! fields {
    ($($number:ty),+; $($text:ty),+) => {
        $(impl Field for $number {
            fn value(&self) -> Value {
                Value::Number(*self as u64)
            }
        })+
        $(impl Field for $text {
            fn value(&self) -> Value {
                Value::Text(self.to_string())
            }
        })+
    };
}

fields! { u16, u32, u64, usize; &str, String, Peer, ConnectionId, Participant }

impl Field for Duration {
    fn value(&self) -> Value {
        Value::Time(*self)
    }
}

/// One line of the log.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// How much the record matters.
    pub level: Level,
    /// A word for machines: `open`, `message`, `error`, `close` and so on.
    pub event: &'static str,
    /// A sentence for people.
    pub text: String,
    /// Further values for machines.
    pub fields: Vec<(&'static str, Value)>,
}

/// Beyond this number in one pass, records are only counted.
const RECORDS_PER_PASS: usize = 4096;
/// Beyond this much text in one pass, lines are only counted.
const PASS_BYTES: usize = 512 * 1024;

/// The records of a pass, and which levels are kept. As a setting of a [`Server`](crate::Server), create it with
/// [`Log::new`]:
///
/// ```
/// use percore::{Level, Log};
///
/// let mut log = Log::new(Some(Level::Info));
/// log.messages = true;
/// assert!(log.keeps(Level::Warn) && !log.keeps(Level::Debug));
/// ```
#[derive(Debug)]
pub struct Log {
    /// Whether each incoming message gets a line, at [`Level::Info`].
    pub messages: bool,
    level: Option<Level>,
    records: Vec<Record>,
    text_bytes: usize,
    left_out: u64,
}

impl Log {
    /// Keeps records of `level` and above; none with `None`. Messages get no lines.
    pub fn new(level: Option<Level>) -> Log {
        Log { messages: false, level, records: Vec::new(), text_bytes: 0, left_out: 0 }
    }

    /// An empty log of the same level.
    pub fn like(&self) -> Log {
        Log { messages: self.messages, ..Log::new(self.level) }
    }

    /// Returns whether records of this level are kept, so that others need not be created.
    #[inline]
    pub fn keeps(&self, level: Level) -> bool {
        self.level.is_some_and(|most| level <= most)
    }

    /// Queues a record, if its level is kept. Beyond 4096 records or 512 KiB of text in a pass, records are only
    /// counted, and the count is logged.
    #[doc(hidden)]
    pub fn push(&mut self, level: Level, event: &'static str, fields: &[(&'static str, &dyn Field)], text: String) {
        if self.keeps(level) && self.has_room() {
            let fields = fields.iter().map(|(name, value)| (*name, value.value())).collect();
            self.keep(Record { level, event, text, fields });
        }
    }

    /// Whether there is room for another record. If not, counts it.
    fn has_room(&mut self) -> bool {
        let has_room = self.records.len() < RECORDS_PER_PASS && self.text_bytes < PASS_BYTES;
        self.left_out += u64::from(!has_room);
        has_room
    }

    fn keep(&mut self, record: Record) {
        self.text_bytes += record.text.len();
        self.records.push(record);
    }

    /// Moves the records of another log here.
    pub fn append(&mut self, other: &mut Log) {
        for record in other.records.drain(..) {
            if self.has_room() {
                self.keep(record);
            }
        }
        other.text_bytes = 0;
        self.left_out += std::mem::take(&mut other.left_out);
    }

    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.left_out == 0
    }

    /// Returns how many records were only counted since the last [`Log::take`].
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes the queued records.
    #[doc(hidden)]
    pub fn take(&mut self) -> Vec<Record> {
        self.text_bytes = 0;
        let mut records = std::mem::take(&mut self.records);
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            records.push(lines_left_out(left_out, "there were too many at once"));
        }
        records
    }
}

/// The record that replaces those left out.
pub fn lines_left_out(lines: u64, why: &str) -> Record {
    let what = if lines == 1 { "line" } else { "lines" };
    let text = format!("{lines} log {what} left out: {why}");
    Record { level: Level::Warn, event: "left_out", text, fields: vec![("lines", Value::Number(lines))] }
}

/// Longest line of an app, in characters.
const APP_LINE_CHARACTERS: usize = 1024;
/// What apps may log at once, and then per second, in bytes: clients determine how much that is.
const APP_BURST_BYTES: u64 = 256 * 1024;
const APP_BYTES_A_SECOND: u64 = 4 * 1024;
/// Cost of a line besides its text: time, level, fields.
const LINE_BYTES: u64 = 64;
/// Dropped lines are reported at most this often.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// Lines of an app, limited in length and, over time, in bytes. Those beyond are counted, and reported once a second.
pub(crate) struct AppLog {
    log: Log,
    /// Bytes that may be logged now, as of `counted`.
    allowed: u64,
    counted: Duration,
    left_out: u64,
    said: Option<Duration>,
}

impl AppLog {
    /// Keeps the levels that `log` keeps.
    pub fn like(log: &Log) -> AppLog {
        let (allowed, counted) = (APP_BURST_BYTES, Duration::ZERO);
        AppLog { log: log.like(), allowed, counted, left_out: 0, said: None }
    }

    pub fn push(
        &mut self,
        now: Duration,
        level: Level,
        event: &'static str,
        id: Option<ConnectionId>,
        text: &dyn fmt::Display,
    ) {
        if !self.log.keeps(level) {
            return;
        }
        let millis = now.saturating_sub(self.counted).as_millis() as u64;
        let more = millis.saturating_mul(APP_BYTES_A_SECOND) / 1000;
        // Only once it makes up a byte, or frequent calls would never add any.
        if more > 0 {
            self.allowed = self.allowed.saturating_add(more).min(APP_BURST_BYTES);
            self.counted = now;
        }
        if self.allowed < LINE_BYTES {
            self.left_out += 1;
            return;
        }
        let mut line = Printable { out: String::new(), left: APP_LINE_CHARACTERS };
        // An error means that the text is cut off, or failed to format itself.
        let _ = write!(line, "{text}");
        let Printable { mut out, .. } = line;
        self.allowed = self.allowed.saturating_sub(LINE_BYTES + out.len() as u64);
        match id {
            Some(id) => {
                let _ = write!(out, " id={id}");
                self.log.push(level, event, &[("id", &id)], out);
            }
            None => self.log.push(level, event, &[], out),
        }
    }

    /// When dropped lines must be reported.
    pub fn next_deadline(&self) -> Option<Duration> {
        (self.left_out > 0).then(|| self.said.map_or(Duration::ZERO, |said| said + SAID_EVERY))
    }

    /// Moves the lines to the process's log.
    pub fn move_to(&mut self, log: &mut Log, now: Duration) {
        log.append(&mut self.log);
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.said = Some(now);
            log.left_out += std::mem::take(&mut self.left_out);
        }
    }
}

/// An error's text without the operating system's number for it, which readers do not look up.
pub fn in_words(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let mut pieces = text.split(" (os error ");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |words, piece| {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        words + rest.strip_prefix(')').unwrap_or(rest)
    })
}

/// A count of things in words. The asterisk in `things` is the plural ending: `connection* refused`.
pub fn counted(number: impl TryInto<u64>, things: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {}", things.replace('*', if number == 1 { "" } else { "s" }))
}

/// Text made safe for a log line, with room for `left` more characters.
struct Printable {
    out: String,
    left: usize,
}

impl Write for Printable {
    /// Fails once there is no room, so that the writer stops.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                self.out.push('…');
                return Err(fmt::Error);
            }
            self.left -= 1;
            if is_unruly(c) {
                write!(self.out, "{}", c.escape_default())?;
            } else {
                self.out.push(c);
            }
        }
        Ok(())
    }
}

/// Whether a character moves the cursor, ends the line or changes the direction of the text around it, so that text
/// from outside could pass for ours.
pub fn is_unruly(c: char) -> bool {
    let turns = ['\u{61c}', '\u{200e}', '\u{200f}'].contains(&c);
    c.is_control() || turns || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Makes text from outside safe for a log line: one line, no control characters, truncated to `limit` characters.
pub fn printable(text: &str, limit: usize) -> String {
    let mut line = Printable { out: String::new(), left: limit };
    // An error means truncation.
    let _ = line.write_str(text.trim_end_matches(['\n', '\r']));
    line.out
}

/// Text as a JSON string, with its quotes.
pub fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // JSON allows characters from U+007F on, but a terminal may act on them.
            c if is_unruly(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_no_numbers() {
        let refused = std::io::Error::from_raw_os_error(111);
        assert_eq!(in_words(&refused), "Connection refused");
        assert_eq!(in_words(&format!("a: {refused}; b: {refused}")), "a: Connection refused; b: Connection refused");
        assert_eq!(in_words(&"as it is"), "as it is");
        assert_eq!([0, 1, 2].map(|n| counted(n, "line* left")), ["0 lines left", "1 line left", "2 lines left"]);
    }

    #[test]
    fn levels_and_bounds() {
        let mut log = Log::new(Some(Level::Warn));
        log.push(Level::Info, "x", &[], "no".into());
        assert!(log.is_empty());
        for _ in 0..RECORDS_PER_PASS + 3 {
            log.push(Level::Error, "x", &[("n", &1_u64)], "yes".into());
        }
        let records = log.take();
        assert_eq!(records.len(), RECORDS_PER_PASS + 1);
        assert_eq!(records[RECORDS_PER_PASS].text, "3 log lines left out: there were too many at once");
        assert!(log.take().is_empty());
    }

    #[test]
    fn what_an_app_logs_is_bounded() {
        let (mut log, id) = (Log::new(Some(Level::Info)), ConnectionId { node: 1, generation: 2, index: 3 });
        let mut app = AppLog::like(&log);
        let second = Duration::from_secs(1);
        let mut said = |app: &mut AppLog, lines: u64, now: Duration| -> (usize, Vec<String>) {
            (0..lines).for_each(|_| app.push(now, Level::Info, "said", Some(id), &"é\n".repeat(2000)));
            app.push(now, Level::Debug, "said", None, &"not kept");
            app.move_to(&mut log, now);
            let texts: Vec<String> = log.take().into_iter().map(|record| record.text).collect();
            (texts.iter().map(String::len).sum(), texts)
        };
        let (bytes, texts) = said(&mut app, 1, Duration::ZERO);
        let line = format!("{}… id=000000010000000200000003", r"é\n".repeat(512));
        assert_eq!((bytes, texts), (line.len(), vec![line.clone()]));
        let (bytes, texts) = said(&mut app, 1000, second);
        assert!(bytes as u64 <= APP_BURST_BYTES + 2 * 1024, "{bytes}");
        let told = format!("{} log lines left out: there were too many at once", 1000 - (texts.len() - 1));
        assert_eq!(texts.last(), Some(&told));
        // Dropped lines are reported once a second, even if a line would be allowed within it.
        assert_eq!(said(&mut app, 10, second + second / 2), (line.len(), vec![line.clone()]));
        assert_eq!(app.next_deadline(), Some(second * 2));
        assert_eq!(said(&mut app, 0, second * 2).1, ["9 log lines left out: there were too many at once"]);
        // After a while there is room again, for a burst but not for everything dropped.
        let (bytes, _) = said(&mut app, 1000, second * 100_000);
        assert!((APP_BURST_BYTES / 2..APP_BURST_BYTES + 2 * 1024).contains(&(bytes as u64)), "{bytes}");
    }

    #[test]
    fn a_pass_is_bounded_in_bytes() {
        let mut log = Log::new(Some(Level::Info));
        (0..100).for_each(|_| log.push(Level::Info, "x", &[], "y".repeat(10_000)));
        let records = log.take();
        assert_eq!(records.len(), PASS_BYTES / 10_000 + 2);
        assert_eq!(records.last().map(|record| record.event), Some("left_out"));
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        assert_eq!(printable("hi\r\nERROR fake\x1b[0m\n", 99), "hi\\r\\nERROR fake\\u{1b}[0m");
        assert_eq!(printable("héllo", 3), "hél…");
        assert_eq!(printable("a\u{202e}b\u{2028}\n", 3), r"a\u{202e}b…");
        assert_eq!(json_string("\u{2066}\u{200f}"), "\"\\u2066\\u200f\"");
        assert_eq!(json_string("a\"b\\\n\u{7f}\u{9b}\u{a0}"), "\"a\\\"b\\\\\\u000a\\u007f\\u009b\u{a0}\"");
    }
}
