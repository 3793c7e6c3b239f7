//! What an origin is told of many connections, as a story of each; and clients that come and go, to be told of.

use super::PATIENCE;
use super::origin::{Event, Heard};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

/// Messages of a conversation.
pub const MESSAGES: usize = 20;

/// What was told of a connection.
#[derive(Clone, Default, Debug)]
pub struct Story {
    pub opened: usize,
    pub texts: Vec<String>,
    /// Of each news of its end the `webhook-id`, and the close code.
    pub ends: Vec<(String, String)>,
    /// What came out of order: before its opening, or behind its end.
    pub strays: Vec<String>,
}

/// Stories of connections, by id.
#[derive(Clone, Default)]
pub struct Stories(Arc<Mutex<HashMap<String, Story>>>);

impl Stories {
    /// An event came.
    pub fn add(&self, heard: &Heard) {
        let event = heard.event();
        let mut all = self.0.lock().expect("stories");
        let story = all.entry(event.id().to_owned()).or_default();
        let is_over = !story.ends.is_empty();
        match event {
            Event::Opened(..) if !is_over && story.opened == 0 => story.opened = 1,
            Event::Text(_, text) if !is_over && story.opened == 1 => story.texts.push(text),
            Event::Closed(_) => {
                let header = |name| heard.header(name).unwrap_or_default().to_owned();
                story.ends.push((header("webhook-id"), header("percore-close-code")));
            }
            stray => story.strays.push(format!("{stray:?}")),
        }
    }

    /// How many connections are told to be open, and how many closed.
    pub fn count(&self) -> (usize, usize) {
        let all = self.0.lock().expect("stories");
        (all.len(), all.values().filter(|story| !story.ends.is_empty()).count())
    }

    /// The ids of connections.
    pub fn ids(&self) -> Vec<String> {
        self.0.lock().expect("stories").keys().cloned().collect()
    }

    /// Asserts that each connection opened and ended once, and that what it said was told in order and without a gap.
    pub fn assert_whole(&self) -> Vec<Story> {
        let all: Vec<Story> = self.0.lock().expect("stories").values().cloned().collect();
        for story in &all {
            assert!(story.strays.is_empty(), "out of order: {story:?}");
            let mut ends = story.ends.clone();
            // One that the killed may have told is told again, by the same id.
            ends.dedup_by(|this, other| this.0 == other.0);
            assert_eq!(ends.len(), 1, "{story:?}");
            let name = story.texts.first().and_then(|text| text.split(' ').next()).unwrap_or_default();
            let want: Vec<String> = (0..story.texts.len()).map(|number| format!("{name} {number}")).collect();
            assert_eq!(story.texts, want);
        }
        all
    }
}

/// Messages that were not told of connections whose clients had said all they wanted.
pub fn untold(all: &[Story]) -> usize {
    all.iter().filter(|story| story.ends[0].1 == "1000").map(|story| MESSAGES - story.texts.len()).sum()
}

/// Clients that come, talk, and go, over and over.
pub struct Talkers {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Talkers {
    /// This many at a time.
    pub fn start(addr: SocketAddr, number: usize) -> Talkers {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let talk = |talker: usize| {
            let (stop, accepted) = (Arc::clone(&stop), Arc::clone(&accepted));
            std::thread::spawn(move || {
                for conversation in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // It may end at any moment: that is what is tried.
                    let _ = talk_once(addr, &format!("{talker}.{conversation}"), &accepted);
                }
            })
        };
        let threads = (0..number).map(talk).collect();
        Talkers { stop, accepted, threads }
    }

    /// Lets the conversations end. Returns how many connections were accepted.
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        self.accepted.load(Ordering::SeqCst)
    }
}

fn talk_once(addr: SocketAddr, name: &str, accepted: &AtomicUsize) -> Result<(), Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = tungstenite::client(format!("ws://{addr}/"), stream).map_err(|error| error.to_string())?;
    accepted.fetch_add(1, Ordering::SeqCst);
    for number in 0..MESSAGES {
        socket.send(Message::text(format!("{name} {number}")))?;
    }
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))?;
    loop {
        match socket.read() {
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
}
