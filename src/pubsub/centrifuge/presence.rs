//! The answers about the clients on a channel.

use crate::outbox::Outbox;
use crate::pubsub::engine::publications_of;
use serde_json::value::RawValue;

/// The clients on a channel, as a result.
pub fn presence(channel: &str, out: &Outbox) -> String {
    let name = publications_of(channel);
    let mut presence = String::from("{\"presence\":{");
    let mut last = "";
    // Members are sorted. Another program may have put a foreign one among them.
    for member in out.members(&name).filter(|member| *member != std::mem::replace(&mut last, member)) {
        let Some(client) = client_of(member) else { continue };
        if !presence.ends_with('{') {
            presence.push(',');
        }
        presence.push_str(&format!("\"{client}\":{member}"));
    }
    presence.push_str("}}");
    presence
}

/// The name of the client in a channel's member.
fn client_of(member: &str) -> Option<&str> {
    let name = member.strip_prefix("{\"client\":\"")?.get(..36)?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (is_name && serde_json::from_str::<&RawValue>(member).is_ok()).then_some(name)
}

/// The number of clients on a channel; and a result with it and the number of users.
pub fn presence_stats(channel: &str, out: &Outbox) -> (usize, String) {
    let name = publications_of(channel);
    let (mut clients, mut users) = (0, Vec::new());
    for member in out.members(&name) {
        if let Ok([_, Some(user)]) = crate::text::fields::read(member, ["client", "user"]) {
            clients += 1;
            users.push(user.get());
        }
    }
    users.sort_unstable();
    users.dedup();
    (clients, format!("{{\"num_clients\":{clients},\"num_users\":{}}}", users.len()))
}
