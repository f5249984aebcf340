//! The certificate of this server or worker, and how it is got.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::authority::{Authority, Names, RENEW_AFTER, VALID_FOR};
use crate::error::{IdentityError, Result};
use crate::files::IdentityDir;
use crate::peer::{Cluster, Peer};
use crate::tls::{fingerprint_of_certificate, peer_of};
use crate::token::Fingerprint;

/// Where a new key waits for its certificate.
const NEXT_KEY: &str = "node.key.next";

/// Who this process is, with the key that proves it.
#[derive(Clone)]
pub struct Identity {
    peer: Peer,
    authority: CertificateDer<'static>,
    fingerprint: Fingerprint,
    expires_at: SystemTime,
    pub(crate) certified: Arc<CertifiedKey>,
}

/// A new key that waits for its certificate.
pub struct Joining {
    key: KeyPair,
}

impl Identity {
    /// The identity in `dir`.
    ///
    /// # Errors
    /// If the files can't be read, can be read by others, or do not belong together.
    pub fn load(dir: &IdentityDir) -> Result<Self> {
        let (chain, authority) = (dir.read_public("node.pem")?, dir.read_public("ca.pem")?);
        let with = |key: &str| Self::from_pem(&chain, &authority, key);
        let found = match dir.read_secret("node.key") {
            Ok(key) => with(&key),
            Err(error) => Err(error),
        };
        match (found, dir.read_secret(NEXT_KEY)) {
            // A crash came between the certificate and its key.
            (Err(error), Ok(next)) => match with(&next) {
                Ok(identity) => dir.replace("node.key", NEXT_KEY).map(|()| identity),
                Err(_) => Err(error),
            },
            (found, _) => found,
        }
        .map_err(|error| match error {
            IdentityError::Exposed { .. } | IdentityError::File { .. } => error,
            error => dir.damaged("node.pem", error),
        })
    }

    /// Makes a server's identity, which its authority signs, and keeps it in `dir`. Replaces an earlier one: names may have changed.
    ///
    /// # Errors
    /// If a name can't stand in a certificate, or if the files can't be written.
    pub fn issue(
        dir: &IdentityDir,
        authority: &Authority,
        (peer, names): (&Peer, &Names),
        now: SystemTime,
    ) -> Result<Self> {
        let joining = Joining::new()?;
        let chain = authority.issue(&joining.key, peer, names, now)?;
        joining.accept(dir, &chain, authority.certificate())
    }

    fn from_pem(chain: &str, authority: &str, key: &str) -> Result<Self> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<std::result::Result<_, _>>()
            .map_err(IdentityError::crypto)?;
        let authority =
            CertificateDer::from_pem_slice(authority.as_bytes()).map_err(IdentityError::crypto)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(IdentityError::crypto)?;
        let own = chain.first().ok_or(IdentityError::Stranger("there is none"))?;
        let fingerprint = fingerprint_of_certificate(&authority)?;
        let peer = peer_of(own, &Cluster::of(fingerprint))?;
        let expires_at = expiry(own)?;
        let key = any_supported_type(&key).map_err(IdentityError::crypto)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(IdentityError::crypto)?;
        Ok(Self { peer, authority, fingerprint, expires_at, certified: Arc::new(certified) })
    }

    /// Who this is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The cluster that it belongs to.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::of(self.fingerprint)
    }

    /// The fingerprint of the cluster's authority.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// When the certificate ends.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// When the certificate should be replaced.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        self.expires_at.checked_sub(VALID_FOR - RENEW_AFTER).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} of {})", self.peer, self.cluster())
    }
}

impl Joining {
    /// Draws a new key. It never leaves this machine.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new() -> Result<Self> {
        Ok(Self { key: KeyPair::generate().map_err(IdentityError::crypto)? })
    }

    /// The request for a certificate, as PEM. Holds the public key and proves that the private one is known; who it is for, the
    /// authority decides.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn request(&self) -> Result<String> {
        let request = CertificateParams::default().serialize_request(&self.key);
        request.and_then(|request| request.pem()).map_err(IdentityError::crypto)
    }

    /// Takes the certificate and keeps the whole identity in `dir`.
    ///
    /// # Errors
    /// If the certificate is not one for this key, or if the files can't be written.
    pub fn accept(&self, dir: &IdentityDir, chain: &str, authority: &str) -> Result<Identity> {
        let key = self.key.serialize_pem();
        let identity = Identity::from_pem(chain, authority, &key)?;
        // The new key waits beside the old one until its certificate is there: wherever a crash comes, one of the two fits.
        dir.write_secret(NEXT_KEY, key.as_bytes())?;
        dir.write_public("ca.pem", authority.as_bytes())?;
        dir.write_public("node.pem", chain.as_bytes())?;
        dir.replace("node.key", NEXT_KEY)?;
        Ok(identity)
    }
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Joining(…)")
    }
}

/// When a certificate ends.
///
/// # Errors
/// If it can't be read.
pub fn expiry(certificate: &CertificateDer<'_>) -> Result<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| IdentityError::Stranger("it can't be read"))?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
