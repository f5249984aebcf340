//! Bearer tokens and join tokens: how they look, and what is kept of them.
//!
//! `rota_` + id + `_` + secret + checksum, all in base 32. The prefix lets scanners of source code find a token that was published
//! by mistake, the checksum tells a mistyped token from a wrong one, and the id lets people name a token without knowing it. A
//! secret has 256 bits, so that a fast hash of it is enough to store: there is nothing to guess.
//!
//! Join tokens begin with `rotajoin_` and carry the fingerprint of the authority in front of the checksum, as kubeadm and Docker
//! swarm do: the joiner checks the server by it before it shows the token.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::base32;
use crate::error::{IdentityError, Result};

const API_PREFIX: &str = "rota_";
const JOIN_PREFIX: &str = "rotajoin_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const FINGERPRINT_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// What is stored of a token: enough to recognise it, not enough to make it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

/// SHA-256 of an authority's public key (its SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// A token that lets its holder use the API.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(Parts);

/// A token that lets its holder become a server or a worker of the cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    parts: Parts,
    authority: Fingerprint,
}

#[derive(Clone, PartialEq, Eq)]
struct Parts {
    id: [u8; ID_BYTES],
    secret: [u8; SECRET_BYTES],
}

/// A text that is not a token. Says why, and never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It does not look like a token at all.
    #[error("this is not a token: an API token begins with rota_, a join token with rotajoin_")]
    Shape,
    /// Its checksum does not match.
    #[error("the token is incomplete or mistyped: copy it again, as a whole")]
    Checksum,
    /// It is a token of the other kind.
    #[error("this token is of the other kind: rota_… is for the API, rotajoin_… is for joining")]
    Kind,
}

/// Whether the text claims to be a join token.
#[must_use]
pub fn is_join_token(text: &str) -> bool {
    text.starts_with(JOIN_PREFIX)
}

impl ApiToken {
    /// Draws a token from the system's randomness.
    ///
    /// # Errors
    /// If the system has none.
    pub fn generate() -> Result<Self> {
        Parts::generate().map(Self)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &str) -> std::result::Result<Self, BadToken> {
        if is_join_token(text) {
            return Err(BadToken::Kind);
        }
        let body = text.strip_prefix(API_PREFIX).ok_or(BadToken::Shape)?;
        let (parts, rest) = Parts::split(body)?;
        let token = Self(parts);
        if rest == checksum(&token.body()) { Ok(token) } else { Err(BadToken::Checksum) }
    }

    /// The token's public name.
    #[must_use]
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// What to store of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        self.0.hash("rota 2026 api token")
    }

    /// The token itself, for the one who is to hold it.
    #[must_use]
    pub fn reveal(&self) -> String {
        let body = self.body();
        format!("{body}{}", checksum(&body))
    }

    fn body(&self) -> String {
        format!("{API_PREFIX}{}", self.0.text())
    }
}

impl JoinToken {
    /// Draws a token for the cluster of this authority.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate(authority: Fingerprint) -> Result<Self> {
        Ok(Self { parts: Parts::generate()?, authority })
    }

    /// Reads a token.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &str) -> std::result::Result<Self, BadToken> {
        if text.starts_with(API_PREFIX) {
            return Err(BadToken::Kind);
        }
        let body = text.strip_prefix(JOIN_PREFIX).ok_or(BadToken::Shape)?;
        let (parts, rest) = Parts::split(body)?;
        let (authority, rest) =
            rest.split_at_checked(base32::chars(FINGERPRINT_BYTES)).ok_or(BadToken::Checksum)?;
        let authority = Fingerprint(base32::decode(authority).ok_or(BadToken::Checksum)?);
        let token = Self { parts, authority };
        if rest == checksum(&token.body()) { Ok(token) } else { Err(BadToken::Checksum) }
    }

    /// The token's public name.
    #[must_use]
    pub fn id(&self) -> String {
        self.parts.id()
    }

    /// What to store of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        self.parts.hash("rota 2026 join token")
    }

    /// The authority of the cluster that the holder may join.
    #[must_use]
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// The token itself, for the one who is to hold it.
    #[must_use]
    pub fn reveal(&self) -> String {
        let body = self.body();
        format!("{body}{}", checksum(&body))
    }

    fn body(&self) -> String {
        format!("{JOIN_PREFIX}{}{}", self.parts.text(), base32::encode(&self.authority.0))
    }
}

impl Parts {
    fn generate() -> Result<Self> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        let random = SystemRandom::new();
        for bytes in [&mut id[..], &mut secret[..]] {
            let drawn = random.fill(bytes);
            drawn.map_err(|_| IdentityError::crypto("the system gives no random numbers"))?;
        }
        Ok(Self { id, secret })
    }

    /// Takes id and secret off the front.
    fn split(body: &str) -> std::result::Result<(Self, &str), BadToken> {
        let (id, rest) = body.split_once('_').ok_or(BadToken::Checksum)?;
        let (secret, rest) =
            rest.split_at_checked(base32::chars(SECRET_BYTES)).ok_or(BadToken::Checksum)?;
        let id = base32::decode(id).ok_or(BadToken::Checksum)?;
        let secret = base32::decode(secret).ok_or(BadToken::Checksum)?;
        Ok((Self { id, secret }, rest))
    }

    fn id(&self) -> String {
        base32::encode(&self.id)
    }

    fn text(&self) -> String {
        format!("{}_{}", self.id(), base32::encode(&self.secret))
    }

    /// The id is hashed along, so that a hash is of use under its own id only.
    fn hash(&self, purpose: &str) -> TokenHash {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&self.id).update(&self.secret);
        TokenHash(*hasher.finalize().as_bytes())
    }
}

impl TokenHash {
    /// Whether it is the other hash; takes the same time whatever the answer is.
    #[must_use]
    pub fn matches(&self, stored: &[u8; 32]) -> bool {
        self.0.ct_eq(stored).into()
    }
}

fn checksum(body: &str) -> String {
    let hash = blake3::hash(body.as_bytes());
    base32::encode(&hash.as_bytes()[..CHECKSUM_BYTES])
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({})", self.id())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: Fingerprint = Fingerprint([0xAB; 32]);

    #[test]
    fn tokens_come_back_from_their_text_and_are_all_different() {
        let (one, other) = (ApiToken::generate().unwrap(), ApiToken::generate().unwrap());
        assert_eq!(ApiToken::parse(&one.reveal()), Ok(one.clone()));
        assert_ne!(one.reveal(), other.reveal());
        assert_ne!(one.id(), other.id());
        let join = JoinToken::generate(CA).unwrap();
        assert_eq!(JoinToken::parse(&join.reveal()), Ok(join.clone()));
        assert_eq!(join.authority(), CA);
    }

    #[test]
    fn a_token_is_long_enough_and_looks_like_one() {
        let text = ApiToken::generate().unwrap().reveal();
        assert_eq!(text.len(), "rota_".len() + 13 + 1 + 52 + 7);
        assert!(text.strip_prefix("rota_").unwrap().bytes().all(|byte| {
            byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte) || byte == b'_'
        }));
    }

    #[test]
    fn every_changed_or_missing_character_is_noticed() {
        let join = JoinToken::generate(CA).unwrap().reveal();
        for text in [ApiToken::generate().unwrap().reveal(), join] {
            let prefix = text.find('_').unwrap() + 1;
            for at in prefix..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
                let changed = String::from_utf8(bytes).unwrap();
                assert!(ApiToken::parse(&changed).is_err(), "{at}");
                assert!(JoinToken::parse(&changed).is_err(), "{at}");
                assert!(
                    ApiToken::parse(&text[..at]).is_err() && JoinToken::parse(&text[..at]).is_err()
                );
            }
        }
        assert_eq!(ApiToken::parse(""), Err(BadToken::Shape));
        assert_eq!(ApiToken::parse("Bearer x"), Err(BadToken::Shape));
        assert_eq!(ApiToken::parse("rota_ä_ß"), Err(BadToken::Checksum));
        let kind = ApiToken::parse(&JoinToken::generate(CA).unwrap().reveal());
        assert_eq!(kind, Err(BadToken::Kind));
        assert_eq!(JoinToken::parse(&ApiToken::generate().unwrap().reveal()), Err(BadToken::Kind));
    }

    #[test]
    fn a_hash_is_of_use_for_its_own_token_only() {
        let token = ApiToken::generate().unwrap();
        let TokenHash(stored) = token.hash();
        assert!(ApiToken::parse(&token.reveal()).unwrap().hash().matches(&stored));
        assert!(!ApiToken::generate().unwrap().hash().matches(&stored));
        let other_id = ApiToken(Parts { id: [0; ID_BYTES], ..token.0.clone() });
        assert!(!other_id.hash().matches(&stored));
        // The same parts as a join token: another purpose, another hash.
        let join = JoinToken { parts: token.0, authority: CA };
        assert!(!join.hash().matches(&stored));
    }

    #[test]
    fn debug_prints_no_secret() {
        let token = ApiToken::generate().unwrap();
        let join = JoinToken::generate(CA).unwrap();
        let told = format!("{token:?} {:?} {join:?} {:#?}", token.hash(), join.hash());
        for secret in [&token.0.secret, &join.parts.secret, &token.hash().0, &join.hash().0] {
            assert!(
                !told.contains(&base32::encode(secret)) && !told.contains(&format!("{secret:?}"))
            );
        }
        assert!(told.contains(&token.id()) && told.contains(&join.id()));
    }
}
