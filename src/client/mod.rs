//! Floor 6, the client of the command line: prices of a ticker feed, or a conversation with any WebSocket server.
//!
//! Both are apps on [`Client`]. They write what they receive to standard output, a line each, and remarks to standard
//! error.

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

/// The result of a run, for the exit code; the line is for people.
pub type Ending = Result<(), String>;

/// Most characters to show of a text from the server.
const SHOWN_CHARACTERS: usize = 500;

/// Returns whether a connection closed with this code ended well.
fn is_good(code: CloseCode) -> bool {
    matches!(code, CloseCode::Normal | CloseCode::Away | CloseCode::Status)
}

/// A server, and how to connect to it.
pub struct Dial {
    /// As it was typed.
    pub url: String,
    /// Where to connect.
    pub target: Target,
    /// Settings of the connection.
    pub settings: Settings,
}

impl Dial {
    fn client<A: App>(&self, app: A) -> Client<A> {
        Client::new(app).settings(self.settings.clone()).target(self.target.clone()).time_each_read()
    }
}
