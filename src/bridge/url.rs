//! The URL of Redis as people type it. Errors and logs never show a part of it that could be a password.

use crate::os::resolve::has_port;
use crate::protocol::percent::{Piece, pieces};
use crate::telemetry::log::printable;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// The tag of the channels in a cluster.
const DEFAULT_TAG: &str = "percore";
/// Most characters to show of an error.
const ERROR_CHARACTERS: usize = 200;
/// Length of a piece of the password that must not show; a shorter password counts as a whole.
const PIECE_BYTES: usize = 4;
/// Most characters to show of a user's name.
const USER_CHARACTERS: usize = 64;

/// Where Redis listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// `HOST:PORT`.
    Tcp {
        /// With its port.
        host: String,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
    /// The master that Sentinel names.
    Sentinel {
        /// The Sentinels, each with its port; the first that knows the master decides.
        hosts: Vec<String>,
        /// The master's name.
        master: String,
        /// Whether TLS is spoken, to the Sentinels as well.
        tls: bool,
    },
    /// The node of a cluster that has the channels with this tag.
    Cluster {
        /// Nodes, each with its port; the first that answers decides.
        hosts: Vec<String>,
        /// The text in braces before the names of all channels.
        tag: String,
        /// Whether TLS is spoken.
        tls: bool,
    },
}

impl Place {
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        match self {
            Place::Tcp { tls, .. } | Place::Sentinel { tls, .. } | Place::Cluster { tls, .. } => *tls,
            Place::Unix(_) => false,
        }
    }

    /// The scheme of its URL, and the part after the login.
    fn parts(&self) -> (String, String) {
        let scheme = if self.is_tls() { "rediss" } else { "redis" };
        match self {
            Place::Tcp { host, .. } => (scheme.to_owned(), host.clone()),
            Place::Unix(path) => ("redis+unix".to_owned(), path.display().to_string()),
            Place::Sentinel { hosts, master, .. } => {
                (format!("{scheme}+sentinel"), format!("{}/{master}", hosts.join(",")))
            }
            Place::Cluster { hosts, tag, .. } => (format!("{scheme}+cluster"), format!("{}/{tag}", hosts.join(","))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.parts()) {
            (Place::Unix(path), _) => write!(f, "unix:{}", path.display()),
            (_, (scheme, rest)) => write!(f, "{scheme}://{rest}"),
        }
    }
}

/// User and password. `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; `None` is Redis's default user.
    pub user: Option<Vec<u8>>,
    /// The password.
    pub password: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// Returns an error of Redis for the log, unless it contains any piece of the password, truncated or not.
pub fn shown(login: Option<&Login>, error: &[u8]) -> String {
    let repeats = |password: &[u8]| {
        let pieces = password.windows(password.len().clamp(1, PIECE_BYTES));
        pieces.into_iter().any(|piece| error.windows(piece.len()).any(|window| window == piece))
    };
    if login.is_some_and(|login| repeats(&login.password)) {
        return "an error that may repeat the password".to_owned();
    }
    printable(&String::from_utf8_lossy(error), ERROR_CHARACTERS)
}

/// Describes Redis's error about our login in fixed words: some servers repeat their input, truncated or in another
/// encoding.
pub fn refusal(error: &[u8]) -> String {
    let known = REFUSALS.iter().find(|(beginning, _)| error.starts_with(beginning.as_bytes()));
    known.map_or("login refused, with an error that may repeat the password and is not shown".to_owned(), |known| {
        known.1.to_owned()
    })
}

/// The beginnings of errors, and their meanings.
const REFUSALS: [(&str, &str); 9] = [
    ("WRONGPASS", "login refused: WRONGPASS, wrong user or password, or a disabled user"),
    ("NOAUTH", "login refused: NOAUTH, Redis requires a login"),
    ("NOPERM", "login refused: NOPERM, the user lacks permissions that a bridge needs"),
    ("ERR AUTH", "login refused: ERR AUTH, Redis has no password, or does not support users"),
    ("ERR Client sent AUTH", "login refused: Redis has no password"),
    ("ERR invalid password", "login refused: ERR invalid password"),
    ("ERR max number of clients", "too many clients"),
    ("LOADING", "Redis is loading its data"),
    ("MASTERDOWN", "Redis has lost its master"),
];

/// A Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisUrl {
    /// Where it is.
    pub place: Place,
    /// The login.
    pub login: Option<Login>,
}

impl fmt::Display for RedisUrl {
    /// Its name in the log, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(login) = &self.login else { return self.place.fmt(f) };
        let user = login.user.as_deref().map(|user| printable(&String::from_utf8_lossy(user), USER_CHARACTERS));
        let user = user.unwrap_or_default();
        let (scheme, rest) = self.place.parts();
        write!(f, "{scheme}://{user}:***@{rest}")
    }
}

const FORMS: &str = "give redis://[USER:PASSWORD@]HOST[:PORT], rediss:// for TLS, \
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTER, redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT][/TAG], \
    or unix:/PATH";

impl FromStr for RedisUrl {
    type Err = String;

    /// Reads `redis://[USER:PASSWORD@]HOST[:PORT]`, `rediss://` for TLS, `unix:/PATH` or `redis+unix:///PATH`. The
    /// number of a database may follow and does not matter to channels. `redis+sentinel://` takes several hosts,
    /// separated by commas, and the name of the master; `redis+cluster://` several nodes, and the tag of the channels;
    /// `rediss+` uses TLS.
    fn from_str(text: &str) -> Result<RedisUrl, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path.strip_prefix("//").unwrap_or(path), None);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("not a valid Redis URL: {FORMS}"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "redis" => false,
            "rediss" => true,
            "redis+unix" => {
                let (login, path) = rest.split_once('@').map_or((None, rest), |(login, path)| (Some(login), path));
                return unix(path, login.map(login_of).transpose()?.flatten());
            }
            "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster" => return several(scheme, rest),
            _ => return Err(format!("unknown scheme in the Redis URL: {FORMS}")),
        };
        let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
        let database = path.strip_prefix('/').unwrap_or(path);
        if !database.bytes().all(|byte| byte.is_ascii_digit()) {
            let what = "the URL has text after the port: in passwords '/', '?', '#' and '@' are %2F, %3F, %23 and %40";
            return Err(what.to_owned());
        }
        if !is_host(host) {
            return Err(format!("the URL has no valid host or port: {FORMS}"));
        }
        let host = if has_port(host) { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
        Ok(RedisUrl { place: Place::Tcp { host, tls }, login: login.map(login_of).transpose()?.flatten() })
    }
}

/// Reads `[USER:PASSWORD@]HOST[:PORT],...[/NAME]`; the name is that of a master or the tag of channels in a cluster.
fn several(scheme: &str, rest: &str) -> Result<RedisUrl, String> {
    let scheme = scheme.to_ascii_lowercase();
    let (tls, is_cluster) = (scheme.starts_with("rediss"), scheme.ends_with("cluster"));
    let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !is_name(name) || (name.is_empty() && !is_cluster) {
        return Err(match is_cluster {
            true => format!("the URL has no valid channel tag, as in redis+cluster://HOST/percore: {FORMS}"),
            false => format!("the URL has no master, as in redis+sentinel://HOST/mymaster: {FORMS}"),
        });
    }
    let hosts: Vec<&str> = hosts.split(',').collect();
    if !hosts.iter().all(|host| is_host(host)) {
        return Err(format!("the URL has no valid host or port: {FORMS}"));
    }
    let port = if is_cluster { DEFAULT_PORT } else { SENTINEL_PORT };
    let with_port = |host: &str| if has_port(host) { host.to_owned() } else { format!("{host}:{port}") };
    let hosts = hosts.into_iter().map(with_port).collect();
    let place = match is_cluster {
        true => Place::Cluster { hosts, tag: if name.is_empty() { DEFAULT_TAG } else { name }.to_owned(), tls },
        false => Place::Sentinel { hosts, master: name.to_owned(), tls },
    };
    Ok(RedisUrl { place, login: login.map(login_of).transpose()?.flatten() })
}

fn unix(path: &str, login: Option<Login>) -> Result<RedisUrl, String> {
    if !path.starts_with('/') {
        return Err("the URL of a unix socket needs an absolute path, as in unix:/run/redis/redis.sock".into());
    }
    Ok(RedisUrl { place: Place::Unix(path.into()), login })
}

/// A name, an IPv4 address or `[v6]`, with or without a port.
fn is_host(text: &str) -> bool {
    let (name, port) = if has_port(text) { text.rsplit_once(':').unwrap_or((text, "")) } else { (text, "1") };
    let is_good = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let named = v6.map_or(!name.is_empty() && name.chars().all(is_good), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    named && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `USER:PASSWORD`, `:PASSWORD` or nothing.
fn login_of(text: &str) -> Result<Option<Login>, String> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (decode(user)?, decode(password)?),
        None if text.is_empty() => return Ok(None),
        None => return Err("the URL has a user without a password: USER:PASSWORD@, or :PASSWORD@".into()),
    };
    Ok(Some(Login { user: Some(user).filter(|user| !user.is_empty()), password }))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let byte = |piece| match piece {
        Piece::Plain(byte) | Piece::Escaped(byte) => Ok(byte),
        Piece::Broken => {
            let text = "a % in the URL's user or password is not followed by two hexadecimal digits: write % as %25";
            Err(text.to_owned())
        }
    };
    pieces(text).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type() {
        for (text, place, login) in [
            ("redis://localhost", "redis://localhost:6379", None),
            ("redis://h:1/", "redis://h:1", None),
            ("REDIS://h/0", "redis://h:6379", None),
            ("rediss://h.example:6380/15", "rediss://h.example:6380", None),
            ("redis://[::1]", "redis://[::1]:6379", None),
            ("redis://[::1]:7", "redis://[::1]:7", None),
            ("redis://:pass@h", "redis://h:6379", Some(("", "pass"))),
            ("redis://user:p%40ss%2f%25:x@h", "redis://h:6379", Some(("user", "p@ss/%:x"))),
            ("redis://user:a@b@h", "redis://h:6379", Some(("user", "a@b"))),
            ("redis://@h", "redis://h:6379", None),
            ("unix:/run/redis.sock", "unix:/run/redis.sock", None),
            ("unix:///run/redis.sock", "unix:/run/redis.sock", None),
            ("redis+unix:///run/redis.sock", "unix:/run/redis.sock", None),
            ("redis+sentinel://a,b:1/m", "redis+sentinel://a:26379,b:1/m", None),
            ("redis+sentinel://u:p@a/my-master", "redis+sentinel://a:26379/my-master", Some(("u", "p"))),
            ("rediss+sentinel://a/m", "rediss+sentinel://a:26379/m", None),
            ("redis+cluster://a,b:7000", "redis+cluster://a:6379,b:7000/percore", None),
            ("rediss+cluster://:p@a/chat", "rediss+cluster://a:6379/chat", Some(("", "p"))),
            ("redis+unix://:pass@/run/redis.sock", "unix:/run/redis.sock", Some(("", "pass"))),
        ] {
            let url: RedisUrl = text.parse().expect(text);
            let told = url.login.as_ref().map(|login| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                (login.user.as_deref().map(text).unwrap_or_default(), text(&login.password))
            });
            let login = login.map(|(user, password): (&str, &str)| (user.to_owned(), password.to_owned()));
            assert_eq!((url.place.to_string().as_str(), told), (place, login), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_what_could_be_secret() {
        for text in [
            "",
            "secret",
            "localhost:6379",
            "http://:secret@h",
            "secret://h",
            "redis://",
            "redis://:secret@",
            "redis://h:secret",
            "redis://:sec/secret@h",
            "redis://:secret%@h",
            "redis://:%zzsecret@h",
            "redis://secret@h",
            "redis://h:99999",
            "redis://h:0",
            "redis://[::secret]",
            "redis://a b",
            "redis://h/secret",
            "redis://h?db=secret",
            "unix:secret",
            "redis+unix://secret",
            "redis+sentinel://:secret@h",
            "redis+cluster://:sec/secret@h",
            "redis+cluster://h/{secret}",
            "redis+sentinel://:sec/secret@h/m",
            "redis+sentinel://h,secret:x/m",
        ] {
            let error = text.parse::<RedisUrl>().expect_err(text);
            assert!(!error.contains("secret") && !error.contains('\n'), "{text}: {error}");
        }
        let url: RedisUrl = "redis://user:secret@h".parse().expect("a URL");
        assert!(!format!("{url:?}").contains("secret") && !format!("{url:?}").contains("user"));
    }

    #[test]
    fn the_log_shows_the_user_and_not_the_password() {
        for (text, told) in [
            ("redis://h", "redis://h:6379"),
            ("redis://user:secret@h", "redis://user:***@h:6379"),
            ("rediss://:secret@h:1", "rediss://:***@h:1"),
            ("redis+unix://us%0aer:secret@/run/r", "redis+unix://us\\ner:***@/run/r"),
        ] {
            assert_eq!(text.parse::<RedisUrl>().expect(text).to_string(), told);
        }
    }

    #[test]
    fn a_refusal_shows_no_password() {
        // Redis repeats 128 bytes of an unknown command.
        let password: String = ('a'..='z').chain('A'..='Z').chain('0'..='9').cycle().take(162).collect();
        let login = Login { user: None, password: password.clone().into_bytes() };
        let hex: String = password.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        for repeated in [&password, &password[..126], &password[100..], &password.to_lowercase(), &hex] {
            let error = format!("ERR unknown command 'AUTH', with args beginning with: '{repeated}");
            let said = refusal(error.as_bytes());
            assert_eq!(said, "login refused, with an error that may repeat the password and is not shown");
        }
        let error = format!("ERR unknown command '{}'", &password[..126]);
        assert_eq!(shown(Some(&login), error.as_bytes()), "an error that may repeat the password");
        let said = refusal(b"WRONGPASS invalid username-password pair or user is disabled.");
        assert!(said.contains("login refused: WRONGPASS"), "{said}");
        assert_eq!(shown(Some(&login), b"ERR: %!"), "ERR: %!");
        assert_eq!(shown(None, b"NOAUTH Authentication required.\r\n"), "NOAUTH Authentication required.");
        let short = Login { user: None, password: b"%".to_vec() };
        assert_eq!(shown(Some(&short), b"ERR: %!"), "an error that may repeat the password");
    }
}
