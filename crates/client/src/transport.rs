//! Requests, repeated where that is safe.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use rota_api::{ErrorCode, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access::Access;
use crate::error::{Error, Result};

/// How often a call that may be repeated is tried in all.
const TRIES_MAX: u32 = 5;
/// The first pause between two tries.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Who submits.
const SUBMITTER: HeaderName = HeaderName::from_static("x-rota-submitter");

/// How to reach the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Base addresses such as `http://127.0.0.1:7600`; the scheme may be left out.
    pub servers: Vec<String>,
    /// The longest wait for one answer. Streams are not limited.
    pub timeout: Duration,
    /// Whether to try again where that is safe.
    pub retry: bool,
    /// Whose jobs it submits, for lists and the record. A name that no header can carry is left out.
    pub submitter: Option<String>,
    /// How to prove who one is, and whom to believe.
    pub access: Access,
}

/// Talks to the servers of one cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    servers: Arc<[String]>,
    /// The server that answered last.
    current: Arc<AtomicUsize>,
    timeout: Duration,
    retry: bool,
}

/// One call.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// Encoded query, without `?`.
    pub(crate) query: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<(&'static str, Vec<u8>)>,
    /// Whether doing it twice is the same as doing it once.
    pub(crate) repeatable: bool,
    /// Whether the answer is a stream, which may take as long as it likes.
    pub(crate) stream: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        let repeatable = method.is_idempotent();
        let (query, headers) = (String::new(), Vec::new());
        Self { method, path, query, headers, body: None, repeatable, stream: false }
    }

    pub(crate) fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: &'a str) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn query(mut self, query: &impl Serialize) -> Self {
        self.query = encode_query(query);
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("the types of the interface are JSON");
        self.body = Some(("application/json", body));
        self
    }

    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    pub(crate) fn stream(mut self) -> Self {
        self.stream = true;
        self
    }
}

impl Client {
    /// A client of these servers. Connects on the first call.
    ///
    /// # Errors
    /// If an address, the authority or the token can't be used, or if there is no address.
    pub fn new(config: &ClientConfig) -> Result<Self> {
        Self::with_tls(config, config.access.tls()?)
    }

    /// A client that checks servers in this way.
    pub(crate) fn with_tls(
        config: &ClientConfig,
        tls: Option<rustls::ClientConfig>,
    ) -> Result<Self> {
        // A second installation changes nothing, so its refusal means nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let servers =
            config.servers.iter().map(|address| base(address)).collect::<Result<Vec<_>>>()?;
        if servers.is_empty() {
            return Err(Error::InvalidAddress { address: String::new() });
        }
        let mut headers = config.access.header(&servers)?;
        let name = config.submitter.as_deref().map(HeaderValue::from_str);
        if let Some(Ok(name)) = name {
            headers.insert(SUBMITTER, name);
        }
        let mut builder = reqwest::Client::builder();
        if let Some(tls) = tls {
            builder = builder.tls_backend_preconfigured(tls);
        }
        let http = builder
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .user_agent(concat!("rota/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::InvalidAnswer {
                server: "client".to_owned(),
                reason: chain(&error),
            })?;
        Ok(Self {
            http,
            servers: servers.into(),
            current: Arc::default(),
            timeout: config.timeout,
            retry: config.retry,
        })
    }

    /// The address of the server that answered last.
    #[must_use]
    pub fn server(&self) -> &str {
        let current = self.current.load(Ordering::Relaxed) % self.servers.len();
        self.servers.get(current).map_or("", String::as_str)
    }

    /// The longest wait for one answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes a call and reads its JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T> {
        let response = self.send(call).await?;
        let bytes = response.bytes().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::InvalidAnswer {
            server: self.server().to_owned(),
            reason: error.to_string(),
        })
    }

    /// Makes a call whose answer has no body.
    pub(crate) async fn done(&self, call: Call<'_>) -> Result<()> {
        self.send(call).await.map(drop)
    }

    /// Makes a call, again and again if that is safe, and returns the successful answer.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Response> {
        let mut left = if self.retry { TRIES_MAX } else { 1 };
        let mut pause = PAUSE_FIRST;
        let mut unreached = 0;
        loop {
            let error = match self.send_once(&call).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !matches!(error, Error::Problem(_)) {
                // The next call begins with another server.
                self.current.fetch_add(1, Ordering::Relaxed);
            }
            unreached += 1;
            if matches!(error, Error::Unreachable { .. }) && unreached < self.servers.len() {
                continue; // nothing was done, and another one may answer at once
            }
            left -= 1;
            if left == 0 || !worth_repeating(&error, call.repeatable) {
                return Err(error);
            }
            unreached = 0;
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn send_once(&self, call: &Call<'_>) -> Result<Response> {
        let server = self.server();
        let mark = if call.query.is_empty() { "" } else { "?" };
        let url = format!("{server}{}{mark}{}", call.path, call.query);
        let mut request = self.http.request(call.method.clone(), url);
        if !call.stream {
            request = request.timeout(self.timeout);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some((media_type, body)) = &call.body {
            request = request.header("content-type", *media_type).body(body.clone());
        }
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response).await)
    }

    /// What a refusal says.
    async fn refused(&self, response: Response) -> Error {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if !problem.code.is_empty() => Error::Problem(Box::new(problem)),
            Ok(_) | Err(_) if status == StatusCode::SERVICE_UNAVAILABLE => Error::Problem(
                Box::new(Problem::new(ErrorCode::Overloaded, "the server is not ready")),
            ),
            Ok(_) | Err(_) => Error::InvalidAnswer {
                server: self.server().to_owned(),
                reason: format!("status {status} without a problem document"),
            },
        }
    }

    fn failed(&self, error: &reqwest::Error) -> Error {
        let server = self.server().to_owned();
        if error.is_timeout() && !error.is_connect() {
            return Error::Timeout { server, seconds: self.timeout.as_secs() };
        }
        if error.is_connect() {
            return Error::Unreachable { servers: self.servers.join(", "), reason: chain(error) };
        }
        Error::InvalidAnswer { server, reason: chain(error) }
    }

    /// An answer that broke off.
    pub(crate) fn broken(&self, error: &reqwest::Error) -> Error {
        if error.is_timeout() {
            return Error::Timeout {
                server: self.server().to_owned(),
                seconds: self.timeout.as_secs(),
            };
        }
        Error::InvalidAnswer { server: self.server().to_owned(), reason: chain(error) }
    }
}

/// Whether another try could end better, and can't do harm.
pub(crate) fn worth_repeating(error: &Error, repeatable: bool) -> bool {
    match error {
        // Nothing was sent, so nothing was done.
        Error::Unreachable { .. } => true,
        Error::Timeout { .. } | Error::InvalidAnswer { .. } => repeatable,
        Error::Problem(problem) => match problem.error_code() {
            // The server says that nothing was done.
            Some(ErrorCode::Overloaded | ErrorCode::NoLeader | ErrorCode::ClusterBusy) => true,
            Some(ErrorCode::OutcomeUnknown | ErrorCode::ShuttingDown) => repeatable,
            _ => false,
        },
        Error::InvalidAddress { .. } | Error::Identity { .. } => false,
    }
}

/// A pause between half of `pause` and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let share = random() % 1_000;
    pause / 2 + pause / 2 * u32::try_from(share).unwrap_or(0) / 1_000
}

/// A number that nobody can guess: the standard library seeds its hashers from the system.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A new idempotency key.
#[must_use]
pub fn fresh_key() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// Checks and completes an address.
fn base(address: &str) -> Result<String> {
    let wrong = || Error::InvalidAddress { address: address.to_owned() };
    let full =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let url = reqwest::Url::parse(&full).map_err(|_| wrong())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return Err(wrong());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Encodes the fields of a flat structure as a query string.
fn encode_query(query: &impl Serialize) -> String {
    let value = serde_json::to_value(query).expect("queries are JSON");
    let fields = value.as_object().into_iter().flatten();
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pair =
        |(name, value): (&String, &serde_json::Value)| format!("{name}={}", escape(&text(value)));
    fields.map(pair).collect::<Vec<_>>().join("&")
}

/// Percent-encodes everything but unreserved characters, for queries and path segments.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_api::JobQuery;

    #[test]
    fn addresses_are_completed_and_checked() {
        assert_eq!(base("127.0.0.1:7600"), Ok("http://127.0.0.1:7600".to_owned()));
        assert_eq!(base("http://[::1]:7600/"), Ok("http://[::1]:7600".to_owned()));
        assert_eq!(base("https://a:1"), Ok("https://a:1".to_owned()));
        for wrong in ["", "ftp://a", "http://a?b=c", "http://"] {
            assert_eq!(
                base(wrong),
                Err(Error::InvalidAddress { address: wrong.to_owned() }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn queries_are_encoded_and_absent_fields_left_out() {
        let query = JobQuery {
            state: Some("failed,queued".to_owned()),
            label: Some("a=b c".to_owned()),
            limit: Some(5),
            ..JobQuery::default()
        };
        let mut parts: Vec<String> = encode_query(&query).split('&').map(str::to_owned).collect();
        parts.sort();
        assert_eq!(parts, ["label=a%3Db%20c", "limit=5", "state=failed%2Cqueued"]);
    }

    #[test]
    fn only_what_cannot_do_harm_is_repeated() {
        let problem = |code| Error::Problem(Box::new(Problem::new(code, "")));
        let lost = Error::Timeout { server: String::new(), seconds: 1 };
        let refused = Error::Unreachable { servers: String::new(), reason: String::new() };
        assert!(worth_repeating(&refused, false));
        assert!(worth_repeating(&lost, true) && !worth_repeating(&lost, false));
        assert!(worth_repeating(&problem(ErrorCode::Overloaded), false));
        assert!(!worth_repeating(&problem(ErrorCode::OutcomeUnknown), false));
        assert!(!worth_repeating(&problem(ErrorCode::InvalidJob), true));
    }

    #[test]
    fn fresh_keys_differ_and_pauses_stay_within_bounds() {
        assert_ne!(fresh_key(), fresh_key());
        let pause = Duration::from_millis(100);
        assert!((0..100).all(|_| (pause / 2..=pause).contains(&jittered(pause))));
    }
}
