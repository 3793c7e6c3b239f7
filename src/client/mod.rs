//! Floor 6, the client of the command line: prices of a ticker feed, or a conversation with any WebSocket server.
//!
//! Both are apps on [`Client`]. What comes goes to standard output, a line each; what there is to say about it to standard error.

pub mod conversation;
mod editor;
mod history;
mod input;
mod lines;
pub mod prices;
mod screen;
mod signals;
mod terminal;

pub use history::path as history_path;

use crate::app::App;
use crate::reactor::{Client, Target};
use crate::session::Settings;
use tungstenite::protocol::frame::coding::CloseCode;

/// What became of a run, for the exit code; the line is for people.
pub type Ending = Result<(), String>;

/// Longest part of what a server says about itself that is shown.
const SHOWN_CHARACTERS: usize = 500;

/// Whether a connection that was closed with this code ended well.
fn is_good(code: CloseCode) -> bool {
    matches!(code, CloseCode::Normal | CloseCode::Away | CloseCode::Status)
}

/// Which server, and how to talk to it.
pub struct Dial {
    /// As it was typed.
    pub url: String,
    /// Where it is.
    pub target: Target,
    /// What the connection goes by.
    pub settings: Settings,
}

impl Dial {
    fn client<A: App>(&self, app: A) -> Client<A> {
        Client::new(app).settings(self.settings.clone()).target(self.target.clone()).time_each_read()
    }
}
