//! [`Target`]: where a client connects to, and what it requests.

use crate::os::resolve::Endpoint;
use crate::os::tls::TlsClient;
use crate::os::url::Url;
use crate::protocol::client::Offer;
use crate::protocol::extension::DeflateMode;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// The schemes of a target, with their ports.
const SCHEMES: [(&str, Option<u16>); 2] = [("ws", Some(80)), ("wss", Some(443))];

/// Where a client connects to, and what it requests in the handshake.
///
/// ```
/// use percore::{DeflateMode, Target};
///
/// let target = Target::parse("ws://localhost:8080/chat?room=1")?
///     .subprotocols(["chat.v2", "chat.v1"])
///     .header("Authorization", "Bearer 1234")
///     .deflate(DeflateMode::NoTakeover);
/// # Ok::<(), percore::InvalidTarget>(())
/// ```
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) addr: Endpoint,
    pub(crate) source: Option<IpAddr>,
    pub(crate) offer: Arc<Offer>,
    /// For TLS: which certificates to trust, and the name that the server's certificate must have.
    pub(crate) tls: Option<(TlsClient, String)>,
}

impl Target {
    /// Parses `ws://HOST[:PORT][/PATH]`, `wss://HOST[:PORT][/PATH]`, `unix:SOCKET` or `unix:SOCKET:/PATH`. Each
    /// connection looks the name up, on a thread of its own, and tries its addresses one after another. `wss` trusts
    /// the certificates that the system trusts.
    ///
    /// # Errors
    /// When the URL has none of these forms, or, with `wss`, when the system trusts no certificates or the library was
    /// built without the feature `tls`.
    pub fn parse(url: &str) -> Result<Target, InvalidTarget> {
        let url = Url::parse(url, &SCHEMES).map_err(InvalidTarget)?;
        let tls = match url.scheme {
            "wss" => {
                let client = TlsClient::new(None).map_err(|error| InvalidTarget(error.to_string()))?;
                Some((client, url.host_name().to_owned()))
            }
            _ => None,
        };
        let offer = Offer {
            target: url.target().to_owned(),
            host: url.host.clone(),
            subprotocols: Vec::new(),
            deflate: DeflateMode::Off,
            headers: Vec::new(),
        };
        Ok(Target { addr: url.place, source: None, offer: Arc::new(offer), tls })
    }

    /// Offers these subprotocols, in order of preference (RFC 6455, section 1.9).
    pub fn subprotocols<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Target {
        Arc::make_mut(&mut self.offer).subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a header to the handshake. It is sent unchanged, so neither part may contain CR or LF.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Target {
        Arc::make_mut(&mut self.offer).headers.push((name.into(), value.into()));
        self
    }

    /// Sets which compression to offer (RFC 7692). Default [`DeflateMode::Off`].
    pub fn deflate(mut self, mode: DeflateMode) -> Target {
        Arc::make_mut(&mut self.offer).deflate = mode;
        self
    }

    /// Sets the local address, for a machine that has several. By default the kernel chooses. Unix sockets ignore it.
    pub fn source(self, source: IpAddr) -> Target {
        Target { source: Some(source), ..self }
    }

    /// Trusts the certificates in a PEM file rather than those that the system trusts. Has no effect without `wss`.
    ///
    /// # Errors
    /// When the file cannot be read or has no certificates.
    pub fn trust(self, authorities: &Path) -> Result<Target, InvalidTarget> {
        let client = |name| TlsClient::new(Some(authorities)).map(|client| (client, name));
        let tls = self.tls.map(|(_, name)| client(name)).transpose();
        Ok(Target { tls: tls.map_err(|error| InvalidTarget(error.to_string()))?, ..self })
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(url: &str) -> Result<Target, InvalidTarget> {
        Target::parse(url)
    }
}

/// Why a URL is not a valid target, as a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidTarget(String);

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidTarget {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("ws://[::1]:9001/a?b=c").expect("a URL");
        assert_eq!(target.addr.to_string(), "[::1]:9001");
        assert_eq!((target.offer.target.as_str(), target.offer.host.as_str()), ("/a?b=c", "[::1]:9001"));
        assert!(target.tls.is_none());
        assert_eq!(Target::parse("unix:/run/x.sock").expect("a URL").offer.target, "/");
        for (url, want) in [("http://a/", "'http' is not a scheme"), ("ws://", "no host"), ("a", "is not a valid URL")]
        {
            let error = Target::parse(url).expect_err("refused").to_string();
            assert!(error.contains(want), "{url}: {error}");
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn encryption_goes_by_the_scheme() {
        let path = Path::new("/no/such/file");
        let error = Target::parse("wss://example.org/").and_then(|target| target.trust(path)).expect_err("no file");
        assert!(error.to_string().contains("/no/such/file") || error.to_string().contains("trusts no"), "{error}");
        assert!(Target::parse("ws://example.org/").expect("a URL").trust(path).expect("not encrypted").tls.is_none());
    }
}
