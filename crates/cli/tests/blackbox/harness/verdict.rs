//! Whether the record, the acknowledgements and the ledger tell the same story.

use std::collections::BTreeMap;

use rota_api::{AttemptState, FailureKind, Job, JobState, Page, Task, TaskState};

use super::{Api, Done, Kind, Ledger, Mark, Moment, Planned, Record, Server, attempts};

/// Every acknowledged job is in the record once, with its tasks in the states that they had to reach, and nothing else is there.
pub(crate) fn nothing_is_lost_or_doubled(record: &Record, done: &Done) {
    let named = record.by_name();
    for (id, planned) in &done.acknowledged {
        let (job, tasks) =
            record.jobs.get(id).unwrap_or_else(|| panic!("job {id} ({planned:?}) is lost"));
        assert_eq!(job.name, planned.name, "job {id}");
        let state =
            if planned.kind == Kind::Fails { JobState::Failed } else { JobState::Succeeded };
        assert_eq!(
            (job.state, tasks.len()),
            (state, planned.tasks as usize),
            "job {id}: {planned:?}"
        );
        for (index, task) in tasks.iter().enumerate() {
            assert_eq!(task.id, format!("{id}.{index}"));
            check_task(planned, task);
        }
    }
    for (name, (job, _)) in named {
        let known = done.acknowledged.contains_key(&job.id) || done.unknown.contains_key(name);
        assert!(known, "nobody submitted {job:?}");
    }
}

fn check_task(planned: &Planned, task: &Task) {
    let state = if planned.kind == Kind::Fails { TaskState::Failed } else { TaskState::Succeeded };
    assert_eq!(task.state, state, "{planned:?}: {task:?}");
    let failure = task.failure.as_ref().map(|failure| (failure.kind, failure.code));
    let expected = (planned.kind == Kind::Fails).then_some((FailureKind::Exit, Some(7)));
    assert_eq!(failure, expected, "{planned:?}: {task:?}");
    if planned.kind == Kind::Flaky {
        assert!(task.attempt >= 2, "{task:?}");
    }
}

/// No worker was lost: each task ran as often as it needed by itself, and each attempt's process ran once, from start to end. What was
/// taken back from a node before it ran did not run.
pub(crate) fn everything_ran_once(api: Api, record: &Record, done: &Done, ledger: &Ledger) {
    let mut expected = BTreeMap::new();
    for task in record.tasks() {
        let planned = done.acknowledged.get(&task.job).or_else(|| done.unknown.get(&task.job_name));
        let flaky = planned.is_some_and(|planned| planned.kind == Kind::Flaky);
        let recalled: Vec<u32> = if task.attempt == 1 {
            Vec::new()
        } else {
            let tried = attempts(api, &task.id).into_iter();
            let recalled = tried.filter(|attempt| attempt.state == AttemptState::Recalled);
            recalled.map(|attempt| attempt.number).collect()
        };
        // A flaky one fails as attempt 1, if it ever runs as that.
        let needed = if flaky && !recalled.contains(&1) { 2 } else { 1 };
        let needed = needed + u32::try_from(recalled.len()).expect("few");
        assert_eq!(task.attempt, needed, "{task:?}");
        let ran = (1..=task.attempt).filter(|number| !recalled.contains(number));
        expected.extend(ran.map(|attempt| ((task.id.clone(), attempt), [1, 1])));
    }
    let ran = ledger.counts();
    let more: Vec<_> = ran
        .iter()
        .filter(|(attempt, count)| expected.get(*attempt) != Some(*count))
        .take(10)
        .collect();
    let less: Vec<_> =
        expected.keys().filter(|attempt| !ran.contains_key(*attempt)).take(10).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "ran otherwise than recorded: {more:?}; did not run: {less:?}"
    );
}

/// Workers were lost: attempts are numbered without gaps, only the last one has a result, that one ran from start to end, none ran
/// twice, and none goes on once the next one has begun. Says how many attempts were lost.
pub(crate) fn only_last_attempts_count(
    api: Api,
    record: &Record,
    done: &Done,
    ledger: &Ledger,
) -> u64 {
    let lost = attempts_make_sense(api, record, done, ledger);
    let marks = ledger.marks();
    let overlaps = overlaps(&marks);
    assert!(overlaps.is_empty(), "the next attempt had begun: {overlaps:?}");
    lost
}

/// The same, but attempts may overlap: those of a worker that was frozen go on when it does.
pub(crate) fn attempts_make_sense(api: Api, record: &Record, done: &Done, ledger: &Ledger) -> u64 {
    let ran = ledger.counts();
    let mut lost = 0;
    for task in record.tasks() {
        let planned = done.acknowledged.get(&task.job).or_else(|| done.unknown.get(&task.job_name));
        let needed = if planned.is_some_and(|planned| planned.kind == Kind::Flaky) { 2 } else { 1 };
        let times = |number: u32| ran.get(&(task.id.clone(), number)).copied().unwrap_or_default();
        assert_eq!(times(task.attempt), [1, 1], "the result comes from this attempt: {task:?}");
        if task.attempt > needed || needed == 2 {
            lost += lost_attempts(api, task, &times);
        }
    }
    let known: BTreeMap<&str, u32> =
        record.tasks().map(|task| (task.id.as_str(), task.attempt)).collect();
    for ((task, attempt), times) in &ran {
        assert!(
            known.get(task.as_str()).is_some_and(|last| attempt <= last),
            "{task}#{attempt} is not in the record"
        );
        assert!(
            times[0] == 1 && times[1] <= 1,
            "{task}#{attempt} started and ended {times:?} times"
        );
    }
    lost
}

fn lost_attempts(api: Api, task: &Task, times: &dyn Fn(u32) -> [u32; 2]) -> u64 {
    let tried = attempts(api, &task.id);
    let numbers: Vec<u32> = tried.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (1..=task.attempt).collect::<Vec<_>>(), "{task:?}");
    let (_, earlier) = tried.split_last().expect("a task that is over had an attempt");
    for attempt in earlier {
        match attempt.state {
            AttemptState::Failed => assert_eq!(times(attempt.number), [1, 1], "{attempt:?}"),
            AttemptState::Lost => assert!(times(attempt.number)[0] <= 1, "{attempt:?}"),
            AttemptState::Recalled => assert_eq!(times(attempt.number), [0, 0], "{attempt:?}"),
            AttemptState::Live | AttemptState::Succeeded | AttemptState::Cancelled => {
                panic!("an attempt that was not the last is {:?}: {task:?}", attempt.state)
            }
        }
    }
    earlier.iter().filter(|attempt| attempt.state == AttemptState::Lost).count() as u64
}

/// The marks of attempts after the next one of their task had begun. The lines of the ledger are in the order in which they were written.
pub(crate) fn overlaps(marks: &[Mark]) -> Vec<&Mark> {
    let mut begun: BTreeMap<&str, u32> = BTreeMap::new();
    let mut late = Vec::new();
    for mark in marks {
        let latest = begun.entry(&mark.task).or_default();
        if mark.attempt < *latest {
            late.push(mark);
        } else if mark.moment == Moment::Start {
            *latest = mark.attempt;
        }
    }
    late
}

/// Every server holds the same jobs, once it is as far as the others.
pub(crate) fn every_server_tells_the_same(servers: &[Server]) {
    let first: Page<Job> = servers[0].api().get("/v1/jobs?limit=1000");
    let path = format!("/v1/jobs?limit=1000&consistency=stale&min_index={}", first.index);
    for server in servers {
        let page: Page<Job> = server.api().get(&path);
        assert_eq!(page.items, first.items, "{}", server.listen);
    }
}
