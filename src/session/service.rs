//! Service listeners, over which the application behind the server sends it requests: authorization, and how they
//! differ from client listeners. They never upgrade, and ignore the PROXY protocol.

use super::{Phase, Sessions, health};
use crate::app::App;
use crate::net::id::Peer;
use crate::protocol::bearer;
use crate::protocol::http::{Request, Response};
use crate::protocol::own_name::is_own_name;

impl<A: App> Sessions<A> {
    /// Registers a socket that a service listener accepted. `None` if it must be closed, as with [`Sessions::accept`].
    /// The limits of each client, on connections and on input, do not apply to the service.
    pub fn accept_service(&mut self, peer: Peer) -> Option<u32> {
        let key = self.take_in(peer, Phase::Http, Peer::UNKNOWN)?;
        self.slab[key as usize].is_service = true;
        Some(key)
    }

    /// Refuses a request to a service listener without the token or, if no token is set, from a page in a browser on
    /// this machine. Health checks are open to all.
    pub(super) fn demand_token(&self, request: &Request<'_>) -> Option<Response> {
        if !request.is_service() || health::is_path(request) || self.app.authenticates(request) {
            return None;
        }
        let Some(token) = self.settings.service_token.as_deref() else {
            let line = "This listener is for programs: a page in a browser needs --service-token-file and its token.";
            return may_be_of_a_page(request).then(|| Response::text(403, line));
        };
        if bearer::is_given(request, token) {
            return None;
        }
        let response = Response::text(401, "Give the token of this listener: Authorization: Bearer TOKEN.");
        Some(response.header("WWW-Authenticate", "Bearer realm=\"percore\""))
    }
}

/// Whether a browser may have sent a request for an unrelated page. Either its headers tell (`Origin`,
/// `Sec-Fetch-Site`), or it uses a name that an attacker's DNS may have pointed at this machine (rebinding); an address
/// or `localhost` is safe.
fn may_be_of_a_page(request: &Request<'_>) -> bool {
    let is_cross = |site: &str| !matches!(site, "none" | "same-origin");
    request.raw_values("origin").next().is_some()
        || request.headers("sec-fetch-site").any(is_cross)
        || (request.peer() != Peer::UNIX && !is_own_name(request.host()))
}
