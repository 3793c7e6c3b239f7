//! What is typed: on a thread of its own, which waits when the server is slower.

use super::screen::{Prompt, Screen};
use crate::reactor::Waker;
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use signal_hook::consts::SIGINT;
use signal_hook::low_level::raise;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Lines that were typed and wait: so many that the editor, which also prints, need not wait for whoever types them.
const TYPED_LINES: usize = 1000;
/// Lines that the history keeps.
const HISTORY_LINES: usize = 1000;

/// A part of what is typed.
#[derive(Debug)]
pub enum Input {
    /// Bytes, of which lines are to be made.
    Bytes(Vec<u8>),
    /// A line that was typed on a terminal.
    Line(String),
    /// There is no more.
    End,
    /// It cannot be read.
    Failed(io::Error),
}

/// Begins to read standard input, and says where lines go that come meanwhile, and whether a person types. `history` is the file
/// that keeps what was typed on a terminal.
///
/// # Errors
/// When there can be no thread.
pub fn begin(history: Option<PathBuf>, waker: Waker) -> io::Result<(Receiver<Input>, Screen, bool)> {
    let thread = std::thread::Builder::new().name("input".into());
    match editor() {
        Some((editor, screen, prompt)) => {
            let (sender, receiver) = sync_channel(TYPED_LINES);
            thread.spawn(move || edit(editor, &prompt, history.as_deref(), |input| give(&sender, &waker, input)))?;
            Ok((receiver, screen, true))
        }
        None => {
            // One part under way, and one at hand.
            let (sender, receiver) = sync_channel(1);
            thread.spawn(move || read(|input| give(&sender, &waker, input)))?;
            Ok((receiver, Screen::Plain, false))
        }
    }
}

/// Hands over a part, when there is room for it; false when nobody wants it any more.
fn give(sender: &SyncSender<Input>, waker: &Waker, input: Input) -> bool {
    let taken = sender.send(input).is_ok();
    waker.wake();
    taken
}

type LineEditor = Editor<(), FileHistory>;

/// A line editor, where there is a terminal for one.
fn editor() -> Option<(LineEditor, Screen, Prompt)> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let mut editor = LineEditor::with_config(Config::builder().auto_add_history(false).build()).ok()?;
    // What is pasted is as many messages as it has lines.
    editor.enable_bracketed_paste(false);
    let _ = editor.set_max_history_size(HISTORY_LINES);
    let printer = editor.create_external_printer().ok()?;
    let prompt = Prompt::default();
    Some((editor, Screen::terminal(Box::new(printer), prompt.clone()), prompt))
}

/// Hands over what is typed, line by line.
fn edit(mut editor: LineEditor, prompt: &Prompt, history: Option<&Path>, give: impl Fn(Input) -> bool) {
    if let Some(path) = history {
        // None is there yet, the first time.
        let _ = path.parent().map(fs::create_dir_all);
        let _ = editor.load_history(path);
    }
    while let Some(line) = prompt.ask(|| editor.readline("> ")) {
        let goes_on = match line {
            Ok(line) => {
                // A history that cannot be kept is no reason not to talk.
                if editor.add_history_entry(&line).unwrap_or(false) {
                    let _ = history.map(|path| editor.append_history(path));
                }
                give(Input::Line(line))
            }
            // The loop closes at the first, and ends at the second.
            Err(ReadlineError::Interrupted) => raise(SIGINT).is_ok(),
            // It goes on, since only while it waits for a key is printed what comes until the end.
            Err(ReadlineError::Eof) => give(Input::End),
            Err(error) => {
                give(Input::Failed(io::Error::other(error)));
                false
            }
        };
        if !goes_on {
            return;
        }
    }
}

/// Hands over what comes.
fn read(give: impl Fn(Input) -> bool) {
    let (mut input, mut buffer) = (io::stdin().lock(), vec![0; CHUNK_BYTES]);
    loop {
        let part = match input.read(&mut buffer) {
            Ok(0) => Input::End,
            Ok(bytes) => Input::Bytes(buffer[..bytes].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Input::Failed(error),
        };
        let is_last = matches!(part, Input::End | Input::Failed(_));
        if !give(part) || is_last {
            return;
        }
    }
}

/// The file that keeps what was typed: `percore/history` in the folder for such (XDG Base Directory Specification).
pub fn history_file() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("percore/history"))
}
