//! Output of lines: standard output, or the terminal above the line being typed.

use super::terminal::Terminal;
use crate::os::patient::Patient;
use crate::telemetry::log::{is_unruly, json_string};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// The destination of lines.
pub enum Screen {
    /// Lines go to standard output, remarks to standard error.
    Plain {
        /// Whether standard output is a terminal; otherwise lines are written unchanged.
        is_terminal: bool,
    },
    /// A terminal on which a line is being typed.
    Terminal(Terminal),
}

impl Screen {
    /// Makes a screen on standard output.
    pub fn plain() -> Screen {
        Screen::Plain { is_terminal: io::stdout().is_terminal() }
    }

    /// Writes a line for machines, or one from the server.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        match self {
            Screen::Plain { is_terminal: false } => Patient(io::stdout()).write_all(format!("{text}\n").as_bytes()),
            Screen::Plain { is_terminal: true } => {
                Patient(io::stdout()).write_all(format!("{}\n", harmless(text)).as_bytes())
            }
            Screen::Terminal(terminal) => terminal.print(&format!("{}\n", harmless(text))),
        }
    }

    /// Writes a message from the server for people: a terminal marks it as such.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn message(&mut self, text: &str) -> io::Result<()> {
        match self {
            Screen::Plain { .. } => self.line(text),
            Screen::Terminal(terminal) => {
                let mark = terminal.coloured("36", "<");
                terminal.print(&format!("{mark} {}\n", harmless(text)))
            }
        }
    }

    /// Writes a remark.
    pub fn say(&mut self, text: &str) {
        let line = format!("percore: {}", harmless(text));
        // There is no place left to report that standard error failed.
        let _ = match self {
            Screen::Plain { .. } => Patient(io::stderr()).write_all(format!("{line}\n").as_bytes()),
            Screen::Terminal(terminal) => terminal.print(&format!("{}\n", terminal.coloured("2", &line))),
        };
    }
}

/// Escapes whatever in a text from outside could move the cursor, change colours or the writing direction, or begin a
/// line that looks like ours.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(c),
            c if is_unruly(c) => {
                let _ = write!(out, "{}", c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

/// Returns a JSON object of names and values; the values are JSON already.
pub fn json_object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", json_string(name))).collect();
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(harmless("a\tb\u{e9}"), "a\tb\u{e9}");
        assert_eq!(harmless("x\npercore: closed with 1000"), "x\\npercore: closed with 1000");
        assert_eq!(harmless("\u{202e}cba"), "\\u{202e}cba");
        assert_eq!(harmless("\u{1b}[2J\r\u{9b}"), "\\u{1b}[2J\\r\\u{9b}");
    }

    #[test]
    fn objects() {
        let text = json_object(&[("type", json_string("a\"b")), ("n", "1".to_owned())]);
        assert_eq!(text, r#"{"type":"a\"b","n":1}"#);
    }
}
