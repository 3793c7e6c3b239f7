//! Methods that query, and methods about connections.

use super::Fault;
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::pubsub::app::Channels;
use crate::pubsub::centrifuge::command::{flag, number, read_since, text};
use crate::pubsub::centrifuge::{presence, presence_stats, push, replies};
use crate::pubsub::codes::{Disconnect, Error, Unsubscribe};
use crate::pubsub::engine::{Wanted, channel_of};
use crate::pubsub::json::{in_one_line, push_string, string};
use crate::pubsub::rules::Namespace;
use crate::pubsub::waiting::{Later, Value};
use crate::text::fields;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// The close codes that a backend may use.
const CLOSE_CODES: std::ops::RangeInclusive<u16> = 3000..=4999;

/// Reads which connections are meant.
fn read_clients<'a>(
    user: Option<&'a RawValue>,
    client: Option<&'a RawValue>,
    session: Option<&'a RawValue>,
) -> Result<(Cow<'a, str>, Cow<'a, str>), Fault> {
    // Clients get no session, so none can match.
    if !text(session)?.is_empty() {
        return Err(Error::NotAvailable.into());
    }
    Ok((text(user)?, text(client)?))
}

fn channel_in(params: &str) -> Result<Cow<'_, str>, Fault> {
    let [channel] = fields::read(params, ["channel"])?;
    Ok(text(channel)?)
}

impl Channels {
    /// Carries out a method on connections of this process.
    pub(super) fn act(&mut self, method: &str, params: &str, out: &mut Outbox) -> Result<(), Fault> {
        match method {
            "subscribe" => self.subscribe_clients(params, out),
            "unsubscribe" => self.unsubscribe_clients(params, out),
            "disconnect" => self.disconnect_clients(params, out),
            "refresh" => self.refresh_clients(params, out),
            _ => Err(Error::MethodNotFound.into()),
        }
    }

    fn subscribe_clients(&mut self, params: &str, out: &mut Outbox) -> Result<(), Fault> {
        let names = ["user", "client", "session", "channel", "info", "data", "recover_since"];
        let [user, client, session, channel, info, data, since] = fields::read(params, names)?;
        let (user, client) = read_clients(user, client, session)?;
        let channel = text(channel)?;
        let rules = *self.engine.rules.of(&channel)?;
        let line = |value: Option<&RawValue>| match value.map(in_one_line) {
            Some(Ok(line)) => Ok(Some(Rc::<str>::from(&*line))),
            Some(Err(_)) => Err(Error::BadRequest),
            None => Ok(None),
        };
        let (info, data, since) = (line(info)?, line(data)?, read_since(since)?);
        for index in self.engine.clients.of(&user, &client) {
            let Some(id) = self.engine.clients.get(index).map(|client| client.id) else { continue };
            let recover = since.as_ref().map(|(offset, epoch)| (*offset, &**epoch));
            let info = info.clone();
            let wanted = Wanted { info, recover, is_server_side: true, hears_others: true, ..Wanted::default() };
            // A client that is on the channel already, or on too many, stays as it is.
            let Ok(subscribed) = self.engine.subscribe(index, &channel, rules, wanted, out) else { continue };
            let data = data.as_ref().map(|data| format!("\"data\":{data}"));
            let (head, tail) = replies::subscribed(&subscribed, recover.map(|(offset, _)| offset), data);
            let missed = subscribed.missed.as_deref().unwrap_or_default();
            out.send_text(id, &push::subscribe(&channel, &[&head, missed, tail].concat()));
        }
        Ok(())
    }

    fn unsubscribe_clients(&mut self, params: &str, out: &mut Outbox) -> Result<(), Fault> {
        let [user, client, session, channel] = fields::read(params, ["user", "client", "session", "channel"])?;
        let (user, client) = read_clients(user, client, session)?;
        let channel = text(channel)?;
        let why = Unsubscribe::Server;
        for index in self.engine.clients.of(&user, &client) {
            let all = self.engine.clients.get(index).map(|client| client.subscriptions()).unwrap_or_default();
            let is_meant = |name: &str| channel.is_empty() || name == channel;
            let meant: Vec<Rc<str>> = all.iter().map(|one| one.channel.clone()).filter(|name| is_meant(name)).collect();
            for name in meant {
                self.engine.unsubscribe_for(index, &name, (why.code().into(), why.reason()), out);
            }
        }
        Ok(())
    }

    fn disconnect_clients(&mut self, params: &str, out: &mut Outbox) -> Result<(), Fault> {
        let names = ["user", "client", "session", "disconnect", "whitelist", "code", "reason"];
        let [user, client, session, disconnect, whitelist, code, reason] = fields::read(params, names)?;
        let (user, client) = read_clients(user, client, session)?;
        let [code, reason] = match disconnect.filter(|disconnect| disconnect.get() != "null") {
            Some(object) => fields::read(object.get(), ["code", "reason"])?,
            None => [code, reason],
        };
        let spared: Vec<Cow<'_, str>> = match whitelist.filter(|list| list.get() != "null") {
            Some(list) => serde_json::from_str(list.get())?,
            None => Vec::new(),
        };
        let (code, reason) = match (number::<u16>(code)?, text(reason)?) {
            (0, _) => (Disconnect::Force.code(), Cow::Borrowed(Disconnect::Force.reason())),
            (code, reason) if CLOSE_CODES.contains(&code) => (code, reason),
            _ => return Err(Error::BadRequest.into()),
        };
        for index in self.engine.clients.of(&user, &client) {
            let Some(client) = self.engine.clients.get(index) else { continue };
            if !spared.iter().any(|name| *name == *client.name) {
                out.stats.channels_disconnects += 1;
                out.close(client.id, CloseCode::from(code), &reason);
            }
        }
        Ok(())
    }

    fn refresh_clients(&mut self, params: &str, out: &mut Outbox) -> Result<(), Fault> {
        let names = ["user", "client", "session", "expired", "expire_at"];
        let [user, client, session, expired, expire_at] = fields::read(params, names)?;
        let (user, client) = read_clients(user, client, session)?;
        let (expired, at) = (flag(expired)?, number::<u64>(expire_at)?);
        let until = (at > 0).then(|| out.now() + Duration::from_secs(at).saturating_sub(out.unix_time()));
        let ids: Vec<ConnectionId> = self
            .engine
            .clients
            .of(&user, &client)
            .into_iter()
            .filter_map(|index| {
                let client = self.engine.clients.get_mut(index)?;
                client.expires = until;
                Some(client.id)
            })
            .collect();
        for id in ids {
            match expired {
                true => self.end(id, Disconnect::Expired, out),
                false => self.arm(id, out),
            }
        }
        Ok(())
    }

    /// The rules of the channel in question.
    fn rules_in(&self, params: &str) -> Result<(Namespace, String), Fault> {
        let channel = channel_in(params)?.into_owned();
        Ok((*self.engine.rules.of(&channel)?, channel))
    }

    pub(super) fn presence(&mut self, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        match self.rules_in(params)? {
            (rules, channel) if rules.presence => Ok(presence(&channel, out)),
            _ => Err(Error::NotAvailable.into()),
        }
    }

    pub(super) fn presence_stats(&mut self, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        match self.rules_in(params)? {
            (rules, channel) if rules.presence => Ok(presence_stats(&channel, out).1),
            _ => Err(Error::NotAvailable.into()),
        }
    }

    pub(super) fn history_of(&mut self, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        let (rules, channel) = self.rules_in(params)?;
        if !rules.has_history() {
            return Err(Error::NotAvailable.into());
        }
        let [limit, since, reverse] = fields::read(params, ["limit", "since", "reverse"])?;
        let most = self.engine.rules.limits.recovery.publications;
        let limit = usize::try_from(number::<i64>(limit)?).map_or(most, |limit| limit.min(most));
        let since = read_since(since)?;
        let since = since.as_ref().map(|(offset, epoch)| (*offset, &**epoch));
        let (top, publications) = self.engine.history(&channel, rules, since, (flag(reverse)?, limit), out)?;
        Ok(replies::history(top, &publications))
    }

    pub(super) fn remove_history(&mut self, params: &str, out: &mut Outbox) -> Result<Value, Fault> {
        let (rules, channel) = self.rules_in(params)?;
        if !rules.has_history() {
            return Err(Error::NotAvailable.into());
        }
        Ok(match self.engine.remove_history(&channel, out)? {
            Some(sequence) => Value::Later(Later { sequence, is_position: false }),
            None => "{}".to_owned().into(),
        })
    }

    /// The channels with subscribers in any worker.
    pub(super) fn list_channels(&mut self, params: &str, out: &mut Outbox) -> Result<String, Fault> {
        let [pattern] = fields::read(params, ["pattern"])?;
        let pattern = text(pattern)?;
        let names = out.channels().filter_map(|name| channel_of(std::str::from_utf8(name).ok()?));
        let names: BTreeSet<&str> = names.filter(|name| pattern.is_empty() || fits(name, &pattern)).collect();
        let mut list = String::from("{\"channels\":{");
        for name in names {
            let clients = out.subscribers(&crate::pubsub::engine::publications_of(name));
            if clients > 0 {
                if !list.ends_with('{') {
                    list.push(',');
                }
                push_string(&mut list, name);
                list.push_str(&format!(":{{\"num_clients\":{clients}}}"));
            }
        }
        list.push_str("}}");
        Ok(list)
    }

    /// Describes this process as the only node.
    pub(super) fn describe_nodes(&self, out: &Outbox) -> String {
        let (clients, users) = self.engine.clients.count();
        let (channels, uptime) = (self.engine.channels(), out.now().as_secs());
        let (uid, version) = (string(&self.name), string(env!("CARGO_PKG_VERSION")));
        format!(
            "{{\"nodes\":[{{\"uid\":{uid},\"name\":\"percore\",\"version\":{version},\"num_clients\":{clients},\
             \"num_users\":{users},\"num_subs\":{},\"num_channels\":{channels},\"uptime\":{uptime}}}]}}",
            self.engine.subscriptions()
        )
    }
}

/// Whether a name matches a pattern, where `*` is any text and `?` any character.
fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.as_bytes(), pattern.as_bytes());
    let (mut at, mut of, mut retry) = (0, 0, None);
    while at < name.len() {
        match pattern.get(of) {
            Some(b'*') => {
                retry = Some((at, of + 1));
                of += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[at] => (at, of) = (at + 1, of + 1),
            _ => match retry {
                // The last star matches one more character.
                Some((begin, behind)) => {
                    retry = Some((begin + 1, behind));
                    (at, of) = (begin + 1, behind);
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (name, pattern) in
            [("abc", "abc"), ("abc", "a*"), ("abc", "*"), ("abc", "a?c"), ("abcabc", "*bc"), ("a", "a**")]
        {
            assert!(fits(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in [("abc", "ab"), ("abc", "abcd"), ("abc", "b*"), ("abc", "a?"), ("abc", "*b")] {
            assert!(!fits(name, pattern), "{name} {pattern}");
        }
    }
}
