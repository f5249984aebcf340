//! TLS 1.3 between servers, workers and clients of one cluster. No other authority counts, and none of the system's.

use std::sync::{Arc, PoisonError, RwLock};

use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use x509_parser::extensions::GeneralName;

use crate::error::{IdentityError, Result};
use crate::identity::Identity;
use crate::peer::{Cluster, Peer};
use crate::token::Fingerprint;

/// What this process shows to prove itself. Can be replaced while connections come and go.
#[derive(Clone)]
pub struct Reloadable(Arc<RwLock<Arc<CertifiedKey>>>);

impl Reloadable {
    /// Shows this identity.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        Self(Arc::new(RwLock::new(Arc::clone(&identity.certified))))
    }

    /// Shows another identity from the next connection on.
    pub fn replace(&self, identity: &Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&identity.certified);
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Reloadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reloadable(…)")
    }
}

impl ResolvesServerCert for Reloadable {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Reloadable {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// For a server. Who connects may show a certificate of this cluster, which [`peer_of`] then reads, or none; any other is refused.
///
/// # Errors
/// If the library refuses.
pub fn server_config(identity: &Identity, shown: Reloadable) -> Result<ServerConfig> {
    let roots = Arc::new(roots(identity.authority())?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots, ring_provider())
        .allow_unauthenticated()
        .build()
        .map_err(IdentityError::crypto)?;
    let mut config = ServerConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(IdentityError::crypto)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session that is taken up again would show a certificate without anybody looking whether it still holds.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// For somebody who knows the cluster's authority, and may show a certificate.
///
/// # Errors
/// If the authority's certificate is not one.
pub fn client_config(
    authority: &CertificateDer<'static>,
    shown: Option<Reloadable>,
) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(IdentityError::crypto)?
        .with_root_certificates(roots(authority)?);
    Ok(match shown {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(shown)),
        None => builder.with_no_client_auth(),
    })
}

/// For somebody who knows the authority's fingerprint only: the server has to send the authority's certificate along.
///
/// # Errors
/// If the library refuses.
pub fn joining_config(authority: Fingerprint) -> Result<ClientConfig> {
    let pinned = Pinned { authority, provider: ring_provider() };
    Ok(ClientConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(IdentityError::crypto)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth())
}

/// Who showed this certificate. The handshake has checked that the cluster's authority signed it.
///
/// # Errors
/// If it names nobody of this cluster, or more than one.
pub fn peer_of(certificate: &CertificateDer<'_>, cluster: &Cluster) -> Result<Peer> {
    let unreadable = || IdentityError::Stranger("it can't be read");
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    let names = parsed.subject_alternative_name().map_err(|_| unreadable())?;
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Peer::from_uri(uri, cluster),
        (Some(_), Some(_)) => Err(IdentityError::Stranger("it has more than one role")),
        (None, _) => Err(IdentityError::Stranger("it has no role")),
    }
}

/// The fingerprint of a public key in its DER form.
pub(crate) fn fingerprint_of(public_key: &[u8]) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, public_key).as_ref());
    Fingerprint(bytes)
}

pub(crate) fn fingerprint_of_certificate(certificate: &CertificateDer<'_>) -> Result<Fingerprint> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| IdentityError::Stranger("it can't be read"))?;
    Ok(fingerprint_of(parsed.tbs_certificate.subject_pki.raw))
}

fn ring_provider() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(IdentityError::crypto)?;
    Ok(roots)
}

/// Trusts whatever an authority with this fingerprint has signed, as if it had been known as a whole.
#[derive(Debug)]
struct Pinned {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        let stranger = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates
            .iter()
            .find(|sent| {
                fingerprint_of_certificate(sent).is_ok_and(|known| known == self.authority)
            })
            .ok_or_else(stranger)?;
        let roots = roots(&authority.clone().into_owned()).map_err(|_| stranger())?;
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| stranger())?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
