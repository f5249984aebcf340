//! HTTP tasks: one request, its answer captured as standard output.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use reqwest::{Client, Method, Response, StatusCode, Url};
use rota_core::command::FailureKind;
use rota_wire::worker::{HttpAction, StatusRange};

use super::guard::{self, HttpPolicy, Refusal};
use super::{Attempt, Ending, failed};
use crate::clock;
use crate::spool::Channel;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 3;
/// Which attempt asks: the target can refuse an attempt that was overtaken by another.
const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("rota-attempt");

/// Headers that would change who is talked to or how, or that make metadata services answer.
const REFUSED_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "metadata",
    "metadata-flavor",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "rota-attempt",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-aws-ec2-metadata-token",
    "x-aws-ec2-metadata-token-ttl-seconds",
];

/// Sends the requests of HTTP tasks.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    policy: Arc<HttpPolicy>,
}

/// Resolves names and refuses those with any address that is not allowed. The connection goes to exactly the addresses that were
/// looked at.
struct Guarded(Arc<HttpPolicy>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if !guard::is_allowed_host(&policy, name.as_str()) {
                for address in &found {
                    guard::check_address(&policy, address.ip())?;
                }
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// One request to send, and where a redirect may change it.
struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    /// Becomes a GET where RFC 9110 (15.4) and all browsers have it so: for 303, and for a POST that is answered with 301 or 302.
    fn turn(&mut self, status: StatusCode) {
        let turns = match status.as_u16() {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if turns {
            self.method = Method::GET;
            self.body.clear();
            for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE] {
                self.headers.remove(name);
            }
        }
    }

    /// Loses everything that was meant for one host only before it goes to another: any header may hold a secret.
    fn strip(&mut self, url: &Url) -> Result<(), Refusal> {
        if !self.body.is_empty() {
            return Err(Refusal(format!(
                "redirected to another host with a body: write {url} into the task if it is meant"
            )));
        }
        let harmless = [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT, ATTEMPT_HEADER];
        let names: Vec<HeaderName> = self.headers.keys().cloned().collect();
        for name in names.iter().filter(|name| !harmless.contains(name)) {
            self.headers.remove(name);
        }
        Ok(())
    }
}

impl Http {
    /// # Errors
    /// If the TLS set-up of this machine can't be used.
    pub(crate) fn new(policy: HttpPolicy) -> Result<Self, reqwest::Error> {
        // Somebody else in this process may have installed one; any will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        let policy = Arc::new(policy);
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Guarded(Arc::clone(&policy))))
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            .user_agent(concat!("rota/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, policy })
    }

    /// Sends a task's request and reads the answer, until it is told to stop.
    pub(crate) async fn run(&self, attempt: &mut Attempt, action: &HttpAction) -> Ending {
        let request = match self.request(attempt, action) {
            Ok(request) => request,
            Err(refusal) => return Ending::of(failed(FailureKind::Start, refusal.0)),
        };
        attempt.started(clock::wall());
        attempt.announce();
        let timeout = attempt.timeout;
        let mut stop = attempt.stop.clone();
        tokio::select! {
            biased;
            reason = stop.requested() => Ending::of(reason.end()),
            () = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            } => Ending::of(failed(FailureKind::Timeout, "no answer in time")),
            ending = self.exchange(attempt, request, &action.expect) => ending,
        }
    }

    fn request(&self, attempt: &Attempt, action: &HttpAction) -> Result<Request, Refusal> {
        let url = guard::parse_url(&self.policy, &attempt.task.values.fill(&action.url))?;
        let method = match action.method.as_str() {
            "" => Method::GET,
            method => Method::from_bytes(method.to_ascii_uppercase().as_bytes())
                .map_err(|_| Refusal(format!("not an HTTP method: {method}")))?,
        };
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Refusal(format!("the method {method} is not allowed")));
        }
        let mut headers = HeaderMap::new();
        for header in &action.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| Refusal(format!("not a header's name: {}", header.name)))?;
            if REFUSED_HEADERS.contains(&name.as_str()) {
                return Err(Refusal(format!("the header {name} is not allowed")));
            }
            let value =
                HeaderValue::from_str(&attempt.task.values.fill(&header.value)).map_err(|_| {
                    Refusal(format!("the header {name} holds bytes that are not allowed"))
                })?;
            headers.append(name, value);
        }
        let id = HeaderValue::from_str(&attempt.task.id.to_string());
        headers.insert(ATTEMPT_HEADER, id.expect("digits and two signs are a header's value"));
        let body = match String::from_utf8(action.body.clone()) {
            Ok(text) => attempt.task.values.fill(&text).into_bytes(),
            Err(bytes) => bytes.into_bytes(),
        };
        Ok(Request { method, url, headers, body })
    }

    async fn exchange(
        &self,
        attempt: &Attempt,
        mut request: Request,
        expect: &[StatusRange],
    ) -> Ending {
        for _ in 0..=REDIRECTS_MAX {
            let response = match self.send(&request).await {
                Ok(response) => response,
                Err(error) => return Ending::of(failed(FailureKind::Http(None), explain(&error))),
            };
            if expected(expect, response.status()) || !is_redirect(&response) {
                return self.answer(attempt, response, expect).await;
            }
            if let Err(refusal) = self.follow(&mut request, &response) {
                let status = Some(response.status().as_u16());
                return Ending::of(failed(FailureKind::Http(status), refusal.0));
            }
        }
        let message = format!("more than {REDIRECTS_MAX} redirects");
        Ending::of(failed(FailureKind::Http(None), message))
    }

    async fn send(&self, request: &Request) -> reqwest::Result<Response> {
        let Request { method, url, headers, body } = request;
        let builder = self.client.request(method.clone(), url.clone()).headers(headers.clone());
        let builder = if body.is_empty() { builder } else { builder.body(body.clone()) };
        builder.send().await
    }

    /// Turns the request into the one that a redirect asks for, if that one is allowed.
    fn follow(&self, request: &mut Request, response: &Response) -> Result<(), Refusal> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| Refusal("a redirect without a location".into()))?;
        let url = request.url.join(location);
        let url = url.map_err(|error| Refusal(format!("redirected to what is no URL: {error}")))?;
        let url = guard::parse_url(&self.policy, url.as_str())
            .map_err(|refusal| Refusal(format!("redirected to {url}: {refusal}")))?;
        if request.url.scheme() == "https" && url.scheme() != "https" {
            return Err(Refusal(format!("redirected from https to {url}")));
        }
        request.turn(response.status());
        if url.host_str() != request.url.host_str() || url.port() != request.url.port() {
            request.strip(&url)?;
        }
        request.url = url;
        Ok(())
    }

    /// Captures the answer's body and judges its status.
    async fn answer(
        &self,
        attempt: &Attempt,
        response: Response,
        expect: &[StatusRange],
    ) -> Ending {
        let status = response.status();
        let mut notes = Vec::new();
        let mut left = self.policy.body_bytes_max;
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    let status = Some(status.as_u16());
                    return Ending::of(failed(FailureKind::Http(status), explain(&error)));
                }
            };
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            attempt.capture.write(Channel::Stdout, chunk.get(..length).unwrap_or_default());
            left -= length as u64;
            if length < chunk.len() {
                notes.push(format!("answer cut off after {} bytes", self.policy.body_bytes_max));
                break;
            }
        }
        let end = if expected(expect, status) {
            rota_core::command::AttemptEnd::Succeeded
        } else {
            let message = format!("answered {status}");
            failed(FailureKind::Http(Some(status.as_u16())), message)
        };
        Ending { notes, ..Ending::of(end) }
    }
}

fn is_redirect(response: &Response) -> bool {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn expected(expect: &[StatusRange], status: StatusCode) -> bool {
    let status = u32::from(status.as_u16());
    match expect {
        [] => (200..300).contains(&status),
        ranges => ranges.iter().any(|range| (range.from..=range.to).contains(&status)),
    }
}

/// An error with its causes: the first one alone rarely says what happened.
fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
