//! Every limit that the state machine keeps, at −1, 0 and +1. The counts of jobs, tasks and keys in the millions are tested at
//! their edge through a restored image.

mod world;

use std::sync::Arc;

use rota_core::State;
use rota_core::command::{
    AttemptEnd, Backoff, CancelTasks, Command, Failure, FailureKind, GroupSpec, IdempotencyKey,
    JobSpec, NodeSpec, Outcome, QueueSpec, Rejection, Reply, RetryRule, SubmitJobs,
};
use rota_core::event::Event;
use rota_core::image::{BadImage, KeyUse, Record};
use rota_types::limits::{
    ACTION_BYTES_MAX, ATTEMPTS_MAX, BACKOFF_MAX, CONSTRAINT_VALUES_MAX, CONSTRAINTS_MAX,
    ESTIMATE_MAX, GRACE_MAX, GROUPS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_KEYS_MAX,
    JOB_TASKS_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LIVE_TASKS_MAX,
    MESSAGE_BYTES_MAX, NAME_BYTES_MAX, NODE_ATTEMPTS_MAX, NODES_MAX, PRIORITY_MAX, QUEUES_MAX,
    RESOURCE_AMOUNT_MAX, RESOURCES_MAX, RETRY_RULES_MAX, SUBMIT_JOBS_MAX, TIMEOUT_MAX,
};
use rota_types::{Constraint, JobId, Labels, LogIndex, Predicate, RangeSet, Span, Steady};
use world::{World, attempt, group, job, job_with, node, report};

/// The outcome of one command on a new state, without the slow check.
fn on(mut state: State, command: Command) -> Outcome {
    let entry = rota_core::command::Entry {
        index: LogIndex(1),
        at: Default::default(),
        steady: Steady(0),
        commands: vec![command],
    };
    state.apply(&entry).outcomes.remove(0)
}

/// Tries the limit at −1, 0 and +1.
fn edge(max: u64, outcome: impl Fn(u64) -> Outcome) {
    for value in [max - 1, max] {
        let outcome = outcome(value);
        assert!(outcome.is_ok(), "{value}: {outcome:?}");
    }
    match outcome(max + 1) {
        Err(Rejection::Limit { value, limit, .. }) => assert_eq!((value, limit), (max + 1, max)),
        other => panic!("{other:?}"),
    }
}

fn submit(jobs: Vec<JobSpec>) -> Outcome {
    on(State::new(), Command::SubmitJobs(SubmitJobs { jobs, idempotency: None }))
}

fn job_edge(max: u64, change: impl Fn(&mut JobSpec, u64)) {
    edge(max, |value| {
        let mut spec = job(1);
        change(&mut spec, value);
        submit(vec![spec])
    });
}

fn group_edge(max: u64, change: impl Fn(&mut GroupSpec, u64)) {
    edge(max, |value| submit(vec![job_with(1, |group| change(group, value))]));
}

fn node_edge(max: u64, change: impl Fn(&mut NodeSpec, u64)) {
    edge(max, |value| {
        let mut spec = node("n", 1);
        change(&mut spec, value);
        on(State::new(), Command::RegisterNode(spec))
    });
}

fn text(bytes: u64) -> Box<str> {
    "x".repeat(bytes as usize).into()
}

fn labels(count: u64) -> Labels {
    (0..count).map(|place| (format!("{place}").into(), "v".into())).collect()
}

#[test]
fn sizes_of_a_job_end_at_their_limits() {
    edge(SUBMIT_JOBS_MAX as u64, |count| submit(vec![job(1); count as usize]));
    job_edge(GROUPS_MAX as u64, |job, count| {
        job.groups = (0..count).map(|place| group(&format!("g{place}"), 1)).collect();
    });
    job_edge(u64::from(JOB_TASKS_MAX), |job, count| {
        job.groups[0].array = RangeSet::from_range(0, count as u32);
    });
    job_edge(NAME_BYTES_MAX as u64, |job, bytes| job.name = text(bytes));
    job_edge(NAME_BYTES_MAX as u64, |job, bytes| job.submitter = text(bytes));
    job_edge(LABELS_MAX as u64, |job, count| job.labels = labels(count));
    job_edge(LABEL_KEY_BYTES_MAX as u64, |job, bytes| {
        job.labels = [(text(bytes), "v".into())].into();
    });
    job_edge(LABEL_VALUE_BYTES_MAX as u64, |job, bytes| {
        job.labels = [("k".into(), text(bytes))].into();
    });
    job_edge(PRIORITY_MAX as u64, |job, value| job.priority = value as i32);
    job_edge(PRIORITY_MAX as u64, |job, value| job.priority = -(value as i32));
}

#[test]
fn an_array_of_everything_is_refused_and_not_counted_out() {
    let mut spec = job(1);
    spec.groups[0].array = RangeSet::from_range(0, u32::MAX);
    spec.groups.push(GroupSpec { array: RangeSet::from_range(0, u32::MAX), ..group("b", 1) });
    let (value, limit) = (2 * u64::from(u32::MAX), u64::from(JOB_TASKS_MAX));
    let what = "tasks in one job";
    assert_eq!(submit(vec![spec]), Err(Rejection::Limit { what, value, limit }));
}

#[test]
fn sizes_of_a_group_end_at_their_limits() {
    group_edge(NAME_BYTES_MAX as u64, |group, bytes| group.name = text(bytes));
    group_edge(ACTION_BYTES_MAX as u64, |group, bytes| {
        group.action = Arc::from(vec![0; bytes as usize]);
    });
    group_edge(TIMEOUT_MAX.0, |group, span| group.timeout = Some(Span(span)));
    group_edge(ESTIMATE_MAX.0, |group, span| group.estimate = Some(Span(span)));
    group_edge(u64::from(ATTEMPTS_MAX), |group, count| group.retry.attempts_max = count as u32);
    group_edge(RETRY_RULES_MAX as u64, |group, count| {
        group.retry.on = vec![RetryRule::Signal; count as usize];
    });
    let backoff = |max, jitter_percent| Backoff { base: Span(0), max: Span(max), jitter_percent };
    group_edge(BACKOFF_MAX.0, |group, span| group.retry.backoff = backoff(span, 0));
    group_edge(100, |group, percent| group.retry.backoff = backoff(0, percent as u8));
    group_edge(RESOURCE_AMOUNT_MAX, |group, amount| group.shape.need.cpu_millis = amount);
    group_edge(RESOURCE_AMOUNT_MAX, |group, amount| group.shape.need.memory_bytes = amount);
    group_edge(RESOURCE_AMOUNT_MAX, |group, amount| {
        group.shape.need.named = [("gpu".into(), amount)].into();
    });
    group_edge(RESOURCES_MAX as u64, |group, count| {
        group.shape.need.named = (0..count).map(|place| (format!("{place}").into(), 1)).collect();
    });
    group_edge(NAME_BYTES_MAX as u64, |group, bytes| {
        group.shape.need.named = [(text(bytes), 1)].into();
    });
}

#[test]
fn sizes_of_constraints_end_at_their_limits() {
    let wants = |key, values| Constraint { key, predicate: Predicate::In(values) };
    group_edge(CONSTRAINTS_MAX as u64, |group, count| {
        group.shape.constraints = vec![wants("k".into(), vec![]); count as usize];
    });
    group_edge(CONSTRAINT_VALUES_MAX as u64, |group, count| {
        group.shape.constraints = vec![wants("k".into(), vec!["v".into(); count as usize])];
    });
    group_edge(LABEL_KEY_BYTES_MAX as u64, |group, bytes| {
        group.shape.constraints = vec![wants(text(bytes), vec![])];
    });
    group_edge(LABEL_VALUE_BYTES_MAX as u64, |group, bytes| {
        group.shape.constraints = vec![wants("k".into(), vec![text(bytes)])];
    });
}

#[test]
fn sizes_of_a_node_and_of_its_cancels_end_at_their_limits() {
    node_edge(NAME_BYTES_MAX as u64, |node, bytes| node.name = text(bytes));
    node_edge(LABELS_MAX as u64, |node, count| node.labels = labels(count));
    node_edge(u64::from(NODE_ATTEMPTS_MAX), |node, count| node.attempts_max = count as u32);
    node_edge(RESOURCE_AMOUNT_MAX, |node, amount| node.capacity.cpu_millis = amount);
    node_edge(RESOURCES_MAX as u64, |node, count| {
        node.capacity.named = (0..count).map(|place| (format!("{place}").into(), 1)).collect();
    });
    let mut world = World::new();
    assert!(world.submit(job(1)).is_ok());
    edge(GRACE_MAX.0, |grace| {
        let (job, grace) = (JobId(1), Span(grace));
        let cancel = CancelTasks { job, tasks: None, grace, reason: "".into() };
        on(world.state.clone(), Command::CancelTasks(cancel))
    });
}

#[test]
fn the_cluster_takes_as_many_queues_as_it_may() {
    let mut world = World::new();
    let create = |place: usize| Command::CreateQueue(QueueSpec::named(&format!("q{place}")));
    let outcomes = world.entry((1..QUEUES_MAX).map(create).collect()).outcomes;
    assert!(outcomes.iter().all(Result::is_ok));
    let (value, limit) = (QUEUES_MAX as u64 + 1, QUEUES_MAX as u64);
    let refused = Err(Rejection::Limit { what: "queues", value, limit });
    assert_eq!(world.apply(create(QUEUES_MAX)), refused);
    let remove = Command::RemoveQueue { queue: "q1".into() };
    assert!(world.apply(remove).is_ok() && world.apply(create(QUEUES_MAX)).is_ok());
}

#[test]
fn live_tasks_end_at_their_limit() {
    let mut state = State::new();
    let entry = rota_core::command::Entry {
        index: LogIndex(1),
        at: Default::default(),
        steady: Steady(0),
        commands: vec![Command::SubmitJobs(SubmitJobs {
            jobs: vec![job(JOB_TASKS_MAX)],
            idempotency: None,
        })],
    };
    assert!(state.apply(&entry).outcomes[0].is_ok());
    let rest = (LIVE_TASKS_MAX - u64::from(JOB_TASKS_MAX)) as u32;
    let more = |last: u32| {
        let jobs = vec![job(rest - 2), job(last)];
        on(state.clone(), Command::SubmitJobs(SubmitJobs { jobs, idempotency: None }))
    };
    assert!(more(1).is_ok() && more(2).is_ok());
    let (value, limit) = (LIVE_TASKS_MAX + 1, LIVE_TASKS_MAX);
    assert_eq!(more(3), Err(Rejection::Limit { what: "live tasks", value, limit }));
}

#[test]
fn live_jobs_end_at_their_limit_and_finished_ones_make_room() {
    let mut world = World::new();
    world.state = State::new().with_live_jobs_max(3);
    assert!((0..2).all(|_| world.submit(job(1)).is_ok()));
    let beyond = Err(Rejection::Limit { what: "live jobs", value: 4, limit: 3 });
    let two = SubmitJobs { jobs: vec![job(1), job(1)], idempotency: None };
    assert_eq!(world.apply(Command::SubmitJobs(two)), beyond);
    assert!(world.submit(job(1)).is_ok());
    assert_eq!(world.submit(job(1)), beyond);
    assert!(world.cancel(1, None).is_ok() && world.submit(job(1)).is_ok());
    assert_eq!(world.submit(job(1)), beyond);
}

#[test]
fn nodes_end_at_their_limit_and_known_ones_may_come_back() {
    let register = |number: usize| Command::RegisterNode(node(&format!("n{number}"), 1_000));
    let entry = |index: u64, commands| rota_core::command::Entry {
        index: LogIndex(index),
        at: Default::default(),
        steady: Steady(0),
        commands,
    };
    let mut state = State::new();
    let outcomes = state.apply(&entry(1, (1..NODES_MAX).map(register).collect())).outcomes;
    assert!(outcomes.len() == NODES_MAX - 1 && outcomes.iter().all(Result::is_ok));
    let last = [register(NODES_MAX), register(NODES_MAX + 1), register(1)];
    let outcomes = state.apply(&entry(2, last.into())).outcomes;
    let (value, limit) = (NODES_MAX as u64 + 1, NODES_MAX as u64);
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], Err(Rejection::Limit { what: "nodes", value, limit }));
    assert!(outcomes[2].is_ok(), "it is known");
}

#[test]
fn a_failure_keeps_as_much_of_its_message_as_fits() {
    let kept = |message: String| {
        let mut world = World::new();
        world.apply(Command::RegisterNode(node("a", 1_000))).expect("the node joins");
        world.submit(job(1)).expect("the job is taken in");
        world.place(1, 0, 1, 1).expect("the task is placed");
        let failure = Failure { kind: FailureKind::Exit(1), message: message.into() };
        let end = report(attempt(1, 0, 1), 1, AttemptEnd::Failed(failure));
        let ended = world.entry(vec![Command::EndAttempts(vec![end])]).events;
        let told = ended.iter().find_map(|event| match event {
            Event::AttemptEnded(record) => record.failure.as_ref(),
            _ => None,
        });
        told.expect("the attempt failed").message.to_string()
    };
    for bytes in [MESSAGE_BYTES_MAX - 1, MESSAGE_BYTES_MAX] {
        assert_eq!(kept("x".repeat(bytes)), "x".repeat(bytes));
    }
    assert_eq!(kept("x".repeat(MESSAGE_BYTES_MAX + 1)), "x".repeat(MESSAGE_BYTES_MAX));
    let wide = format!("x{}", "é".repeat(MESSAGE_BYTES_MAX / 2));
    assert_eq!(kept(wide).len(), MESSAGE_BYTES_MAX - 1, "no character is cut in two");
}

#[test]
fn keys_end_at_their_limits_in_length_and_number() {
    let keyed = |state: State, key: Box<str>| {
        let idempotency = Some(IdempotencyKey { key, digest: [0; 16] });
        on(state, Command::SubmitJobs(SubmitJobs { jobs: vec![job(1)], idempotency }))
    };
    edge(IDEMPOTENCY_KEY_BYTES_MAX as u64, |bytes| keyed(State::new(), text(bytes)));
    let used = KeyUse { digest: [0; 16], first: JobId(1), count: 1, used_at: Steady(0) };
    let records = State::new().records().collect::<Vec<_>>().into_iter();
    let keys =
        (1..IDEMPOTENCY_KEYS_MAX).map(|place| Record::Key(format!("{place:x}").into(), used));
    let full = State::restore(records.chain(keys).map(Ok::<_, BadImage>)).expect("a sound image");
    let mut full = full;
    let entry = rota_core::command::Entry {
        index: LogIndex(1),
        at: Default::default(),
        steady: Steady(0),
        commands: ["last", "2", "beyond", "2", "1"]
            .map(|key| {
                let idempotency = Some(IdempotencyKey { key: key.into(), digest: [0; 16] });
                Command::SubmitJobs(SubmitJobs { jobs: vec![job(1)], idempotency })
            })
            .into(),
    };
    let outcomes = full.apply(&entry).outcomes;
    let replayed = outcomes.iter().map(|outcome| match outcome {
        Ok(Reply::Submitted { replayed, .. }) => *replayed,
        other => panic!("{other:?}"),
    });
    // "last" is the last key that fits. All are of one age, so the smallest, "1", makes room for "beyond".
    assert_eq!(replayed.collect::<Vec<_>>(), [false, true, false, true, false]);
}

#[test]
fn versions_and_reasons_end_at_their_limits_and_are_printable() {
    node_edge(NAME_BYTES_MAX as u64, |node, bytes| node.version = text(bytes));
    let cancelled = |reason: Box<str>| {
        let mut state = State::new();
        let submit = Command::SubmitJobs(SubmitJobs { jobs: vec![job(1)], idempotency: None });
        let cancel = CancelTasks { job: JobId(1), tasks: None, grace: Span(0), reason };
        let commands = vec![submit, Command::CancelTasks(cancel)];
        let (at, steady) = (Default::default(), Steady(0));
        let entry = rota_core::command::Entry { index: LogIndex(1), at, steady, commands };
        state.apply(&entry).outcomes.swap_remove(1)
    };
    edge(MESSAGE_BYTES_MAX as u64, |bytes| cancelled(text(bytes)));
    let what = |outcome: Outcome| match outcome {
        Err(Rejection::Invalid { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(cancelled("\u{1b}[2J".into())), "cancel.reason");
    for (field, change) in [
        ("job.submitter", (|job| job.submitter = "a\nb".into()) as fn(&mut JobSpec)),
        ("job.labels", |job| job.labels = [("k".into(), "a\tb".into())].into()),
        ("job.labels", |job| job.labels = [("\u{7f}".into(), "v".into())].into()),
    ] {
        let mut spec = job(1);
        change(&mut spec);
        assert_eq!(what(submit(vec![spec])), field);
    }
}
