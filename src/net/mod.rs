//! Floor 0, the ends of connections: ids, addresses, networks, and what one client may have and send.

pub mod id;
pub mod network;
pub mod per_client;
pub mod rate;
