//! Every error that rota reports, once: its stable code, HTTP status, exit code and explanation.

use std::fmt;
use std::str::FromStr;

use crate::exit;

#[macro_use]
mod define;
#[macro_use]
mod keys;

/// The text is not an error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no error code \"{0}\"")]
pub struct UnknownCode(pub String);

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ErrorCode {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().copied().find(|code| code.name() == text);
        found.ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

with_codes_of_keys! {
    InvalidJson {
        code: "invalid-json", status: Some(400), exit: exit::REJECTED,
        title: "The body is not the JSON that was expected.",
        hint: "check the body with `jq .`, and its fields against /v1/openapi.json",
        why: "The server could not read the request's body: it is not JSON, or a field has another type than the schema says.\n\n\
              `detail` names the line and column where reading stopped. The schema of every body is in `/v1/openapi.json`."
    }
    InvalidParameter {
        code: "invalid-parameter", status: Some(400), exit: exit::USAGE,
        title: "A parameter of the path, query or headers is not valid.",
        hint: "see the parameters of this path in /v1/openapi.json",
        why: "A part of the address, such as an id, a filter or a limit, does not have the form that the server expects, or the server does \
              not know it.\n\nParameters that are not known are refused rather than ignored, because a misspelt filter would otherwise \
              give an answer to another question."
    }
    InvalidCursor {
        code: "invalid-cursor", status: Some(400), exit: exit::USAGE,
        title: "The cursor does not belong to this list.",
        hint: "begin again without a cursor",
        why: "A cursor is the `next_cursor` of an earlier page of the same list with the same filters. This one was made up, cut short, or \
              comes from another list.\n\nAsk for the first page again, without `cursor`."
    }
    ForbiddenHost {
        code: "forbidden-host", status: Some(421), exit: exit::NOT_ALLOWED,
        title: "The request names a host that this server does not serve.",
        hint: "use the address that the server printed when it started",
        why: "The `Host` header of a request has to be the loopback address that the server listens on. This stops web pages from reaching \
              a local server through a name that they control.\n\nUse `127.0.0.1`, `[::1]` or `localhost` with the server's port."
    }
    ForbiddenOrigin {
        code: "forbidden-origin", status: Some(403), exit: exit::NOT_ALLOWED,
        title: "A page of another site sent this request.",
        hint: "send the request from a program, or from the server's own pages",
        why: "Browsers say in the `Origin` header which site a page belongs to. The server takes requests of its own pages only, so that a \
              page that somebody visits can't run tasks on their machine."
    }
    Unauthenticated {
        code: "unauthenticated", status: Some(401), exit: exit::NOT_ALLOWED,
        title: "The request does not prove who sends it.",
        hint: "`rota login` keeps a token for a cluster; ROTA_TOKEN gives one to a program",
        why: "This server belongs to a cluster that asks everybody who they are. Requests carry `Authorization: Bearer rota_…`; workers and \
              servers show a certificate.\n\nNo token came along, or one that is mistyped, unknown, revoked or expired. An administrator \
              makes a new one with `rota token create`."
    }
    Forbidden {
        code: "forbidden", status: Some(403), exit: exit::NOT_ALLOWED,
        title: "The token's role does not allow this.",
        hint: "ask an administrator for a token with the role that `detail` names",
        why: "A reader sees everything, a submitter also submits and cancels jobs, an operator also changes nodes and queues, an administrator \
              also makes tokens. Workers and servers may do only what their certificate is for."
    }
    TooManyFailures {
        code: "too-many-failures", status: Some(429), exit: exit::NOT_ALLOWED,
        title: "Too many requests from this address had no valid token.",
        hint: "wait for a minute, and correct the token that is sent",
        why: "An address that sends wrong tokens again and again is not listened to for a while. Requests with a valid token are answered \
              nevertheless."
    }
    NotSecured {
        code: "not-secured", status: Some(409), exit: exit::CONFLICT,
        title: "This server asks nobody who they are.",
        hint: "stop the server, run `rota cluster init` on its data directory, and start it again",
        why: "Tokens and certificates belong to a cluster with a certificate authority. A server without one listens on loopback only, and \
              whoever reaches it may do everything."
    }
    UnknownRoute {
        code: "unknown-route", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is nothing at this path.",
        hint: "see /v1/openapi.json for every path",
        why: "No resource of the interface has this path. Paths begin with `/v1`, apart from `/healthz`, `/readyz` and `/problems/{code}`."
    }
    JobNotFound {
        code: "job-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such job.",
        hint: "`rota job ls` lists the jobs that exist",
        why: "No job has this id: it was never given out, or the job finished so long ago that the history has dropped it."
    }
    TaskNotFound {
        code: "task-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such task.",
        hint: "`rota task ls JOB` lists the tasks of a job",
        why: "The job has fewer tasks than the index says. Tasks are counted from 0 through all groups of a job: the first task of job 17 \
              is `17.0`."
    }
    AttemptNotFound {
        code: "attempt-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such attempt.",
        hint: "`rota task show TASK` lists the attempts of a task",
        why: "The task was not tried that often, or not at all yet. Attempts are counted from 1: the second try of task 17.3 is `17.3#2`."
    }
    ServerNotFound {
        code: "server-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such server in the cluster.",
        hint: "`rota cluster status` lists the servers",
        why: "No server has this number, or the one that had it was removed. Numbers are given out once: a server that comes back with an \
              empty disk joins as a new one."
    }
    TokenNotFound {
        code: "token-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such token.",
        hint: "`rota token ls` lists the tokens",
        why: "No token has this id: it was revoked, or its last use was taken. The id is the part of a token between `rota_` and the next `_`."
    }
    TokenExists {
        code: "token-exists", status: Some(409), exit: exit::CONFLICT,
        title: "Another token has this id.",
        hint: "draw a new token",
        why: "Ids are drawn at random, so that this means that the same id was sent twice with different secrets."
    }
    NodeNotFound {
        code: "node-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such node.",
        hint: "`rota node ls` lists the nodes",
        why: "No node of this name has ever joined the cluster, or it was removed. A node joins when its worker connects: \
              `rota worker --server URL`."
    }
    QueueNotFound {
        code: "queue-not-found", status: Some(404), exit: exit::NOT_FOUND,
        title: "There is no such queue.",
        hint: "`rota queue ls` lists the queues; `rota queue create NAME` adds one",
        why: "The path names a queue that does not exist. Queues are created once, by people, and only `default` is there from the beginning."
    }
    MethodNotAllowed {
        code: "method-not-allowed", status: Some(405), exit: exit::USAGE,
        title: "This path does not take that method.",
        hint: "the Allow header lists the methods that it takes",
        why: "The path exists, but not with this HTTP method. The answer's `Allow` header lists the methods that it takes."
    }
    NotAcceptable {
        code: "not-acceptable", status: Some(406), exit: exit::USAGE,
        title: "The answer does not exist in the form asked for.",
        hint: "accept application/json, or leave the Accept header out",
        why: "The `Accept` header rules out every form in which the server could answer. Lists and resources are JSON, logs are plain text, \
              events are an event stream."
    }
    QueueExists {
        code: "queue-exists", status: Some(409), exit: exit::CONFLICT,
        title: "The queue exists already.",
        hint: "change it with `rota queue set-policy NAME`",
        why: "A queue of this name exists. Creating never changes an existing queue; its settings are changed with `rota queue set-policy`."
    }
    QueueNotEmpty {
        code: "queue-not-empty", status: Some(409), exit: exit::CONFLICT,
        title: "The queue still holds tasks.",
        hint: "`rota queue purge NAME` cancels what waits in it; then wait for what runs",
        why: "Only a queue without live tasks can be removed, because its tasks would have no order any more."
    }
    QueueProtected {
        code: "queue-protected", status: Some(409), exit: exit::CONFLICT,
        title: "This queue can't be removed.",
        hint: "pause it instead: `rota queue pause default`",
        why: "The queue `default` takes every job that names no queue, so it always exists."
    }
    NodeBusy {
        code: "node-busy", status: Some(409), exit: exit::CONFLICT,
        title: "The node can't be removed now.",
        hint: "drain it, stop its worker, and try again when it is lost or empty",
        why: "A node is removed from the record only when it runs nothing and its worker is gone; otherwise it would come back at once, or \
              its tasks would be forgotten.\n\n`rota node drain NODE` lets it finish what it runs."
    }
    NothingToCancel {
        code: "nothing-to-cancel", status: Some(409), exit: exit::CONFLICT,
        title: "Nothing of the job can be cancelled any more.",
        hint: "`rota job show JOB` shows how its tasks ended",
        why: "Every task that was named is over, or has been told to stop already."
    }
    JobNotFinished {
        code: "job-not-finished", status: Some(409), exit: exit::CONFLICT,
        title: "The job is not over yet.",
        hint: "wait for it with `rota job wait JOB`, or cancel it first",
        why: "Tasks of a job can be tried again, as a new job, once all of them are over. Until then a task that failed might still be \
              retried by its own policy."
    }
    NothingToRetry {
        code: "nothing-to-retry", status: Some(409), exit: exit::CONFLICT,
        title: "Every task of the job succeeded.",
        hint: "use --all to run the successful tasks again as well",
        why: "A retry takes the tasks that failed or were cancelled, and this job has none."
    }
    IdempotencyConflict {
        code: "idempotency-conflict", status: Some(409), exit: exit::CONFLICT,
        title: "The idempotency key was used for another request.",
        hint: "use a new key for a new request",
        why: "A request with the same `Idempotency-Key` and another body was taken in during the last 24 hours. Repeating a request under its \
              key is safe and gives the first answer again; another request needs a key of its own."
    }
    RequestIncomplete {
        code: "request-incomplete", status: Some(408), exit: exit::UNREACHABLE,
        title: "The body did not come to its end.",
        hint: "send the request again",
        why: "The server waits 30 seconds for the next part of a body, so that a client that went away can't keep its place. Nothing was done, \
              except in a streamed submit: there, the lines that had come may be recorded, and repeating it under its key is safe."
    }
    OutputExpired {
        code: "output-expired", status: Some(410), exit: exit::NOT_FOUND,
        title: "The output is not kept any more.",
        hint: "`rota task show TASK` still has the last lines",
        why: "Workers keep the whole output of an attempt for a while, within a limit; afterwards only its last lines remain with the \
              attempt's record. The same holds when the node is gone."
    }
    EventsCompacted {
        code: "events-compacted", status: Some(410), exit: exit::NOT_FOUND,
        title: "The events after that position are not kept any more.",
        hint: "read the current state, then follow events from now on",
        why: "A server keeps a limited number of events for watchers that come back. The position asked for lies before the oldest of them, \
              so some events would be missing: read the lists again and follow from the index that they name."
    }
    BodyTooLarge {
        code: "body-too-large", status: Some(413), exit: exit::REJECTED,
        title: "The body is larger than the server takes.",
        hint: "split the request, or use one job with an array",
        why: "Requests have a limit so that one client can't use up the server's memory. An array job describes a million tasks in a few bytes; \
              large input belongs into files that the tasks read."
    }
    UnsupportedMediaType {
        code: "unsupported-media-type", status: Some(415), exit: exit::USAGE,
        title: "The body's media type is not supported.",
        hint: "send Content-Type: application/json",
        why: "Bodies are `application/json`; submits may also be `application/x-ndjson`, one job per line."
    }
    InvalidJob {
        code: "invalid-job", status: Some(422), exit: exit::REJECTED,
        title: "The job is not valid.",
        hint: "`rota job lint FILE` checks a job file without submitting it",
        why: "The job was read, but something about it makes no sense or exceeds a limit. `errors` lists every problem with a JSON pointer to the \
              field, and what to write instead."
    }
    InvalidQueue {
        code: "invalid-queue", status: Some(422), exit: exit::REJECTED,
        title: "The queue's settings are not valid.",
        hint: "`rota queue set-policy --help` lists what can be set",
        why: "A setting makes no sense or exceeds a limit: `errors` names the field."
    }
    InvalidRequest {
        code: "invalid-request", status: Some(422), exit: exit::REJECTED,
        title: "The request was read, but can't be done as it is.",
        hint: "`errors` names the fields",
        why: "A field of the request has a value that makes no sense here. `errors` names each with a JSON pointer."
    }
    UnknownQueue {
        code: "unknown-queue", status: Some(422), exit: exit::REJECTED,
        title: "The job names a queue that does not exist.",
        hint: "create it first: `rota queue create NAME`",
        why: "Submitting never creates a queue, so that a misspelt name can't hide tasks in a queue that nobody looks at. \
              `rota queue ls` lists the queues; jobs that name none go to `default`."
    }
    LimitExceeded {
        code: "limit-exceeded", status: Some(422), exit: exit::REJECTED,
        title: "A limit would be exceeded.",
        hint: "see `detail` for the limit; docs/reference/limits.md lists all of them",
        why: "Everything in the system has a limit, so that no user can take it down by accident. `detail` names the limit and what was asked for."
    }
    HeadersTooLarge {
        code: "headers-too-large", status: Some(431), exit: exit::REJECTED,
        title: "The request has more or longer headers than the server takes.",
        hint: "send fewer or shorter headers; a shorter path or query helps as well",
        why: "A request may have 64 headers, and 16 KiB of them together with its path and query. No client of the interface comes near; \
              large values belong into the body."
    }
    QueueFull {
        code: "queue-full", status: Some(429), exit: exit::REJECTED,
        title: "The queue takes no more tasks now.",
        hint: "try again later, or raise the limit: `rota queue set-policy NAME --tasks-max N`",
        why: "The queue has a limit on the tasks that wait or run in it, and this submit would exceed it. Nothing of it was taken in."
    }
    Overloaded {
        code: "overloaded", status: Some(503), exit: exit::UNREACHABLE,
        title: "The server has too much to do.",
        hint: "try again after the time in the Retry-After header",
        why: "More requests wait to be recorded than the server is willing to hold. The request was not taken in and can be sent again. \
              The client does so by itself, with growing pauses."
    }
    NoLeader {
        code: "no-leader", status: Some(503), exit: exit::UNREACHABLE,
        title: "No server leads at the moment.",
        hint: "try again in a moment; `rota doctor` looks for the cause",
        why: "Changes need a leader, and there is none: a new one is being chosen, or too few servers are up. Nothing was changed."
    }
    IndexNotReached {
        code: "index-not-reached", status: Some(503), exit: exit::UNREACHABLE,
        title: "This server is not as far as the request wants to see.",
        hint: "try again, or ask the leader: leave out `consistency=stale`",
        why: "`min_index` asks for an answer that has seen that entry of the log. This server waited for it and did not get it in time: it is cut off \
              from the others, or far behind.\n\n`rota cluster status` shows how far each server is."
    }
    ClusterBusy {
        code: "cluster-busy", status: Some(409), exit: exit::REJECTED,
        title: "Another change of the cluster is under way.",
        hint: "wait until `rota cluster status` shows it done, then try again",
        why: "Servers are added, removed and promoted one change at a time, so that there is always one majority. Nothing was changed."
    }
    InvalidChange {
        code: "invalid-change", status: Some(422), exit: exit::REJECTED,
        title: "The cluster can't be changed like that.",
        hint: "see `rota cluster status`",
        why: "The change makes no sense as the cluster is: the server is not a member, or has that role already, or is the last one that decides. \
              Nothing was changed."
    }
    ShuttingDown {
        code: "shutting-down", status: Some(503), exit: exit::UNREACHABLE,
        title: "The server is shutting down.",
        hint: "start it again, or use another server",
        why: "The server finishes what it has begun and takes nothing new. What was acknowledged is kept."
    }
    OutputUnavailable {
        code: "output-unavailable", status: Some(503), exit: exit::UNREACHABLE,
        title: "The output can't be read now.",
        hint: "try again when the node is connected; `rota node ls` shows it",
        why: "The whole output of an attempt is on the node that ran it, and that node's worker has no session at the moment."
    }
    OutcomeUnknown {
        code: "outcome-unknown", status: Some(504), exit: exit::WAITED_TOO_LONG,
        title: "It is not known whether the request was done.",
        hint: "repeat it: with an idempotency key that is safe",
        why: "The server handed the request on, but did not learn in time whether it was recorded. It may have been.\n\nRepeat the request: a \
              submit under the same `Idempotency-Key` is done once at most."
    }
    Internal {
        code: "internal", status: Some(500), exit: exit::TROUBLE,
        title: "The server made a mistake.",
        hint: "report it with the request id; the server's log has the details",
        why: "This is a bug in rota. The request's id finds the details in the server's log."
    }
    DiskFull {
        code: "disk-full", status: Some(507), exit: exit::UNREACHABLE,
        title: "The server's disk is nearly full.",
        hint: "free space on the server's disk, or give it another with `rota server --data DIR`",
        why: "The disk of the data directory has less free space than the reserve that finishing work may need, so new work is refused. \
              Running tasks go on, and reports, cancels and settings are taken. Nothing of the request was done; submits are taken again as \
              soon as there is space."
    }
    ServerUnreachable {
        code: "server-unreachable", status: None, exit: exit::UNREACHABLE,
        title: "No server answers.",
        hint: "start one with `rota dev`, or name another: --server URL, ROTA_SERVER",
        why: "Nothing answered at the server's address: it is not running, the address is wrong, or something on the way blocks the \
              connection.\n\n`rota config show --origin` says which address is used and where it comes from. `rota dev` starts a server with a \
              worker on this machine."
    }
    InvalidAnswer {
        code: "invalid-answer", status: None, exit: exit::UNREACHABLE,
        title: "The answer is not one of a rota server.",
        hint: "check the address; `rota config show --origin` says where it comes from",
        why: "Something answered, but not with what a rota server of this version says: another program listens at that address, a proxy \
              got in between, or client and server are of very different versions."
    }
    RequestTimeout {
        code: "request-timeout", status: None, exit: exit::WAITED_TOO_LONG,
        title: "The server did not answer in time.",
        hint: "try again, or allow more time with --request-timeout 2m",
        why: "The connection stands, but no answer came within `--request-timeout`. The request may have been done; submits are repeated under their \
              idempotency key, so trying again is safe."
    }
    WaitTimeout {
        code: "wait-timeout", status: None, exit: exit::WAITED_TOO_LONG,
        title: "The job was not over in time.",
        hint: "it goes on; wait again with `rota job wait JOB`",
        why: "The time given with `--for` is up. Waiting has no influence on the job."
    }
    Usage {
        code: "usage", status: None, exit: exit::USAGE,
        title: "The command line is not understood.",
        hint: "add --help to see what the command takes",
        why: "A flag, an argument or a combination of them makes no sense. Every command has examples below its `--help`."
    }
    BadSelector {
        code: "bad-selector", status: None, exit: exit::USAGE,
        title: "This does not select anything.",
        hint: "write 17, 17-30, 5,7, last, @failed or -l key=value",
        why: "Commands on jobs take ids (`17`), lists (`5,7`), ranges (`17-30`), `last` for the newest job, `@failed` for all jobs in a state, and \
              `-l team=render` for jobs with a label. Tasks are written `17.3`, attempts `17.3#2`."
    }
    ConfirmationNeeded {
        code: "confirmation-needed", status: None, exit: exit::USAGE,
        title: "This can't be undone and was not confirmed.",
        hint: "add --yes",
        why: "Commands that destroy something ask first when they run at a terminal. Without one there is nobody to ask, so they need `--yes`."
    }
    InvalidConfig {
        code: "invalid-config", status: None, exit: exit::USAGE,
        title: "The configuration file is not valid.",
        hint: "`rota config show --origin` shows which file is read",
        why: "The configuration file holds something that rota does not know. Unknown keys are errors, because a misspelt setting would \
              otherwise be ignored silently."
    }
    FileUnreadable {
        code: "file-unreadable", status: None, exit: exit::USAGE,
        title: "A file can't be read or written.",
        hint: "check the path and its permissions",
        why: "The operating system refused to open, read or write a file that the command names."
    }
    StartFailed {
        code: "start-failed", status: None, exit: exit::TROUBLE,
        title: "The server or worker could not be started.",
        hint: "check the address and the data directory; another process may use them",
        why: "The address may be in use, the data directory may be locked by another server or not writable, or what is stored may be damaged. \
              `detail` says which."
    }
    PutOut {
        code: "put-out", status: None, exit: exit::PUT_OUT,
        title: "The server must not take part in its cluster.",
        hint: "`rota cluster replace SERVER` lets another one take its place",
        why: "A server ends for good when it was removed, when it has forgotten what it promised (its directory was emptied), or when its state \
              differs from that of the majority. The others go on. What its directory holds is left as it is."
    }
    JobFailed {
        code: "job-failed", status: None, exit: exit::FAILED,
        title: "The job failed.",
        hint: "`rota job show last` names the task; `rota logs TASK` has its output",
        why: "At least one task failed for good: its last attempt failed, and its retry policy allows no further one."
    }
    Interrupted {
        code: "interrupted", status: None, exit: exit::INTERRUPTED,
        title: "The command was interrupted.",
        hint: "jobs on a server go on; `rota job cancel JOB` stops one",
        why: "Ctrl-C ends the command, not the job: what was submitted to a server goes on."
    }
    Partial {
        code: "partial", status: None, exit: exit::PARTIAL,
        title: "Some of it was done, some was not.",
        hint: "the lines above say what was not",
        why: "The command worked on several things, and some of them were refused. Each refusal was reported."
    }
}
