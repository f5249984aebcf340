//! Accepts connections: HTTP/1.1 and HTTP/2 (with gRPC on it) on one port, over TLS if the server has an identity.

mod first_bytes;
mod shares;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rota_identity::{Cluster, IdentityError, Peer, expiry, peer_of, server_config};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::auth::{Connection, Secured};
use crate::refusals::Refusals;
use first_bytes::FirstBytes;
use shares::Shares;

/// Streams that one connection may have open: a browser, or a worker with its two streams, needs far fewer.
pub(crate) const STREAMS_MAX: u32 = 128;
/// Headers of one request.
pub(crate) const HEADERS_MAX: usize = 64;
/// Bytes of one request's headers, line included; checked exactly by `guard`, here against floods.
pub(crate) const HEADER_BYTES_MAX: usize = 16 << 10;

/// Open files that are not for connections: those of the log, of snapshots and of the history, links to other servers.
const FILES_RESERVE: usize = 256;
/// How long the first bytes of a connection may take, and then the headers of each request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long proving who one is may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last on which nobody proves who they are.
const STRANGER_MAX: Duration = Duration::from_secs(120);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves up to `connections_max` connections at a time until `stop` says so, then lets what is in flight finish for a few seconds.
pub(crate) async fn serve(
    (listener, connections_max): (TcpListener, usize),
    (router, refusals): (Router, Arc<Refusals>),
    tls: Option<Tls>,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let places = places(connections_max, files);
    if places < connections_max {
        info!(
            places,
            "fewer connections than asked for: the limit on open files (ulimit -n) is low"
        );
    }
    let connections = Arc::new(Semaphore::new(places));
    let shares = Shares::of(places);
    let server = Arc::new(Serving { builder: builder(), router, tls, refusals, shares });
    loop {
        let place = tokio::select! {
            place = Arc::clone(&connections).acquire_owned() => place,
            () = crate::stopped(&mut stop) => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a connection that was reset before it was accepted: both pass.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = crate::stopped(&mut stop) => break,
        };
        let (server, watcher) = (Arc::clone(&server), graceful.watcher());
        tokio::spawn(async move {
            server.connection(accepted, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        debug!("gave up on connections that did not end");
    }
}

/// How many connections may be open if this many files may be: at least half of them, and otherwise all but the reserve.
fn places(connections_max: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return connections_max };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    connections_max.min(files.saturating_sub(FILES_RESERVE).max(files / 2)).max(1)
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(2 * HEADERS_MAX)
        .max_buf_size(4 * HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(2 * HEADER_BYTES_MAX as u32)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// What every connection is served with.
struct Serving {
    builder: Builder<TokioExecutor>,
    router: Router,
    tls: Option<Tls>,
    refusals: Arc<Refusals>,
    shares: Shares,
}

impl Serving {
    async fn connection(&self, (stream, from): (TcpStream, SocketAddr), watcher: Watcher) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        let Some(tls) = &self.tls else {
            return self.http(stream, Connection::new(from, None), watcher).await;
        };
        let Some(share) = self.shares.take(from.ip()) else {
            return self.refused(from, "one more connection", "too-many-connections");
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => match tls.peer(&stream) {
                Ok(None) => {
                    let connection = Connection::new(from, None);
                    let proved = Arc::clone(&connection.proved);
                    let serving = self.http(stream, connection, watcher);
                    while_worth_it(serving, &proved, STRANGER_MAX).await;
                    drop(share);
                }
                Ok(Some((peer, ends_at))) => {
                    drop(share);
                    let left = ends_at.duration_since(SystemTime::now()).unwrap_or_default();
                    let serving = self.http(stream, Connection::new(from, Some(peer)), watcher);
                    // What was proved holds as long as the certificate: whoever has a new one connects again.
                    drop(tokio::time::timeout(left, serving).await);
                }
                Err(error) => self.refused(from, &error.to_string(), "certificate"),
            },
            Ok(Err(error)) if is_disconnection(&error) => debug!(%from, %error, "no TLS"),
            Ok(Err(error)) => {
                let code = if is_about_certificate(&error) { "certificate" } else { "handshake" };
                self.refused(from, &error.to_string(), code);
            }
            Err(_) => self.refused(from, "TLS", "handshake-timeout"),
        }
    }

    fn refused(&self, from: SocketAddr, what: &str, code: &'static str) {
        self.refusals.note(from.ip(), "", what, code);
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        connection: Connection,
        watcher: Watcher,
    ) {
        let router = self.router.clone().map_request(move |mut request: http::Request<_>| {
            request.extensions_mut().insert(connection.clone());
            request
        });
        let service = TowerToHyperService::new(router);
        let stream = TokioIo::new(FirstBytes::new(stream, HEADER_TIMEOUT));
        let serving = self.builder.serve_connection(stream, service).into_owned();
        if let Err(error) = watcher.watch(serving).await {
            debug!(%error, "connection ended");
        }
    }
}

/// Serves a connection for as long as it takes if somebody proves who they are on it, and for this long at most otherwise: whoever reads
/// slowly, or not at all, must not keep a place for ever.
async fn while_worth_it(serving: impl Future<Output = ()>, proved: &AtomicBool, limit: Duration) {
    tokio::pin!(serving);
    while tokio::time::timeout(limit, serving.as_mut()).await.is_err() {
        if !proved.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Whether the other side just went away, as those do that look whether anybody listens.
fn is_disconnection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// Whether the certificate that was shown is not one that counts here.
fn is_about_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// TLS, and who showed which certificate.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    cluster: Cluster,
}

impl Tls {
    /// The TLS of this server.
    pub(crate) fn new(secured: &Secured) -> Result<Self, IdentityError> {
        let config = server_config(&secured.identity, secured.shown.clone())?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, cluster: secured.identity.cluster() })
    }

    /// Who showed a certificate, and when that ends.
    fn peer(
        &self,
        stream: &TlsStream<TcpStream>,
    ) -> Result<Option<(Peer, SystemTime)>, IdentityError> {
        let chain = stream.get_ref().1.peer_certificates();
        let Some(own) = chain.and_then(|chain| chain.first()) else { return Ok(None) };
        Ok(Some((peer_of(own, &self.cluster)?, expiry(own)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_is_served_for_a_while_and_whoever_proved_something_for_as_long_as_it_takes()
    {
        let limit = Duration::from_millis(20);
        let (stranger, known) = (AtomicBool::new(false), AtomicBool::new(true));
        while_worth_it(std::future::pending(), &stranger, limit).await;
        let short =
            tokio::time::timeout(10 * limit, while_worth_it(std::future::pending(), &known, limit));
        assert!(short.await.is_err());
        while_worth_it(tokio::time::sleep(3 * limit), &known, limit).await;
        while_worth_it(std::future::ready(()), &stranger, limit).await;
    }

    #[test]
    fn connections_leave_open_files_for_everything_else() {
        let files = [None, Some(10_255), Some(10_256), Some(10_257), Some(512), Some(100), Some(0)];
        let found = files.map(|files| places(10_000, files));
        assert_eq!(found, [10_000, 9_999, 10_000, 10_000, 256, 50, 1]);
    }
}
