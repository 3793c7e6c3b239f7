//! One call: a connection, a POST, an answer, and what became of it.

use super::pool::{Content, Pool, Sender, dial};
use super::{CallRules, Target};
use crate::gateway::call::{Call, Callee, Outcome};
use crate::gateway::codec::Post;
use crate::gateway::event::Reply;
use crate::os::clock::unix_time;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// Makes calls.
pub struct Caller {
    origins: Vec<Result<Arc<Place>, String>>,
    rules: CallRules,
    /// Of the rules, what each request to an origin has.
    headers: Vec<(HeaderName, HeaderValue)>,
    pool: Pool<Callee>,
}

/// A server to call, and what each request for it says.
struct Place {
    target: Target,
    uri: Uri,
    host: HeaderValue,
}

impl Place {
    fn new(target: Target) -> Result<Place, String> {
        let uri = target.path_and_query().parse().map_err(|error| format!("{}: {error}", target.path_and_query()))?;
        let host = HeaderValue::from_str(target.host()).map_err(|error| format!("{}: {error}", target.host()))?;
        Ok(Place { target, uri, host })
    }
}

/// Why a call has no answer.
enum Trouble {
    /// Nothing was sent.
    Unsent(String),
    /// Something may have been.
    Failed(String),
}

impl Caller {
    pub fn new(origins: Vec<Target>, rules: CallRules) -> Caller {
        let origins = origins.into_iter().map(|target| Place::new(target).map(Arc::new)).collect();
        let headers = rules.headers.iter().filter_map(|(name, value)| header(name, value).ok().flatten());
        Caller { origins, headers: headers.collect(), rules, pool: Pool::new() }
    }

    /// Makes a call.
    pub async fn make(&self, call: Call) -> Outcome {
        let Call { to, aim, event_id, post, .. } = call;
        let place = match &to {
            Callee::Origin(index) => self.origins.get(*index).cloned().unwrap_or(Err("there is no such origin".into())),
            Callee::Node(address) | Callee::Peer(address) => Target::node(address).and_then(Place::new).map(Arc::new),
        };
        let request = place.and_then(|place| Ok((self.request(&to, aim, event_id, post, &place)?, place)));
        let (request, place) = match request {
            Ok(both) => both,
            Err(error) => return Outcome::Unsent(error),
        };
        match timeout(self.rules.timeout, self.exchange(&to, &place.target, request)).await {
            Ok(Ok(reply)) => Outcome::Answered(reply),
            Ok(Err(Trouble::Unsent(error))) => Outcome::Unsent(error),
            Ok(Err(Trouble::Failed(error))) => Outcome::Failed(error),
            Err(_) => Outcome::Failed(format!("no answer within {:?}", self.rules.timeout)),
        }
    }

    fn request(
        &self,
        to: &Callee,
        aim: Option<(String, String)>,
        event_id: String,
        post: Post,
        place: &Place,
    ) -> Result<Request<Content>, String> {
        let Post { media_type, headers, body } = post;
        let is_origin = matches!(to, Callee::Origin(_));
        let signature = self.rules.secrets.as_ref().filter(|_| is_origin).map(|secrets| {
            let timestamp = unix_time().as_secs().to_string();
            let signature = secrets.sign(&event_id, &timestamp, &body);
            (timestamp, signature)
        });
        let mut request = Request::new(Content::new(body));
        (*request.method_mut(), *request.uri_mut()) = match aim {
            Some((method, path)) => (
                method.parse().map_err(|error| format!("{method}: {error}"))?,
                path.parse().map_err(|error| format!("{path}: {error}"))?,
            ),
            None => (Method::POST, place.uri.clone()),
        };
        let all = request.headers_mut();
        all.reserve(headers.len() + self.headers.len() + 6);
        all.insert(header::HOST, place.host.clone());
        if !media_type.is_empty() {
            all.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        for (name, value) in &headers {
            // A client's header may hold what no header of ours may.
            all.extend(header(name, value)?);
        }
        if is_origin {
            all.extend(self.headers.iter().cloned());
            all.insert(WEBHOOK_ID, own(event_id)?);
            if let Some((timestamp, signature)) = signature {
                all.insert("webhook-timestamp", own(timestamp)?);
                all.insert("webhook-signature", own(signature)?);
            }
        } else if let (Callee::Node(_), Some(token)) = (to, &self.rules.node_token) {
            all.insert(header::AUTHORIZATION, own(format!("Bearer {token}"))?);
        }
        Ok(request)
    }

    async fn exchange(&self, to: &Callee, target: &Target, request: Request<Content>) -> Result<Reply, Trouble> {
        let mut request = request;
        // What other nodes answer is passed on.
        let keeps_headers = match to {
            Callee::Origin(_) => self.rules.keeps_headers,
            Callee::Node(_) | Callee::Peer(_) => Some(""),
        };
        // A connection that was kept may have been closed by the server; then nothing was sent on it.
        while let Some(mut sender) = self.pool.take(to) {
            match self.send(&mut sender, request, keeps_headers).await {
                Ok(reply) => {
                    self.pool.put(to, sender);
                    return Ok(reply);
                }
                Err((trouble, None)) => return Err(trouble),
                Err((_, Some(unsent))) => request = unsent,
            }
        }
        // Its place is on the heap: it is seldom needed, and large.
        let mut sender = Box::pin(self.dial(to, target)).await?;
        let reply = self.send(&mut sender, request, keeps_headers).await.map_err(|(trouble, _)| trouble)?;
        self.pool.put(to, sender);
        Ok(reply)
    }

    async fn dial(&self, to: &Callee, target: &Target) -> Result<Sender, Trouble> {
        let dial_timeout = self.dial_timeout(to);
        match timeout(dial_timeout, dial(target, self.rules.tls.as_ref())).await {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(error)) => Err(Trouble::Unsent(error.to_string())),
            Err(_) => Err(Trouble::Unsent(format!("no connection within {dial_timeout:?}"))),
        }
    }

    fn dial_timeout(&self, to: &Callee) -> Duration {
        match to {
            Callee::Origin(_) => self.rules.dial_timeout,
            Callee::Node(_) | Callee::Peer(_) => self.rules.node_dial_timeout,
        }
    }

    /// Sends a request and reads the answer to its end. With the trouble comes the request, if nothing of it was sent.
    async fn send(
        &self,
        sender: &mut Sender,
        request: Request<Content>,
        keeps_headers: Option<&str>,
    ) -> Result<Reply, (Trouble, Option<Request<Content>>)> {
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message();
                let text = error.error().to_string();
                let trouble = if unsent.is_some() { Trouble::Unsent(text) } else { Trouble::Failed(text) };
                return Err((trouble, unsent));
            }
        };
        let reply = self.read(response, keeps_headers).await.map_err(|error| (Trouble::Failed(error), None))?;
        // The connection takes the next request once the end of the answer was read.
        let _ = sender.ready().await;
        Ok(reply)
    }

    async fn read(&self, response: Response<Incoming>, keeps_headers: Option<&str>) -> Result<Reply, String> {
        let (head, mut content) = response.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut content).poll_frame(context)).await {
            let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
            if body.len() + data.len() > self.rules.max_answer {
                return Err(format!("the answer is longer than {} bytes", self.rules.max_answer));
            }
            body.extend_from_slice(&data);
        }
        let mut headers = Vec::new();
        if let Some(beginning) = keeps_headers {
            let text = |(name, value): (&HeaderName, &HeaderValue)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            };
            let wanted = head.headers.iter().filter(|(name, _)| name.as_str().starts_with(beginning));
            headers.extend(wanted.filter_map(text));
        }
        Ok(Reply { status: head.status.as_u16(), headers, body })
    }
}

/// A header; `None` where its value may not be one.
///
/// # Errors
/// Its name may not be one, with the reason.
fn header(name: &str, value: &str) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("header {name}: {error}"))?;
    // A client's text need not be ASCII.
    Ok(HeaderValue::from_bytes(value.as_bytes()).ok().map(|value| (name, value)))
}

/// A value that we made.
fn own(value: String) -> Result<HeaderValue, String> {
    HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|error| error.to_string())
}
