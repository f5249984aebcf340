//! Any value of each kind, for the tests of encodings.

use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use rota_core::command::{
    AttemptEnd, AttemptReport, Backoff, CancelTasks, Command, Failure, FailureKind, GroupSpec,
    IdempotencyKey, JobSpec, NodeSpec, Placement, Plan, QueueSpec, RetryPolicy, RetryRule, Shape,
    Staging, SubmitJobs,
};
use rota_core::event::{AttemptRecord, AttemptState, Next};
use rota_core::image::{JobRecord, KeyUse, Meta, NodeRecord, QueueRecord, Record};
use rota_core::job::{Counts, FinishedJob, TaskState};
use rota_core::kv::{
    AcquireLock, ChangeKeys, Claim, Condition, KeyChange, KvCommand, Lock, Pair, SessionRecord,
};
use rota_core::queue::{Discipline, Placement as PlacementKind};
use rota_core::server::{Server, ServerCommand, ServerSpec};
use rota_core::task::{Attempt, Phase, Task};
use rota_core::token::{Grant, Joins, Note, Noted, Role, Token, TokenCommand, TokenSpec};
use rota_types::{
    ActionKind, ActionKinds, AttemptId, Constraint, JobId, Labels, LogIndex, NodeId, Predicate,
    QueueId, RangeSet, Resources, Revision, ServerId, SessionId, Span, Steady, TaskId, Timestamp,
};
use rota_wire::history::TasksCancelled;
use rota_wire::worker::{Detail, encode_detail};

pub(crate) fn text() -> impl Strategy<Value = Box<str>> {
    "\\PC{0,12}".prop_map(Into::into)
}

pub(crate) fn bytes() -> impl Strategy<Value = Arc<[u8]>> {
    vec(any::<u8>(), 0..40).prop_map(Arc::from)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..300_u64, Just(0), Just(u64::MAX)]
}

pub(crate) fn ranges() -> impl Strategy<Value = RangeSet> {
    let edge = prop_oneof![any::<u32>(), 0..100_u32, Just(u32::MAX)];
    vec((edge, 0..50_u32), 0..8).prop_map(|pairs| {
        let mut set = RangeSet::default();
        for (start, length) in pairs {
            set.insert_range(start, start.saturating_add(length));
        }
        set
    })
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    btree_map(text(), text(), 0..4)
}

pub(crate) fn resources() -> impl Strategy<Value = Resources> {
    let named = btree_map(text(), 1..u64::MAX, 0..3);
    (number(), number(), named).prop_map(|(cpu_millis, memory_bytes, named)| Resources {
        cpu_millis,
        memory_bytes,
        named,
    })
}

fn constraint() -> impl Strategy<Value = Constraint> {
    let predicate = prop_oneof![
        vec(text(), 0..3).prop_map(Predicate::In),
        vec(text(), 0..3).prop_map(Predicate::NotIn),
        Just(Predicate::Exists),
        Just(Predicate::Absent),
    ];
    (text(), predicate).prop_map(|(key, predicate)| Constraint { key, predicate })
}

fn span() -> impl Strategy<Value = Span> {
    number().prop_map(Span)
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let rule = prop_oneof![
        (any::<i32>(), any::<i32>()).prop_map(|(from, to)| RetryRule::Exit(from, to)),
        Just(RetryRule::Signal),
        Just(RetryRule::Timeout),
        Just(RetryRule::Start),
        Just(RetryRule::Http),
    ];
    (any::<u32>(), span(), span(), any::<u8>(), vec(rule, 0..4)).prop_map(
        |(attempts_max, base, max, jitter_percent, on)| RetryPolicy {
            attempts_max,
            backoff: Backoff { base, max, jitter_percent },
            on,
        },
    )
}

fn kind() -> impl Strategy<Value = ActionKind> {
    proptest::sample::select(ActionKind::ALL.to_vec())
}

fn kinds() -> impl Strategy<Value = ActionKinds> {
    prop_oneof![
        Just(ActionKinds::EVERY),
        vec(kind(), 0..4).prop_map(|kinds| kinds.into_iter().collect()),
    ]
}

fn group() -> impl Strategy<Value = GroupSpec> {
    let shape = (resources(), vec(constraint(), 0..3), option::of(kind()));
    let shape = shape.prop_map(|(need, constraints, kind)| Shape { need, constraints, kind });
    let first = (text(), ranges(), any::<bool>(), bytes(), shape);
    let second = (option::of(span()), option::of(span()), retry(), option::of(any::<u32>()));
    (first, second).prop_map(
        |((name, array, is_array, action, shape), (estimate, timeout, retry, parallel_max))| {
            GroupSpec {
                name,
                array,
                is_array,
                action,
                shape,
                estimate,
                timeout,
                retry,
                parallel_max,
            }
        },
    )
}

pub(crate) fn job_spec() -> impl Strategy<Value = JobSpec> {
    let retry_of = option::of(number().prop_map(JobId));
    let all = (text(), text(), any::<i32>(), labels(), text(), retry_of, vec(group(), 0..3));
    all.prop_map(|(name, queue, priority, labels, submitter, retry_of, groups)| JobSpec {
        name,
        queue,
        priority,
        labels,
        submitter,
        retry_of,
        groups,
    })
}

pub(crate) fn attempt_id() -> impl Strategy<Value = AttemptId> {
    (number(), any::<u32>(), any::<u32>()).prop_map(|(job, index, number)| AttemptId {
        task: TaskId { job: JobId(job), index },
        number,
    })
}

fn failure() -> impl Strategy<Value = Failure> {
    let kind = prop_oneof![
        any::<i32>().prop_map(FailureKind::Exit),
        any::<i32>().prop_map(FailureKind::Signal),
        Just(FailureKind::Timeout),
        Just(FailureKind::Start),
        option::of(any::<u16>()).prop_map(FailureKind::Http),
        Just(FailureKind::Lost),
    ];
    (kind, text()).prop_map(|(kind, message)| Failure { kind, message })
}

/// Reports, with an encoded [`Detail`] as their detail.
pub(crate) fn report() -> impl Strategy<Value = AttemptReport> {
    let end = prop_oneof![
        Just(AttemptEnd::Succeeded),
        failure().prop_map(AttemptEnd::Failed),
        Just(AttemptEnd::Stopped),
        Just(AttemptEnd::Recalled),
    ];
    let detail = (vec(any::<u8>(), 0..20), number(), vec("\\PC{0,9}", 0..2));
    let detail = detail.prop_map(|(stdout_tail, stdout_bytes, notes)| {
        encode_detail(&Detail { stdout_tail, stdout_bytes, notes, ..Detail::default() })
    });
    let started = option::of(number().prop_map(Timestamp));
    (attempt_id(), any::<u32>(), end, started, number(), detail).prop_map(
        |(attempt, node, end, started_at, ended, detail)| AttemptReport {
            attempt,
            node: NodeId(node),
            end,
            started_at,
            ended_at: Timestamp(ended),
            detail,
        },
    )
}

pub(crate) fn node_spec() -> impl Strategy<Value = NodeSpec> {
    let runs = (kinds(), any::<bool>());
    (text(), any::<u64>(), resources(), any::<u32>(), labels(), text(), runs).prop_map(
        |(name, incarnation, capacity, attempts_max, labels, version, (runs, stages))| NodeSpec {
            name,
            incarnation,
            capacity,
            attempts_max,
            labels,
            version,
            runs,
            stages,
        },
    )
}

fn queue_spec() -> impl Strategy<Value = QueueSpec> {
    let discipline = prop_oneof![
        Just(Discipline::Fifo),
        span().prop_map(|aging| Discipline::Priority { aging }),
    ];
    let placement = prop_oneof![
        Just(PlacementKind::FirstFit),
        Just(PlacementKind::BestFit),
        Just(PlacementKind::LeastLoaded),
        Just(PlacementKind::RoundRobin),
        any::<u64>().prop_map(|seed| PlacementKind::Random { seed }),
    ];
    let limits = (any::<u32>(), option::of(any::<u32>()), option::of(number()));
    (text(), discipline, placement, limits).prop_map(
        |(name, discipline, placement, (weight, running_max, tasks_max))| QueueSpec {
            name,
            discipline,
            placement,
            weight,
            running_max,
            tasks_max,
        },
    )
}

fn placement() -> impl Strategy<Value = Placement> {
    (attempt_id(), any::<u32>(), any::<u32>()).prop_map(|(attempt, count, node)| Placement {
        task: attempt.task,
        count,
        node: NodeId(node),
    })
}

pub(crate) fn server_spec() -> impl Strategy<Value = ServerSpec> {
    (number(), text(), text(), any::<u32>()).prop_map(|(id, address, version, level)| ServerSpec {
        id: ServerId(id),
        address,
        version,
        level,
    })
}

fn token_spec() -> impl Strategy<Value = TokenSpec> {
    let joins = prop_oneof![Just(Joins::Server), Just(Joins::Worker)];
    let grant = prop_oneof![
        proptest::sample::select(&Role::ALL[..]).prop_map(Grant::Api),
        (joins, any::<u32>()).prop_map(|(joins, uses_left)| Grant::Join { joins, uses_left }),
    ];
    let ends = option::of(number().prop_map(Timestamp));
    let of = option::of(text());
    (text(), any::<[u8; 32]>(), grant, (text(), text(), of), ends).prop_map(
        |(id, hash, grant, (name, created_by, session_of), expires_at)| TokenSpec {
            id,
            hash,
            grant,
            name,
            expires_at,
            created_by,
            session_of,
        },
    )
}

fn token_command() -> impl Strategy<Value = TokenCommand> {
    prop_oneof![
        token_spec().prop_map(TokenCommand::Add),
        text().prop_map(TokenCommand::Revoke),
        text().prop_map(TokenCommand::Use),
    ]
}

pub(crate) fn note() -> impl Strategy<Value = Note> {
    (text(), text(), text(), any::<u32>()).prop_map(|(who, source, action, commands)| Note {
        who,
        source,
        action,
        commands,
    })
}

pub(crate) fn noted() -> impl Strategy<Value = Noted> {
    (note(), any::<u32>()).prop_map(|(note, refused)| Noted { note, refused })
}

fn server_command() -> impl Strategy<Value = ServerCommand> {
    prop_oneof![
        server_spec().prop_map(ServerCommand::Announce),
        text().prop_map(|address| ServerCommand::Add { address }),
        number().prop_map(|id| ServerCommand::Remove(ServerId(id))),
        any::<u32>().prop_map(ServerCommand::RaiseLevel),
        Just(ServerCommand::Renew),
    ]
}

fn staging() -> impl Strategy<Value = Staging> {
    (task_id(), task_id()).prop_map(|(task, behind)| Staging { task, behind })
}

fn task_id() -> impl Strategy<Value = TaskId> {
    (number(), any::<u32>()).prop_map(|(job, index)| TaskId { job: JobId(job), index })
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let key = option::of((text(), any::<[u8; 16]>()));
    let key = key.prop_map(|key| key.map(|(key, digest)| IdempotencyKey { key, digest }));
    let submit = (vec(job_spec(), 0..3), key)
        .prop_map(|(jobs, idempotency)| Command::SubmitJobs(SubmitJobs { jobs, idempotency }));
    let cancel =
        (number(), option::of(ranges()), span(), text()).prop_map(|(job, tasks, grace, reason)| {
            Command::CancelTasks(CancelTasks { job: JobId(job), tasks, grace, reason })
        });
    let node = || any::<u32>().prop_map(NodeId);
    prop_oneof![
        submit,
        cancel,
        (vec(placement(), 0..20), vec(staging(), 0..5))
            .prop_map(|(placements, staged)| Command::CommitPlan(Plan { placements, staged })),
        vec(report(), 0..5).prop_map(Command::EndAttempts),
        node_spec().prop_map(Command::RegisterNode),
        node().prop_map(Command::LoseNode),
        (node(), any::<bool>()).prop_map(|(node, draining)| Command::DrainNode { node, draining }),
        node().prop_map(Command::LeaveNode),
        node().prop_map(Command::RemoveNode),
        queue_spec().prop_map(Command::CreateQueue),
        queue_spec().prop_map(Command::ConfigureQueue),
        (text(), any::<bool>()).prop_map(|(queue, paused)| Command::PauseQueue { queue, paused }),
        (text(), option::of(number().prop_map(JobId)))
            .prop_map(|(queue, before)| Command::PurgeQueue { queue, before }),
        text().prop_map(|queue| Command::RemoveQueue { queue }),
        server_command().prop_map(Command::Servers),
        token_command().prop_map(Command::Tokens),
        note().prop_map(Command::Note),
        kv_command().prop_map(Command::Kv),
        Just(Command::Tick),
    ]
}

fn session_id() -> impl Strategy<Value = SessionId> {
    number().prop_map(SessionId)
}

fn revision() -> impl Strategy<Value = Revision> {
    number().prop_map(Revision)
}

fn kv_command() -> impl Strategy<Value = KvCommand> {
    let condition = prop_oneof![
        text().prop_map(|key| Condition::Absent { key }),
        (text(), revision()).prop_map(|(key, since)| Condition::Unchanged { key, since }),
        (text(), revision()).prop_map(|(lock, token)| Condition::Held { lock, token }),
    ];
    let change = prop_oneof![
        (text(), bytes(), option::of(session_id()))
            .prop_map(|(key, value, session)| KeyChange::Put { key, value, session }),
        text().prop_map(|key| KeyChange::Delete { key }),
    ];
    let change = (vec(condition, 0..3), vec(change, 0..3))
        .prop_map(|(conditions, changes)| ChangeKeys { conditions, changes });
    let acquire = (text(), session_id(), bytes(), any::<bool>());
    let acquire =
        acquire.prop_map(|(lock, session, value, wait)| AcquireLock { lock, session, value, wait });
    prop_oneof![
        change.prop_map(KvCommand::Change),
        (text(), any::<u32>())
            .prop_map(|(prefix, at_most)| KvCommand::DeletePrefix { prefix, at_most }),
        span().prop_map(|ttl| KvCommand::OpenSession { ttl }),
        vec(session_id(), 0..5).prop_map(KvCommand::RenewSessions),
        session_id().prop_map(KvCommand::CloseSession),
        acquire.prop_map(KvCommand::AcquireLock),
        (text(), session_id()).prop_map(|(lock, session)| KvCommand::ReleaseLock { lock, session }),
    ]
}

fn kv_record() -> impl Strategy<Value = Record> {
    let session = (session_id(), span(), number(), number());
    let session = session.prop_map(|(id, ttl, deadline, opened)| {
        let (deadline, opened_at) = (Steady(deadline), Timestamp(opened));
        Record::Session(SessionRecord { id, ttl, deadline, opened_at })
    });
    let revisions = (revision(), revision(), number());
    let pair = (text(), bytes(), option::of(session_id()), revisions).prop_map(
        |(key, value, session, (created, modified, version))| {
            Record::Pair(key.into(), Pair { value, session, created, modified, version })
        },
    );
    let claim = || (session_id(), bytes()).prop_map(|(session, value)| Claim { session, value });
    let lock = (text(), revision(), claim(), vec(claim(), 0..3));
    let lock = lock.prop_map(|(name, token, holder, waiters)| {
        Record::Lock(name.into(), Lock { token, holder, waiters: waiters.into() })
    });
    prop_oneof![session, pair, lock]
}

fn task_state() -> impl Strategy<Value = TaskState> {
    prop_oneof![Just(TaskState::Succeeded), Just(TaskState::Failed), Just(TaskState::Cancelled),]
}

pub(crate) fn attempt_record(job: JobId) -> impl Strategy<Value = AttemptRecord> {
    let state = prop_oneof![
        Just(AttemptState::Succeeded),
        Just(AttemptState::Failed),
        Just(AttemptState::Cancelled),
        Just(AttemptState::Lost),
        Just(AttemptState::Recalled),
    ];
    let next = prop_oneof![
        Just(Next::Queued),
        number().prop_map(|until| Next::Waiting(Steady(until))),
        task_state().prop_map(Next::Finished),
    ];
    let times = (number(), option::of(number().prop_map(Timestamp)), number());
    (attempt_id(), any::<u32>(), times, state, option::of(failure()), bytes(), next).prop_map(
        move |(attempt, node, (placed, started_at, ended), state, failure, detail, next)| {
            AttemptRecord {
                attempt: AttemptId {
                    task: TaskId { job, index: attempt.task.index },
                    number: attempt.number,
                },
                node: NodeId(node),
                placed_at: Timestamp(placed),
                started_at,
                ended_at: Timestamp(ended),
                state,
                failure,
                detail,
                next,
            }
        },
    )
}

pub(crate) fn finished_job() -> impl Strategy<Value = FinishedJob> {
    let counts = (number(), number(), number());
    let counts = counts.prop_map(|(succeeded, failed, running)| Counts {
        succeeded,
        failed,
        running,
        ..Counts::default()
    });
    let times = (number(), option::of(number().prop_map(Timestamp)), number());
    (number(), job_spec(), times, counts, ranges(), ranges()).prop_map(
        |(id, spec, (submitted, started_at, finished), counts, failed, cancelled)| FinishedJob {
            id: JobId(id),
            spec,
            submitted_at: Timestamp(submitted),
            started_at,
            finished_at: Timestamp(finished),
            counts,
            failed,
            cancelled,
        },
    )
}

pub(crate) fn tasks_cancelled() -> impl Strategy<Value = TasksCancelled> {
    (number(), ranges(), text(), number()).prop_map(|(job, tasks, reason, at)| TasksCancelled {
        job: JobId(job),
        tasks,
        reason,
        at: Timestamp(at),
    })
}

fn attempt() -> impl Strategy<Value = Attempt> {
    (any::<u32>(), number(), option::of(span())).prop_map(|(node, placed, stop)| Attempt {
        node: NodeId(node),
        placed_at: Timestamp(placed),
        stop,
    })
}

fn task() -> impl Strategy<Value = Task> {
    let staged = (attempt(), task_id(), number()).prop_map(|(attempt, behind, since)| {
        Phase::Staged { attempt, behind, since: Steady(since) }
    });
    let phase = prop_oneof![
        number().prop_map(|since| Phase::Queued { since: Steady(since) }),
        number().prop_map(|until| Phase::Waiting { until: Steady(until) }),
        attempt().prop_map(Phase::Running),
        staged,
    ];
    (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), phase).prop_map(
        |(attempts, failures, lost, recalled, phase)| Task {
            attempts,
            failures,
            lost,
            recalled,
            phase,
        },
    )
}

fn job_record() -> impl Strategy<Value = JobRecord> {
    let times = (number(), number(), option::of(number().prop_map(Timestamp)));
    let sets = (ranges(), ranges(), ranges());
    (number(), any::<u32>(), job_spec(), times, sets).prop_map(
        |(id, queue, spec, (submitted, ready, started_at), (fresh, failed, cancelled))| JobRecord {
            id: JobId(id),
            queue: QueueId(queue),
            spec,
            submitted_at: Timestamp(submitted),
            ready_at: Steady(ready),
            started_at,
            fresh,
            failed,
            cancelled,
        },
    )
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let ids = (number(), any::<u32>(), any::<u32>(), 0..u64::MAX, any::<u32>());
    let kv = (0..u64::MAX, revision(), any::<u32>());
    let meta =
        (number(), number(), number(), ids, kv).prop_map(|(index, now, steady, next, kv)| {
            Record::Meta(Meta {
                index: LogIndex(index),
                now: Timestamp(now),
                steady: Steady(steady),
                next_job: JobId(next.0),
                next_node: NodeId(next.1),
                next_queue: QueueId(next.2),
                next_server: ServerId(next.3).next(),
                level: next.4,
                next_session: SessionId(kv.0).next(),
                revision: kv.1,
                attempts_from: kv.2,
            })
        });
    let server = (server_spec(), number())
        .prop_map(|(spec, joined)| Record::Server(Server { spec, joined_at: Timestamp(joined) }));
    let queue = (any::<u32>(), queue_spec(), any::<bool>());
    let queue = queue.prop_map(|(id, spec, paused)| {
        Record::Queue(QueueRecord { id: QueueId(id), spec, paused })
    });
    let node = (any::<u32>(), node_spec(), any::<bool>(), any::<bool>(), number());
    let node = node.prop_map(|(id, spec, draining, lost, registered)| {
        let leaving = draining != lost;
        let registered_at = Timestamp(registered);
        Record::Node(NodeRecord { id: NodeId(id), spec, draining, leaving, lost, registered_at })
    });
    let key = (text(), any::<[u8; 16]>(), number(), any::<u32>(), number());
    let key = key.prop_map(|(key, digest, first, count, used)| {
        let used = KeyUse { digest, first: JobId(first), count, used_at: Steady(used) };
        Record::Key(Arc::from(key), used)
    });
    let token = (token_spec(), number())
        .prop_map(|(spec, created)| Record::Token(Token { spec, created_at: Timestamp(created) }));
    prop_oneof![
        meta,
        token,
        server,
        queue,
        node,
        job_record().prop_map(|job| Record::Job(Box::new(job))).boxed(),
        (attempt_id(), task()).prop_map(|(attempt, task)| Record::Task(attempt.task, task)),
        key,
        kv_record().boxed(),
    ]
}
