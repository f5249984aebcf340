//! The certificate authority of a cluster.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{IdentityError, Result};
use crate::files::IdentityDir;
use crate::peer::{Cluster, Peer};
use crate::tls::fingerprint_of;
use crate::token::Fingerprint;

/// How long the certificate of a server or worker is valid.
pub const VALID_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// How old a certificate is when it is replaced: two thirds of its time, so that ten days of trouble are survived.
pub const RENEW_AFTER: Duration = Duration::from_secs(20 * 24 * 3600);
/// How long the authority itself is valid.
const AUTHORITY_VALID_FOR: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Certificates are valid a little earlier than they are made: the clocks of two machines differ.
const SKEW: Duration = Duration::from_secs(3600);

/// Signs certificates. Its private key is on every server and nowhere else.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    fingerprint: Fingerprint,
}

/// DNS names and addresses under which a server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Authority {
    /// Makes the authority of a new cluster and keeps it in `dir`.
    ///
    /// # Errors
    /// If there is one already, or if the files can't be written.
    pub fn create(dir: &IdentityDir, now: SystemTime) -> Result<Self> {
        if dir.exists() {
            return Err(IdentityError::Exists(dir.path().to_path_buf()));
        }
        let key = KeyPair::generate().map_err(IdentityError::crypto)?;
        let fingerprint = fingerprint_of(&key.subject_public_key_info());
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("rota cluster {}", Cluster::of(fingerprint)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now, AUTHORITY_VALID_FOR);
        let certificate = params.self_signed(&key).map_err(IdentityError::crypto)?.pem();
        let authority = Self::from_pem(&certificate, &key.serialize_pem())?;
        authority.save(dir)?;
        Ok(authority)
    }

    /// The authority whose key is in `dir`.
    ///
    /// # Errors
    /// If the files can't be read, can be read by others, or do not belong together.
    pub fn load(dir: &IdentityDir) -> Result<Self> {
        let key = dir.read_secret("ca.key")?;
        let certificate = dir.read_public("ca.pem")?;
        Self::from_pem(&certificate, &key).map_err(|error| dir.damaged("ca.key", error))
    }

    /// The authority as another server sent it.
    ///
    /// # Errors
    /// If key and certificate do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).map_err(IdentityError::crypto)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(IdentityError::crypto)?;
        let fingerprint = fingerprint_of(&key.subject_public_key_info());
        if crate::tls::fingerprint_of_certificate(&der)? != fingerprint {
            return Err(IdentityError::crypto("the key is not that of the certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(IdentityError::crypto)?;
        Ok(Self { issuer, certificate: certificate.to_owned(), fingerprint })
    }

    /// Keeps the authority in `dir`.
    ///
    /// # Errors
    /// If the files can't be written.
    pub fn save(&self, dir: &IdentityDir) -> Result<()> {
        dir.write_public("ca.pem", self.certificate.as_bytes())?;
        dir.write_secret("ca.key", self.key().as_bytes())
    }

    /// The fingerprint that join tokens carry.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::of(self.fingerprint)
    }

    /// The authority's certificate, as PEM. Not secret.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's private key, as PEM: for another server, over a connection that it has checked.
    #[must_use]
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a certificate for `peer`, whose public key is in `request` (PEM). What else the request asks for is not heard.
    ///
    /// # Errors
    /// If the request is not one, was not signed with the key it holds, or if a name can't stand in a certificate.
    pub fn sign(
        &self,
        request: &str,
        peer: &Peer,
        names: &Names,
        now: SystemTime,
    ) -> Result<String> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| IdentityError::Request(error.to_string()))?;
        self.issue(&request.public_key, peer, names, now)
    }

    pub(crate) fn issue(
        &self,
        key: &impl PublicKeyData,
        peer: &Peer,
        names: &Names,
        now: SystemTime,
    ) -> Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&peer.to_string());
        params.subject_alt_names = vec![SanType::URI(ia5(&peer.uri(&self.cluster()))?)];
        for name in &names.0 {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(ia5(name)?),
            });
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match peer {
            // Servers also call other servers.
            Peer::Server(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Peer::Worker(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        valid(&mut params, now, VALID_FOR);
        let signed = params.signed_by(key, &self.issuer).map_err(IdentityError::crypto)?;
        // The authority comes along, so that a joiner that knows its fingerprint only can check the rest.
        Ok(format!("{}{}", signed.pem(), self.certificate))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.fingerprint)
    }
}

fn name(common: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String> {
    text.try_into().map_err(|_| IdentityError::Name {
        name: text.to_owned(),
        reason: "only ASCII is allowed; write an international name in its xn-- form",
    })
}

fn valid(params: &mut CertificateParams, now: SystemTime, span: Duration) {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_before = now - SKEW;
    params.not_after = now + span;
}
