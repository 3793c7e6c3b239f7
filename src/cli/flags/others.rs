//! Defaults that an app's own flags set for the flags of every server.

use super::{Admin, ServerFlags};
use crate::os::listener::ListenAddr;
use std::net::SocketAddr;

impl ServerFlags {
    /// Listens at `addr` unless `--listen` is given.
    pub(in crate::cli) fn or_listen_at(mut self, addr: String) -> ServerFlags {
        if self.listen.is_empty() {
            self.listen.push(addr);
        }
        self
    }

    /// Puts the admin listener at `addr` unless `--admin` is given.
    pub(in crate::cli) fn or_admin_at(mut self, addr: SocketAddr) -> ServerFlags {
        self.admin.get_or_insert(Admin::On(ListenAddr::Tcp(addr)));
        self
    }

    /// Adds these subprotocols; an empty name stands for none.
    pub(in crate::cli) fn and_subprotocols(mut self, names: impl Iterator<Item = String>) -> ServerFlags {
        self.subprotocol.retain(|name| !name.is_empty());
        self.subprotocol.extend(names);
        self
    }
}
