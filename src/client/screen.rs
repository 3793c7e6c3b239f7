//! Where lines go: standard output, or the terminal above the line that is being typed.

use super::terminal::Terminal;
use crate::os::patient::Patient;
use crate::telemetry::log::{is_unruly, json_string};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Where lines go.
pub enum Screen {
    /// To standard output, and what is said about them to standard error.
    Plain {
        /// Whether standard output is a terminal; else lines go there as they are.
        is_terminal: bool,
    },
    /// To a terminal on which a line is being typed.
    Terminal(Terminal),
}

impl Screen {
    /// Standard output.
    pub fn plain() -> Screen {
        Screen::Plain { is_terminal: io::stdout().is_terminal() }
    }

    /// Writes a line for machines, or one that the server sent.
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

    /// A message of the server's, for people: on a terminal it is marked as such.
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

    /// Says something about what goes on.
    pub fn say(&mut self, text: &str) {
        let line = format!("percore: {}", harmless(text));
        // Nobody can be told that standard error takes no more.
        let _ = match self {
            Screen::Plain { .. } => Patient(io::stderr()).write_all(format!("{line}\n").as_bytes()),
            Screen::Terminal(terminal) => terminal.print(&format!("{}\n", terminal.coloured("2", &line))),
        };
    }
}

/// Text from outside without what would move a terminal's cursor, change its colours, turn the direction of what stands there,
/// or begin a line that could be taken for ours.
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

/// A JSON object of names and values, of which the latter are JSON already.
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
