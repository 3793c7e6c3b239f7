//! Where lines go: standard output, or the terminal above the line that is being typed.

use crate::data::log::json_string;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::ExternalPrinter;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A line up, and one down: what a terminal shows stays as it is.
const NOTHING: &str = "\x1b[1A\n";

/// It takes the editor microseconds; what is longer never comes.
const LONGEST_CHANGE_MILLISECONDS: u32 = 1000;

/// Where lines go.
pub enum Screen {
    /// As they are, to standard output, and what is said about them to standard error.
    Plain,
    /// To a terminal on which a line is being typed.
    Terminal(Terminal),
}

/// A terminal whose line editor runs on another thread.
pub struct Terminal {
    printer: Box<dyn ExternalPrinter + Send>,
    prompt: Prompt,
    /// How it was before the editor changed it.
    before: Option<Termios>,
}

/// Whether the editor may ask for a line, and whether it does.
#[derive(Clone, Default)]
pub struct Prompt(Arc<Mutex<Asking>>);

#[derive(Default)]
struct Asking {
    over: bool,
    asks: bool,
}

impl Prompt {
    /// Has the editor ask, unless it is over: the terminal is not to be changed any more then.
    pub fn ask<T>(&self, readline: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = self.lock();
            if state.over {
                return None;
            }
            state.asks = true;
        }
        let line = readline();
        self.lock().asks = false;
        Some(line)
    }

    fn lock(&self) -> MutexGuard<'_, Asking> {
        // Two flags are right whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it. Waits until the editor, if it is about to ask, has changed the terminal, which can be changed back then.
    fn end(&self) {
        self.lock().over = true;
        let is_changed = || tcgetattr(io::stdin()).is_ok_and(|now| !now.local_modes.contains(LocalModes::ICANON));
        for _ in 0..LONGEST_CHANGE_MILLISECONDS {
            if !self.lock().asks || is_changed() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Screen {
    /// A terminal, printed to by `printer`; to be made before the editor begins.
    pub fn terminal(printer: Box<dyn ExternalPrinter + Send>, prompt: Prompt) -> Screen {
        Screen::Terminal(Terminal { printer, prompt, before: tcgetattr(io::stdin()).ok() })
    }

    /// Writes a line for machines, or one that the server sent.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        match self {
            Screen::Plain => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.write_all(b"\n")
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
            Screen::Plain => self.line(text),
            Screen::Terminal(_) => self.line(&format!("< {text}")),
        }
    }

    /// Says something about what goes on.
    pub fn say(&mut self, text: &str) {
        let line = format!("percore: {}\n", harmless(text));
        // Nobody can be told that standard error takes no more.
        let _ = match self {
            Screen::Plain => io::stderr().write_all(line.as_bytes()),
            Screen::Terminal(terminal) => terminal.print(&line),
        };
    }
}

impl Terminal {
    fn print(&mut self, text: &str) -> io::Result<()> {
        self.printer.print(text.to_owned()).map_err(io::Error::other)
    }
}

impl Drop for Terminal {
    /// Gives the terminal back as it was, although the editor's thread still waits for a key.
    fn drop(&mut self) {
        self.prompt.end();
        // The editor prints one piece at a time, and one more may wait: when it has taken the second, all before is printed.
        for _ in 0..2 {
            let _ = self.print(NOTHING);
        }
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
        let _ = io::stdout().write_all(b"\r\x1b[K").and_then(|()| io::stdout().flush());
    }
}

/// Text from outside without what would move a terminal's cursor or change its colours.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {
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
        assert_eq!(harmless("a\tb\nc\u{e9}"), "a\tb\nc\u{e9}");
        assert_eq!(harmless("\u{1b}[2J\r\u{9b}"), "\\u{1b}[2J\\r\\u{9b}");
    }

    #[test]
    fn objects() {
        let text = json_object(&[("type", json_string("a\"b")), ("n", "1".to_owned())]);
        assert_eq!(text, r#"{"type":"a\"b","n":1}"#);
    }
}
