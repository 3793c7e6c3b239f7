//! Pushes: messages that a client did not ask for, each a line of JSON.

use crate::pubsub::json::push_string;

/// The end of a publication without a number, and so without its last brace.
pub const PUBLICATION_TAIL: &str = "}}}";
/// The end of a numbered one.
pub const NUMBERED_TAIL: &str = "}}";

/// The beginning of a publication on a channel.
pub fn publication_head(channel: &str) -> String {
    head(channel, "pub")
}

fn head(channel: &str, kind: &str) -> String {
    let mut out = String::with_capacity(channel.len() + 40);
    out.push_str("{\"push\":{\"channel\":");
    push_string(&mut out, channel);
    out.push_str(",\"");
    out.push_str(kind);
    out.push_str("\":");
    out
}

/// A client with this description joined or left a channel.
pub fn join_or_leave(channel: &str, description: &str, entered: bool) -> String {
    let head = head(channel, if entered { "join" } else { "leave" });
    format!("{head}{{\"info\":{description}}}}}}}")
}

/// A subscription was ended.
pub fn unsubscribe(channel: &str, code: u32, reason: &str) -> String {
    let mut out = head(channel, "unsubscribe");
    out.push_str(&format!("{{\"code\":{code},\"reason\":"));
    push_string(&mut out, reason);
    out.push_str("}}}");
    out
}

/// The server put the client on a channel, with the result of a subscription.
pub fn subscribe(channel: &str, result: &str) -> String {
    format!("{}{result}}}}}", head(channel, "subscribe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_json() {
        let publication = format!("{}{{\"data\":1{PUBLICATION_TAIL}", publication_head("a\"b"));
        let numbered = format!("{}{{\"data\":1,\"offset\":2}}{NUMBERED_TAIL}", publication_head("a"));
        let others = [
            (publication, r#"{"push":{"channel":"a\"b","pub":{"data":1}}}"#),
            (numbered, r#"{"push":{"channel":"a","pub":{"data":1,"offset":2}}}"#),
            (join_or_leave("a", "{}", true), r#"{"push":{"channel":"a","join":{"info":{}}}}"#),
            (join_or_leave("a", "{}", false), r#"{"push":{"channel":"a","leave":{"info":{}}}}"#),
            (unsubscribe("a", 2000, "b"), r#"{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"b"}}}"#),
            (subscribe("a", "{}"), r#"{"push":{"channel":"a","subscribe":{}}}"#),
        ];
        for (got, want) in others {
            assert_eq!(got, want);
        }
    }
}
