//! Commands of clients: one line of JSON each. Unknown fields are skipped and take no memory, however deep they are
//! nested.

use crate::text::fields::{self, string};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A message of a client.
#[derive(Clone, PartialEq, Debug)]
pub struct Command<'a> {
    /// Its number; 0 if no reply is wanted.
    pub id: u32,
    /// The method; `None` for a pong.
    pub method: Option<Method<'a>>,
}

impl Command<'_> {
    /// Whether the answer may be long: a part of a history, or a list of clients.
    pub fn may_be_long(&self) -> bool {
        match &self.method {
            Some(Method::Connect(connect)) => !connect.positions.is_empty(),
            Some(Method::Subscribe(subscribe)) => subscribe.recover.recover,
            Some(Method::History(_) | Method::Presence { .. }) => true,
            _ => false,
        }
    }
}

/// The method of a command, with its parameters.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Method<'a> {
    Connect(Connect<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe { channel: Cow<'a, str> },
    Publish { channel: Cow<'a, str>, data: Data<'a> },
    Presence { channel: Cow<'a, str> },
    PresenceStats { channel: Cow<'a, str> },
    History(History<'a>),
    Rpc,
    Refresh { token: Cow<'a, str> },
    SubRefresh { channel: Cow<'a, str>, token: Cow<'a, str> },
    Send,
}

/// JSON as received.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a>(pub Option<&'a RawValue>);

impl PartialEq for Data<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.map(RawValue::get) == other.0.map(RawValue::get)
    }
}

/// `connect`.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Connect<'a> {
    /// Identifies the client.
    pub token: Cow<'a, str>,
    /// The client's positions on channels that the server puts it on, by name.
    pub positions: Vec<(Cow<'a, str>, Recover<'a>)>,
}

/// A position after which a client wants what it missed, if it does.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Recover<'a> {
    /// Whether it does.
    pub recover: bool,
    /// The last offset that it saw.
    pub offset: u64,
    /// The epoch of the stream.
    pub epoch: Cow<'a, str>,
}

/// `subscribe`.
#[derive(Clone, PartialEq, Default, Debug)]
#[allow(missing_docs)]
pub struct Subscribe<'a> {
    pub channel: Cow<'a, str>,
    pub token: Cow<'a, str>,
    pub recover: Recover<'a>,
    pub is_recoverable: bool,
    pub is_positioned: bool,
    pub hears_others: bool,
}

/// `history`.
#[derive(Clone, PartialEq, Default, Debug)]
#[allow(missing_docs)]
pub struct History<'a> {
    pub channel: Cow<'a, str>,
    /// The number of publications; 0 for the position only, negative for all.
    pub limit: i64,
    pub since: Option<(u64, Cow<'a, str>)>,
    pub reverse: bool,
}

/// An invalid command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl From<serde_json::Error> for Malformed {
    fn from(_: serde_json::Error) -> Malformed {
        Malformed
    }
}

/// Parses a line.
///
/// # Errors
/// When it is not a known command.
pub fn read(line: &str) -> Result<Command<'_>, Malformed> {
    // A pong, as most lines are.
    if line == "{}" {
        return Ok(Command { id: 0, method: None });
    }
    let names = [
        "id",
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "rpc",
        "refresh",
        "sub_refresh",
        "send",
        "ping",
    ];
    let [
        id,
        connect,
        subscribe,
        unsubscribe,
        publish,
        presence,
        presence_stats,
        history,
        rpc,
        refresh,
        sub_refresh,
        send,
        ping,
    ] = fields::read(line, names)?;
    let id = number(id)?;
    let method = if let Some(object) = connect {
        Method::Connect(read_connect(object)?)
    } else if let Some(object) = subscribe {
        Method::Subscribe(read_subscribe(object)?)
    } else if let Some(object) = unsubscribe {
        Method::Unsubscribe { channel: channel_of(object)? }
    } else if let Some(object) = publish {
        let [channel, data] = fields::read(object.get(), ["channel", "data"])?;
        Method::Publish { channel: text(channel)?, data: Data(data) }
    } else if let Some(object) = presence {
        Method::Presence { channel: channel_of(object)? }
    } else if let Some(object) = presence_stats {
        Method::PresenceStats { channel: channel_of(object)? }
    } else if let Some(object) = history {
        Method::History(read_history(object)?)
    } else if rpc.is_some() {
        Method::Rpc
    } else if let Some(object) = refresh {
        let [token] = fields::read(object.get(), ["token"])?;
        Method::Refresh { token: text(token)? }
    } else if let Some(object) = sub_refresh {
        let [channel, token] = fields::read(object.get(), ["channel", "token"])?;
        Method::SubRefresh { channel: text(channel)?, token: text(token)? }
    } else if send.is_some() {
        return Ok(Command { id, method: Some(Method::Send) });
    } else {
        let is_pong = id == 0 && ping.is_none();
        return if is_pong { Ok(Command { id, method: None }) } else { Err(Malformed) };
    };
    // A command with a method needs a reply, so a number.
    if id == 0 { Err(Malformed) } else { Ok(Command { id, method: Some(method) }) }
}

fn read_connect(object: &RawValue) -> Result<Connect<'_>, Malformed> {
    let [token, subs] = fields::read(object.get(), ["token", "subs"])?;
    let mut positions = Vec::new();
    if let Some(subs) = subs.filter(|subs| subs.get() != "null") {
        for (channel, object) in fields::entries(subs.get(), MAX_POSITIONS)? {
            let [recover, offset, epoch] = fields::read(object.get(), ["recover", "offset", "epoch"])?;
            positions.push((channel, read_recover(recover, offset, epoch)?));
        }
    }
    Ok(Connect { token: text(token)?, positions })
}

/// The most positions that a client may send with `connect`.
const MAX_POSITIONS: usize = 1024;

fn read_recover<'a>(
    recover: Option<&'a RawValue>,
    offset: Option<&'a RawValue>,
    epoch: Option<&'a RawValue>,
) -> Result<Recover<'a>, Malformed> {
    Ok(Recover { recover: flag(recover)?, offset: number(offset)?, epoch: text(epoch)? })
}

fn read_subscribe(object: &RawValue) -> Result<Subscribe<'_>, Malformed> {
    let names = ["channel", "token", "recover", "offset", "epoch", "recoverable", "positioned", "join_leave"];
    let [channel, token, recover, offset, epoch, recoverable, positioned, join_leave] =
        fields::read(object.get(), names)?;
    Ok(Subscribe {
        channel: text(channel)?,
        token: text(token)?,
        recover: read_recover(recover, offset, epoch)?,
        is_recoverable: flag(recoverable)?,
        is_positioned: flag(positioned)?,
        hears_others: flag(join_leave)?,
    })
}

fn read_history(object: &RawValue) -> Result<History<'_>, Malformed> {
    let [channel, limit, since, reverse] = fields::read(object.get(), ["channel", "limit", "since", "reverse"])?;
    Ok(History { channel: text(channel)?, limit: number(limit)?, since: read_since(since)?, reverse: flag(reverse)? })
}

/// Parses a position, if there is one.
pub fn read_since(since: Option<&RawValue>) -> Result<Option<(u64, Cow<'_, str>)>, Malformed> {
    let Some(since) = since.filter(|since| since.get() != "null") else { return Ok(None) };
    let [offset, epoch] = fields::read(since.get(), ["offset", "epoch"])?;
    Ok(Some((number(offset)?, text(epoch)?)))
}

fn channel_of(object: &RawValue) -> Result<Cow<'_, str>, Malformed> {
    let [channel] = fields::read(object.get(), ["channel"])?;
    text(channel)
}

/// A number; 0 if absent.
pub fn number<N: Default + serde_core::de::DeserializeOwned>(value: Option<&RawValue>) -> Result<N, Malformed> {
    match value.map(RawValue::get) {
        None | Some("null") => Ok(N::default()),
        Some(number) => serde_json::from_str(number).map_err(Malformed::from),
    }
}

/// A boolean; false if absent.
pub fn flag(value: Option<&RawValue>) -> Result<bool, Malformed> {
    number(value)
}

/// A text; empty if absent.
pub fn text(value: Option<&RawValue>) -> Result<Cow<'_, str>, Malformed> {
    let Some(value) = value.filter(|value| value.get() != "null") else { return Ok(Cow::Borrowed("")) };
    let inner = value.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => string(Some(value)).map(Cow::Owned).ok_or(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn method(line: &str) -> Option<Method<'_>> {
        read(line).expect("a command").method
    }

    #[test]
    fn commands_are_read() {
        let connect = r#"{"id":1,"connect":{"token":"a\u0062","data":{"x":[1]},"name":"js","subs":{"c":{"recover":true,"epoch":"e","offset":7}}}}"#;
        let recover = Recover { recover: true, offset: 7, epoch: "e".into() };
        let positions = vec![("c".into(), recover.clone())];
        assert_eq!(method(connect), Some(Method::Connect(Connect { token: "ab".into(), positions })));
        let subscribe =
            r#"{"subscribe":{"channel":"c","recover":true,"epoch":"e","offset":7,"flag":1,"delta":null},"id":2}"#;
        let subscribed = Subscribe { channel: "c".into(), recover, ..Subscribe::default() };
        assert_eq!(method(subscribe), Some(Method::Subscribe(subscribed)));
        let publish = method(r#"{"id":3,"publish":{"channel":"c","data":{"a": 1}}}"#);
        let Some(Method::Publish { channel, data }) = publish else { panic!("{publish:?}") };
        assert_eq!((&*channel, data.0.map(RawValue::get)), ("c", Some("{\"a\": 1}")));
        let history = r#"{"id":4,"history":{"channel":"c","limit":-1,"since":{"offset":3},"reverse":true}}"#;
        let read = History { channel: "c".into(), limit: -1, since: Some((3, "".into())), reverse: true };
        assert_eq!(method(history), Some(Method::History(read)));
        assert_eq!(method(r#"{"id":5,"rpc":{"method":"x"}}"#), Some(Method::Rpc));
        assert_eq!(method(r#"{"send":{"data":1}}"#), Some(Method::Send));
        for pong in ["{}", " {} ", "{\"id\":0}", "{\"other\":1}"] {
            assert_eq!(method(pong), None, "{pong}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for line in [
            "",
            "[]",
            "1",
            "{",
            "{\"id\":1}",
            "{\"id\":1,\"dance\":{}}",
            "{\"publish\":{}}",
            "{\"id\":0,\"connect\":{}}",
            "{\"id\":-1,\"rpc\":{}}",
            "{\"id\":1,\"connect\":1}",
            "{\"id\":1,\"subscribe\":{\"channel\":1}}",
            "{\"id\":1,\"history\":{\"limit\":\"a\"}}",
            "{\"id\":1,\"rpc\":{}} {}",
            "{\"id\":1,\"connect\":{\"subs\":[]}}",
            "{\"id\":4294967296,\"rpc\":{}}",
        ] {
            assert_eq!(read(line), Err(Malformed), "{line}");
        }
        let many: Vec<String> = (0..=MAX_POSITIONS).map(|number| format!("\"{number}\":{{}}")).collect();
        assert_eq!(read(&format!("{{\"id\":1,\"connect\":{{\"subs\":{{{}}}}}}}", many.join(","))), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\":,0-9a-z\\\\ _]{0,80}") {
            let _ = read(&text);
        }

        /// The result does not depend on the order of the fields, nor on unknown ones.
        #[test]
        fn fields_stand_in_any_order(channel in any::<String>(), id in 1u32.., offset: u64, first: bool) {
            let subscribe = serde_json::json!({"x": [1], "offset": offset, "channel": channel, "recover": true});
            let line = match first {
                true => format!("{{\"id\":{id},\"z\":{{}},\"subscribe\":{subscribe}}}"),
                false => format!("{{\"subscribe\":{subscribe},\"id\":{id}}}"),
            };
            let recover = Recover { recover: true, offset, epoch: "".into() };
            let want = Subscribe { channel: channel.into(), recover, ..Subscribe::default() };
            prop_assert_eq!(read(&line), Ok(Command { id, method: Some(Method::Subscribe(want)) }));
        }
    }
}
