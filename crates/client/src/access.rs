//! Proving who one is: the authority that servers are checked by, tokens, joining.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rota_api::{AddServer, JoinRequest, Joined, RenewRequest, Secret, ServerAdded};
use rota_identity::{
    Authority, Identity, IdentityDir, JoinToken, Joining, Reloadable, client_config, joining_config,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result};
use crate::transport::{Call, Client, ClientConfig};

/// What a client shows, and whom it believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The certificate of the cluster's authority (PEM). Without one, the authorities of this machine count.
    pub authority: Option<String>,
    /// A token; sent over TLS only.
    pub token: Option<Secret>,
}

impl Access {
    /// How to check servers; `None` leaves it to the machine.
    pub(crate) fn tls(&self) -> Result<Option<rustls::ClientConfig>> {
        let Some(pem) = &self.authority else { return Ok(None) };
        let authority = CertificateDer::from_pem_slice(pem.as_bytes());
        let authority = authority.map_err(|error| unusable(format!("the authority: {error}")))?;
        client_config(&authority, None).map(Some).map_err(unusable)
    }

    /// The header that carries the token to these servers.
    pub(crate) fn header(&self, servers: &[String]) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let Some(Secret(token)) = &self.token else { return Ok(headers) };
        if servers.iter().all(|server| server.starts_with("https://")) {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| unusable("the token holds strange characters"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

/// Becomes the worker of `node`: draws a key, has a certificate signed, and keeps both in `dir`.
///
/// # Errors
/// If no server answers, if one is not of the token's cluster, if the token is refused, or if the files can't be written.
pub async fn join_worker(
    servers: &[String],
    token: &JoinToken,
    node: &str,
    dir: &IdentityDir,
) -> Result<Identity> {
    let joining = Joining::new().map_err(unusable)?;
    let request = Some(joining.request().map_err(unusable)?);
    let request = JoinRequest { node: Some(node.to_owned()), request, ..JoinRequest::default() };
    let joined = join(servers, token, request).await?;
    let chain = joined.certificate.unwrap_or_default();
    joining.accept(dir, &chain, &joined.authority).map_err(unusable)
}

/// Becomes this server of the cluster: keeps the cluster's authority in `dir`, with which the server then signs its own
/// certificate, and answers its place in the cluster.
///
/// # Errors
/// As [`join_worker`], and if the token is for workers.
pub async fn join_server(
    servers: &[String],
    token: &JoinToken,
    server: AddServer,
    dir: &IdentityDir,
) -> Result<ServerAdded> {
    let AddServer { address, level } = server;
    let request = JoinRequest { address: Some(address), level, ..JoinRequest::default() };
    let joined = join(servers, token, request).await?;
    let (Some(Secret(key)), Some(added)) = (joined.authority_key, joined.server) else {
        return Err(unusable("the token is for workers, not for servers"));
    };
    let authority = Authority::from_pem(&joined.authority, &key).map_err(unusable)?;
    if authority.fingerprint() != token.authority() {
        return Err(unusable("the authority is not that of the token"));
    }
    authority.save(dir).map_err(unusable)?;
    Ok(added)
}

/// Replaces a worker's certificate by a new one for the same node.
///
/// # Errors
/// If no server answers, if the certificate has expired, or if the files can't be written.
pub async fn renew_worker(
    servers: &[String],
    identity: &Identity,
    dir: &IdentityDir,
) -> Result<Identity> {
    let shown = Reloadable::new(identity);
    let tls = client_config(identity.authority(), Some(shown)).map_err(unusable)?;
    let joining = Joining::new().map_err(unusable)?;
    let body = RenewRequest { request: joining.request().map_err(unusable)? };
    let client = Client::with_tls(&config(servers), Some(tls))?;
    let joined: Joined = client.json(Call::post("/v1/renew").json(&body).repeatable()).await?;
    let chain = joined.certificate.unwrap_or_default();
    joining.accept(dir, &chain, &joined.authority).map_err(unusable)
}

async fn join(servers: &[String], token: &JoinToken, request: JoinRequest) -> Result<Joined> {
    let tls = joining_config(token.authority()).map_err(unusable)?;
    let config = ClientConfig {
        access: Access { authority: None, token: Some(Secret(token.reveal())) },
        ..config(servers)
    };
    let client = Client::with_tls(&config, Some(tls))?;
    let mut call = Call::post("/v1/join").json(&request);
    // A worker that joins twice is the same worker: at worst that costs another use of the token. A server would get a second number.
    call.repeatable = request.node.is_some();
    let joined = client.json(call).await;
    joined.map_err(|error| match error {
        Error::Unreachable { servers, reason } if reason.contains("UnknownIssuer") => unusable(
            format!("{servers} is of another cluster than the token: nothing was told to it"),
        ),
        error => error,
    })
}

fn config(servers: &[String]) -> ClientConfig {
    // A token is of no use without TLS.
    let https = |server: &String| {
        let host = server.split("://").last().unwrap_or_default();
        format!("https://{host}")
    };
    ClientConfig {
        servers: servers.iter().map(https).collect(),
        timeout: Duration::from_secs(30),
        retry: true,
        submitter: None,
        access: Access::default(),
    }
}

fn unusable(error: impl ToString) -> Error {
    Error::Identity { reason: error.to_string() }
}
