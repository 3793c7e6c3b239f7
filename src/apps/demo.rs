//! `--demo`: a page for browsers at `GET /`, to try an application without writing a client.
//!
//! A page is one HTML file of `examples/` with its style and script. Its policy lets the browser run nothing else and
//! connect only to the server that the page came from.

use crate::protocol::http::{Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// A page, served unchanged.
#[derive(Clone, Debug)]
pub struct Demo {
    page: &'static str,
    policy: String,
}

impl Demo {
    /// Makes a page with one `<style>` and one `<script>`.
    pub fn new(page: &'static str) -> Demo {
        let allowed = |tag| content_of(page, tag).map_or_else(|| "'none'".to_owned(), source_of);
        // No page may frame this one, and its icon is inline.
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
            allowed("script"),
            allowed("style")
        );
        Demo { page, policy }
    }

    /// Returns the response to a request for the page; `None` for any other request, such as an upgrade.
    pub fn answer(&self, request: &Request<'_>) -> Option<Response> {
        let reads = matches!(request.method(), "GET" | "HEAD") && !request.has_token("upgrade", "websocket");
        (request.path() == "/" && reads).then(|| {
            Response::new(200)
                .content("text/html; charset=utf-8", self.page)
                .header("Content-Security-Policy", self.policy.as_str())
                .header("Cache-Control", "no-cache")
                .header("Referrer-Policy", "no-referrer")
                .header("X-Content-Type-Options", "nosniff")
        })
    }
}

/// Returns the content of the first element of this name.
fn content_of<'a>(page: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(content, _)| content)
}

/// Returns the source expression that allows exactly this text (CSP level 3, section 2.3.1).
fn source_of(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_allows_the_page_its_own_style_and_script_alone() {
        // printf 'alert(1)' | openssl dgst -sha256 -binary | base64
        let demo = Demo::new("<style>p{}</style><script>alert(1)</script>");
        let script = "script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='";
        assert!(demo.policy.contains(script), "{}", demo.policy);
        assert!(Demo::new("<p>plain").policy.contains("script-src 'none'; style-src 'none'"));
    }
}
