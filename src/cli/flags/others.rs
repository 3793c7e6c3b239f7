//! What other flags of an app say in place of those of every server.

use super::{Admin, ServerFlags};
use crate::os::listener::ListenAddr;
use std::net::SocketAddr;

impl ServerFlags {
    /// Without `--listen`, listens there.
    pub(in crate::cli) fn or_listen_at(mut self, addr: String) -> ServerFlags {
        if self.listen.is_empty() {
            self.listen.push(addr);
        }
        self
    }

    /// Without `--admin`, has the admin listener there.
    pub(in crate::cli) fn or_admin_at(mut self, addr: SocketAddr) -> ServerFlags {
        self.admin.get_or_insert(Admin::On(ListenAddr::Tcp(addr)));
        self
    }

    /// Speaks these subprotocols as well, and takes an empty name for none.
    pub(in crate::cli) fn and_subprotocols(mut self, names: impl Iterator<Item = String>) -> ServerFlags {
        self.subprotocol.retain(|name| !name.is_empty());
        self.subprotocol.extend(names);
        self
    }
}
