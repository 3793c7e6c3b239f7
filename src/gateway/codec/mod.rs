//! Codecs: how events become HTTP requests and responses become answers. One file for each format.

pub mod aws;
pub mod json;
pub mod route;

use super::event::{Answer, Effects, Event, Reply, Subject};

/// An HTTP POST to the origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Post {
    /// What its content is.
    pub media_type: &'static str,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Its content.
    pub body: Vec<u8>,
}

/// A format of events.
pub trait Codec: Send {
    /// Whether the origin wants to be told of such an event. Of [`Event::Connect`] and [`Event::Connected`] a format may have
    /// both, where the first holds up the handshake; one that has only one opening event gets whichever there is.
    fn tells(&self, event: &Event) -> bool;

    /// Whether [`Subject::agent`] and [`Subject::claims`] are wanted, which each connection then keeps.
    fn keeps_client(&self) -> bool {
        false
    }

    /// Whether all headers of the client's request are wanted, and not only those that were named.
    fn wants_all_headers(&self) -> bool {
        false
    }

    /// Whether the headers of responses are wanted.
    fn reads_headers(&self) -> bool {
        false
    }

    /// Tells the address of the service, before anything is written.
    fn place(&mut self, address: &str) {
        let _ = address;
    }

    /// Writes an event.
    fn write(&self, event: &Event, subject: &Subject) -> Post;

    /// Writes that these connections are open, by their public names; `None` for a format that has no such thing.
    fn write_keep_alive(&self, names: &[String]) -> Option<Post>;

    /// Reads the response to an event.
    fn read(&self, event: &Event, reply: &Reply, subject: &Subject) -> Answer;

    /// What follows from an event that could not be delivered; `None` where the gateway's own rule decides
    /// ([`OnFailure`](super::rules::OnFailure)).
    fn failed(&self, event: &Event, subject: &Subject) -> Option<Effects> {
        let _ = (event, subject);
        None
    }
}
