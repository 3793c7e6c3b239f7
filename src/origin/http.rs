//! One call: a connection, a POST, an answer, and what became of it.

use super::pool::{Content, Pool, Sender, dial};
use super::{CallRules, Target};
use crate::gateway::call::{Call, Callee, Outcome};
use crate::gateway::codec::Post;
use crate::gateway::event::Reply;
use crate::os::clock::unix_time;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;

/// Makes calls.
pub struct Caller {
    origins: Vec<Target>,
    rules: CallRules,
    pool: Pool<Callee>,
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
        Caller { origins, rules, pool: Pool::new() }
    }

    /// Makes a call.
    pub async fn make(&self, call: Call) -> Outcome {
        let Call { to, aim, event_id, post, .. } = call;
        let target = match &to {
            Callee::Origin(index) => self.origins.get(*index).cloned().ok_or("there is no such origin".to_owned()),
            Callee::Node(address) | Callee::Peer(address) => Target::node(address),
        };
        let request = target.and_then(|target| Ok((self.request(&to, aim, &event_id, post, &target)?, target)));
        let (request, target) = match request {
            Ok(both) => both,
            Err(error) => return Outcome::Unsent(error),
        };
        match timeout(self.rules.timeout, self.exchange(&to, &target, request)).await {
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
        event_id: &str,
        post: Post,
        target: &Target,
    ) -> Result<Request<Content>, String> {
        let Post { media_type, headers, body } = post;
        let mut request = match aim {
            Some((method, path)) => Request::builder().method(method.as_str()).uri(path),
            None => Request::builder().method(Method::POST).uri(target.path_and_query()),
        };
        request = request.header(header::HOST, target.host());
        if !media_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let is_origin = matches!(to, Callee::Origin(_));
        let common = self.rules.headers.iter().filter(|_| is_origin);
        for (name, value) in headers.iter().chain(common) {
            // A client's header may hold what no header of ours may.
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("header {name}: {error}"))?;
            if let Ok(value) = HeaderValue::from_str(value) {
                request = request.header(name, value);
            }
        }
        if let Some(secrets) = self.rules.secrets.as_ref().filter(|_| is_origin) {
            let timestamp = unix_time().as_secs().to_string();
            let signature = secrets.sign(event_id, &timestamp, &body);
            request = request.header("webhook-timestamp", timestamp).header("webhook-signature", signature);
        }
        if is_origin {
            request = request.header("webhook-id", event_id);
        } else if let (Callee::Node(_), Some(token)) = (to, &self.rules.node_token) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Content::new(body)).map_err(|error| error.to_string())
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
        let dial_timeout = self.dial_timeout(to);
        let mut sender = match timeout(dial_timeout, dial(target, self.rules.tls.as_ref())).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(error)) => return Err(Trouble::Unsent(error.to_string())),
            Err(_) => return Err(Trouble::Unsent(format!("no connection within {dial_timeout:?}"))),
        };
        let reply = self.send(&mut sender, request, keeps_headers).await.map_err(|(trouble, _)| trouble)?;
        self.pool.put(to, sender);
        Ok(reply)
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
