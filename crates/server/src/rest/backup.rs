//! Backups of a running server.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use rota_api::{ErrorCode, Problem};
use rota_core::command::Command;

use super::App;
use super::problem::{Answer, refuse};
use crate::handle::Urgency;

/// Everything that the leader holds: state, history and settings, as of some entry after the request. Keys and certificates are not part of
/// it; hashes of tokens are. The answer ends before its last part if anything goes wrong: check the file before you rely on it.
#[utoipa::path(post, path = "/v1/cluster/backup", tag = "cluster", operation_id = "backUp", responses(
    (status = 200, description = "The backup, for `rota cluster restore`.", body = String, content_type = "application/octet-stream"),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn back_up(State(app): State<App>) -> Answer<Response> {
    // Who takes everything away is noted like a change.
    drop(app.core.command(Urgency::Finishing, Command::Tick).await?);
    let pieces = app.images.back_up().await;
    let pieces = pieces.map_err(|reason| refuse(ErrorCode::Internal, reason))?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(pieces)).into_response())
}
