//! Who is who: tokens of people and programs, certificates of servers and workers, and the files that hold them.
//!
//! A cluster is its certificate authority. Servers and workers prove themselves by certificates that it signed, with their role in
//! them; API clients prove themselves by bearer tokens, of which the cluster keeps only hashes. Whoever joins holds a join token,
//! which also carries the authority's fingerprint, so that the joiner knows the cluster before it says anything.
//!
//! Absent on purpose: what a role may do (the server's table of routes), which tokens there are (replicated state in `core`),
//! who listens where. Nothing here prints a secret: types that hold one have a `Debug` that leaves it out.
//!
//! Files, below the data directory of a server or worker, in `credentials/` (mode 0700):
//!
//! | File | Mode | What |
//! |---|---|---|
//! | `ca.pem` | 0644 | the authority's certificate; not secret |
//! | `ca.key` | 0600 | its private key; servers only |
//! | `node.pem` | 0644 | the certificate of this server or worker, then the authority's |
//! | `node.key` | 0600 | its private key |
//! | `admin-token` | 0600 | id and hash of a first administrator token, until a server has taken it in |

mod authority;
mod base32;
mod connector;
mod error;
mod files;
mod identity;
mod peer;
mod tls;
mod token;

pub use authority::{Authority, Names, RENEW_AFTER, VALID_FOR};
pub use connector::Connector;
pub use error::{IdentityError, Result};
pub use files::{AdminToken, IdentityDir};
pub use identity::{Identity, Joining, expiry};
pub use peer::{Cluster, Peer};
pub use tls::{Reloadable, client_config, joining_config, peer_of, server_config};
pub use token::{ApiToken, BadToken, Fingerprint, JoinToken, TokenHash, is_join_token};
