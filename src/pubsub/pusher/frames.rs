//! Events for clients: `data` is a string that holds JSON.

use crate::pubsub::json::push_string;

/// An event; `data` is the content of the string.
pub fn event(name: &str, channel: Option<&str>, data: &str, user: Option<&str>) -> String {
    let mut out = String::with_capacity(data.len() + 96);
    out.push_str("{\"event\":");
    push_string(&mut out, name);
    for (field, value) in [("channel", channel), ("data", Some(data)), ("user_id", user)] {
        if let Some(value) = value {
            out.push_str(",\"");
            out.push_str(field);
            out.push_str("\":");
            push_string(&mut out, value);
        }
    }
    out.push('}');
    out
}

/// An error event.
pub fn error(code: u16, message: &str) -> String {
    format!("{{\"event\":\"pusher:error\",\"data\":{{\"code\":{code},\"message\":\"{message}\"}}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_in_json() {
        let text = event("e\"", Some("c"), "{\"a\":\"\\n\"}", None);
        assert_eq!(text, r#"{"event":"e\"","channel":"c","data":"{\"a\":\"\\n\"}"}"#);
        assert_eq!(event("e", None, "1", Some("7")), r#"{"event":"e","data":"1","user_id":"7"}"#);
        assert_eq!(error(4009, "no"), r#"{"event":"pusher:error","data":{"code":4009,"message":"no"}}"#);
    }
}
