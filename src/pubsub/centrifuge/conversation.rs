//! The handling of each command.

use super::command::{self, Command, Connect, Data, History, Method, Recover, Subscribe};
use super::costs::{COMMAND_MEMBERS, MOST_REPLIES_BYTES};
use super::presence::{presence, presence_stats};
use super::replies::{self, Replies};
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::pubsub::app::Channels;
use crate::pubsub::clients::{Client, Name};
use crate::pubsub::codes::{Disconnect, Error};
use crate::pubsub::engine::{Post, Published, Wanted};
use crate::pubsub::json::{self, in_one_line};
use crate::pubsub::rules::Namespace;
use crate::pubsub::tokens::{Identity, Refusal};
use crate::telemetry::log::Level;
use rand::Rng;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// The most commands of one message, besides subscriptions to the most channels of a client.
const MORE_COMMANDS: usize = 64;
/// The longest list of clients that a client may get.
const PRESENCE_BYTES: usize = 1 << 20;
/// Missed publications of this size or more are shared by all clients that missed the same.
const SHARED_BYTES: usize = 1024;
/// The version in the reply to `connect`.
const VERSION: &str = concat!("percore ", env!("CARGO_PKG_VERSION"));

/// How a command may fail: an error goes to the client, a disconnect ends the connection.
enum Fault {
    Error(Error),
    End(Disconnect),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Error(error)
    }
}

impl From<Disconnect> for Fault {
    fn from(disconnect: Disconnect) -> Fault {
        Fault::End(disconnect)
    }
}

impl Channels {
    /// Handles a message.
    pub(in crate::pubsub) fn hear(&mut self, id: ConnectionId, text: &str, out: &mut Outbox) {
        self.hear_lines(id, text.strip_suffix('\n').unwrap_or(text), 0, true, out);
    }

    /// Handles the lines of a message, or the rest of them after a wait, with the number of lines before.
    pub(super) fn hear_lines(
        &mut self,
        id: ConnectionId,
        lines: &str,
        mut number: usize,
        is_new: bool,
        out: &mut Outbox,
    ) {
        let mut replies = Replies::default();
        let most = self.engine.rules.limits.client_channels + MORE_COMMANDS;
        let mut rest = Some(lines);
        while let Some(lines) = rest {
            let (line, others) = lines.split_once('\n').map_or((lines, None), |(line, others)| (line, Some(others)));
            let done = match command::read(line) {
                Ok(command) if number < most => {
                    // A client that was sent much already gets an error, and has nothing to wait for.
                    let may_be_long = command.may_be_long() && self.may_be_long(id, &replies, out).is_ok();
                    if may_be_long && self.is_to_wait(is_new, out.now()) {
                        replies.flush(id, out);
                        return self.put_off(id, lines, number, is_new, out);
                    }
                    self.obey(id, command, &mut replies, out)
                }
                _ => Err(Disconnect::BadRequest),
            };
            if let Err(disconnect) = done {
                replies.flush(id, out);
                return self.end(id, disconnect, out);
            }
            (rest, number) = (others, number + 1);
        }
        replies.flush(id, out);
    }

    /// Ends a connection.
    pub(in crate::pubsub) fn end(&mut self, id: ConnectionId, why: Disconnect, out: &mut Outbox) {
        out.stats.channels_disconnects += 1;
        out.close(id, CloseCode::from(why.code()), why.reason());
    }

    fn obey(
        &mut self,
        id: ConnectionId,
        Command { id: number, method }: Command<'_>,
        replies: &mut Replies,
        out: &mut Outbox,
    ) -> Result<(), Disconnect> {
        let Some(method) = method else { return self.take_pong(id) };
        out.stats.channels_commands += 1;
        let done = match (self.engine.clients.get_mut(id.index), method) {
            (None, Method::Connect(connect)) => self.connect(id, number, connect, replies, out),
            (None, _) | (Some(_), Method::Connect(_)) => return Err(Disconnect::BadRequest),
            (Some(client), method) => match self.command_rates.wait_until(&client.commands, out.now()) {
                Some(_) => Err(Error::TooManyRequests.into()),
                None => {
                    self.command_rates.take(&mut client.commands, 1, 0, out.now());
                    self.do_command(id, number, method, replies, out)
                }
            },
        };
        match done {
            Ok(()) => Ok(()),
            Err(Fault::End(disconnect)) => Err(disconnect),
            Err(Fault::Error(error)) => {
                out.stats.channels_errors += 1;
                replies.error(number, error);
                Ok(())
            }
        }
    }

    fn do_command(
        &mut self,
        id: ConnectionId,
        number: u32,
        method: Method<'_>,
        replies: &mut Replies,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        match method {
            Method::Subscribe(subscribe) => return self.subscribe(id, number, &subscribe, replies, out),
            Method::Unsubscribe { channel } => {
                named(&channel)?;
                self.engine.unsubscribe(id.index, &channel, out);
                self.arm(id, out);
                replies.result(number, "unsubscribe", "{}");
            }
            Method::Publish { channel, data } => {
                // A client that has just subscribed hears of that first, and the others of its join.
                replies.flush(id, out);
                self.tell_news(out);
                match self.publish(id, &channel, data, out)? {
                    Published::Now(_) => replies.result(number, "publish", "{}"),
                    Published::Later(sequence) => self.waiting_answers.client(sequence, id, number),
                }
            }
            Method::Presence { channel } => {
                self.may_be_long(id, replies, out)?;
                self.lists_clients(id, &channel)?;
                let presence = presence(&channel, out);
                if presence.len() > PRESENCE_BYTES {
                    return Err(Error::LimitExceeded.into());
                }
                self.charge_answer(id, presence.len(), out);
                replies.result(number, "presence", &presence);
            }
            Method::PresenceStats { channel } => {
                self.lists_clients(id, &channel)?;
                let (clients, stats) = presence_stats(&channel, out);
                self.charge(id, clients / COMMAND_MEMBERS, out);
                replies.result(number, "presence_stats", &stats);
            }
            Method::History(history) => {
                self.may_be_long(id, replies, out)?;
                let result = self.history(id, &history, out)?;
                self.charge_answer(id, result.len(), out);
                replies.result(number, "history", &result);
            }
            Method::Refresh { token } => {
                let result = self.refresh(id, &token, out)?;
                replies.result(number, "refresh", &result);
            }
            Method::SubRefresh { channel, token } => {
                named(&channel)?;
                let result = self.refresh_subscription(id, &channel, &token, out)?;
                replies.result(number, "sub_refresh", &result);
            }
            Method::Rpc => return Err(Error::NotAvailable.into()),
            // There is no recipient.
            Method::Send => {}
            Method::Connect(_) => return Err(Disconnect::BadRequest.into()),
        }
        Ok(())
    }

    fn connect(
        &mut self,
        id: ConnectionId,
        number: u32,
        connect: Connect<'_>,
        replies: &mut Replies,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let now = out.now();
        let identity = self.identify(&connect.token, out)?;
        self.may_be_on_all(&identity, out)?;
        let rules = identity.channels.iter().map(|(channel, _)| self.engine.rules.of(channel).copied());
        let rules: Vec<Namespace> = rules.collect::<Result<_, _>>()?;
        let mut random = [0; 16];
        self.random.fill_bytes(&mut random);
        let mut client = Client::new(id, Name::new(id, random), Rc::clone(&identity.user), identity.info.clone());
        client.expires = identity.until.map(|until| self.instant(until, out));
        let mut fields = vec![format!("\"client\":\"{}\",\"version\":\"{VERSION}\"", client.name)];
        fields.extend(replies::expiry(client.expires, now));
        client.expires = client.expires.map(|at| at + self.engine.rules.times.grace);
        let ping = self.engine.rules.times.ping;
        if self.takes_pings(id) && !ping.is_zero() {
            // Spread, so that clients that connect together are not pinged together.
            client.next_ping = Some(now + ping.mul_f64(0.5 + f64::from(random[15]) / 512.0));
            fields.push(format!("\"ping\":{},\"pong\":true", ping.as_secs().max(1)));
        }
        self.waiting.remove(&id.index);
        self.engine.clients.add(client);
        let (mut subs, mut bytes) = (Vec::new(), 0);
        for ((channel, info), rules) in identity.channels.iter().zip(rules) {
            let from = connect.positions.iter().find(|(name, _)| *name == *channel);
            let from = from.map(|(_, from)| from).filter(|from| from.recover);
            let wanted = Wanted {
                info: info.clone(),
                // A client that would get too much at once learns that it missed the rest.
                recover: from
                    .filter(|_| bytes < MOST_REPLIES_BYTES)
                    .map(|Recover { offset, epoch, .. }| (*offset, &**epoch)),
                is_server_side: true,
                hears_others: true,
                ..Wanted::default()
            };
            let Ok(subscribed) = self.engine.subscribe(id.index, channel, rules, wanted, out) else { continue };
            let (head, tail) = replies::subscribed(&subscribed, from.map(|from| from.offset), None);
            let missed = subscribed.missed.as_deref().unwrap_or_default();
            count_recovery(from.is_some(), subscribed.missed.is_some(), out);
            bytes += missed.len();
            self.charge_answer(id, missed.len(), out);
            subs.push(format!("{}:{head}{missed}{tail}", json::string(channel)));
        }
        if !subs.is_empty() {
            fields.push(format!("\"subs\":{{{}}}", subs.join(",")));
        }
        replies.result(number, "connect", &format!("{{{}}}", fields.join(",")));
        self.arm(id, out);
        Ok(())
    }

    /// Refuses a token that puts a client on too many channels: the client would miss some without knowing.
    fn may_be_on_all(&self, identity: &Identity, out: &mut Outbox) -> Result<(), Error> {
        let most = self.engine.rules.limits.client_channels;
        let channels: BTreeSet<&str> = identity.channels.iter().map(|(channel, _)| channel.as_str()).collect();
        if channels.len() <= most {
            return Ok(());
        }
        let (user, count) = (&identity.user, channels.len());
        let line = format_args!(
            "the token of user '{user}' has {count} channels, and a client may be on {most} (--max-channels): refused"
        );
        out.log(Level::Warn, "channels", None, line);
        Err(Error::LimitExceeded)
    }

    /// The identity of a client with this token.
    fn identify(&mut self, token: &str, out: &mut Outbox) -> Result<Identity, Fault> {
        let rules = &self.engine.rules;
        if rules.is_insecure || (token.is_empty() && rules.allows_anonymous) {
            return Ok(Identity { user: Rc::clone(&self.nobody), ..Identity::default() });
        }
        self.current_tokens(out).connection(token, out.unix_time()).map_err(|refusal| match refusal {
            Refusal::Expired => Error::TokenExpired.into(),
            Refusal::Invalid => Disconnect::InvalidToken.into(),
        })
    }

    fn subscribe(
        &mut self,
        id: ConnectionId,
        number: u32,
        subscribe: &Subscribe<'_>,
        replies: &mut Replies,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let channel = &*subscribe.channel;
        named(channel)?;
        let rules = *self.engine.rules.of(channel)?;
        let now = out.now();
        let Some(client) = self.engine.clients.get(id.index) else { return Err(Error::Internal.into()) };
        let user = Rc::clone(&client.user);
        if client.subscription(channel).is_some() {
            return Err(Error::AlreadySubscribed.into());
        }
        let (mut info, mut until) = (None, None);
        if !subscribe.token.is_empty() && !self.engine.rules.is_insecure {
            let granted = self.current_tokens(out).subscription(&subscribe.token, channel, &user, out.unix_time());
            let granted = granted.map_err(|refusal| match refusal {
                Refusal::Expired => Error::TokenExpired,
                Refusal::Invalid => Error::PermissionDenied,
            })?;
            (info, until) = (granted.info, granted.until.map(|until| self.instant(until, out)));
        } else if !self.engine.rules.lets_subscribe(&rules, channel, &user) {
            return Err(Error::PermissionDenied.into());
        }
        let recover = subscribe.recover.recover.then_some((subscribe.recover.offset, &*subscribe.recover.epoch));
        if recover.is_some() {
            self.may_be_long(id, replies, out)?;
        }
        let wanted = Wanted {
            info,
            expires: until.map(|until| until + self.engine.rules.times.grace),
            recover,
            is_recoverable: subscribe.is_recoverable,
            is_positioned: subscribe.is_positioned,
            hears_others: subscribe.hears_others,
            is_server_side: false,
        };
        if rules.join_leave && !self.engine.may_tell_others(id.index, channel, &wanted, out) {
            return Err(Error::TooManyRequests.into());
        }
        let subscribed = self.engine.subscribe(id.index, channel, rules, wanted, out)?;
        count_recovery(recover.is_some(), subscribed.missed.is_some(), out);
        if until.is_some() {
            self.arm(id, out);
        }
        let (head, tail) =
            replies::subscribed(&subscribed, recover.map(|(offset, _)| offset), replies::expiry(until, now));
        let missed = subscribed.missed.as_deref().unwrap_or_default();
        self.charge_answer(id, missed.len(), out);
        if missed.len() < SHARED_BYTES {
            replies.result(number, "subscribe", &[&head, missed, tail].concat());
            return Ok(());
        }
        replies.flush(id, out);
        let (from, top) = (recover.map_or(0, |(offset, _)| offset), subscribed.top.map(replies::position));
        let (key, own) = (format!("{from} {top:?} {channel}"), format!("{{\"id\":{number},\"subscribe\":{head}"));
        replies.add(self.share(id, key, &own, [missed, tail, "}"], out));
        Ok(())
    }

    fn publish(
        &mut self,
        id: ConnectionId,
        channel: &str,
        data: Data<'_>,
        out: &mut Outbox,
    ) -> Result<Published, Fault> {
        named(channel)?;
        let rules = *self.engine.rules.of(channel)?;
        let Some(client) = self.engine.clients.get(id.index) else { return Err(Error::Internal.into()) };
        let subscription = client.subscription(channel);
        if !rules.publish.lets(&client.user, subscription.is_some()) {
            return Err(Error::PermissionDenied.into());
        }
        let data = data.0.ok_or(Error::BadRequest)?;
        if data.get().len() > self.engine.rules.limits.publication {
            return Err(Error::LimitExceeded.into());
        }
        let data = in_one_line(data).map_err(|_| Error::BadRequest)?;
        let info = client.describe(subscription.and_then(|subscription| subscription.info.as_deref()));
        let post = Post { data: &data, info: Some(&info), ..Post::default() };
        let published = self.engine.publish(channel, rules, post, out)?;
        self.published(channel, &data, published, out);
        Ok(published)
    }

    /// Whether a client may see the clients on a channel.
    fn lists_clients(&self, id: ConnectionId, channel: &str) -> Result<(), Fault> {
        named(channel)?;
        let rules = self.engine.rules.of(channel)?;
        if !rules.presence {
            return Err(Error::NotAvailable.into());
        }
        let client = self.engine.clients.get(id.index).ok_or(Error::Internal)?;
        match rules.presence_for.lets(&client.user, client.subscription(channel).is_some()) {
            true => Ok(()),
            false => Err(Error::PermissionDenied.into()),
        }
    }

    fn history(&mut self, id: ConnectionId, wanted: &History<'_>, out: &mut Outbox) -> Result<String, Fault> {
        let channel = &*wanted.channel;
        named(channel)?;
        let rules = *self.engine.rules.of(channel)?;
        if !rules.has_history() {
            return Err(Error::NotAvailable.into());
        }
        let client = self.engine.clients.get(id.index).ok_or(Error::Internal)?;
        if !rules.history_for.lets(&client.user, client.subscription(channel).is_some()) {
            return Err(Error::PermissionDenied.into());
        }
        let most = self.engine.rules.limits.recovery.publications;
        let limit = usize::try_from(wanted.limit).map_or(most, |limit| limit.min(most));
        let since = wanted.since.as_ref().map(|(offset, epoch)| (*offset, &**epoch));
        let (top, publications) = self.engine.history(channel, rules, since, (wanted.reverse, limit), out)?;
        Ok(replies::history(top, &publications))
    }

    fn refresh(&mut self, id: ConnectionId, token: &str, out: &mut Outbox) -> Result<String, Fault> {
        if token.is_empty() {
            return Err(Disconnect::BadRequest.into());
        }
        let identity =
            self.current_tokens(out).connection(token, out.unix_time()).map_err(|refusal| match refusal {
                Refusal::Expired => Disconnect::Expired,
                Refusal::Invalid => Disconnect::InvalidToken,
            })?;
        let until = identity.until.map(|until| self.instant(until, out));
        let grace = self.engine.rules.times.grace;
        let client = self.engine.clients.get_mut(id.index).ok_or(Error::Internal)?;
        if client.user != identity.user {
            return Err(Disconnect::InvalidToken.into());
        }
        client.expires = until.map(|until| until + grace);
        let mut fields = vec![format!("\"client\":\"{}\",\"version\":\"{VERSION}\"", client.name)];
        fields.extend(replies::expiry(until, out.now()));
        self.arm(id, out);
        Ok(format!("{{{}}}", fields.join(",")))
    }

    fn refresh_subscription(
        &mut self,
        id: ConnectionId,
        channel: &str,
        token: &str,
        out: &mut Outbox,
    ) -> Result<String, Fault> {
        let client = self.engine.clients.get(id.index).ok_or(Error::Internal)?;
        let user = Rc::clone(&client.user);
        // The same error as for a subscription that has just ended.
        client.subscription(channel).ok_or(Error::PermissionDenied)?;
        let granted = self.current_tokens(out).subscription(token, channel, &user, out.unix_time());
        let granted = granted.map_err(|refusal| match refusal {
            Refusal::Expired => Error::TokenExpired,
            Refusal::Invalid => Error::PermissionDenied,
        })?;
        let until = granted.until.map(|until| self.instant(until, out));
        let grace = self.engine.rules.times.grace;
        if let Some(subscription) =
            self.engine.clients.get_mut(id.index).and_then(|client| client.subscription_mut(channel))
        {
            subscription.expires = until.map(|until| until + grace);
        }
        self.arm(id, out);
        Ok(format!("{{{}}}", replies::expiry(until, out.now()).unwrap_or_default()))
    }

    /// Converts Unix time to the clock of this process.
    fn instant(&self, unix: Duration, out: &Outbox) -> Duration {
        out.now() + unix.saturating_sub(out.unix_time())
    }
}

/// Refuses an empty channel name: clients of this protocol always give one.
fn named(channel: &str) -> Result<(), Disconnect> {
    if channel.is_empty() { Err(Disconnect::BadRequest) } else { Ok(()) }
}

fn count_recovery(was_recovering: bool, recovered: bool, out: &mut Outbox) {
    if was_recovering {
        out.stats.channels_recoveries[usize::from(!recovered)] += 1;
    }
}
