//! The bytes of one fixed sample of each kind of message. What was written once must be readable forever: a sample that changes here
//! is a change of format.
//!
//! `ROTA_BLESS=1 cargo test -p rota-wire --test golden` writes the files anew.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

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
    ActionKind, ActionKinds, AttemptId, Constraint, JobId, LogIndex, NodeId, Predicate, QueueId,
    RangeSet, Resources, Revision, ServerId, SessionId, Span, Steady, TaskId, Timestamp,
};
use rota_wire::history::TasksCancelled;
use rota_wire::{DecodeError, action, history, log, snapshot, worker};

const AT: Timestamp = Timestamp(1_800_000_000_000_000);
const STEADY: Steady = Steady(5_000_000);

fn note() -> Note {
    let (who, source, action) = ("ci", "192.0.2.7", "POST /v1/jobs");
    Note { who: who.into(), source: source.into(), action: action.into(), commands: 2 }
}

fn token_spec(grant: Grant) -> TokenSpec {
    TokenSpec {
        id: "mzxw6ytboi".into(),
        hash: [0x5A; 32],
        grant,
        name: "ci".into(),
        expires_at: Some(AT),
        created_by: "first".into(),
        session_of: None,
    }
}

fn server_spec() -> ServerSpec {
    let (address, version) = ("https://a.example:7600".into(), "1.2.3".into());
    ServerSpec { id: ServerId(3), address, version, level: 1 }
}

fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("golden").join(format!("{name}.hex"))
}

/// Compares `bytes` with the file, and what the file decodes to with `value`.
fn check<T: PartialEq + Debug>(
    name: &str,
    value: &T,
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let hex: String = bytes
        .chunks(40)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    let path = path(name);
    if std::env::var_os("ROTA_BLESS").is_some() {
        std::fs::write(&path, &hex).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(hex, golden, "{name}: the encoding has changed");
    let digits: Vec<u8> = golden.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).expect("is ASCII"))
        .map(|pair| u8::from_str_radix(pair, 16).expect("is hexadecimal"))
        .collect();
    assert_eq!(decode(&bytes).as_ref(), Ok(value), "{name}");
}

fn check_command(name: &str, command: Command) {
    let commands = vec![command];
    let bytes = log::encode_entry(AT, STEADY, &commands);
    check(&format!("command-{name}"), &commands, &bytes, |bytes| {
        let entry = log::decode_entry(LogIndex(7), bytes)?;
        assert_eq!((entry.at, entry.steady, entry.index), (AT, STEADY, LogIndex(7)));
        Ok(entry.commands)
    });
}

fn check_record(name: &str, record: &Record) {
    let bytes = snapshot::encode_record(record);
    check(&format!("record-{name}"), record, &bytes, snapshot::decode_record);
}

fn ranges() -> RangeSet {
    [1, 2, 3, 7, 1_000_000].into_iter().collect()
}

fn resources() -> Resources {
    let named = [("gpu".into(), 500), ("licence".into(), 1_000)].into();
    Resources { cpu_millis: 1_500, memory_bytes: 1 << 30, named }
}

fn job_spec() -> JobSpec {
    let constraint = |key: &str, predicate| Constraint { key: key.into(), predicate };
    JobSpec {
        name: "train".into(),
        queue: "default".into(),
        priority: -5,
        labels: [("team".into(), "vision".into())].into(),
        submitter: "ada".into(),
        retry_of: Some(JobId(3)),
        groups: vec![GroupSpec {
            name: "main".into(),
            array: ranges(),
            is_array: true,
            action: action::encode_group_action(&group_action()),
            shape: Shape {
                need: resources(),
                constraints: vec![
                    constraint("zone", Predicate::In(vec!["a".into(), "b".into()])),
                    constraint("rack", Predicate::NotIn(vec!["9".into()])),
                    constraint("ssd", Predicate::Exists),
                    constraint("spot", Predicate::Absent),
                ],
                kind: None,
            },
            estimate: Some(Span::from_secs(60)),
            timeout: Some(Span::from_secs(3_600)),
            retry: RetryPolicy {
                attempts_max: 3,
                backoff: Backoff {
                    base: Span::from_secs(1),
                    max: Span::from_secs(60),
                    jitter_percent: 20,
                },
                on: vec![
                    RetryRule::Exit(1, 127),
                    RetryRule::Signal,
                    RetryRule::Timeout,
                    RetryRule::Start,
                    RetryRule::Http,
                ],
            },
            parallel_max: Some(10),
        }],
    }
}

fn group_action() -> worker::GroupAction {
    let command = worker::CommandAction {
        argv: vec!["sort".into(), "-u".into()],
        env: vec![worker::EnvVar { name: "LC_ALL".into(), value: "C".into() }],
        cwd: "/srv".into(),
        stdin: b"b\na\n".to_vec(),
        grace_micros: 5_000_000,
    };
    worker::GroupAction {
        action: Some(worker::Action { kind: Some(worker::action::Kind::Command(command)) }),
        entries: vec!["one".into(), "two".into()],
    }
}

fn attempt(index: u32, number: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(17), index }, number }
}

fn detail() -> Arc<[u8]> {
    worker::encode_detail(&worker::Detail {
        stdout_tail: b"done\n".to_vec(),
        stderr_tail: Vec::new(),
        stdout_bytes: 5,
        stderr_bytes: 0,
        cpu_micros: 1_234,
        memory_peak_bytes: 1 << 20,
        notes: vec!["limits not enforced".into()],
    })
}

fn failures() -> [FailureKind; 7] {
    [
        FailureKind::Exit(-1),
        FailureKind::Signal(9),
        FailureKind::Timeout,
        FailureKind::Start,
        FailureKind::Http(None),
        FailureKind::Http(Some(503)),
        FailureKind::Lost,
    ]
}

fn reports() -> Vec<AttemptReport> {
    let failed = |kind| AttemptEnd::Failed(Failure { kind, message: "why".into() });
    let ends = [AttemptEnd::Succeeded, AttemptEnd::Stopped];
    ends.into_iter()
        .chain(failures().map(failed))
        .zip(0..)
        .map(|(end, index)| AttemptReport {
            attempt: attempt(index, 2),
            node: NodeId(4),
            end,
            started_at: (index > 0).then_some(AT),
            ended_at: AT.plus(Span(5)),
            detail: if index == 0 { detail() } else { Arc::default() },
        })
        .collect()
}

fn node_spec() -> NodeSpec {
    NodeSpec {
        name: "alpha".into(),
        incarnation: 0x1234_5678_9ABC_DEF0,
        capacity: resources(),
        attempts_max: 64,
        labels: [("zone".into(), "a".into())].into(),
        version: "0.1.0".into(),
        runs: ActionKinds::EVERY,
        stages: false,
    }
}

/// A node that refuses commands.
fn restricted_node() -> NodeSpec {
    let runs = [ActionKind::Http, ActionKind::Noop].into_iter().collect();
    NodeSpec { runs, ..node_spec() }
}

/// A job that says what kind of action it is.
fn job_of_kind(kind: ActionKind) -> JobSpec {
    let mut spec = job_spec();
    for group in &mut spec.groups {
        group.shape.kind = Some(kind);
    }
    spec
}

fn queue_spec(discipline: Discipline, placement: PlacementKind) -> QueueSpec {
    QueueSpec {
        name: "slow".into(),
        discipline,
        placement,
        weight: 2,
        running_max: Some(100),
        tasks_max: Some(1_000_000),
    }
}

#[test]
fn commands_are_encoded_as_ever() {
    let node = NodeId(4);
    let queue: Box<str> = "slow".into();
    let placement = |job, index, count, node| Placement {
        task: TaskId { job: JobId(job), index },
        count,
        node: NodeId(node),
    };
    let idempotency = Some(IdempotencyKey { key: "retry-me".into(), digest: [0xAB; 16] });
    check_command(
        "submit-jobs",
        Command::SubmitJobs(SubmitJobs { jobs: vec![job_spec()], idempotency }),
    );
    let jobs = ActionKind::ALL.map(job_of_kind).into();
    check_command("submit-kinds", Command::SubmitJobs(SubmitJobs { jobs, idempotency: None }));
    for (name, tasks) in [("cancel-tasks", Some(ranges())), ("cancel-job", None)] {
        let (job, grace, reason) = (JobId(17), Span::from_secs(3), "enough".into());
        check_command(name, Command::CancelTasks(CancelTasks { job, tasks, grace, reason }));
    }
    let placements =
        vec![placement(17, 0, 5, 1), placement(17, 5, 5, 2), placement(9, 70, 1, 1_000)];
    check_command("commit-plan", Command::CommitPlan(Plan { placements, ..Plan::default() }));
    let staged = vec![Staging { task: attempt(7, 1).task, behind: attempt(5, 1).task }];
    check_command("stage", Command::CommitPlan(Plan { staged, ..Plan::default() }));
    check_command("end-attempts", Command::EndAttempts(reports()));
    let recalled = reports().into_iter().take(1);
    let recalled = recalled.map(|report| AttemptReport { end: AttemptEnd::Recalled, ..report });
    check_command("end-recalled", Command::EndAttempts(recalled.collect()));
    let stages = NodeSpec { stages: true, ..node_spec() };
    check_command("register-staging", Command::RegisterNode(stages));
    check_command("register-node", Command::RegisterNode(node_spec()));
    check_command("register-restricted", Command::RegisterNode(restricted_node()));
    check_command("lose-node", Command::LoseNode(node));
    check_command("drain-node", Command::DrainNode { node, draining: true });
    check_command("leave-node", Command::LeaveNode(node));
    check_command("remove-node", Command::RemoveNode(node));
    let fifo = queue_spec(Discipline::Fifo, PlacementKind::FirstFit);
    check_command("create-queue", Command::CreateQueue(fifo));
    let aging = Discipline::Priority { aging: Span::from_secs(60) };
    for (name, placement) in [
        ("best-fit", PlacementKind::BestFit),
        ("least-loaded", PlacementKind::LeastLoaded),
        ("round-robin", PlacementKind::RoundRobin),
        ("random", PlacementKind::Random { seed: 42 }),
    ] {
        let command = Command::ConfigureQueue(queue_spec(aging, placement));
        check_command(&format!("configure-queue-{name}"), command);
    }
    check_command("pause-queue", Command::PauseQueue { queue: queue.clone(), paused: true });
    for (name, before) in [("purge-queue", None), ("purge-jobs", Some(JobId(18)))] {
        check_command(name, Command::PurgeQueue { queue: queue.clone(), before });
    }
    check_command("remove-queue", Command::RemoveQueue { queue });
    for (name, command) in [
        ("announce-server", ServerCommand::Announce(server_spec())),
        ("add-server", ServerCommand::Add { address: "https://c.example:7600".into() }),
        ("remove-server", ServerCommand::Remove(ServerId(2))),
        ("raise-level", ServerCommand::RaiseLevel(1)),
        ("renew", ServerCommand::Renew),
    ] {
        check_command(name, Command::Servers(command));
    }
    for (name, command) in kv_commands() {
        check_command(name, Command::Kv(command));
    }
    check_command("tick", Command::Tick);
}

fn meta((next_server, level): (u64, u32), (next_session, revision): (u64, u64)) -> Record {
    Record::Meta(Meta {
        index: LogIndex(1_000),
        now: AT,
        steady: STEADY,
        next_job: JobId(18),
        next_node: NodeId(5),
        next_queue: QueueId(3),
        next_server: ServerId(next_server),
        level,
        next_session: SessionId(next_session),
        revision: Revision(revision),
        attempts_from: 0,
    })
}

#[test]
fn snapshot_records_are_encoded_as_ever() {
    check_record("meta", &meta((1, 0), (1, 0)));
    check_record("meta-servers", &meta((4, 1), (1, 0)));
    let joined_at = AT;
    check_record("server", &Record::Server(Server { spec: server_spec(), joined_at }));
    let spec = queue_spec(Discipline::Fifo, PlacementKind::BestFit);
    check_record("queue", &Record::Queue(QueueRecord { id: QueueId(2), spec, paused: true }));
    for (name, spec) in [("node", node_spec()), ("node-restricted", restricted_node())] {
        check_record(
            name,
            &Record::Node(NodeRecord {
                id: NodeId(4),
                spec,
                draining: true,
                leaving: false,
                lost: true,
                registered_at: AT,
            }),
        );
    }
    for (name, spec) in [("job", job_spec()), ("job-kind", job_of_kind(ActionKind::Http))] {
        check_record(
            name,
            &Record::Job(Box::new(JobRecord {
                id: JobId(17),
                queue: QueueId(1),
                spec,
                submitted_at: AT,
                ready_at: STEADY,
                started_at: Some(AT),
                fresh: ranges(),
                failed: RangeSet::from_range(4, 5),
                cancelled: RangeSet::default(),
            })),
        );
    }
    let running = Attempt { node: NodeId(4), placed_at: AT, stop: Some(Span::from_secs(3)) };
    for (name, phase) in [
        ("queued", Phase::Queued { since: STEADY }),
        ("waiting", Phase::Waiting { until: STEADY }),
        ("running", Phase::Running(running.clone())),
        ("staged", Phase::Staged { attempt: running, behind: attempt(4, 1).task, since: STEADY }),
    ] {
        let recalled = u32::from(name == "staged");
        let task = Task { attempts: 3 + recalled, failures: 2, lost: 1, recalled, phase };
        check_record(&format!("task-{name}"), &Record::Task(attempt(5, 1).task, task));
    }
    let used = KeyUse { digest: [0xAB; 16], first: JobId(17), count: 1, used_at: STEADY };
    check_record("key", &Record::Key("retry-me".into(), used));
}

fn kv_commands() -> [(&'static str, KvCommand); 7] {
    let session = SessionId(3);
    let lock = || "leader/eu".into();
    let key = |name: &str| name.into();
    let change = ChangeKeys {
        conditions: vec![
            Condition::Absent { key: key("a") },
            Condition::Unchanged { key: key("b"), since: Revision(7) },
            Condition::Held { lock: lock(), token: Revision(9) },
        ],
        changes: vec![
            KeyChange::Put { key: key("a"), value: Arc::from(*b"1"), session: Some(session) },
            KeyChange::Put { key: key("b"), value: Arc::default(), session: None },
            KeyChange::Delete { key: key("c/d") },
        ],
    };
    let acquire = AcquireLock { lock: lock(), session, value: Arc::from(*b"host"), wait: true };
    [
        ("kv-change", KvCommand::Change(change)),
        ("kv-delete-prefix", KvCommand::DeletePrefix { prefix: key("c/"), at_most: 100 }),
        ("kv-open-session", KvCommand::OpenSession { ttl: Span::from_secs(15) }),
        ("kv-renew-sessions", KvCommand::RenewSessions(vec![session, SessionId(400)])),
        ("kv-close-session", KvCommand::CloseSession(session)),
        ("kv-acquire-lock", KvCommand::AcquireLock(acquire)),
        ("kv-release-lock", KvCommand::ReleaseLock { lock: lock(), session }),
    ]
}

#[test]
fn records_of_the_key_value_store_are_encoded_as_ever() {
    check_record("meta-kv", &meta((4, 1), (4, 70)));
    let session = SessionRecord {
        id: SessionId(3),
        ttl: Span::from_secs(15),
        deadline: STEADY,
        opened_at: AT,
    };
    check_record("session", &Record::Session(session));
    for (name, session) in [("pair", None), ("pair-bound", Some(SessionId(3)))] {
        let (created, modified, version) = (Revision(7), Revision(70), 3);
        let pair = Pair { value: Arc::from(*b"one"), session, created, modified, version };
        check_record(name, &Record::Pair("a/b".into(), pair));
    }
    let claim = |session, value: &[u8]| Claim { session: SessionId(session), value: value.into() };
    let waiters = [claim(2, b"other"), claim(1, b"")].into();
    let lock = Lock { token: Revision(69), holder: claim(3, b"host"), waiters };
    check_record("lock", &Record::Lock("leader/eu".into(), lock));
}

#[test]
fn history_is_encoded_as_ever() {
    let states = [
        (AttemptState::Succeeded, Next::Finished(TaskState::Succeeded)),
        (AttemptState::Failed, Next::Waiting(STEADY)),
        (AttemptState::Cancelled, Next::Finished(TaskState::Cancelled)),
        (AttemptState::Lost, Next::Queued),
        (AttemptState::Failed, Next::Finished(TaskState::Failed)),
    ];
    let failure = |kind| Failure { kind, message: "why".into() };
    let records: Vec<AttemptRecord> = states
        .into_iter()
        .zip(0..)
        .map(|((state, next), index)| AttemptRecord {
            attempt: attempt(index, 1),
            node: NodeId(4),
            placed_at: AT,
            started_at: (index > 0).then_some(AT.plus(Span(1))),
            ended_at: AT.plus(Span(5)),
            state,
            failure: (index > 0).then(|| failure(FailureKind::Exit(3))),
            detail: if index == 0 { detail() } else { Arc::default() },
            next,
        })
        .collect();
    let bytes = history::encode_attempts(JobId(17), &records);
    check("history-attempts", &records, &bytes, history::decode_attempts);
    let recalled = AttemptState::Recalled;
    let recalled = records.into_iter().take(1).map(|record| AttemptRecord {
        state: recalled,
        next: Next::Queued,
        ..record
    });
    let recalled: Vec<AttemptRecord> = recalled.collect();
    let bytes = history::encode_attempts(JobId(17), &recalled);
    check("history-recalled", &recalled, &bytes, history::decode_attempts);
    let job = FinishedJob {
        id: JobId(17),
        spec: job_spec(),
        submitted_at: AT,
        started_at: Some(AT.plus(Span(1))),
        finished_at: AT.plus(Span(9)),
        counts: Counts { succeeded: 3, failed: 1, cancelled: 1, ..Counts::default() },
        failed: RangeSet::from_range(4, 5),
        cancelled: ranges(),
    };
    let bytes = history::encode_finished_job(&job);
    check("history-job", &job, &bytes, history::decode_finished_job);
    let note = TasksCancelled { job: JobId(17), tasks: ranges(), reason: "enough".into(), at: AT };
    let bytes = history::encode_tasks_cancelled(&note);
    check("history-cancelled", &note, &bytes, history::decode_tasks_cancelled);
}

#[test]
fn actions_are_encoded_as_ever() {
    use worker::action::Kind;
    let http = worker::HttpAction {
        method: "POST".into(),
        url: "https://example.org/hook".into(),
        headers: vec![worker::Header { name: "accept".into(), value: "*/*".into() }],
        body: b"{}".to_vec(),
        expect: vec![worker::StatusRange { from: 200, to: 204 }],
    };
    let group = |kind| worker::GroupAction {
        action: Some(worker::Action { kind: Some(kind) }),
        entries: Vec::new(),
    };
    for (name, action) in [
        ("command", group_action()),
        ("http", group(Kind::Http(http))),
        ("noop", group(Kind::Noop(worker::NoopAction {}))),
    ] {
        let bytes = action::encode_group_action(&action);
        check(&format!("action-{name}"), &action, &bytes, action::decode_group_action);
    }
}

#[test]
fn tokens_and_notes_are_encoded_as_ever() {
    let join = Grant::Join { joins: Joins::Worker, uses_left: 3 };
    for (name, command) in [
        ("add-token", TokenCommand::Add(token_spec(Grant::Api(Role::Operator)))),
        ("add-join-token", TokenCommand::Add(token_spec(join))),
        ("revoke-token", TokenCommand::Revoke("mzxw6ytboi".into())),
        ("use-token", TokenCommand::Use("mzxw6ytboi".into())),
    ] {
        check_command(name, Command::Tokens(command));
    }
    check_command("note", Command::Note(note()));
    let spec = token_spec(Grant::Api(Role::Admin));
    check_record("token", &Record::Token(Token { spec, created_at: AT }));
    let noted = (Noted { note: self::note(), refused: 1 }, AT);
    let bytes = history::encode_noted(&noted.0, noted.1);
    check("history-noted", &noted, &bytes, history::decode_noted);
}
