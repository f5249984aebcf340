//! The JSON of REST and of job files: the types, how they are read, and what must hold of them.
//!
//! Nothing here does I/O. The server answers with these types, the client reads them, the command line prints them; so a field's name
//! is the same everywhere. Input types refuse unknown fields, output types may grow.
//!
//! | Method and path | Body → answer |
//! |---|---|
//! | `POST /v1/jobs` | [`JobFile`], [`JobBatch`] or NDJSON ([`parse_submit`], [`parse_ndjson`]) → 201 [`SubmitReply`] |
//! | `POST /v1/jobs/validate` | [`JobFile`] → [`Validated`] |
//! | `GET /v1/jobs` | [`JobQuery`] → [`Page`] of [`Job`], newest first |
//! | `GET /v1/jobs/{id}` | [`JobShowQuery`] → [`Job`] |
//! | `GET /v1/jobs/{id}/events` | [`PageQuery`] → [`JobEvents`], the oldest first |
//! | `POST /v1/jobs/{id}/cancel` | [`CancelRequest`] → 202 [`CancelReply`] |
//! | `POST /v1/jobs/{id}/retry` | [`RetryRequest`] → 201 [`SubmitReply`] |
//! | `GET /v1/jobs/{id}/tasks` | [`TaskQuery`] → [`Page`] of [`Task`] |
//! | `GET /v1/tasks/{id}` | → [`Task`] with its attempts; `{id}` is `17.3` |
//! | `GET /v1/tasks/{id}/explain` | → [`Explain`] |
//! | `GET /v1/tasks/{id}/logs` | [`LogQuery`] → `text/plain`; `X-Log-Offset` is the offset of the first byte, `X-Log-Skipped` what the output limit dropped before it; [frames](LOG_FRAMES) if they are asked for |
//! | `GET /v1/nodes`, `GET /v1/nodes/{name}` | [`PageQuery`] → [`Page`] of [`Node`]; [`Node`] |
//! | `POST /v1/nodes/{name}/drain`, `…/undrain` | → [`Node`] |
//! | `DELETE /v1/nodes/{name}` | → 204 |
//! | `GET /v1/queues`, `GET /v1/queues/{name}` | [`PageQuery`] → [`Page`] of [`Queue`]; [`Queue`] |
//! | `PUT /v1/queues/{name}` with `If-None-Match: *` | [`QueueSettings`] → 201 [`Queue`]; creates only |
//! | `PATCH /v1/queues/{name}` | [`QueueSettings`] → [`Queue`] |
//! | `POST /v1/queues/{name}/pause`, `…/resume` | → [`Queue`] |
//! | `POST /v1/queues/{name}/purge` | → [`CancelReply`] |
//! | `DELETE /v1/queues/{name}` | → 204 |
//! | `GET /v1/cluster/stats` | → [`ClusterStats`] |
//! | `GET /v1/events` | [`EventQuery`] → server-sent events: `id:` is `index:seq`, `event:` the type, `data:` an [`Event`] |
//! | `GET /v1/kv` | [`KeyQuery`] → [`Page`] of [`Key`], in the order of their bytes |
//! | `POST /v1/kv` | [`ChangeRequest`] → [`KeysChanged`] |
//! | `DELETE /v1/kv` | [`PrefixQuery`] → [`KeysChanged`] |
//! | `GET /v1/kv/{key}` | → the value's bytes, the rest in headers; [`Key`] if JSON is accepted |
//! | `PUT /v1/kv/{key}` | [`PutQuery`], the value's bytes → [`KeysChanged`] |
//! | `DELETE /v1/kv/{key}` | [`DeleteQuery`] → [`KeysChanged`] |
//! | `GET /v1/watch` | [`WatchQuery`] → server-sent events: `data:` is a [`Change`] |
//! | `GET /v1/sessions`, `GET /v1/sessions/{id}` | [`PageQuery`] → [`Page`] of [`Session`]; [`Session`] |
//! | `POST /v1/sessions` | [`SessionRequest`] → 201 [`Session`] |
//! | `POST /v1/sessions/{id}/renew` | → [`Session`] |
//! | `DELETE /v1/sessions/{id}` | → 204 |
//! | `GET /v1/locks`, `GET /v1/locks/{lock}` | [`LockQuery`] → [`Page`] of [`Lock`]; [`Lock`] |
//! | `PUT /v1/locks/{lock}` | [`AcquireRequest`] → 200 or 202 [`Acquired`] |
//! | `DELETE /v1/locks/{lock}` | [`ReleaseQuery`] → 204 |
//! | `GET /v1/tokens` | → [`TokenList`] |
//! | `POST /v1/tokens` | [`TokenRequest`] → 201 [`NewToken`] |
//! | `DELETE /v1/tokens/{id}` | → 204 |
//! | `POST /v1/join` with a token for joining | [`JoinRequest`] → [`Joined`] |
//! | `POST /v1/renew` with a worker's certificate | [`RenewRequest`] → [`Joined`] |
//! | `GET /v1/whoami` | → [`Whoami`] |
//! | `GET /v1/audit` | [`PageQuery`] → [`Page`] of [`AuditRecord`], the newest first |
//! | `GET /v1/audit/refused` | → [`Page`] of [`RefusedRecord`], all of them |
//! | `GET /v1/version`, `/healthz`, `/readyz` | → [`Version`], [`Health`] |
//! | `GET /problems/{code}` | → the explanation of an [`ErrorCode`] |

mod cluster;
mod decode;
mod error_code;
pub mod exit;
mod job_file;
mod keys;
mod log_frames;
mod output;
mod parse;
mod problem;
mod query;
mod scalar;
mod scalar_json;
mod server;
mod spec;
mod state;
pub mod suggest;
mod token;
mod tree;
mod validate;

pub use cluster::{
    ClusterStats, DemandSupply, Discipline, Event, Explain, ExplainQueue, FailureOdds, Health,
    JobEvents, Load, Node, NodeCounts, NodeReason, NodeState, Percentiles, Placement, Queue,
    QueueSettings, QueueWaits, ReasonKind, Version,
};
pub use error_code::{ErrorCode, UnknownCode};
pub use job_file::{
    CommandLine, DEFAULT_QUEUE, HttpRequest, JobBatch, JobFile, JobHeader, Mistake, Retry,
    SubmitRequest, TaskGroup,
};
pub use keys::{
    AcquireRequest, Acquired, Change, ChangeKind, ChangeRequest, DeleteQuery, Key, KeyChange,
    KeyCondition, KeyQuery, KeysChanged, Lock, LockClaim, LockQuery, PrefixQuery, PutQuery,
    ReleaseQuery, Session, SessionRequest, WatchQuery,
};
pub use log_frames::{FrameReader, LOG_FRAMES, NotFrames, dropped_mark, frame_head};
pub use output::{
    Amounts, Attempt, AttemptDetail, CancelReply, CancelRequest, Cancelled, Counts, Failure,
    FailureKind, Group, Job, Page, RetryRequest, SubmitReply, Submitted, Task, Validated,
};
pub use parse::{parse_job_file, parse_job_files, parse_ndjson, parse_submit};
pub use problem::{PROBLEM_JSON, Problem};
pub use query::{
    EventQuery, JobQuery, JobShowQuery, LogQuery, PAGE_DEFAULT, PAGE_MAX, PageQuery, Stream,
    TaskQuery,
};
pub use scalar::{
    Amount, ArrayRange, BackoffRange, Base64, Duration, Moment, Requirement, RetryOn, ScalarError,
    Size, parse_ranges,
};
pub use server::{
    AddServer, ClusterStatus, ServerAdded, ServerRole, ServerStatus, TransferRequest,
};
pub use spec::{BACKOFF_DEFAULT, GRACE_DEFAULT, JITTER_DEFAULT, into_spec, tasks_of};
pub use state::{AttemptState, JobState, TaskState};
pub use token::{
    AuditRecord, JoinRequest, Joined, NewToken, RefusedRecord, RenewRequest, Secret, Token,
    TokenList, TokenRequest, TokenRole, Whoami,
};
pub use tree::Format;
pub use validate::validate;

#[cfg(test)]
mod tests;
