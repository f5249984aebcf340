//! Who changed what.

use axum::Json;
use axum::extract::State;
use rota_api::{AuditRecord, Moment, Page, PageQuery, Problem, RefusedRecord};
use rota_store::history::Audited;
use rota_types::LogIndex;

use super::App;
use super::extract::Query;
use super::lists::{self, ListId};
use super::problem::Answer;
use crate::refusals::Turned;

/// Notes of one entry: at least as many as commands that an entry can hold.
const PARTS: u64 = 1 << 14;

const _: () = assert!(PARTS > rota_types::limits::BATCH_MAX as u64);

/// Lists requests that changed something, or tried to; the newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "tokens", operation_id = "listAudit", params(PageQuery), responses(
    (status = 200, description = "A page of requests.", body = Page<AuditRecord>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_audit(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<AuditRecord>>> {
    let limit = lists::limit(query.limit)?;
    let list = ListId::new("audit", &[]);
    let before = list.begin(query.cursor.as_deref())?;
    let before = before.map(|key| (LogIndex(key / PARTS), (key % PARTS) as u32));
    let index = app.core.applied().0;
    let found = app.history.audit(before, limit).await?;
    let full = found.len() == limit;
    let last = found.last().map(|last| last.index.0 * PARTS + u64::from(last.part));
    let next_cursor = last.filter(|_| full).map(|last| list.cursor(last));
    Ok(Json(Page { items: found.into_iter().map(tell).collect(), next_cursor, index }))
}

/// Lists those that this server turned away since it was started, the last one first: it has forgotten them after a restart, and
/// remembers only so many. Other servers have lists of their own.
#[utoipa::path(get, path = "/v1/audit/refused", tag = "tokens", operation_id = "listRefused", responses(
    (status = 200, description = "All of them, in one page.", body = Page<RefusedRecord>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_refused(State(app): State<App>) -> Json<Page<RefusedRecord>> {
    let server = app.identity.server.0;
    let record = |turned: Turned| RefusedRecord {
        server,
        first_at: Moment(turned.first_at),
        last_at: Moment(turned.last_at),
        count: turned.count,
        who: turned.kind.who,
        source: turned.kind.source,
        action: turned.kind.action,
        code: turned.kind.code.to_owned(),
    };
    let items = app.refusals.list().into_iter().map(record).collect();
    Json(Page { items, next_cursor: None, index: app.core.applied().0 })
}

fn tell(audited: Audited) -> AuditRecord {
    let Audited { index, part: _, at, noted } = audited;
    AuditRecord {
        index: index.0,
        at: Moment(at),
        who: noted.note.who.into(),
        source: noted.note.source.into(),
        action: noted.note.action.into(),
        commands: noted.note.commands,
        refused: noted.refused,
    }
}
