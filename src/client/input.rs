//! Standard input, read on a thread of its own, which waits when the server is slower.

use super::editor::Typed;
use super::history::History;
use super::screen::Screen;
use super::terminal::{self, Keyboard};
use crate::os::patient::Patient;
use crate::reactor::Waker;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A piece of input.
#[derive(Debug)]
pub enum Input {
    /// Bytes that are not split into lines yet.
    Bytes(Vec<u8>),
    /// A message, which may have several lines.
    Message(String),
    /// The end of the input.
    End,
    /// A failure to read.
    Failed(io::Error),
}

/// Starts reading standard input. Returns the input, the screen for lines that arrive meanwhile, and whether a person
/// types. `history` is the file that keeps what is typed on a terminal.
///
/// # Errors
/// When the thread cannot be started.
pub fn begin(history: Option<PathBuf>, waker: Waker) -> io::Result<(Receiver<Input>, Screen, bool)> {
    // One piece in the channel, and one in the reader.
    let (sender, receiver) = sync_channel(1);
    let thread = std::thread::Builder::new().name("input".into());
    match terminal::open() {
        Some((terminal, keyboard)) => {
            thread.spawn(move || edit(&keyboard, history.as_deref(), |input| give(&sender, &waker, input)))?;
            Ok((receiver, Screen::Terminal(terminal), true))
        }
        None => {
            thread.spawn(move || read(|input| give(&sender, &waker, input)))?;
            Ok((receiver, Screen::plain(), io::stdin().is_terminal()))
        }
    }
}

/// Hands over a piece once there is room; false if the receiver is gone.
fn give(sender: &SyncSender<Input>, waker: &Waker, input: Input) -> bool {
    let taken = sender.send(input).is_ok();
    waker.wake();
    taken
}

/// Hands over typed lines.
fn edit(keyboard: &Keyboard, history: Option<&Path>, give: impl Fn(Input) -> bool) {
    let (mut history, lines) = History::open(history);
    let ended = keyboard.read(lines, |typed| match typed {
        Typed::Line(line) => {
            history.add(&line);
            give(Input::Message(line))
        }
        Typed::End => give(Input::End),
    });
    give(ended.map_or_else(Input::Failed, |()| Input::End));
}

/// Hands over bytes as they arrive.
fn read(give: impl Fn(Input) -> bool) {
    let (mut input, mut buffer) = (Patient(io::stdin()), vec![0; CHUNK_BYTES]);
    loop {
        let part = match input.read(&mut buffer) {
            Ok(0) => Input::End,
            Ok(bytes) => Input::Bytes(buffer[..bytes].to_vec()),
            Err(error) => Input::Failed(error),
        };
        let is_last = matches!(part, Input::End | Input::Failed(_));
        if !give(part) || is_last {
            return;
        }
    }
}
