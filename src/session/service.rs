//! Service listeners, over which the application behind us asks things of the server: who may, and where they differ from
//! those for clients. They never upgrade, and know no PROXY protocol.

use super::{Phase, Sessions, health};
use crate::app::App;
use crate::data::id::Peer;
use crate::protocol::bearer;
use crate::protocol::http::{Request, Response};

impl<A: App> Sessions<A> {
    /// A socket was accepted by a service listener. `None` when it is to be closed, as with [`Sessions::accept`]. What bounds
    /// each client, in connections and in what it sends, does not bound the service.
    pub fn accept_service(&mut self, peer: Peer) -> Option<u32> {
        let key = self.take_in(peer, Phase::Http, Peer::UNKNOWN)?;
        self.slab[key as usize].is_service = true;
        Some(key)
    }

    /// The refusal of a request to a service listener that has not the token; anybody may ask how the server is.
    pub(super) fn demand_token(&self, request: &Request<'_>) -> Option<Response> {
        let token = self.settings.service_token.as_deref()?;
        if !request.is_service() || health::is_path(request) || bearer::is_given(request, token) {
            return None;
        }
        let response = Response::text(401, "Give the token of this listener: Authorization: Bearer TOKEN.");
        Some(response.header("WWW-Authenticate", "Bearer realm=\"percore\""))
    }
}
