//! `POST /sr`: messages for connections, as the application servers of websocket-service send them.

use super::deliver::{Sorted, hops};
use super::record::Deed;
use super::{Delivered, Gateway, Job, PATIENCE, Shape, outgoing};
use crate::gateway::codec::json::write_string;
use crate::outbox::Outbox;
use crate::protocol::http::{Request, Response};
use serde_json::Value;

impl Gateway {
    /// Answers 200 at once, as old nodes wait for it no longer than half a second. Who accepts JSON is told what became of each
    /// message, as soon as that is known.
    pub(super) fn serve_sr(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        if request.method() != "POST" {
            return Some(Response::text(405, "This path takes POST.").header("Allow", "POST"));
        }
        let messages = match outgoing::read(request.content()) {
            Ok(messages) => messages,
            Err(error) => return Some(Response::text(400, &format!("not a list of outgoing messages: {error}"))),
        };
        let hops = hops(request);
        let wants_results = request.headers("accept").any(|value| value.contains("application/json"));
        let deeds: Vec<Deed<'_>> = messages
            .iter()
            .filter_map(|item| item.message.as_ref().map(|(kind, payload)| Deed::Send(*kind, payload)))
            .collect();
        let (mut sorted, mut names) = (Sorted::default(), Vec::new());
        for (number, item) in messages.iter().filter(|item| item.message.is_some()).enumerate() {
            for id in &item.ids {
                self.sort((number, id), &deeds[number], hops, &mut sorted, out);
                if wants_results {
                    names.push(outgoing::name_of(id));
                }
            }
        }
        let left = sorted.missing();
        if !wants_results {
            self.send_on(sorted, &deeds, None, out);
            return Some(Response::new(200));
        }
        if left == 0 {
            let results = sorted.known.into_iter().map(|known| known.unwrap_or(Delivered::Unreachable));
            return Some(list(names.iter().map(String::as_str).zip(results)));
        }
        let ticket = out.defer(request);
        let deadline = out.now() + PATIENCE;
        let results = sorted.known.clone();
        let job = self.begin_job(Job { ticket, shape: Shape::List, names, results, left, deadline });
        if job.is_none() {
            return Some(super::too_many());
        }
        self.send_on(sorted, &deeds, job, out);
        None
    }
}

/// The results of a request, in the order of its names.
pub fn list<'a>(results: impl Iterator<Item = (&'a str, Delivered)>) -> Response {
    let mut body = String::from(r#"{"results":["#);
    for (place, (name, result)) in results.enumerate() {
        body.push_str(if place == 0 { r#"{"id":"# } else { r#",{"id":"# });
        write_string(&mut body, name);
        body.extend([r#","result":""#, result.word(), r#""}"#]);
    }
    body.push_str("]}");
    Response::new(200).content("application/json", body)
}

/// Reads such a list from another node. One of websocket-service tells nothing: then all is taken for queued.
pub fn read_results(body: &[u8], number: usize) -> Vec<Delivered> {
    let told = serde_json::from_slice::<Value>(body).ok();
    let list = told.as_ref().and_then(|told| told.get("results")).and_then(Value::as_array);
    let result = |item: &Value| {
        let word = item.get("result")?.as_str()?;
        Delivered::ALL.into_iter().find(|result| result.word() == word)
    };
    match list.map(|list| list.iter().filter_map(result).collect::<Vec<_>>()) {
        Some(results) if results.len() == number => results,
        _ => vec![Delivered::Queued; number],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_as_they_are_written() {
        let results =
            [Delivered::Queued, Delivered::Gone, Delivered::Dropped, Delivered::Unreachable, Delivered::Forged];
        let body = list(results.iter().map(|result| ("AA==", *result))).encode(true, false, "D");
        let text = String::from_utf8(body).expect("text");
        let (_, json) = text.split_once("\r\n\r\n").expect("content");
        assert_eq!(read_results(json.as_bytes(), 5), results);
        let strange = list([("\"\\\u{1}ü", Delivered::Gone)].into_iter()).encode(true, false, "D");
        let text = String::from_utf8(strange).expect("text");
        let (_, json) = text.split_once("\r\n\r\n").expect("content");
        assert_eq!(serde_json::from_str::<Value>(json).expect("JSON")["results"][0]["id"], "\"\\\u{1}ü");
        for other in ["", "null", "{}", r#"{"results":[]}"#, r#"{"results":[{"result":"?"}]}"#] {
            assert_eq!(read_results(other.as_bytes(), 1), [Delivered::Queued], "{other}");
        }
    }
}
