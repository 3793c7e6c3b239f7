//! The connected clients, their identities and their channels.
//!
//! Invariants: a client stands at the index of its connection; a client with a name stands once in the list of that
//! name; a client's subscriptions are sorted by channel.

use crate::net::id::ConnectionId;
use crate::net::rate::Bucket;
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

/// A subscription of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// The channel.
    pub channel: Rc<str>,
    /// The token's information about the client on this channel, as JSON.
    pub info: Option<Rc<str>>,
    /// When it ends, unless the client brings another token.
    pub expires: Option<Duration>,
    /// The client gets offsets, and must hear of a gap.
    pub is_positioned: bool,
    /// The client hears of joins and leaves.
    pub hears_others: bool,
    /// The server subscribed the client, not the client itself.
    pub is_server_side: bool,
}

/// The public name of a client: a UUID that begins with the connection's index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name([u8; 36]);

impl Name {
    /// A name for the client of a connection: random bytes after the index.
    pub fn new(id: ConnectionId, mut random: [u8; 16]) -> Name {
        random[..4].copy_from_slice(&id.index.to_be_bytes());
        let mut text = [0; 36];
        uuid::Builder::from_custom_bytes(random).into_uuid().hyphenated().encode_lower(&mut text);
        Name(text)
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// A connected client.
#[derive(Clone, Debug)]
pub struct Client {
    /// The connection.
    pub id: ConnectionId,
    /// Its public name.
    pub name: Name,
    /// The user it speaks for; empty if anonymous.
    pub user: Rc<str>,
    /// The token's information about the user, as JSON.
    pub info: Option<Rc<str>>,
    /// When the token ends, unless the client brings another.
    pub expires: Option<Duration>,
    /// The rate of its commands.
    pub commands: Bucket,
    /// When to ping it next.
    pub next_ping: Option<Duration>,
    /// When its pong is due.
    pub pong_by: Option<Duration>,
    subscriptions: Vec<Subscription>,
}

impl Client {
    /// A client without channels.
    pub fn new(id: ConnectionId, name: Name, user: Rc<str>, info: Option<Rc<str>>) -> Client {
        let (commands, subscriptions) = (Bucket::default(), Vec::new());
        Client { id, name, user, info, expires: None, commands, next_ping: None, pong_by: None, subscriptions }
    }

    fn place(&self, channel: &str) -> Result<usize, usize> {
        self.subscriptions.binary_search_by(|one| (*one.channel).cmp(channel))
    }

    /// Its subscription to a channel.
    pub fn subscription(&self, channel: &str) -> Option<&Subscription> {
        self.place(channel).ok().map(|place| &self.subscriptions[place])
    }

    /// The same, mutable.
    pub fn subscription_mut(&mut self, channel: &str) -> Option<&mut Subscription> {
        self.place(channel).ok().map(|place| &mut self.subscriptions[place])
    }

    /// All its subscriptions.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// Adds a subscription to a channel that the client is not on.
    pub fn add(&mut self, subscription: Subscription) {
        if let Err(place) = self.place(&subscription.channel) {
            // Most clients are on one channel, and there may be very many of them.
            self.subscriptions.reserve_exact(usize::from(self.subscriptions.is_empty()));
            self.subscriptions.insert(place, subscription);
        }
    }

    /// Ends a subscription.
    pub fn remove(&mut self, channel: &str) -> Option<Subscription> {
        self.place(channel).ok().map(|place| self.subscriptions.remove(place))
    }

    /// What others may know of it, with its information on a channel, as a JSON object that begins with its name.
    pub fn describe(&self, info: Option<&str>) -> String {
        let mut out = format!("{{\"client\":\"{}\",\"user\":", self.name);
        super::json::push_string(&mut out, &self.user);
        for (field, value) in [("conn_info", self.info.as_deref()), ("chan_info", info)] {
            if let Some(value) = value {
                out.push_str(&format!(",\"{field}\":{value}"));
            }
        }
        out.push('}');
        out
    }

    /// The time of its next expiry.
    pub fn next_expiry(&self) -> Option<Duration> {
        let subscriptions = self.subscriptions.iter().filter_map(|subscription| subscription.expires);
        subscriptions.chain(self.expires).min()
    }
}

/// All clients.
#[derive(Default)]
pub struct Clients {
    by_index: Vec<Option<Box<Client>>>,
    by_user: HashMap<Rc<str>, Vec<u32>>,
    count: usize,
}

impl Clients {
    /// Adds a client that has just connected.
    pub fn add(&mut self, client: Client) {
        let index = client.id.index;
        if self.by_index.len() <= index as usize {
            self.by_index.resize_with(index as usize + 1, || None);
        }
        if !client.user.is_empty() {
            self.by_user.entry(Rc::clone(&client.user)).or_default().push(index);
        }
        self.count += 1;
        self.by_index[index as usize] = Some(Box::new(client));
    }

    /// Removes a client that has gone.
    pub fn remove(&mut self, index: u32) -> Option<Box<Client>> {
        let client = self.by_index.get_mut(index as usize)?.take()?;
        self.count -= 1;
        if let Some(own) = self.by_user.get_mut(&client.user) {
            own.retain(|one| *one != index);
            if own.is_empty() {
                self.by_user.remove(&client.user);
            }
        }
        Some(client)
    }

    /// The client of a connection.
    pub fn get(&self, index: u32) -> Option<&Client> {
        self.by_index.get(index as usize)?.as_deref()
    }

    /// The same, mutable.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Client> {
        self.by_index.get_mut(index as usize)?.as_deref_mut()
    }

    /// The number of clients and of users.
    pub fn count(&self) -> (usize, usize) {
        (self.count, self.by_user.len())
    }

    /// The connections of a user, or only the one with that name; an empty name matches none.
    pub fn of(&self, user: &str, name: &str) -> Vec<u32> {
        if !name.is_empty() {
            let index = name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let client = index.and_then(|index| self.get(index)).filter(|client| *client.name == *name);
            let client = client.filter(|client| user.is_empty() || *client.user == *user);
            return client.map(|client| client.id.index).into_iter().collect();
        }
        self.by_user.get(user).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId { node: 0, index, generation: 1 }
    }

    fn client(index: u32, user: &str) -> Client {
        Client::new(id(index), Name::new(id(index), [index as u8; 16]), user.into(), None)
    }

    #[test]
    fn clients_are_found_by_user_and_by_name() {
        let mut clients = Clients::default();
        for (index, user) in [(0, "ann"), (3, "ann"), (1, ""), (200_000, "ben")] {
            clients.add(client(index, user));
        }
        assert_eq!(clients.count(), (4, 2));
        assert_eq!(clients.of("ann", ""), [0, 3]);
        assert_eq!(clients.of("", ""), [0; 0]);
        let name = Name::new(id(200_000), [200_000u32 as u8; 16]);
        assert_eq!(name.len(), 36);
        assert_eq!(
            (clients.of("ben", &name), clients.of("", &name), clients.of("ann", &name)),
            (vec![200_000], vec![200_000], vec![])
        );
        for other in ["", "x", "00000000-0000", "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}"] {
            assert!(clients.of("cid", other).is_empty(), "{other}");
        }
        assert!(clients.remove(3).is_some() && clients.remove(3).is_none() && clients.remove(7).is_none());
        assert!(clients.remove(0).is_some());
        assert_eq!((clients.count(), clients.of("ann", "")), ((2, 1), vec![]));
    }

    #[test]
    fn a_client_is_described() {
        let mut ann = client(1, "a\"n");
        assert_eq!(ann.describe(None), format!("{{\"client\":\"{}\",\"user\":\"a\\\"n\"}}", ann.name));
        ann.info = Some("{\"a\":1}".into());
        assert!(ann.describe(Some("2")).ends_with(",\"conn_info\":{\"a\":1},\"chan_info\":2}"));
    }

    #[test]
    fn subscriptions_are_sorted() {
        let mut ann = client(1, "ann");
        for channel in ["b", "c", "a"] {
            let expires = (channel == "c").then_some(Duration::from_secs(1));
            let (channel, info) = (channel.into(), None);
            ann.add(Subscription {
                channel,
                info,
                expires,
                is_positioned: false,
                hears_others: false,
                is_server_side: false,
            });
        }
        assert!(ann.subscriptions().is_sorted_by_key(|one| one.channel.clone()));
        assert_eq!(ann.next_expiry(), Some(Duration::from_secs(1)));
        assert!(ann.remove("c").is_some() && ann.remove("c").is_none() && ann.subscription("a").is_some());
        assert_eq!(ann.next_expiry(), None);
    }
}
