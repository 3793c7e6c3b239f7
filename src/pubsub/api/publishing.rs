//! Methods that publish: `publish`, `broadcast`, and `batch`, which may hold any other.

use super::{Fault, describe};
use crate::outbox::Outbox;
use crate::pubsub::app::Channels;
use crate::pubsub::centrifuge::command::{flag, number, text};
use crate::pubsub::codes::Error;
use crate::pubsub::engine::Post;
use crate::pubsub::idempotency::MAX_KEY_BYTES;
use crate::pubsub::json::in_one_line;
use crate::pubsub::streams::Position;
use crate::text::fields;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Channels of a broadcast, and commands of a batch.
const MOST: usize = 10_000;
/// Commands of a batch are called as long as the replies to those before have no more bytes than this.
const MOST_REPLY_BYTES: usize = 1 << 20;

/// What is to be published, wherever.
struct Publication<'a> {
    data: Cow<'a, str>,
    tags: Option<Cow<'a, str>>,
    skips_history: bool,
    key: Cow<'a, str>,
}

/// The fields that `publish` and `broadcast` have in common.
const NAMES: [&str; 8] =
    ["data", "b64data", "skip_history", "tags", "idempotency_key", "version", "channel", "channels"];

/// Reads them, and the channel or channels.
fn read(params: &str) -> Result<(Publication<'_>, Option<&RawValue>, Option<&RawValue>), Fault> {
    let [data, b64data, skip_history, tags, key, version, channel, channels] = fields::read(params, NAMES)?;
    // A publication that is left out where a newer one is there already: this is not done here.
    if number::<u64>(version)? > 0 {
        return Err(Error::NotAvailable.into());
    }
    let key = text(key)?;
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::BadRequest.into());
    }
    let data = match (data, text(b64data)?) {
        (Some(data), _) => in_one_line(data).map_err(|_| Error::BadRequest)?,
        (None, encoded) if !encoded.is_empty() => Cow::Owned(decode(&encoded)?),
        (None, _) => return Err(Error::BadRequest.into()),
    };
    let tags = match tags.filter(|tags| tags.get() != "null") {
        Some(tags) if tags.get().starts_with('{') => Some(in_one_line(tags).map_err(|_| Error::BadRequest)?),
        Some(_) => return Err(Error::BadRequest.into()),
        None => None,
    };
    Ok((Publication { data, tags, skips_history: flag(skip_history)?, key }, channel, channels))
}

/// JSON from base64: nothing else can be told to clients that speak JSON.
fn decode(encoded: &str) -> Result<String, Error> {
    let bytes = STANDARD.decode(encoded).map_err(|_| Error::BadRequest)?;
    let value: &RawValue = serde_json::from_slice(&bytes).map_err(|_| Error::BadRequest)?;
    in_one_line(value).map(Cow::into_owned).map_err(|_| Error::BadRequest)
}

impl Channels {
    pub(super) fn publish_one(&mut self, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        let (publication, channel, _) = read(params)?;
        let position = self.publish_on(&text(channel)?, &publication, out)?;
        Ok(result(position))
    }

    pub(super) fn broadcast(&mut self, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        let (publication, _, channels) = read(params)?;
        let channels: Vec<Cow<'_, str>> = serde_json::from_str(channels.map_or("[]", RawValue::get))?;
        if !(1..=MOST).contains(&channels.len()) {
            return Err(Error::BadRequest.into());
        }
        let responses = channels.iter().map(|channel| match self.publish_on(channel, &publication, out) {
            Ok(position) => format!("{{\"result\":{}}}", result(position)),
            Err(error) => format!("{{\"error\":{}}}", describe(error)),
        });
        Ok(format!("{{\"responses\":[{}]}}", responses.collect::<Vec<_>>().join(",")))
    }

    fn publish_on(
        &mut self,
        channel: &str,
        Publication { data, tags, skips_history, key }: &Publication<'_>,
        out: &mut Outbox,
    ) -> Result<Option<Position>, Error> {
        let rules = *self.engine.rules.of(channel)?;
        let now = out.now();
        if !key.is_empty()
            && let Some(before) = self.engine.results.find(channel, key, now)
        {
            return Ok(before);
        }
        let post = Post { data, info: None, tags: tags.as_deref(), skips_history: *skips_history };
        let position = self.engine.publish(channel, rules, post, out)?;
        self.pass_on_to_pusher(channel, data, out);
        if !key.is_empty() {
            self.engine.results.keep(channel, key, position, now);
        }
        Ok(position)
    }

    /// Calls several methods, one after the other.
    pub(super) fn batch(&mut self, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        let [commands] = fields::read(params, ["commands"])?;
        let commands: Vec<&RawValue> = serde_json::from_str(commands.map_or("[]", RawValue::get))?;
        if commands.len() > MOST {
            return Err(Error::BadRequest.into());
        }
        // All or nothing is done of what cannot be read.
        let mut calls = Vec::with_capacity(commands.len());
        for command in commands {
            calls.push(fields::entries(command.get(), 1)?.pop().ok_or(Error::BadRequest)?);
        }
        let mut replies = String::from("{\"replies\":[");
        for (number, (method, params)) in calls.iter().enumerate() {
            let done = match &**method {
                "batch" => Err(Error::MethodNotFound.into()),
                _ if replies.len() > MOST_REPLY_BYTES => Err(Error::LimitExceeded.into()),
                method => self.call(method, params.get(), out),
            };
            if number > 0 {
                replies.push(',');
            }
            match done {
                Ok(result) => replies.extend(["{\"", method, "\":", &result, "}"]),
                Err(Fault::Error(error)) => replies.extend(["{\"error\":", &describe(error), "}"]),
                Err(Fault::Malformed) => replies.extend(["{\"error\":", &describe(Error::BadRequest), "}"]),
            }
        }
        replies.push_str("]}");
        Ok(replies)
    }
}

fn result(position: Option<Position>) -> String {
    match position {
        Some(Position { offset, epoch }) => format!("{{\"offset\":{offset},\"epoch\":\"{}\"}}", epoch.as_str()),
        None => "{}".to_owned(),
    }
}
