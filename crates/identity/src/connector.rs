//! Connections that gRPC runs on: the server is checked by the cluster's authority, the caller shows its certificate.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Result;
use crate::tls::{Reloadable, client_config};

/// Makes TLS connections for HTTP/2.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// Connections to servers of this authority, to which `shown` is shown.
    ///
    /// # Errors
    /// If the authority's certificate is not one.
    pub fn new(authority: &CertificateDer<'static>, shown: Reloadable) -> Result<Self> {
        let mut config = client_config(authority, Some(shown))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector(…)")
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
            let host = uri.host().ok_or_else(|| wrong("the address names no host"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(|_| wrong("not a host's name"))?;
            connector.connect(name, stream).await.map(TokioIo::new)
        })
    }
}
