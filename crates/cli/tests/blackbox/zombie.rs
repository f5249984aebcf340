//! A worker that is frozen for longer than its lease and then goes on.

use rota_api::{Attempt, AttemptState, SubmitReply, Task, TaskState};
use serde_json::json;

use crate::harness::{
    Api, Arena, Chance, Ledger, Moment, PATIENCE, Signal, attempts, one_at_a_time, until,
};

/// Submits a task whose first attempt fails after `first` seconds and whose second one succeeds after `second`.
fn submit(api: Api, ledger: &Ledger, first: u32, second: u32) -> String {
    let work = format!("if [ $ROTA_ATTEMPT = 1 ]; then sleep {first}; else sleep {second}; fi");
    let script = ledger.script("zombie", &work, "$(( ROTA_ATTEMPT == 1 ? 9 : 0 ))");
    let answer = api.json("POST", "/v1/jobs", &json!({"task": [{"command": script}]}));
    let reply: SubmitReply = answer.expect("the server answers").expect(201);
    format!("{}.0", reply.jobs[0].id)
}

fn ends_of(ledger: &Ledger, number: u32) -> usize {
    let marks = ledger.marks();
    marks.iter().filter(|mark| mark.attempt == number && mark.moment == Moment::End).count()
}

/// Number, state and node of each attempt.
fn told(attempts: &[Attempt]) -> Vec<(u32, AttemptState, &str)> {
    attempts.iter().map(|attempt| (attempt.number, attempt.state, attempt.node.as_str())).collect()
}

/// `second` decides whether the report of the first attempt comes while the second one runs, or after it.
fn a_late_report_is_refused(second: u32, goes_on_after_the_second: bool) {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("zombie");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &["--lease", "2s"]);
    server.start();
    let api = server.api();
    let mut zombie = arena.worker("zombie", &server, &["--cpus", "1"]);
    zombie.start(api);
    let task = submit(api, &arena.ledger, 1, second);
    until("the first attempt's process", PATIENCE, || (arena.ledger.running() == 1).then_some(()));
    let mut other = arena.worker("other", &server, &["--cpus", "1"]);
    other.start(api);
    zombie.process().signal(Signal::STOP);
    // Its process ends well before anybody asks for it: nobody is there to report it.
    until("the first attempt's end", PATIENCE, || (ends_of(&arena.ledger, 1) == 1).then_some(()));
    until("the second attempt", PATIENCE, || {
        let now: Task = api.get(&format!("/v1/tasks/{task}"));
        (now.attempt == 2).then_some(())
    });
    let lost = AttemptState::Lost;
    if goes_on_after_the_second {
        until("the task's end", PATIENCE, || {
            let now: Task = api.get(&format!("/v1/tasks/{task}"));
            (now.state == TaskState::Succeeded).then_some(())
        });
    } else {
        let now = attempts(api, &task);
        assert_eq!(told(&now), [(1, lost, "zombie"), (2, AttemptState::Live, "other")]);
    }
    zombie.process().signal(Signal::CONT);
    zombie.wait_connected(api);
    until("the task's end", PATIENCE, || {
        let now: Task = api.get(&format!("/v1/tasks/{task}"));
        (now.state != TaskState::Running).then_some(())
    });
    zombie.process().must_run();
    // The zombie has said what it had to say once it takes work again.
    other.kill();
    let next = submit(api, &arena.ledger, 0, 0);
    until("another task's end", PATIENCE, || {
        let now: Task = api.get(&format!("/v1/tasks/{next}"));
        let over = matches!(now.state, TaskState::Failed | TaskState::Succeeded);
        (over && now.node.as_deref() == Some("zombie")).then_some(())
    });
    let end: Task = api.get(&format!("/v1/tasks/{task}"));
    assert_eq!((end.state, end.attempt, end.failure), (TaskState::Succeeded, 2, None));
    let tried = attempts(api, &task);
    assert_eq!(told(&tried), [(1, lost, "zombie"), (2, AttemptState::Succeeded, "other")]);
    let mut ran = arena.ledger.counts();
    ran.retain(|(of, _), _| *of == task);
    assert_eq!(ran, [1, 2].map(|number| ((task.clone(), number), [1, 1])).into());
}

#[test]
fn a_late_report_of_a_frozen_worker_is_refused_while_the_next_attempt_runs() {
    a_late_report_is_refused(6, false);
}

#[test]
fn a_late_report_of_a_frozen_worker_is_refused_after_the_task_is_over() {
    a_late_report_is_refused(1, true);
}
