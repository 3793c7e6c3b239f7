//! The configuration file of `serve channels`, in TOML: what may be done on which channel. An error names the line.

use super::units::{bytes, duration};
use crate::origin::Target;
use crate::pubsub::pusher::PusherApp;
use crate::pubsub::pusher::webhooks::Kind;
use crate::pubsub::rules::{Namespace, Rules};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    line: usize,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// A value that does not fit, and what would.
type Unfit = String;
/// A key, and its value, each with where it stands.
type Entry<'t, 'a> = (&'t Spanned<Cow<'a, str>>, &'t Spanned<DeValue<'a>>);

struct Reader<'a> {
    text: &'a str,
}

/// Reads a file.
///
/// # Errors
/// The first mistake in it.
pub fn read(text: &str) -> Result<Rules, Mistake> {
    let reader = Reader { text };
    let table = DeTable::parse(text).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        reader.mistake(error.span().unwrap_or(0..0), message)
    })?;
    let mut rules = Rules::default();
    for (key, value) in table.get_ref() {
        match &**key.get_ref() {
            "channels" => rules.plain = reader.namespace(reader.table(key, value)?)?,
            "namespaces" => {
                for (name, value) in reader.table(key, value)? {
                    let is_name = |name: &str| {
                        !name.is_empty()
                            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                    };
                    if !is_name(name.get_ref()) {
                        let what = format!("'{}' is not a namespace: use letters, digits and -_.", name.get_ref());
                        return Err(reader.mistake(name.span(), what));
                    }
                    let namespace = reader.namespace(reader.table(name, value)?)?;
                    rules.namespaces.insert(name.get_ref().to_string(), namespace);
                }
            }
            "limits" => reader.fields(reader.table(key, value)?, |field, value| limit(&mut rules, field, value))?,
            "client" => {
                reader.fields(reader.table(key, value)?, |field, value| of_clients(&mut rules, field, value))?
            }
            "pusher" => {
                let mut app = PusherApp { webhook_events: Kind::ALL.to_vec(), ..PusherApp::default() };
                reader.fields(reader.table(key, value)?, |field, value| of_pusher(&mut app, field, value))?;
                if app.id.is_empty() || app.key.is_empty() || app.secret.is_empty() {
                    return Err(reader.mistake(key.span(), "pusher: give app_id, key and secret".to_owned()));
                }
                rules.pusher = Some(app);
            }
            other => {
                let what =
                    format!("unknown table '{other}': there are channels, namespaces, limits, client and pusher");
                return Err(reader.mistake(key.span(), what));
            }
        }
    }
    Ok(rules)
}

impl Reader<'_> {
    fn mistake(&self, span: Range<usize>, what: String) -> Mistake {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        Mistake { line: before.matches('\n').count() + 1, what }
    }

    /// The entries of a table, in the order of the file.
    fn table<'t, 'a>(
        &self,
        key: &Spanned<Cow<'a, str>>,
        value: &'t Spanned<DeValue<'a>>,
    ) -> Result<Vec<Entry<'t, 'a>>, Mistake> {
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.mistake(key.span(), format!("'{}' is to be a table", key.get_ref())));
        };
        let mut entries: Vec<Entry<'t, 'a>> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        Ok(entries)
    }

    /// Sets fields, by a function that knows them. It returns `None` for one that there is not.
    fn fields(
        &self,
        entries: Vec<Entry<'_, '_>>,
        mut set: impl FnMut(&str, &DeValue<'_>) -> Option<Result<(), Unfit>>,
    ) -> Result<(), Mistake> {
        for (key, value) in entries {
            match set(key.get_ref(), value.get_ref()) {
                Some(Ok(())) => {}
                Some(Err(unfit)) => return Err(self.mistake(value.span(), format!("{}: {unfit}", key.get_ref()))),
                None => return Err(self.mistake(key.span(), format!("unknown key '{}'", key.get_ref()))),
            }
        }
        Ok(())
    }

    fn namespace(&self, entries: Vec<Entry<'_, '_>>) -> Result<Namespace, Mistake> {
        let mut namespace = Namespace::default();
        self.fields(entries, |field, value| of_namespace(&mut namespace, field, value))?;
        Ok(namespace)
    }
}

fn of_namespace(namespace: &mut Namespace, field: &str, value: &DeValue<'_>) -> Option<Result<(), Unfit>> {
    let access = match field.split_once("_for_") {
        Some(("allow_publish", who)) => Some((&mut namespace.publish, who)),
        Some(("allow_presence", who)) => Some((&mut namespace.presence_for, who)),
        Some(("allow_history", who)) => Some((&mut namespace.history_for, who)),
        _ => None,
    };
    if let Some((access, who)) = access {
        let place = match who {
            "subscriber" => &mut access.subscriber,
            "client" => &mut access.client,
            "anonymous" => &mut access.anonymous,
            _ => return None,
        };
        return Some(flag(value).map(|allowed| *place = allowed));
    }
    let set = match field {
        "history_size" => number(value, 0..=100_000).map(|size| namespace.keep.size = size),
        "history_ttl" => time(value).map(|ttl| namespace.keep.ttl = ttl),
        "history_meta_ttl" => time(value).map(|ttl| namespace.keep.meta_ttl = ttl),
        "force_recovery" => flag(value).map(|on| namespace.force_recovery = on),
        "force_positioning" => flag(value).map(|on| namespace.force_positioning = on),
        "presence" => flag(value).map(|on| namespace.presence = on),
        "join_leave" => flag(value).map(|on| namespace.join_leave = on),
        "force_push_join_leave" => flag(value).map(|on| namespace.force_push_join_leave = on),
        "leave_hold" => match time(value) {
            Ok(hold) if hold > Duration::from_secs(10) => Err("10s at most".to_owned()),
            hold => hold.map(|hold| namespace.leave_hold = hold),
        },
        "allow_subscribe_for_client" => flag(value).map(|on| namespace.subscribe_for_client = on),
        "allow_subscribe_for_anonymous" => flag(value).map(|on| namespace.subscribe_for_anonymous = on),
        "allow_user_limited_channels" => flag(value).map(|on| namespace.user_limited = on),
        _ => return None,
    };
    Some(set)
}

fn limit(rules: &mut Rules, field: &str, value: &DeValue<'_>) -> Option<Result<(), Unfit>> {
    let limits = &mut rules.limits;
    let set = match field {
        "client_channels" => number(value, 1..=10_000).map(|most| limits.client_channels = most),
        "channel_name" => number(value, 1..=1024).map(|most| limits.channel_name = most),
        "publication" => size(value).map(|most| limits.publication = most),
        "recovery_publications" => number(value, 1..=10_000).map(|most| limits.recovery.publications = most),
        "recovery_bytes" => size(value).map(|most| limits.recovery.bytes = most),
        "history_bytes" => size(value).map(|most| limits.history = most),
        "idempotency_keys" => number(value, 0..=10_000_000).map(|most| limits.idempotency_keys = most),
        _ => return None,
    };
    Some(set)
}

fn of_clients(rules: &mut Rules, field: &str, value: &DeValue<'_>) -> Option<Result<(), Unfit>> {
    let times = &mut rules.times;
    let set = match field {
        "allow_anonymous" => flag(value).map(|on| rules.allows_anonymous = on),
        "ping" => time(value).map(|time| times.ping = time),
        "pong_timeout" => time(value).map(|time| times.pong = time),
        "connect_timeout" => time(value).map(|time| times.connect = time),
        "expiry_grace" => time(value).map(|time| times.grace = time),
        _ => return None,
    };
    Some(set)
}

fn of_pusher(app: &mut PusherApp, field: &str, value: &DeValue<'_>) -> Option<Result<(), Unfit>> {
    let is_word = |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let word =
        || value.as_str().filter(is_word).map(str::to_owned).ok_or("give a word of letters, digits, - and _".into());
    let set = match field {
        "app_id" => word().map(|id| app.id = id),
        "key" => word().map(|key| app.key = key),
        "secret" => word().map(|secret| app.secret = secret),
        "client_events" => flag(value).map(|on| app.client_events = on),
        "webhook_url" => webhook(value).map(|url| app.webhook = Some(url)),
        "webhook_events" => webhook_events(value).map(|events| app.webhook_events = events),
        _ => return None,
    };
    Some(set)
}

fn webhook(value: &DeValue<'_>) -> Result<String, Unfit> {
    let url = value.as_str().ok_or("give a URL such as \"https://example.org/pusher\"")?;
    Target::origin(url).map(|_| url.to_owned())
}

fn webhook_events(value: &DeValue<'_>) -> Result<Vec<Kind>, Unfit> {
    let kind =
        |name: &Spanned<DeValue<'_>>| Kind::ALL.into_iter().find(|kind| name.get_ref().as_str() == Some(kind.name()));
    let kinds = value.as_array().and_then(|list| list.iter().map(kind).collect::<Option<Vec<Kind>>>());
    kinds.ok_or_else(|| format!("give a list of: {}", Kind::ALL.map(Kind::name).join(", ")))
}

fn flag(value: &DeValue<'_>) -> Result<bool, Unfit> {
    value.as_bool().ok_or_else(|| "give true or false".into())
}

fn number(value: &DeValue<'_>, range: std::ops::RangeInclusive<usize>) -> Result<usize, Unfit> {
    let number = value.as_integer().and_then(|integer| usize::from_str_radix(integer.as_str(), integer.radix()).ok());
    let unfit = || format!("give a number from {} to {}", range.start(), range.end());
    number.filter(|number| range.contains(number)).ok_or_else(unfit)
}

fn time(value: &DeValue<'_>) -> Result<Duration, Unfit> {
    duration(value.as_str().ok_or("give a time in quotes, such as \"30s\" or \"5m\"")?)
}

/// Bytes, as a number or with a unit.
fn size(value: &DeValue<'_>) -> Result<usize, Unfit> {
    match value.as_str() {
        Some(text) => bytes(text),
        None => number(value, 0..=usize::MAX >> 1).map_err(|_| "give a size, such as 65536 or \"64K\"".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read() {
        let rules = read(
            "[channels]\nhistory_size = 10\nhistory_ttl = \"1m\"\n\n[namespaces.chat]\npresence = true\n\
             allow_publish_for_subscriber = true\n[limits]\npublication = \"1K\"\nhistory_bytes = 0x400\n[client]\nping = \"0\"\n",
        )
        .expect("good");
        let chat = &rules.namespaces["chat"];
        assert_eq!((rules.plain.keep.size, rules.plain.keep.ttl), (10, Duration::from_secs(60)));
        assert!(chat.presence && chat.publish.subscriber && !chat.publish.client && !rules.plain.presence);
        assert_eq!((rules.limits.publication, rules.limits.history, rules.times.ping), (1024, 1024, Duration::ZERO));
        assert_eq!(read(""), Ok(Rules::default()));
    }

    #[test]
    fn a_mistake_has_a_line() {
        for (text, line, part) in [
            ("[channels]\nhistroy_size = 1\n", 2, "unknown key 'histroy_size'"),
            ("[channels]\n\nhistory_size = -1\n", 3, "0 to 100000"),
            ("[channels]\nhistory_ttl = 5\n", 2, "in quotes"),
            ("[channels]\nhistory_ttl = \"5x\"\n", 2, "give a time"),
            ("[channels]\npresence = 1\n", 2, "true or false"),
            ("[channels]\nleave_hold = \"1m\"\n", 2, "10s at most"),
            ("[channels]\nallow_publish_for_nobody = true\n", 2, "unknown key"),
            ("[other]\n", 1, "unknown table"),
            ("\nchannels = 1\n", 2, "table"),
            ("[namespaces.\"a:b\"]\n", 1, "'a:b'"),
            ("[channels\n", 1, ""),
            ("[channels]\npresence = true\npresence = false\n", 3, "duplicate"),
            ("[limits]\npublication = \"many\"\n", 2, "publication"),
            ("[client]\nfast = true\n", 2, "unknown key"),
            ("[client]\n[pusher]\nkey = \"a\"\n", 2, "app_id, key and secret"),
            ("[pusher]\nkey = \"a/b\"\n", 2, "letters"),
            ("[pusher]\nwebhook_url = \"example.org\"\n", 2, "webhook_url"),
            ("[pusher]\n\nwebhook_events = [\"channel_occupied\", \"all\"]\n", 3, "give a list of: channel_occupied, "),
        ] {
            let mistake = read(text).expect_err(text);
            assert!(mistake.line == line && mistake.what.contains(part), "{text}: {mistake}");
            assert!(!mistake.to_string().contains('\n'), "{mistake}");
        }
    }
}
