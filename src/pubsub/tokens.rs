//! What tokens say of clients.

use std::rc::Rc;
use std::time::Duration;

/// Who a client is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// The user; empty for nobody that is known.
    pub user: Rc<str>,
    /// What is known of the user, as JSON.
    pub info: Option<Rc<str>>,
    /// Until when it is so, by Unix time.
    pub until: Option<Duration>,
    /// Channels that the client is put on without asking, and what is known of it there.
    pub channels: Vec<(String, Option<Rc<str>>)>,
}

/// What a token allows on one channel.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Grant {
    /// What is known of the client there, as JSON.
    pub info: Option<Rc<str>>,
    /// Until when it is allowed, by Unix time.
    pub until: Option<Duration>,
}

/// Why a token is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It was good once.
    Expired,
    /// It never was, or not for this.
    Invalid,
}

/// By what tokens are known to be good.
#[derive(Default, Debug)]
pub struct Tokens;

impl Tokens {
    /// Whom a token names.
    ///
    /// # Errors
    /// When it is not good.
    pub fn connection(&self, _: &str, _: Duration) -> Result<Identity, Refusal> {
        Err(Refusal::Invalid)
    }

    /// What a token allows a user on a channel.
    ///
    /// # Errors
    /// When it is not good, or not for that.
    pub fn subscription(&self, _: &str, _: &str, _: &str, _: Duration) -> Result<Grant, Refusal> {
        Err(Refusal::Invalid)
    }
}
