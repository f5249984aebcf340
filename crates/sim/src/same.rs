//! Whether two states hold the same, asked through their queries: what a snapshot forgets is missing from its records and from its
//! digest alike, so that comparing those proves nothing.

use rota_core::State;
use rota_core::image::BadImage;

/// Takes a state to pieces, puts it together again, and looks for a difference (I7).
pub(crate) fn restores(state: &State) -> Result<State, String> {
    let again = State::restore(state.records().map(Ok::<_, BadImage>));
    let again = again.map_err(|error| format!("I7: {error}"))?;
    let violations = again.check();
    if !violations.is_empty() {
        return Err(format!("I7: a restored state is broken: {violations:?}"));
    }
    same(state, &again)?;
    Ok(again)
}

/// Looks for a difference between two states.
pub(crate) fn same(left: &State, right: &State) -> Result<(), String> {
    let clocks = |state: &State| (state.index(), state.now(), state.steady(), state.next_job());
    if clocks(left) != clocks(right) || left.next_deadline() != right.next_deadline() {
        return Err(format!("I7: {:?} is not {:?}", clocks(left), clocks(right)));
    }
    if !left.queues().eq(right.queues()) {
        return Err("I7: queues differ".into());
    }
    if !left.nodes().eq(right.nodes()) {
        return Err("I7: nodes differ".into());
    }
    if left.job_count() != right.job_count() || left.live_tasks() != right.live_tasks() {
        return Err("I7: counts differ".into());
    }
    for ((id, one), (_, other)) in left.jobs().zip(right.jobs()) {
        let fresh = |job: &rota_core::job::Job| {
            job.groups.iter().map(|group| (group.fresh.clone(), group.counts())).collect::<Vec<_>>()
        };
        let plain = |job: &rota_core::job::Job| {
            let ends = (job.failed().clone(), job.cancelled().clone(), job.live);
            (job.queue, job.priority, job.submitted_at, job.ready_at, job.started_at, ends)
        };
        let tasks = left.tasks_of(id).eq(right.tasks_of(id));
        if fresh(one) != fresh(other) || plain(one) != plain(other) || !tasks {
            return Err(format!("I7: job {id} differs: {one:?}, {other:?}"));
        }
        if left.spec_of(one) != right.spec_of(other) {
            return Err(format!("I7: what was submitted as job {id} differs"));
        }
    }
    if left.digest() == right.digest() {
        return Ok(());
    }
    let differs = left.records().zip(right.records()).find(|(left, right)| left != right);
    Err(format!("I7: the records differ: {differs:?}"))
}
