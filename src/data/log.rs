//! Log records, queued here by whoever has something to say and written once a pass by whoever has a file descriptor.

use std::fmt::Write;

/// How much a record matters, the most important first: `Error < Debug`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// The process cannot do its work.
    Error,
    /// Something was refused, cut short or lost.
    Warn,
    /// The life of the process and of its connections.
    Info,
    /// What helps to find a fault.
    Debug,
}

impl Level {
    /// In capitals, as in a line of text.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        }
    }
}

/// One line to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// How much it matters.
    pub level: Level,
    /// A word for machines: `open`, `message`, `error`, `close` and so on.
    pub event: &'static str,
    /// A sentence for people.
    pub text: String,
    /// Further values for machines.
    pub fields: Vec<(&'static str, String)>,
}

/// More records than this in one pass are counted instead of kept.
const RECORDS_PER_PASS: usize = 4096;

/// The records of a pass, and which of them are kept. As a setting of a [`Server`](crate::Server) it is made by
/// [`Log::new`]:
///
/// ```
/// use percore::{Level, Log};
///
/// let mut log = Log::new(Some(Level::Info));
/// log.messages = true;
/// assert!(log.keeps(Level::Warn) && !log.keeps(Level::Debug));
/// ```
pub struct Log {
    /// Whether each message that comes gets a line, at [`Level::Info`].
    pub messages: bool,
    level: Option<Level>,
    records: Vec<Record>,
    left_out: u64,
}

impl Log {
    /// Keeps records of `level` and above; none at all with `None`. No lines for messages.
    pub fn new(level: Option<Level>) -> Log {
        Log { messages: false, level, records: Vec::new(), left_out: 0 }
    }

    /// An empty log of the same level.
    pub fn like(&self) -> Log {
        Log { messages: self.messages, ..Log::new(self.level) }
    }

    /// Whether records of this level are kept, so that the others need not be made.
    #[inline]
    pub fn keeps(&self, level: Level) -> bool {
        self.level.is_some_and(|most| level <= most)
    }

    /// Queues a record, if its level is kept. Beyond 4096 in a pass they are only counted, and the count is logged.
    pub fn push(
        &mut self,
        level: Level,
        event: &'static str,
        fields: &[(&'static str, &dyn std::fmt::Display)],
        text: String,
    ) {
        if !self.keeps(level) {
            return;
        }
        if self.records.len() >= RECORDS_PER_PASS {
            self.left_out += 1;
            return;
        }
        let fields = fields.iter().map(|(name, value)| (*name, value.to_string())).collect();
        self.records.push(Record { level, event, text, fields });
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Takes what was queued.
    pub fn take(&mut self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.records);
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let text = format!("{left_out} log lines of one pass left out");
            records.push(Record { level: Level::Warn, event: "log", text, fields: Vec::new() });
        }
        records
    }
}

/// Whether a character moves the cursor, ends the line or turns the direction of what stands around it, so that text from
/// outside could be taken for ours.
pub fn is_unruly(c: char) -> bool {
    let turns = ['\u{61c}', '\u{200e}', '\u{200f}'].contains(&c);
    c.is_control() || turns || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from outside as it may stand in a log line: on one line, without control characters, cut at `limit` characters.
pub fn printable(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.trim_end_matches(['\n', '\r']).chars().enumerate() {
        if i == limit {
            out.push('…');
            break;
        }
        if is_unruly(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Text as a JSON string, with its quotes.
pub fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // JSON allows those from U+007F on, but a terminal may act on them.
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
    fn levels_and_bounds() {
        let mut log = Log::new(Some(Level::Warn));
        log.push(Level::Info, "x", &[], "no".into());
        assert!(log.is_empty());
        for _ in 0..RECORDS_PER_PASS + 3 {
            log.push(Level::Error, "x", &[("n", &1)], "yes".into());
        }
        let records = log.take();
        assert_eq!(records.len(), RECORDS_PER_PASS + 1);
        assert_eq!(records[RECORDS_PER_PASS].text, "3 log lines of one pass left out");
        assert!(log.take().is_empty());
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        assert_eq!(printable("hi\r\nERROR fake\x1b[0m\n", 99), "hi\\r\\nERROR fake\\u{1b}[0m");
        assert_eq!(printable("héllo", 3), "hél…");
        assert_eq!(printable("a\u{202e}b\u{2028}c", 9), "a\\u{202e}b\\u{2028}c");
        assert_eq!(json_string("\u{2066}\u{200f}"), "\"\\u2066\\u200f\"");
        assert_eq!(json_string("a\"b\\\n\u{7f}\u{9b}\u{a0}"), "\"a\\\"b\\\\\\u000a\\u007f\\u009b\u{a0}\"");
    }
}
