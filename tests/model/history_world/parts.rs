//! A client that wants to hear all of every channel, and the rules of these.

use percore::internal::pubsub::rules::{Namespace, Rules};
use percore::internal::pubsub::streams::Keep;
use std::collections::HashMap;
use std::time::Duration;

#[derive(Default)]
pub struct Follower {
    pub at: Option<(usize, u32)>,
    pub got: Vec<u8>,
    /// By channel: epoch and offset.
    pub positions: HashMap<String, (String, u64)>,
    pub asked: HashMap<u64, String>,
    pub next: u64,
}

pub fn rules(max_bytes: usize) -> Rules {
    let keep = Keep { size: 8, ttl: Duration::from_secs(40), meta_ttl: Duration::from_secs(90) };
    let plain = Namespace { keep, ..Namespace::default() }.open_to_all();
    let mut rules = Rules { plain, is_insecure: true, ..Rules::default() };
    rules.limits.history = max_bytes;
    rules
}
