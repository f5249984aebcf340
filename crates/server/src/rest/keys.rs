//! Keys.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH,
};
use rota_api::{
    Base64, ChangeRequest, DeleteQuery, ErrorCode, Key, KeyQuery, KeysChanged, Page, PrefixQuery,
    Problem, PutQuery,
};
use rota_core::command::{Command, Outcome, Reply};
use rota_core::kv::{ChangeKeys, Condition, KeyChange, KvCommand, KvReply, Pair};
use rota_types::limits::{
    KEY_BYTES_MAX, KEY_CHANGES_MAX, KEY_PAGE_BYTES_MAX, KEY_VALUE_BYTES_MAX, KEYS_DELETED_MAX,
};
use rota_types::{LogIndex, Revision, SessionId};

use super::App;
use super::extract::{PathPart, Query, WholeBody, read_body, required_json};
use super::guard::ROTA_INDEX;
use super::lists::{self, ListId};
use super::problem::{About, Answer, Refused, internal, refuse, rejected};
use crate::handle::Urgency;

/// The revision of a key's last change.
const REVISION: HeaderName = HeaderName::from_static("x-rota-revision");
/// The revision at which a key came to be.
const CREATED: HeaderName = HeaderName::from_static("x-rota-created");
/// How often a key was given a value.
const VERSION: HeaderName = HeaderName::from_static("x-rota-version");
/// The session that a key goes with.
const SESSION: HeaderName = HeaderName::from_static("x-rota-session");

/// Bytes of the body of a transaction.
const CHANGE_BODY_BYTES_MAX: usize = 16 << 20;
// Base64 takes four bytes for three.
const _: () = assert!(
    KEY_CHANGES_MAX * (KEY_VALUE_BYTES_MAX * 4 / 3 + 4 * KEY_BYTES_MAX) < CHANGE_BODY_BYTES_MAX
);

/// For the description; the handlers read them by themselves.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
struct MatchHeaders {
    /// Only if the key was changed last at this revision: the `ETag` of an answer, or the number alone.
    #[param(rename = "If-Match", nullable = false, pattern = "^[0-9]{1,18}$")]
    if_match: Option<String>,
    /// `*`: only if there is no such key. Not together with `If-Match`.
    #[param(rename = "If-None-Match", nullable = false, inline)]
    if_none_match: Option<Anything>,
}

/// For the description: the only thing that `If-None-Match` can be.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "only described")]
enum Anything {
    #[serde(rename = "*")]
    Any,
}

/// For the description.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
struct IfMatch {
    /// Only if the key was changed last at this revision: the `ETag` of an answer, or the number alone.
    #[param(rename = "If-Match", nullable = false, pattern = "^[0-9]{1,18}$")]
    if_match: Option<String>,
}

/// Lists keys in the order of their bytes.
///
/// Each page is of one moment, not all pages of the same. To miss nothing, follow `/v1/watch` since the `index` of the first page.
#[utoipa::path(get, path = "/v1/kv", tag = "keys", operation_id = "listKeys", params(KeyQuery), responses(
    (status = 200, description = "A page of keys.", body = Page<Key>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_keys(
    State(app): State<App>,
    Query(query): Query<KeyQuery>,
) -> Answer<Json<Page<Key>>> {
    let limit = lists::limit(query.limit)?;
    let prefix = query.prefix.unwrap_or_default();
    let keys_only = query.keys_only.unwrap_or(false);
    let list = ListId::new("keys", &[Some(&prefix)]);
    let after = query.cursor.map(|cursor| list.text(&cursor)).transpose()?;
    let page = app.core.query(move |view| {
        let mut bytes = 0;
        let mut items = Vec::new();
        let mut more = false;
        for (key, pair) in view.state.kv().list(&prefix, after.as_deref()) {
            bytes += if keys_only { 0 } else { key.len() + pair.value.len() };
            if items.len() == limit || (bytes > KEY_PAGE_BYTES_MAX && !items.is_empty()) {
                more = true;
                break;
            }
            items.push(tell(key, pair, !keys_only));
        }
        let last = items.last().filter(|_| more);
        let next_cursor = last.map(|last| list.text_cursor(&last.key));
        Page { items, next_cursor, index: view.state.index().0 }
    });
    Ok(Json(page.await?))
}

/// Reads a key.
///
/// The answer is the value as it is; `X-Rota-Revision`, `X-Rota-Created`, `X-Rota-Version` and `X-Rota-Session` tell the rest, and `ETag` is
/// the revision. With `Accept: application/json` all of it is one document, the value in base64.
#[utoipa::path(get, path = "/v1/kv/{key}", tag = "keys", operation_id = "getKey",
    params(("key" = String, Path, description = "The key; slashes may stand as they are.", min_length = 1)), responses(
    (status = 200, description = "The value.", content(
        (Vec<u8> = "application/octet-stream"),
        (Key = "application/json"),
    )),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn get_key(
    State(app): State<App>,
    PathPart(key): PathPart<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    let name = key.clone();
    let found = app
        .core
        .query(move |view| (view.state.index(), view.state.kv().get(&name).cloned()))
        .await?;
    let (index, Some(pair)) = found else {
        return Err(refuse(ErrorCode::KeyNotFound, format!("there is no key {key:?}")));
    };
    let json = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let mut response = if json {
        Json(tell(&key, &pair, true)).into_response()
    } else {
        let bytes = bytes::Bytes::from_owner(std::sync::Arc::clone(&pair.value));
        ([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], bytes)
            .into_response()
    };
    let headers = response.headers_mut();
    headers.insert(REVISION, HeaderValue::from(pair.modified.0));
    headers.insert(CREATED, HeaderValue::from(pair.created.0));
    headers.insert(VERSION, HeaderValue::from(pair.version));
    if let Some(session) = pair.session {
        headers.insert(SESSION, HeaderValue::from(session.0));
    }
    headers.insert(ROTA_INDEX, HeaderValue::from(index.0));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    insert_tag(headers, pair.modified.0);
    Ok(response)
}

/// Gives a key a value: the body as it is, at most 64 KiB.
///
/// With `If-Match` it is a compare-and-set, with `If-None-Match: *` it only creates; where the condition does not hold, the answer is 412. The
/// key is bound to `session`, or to none. Not to be repeated after an answer that got lost, unless nobody else writes the key.
#[utoipa::path(put, path = "/v1/kv/{key}", tag = "keys", operation_id = "putKey",
    params(("key" = String, Path, description = "The key; slashes may stand as they are.", min_length = 1), PutQuery, MatchHeaders),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 200, description = "The key has the value.", body = KeysChanged),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put_key(
    State(app): State<App>,
    PathPart(key): PathPart<String>,
    Query(query): Query<PutQuery>,
    request: Request,
) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let PutQuery { session, lock, token } = query;
    let conditions = conditions(&key, &parts.headers, (lock, token))?;
    let WholeBody { bytes, room } = read_value(&app, &parts.headers, body).await?;
    let (value, session) = (bytes.as_ref().into(), session.map(SessionId));
    let put = KeyChange::Put { key: key.into(), value, session };
    let changed = change(&app, ChangeKeys { conditions, changes: vec![put] }).await?;
    drop(room);
    Ok(answer(changed, true))
}

/// Deletes a key.
///
/// Where there is no such key, nothing changes, and `deleted` is 0. With `If-Match` it has to be at that revision.
#[utoipa::path(delete, path = "/v1/kv/{key}", tag = "keys", operation_id = "deleteKey",
    params(("key" = String, Path, description = "The key; slashes may stand as they are.", min_length = 1), DeleteQuery, IfMatch), responses(
    (status = 200, description = "The key is not there.", body = KeysChanged),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn delete_key(
    State(app): State<App>,
    PathPart(key): PathPart<String>,
    Query(query): Query<DeleteQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let conditions = conditions(&key, &headers, (query.lock, query.token))?;
    let changes = vec![KeyChange::Delete { key: key.into() }];
    Ok(answer(change(&app, ChangeKeys { conditions, changes }).await?, false))
}

/// Changes keys together: all changes are made at one revision if every condition holds, else none.
///
/// A condition of a lock makes sure that a holder that has lost it changes nothing.
#[utoipa::path(post, path = "/v1/kv", tag = "keys", operation_id = "changeKeys", request_body = ChangeRequest, responses(
    (status = 200, description = "The changes are made.", body = KeysChanged),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn change_keys(State(app): State<App>, request: Request) -> Answer<Response> {
    let asked: ChangeRequest = required_json(&app, request, CHANGE_BODY_BYTES_MAX).await?;
    let conditions = asked.conditions.into_iter().map(condition).collect();
    let changes = asked.changes.into_iter().map(key_change).collect();
    Ok(answer(change(&app, ChangeKeys { conditions, changes }).await?, false))
}

/// Deletes keys that begin alike, the first in order, at one revision.
#[utoipa::path(delete, path = "/v1/kv", tag = "keys", operation_id = "deleteKeys", params(PrefixQuery), responses(
    (status = 200, description = "They are deleted.", body = KeysChanged),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn delete_keys(
    State(app): State<App>,
    Query(query): Query<PrefixQuery>,
) -> Answer<Response> {
    let at_most = query.at_most.unwrap_or(KEYS_DELETED_MAX);
    let command = KvCommand::DeletePrefix { prefix: query.prefix.into(), at_most };
    let (index, outcome) = app.core.command(Urgency::Finishing, Command::Kv(command)).await?;
    Ok(answer(changed(index, outcome)?, false))
}

async fn change(app: &App, change: ChangeKeys) -> Answer<KeysChanged> {
    let puts = change.changes.iter().map(|change| match change {
        KeyChange::Put { key, value, .. } => 64 + key.len() + value.len(),
        KeyChange::Delete { .. } => 0,
    });
    let bytes: usize = puts.sum();
    // Whoever only deletes makes room: that is never refused for lack of it.
    let urgency = if bytes == 0 { Urgency::Finishing } else { Urgency::New };
    if urgency == Urgency::New {
        app.space.check()?;
    }
    let command = Command::Kv(KvCommand::Change(change));
    let mut applied = app.core.propose(urgency, vec![command], bytes + 256).await?;
    let outcome = applied.outcomes.pop();
    let outcome = outcome.ok_or_else(|| internal("changing keys", "it was not answered"))?;
    changed(applied.index, outcome)
}

fn changed(index: LogIndex, outcome: Outcome) -> Answer<KeysChanged> {
    match outcome {
        Ok(Reply::Kv(KvReply::Changed { revision, deleted })) => {
            Ok(KeysChanged { revision: revision.0, deleted, index: index.0 })
        }
        Ok(other) => Err(internal("changing keys", format!("answered with {other:?}"))),
        Err(rejection) => Err(rejected(About::Keys, &rejection)),
    }
}

/// The answer; that of a put has the new revision as its tag.
fn answer(changed: KeysChanged, tagged: bool) -> Response {
    let KeysChanged { revision, index, .. } = changed;
    let mut response = Json(changed).into_response();
    response.headers_mut().insert(ROTA_INDEX, HeaderValue::from(index));
    if tagged {
        insert_tag(response.headers_mut(), revision);
    }
    response
}

fn insert_tag(headers: &mut HeaderMap, revision: u64) {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        headers.insert(ETAG, tag);
    }
}

/// What a change of one key depends on.
fn conditions(
    key: &str,
    headers: &HeaderMap,
    (lock, token): (Option<String>, Option<u64>),
) -> Answer<Vec<Condition>> {
    let wrong = |detail: &str| Err(refuse(ErrorCode::InvalidParameter, detail));
    let mut conditions = Vec::new();
    match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => {}
        (Some(_), Some(_)) => {
            return Err(contradictory("If-Match and If-None-Match contradict: send one of them"));
        }
        (None, Some(value)) if value == "*" => {
            conditions.push(Condition::Absent { key: key.into() });
        }
        (None, Some(_)) => return wrong("If-None-Match can only be *"),
        (Some(value), None) => {
            let Some(since) = value.to_str().ok().and_then(revision) else {
                return wrong("If-Match has to be a revision, such as \"12\" or 12");
            };
            conditions.push(Condition::Unchanged { key: key.into(), since });
        }
    }
    match (lock, token) {
        (None, None) => {}
        (Some(lock), Some(token)) => {
            conditions.push(Condition::Held { lock: lock.into(), token: Revision(token) });
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err(contradictory("lock and token belong together: send both"));
        }
    }
    Ok(conditions)
}

fn contradictory(detail: &str) -> Refused {
    refuse(ErrorCode::InvalidRequest, detail)
}

/// The revision in an entity tag, or alone.
fn revision(tag: &str) -> Option<Revision> {
    let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| digits).map(Revision)
}

fn condition(asked: rota_api::KeyCondition) -> Condition {
    match asked {
        rota_api::KeyCondition::Absent { key } => Condition::Absent { key: key.into() },
        rota_api::KeyCondition::Unchanged { key, revision } => {
            Condition::Unchanged { key: key.into(), since: Revision(revision) }
        }
        rota_api::KeyCondition::Held { lock, token } => {
            Condition::Held { lock: lock.into(), token: Revision(token) }
        }
    }
}

fn key_change(asked: rota_api::KeyChange) -> KeyChange {
    match asked {
        rota_api::KeyChange::Put { key, value, session } => KeyChange::Put {
            key: key.into(),
            value: value.0.into(),
            session: session.map(SessionId),
        },
        rota_api::KeyChange::Delete { key } => KeyChange::Delete { key: key.into() },
    }
}

/// Reads a value.
async fn read_value(app: &App, headers: &HeaderMap, body: Body) -> Answer<WholeBody> {
    let too_large = |refused: Refused| {
        if refused.problem().code == ErrorCode::BodyTooLarge.name() {
            return refused.with_hint("keep what is larger elsewhere, and where it is here");
        }
        refused
    };
    read_body(app, headers, body, KEY_VALUE_BYTES_MAX).await.map_err(too_large)
}

/// A key in JSON.
pub(super) fn tell(key: &str, pair: &Pair, valued: bool) -> Key {
    Key {
        key: key.to_owned(),
        revision: pair.modified.0,
        created: pair.created.0,
        version: pair.version,
        size: pair.value.len() as u64,
        session: pair.session.map(|session| session.0),
        value: valued.then(|| Base64(pair.value.to_vec())),
    }
}
