//! Methods that publish: `publish`, `broadcast`, and `batch`, which may hold any other.

use super::{Fault, describe};
use crate::outbox::Outbox;
use crate::pubsub::app::Channels;
use crate::pubsub::centrifuge::command::{flag, number, text};
use crate::pubsub::codes::Error;
use crate::pubsub::engine::{Post, Published};
use crate::pubsub::idempotency::MAX_KEY_BYTES;
use crate::pubsub::json::in_one_line;
use crate::pubsub::waiting::{Later, Reply, Value, position_of};
use crate::text::fields;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The most channels of a broadcast, and commands of a batch.
const MOST: usize = 10_000;
/// A batch stops calling commands once the replies so far exceed this many bytes.
const MOST_REPLY_BYTES: usize = 1 << 20;

/// A publication, apart from its channels.
struct Publication<'a> {
    data: Cow<'a, str>,
    tags: Option<Cow<'a, str>>,
    skips_history: bool,
    key: Cow<'a, str>,
}

/// The fields common to `publish` and `broadcast`.
const NAMES: [&str; 8] =
    ["data", "b64data", "skip_history", "tags", "idempotency_key", "version", "channel", "channels"];

/// Reads the publication, and the channel or channels.
fn read(params: &str) -> Result<(Publication<'_>, Option<&RawValue>, Option<&RawValue>), Fault> {
    let [data, b64data, skip_history, tags, key, version, channel, channels] = fields::read(params, NAMES)?;
    // A version skips publications older than the newest: this is not supported.
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

/// JSON from base64: clients that speak JSON can receive nothing else.
fn decode(encoded: &str) -> Result<String, Error> {
    let bytes = STANDARD.decode(encoded).map_err(|_| Error::BadRequest)?;
    let value: &RawValue = serde_json::from_slice(&bytes).map_err(|_| Error::BadRequest)?;
    in_one_line(value).map(Cow::into_owned).map_err(|_| Error::BadRequest)
}

impl Channels {
    pub(super) fn publish_one(&mut self, params: &str, out: &mut Outbox) -> Result<Value, Fault> {
        let (publication, channel, _) = read(params)?;
        Ok(result(self.publish_on(&text(channel)?, &publication, out)?))
    }

    pub(super) fn broadcast(&mut self, params: &str, out: &mut Outbox) -> Result<Value, Fault> {
        let (publication, _, channels) = read(params)?;
        let channels: Vec<Cow<'_, str>> = serde_json::from_str(channels.map_or("[]", RawValue::get))?;
        if !(1..=MOST).contains(&channels.len()) {
            return Err(Error::BadRequest.into());
        }
        let mut responses = Reply::default();
        for (number, channel) in channels.iter().enumerate() {
            responses.push(if number == 0 { "{\"responses\":[{" } else { "},{" });
            match self.publish_on(channel, &publication, out) {
                Ok(published) => responses.field("result", result(published)),
                Err(error) => responses.field("error", describe(error).into()),
            }
        }
        responses.push("}]}");
        Ok(Value::Parts(responses))
    }

    fn publish_on(
        &mut self,
        channel: &str,
        Publication { data, tags, skips_history, key }: &Publication<'_>,
        out: &mut Outbox,
    ) -> Result<Published, Error> {
        let rules = *self.engine.rules.of(channel)?;
        let now = out.now();
        if !key.is_empty()
            && let Some(before) = self.engine.results.find(channel, key, now)
        {
            return Ok(Published::Now(before));
        }
        let post = Post { data, info: None, tags: tags.as_deref(), skips_history: *skips_history, key };
        let published = self.engine.publish(channel, rules, post, out)?;
        self.published(channel, data, published, out);
        if !key.is_empty()
            && let Published::Now(position) = published
        {
            self.engine.results.keep(channel, key, position, now);
        }
        Ok(published)
    }

    /// Calls several methods in order.
    pub(super) fn batch(&mut self, params: &str, out: &mut Outbox) -> Result<Value, Fault> {
        let [commands] = fields::read(params, ["commands"])?;
        let commands: Vec<&RawValue> = serde_json::from_str(commands.map_or("[]", RawValue::get))?;
        if commands.len() > MOST {
            return Err(Error::BadRequest.into());
        }
        // Commands that cannot be parsed fail the batch before any is called.
        let mut calls = Vec::with_capacity(commands.len());
        for command in commands {
            calls.push(fields::entries(command.get(), 1)?.pop().ok_or(Error::BadRequest)?);
        }
        let mut replies = Reply::default();
        replies.push("{\"replies\":[");
        for (number, (method, params)) in calls.iter().enumerate() {
            let done = match &**method {
                "batch" => Err(Error::MethodNotFound.into()),
                _ if replies.bytes() > MOST_REPLY_BYTES => Err(Error::LimitExceeded.into()),
                method => self.call(method, params.get(), out),
            };
            replies.push(if number > 0 { ",{" } else { "{" });
            match done {
                Ok(value) => replies.field(method, value),
                Err(Fault::Error(error)) => replies.field("error", describe(error).into()),
                Err(Fault::Malformed) => replies.field("error", describe(Error::BadRequest).into()),
            }
            replies.push("}");
        }
        replies.push("]}");
        Ok(Value::Parts(replies))
    }
}

fn result(published: Published) -> Value {
    match published {
        Published::Now(Some(position)) => position_of(position).into(),
        Published::Now(None) => "{}".to_owned().into(),
        Published::Later(sequence) => Value::Later(Later { sequence, is_position: true }),
    }
}
