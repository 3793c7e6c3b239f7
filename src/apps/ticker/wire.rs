//! The messages of a ticker feed and its clients: text `Name:JSON`, split at the first colon.
//!
//! The messages are declared once, in the list below. To add one: write a struct, implement [`Payload`] for it (its fields
//! from JSON and back), and add a line `Name(Struct)` to the list. That makes it a variant of [`Wire`]; the compiler
//! then demands it in every `match` on messages, which is where its handler goes.
//!
//! Unreadable messages are of two kinds: a name that is not in the list ([`Unreadable::UnknownName`]) comes from a peer
//! with a newer protocol, anything else ([`Unreadable::Malformed`]) from one that violates the format.
//!
//! ```
//! use percore::internal::apps::ticker::wire::{Beat, Unreadable, Wire};
//!
//! let Ok(Wire::Ping(beat)) = Wire::read(r#"Ping:{"Sequence":7,"Seconds":1,"Nanos":2}"#) else { panic!() };
//! assert_eq!(Wire::Pong(beat).write(), r#"Pong:{"Sequence":7,"Seconds":1,"Nanos":2}"#);
//! assert!(matches!(Wire::read("Weather:{}"), Err(Unreadable::UnknownName(_))));
//! assert!(matches!(Wire::read("Ping:{"), Err(Unreadable::Malformed(_))));
//! ```

use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// The raw fields of an object: a field that is not used is not parsed, and takes no memory.
pub type Fields<'a> = HashMap<String, &'a RawValue>;

/// The part after a message's name.
pub trait Payload: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence about what is missing or wrong.
    fn from_json(json: &Fields<'_>) -> Result<Self, String>;

    /// Writes it as JSON.
    fn to_json(&self) -> String;
}

macro_rules! messages {
    ($($(#[doc = $help:literal])+ $name:ident($payload:ty),)+) => {
        /// A message.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Wire {
            $($(#[doc = $help])+ $name($payload),)+
        }

        impl Wire {
            /// Reads a message.
            ///
            /// # Errors
            /// When its name is unknown, or its format is invalid.
            pub fn read(text: &str) -> Result<Wire, Unreadable> {
                let malformed = |error: String| Unreadable::Malformed(error);
                let Some((name, json)) = text.split_once(':') else {
                    return Err(malformed("no colon after a name".to_owned()));
                };
                let parse = || match serde_json::from_str::<Fields<'_>>(json) {
                    // A value that is not an object has no fields.
                    Err(error) if error.is_data() => Ok(Fields::new()),
                    fields => fields.map_err(|error| malformed(format!("{name} is not followed by JSON: {error}"))),
                };
                match name {
                    $(stringify!($name) => {
                        let payload = <$payload>::from_json(&parse()?);
                        payload.map(Wire::$name).map_err(|error| malformed(format!("{name}: {error}")))
                    })+
                    _ => Err(Unreadable::UnknownName(name.chars().take(64).collect())),
                }
            }

            /// Writes a message.
            pub fn write(&self) -> String {
                match self {
                    $(Wire::$name(payload) => format!("{}:{}", stringify!($name), payload.to_json()),)+
                }
            }
        }
    };
}

messages! {
    /// From a client: the symbols it wants, replacing its earlier ones.
    TickerRequest(Request),
    /// From the server: prices.
    TickerChange(Changes),
    /// From either: a check that the peer is alive.
    Ping(Beat),
    /// The answer, with the same fields.
    Pong(Beat),
    /// From the server: why it closes.
    Error(Complaint),
}

/// Why a message cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// Its name is unknown.
    UnknownName(String),
    /// It does not have the format of its name, or of any message.
    Malformed(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::UnknownName(name) => write!(f, "unknown message '{name}'"),
            Unreadable::Malformed(error) => f.write_str(error),
        }
    }
}

/// A request of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The client's name for itself.
    pub id: String,
    /// Symbols.
    pub tickers: Vec<String>,
}

/// Prices.
#[derive(Clone, PartialEq, Debug)]
pub struct Changes(pub Vec<Change>);

/// A price.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Its symbol.
    pub symbol: String,
    /// When it last changed, in Unix seconds.
    pub update_time: u64,
    /// The price.
    pub price: f64,
}

impl Change {
    /// Returns it as an entry of a list of changes.
    pub fn to_json(&self) -> String {
        format!(r#"{{"Symbol":{},"UpdateTime":{},"Price":{}}}"#, quoted(&self.symbol), self.update_time, self.price)
    }
}

/// A sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// The number of the sender's Ping.
    pub sequence: u64,
    /// When it was sent, by the sender's clock.
    pub seconds: u64,
    /// Nanoseconds of that second.
    pub nanos: u32,
}

impl Beat {
    /// Makes one sent at `at`, on any clock of the sender.
    pub fn new(sequence: u64, at: Duration) -> Beat {
        Beat { sequence, seconds: at.as_secs(), nanos: at.subsec_nanos() }
    }

    /// Returns when it was sent.
    pub fn at(&self) -> Duration {
        Duration::from_secs(self.seconds).saturating_add(Duration::from_nanos(self.nanos.into()))
    }
}

/// Why a connection is closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint(pub String);

/// Returns a text as JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns a raw field, or an empty text, which is not valid JSON, if it is missing. Its name may be in any case, as in
/// Go; an exact match goes first, then the first match in byte order.
fn field<'a>(json: &Fields<'a>, name: &str) -> &'a str {
    let others = || json.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).min_by_key(|(key, _)| key.as_str());
    json.get(name).or_else(|| others().map(|(_, value)| value)).map_or("", |value| value.get())
}

fn string(json: &Fields<'_>, name: &str) -> Result<String, String> {
    serde_json::from_str(field(json, name)).map_err(|_| format!("{name} must be a string"))
}

fn number(json: &Fields<'_>, name: &str) -> Result<u64, String> {
    serde_json::from_str(field(json, name)).map_err(|_| format!("{name} must be a whole number"))
}

fn list<'a>(json: &Fields<'a>, name: &str) -> Result<Vec<&'a RawValue>, String> {
    serde_json::from_str(field(json, name)).map_err(|_| format!("{name} must be a list"))
}

impl Payload for Request {
    fn from_json(json: &Fields<'_>) -> Result<Request, String> {
        let tickers = list(json, "Tickers")?.into_iter().map(|ticker| serde_json::from_str(ticker.get()));
        let tickers = tickers.collect::<Result<_, _>>().map_err(|_| "Tickers must contain only strings")?;
        Ok(Request { id: string(json, "Id")?, tickers })
    }

    fn to_json(&self) -> String {
        format!(r#"{{"Id":{},"Tickers":{}}}"#, quoted(&self.id), Value::from(self.tickers.as_slice()))
    }
}

impl Payload for Changes {
    fn from_json(json: &Fields<'_>) -> Result<Changes, String> {
        let change = |json: &RawValue| {
            let json = serde_json::from_str(json.get()).unwrap_or_default();
            let price = serde_json::from_str(field(&json, "Price")).map_err(|_| "Price must be a number")?;
            Ok(Change { symbol: string(&json, "Symbol")?, update_time: number(&json, "UpdateTime")?, price })
        };
        list(json, "Changes")?.into_iter().map(change).collect::<Result<_, String>>().map(Changes)
    }

    fn to_json(&self) -> String {
        let changes: Vec<String> = self.0.iter().map(Change::to_json).collect();
        format!(r#"{{"Changes":[{}]}}"#, changes.join(","))
    }
}

impl Payload for Beat {
    fn from_json(json: &Fields<'_>) -> Result<Beat, String> {
        let nanos = u32::try_from(number(json, "Nanos")?).ok().filter(|nanos| *nanos < 1_000_000_000);
        let nanos = nanos.ok_or("Nanos must be less than a billion")?;
        Ok(Beat { sequence: number(json, "Sequence")?, seconds: number(json, "Seconds")?, nanos })
    }

    fn to_json(&self) -> String {
        format!(r#"{{"Sequence":{},"Seconds":{},"Nanos":{}}}"#, self.sequence, self.seconds, self.nanos)
    }
}

impl Payload for Complaint {
    fn from_json(json: &Fields<'_>) -> Result<Complaint, String> {
        string(json, "Message").map(Complaint)
    }

    fn to_json(&self) -> String {
        format!(r#"{{"Message":{}}}"#, quoted(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_the_document() {
        let request = Wire::TickerRequest(Request { id: "me".into(), tickers: vec!["AAPL".into(), "SPY".into()] });
        assert_eq!(Wire::read(r#"TickerRequest:{"Id":"me","Tickers":["AAPL","SPY"]}"#), Ok(request.clone()));
        assert_eq!(Wire::read(&request.write()), Ok(request));
        let odd = Wire::TickerRequest(Request { id: "a \"b\" \u{7}:".into(), tickers: vec!["\\".into()] });
        assert_eq!(Wire::read(&odd.write()), Ok(odd));
        let text = r#"TickerChange:{"Changes":[{"Symbol":"AAPL","UpdateTime":1700000000,"Price":133.11}]}"#;
        assert_eq!(Wire::read(text).map(|change| change.write()), Ok(text.to_owned()));
    }

    #[test]
    fn fields_are_known_in_any_case() {
        let request = Wire::TickerRequest(Request { id: "me ".into(), tickers: vec!["SPY".into()] });
        for text in [r#"{"id":"me ","tickers":["SPY"]}"#, r#"{"tickers":[1],"Tickers":["SPY"],"ID":"me ","iD":1}"#] {
            assert_eq!(Wire::read(&format!("TickerRequest:{text}")), Ok(request.clone()));
        }
        assert_eq!(Wire::read(r#"PING:{}"#), Err(Unreadable::UnknownName("PING".into())));
        let beat = Beat { sequence: 7, seconds: 1, nanos: 2 };
        assert_eq!(Wire::read(r#"Ping:{"sequence":7,"SECONDS":1,"nanos":2}"#), Ok(Wire::Ping(beat)));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (text, said) in [
            ("hello", "no colon"),
            ("Ping:", "not followed by JSON"),
            ("Ping:{}", "Nanos must be a whole number"),
            (r#"Ping:{"Sequence":-1,"Seconds":0,"Nanos":0}"#, "Sequence"),
            (r#"Ping:{"Sequence":1,"Seconds":0,"Nanos":1000000000}"#, "billion"),
            (r#"TickerRequest:{"Id":"x"}"#, "Tickers must be a list"),
            (r#"TickerRequest:{"Id":1,"Tickers":[]}"#, "Id must be a string"),
            (r#"TickerRequest:{"Id":"x","Tickers":[1]}"#, "must contain only strings"),
            ("TickerRequest:[]", "Tickers"),
        ] {
            let Err(Unreadable::Malformed(error)) = Wire::read(text) else { panic!("{text} is malformed") };
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(Wire::read("ping:{}"), Err(Unreadable::UnknownName("ping".into())));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", name in "(Ping|Pong|TickerRequest|TickerChange|Error)") {
            let _ = Wire::read(&text);
            let _ = Wire::read(&format!("{name}:{text}"));
        }
    }
}
