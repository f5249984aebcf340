//! Tokens, joining, and who somebody is.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::scalar::{Duration, Moment};

/// What the holder of a token may do, or become.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    /// See everything.
    #[default]
    Reader,
    /// Also submit, cancel and retry jobs.
    Submitter,
    /// Also drain and remove nodes; create, change and remove queues.
    Operator,
    /// Also make and revoke tokens, and read the audit.
    Admin,
    /// Join the cluster as a worker.
    Worker,
    /// Join the cluster as a server.
    Server,
}

impl TokenRole {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Reader, Self::Submitter, Self::Operator, Self::Admin, Self::Worker, Self::Server];

    /// The name in JSON and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Worker => "worker",
            Self::Server => "server",
        }
    }
}

impl std::str::FromStr for TokenRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("\"{text}\" is not a role; there are {known}")
        })
    }
}

/// A text that must not be printed by accident.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A token to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Who or what will hold it, for people.
    pub name: String,
    /// What it is good for. `worker` and `server` make a token for joining.
    pub role: TokenRole,
    /// How long it is valid. Left out: 90 days for the API, 10 minutes for joining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Duration>,
    /// How often a token for joining may be used. Left out: once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// What is known of a token; never the token itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its public name: what stands between `rota_` and the next `_`.
    pub id: String,
    /// Who or what holds it, for people.
    pub name: String,
    /// What it is good for.
    pub role: TokenRole,
    /// When it was made.
    pub created_at: Moment,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Who made it.
    pub created_by: String,
    /// The token whose holder logged in with a browser, if this is such a session: it goes with that token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_of: Option<String>,
    /// How often a token for joining may still be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
}

/// A new token: the only time that it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// What is known of it.
    pub info: Token,
    /// The token itself.
    pub token: Secret,
}

/// Every token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// By id.
    pub items: Vec<Token>,
    /// The log index that the list shows.
    pub index: u64,
}

/// Somebody wants to join, with a token for joining.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The node's name, of a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A request for a certificate (PKCS #10, PEM), of a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Where others will reach it, of a server: a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The highest feature level that it understands, of a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
}

/// Somebody who has joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Joined {
    /// The authority's certificate (PEM).
    pub authority: String,
    /// The certificate that was asked for, then the authority's (PEM); of a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The authority's private key (PEM); of a server, which signs certificates itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_key: Option<Secret>,
    /// Its place in the cluster; of a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<crate::ServerAdded>,
}

/// A worker wants a new certificate before its own ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// A request for a certificate (PKCS #10, PEM).
    pub request: String,
}

/// Who the caller is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// The token's or certificate's name; `anyone` on a server that asks nobody.
    pub name: String,
    /// `reader`, `submitter`, `operator`, `admin`, `worker` or `server`.
    pub role: String,
    /// When the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
}

/// One request that changed something, or tried to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// The log index of the change.
    pub index: u64,
    /// When, by the leader's wall clock.
    pub at: Moment,
    /// The token's or certificate's name.
    pub who: String,
    /// The address that the request came from.
    pub source: String,
    /// Method and path.
    pub action: String,
    /// How many commands the request made.
    pub commands: u32,
    /// How many of them were refused.
    pub refused: u32,
}

/// Requests and connections of one kind that a server turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedRecord {
    /// The server.
    pub server: u64,
    /// When the first one came, by the server's wall clock.
    pub first_at: Moment,
    /// When the last one came.
    pub last_at: Moment,
    /// How many there were.
    pub count: u64,
    /// The token's or certificate's name; empty if nobody proved who they are.
    pub who: String,
    /// The address that they came from; of version 6, its network.
    pub source: String,
    /// Method and path, or what came instead of a request.
    pub action: String,
    /// Why: the code of the problem, or what was wrong with the connection: `certificate`, `handshake`, `handshake-timeout` or
    /// `wrong-server`. Empty if several reasons are counted together.
    pub code: String,
}
