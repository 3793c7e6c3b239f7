//! A terminal with a line being typed, and messages written above it.
//!
//! Two threads write: the one that reads keys shows the line, the loop shows messages. Each holds the lock for a whole
//! write.

use super::editor::{Editor, Typed};
use crate::os::patient::Patient;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Switches bracketed paste on, and off.
const PASTES_TOLD: &[u8] = b"\x1b[?2004h";
pub const PASTES_UNTOLD: &[u8] = b"\x1b[?2004l";
/// Columns of a terminal that does not report them.
const COLUMNS: usize = 80;

/// The loop's end; dropping it restores the terminal.
pub struct Terminal {
    desk: Arc<Mutex<Desk>>,
    before: Termios,
    has_colours: bool,
}

/// The end of the thread that reads keys.
pub struct Keyboard {
    desk: Arc<Mutex<Desk>>,
}

/// State shared by both.
struct Desk {
    editor: Editor,
    over: bool,
}

/// Takes over the terminal, if standard input and output are one.
pub fn open() -> Option<(Terminal, Keyboard)> {
    if !io::stdin().is_terminal()
        || !io::stdout().is_terminal()
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
    {
        return None;
    }
    let before = tcgetattr(io::stdin()).ok()?;
    let mut keys = before.clone();
    keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN);
    // Pasted lines may end in carriage returns or line feeds, which the editor distinguishes.
    keys.input_modes.remove(InputModes::IXON | InputModes::ICRNL);
    keys.special_codes[SpecialCodeIndex::VMIN] = 1;
    keys.special_codes[SpecialCodeIndex::VTIME] = 0;
    // Ctrl-C is a signal, but suspending or killing us would leave a terminal without echo.
    keys.special_codes[SpecialCodeIndex::VSUSP] = 0;
    keys.special_codes[SpecialCodeIndex::VQUIT] = 0;
    tcsetattr(io::stdin(), OptionalActions::Now, &keys).ok()?;
    let desk = Arc::new(Mutex::new(Desk { editor: Editor::default(), over: false }));
    // See https://no-color.org.
    let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let terminal = Terminal { desk: Arc::clone(&desk), before, has_colours };
    Some((terminal, Keyboard { desk }))
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Writes text of whole lines, and below it the line being typed.
    fn show(&self, text: &str) -> io::Result<()> {
        let columns = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col.into());
        let row = self.editor.row(if columns == 0 { COLUMNS } else { columns });
        Patient(io::stdout()).write_all(format!("\r\x1b[K{text}{row}").as_bytes())
    }
}

impl Terminal {
    /// Returns the terminal's original state.
    pub fn before(&self) -> Termios {
        self.before.clone()
    }

    /// Returns text in a colour or another style (SGR), unless colours are off.
    pub fn coloured(&self, style: &str, text: &str) -> String {
        if self.has_colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes text of whole lines above the line being typed.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn print(&self, text: &str) -> io::Result<()> {
        lock(&self.desk).show(text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut desk = lock(&self.desk);
        desk.over = true;
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        let rest: &[u8] = if desk.editor.is_empty() { b"\r\x1b[K" } else { b"\n" };
        let _ = Patient(io::stdout()).write_all(&[PASTES_UNTOLD, rest].concat());
    }
}

impl Keyboard {
    /// Edits, with a history, and hands over what is typed until `give` returns false.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn read(&self, history: Vec<String>, mut give: impl FnMut(Typed) -> bool) -> io::Result<()> {
        let mut begun = lock(&self.desk);
        begun.editor = Editor::new(history);
        if !begun.over {
            Patient(io::stdout()).write_all(PASTES_TOLD)?;
            begun.show("")?;
        }
        drop(begun);
        let (mut input, mut buffer) = (Patient(io::stdin()), [0; 1024]);
        loop {
            let bytes = input.read(&mut buffer)?;
            if bytes == 0 {
                return Ok(());
            }
            let mut all = Vec::new();
            {
                let mut desk = lock(&self.desk);
                if desk.over {
                    return Ok(());
                }
                desk.editor.feed(&buffer[..bytes], |typed| all.push(typed));
                // Typed lines stay where they are; later output goes below.
                let lines = all.iter().map(|typed| match typed {
                    Typed::Line(line) => format!("> {}\n", line.replace('\n', "\n  ")),
                    Typed::End => String::new(),
                });
                desk.show(&lines.collect::<String>())?;
            }
            if !all.into_iter().all(&mut give) {
                return Ok(());
            }
        }
    }
}
