//! Who calls: tokens as the state knows them, certificates as the handshake saw them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use rota_api::ErrorCode;
use rota_core::State;
use rota_core::command::Command;
use rota_core::event::Event;
use rota_core::token::{Grant, Joins, Note, Role, Token, TokenCommand, TokenSpec};
use rota_identity::{
    ApiToken, Authority, BadToken, Connector, Identity, IdentityDir, IdentityError, JoinToken,
    Names, Peer, Reloadable, TokenHash, client_config, is_join_token,
};
use rota_types::{ServerId, Timestamp};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::clock;
use crate::cookie;
use crate::handle::{Core, Urgency};
use crate::rest::problem::{Refused, refuse};

/// Wrong tokens that one address may send in [`FAILURES_WINDOW`].
const FAILURES_MAX: u32 = 20;
const FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered. When there are more, all are forgotten: guessing is hopeless anyway.
const ADDRESSES_MAX: usize = 4_096;
/// How often it is tried to take in an administrator token while nobody leads, or somebody else.
const TAKE_IN_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the server's certificate has to be replaced.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) from: SocketAddr,
    /// Who showed a certificate.
    pub(crate) peer: Option<Peer>,
    /// Set once a request on it came with a token that counts.
    pub(crate) proved: Arc<AtomicBool>,
}

impl Connection {
    /// A connection on which nobody has proved anything but by this certificate.
    pub(crate) fn new(from: SocketAddr, peer: Option<Peer>) -> Self {
        Self { from, peer, proved: Arc::default() }
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Anybody on this machine: this server asks nobody.
    Anyone,
    /// Somebody with a token.
    Holder(Holder),
    /// A worker, by its node's name.
    Worker(String),
    /// Another server.
    Server(u64),
    /// Nobody who could prove it, and why.
    Unknown(Box<Refused>),
}

/// Somebody with a token.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) token: Token,
    /// Fails when the token is revoked.
    revoked: watch::Receiver<()>,
}

impl Holder {
    /// Returns when the token is of no use any more.
    pub(crate) async fn ended(mut self) {
        let left = self.token.spec.expires_at.map(|end| end.since(clock::wall()).micros());
        let expired = async {
            match left {
                Some(micros) => tokio::time::sleep(Duration::from_micros(micros)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _gone = self.revoked.changed() => {}
            () = expired => {}
        }
    }

    /// The token's name for the audit: names need not be unique, ids are.
    fn name(&self) -> String {
        format!("{} ({})", self.token.spec.name, self.token.spec.id)
    }
}

impl Caller {
    /// The caller as the audit names it; `None` for those who need not say who they are.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::Holder(holder) => Some(holder.name()),
            Self::Worker(name) => Some(format!("worker {name}")),
            Self::Server(number) => Some(format!("server {number}")),
            Self::Anyone | Self::Unknown(_) => None,
        }
    }
}

tokio::task_local! {
    /// On whose behalf the current task proposes commands.
    pub(crate) static ACTOR: Actor;
}

/// Who asks for changes, from where, by which request.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) who: String,
    pub(crate) source: String,
    pub(crate) action: String,
}

impl Actor {
    /// The note behind so many commands.
    pub(crate) fn note(self, commands: usize) -> Note {
        let Self { who, source, action } = self;
        let commands = u32::try_from(commands).unwrap_or(u32::MAX);
        Note { who: who.into(), source: source.into(), action: action.into(), commands }
    }
}

/// The tokens of the state, for whoever has to recognise one. The core thread keeps it up to date.
#[derive(Default)]
pub(crate) struct Tokens(RwLock<BTreeMap<Box<str>, Known>>);

struct Known {
    token: Token,
    /// Dropped with the token: streams that it opened end then.
    live: watch::Sender<()>,
}

impl Tokens {
    /// The tokens of this state.
    pub(crate) fn of(state: &State) -> Self {
        let tokens = Self::default();
        for token in state.tokens() {
            tokens.insert(token);
        }
        tokens
    }

    /// Follows the state.
    pub(crate) fn observe(&self, state: &State, events: &[Event]) {
        for event in events {
            match event {
                Event::TokenAdded(id) => {
                    if let Some(token) = state.token(id) {
                        self.insert(token);
                    }
                }
                Event::TokenRevoked(id) => {
                    self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
                }
                _ => {}
            }
        }
    }

    fn insert(&self, token: &Token) {
        let known = Known { token: token.clone(), live: watch::Sender::new(()) };
        let id = token.spec.id.clone();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, known);
    }

    /// Whether there is a token with this id.
    fn has(&self, id: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// The token with this id, if it has this hash and has not ended.
    fn find(&self, id: &str, hash: TokenHash, now: Timestamp) -> Option<Holder> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(id).filter(|known| hash.matches(&known.token.spec.hash))?;
        let holder = Holder { token: known.token.clone(), revoked: known.live.subscribe() };
        (!known.token.is_expired(now)).then_some(holder)
    }
}

/// A server that asks who calls.
pub(crate) struct Secured {
    pub(crate) authority: Authority,
    pub(crate) identity: Identity,
    pub(crate) shown: Reloadable,
    dir: IdentityDir,
    names: Names,
    tokens: Arc<Tokens>,
    failures: Mutex<BTreeMap<IpAddr, (Instant, u32)>>,
    /// When the certificate that is shown ends, in seconds of the wall clock.
    ends_at: AtomicU64,
}

impl Secured {
    /// Takes up the identity in `dir`: a new certificate with these names is made at each start.
    pub(crate) fn open(
        dir: IdentityDir,
        server: ServerId,
        names: Names,
        tokens: Arc<Tokens>,
    ) -> Result<Self, IdentityError> {
        let authority = Authority::load(&dir)?;
        let peer = Peer::Server(server.0);
        let identity = Identity::issue(&dir, &authority, (&peer, &names), SystemTime::now())?;
        let shown = Reloadable::new(&identity);
        let failures = Mutex::default();
        let ends_at = AtomicU64::new(seconds(identity.expires_at()));
        Ok(Self { authority, identity, shown, dir, names, tokens, failures, ends_at })
    }

    /// When the certificate that is shown ends, in seconds of the wall clock.
    pub(crate) fn ends_at(&self) -> u64 {
        self.ends_at.load(Ordering::Relaxed)
    }

    /// Connections to other servers.
    pub(crate) fn connector(&self) -> Result<Connector, IdentityError> {
        Connector::new(self.identity.authority(), self.shown.clone())
    }

    /// How requests are passed on to other servers.
    pub(crate) fn client(&self) -> Result<rustls::ClientConfig, IdentityError> {
        client_config(self.identity.authority(), Some(self.shown.clone()))
    }

    /// Who sent the request with this method and these headers on this connection: the holder of a token, or of a session, or else whoever
    /// showed a certificate.
    pub(crate) fn identify(
        &self,
        (method, headers): (&Method, &HeaderMap),
        connection: Option<&Connection>,
    ) -> Caller {
        let unknown = |refused: Refused| Caller::Unknown(Box::new(refused));
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let found = match (values.next(), values.next()) {
            (Some(value), None) => self.bearer(value.as_bytes()),
            (Some(_), Some(_)) => {
                return unknown(unauthenticated("more than one token came along"));
            }
            (None, _) => match cookie::read(headers) {
                Ok(None) => return certified(connection),
                Ok(Some(session)) => {
                    // A server that passes a request on has judged where it comes from.
                    let peer = connection.and_then(|connection| connection.peer.as_ref());
                    let is_passed_on = matches!(peer, Some(Peer::Server(_)));
                    if !is_passed_on && !cookie::is_from_own_page(method, headers) {
                        let detail = "a session is for pages of this server, and the browser does not say that one of them asks";
                        return unknown(refuse(ErrorCode::ForbiddenOrigin, detail));
                    }
                    self.session(session)
                }
                Err(why) => return unknown(unauthenticated(why)),
            },
        };
        match found {
            Ok(holder) => Caller::Holder(holder),
            Err(why) => unknown(self.failed(why, connection)),
        }
    }

    fn bearer(&self, value: &[u8]) -> Result<Holder, &'static str> {
        let value = std::str::from_utf8(value).map_err(|_| "the token is not text")?;
        let token = value.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        let token =
            token.and_then(|_| value.get(7..)).ok_or("only Bearer tokens are known here")?;
        let holder = self.holder(token)?;
        if holder.token.spec.session_of.is_some() {
            return Err("that is the session of a browser: it counts in its cookie only");
        }
        Ok(holder)
    }

    fn session(&self, token: &str) -> Result<Holder, &'static str> {
        let ended = "the session has ended: log in again";
        let holder = self.holder(token).map_err(|_| ended)?;
        holder.token.spec.session_of.is_some().then_some(holder).ok_or(ended)
    }

    fn holder(&self, token: &str) -> Result<Holder, &'static str> {
        let mistyped = |bad: BadToken| match bad {
            BadToken::Shape => "what came along is not a token",
            BadToken::Checksum => "the token is incomplete or mistyped",
            BadToken::Kind => "the token is of another kind",
        };
        let (id, hash) = if is_join_token(token) {
            let token = JoinToken::parse(token).map_err(mistyped)?;
            (token.id(), token.hash())
        } else {
            let token = ApiToken::parse(token).map_err(mistyped)?;
            (token.id(), token.hash())
        };
        let unknown =
            "the token is not known here: it was revoked, has expired, or is of another cluster";
        self.tokens.find(&id, hash, clock::wall()).ok_or(unknown)
    }

    /// Counts a wrong token against the address that sent it.
    fn failed(&self, why: &'static str, connection: Option<&Connection>) -> Refused {
        let Some(from) = connection.map(|connection| connection.from.ip()) else {
            return unauthenticated(why);
        };
        let now = Instant::now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&from) {
            failures.clear();
        }
        let (since, count) = failures.entry(from).or_insert((now, 0));
        if now.duration_since(*since) >= FAILURES_WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count <= FAILURES_MAX {
            return unauthenticated(why);
        }
        if *count == FAILURES_MAX + 1 {
            warn!(%from, "too many wrong tokens");
        }
        let detail = format!("{from} has sent more than {FAILURES_MAX} wrong tokens in a minute");
        refuse(ErrorCode::TooManyFailures, detail).retry_after(FAILURES_WINDOW)
    }

    /// Lets the first administrator in, whose token waits in the directory of each founder, as soon as there is a leader.
    pub(crate) async fn keep_taking_in(
        self: Arc<Self>,
        core: Core,
        mut stop: watch::Receiver<bool>,
    ) {
        while !self.take_in_admin_token(&core).await {
            if tokio::time::timeout(TAKE_IN_EVERY, crate::stopped(&mut stop)).await.is_ok() {
                return;
            }
        }
    }

    /// Lets the first administrator in, whose token waits in the directory. Returns whether none waits any more.
    pub(crate) async fn take_in_admin_token(&self, core: &Core) -> bool {
        let token = match self.dir.admin_token(SystemTime::now()) {
            Ok(Some(token)) => token,
            Ok(None) => return true,
            Err(error) => {
                warn!(%error, "the administrator token that waits is not usable");
                return true;
            }
        };
        if self.tokens.has(&token.id) {
            // Another founder had it too, and was the leader.
            return self.forget_admin_token();
        }
        if token.is_first {
            // One of the copies may have waited on a server that was down while the token was taken in elsewhere and revoked.
            match core.query(|view| view.state.tokens().next().is_some()).await {
                Ok(true) => return self.forget_admin_token(),
                Ok(false) => {}
                Err(_) => return false,
            }
        }
        let spec = TokenSpec {
            id: token.id.as_str().into(),
            hash: token.hash.0,
            grant: Grant::Api(Role::Admin),
            name: "admin".into(),
            expires_at: None,
            created_by: "rota cluster".into(),
            session_of: None,
        };
        let command = Command::Tokens(TokenCommand::Add(spec));
        match core.command(Urgency::Finishing, command).await {
            Ok((_, Ok(_))) => info!(id = token.id, "took in an administrator token"),
            Ok((_, Err(rejection))) => warn!(?rejection, "an administrator token was refused"),
            Err(error) => {
                debug!(%error, "an administrator token still waits");
                return false;
            }
        }
        self.forget_admin_token()
    }

    fn forget_admin_token(&self) -> bool {
        if let Err(error) = self.dir.remove_admin_token() {
            warn!(%error, "an administrator token that was taken in is still there");
        }
        true
    }

    /// Replaces the server's certificate in time, until `stop`.
    pub(crate) async fn keep_renewed(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut renew_at = self.identity.renew_at();
        while tokio::time::timeout(RENEW_EVERY, crate::stopped(&mut stop)).await.is_err() {
            let now = SystemTime::now();
            if now < renew_at {
                continue;
            }
            let who = (self.identity.peer(), &self.names);
            match Identity::issue(&self.dir, &self.authority, who, now) {
                Ok(identity) => {
                    self.shown.replace(&identity);
                    renew_at = identity.renew_at();
                    self.ends_at.store(seconds(identity.expires_at()), Ordering::Relaxed);
                    info!("replaced the server's certificate");
                }
                Err(error) => warn!(%error, "cannot replace the server's certificate"),
            }
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Who showed a certificate, if anybody did.
fn certified(connection: Option<&Connection>) -> Caller {
    match connection.and_then(|connection| connection.peer.clone()) {
        Some(Peer::Worker(name)) => Caller::Worker(name),
        Some(Peer::Server(number)) => Caller::Server(number),
        None => Caller::Unknown(Box::new(unauthenticated("no token came along"))),
    }
}

/// A refusal of somebody who did not say who they are.
pub(crate) fn unauthenticated(why: &str) -> Refused {
    refuse(ErrorCode::Unauthenticated, why)
}

/// What a role of the interface is in the state.
pub(crate) fn grant_of(role: rota_api::TokenRole, uses: u32) -> Grant {
    use rota_api::TokenRole;
    match role {
        TokenRole::Reader => Grant::Api(Role::Reader),
        TokenRole::Submitter => Grant::Api(Role::Submitter),
        TokenRole::Operator => Grant::Api(Role::Operator),
        TokenRole::Admin => Grant::Api(Role::Admin),
        TokenRole::Worker => Grant::Join { joins: Joins::Worker, uses_left: uses },
        TokenRole::Server => Grant::Join { joins: Joins::Server, uses_left: uses },
    }
}

/// What a grant of the state is in the interface.
pub(crate) fn role_of(grant: Grant) -> rota_api::TokenRole {
    use rota_api::TokenRole;
    match grant {
        Grant::Api(Role::Reader) => TokenRole::Reader,
        Grant::Api(Role::Submitter) => TokenRole::Submitter,
        Grant::Api(Role::Operator) => TokenRole::Operator,
        Grant::Api(Role::Admin) => TokenRole::Admin,
        Grant::Join { joins: Joins::Worker, .. } => TokenRole::Worker,
        Grant::Join { joins: Joins::Server, .. } => TokenRole::Server,
    }
}
