//! Tokens, joining, and who somebody is.

use std::time::SystemTime;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use rota_api::{
    AddServer, ErrorCode, JoinRequest, Joined, Moment, NewToken, Problem, RenewRequest, Secret,
    Token, TokenList, TokenRequest, TokenRole, Whoami,
};
use rota_core::command::Command;
use rota_core::token::{Grant, Joins, TokenCommand, TokenSpec};
use rota_identity::{ApiToken, IdentityError, JoinToken, Names, Peer};
use rota_types::limits::NAME_BYTES_MAX;
use rota_types::{ServerId, Span};

use super::App;
use super::extract::{OptionalJson, PathPart};
use super::problem::{About, Answer, Refused, internal, refuse, rejected};
use crate::auth::{self, Caller, Secured};
use crate::clock;
use crate::handle::Urgency;

/// How long a token of the API is valid if nobody says otherwise.
const API_VALID_FOR: Span = Span::from_secs(90 * 24 * 3_600);
/// How long a token for joining is valid if nobody says otherwise.
const JOIN_VALID_FOR: Span = Span::from_secs(600);

/// Lists tokens, without what would make them usable.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", operation_id = "listTokens", responses(
    (status = 200, description = "Every token.", body = TokenList),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_tokens(State(app): State<App>) -> Answer<Json<TokenList>> {
    let list = app.core.query(|view| TokenList {
        items: view.state.tokens().map(tell).collect(),
        index: view.state.index().0,
    });
    Ok(Json(list.await?))
}

/// Makes a token. The answer is the only place where it is told.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", operation_id = "createToken",
    request_body = TokenRequest, responses(
    (status = 201, description = "The token.", body = NewToken),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create_token(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    OptionalJson(request): OptionalJson<TokenRequest>,
) -> Answer<(StatusCode, Json<NewToken>)> {
    let secured = secured(&app)?;
    let joins = matches!(request.role, TokenRole::Worker | TokenRole::Server);
    if request.uses.is_some() && !joins {
        let detail = "`uses` is for tokens of the roles worker and server";
        return Err(refuse(ErrorCode::InvalidRequest, detail));
    }
    let drawn = |error: IdentityError| internal("drawing a token", error);
    let (id, hash, text) = if joins {
        let token = JoinToken::generate(secured.authority.fingerprint()).map_err(drawn)?;
        (token.id(), token.hash(), token.reveal())
    } else {
        let token = ApiToken::generate().map_err(drawn)?;
        (token.id(), token.hash(), token.reveal())
    };
    let default = if joins { JOIN_VALID_FOR } else { API_VALID_FOR };
    let valid_for = request.valid_for.map_or(default, |asked| asked.0);
    let spec = TokenSpec {
        id: id.as_str().into(),
        hash: hash.0,
        grant: auth::grant_of(request.role, request.uses.unwrap_or(1)),
        name: request.name.into(),
        expires_at: Some(clock::wall().plus(valid_for)),
        created_by: caller.name().unwrap_or_default().chars().take(60).collect::<String>().into(),
        session_of: None,
    };
    change(&app, TokenCommand::Add(spec)).await?;
    let added = app.core.query(move |view| view.state.token(&id).map(tell)).await;
    let added = added.map_err(|error| Refused::from(error).after_a_change())?;
    let info = added.ok_or_else(|| refuse(ErrorCode::TokenNotFound, "it was revoked at once"))?;
    Ok((StatusCode::CREATED, Json(NewToken { info, token: Secret(text) })))
}

/// Revokes a token. Streams that it opened end within seconds.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", operation_id = "revokeToken",
    params(("id" = String, Path, description = "The token's id.")), responses(
    (status = 204, description = "It is of no use any more."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn revoke_token(
    State(app): State<App>,
    PathPart(id): PathPart<String>,
) -> Answer<StatusCode> {
    change(&app, TokenCommand::Revoke(id.into())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets the holder of a token for joining become a worker or a server.
#[utoipa::path(post, path = "/v1/join", tag = "tokens", operation_id = "join",
    request_body = JoinRequest, responses(
    (status = 200, description = "What proves it from now on.", body = Joined),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn join(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    OptionalJson(request): OptionalJson<JoinRequest>,
) -> Answer<Json<Joined>> {
    let secured = secured(&app)?;
    let Caller::Holder(holder) = caller else {
        return Err(auth::unauthenticated("joining takes a token for joining"));
    };
    let Grant::Join { joins, .. } = holder.token.spec.grant else {
        return Err(auth::unauthenticated("joining takes a token for joining"));
    };
    let authority = secured.authority.certificate().to_owned();
    let mut joined = match joins {
        Joins::Server => {
            let key = Some(Secret(secured.authority.key()));
            Joined { authority, authority_key: key, ..Joined::default() }
        }
        Joins::Worker => {
            let (Some(node), Some(csr)) = (request.node, request.request) else {
                let detail = "a worker joins with `node` and `request`";
                return Err(refuse(ErrorCode::InvalidRequest, detail));
            };
            let certificate = Some(sign(secured, node, &csr)?);
            Joined { authority, certificate, ..Joined::default() }
        }
    };
    let address = match (joins, request.address) {
        (Joins::Worker, _) => None,
        (Joins::Server, Some(address)) => Some(AddServer { address, level: request.level }),
        (Joins::Server, None) => {
            let detail = "a server joins with `address`, where others will reach it";
            return Err(refuse(ErrorCode::InvalidRequest, detail));
        }
    };
    if let Some(address) = address {
        joined.server = Some(super::servers::admit(&app, address).await?);
    }
    // The use is taken last, so that a mistake does not cost it, and before anything is told.
    if let Err(refused) = change(&app, TokenCommand::Use(holder.token.spec.id)).await {
        if let Some(added) = &joined.server {
            super::servers::dismiss(&app, ServerId(added.id)).await?;
        }
        return Err(refused);
    }
    Ok(Json(joined))
}

/// Gives a worker a new certificate for the same node.
#[utoipa::path(post, path = "/v1/renew", tag = "tokens", operation_id = "renew",
    request_body = RenewRequest, responses(
    (status = 200, description = "The new certificate.", body = Joined),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn renew(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    OptionalJson(request): OptionalJson<RenewRequest>,
) -> Answer<Json<Joined>> {
    let secured = secured(&app)?;
    let Caller::Worker(node) = caller else {
        return Err(refuse(ErrorCode::Forbidden, "only a worker renews its certificate"));
    };
    let certificate = Some(sign(secured, node, &request.request)?);
    let authority = secured.authority.certificate().to_owned();
    Ok(Json(Joined { authority, certificate, ..Joined::default() }))
}

/// Says who the caller is.
#[utoipa::path(get, path = "/v1/whoami", tag = "tokens", operation_id = "whoami", responses(
    (status = 200, description = "The caller.", body = Whoami),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn whoami(Extension(caller): Extension<Caller>) -> Answer<Json<Whoami>> {
    let told = |name: &str, role: &str| Whoami {
        name: name.to_owned(),
        role: role.to_owned(),
        expires_at: None,
    };
    Ok(Json(match &caller {
        Caller::Anyone => told("anyone", "admin"),
        Caller::Holder(holder) => {
            let spec = &holder.token.spec;
            let told = told(&spec.name, auth::role_of(spec.grant).name());
            Whoami { expires_at: spec.expires_at.map(Moment), ..told }
        }
        Caller::Worker(name) => told(name, "worker"),
        Caller::Server(number) => told(&number.to_string(), "server"),
        Caller::Unknown(refused) => return Err((**refused).clone()),
    }))
}

pub(super) fn secured(app: &App) -> Answer<&Secured> {
    let detail = "this server has no certificate authority";
    app.secured.as_deref().ok_or_else(|| refuse(ErrorCode::NotSecured, detail))
}

fn sign(secured: &Secured, node: String, request: &str) -> Answer<String> {
    if node.is_empty() || node.len() > NAME_BYTES_MAX || node.chars().any(char::is_control) {
        let detail =
            format!("a node's name has 1 to {NAME_BYTES_MAX} bytes without control characters");
        return Err(refuse(ErrorCode::InvalidRequest, detail));
    }
    let peer = Peer::Worker(node);
    let signed = secured.authority.sign(request, &peer, &Names::default(), SystemTime::now());
    signed.map_err(|error| match error {
        IdentityError::Request(_) | IdentityError::Name { .. } => {
            refuse(ErrorCode::InvalidRequest, error.to_string())
        }
        error => internal("signing a certificate", error),
    })
}

pub(super) async fn change(app: &App, command: TokenCommand) -> Answer<()> {
    match app.core.command(Urgency::Finishing, Command::Tokens(command)).await? {
        (_, Ok(_)) => Ok(()),
        (_, Err(rejection)) => Err(rejected(About::Token, &rejection)),
    }
}

fn tell(token: &rota_core::token::Token) -> Token {
    let rota_core::token::Token { spec, created_at } = token;
    Token {
        id: spec.id.to_string(),
        name: spec.name.to_string(),
        role: auth::role_of(spec.grant),
        created_at: Moment(*created_at),
        expires_at: spec.expires_at.map(Moment),
        created_by: spec.created_by.to_string(),
        session_of: spec.session_of.as_deref().map(str::to_owned),
        uses_left: match spec.grant {
            Grant::Api(_) => None,
            Grant::Join { uses_left, .. } => Some(uses_left),
        },
    }
}
