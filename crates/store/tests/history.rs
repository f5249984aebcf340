//! The history equals a plain list of what happened, wherever its content is at the moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rota_core::command::{Failure, FailureKind, JobSpec};
use rota_core::event::{AttemptRecord, AttemptState, Event, Next};
use rota_core::job::{Counts, FinishedJob, JobState, TaskState};
use rota_store::history::{History, HistoryOptions, Import, JobFilter, Retention};
use rota_store::mem_disk::Chance;
use rota_store::{ClusterId, Identity, StoreError};
use rota_types::{
    AttemptId, Constraint, JobId, LogIndex, NodeId, Predicate, RangeSet, ServerId, Span, Steady,
    TaskId, Timestamp,
};
use rota_wire::history::TasksCancelled;

const IDENTITY: Identity = Identity { cluster: ClusterId([7; 16]), server: ServerId(1) };
const ALL: usize = 1_000_000;

fn open(path: &Path, commit_every: Duration) -> History {
    let options = HistoryOptions { commit_every, ..HistoryOptions::default() };
    History::open(path, &IDENTITY, options, |error| panic!("{error}")).expect("opens")
}

fn record(job: u64, index: u32, number: u32, detail: usize) -> AttemptRecord {
    let failed = number.is_multiple_of(2);
    AttemptRecord {
        attempt: AttemptId { task: TaskId { job: JobId(job), index }, number },
        node: NodeId(index % 7),
        placed_at: Timestamp(1_000),
        started_at: (!failed).then_some(Timestamp(2_000)),
        ended_at: Timestamp(3_000),
        state: if failed { AttemptState::Failed } else { AttemptState::Succeeded },
        failure: failed
            .then(|| Failure { kind: FailureKind::Exit(3), message: "exit code 3".into() }),
        detail: vec![5; detail].into(),
        next: if failed { Next::Waiting(Steady(9)) } else { Next::Finished(TaskState::Succeeded) },
    }
}

fn finished(job: u64, chance: &mut Chance) -> FinishedJob {
    let mut pick = |names: &[&'static str]| -> &'static str {
        names[usize::try_from(chance.below(names.len() as u64)).expect("fits")]
    };
    let name = pick(&["build", "test", "deploy"]);
    let queue = pick(&["default", "slow"]);
    let team = pick(&["a", "b"]);
    let (failed, cancelled) = match pick(&["succeeded", "failed", "cancelled"]) {
        "failed" => (1, 0),
        "cancelled" => (0, 1),
        _ => (0, 0),
    };
    FinishedJob {
        id: JobId(job),
        spec: JobSpec {
            name: name.into(),
            queue: queue.into(),
            priority: 0,
            labels: [("team".into(), team.into())].into(),
            submitter: "me".into(),
            retry_of: None,
            groups: Vec::new(),
        },
        submitted_at: Timestamp(1),
        started_at: None,
        finished_at: Timestamp(1_000 + chance.below(1_000)),
        counts: Counts { failed, cancelled, ..Counts::default() },
        failed: RangeSet::default(),
        cancelled: RangeSet::default(),
    }
}

/// What happened, kept the simple way.
#[derive(Default)]
struct Twin {
    jobs: BTreeMap<JobId, FinishedJob>,
    attempts: BTreeMap<AttemptId, AttemptRecord>,
    cancelled: Vec<TasksCancelled>,
    entries: Vec<(LogIndex, Timestamp, Vec<Event>)>,
}

impl Twin {
    /// Makes up the events of the next entry.
    fn entry(&mut self, chance: &mut Chance) -> (LogIndex, Timestamp, Vec<Event>) {
        let index = LogIndex(self.entries.len() as u64 * 3 + 1);
        let at = Timestamp(index.0 * 10);
        let mut events = vec![Event::NodeLost(NodeId(1))];
        for _ in 0..chance.below(30) {
            let job = 1 + chance.below(6);
            let task = u32::try_from(chance.below(3_000)).expect("fits");
            let task_id = TaskId { job: JobId(job), index: task };
            let first = AttemptId { task: task_id, number: 0 };
            let number = self.attempts.range(first..).take_while(|(id, _)| id.task == task_id);
            let number = u32::try_from(number.count()).expect("fits") + 1;
            let detail = if chance.below(10) == 0 { 8_000 } else { 20 };
            let record = record(job, task, number, detail);
            self.attempts.insert(record.attempt, record.clone());
            events.push(Event::AttemptEnded(Box::new(record)));
        }
        if chance.below(3) == 0 {
            let job = JobId(1 + chance.below(3));
            let tasks = RangeSet::from_range(5, 9);
            let reason: Box<str> = format!("entry {index}").into();
            let cancelled = TasksCancelled { job, tasks, reason, at };
            self.cancelled.push(cancelled.clone());
            let TasksCancelled { tasks, reason, .. } = cancelled;
            events.push(Event::TasksCancelled { job, tasks, reason });
        }
        let job = finished(10 + self.entries.len() as u64, chance);
        self.jobs.insert(job.id, job.clone());
        events.push(Event::JobFinished(Box::new(job)));
        self.entries.push((index, at, events.clone()));
        (index, at, events)
    }

    fn compare(&self, history: &History, chance: &mut Chance) {
        assert_eq!(history.job_count().expect("works"), self.jobs.len() as u64);
        for job in 0..10 {
            let of_job = |record: &&AttemptRecord| record.attempt.task.job == JobId(job);
            let expected: Vec<_> = self.attempts.values().filter(of_job).cloned().collect();
            let limit = usize::try_from(chance.below(200)).expect("fits") + 1;
            assert_eq!(all_attempts(history, JobId(job), limit), expected, "job {job} by {limit}");
            let expected: Vec<_> =
                self.cancelled.iter().filter(|note| note.job == JobId(job)).cloned().collect();
            let told = |limit| history.cancelled(JobId(job), limit).expect("works");
            assert_eq!(told(ALL), expected);
            for limit in [expected.len().saturating_sub(1), expected.len(), expected.len() + 1] {
                assert_eq!(told(limit), expected[..limit.min(expected.len())], "{limit}");
            }
        }
        for (id, _) in self.attempts.iter().take(20) {
            let same = self.attempts.values().filter(|record| record.attempt.task == id.task);
            let expected: Vec<_> = same.cloned().collect();
            assert_eq!(history.attempts(id.task).expect("works"), expected);
        }
        let filters = filters();
        for filter in &filters {
            let expected: Vec<_> =
                self.jobs.values().rev().filter(|job| admits(filter, job)).cloned().collect();
            let limit = usize::try_from(chance.below(9)).expect("fits") + 1;
            assert_eq!(all_jobs(history, filter, limit), expected, "{filter:?} by {limit}");
        }
        let last = self.jobs.last_key_value().map(|(_, job)| job.clone());
        let id = last.as_ref().map_or(JobId(1), |job| job.id);
        assert_eq!(history.job(id).expect("works"), last);
        assert_eq!(history.job(JobId(9_999)).expect("works"), None);
    }
}

fn filters() -> Vec<JobFilter> {
    let label = |predicate| vec![Constraint { key: "team".into(), predicate }];
    let is = |value: &str| label(Predicate::In(vec![value.into()]));
    let all = JobFilter::default();
    vec![
        all.clone(),
        JobFilter { states: vec![JobState::Failed], ..all.clone() },
        JobFilter { states: vec![JobState::Running], ..all.clone() },
        JobFilter { queue: Some("slow".into()), ..all.clone() },
        JobFilter { name: Some("test".into()), ..all.clone() },
        JobFilter { name: Some("none".into()), ..all.clone() },
        JobFilter { states: vec![JobState::Failed, JobState::Cancelled], ..all.clone() },
        JobFilter { submitter: Some("me".into()), ..all.clone() },
        JobFilter { submitter: Some("you".into()), ..all.clone() },
        JobFilter { labels: is("a"), ..all.clone() },
        JobFilter { labels: is("c"), ..all.clone() },
        JobFilter { labels: label(Predicate::NotIn(vec!["a".into()])), ..all.clone() },
        JobFilter { labels: [is("a"), is("b")].concat(), ..all.clone() },
        JobFilter { labels: [label(Predicate::Exists), is("b")].concat(), ..all.clone() },
        JobFilter {
            labels: is("b"),
            states: vec![JobState::Succeeded],
            queue: Some("default".into()),
            name: Some("build".into()),
            submitter: Some("me".into()),
        },
        JobFilter { queue: Some("slow".into()), states: vec![JobState::Cancelled], ..all },
    ]
}

fn admits(filter: &JobFilter, job: &FinishedJob) -> bool {
    (filter.states.is_empty() || filter.states.contains(&job.state()))
        && filter.queue.as_ref().is_none_or(|queue| *queue == job.spec.queue)
        && filter.name.as_ref().is_none_or(|name| *name == job.spec.name)
        && filter.submitter.as_ref().is_none_or(|submitter| *submitter == job.spec.submitter)
        && filter.labels.iter().all(|constraint| constraint.admits(&job.spec.labels))
}

/// All pages, one behind the other; each no larger than `limit`.
fn all_jobs(history: &History, filter: &JobFilter, limit: usize) -> Vec<FinishedJob> {
    let (mut jobs, mut before) = (Vec::new(), None);
    loop {
        let page = history.jobs(filter, before, limit).expect("works");
        assert!(page.items.len() <= limit);
        jobs.extend(page.items);
        before = page.next;
        if before.is_none() {
            return jobs;
        }
    }
}

fn all_attempts(history: &History, job: JobId, limit: usize) -> Vec<AttemptRecord> {
    let (mut records, mut from) = (Vec::new(), 0);
    loop {
        let page = history.attempts_of_job(job, from, limit).expect("works");
        let one_task = page.items.iter().all(|record| {
            Some(record.attempt.task) == page.items.first().map(|first| first.attempt.task)
        });
        assert!(page.items.len() <= limit || one_task, "{} of {limit}", page.items.len());
        records.extend(page.items);
        match page.next {
            Some(next) if next > from => from = next,
            Some(next) => panic!("no progress from {from} to {next}"),
            None => return records,
        }
    }
}

#[test]
fn what_is_pending_stored_or_both_reads_like_a_plain_list() {
    for (seed, commit_every) in [(1, 0), (2, 1), (3, 20), (4, 3_600_000)] {
        let directory = tempfile::tempdir().expect("a directory");
        let history = open(&directory.path().join("history"), Duration::from_millis(commit_every));
        let (mut chance, mut twin) = (Chance(seed), Twin::default());
        for round in 0..40 {
            let (index, at, events) = twin.entry(&mut chance);
            history.feed(index, at, &events);
            if round % 9 == 8 {
                history.flush();
                assert_eq!(history.durable_index(), index);
            }
            if round % 5 == 4 {
                twin.compare(&history, &mut chance);
            }
        }
    }
}

#[test]
fn feeding_again_after_a_restart_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history");
    let (mut chance, mut twin) = (Chance(5), Twin::default());
    let mut reached = LogIndex(0);
    for life in 0..6 {
        let history = open(&path, Duration::from_secs(3_600));
        assert!(history.durable_index() >= reached);
        // From the very beginning: much more than is needed.
        for (index, at, events) in &twin.entries {
            history.feed(*index, *at, events);
        }
        twin.compare(&history, &mut chance);
        for round in 0..5 {
            let (index, at, events) = twin.entry(&mut chance);
            history.feed(index, at, &events);
            history.feed(index, at, &events);
            if round == life {
                history.flush();
                reached = history.durable_index();
                assert_eq!(reached, index);
            }
        }
        twin.compare(&history, &mut chance);
    }
}

#[test]
fn closing_stores_what_is_pending() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history");
    let (mut chance, mut twin) = (Chance(6), Twin::default());
    let history = open(&path, Duration::from_secs(3_600));
    let (index, at, events) = twin.entry(&mut chance);
    history.feed(index, at, &events);
    drop(history);
    let history = open(&path, Duration::from_secs(3_600));
    assert_eq!(history.durable_index(), index);
    twin.compare(&history, &mut chance);
}

#[test]
fn retention_removes_the_oldest_jobs_in_slices_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = open(&directory.path().join("history"), Duration::ZERO);
    let mut chance = Chance(7);
    let mut expected = BTreeMap::new();
    for job in 1..=30 {
        let mut events: Vec<Event> = (0..5_000)
            .step_by(500)
            .map(|index| Event::AttemptEnded(Box::new(record(job, index, 1, 10))))
            .collect();
        let tasks = RangeSet::from_range(1, 2);
        events.push(Event::TasksCancelled { job: JobId(job), tasks, reason: "no".into() });
        let finished = finished(job, &mut chance);
        expected.insert((finished.finished_at, finished.id), finished.clone());
        events.push(Event::JobFinished(Box::new(finished)));
        history.feed(LogIndex(job), Timestamp(job), &events);
    }
    history.flush();
    let keep = |jobs_max, age_max| Retention { jobs_max, age_max: Span(age_max) };
    let check = |expected: &BTreeMap<(Timestamp, JobId), FinishedJob>| {
        let mut jobs: Vec<_> = expected.values().rev().cloned().collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
        assert_eq!(all_jobs(&history, &JobFilter::default(), 100), jobs);
        assert_eq!(history.job_count().expect("works"), jobs.len() as u64);
        let by_queue: usize = ["default", "slow"]
            .map(|queue| JobFilter { queue: Some(queue.into()), ..JobFilter::default() })
            .map(|filter| all_jobs(&history, &filter, 100).len())
            .iter()
            .sum();
        assert_eq!(by_queue, jobs.len(), "no index names a job that is gone");
        for job in (1..=30).map(JobId) {
            let is_kept = jobs.iter().any(|kept| kept.id == job);
            let attempts = history.attempts_of_job(job, 0, ALL).expect("works").items;
            assert_eq!(attempts.len(), if is_kept { 10 } else { 0 }, "job {job}");
            assert_eq!(history.cancelled(job, ALL).expect("works").len(), usize::from(is_kept));
        }
    };
    for (jobs_max, gone) in [(31, 0), (30, 0), (29, 1), (20, 9)] {
        let mut slices = 1;
        let retention = keep(jobs_max, u64::MAX);
        while history.prune(&retention, Timestamp(9_999), 7).expect("works") {
            slices += 1;
        }
        assert!(slices > gone, "{slices} slices for {gone} jobs of 12 rows");
        for _ in 0..gone {
            expected.pop_first();
        }
        check(&expected);
    }
    let ((oldest, _), _) = expected.pop_first().expect("20 are left");
    let now = Timestamp(9_999);
    let age = now.since(oldest).micros();
    let prune = |age_max| history.prune(&keep(u64::MAX, age_max), now, ALL).expect("works");
    assert!(!prune(age + 1) && !prune(age));
    assert_eq!(history.job_count().expect("works"), 20);
    assert!(!prune(age - 1));
    expected.retain(|(at, _), _| *at > oldest);
    check(&expected);
}

#[test]
fn a_history_of_another_server_or_of_garbage_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history");
    drop(open(&path, Duration::ZERO));
    let other = Identity { server: ServerId(2), ..IDENTITY };
    let refused = |path: &Path, identity: &Identity| -> StoreError {
        let options = HistoryOptions::default();
        let opened = History::open(path, identity, options, |error| panic!("{error}"));
        opened.err().expect("is refused")
    };
    let error = refused(&path, &other);
    assert!(matches!(&error, StoreError::Foreign(_)), "{error}");
    assert!(error.to_string().contains("history.redb belongs to another server"), "{error}");
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, vec![0xA5; 10_000]).expect("writes");
    let error = refused(&garbage, &IDENTITY);
    assert!(error.to_string().starts_with("history: opening history.redb"), "{error}");
}

#[test]
fn a_feeder_that_is_faster_than_the_disk_waits_and_loses_nothing() {
    let options =
        HistoryOptions { commit_every: Duration::from_secs(3_600), ..HistoryOptions::default() };
    let by_number = (1..=3).map(|pending_max| HistoryOptions { pending_max, ..options });
    let by_bytes =
        [1, 1_000].map(|pending_bytes_max| HistoryOptions { pending_bytes_max, ..options });
    for options in by_number.chain(by_bytes) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        let history = History::open(&path, &IDENTITY, options, |error| panic!("{error}"));
        let history = history.expect("opens");
        let (mut chance, mut twin) = (Chance(8), Twin::default());
        for _ in 0..20 {
            let (index, at, events) = twin.entry(&mut chance);
            history.feed(index, at, &events);
        }
        assert!(history.durable_index() > LogIndex(0), "{options:?}: nobody waited for the disk");
        twin.compare(&history, &mut chance);
    }
}

#[test]
fn a_page_looks_at_no_more_than_ten_thousand_rows_and_at_as_few_as_its_label_leaves() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = open(&directory.path().join("history"), Duration::ZERO);
    let mut chance = Chance(3);
    let mut jobs: Vec<_> = (1..=10_001).map(|id| finished(id, &mut chance)).collect();
    jobs[2].spec.labels = [("team".into(), "c".into())].into();
    let events: Vec<_> = jobs.into_iter().map(|job| Event::JobFinished(Box::new(job))).collect();
    let label = |value: &str| Constraint {
        key: "team".into(),
        predicate: Predicate::In(vec![value.into()]),
    };
    let nobody = JobFilter { submitter: Some("nobody".into()), ..JobFilter::default() };
    let few = JobFilter { labels: vec![label("c")], ..nobody.clone() };
    for (from, to, looked, next) in [
        (0, 9_999, 9_999, None),
        (9_999, 10_000, 10_000, None),
        (10_000, 10_001, 10_000, Some(JobId(2))),
    ] {
        history.feed(LogIndex(to as u64), Timestamp(1), &events[from..to]);
        history.flush();
        let page = history.jobs(&nobody, None, 10).expect("works");
        assert_eq!((page.items.len(), page.looked, page.next), (0, looked, next));
        let page = history.jobs(&few, None, 10).expect("works");
        assert_eq!((page.items.len(), page.looked, page.next), (0, 1, None));
    }
}

#[test]
fn readers_never_miss_what_was_fed_before_they_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = open(&directory.path().join("history"), Duration::ZERO);
    let fed = AtomicU64::new(0);
    const JOBS: u64 = 400;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = Chance(9);
            for job in 1..=JOBS {
                let events = [
                    Event::AttemptEnded(Box::new(record(
                        1,
                        7,
                        u32::try_from(job).expect("fits"),
                        9,
                    ))),
                    Event::JobFinished(Box::new(finished(job, &mut chance))),
                ];
                history.feed(LogIndex(job), Timestamp(job), &events);
                fed.store(job, Ordering::SeqCst);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let task = TaskId { job: JobId(1), index: 7 };
                loop {
                    let before = fed.load(Ordering::SeqCst);
                    let counted = history.job_count().expect("works");
                    let jobs = all_jobs(&history, &JobFilter::default(), 50);
                    let attempts = history.attempts(task).expect("works");
                    let of_job = all_attempts(&history, JobId(1), 1_000);
                    for (what, found) in [
                        ("counted", counted),
                        ("listed", jobs.len() as u64),
                        ("attempts", attempts.len() as u64),
                        ("attempts of the job", of_job.len() as u64),
                    ] {
                        assert!(found >= before, "{what}: {found} of {before}");
                    }
                    if before == JOBS {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn an_imported_history_reads_like_the_one_that_was_exported_and_goes_on_behind_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = open(&directory.path().join("source"), Duration::ZERO);
    let (mut chance, mut twin) = (Chance(6), Twin::default());
    for _ in 0..200 {
        let (index, at, events) = twin.entry(&mut chance);
        source.feed(index, at, &events);
    }
    let path = directory.path().join("copy");
    let other = Identity { server: ServerId(2), ..IDENTITY };
    let mut import = Import::create(&path, &other).expect("is made");
    let mut parts = 0;
    let reached = source.export(|rows| {
        parts += 1;
        import.add(rows).is_ok()
    });
    let reached = reached.expect("is read");
    assert_eq!(reached, source.durable_index());
    assert!(parts > 1, "{parts} parts");
    import.finish(reached).expect("is written");
    let options = HistoryOptions::default();
    let copy = History::open(&path, &other, options, |error| panic!("{error}")).expect("opens");
    assert_eq!(copy.durable_index(), reached);
    twin.compare(&copy, &mut chance);
    let (index, at, events) = twin.entry(&mut chance);
    copy.feed(index, at, &events);
    twin.compare(&copy, &mut chance);
    assert!(Import::create(&path, &other).is_err());
}

#[test]
fn a_damaged_or_misplaced_row_is_not_imported() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = open(&directory.path().join("source"), Duration::ZERO);
    let (mut chance, mut twin) = (Chance(7), Twin::default());
    for _ in 0..5 {
        let (index, at, events) = twin.entry(&mut chance);
        source.feed(index, at, &events);
    }
    let mut rows = Vec::new();
    source
        .export(|part| {
            rows.extend(part);
            true
        })
        .expect("is read");
    for (number, row) in rows.iter().enumerate() {
        let mut damaged = row.clone();
        let at = usize::try_from(chance.below(row.value.len() as u64)).expect("fits");
        damaged.value[at] ^= 1;
        let mut misplaced = row.clone();
        misplaced.key.push(1);
        for (kind, row) in [("damaged", damaged), ("misplaced", misplaced)] {
            let path = directory.path().join(format!("{kind}-{number}"));
            let mut import = Import::create(&path, &IDENTITY).expect("is made");
            let taken = import.add(vec![row]).and_then(|()| import.finish(LogIndex(1)));
            assert!(taken.is_err(), "{kind} row {number}");
        }
    }
}
