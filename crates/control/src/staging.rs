//! Behind which running tasks others may be staged, and which of those are taken back. The leader's memory: what it forgets it
//! learns again.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use rota_core::command::Plan;
use rota_core::event::{AttemptRecord, AttemptState, Event};
use rota_core::task::Task;
use rota_core::{STAGING_LEVEL, ShapeId, State};
use rota_policy::{Ranked, stage};
use rota_types::limits::BATCH_MAX;
use rota_types::{ActionKind, AttemptId, Monotonic, NodeId, QueueId, Span, TaskId};

/// How long tasks may take on average for others to be staged behind them: where they take longer nothing is gained.
pub const STAGED_MEAN_MAX: Span = Span::from_millis(50);
/// How long a staged task waits for its turn before it is asked back.
pub const RECALL_AFTER: Span = Span::from_millis(250);
/// How many tasks at most are staged behind one that runs.
pub const STAGED_MAX: u32 = 4;
/// How long it may take from the end of a task until the next one is staged: what is staged lasts as long.
const STAGED_SPAN: Span = Span::from_millis(5);
/// The share of the newest task in the mean, as a divisor.
const MEAN_DIVISOR: u64 = 8;
/// For how many lanes the mean is remembered.
const LANES_MAX: usize = 4_096;

/// What a staged task has in common with the one ahead of it.
type Lane = (QueueId, ShapeId);

/// Live tasks, by what may be staged behind them.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    places: BTreeMap<TaskId, Place>,
    /// The last of each line, unless that is long enough, by how many are ahead of it.
    open: BTreeMap<Lane, BTreeSet<(u32, TaskId)>>,
    /// How long tasks take, in microseconds.
    means: BTreeMap<Lane, u64>,
    /// When to ask for staged tasks, earliest first.
    recalls: VecDeque<(Monotonic, AttemptId)>,
}

/// A task in a line: the first one runs, the others are staged.
#[derive(Clone, Copy, Debug)]
struct Place {
    lane: Lane,
    /// How many are ahead of it.
    ahead: u32,
    before: Option<TaskId>,
    behind: Option<TaskId>,
    /// Whether nothing may be staged behind it: it was told to stop, takes too long, or is where nothing may be staged.
    closed: bool,
}

impl Lanes {
    /// What the state gives back.
    pub(crate) fn new(state: &State, now: Monotonic) -> Self {
        let mut lanes = Self::default();
        for (_, node) in state.nodes() {
            for first in &node.live {
                lanes.run(state, *first);
                let mut ahead = *first;
                while let Some(task) = node.staged.get(&ahead) {
                    lanes.line_up(state, *task, ahead, now);
                    ahead = *task;
                }
            }
        }
        lanes
    }

    /// Takes in what became true.
    pub(crate) fn observe(&mut self, state: &State, event: &Event, now: Monotonic) {
        match event {
            Event::AttemptsCreated(placement) => {
                let first = placement.task;
                let end = first.index.saturating_add(placement.count);
                for index in first.index..end {
                    self.run(state, TaskId { job: first.job, index });
                }
            }
            Event::AttemptStaged { task, behind, .. } => self.line_up(state, *task, *behind, now),
            Event::AttemptEnded(record) => self.end(record),
            Event::StopRequested(attempt) => {
                self.change(attempt.task, |place| place.closed = true);
            }
            _ => {}
        }
    }

    /// Adds what may be staged to a plan for a state in which the attempts of `ending`, which are sorted, will have ended.
    pub(crate) fn stage(&self, state: &State, ranked: &Ranked, ending: &[TaskId], plan: &mut Plan) {
        if state.level() < STAGING_LEVEL || self.means.is_empty() {
            return;
        }
        let mut lines: BTreeMap<Lane, BTreeSet<(u32, TaskId)>> = BTreeMap::new();
        stage(state, ranked, plan, BATCH_MAX, |task, lane| {
            let most = self.staged_max(lane);
            if most == 0 {
                return None;
            }
            let lines = lines.entry(lane).or_insert_with(|| self.open_after(state, lane, ending));
            let (ahead, last) = *lines.first().filter(|(ahead, _)| *ahead < most)?;
            lines.pop_first();
            if ahead.saturating_add(1) < most {
                lines.insert((ahead.saturating_add(1), task));
            }
            Some(last)
        });
    }

    /// Behind which tasks of a lane others may be staged once `ending` are over.
    fn open_after(&self, state: &State, lane: Lane, ending: &[TaskId]) -> BTreeSet<(u32, TaskId)> {
        let ends = |task: TaskId| ending.binary_search(&task).is_ok();
        let mut open: BTreeSet<(u32, TaskId)> = BTreeSet::new();
        let known = self.open.get(&lane).into_iter().flatten();
        let takes = |(_, task): &&(u32, TaskId)| !ends(*task) && state.takes_behind(*task);
        open.extend(known.filter(takes).take(BATCH_MAX));
        for task in ending {
            // The line behind it moves up by one for each that ends.
            let (mut last, mut ahead) = (None, 0_u32);
            let mut next =
                self.places.get(task).filter(|place| place.lane == lane && place.ahead == 0);
            while let Some(place) = next {
                let behind = place.behind.and_then(|id| Some((id, self.places.get(&id)?)));
                if let Some((id, _)) = behind.filter(|(id, _)| !ends(*id)) {
                    ahead = if last.is_some() { ahead.saturating_add(1) } else { 0 };
                    last = Some(id);
                }
                next = behind.map(|(_, place)| place);
            }
            if let Some(last) = last {
                if let Some(place) = self.places.get(&last) {
                    open.remove(&(place.ahead, last));
                }
                if ahead < STAGED_MAX && state.takes_behind(last) {
                    open.insert((ahead, last));
                }
            }
        }
        open
    }

    /// The staged attempts that have waited too long. Each is named again later if it still waits then.
    pub(crate) fn overdue(&mut self, state: &State, now: Monotonic) -> Vec<(NodeId, AttemptId)> {
        let mut overdue = Vec::new();
        while let Some((due, attempt)) = self.recalls.front().copied() {
            let staged = state
                .task(attempt.task)
                .filter(|task| task.attempts == attempt.number && task.behind().is_some());
            let Some(node) = staged.and_then(Task::attempt).map(|attempt| attempt.node) else {
                self.recalls.pop_front();
                continue;
            };
            if due > now {
                break;
            }
            self.recalls.pop_front();
            self.recalls.push_back((now.plus(RECALL_AFTER), attempt));
            self.give_up(attempt.task);
            overdue.push((node, attempt));
        }
        overdue
    }

    /// What is ahead of a task takes longer than was thought: nothing more is staged behind it, and less behind others.
    fn give_up(&mut self, task: TaskId) {
        let mut at = Some(task);
        while let Some(place) = at.and_then(|id| self.places.get(&id).copied()) {
            at.into_iter().for_each(|id| self.change(id, |place| place.closed = true));
            if place.before.is_none() {
                self.learn(place.lane, RECALL_AFTER);
            }
            at = place.before;
        }
    }

    /// When [`overdue`](Self::overdue) may name something.
    pub(crate) fn next_recall(&self) -> Option<Monotonic> {
        self.recalls.front().map(|(due, _)| *due)
    }

    /// How many tasks of a lane may be staged behind one that runs: more of shorter ones.
    fn staged_max(&self, lane: Lane) -> u32 {
        match self.means.get(&lane).copied() {
            Some(mean) if mean <= STAGED_MEAN_MAX.micros() => {
                let fill = STAGED_SPAN.micros() / mean.max(1);
                u32::try_from(fill).unwrap_or(u32::MAX).saturating_add(1).min(STAGED_MAX)
            }
            Some(_) | None => 0,
        }
    }

    /// A task runs, and nothing is staged behind it. No-ops are over before anything could be.
    fn run(&mut self, state: &State, task: TaskId) {
        let Some(lane) = state.lane(task) else { return };
        if state.shape(lane.1).kind != Some(ActionKind::Noop) {
            let closed = !state.takes_behind(task);
            let place = Place { lane, ahead: 0, before: None, behind: None, closed };
            self.places.insert(task, place);
            self.change(task, |_| ());
        }
    }

    fn line_up(&mut self, state: &State, task: TaskId, before: TaskId, now: Monotonic) {
        let Some(Place { lane, ahead, .. }) = self.places.get(&before).copied() else { return };
        self.change(before, |place| place.behind = Some(task));
        let ahead = ahead.saturating_add(1);
        let place = Place { lane, ahead, before: Some(before), behind: None, closed: false };
        self.places.insert(task, place);
        self.change(task, |_| ());
        if let Some(latest) = state.task(task).map(|staged| staged.latest(task)) {
            self.recalls.push_back((now.plus(RECALL_AFTER), latest));
        }
    }

    fn end(&mut self, record: &AttemptRecord) {
        let task = record.attempt.task;
        self.change(task, |place| place.closed = true);
        let Some(Place { lane, before, mut behind, .. }) = self.places.remove(&task) else {
            return;
        };
        if let Some(before) = before {
            self.change(before, |place| place.behind = behind);
        }
        if let Some(next) = behind {
            self.change(next, |place| place.before = before);
        }
        // Those behind it move up.
        while let Some(next) = behind {
            self.change(next, |place| place.ahead = place.ahead.saturating_sub(1));
            behind = self.places.get(&next).and_then(|place| place.behind);
        }
        let ran = matches!(record.state, AttemptState::Succeeded | AttemptState::Failed);
        if let Some(started_at) = record.started_at.filter(|_| ran) {
            self.learn(lane, Span(record.ended_at.0.saturating_sub(started_at.0)));
        }
    }

    /// Changes a place and whether it is open. The only writer of what is open.
    fn change(&mut self, task: TaskId, change: impl FnOnce(&mut Place)) {
        let Some(place) = self.places.get_mut(&task) else { return };
        let old = *place;
        change(place);
        let Place { lane, ahead, behind, closed, .. } = *place;
        if let Some(open) = self.open.get_mut(&lane) {
            open.remove(&(old.ahead, task));
        }
        if behind.is_none() && !closed && ahead < STAGED_MAX {
            self.open.entry(lane).or_default().insert((ahead, task));
        } else if self.open.get(&lane).is_some_and(BTreeSet::is_empty) {
            self.open.remove(&lane);
        }
    }

    /// Takes the length of one more task into the mean: an exponentially weighted one, so that the last few dozen count.
    fn learn(&mut self, lane: Lane, took: Span) {
        if self.means.len() >= LANES_MAX {
            self.means.clear();
        }
        let took = took.micros().min(RECALL_AFTER.micros());
        let mean = self.means.entry(lane).or_insert(took);
        // One long task among quick ones is enough to be careful for a while.
        *mean = if took == RECALL_AFTER.micros() {
            took
        } else {
            (*mean).saturating_sub(*mean / MEAN_DIVISOR).saturating_add(took / MEAN_DIVISOR)
        };
    }
}
