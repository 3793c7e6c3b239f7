//! Log records as lines on standard error.

use super::clock::unix_time;
use crate::data::calendar::Utc;
use crate::data::log::{Record, json_string};
use std::io::Write;

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum LogFormat {
    /// `2026-01-31T12:00:00.000Z INFO text`
    #[default]
    Text,
    /// One JSON object a line: `time`, `level`, `event`, `message` and the record's fields.
    Json,
}

/// Writes records in one system call. A closed standard error is no reason to stop serving.
pub fn write_records(format: LogFormat, records: &[Record]) {
    if records.is_empty() {
        return;
    }
    let now = unix_time();
    let time = Utc::from_unix(now.as_secs()).rfc3339(now.subsec_millis());
    let lines: String = records.iter().map(|record| line(format, &time, record)).collect();
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}

fn line(format: LogFormat, time: &str, record: &Record) -> String {
    let level = record.level.name();
    if format == LogFormat::Text {
        return format!("{time} {level} {}\n", record.text);
    }
    let fields: String =
        record.fields.iter().map(|(name, value)| format!(",\"{name}\":{}", json_string(value))).collect();
    let message = json_string(&record.text);
    let level = level.to_ascii_lowercase();
    format!(
        "{{\"time\":\"{time}\",\"level\":\"{level}\",\"event\":\"{}\"{fields},\"message\":{message}}}\n",
        record.event
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::log::Level;

    #[test]
    fn lines() {
        let record =
            Record { level: Level::Info, event: "open", text: "a \"b\"".into(), fields: vec![("peer", "x".into())] };
        assert_eq!(line(LogFormat::Text, "T", &record), "T INFO a \"b\"\n");
        let json = r#"{"time":"T","level":"info","event":"open","peer":"x","message":"a \"b\""}"#;
        assert_eq!(line(LogFormat::Json, "T", &record), format!("{json}\n"));
    }
}
