//! The planning pass: queues take turns by weight until nothing more fits or the budget is used up.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use rota_core::State;
use rota_core::command::Plan;
use rota_core::queue::Placement;
use rota_types::limits::BATCH_MAX;
use rota_types::{QueueId, TaskId};

use crate::cluster::Cluster;
use crate::pending::Pending;
use crate::placement::{PlacementPolicy, placement};
use crate::ranked::Ranked;

/// How much one pass may do. Counted in steps, never in time, so that every machine plans the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    steps: u64,
    tasks: u32,
    /// Whether something was placed: before that, steps don't end a pass. Else shapes that fit nowhere could use up every pass and
    /// hide for ever what would fit (L1).
    placed: bool,
}

/// The policies of all queues, with what they remember from pass to pass.
#[derive(Debug, Default)]
pub struct Planner {
    queues: BTreeMap<QueueId, Seat>,
}

/// One queue's policy and its share of turns.
#[derive(Debug)]
struct Seat {
    settings: Placement,
    policy: Box<dyn PlacementPolicy>,
    /// Tasks placed so far, divided by the weight: the queue with the least goes next (stride scheduling; Waldspurger and Weihl,
    /// MIT 1995).
    served: u64,
}

/// What one task of a queue of weight 1 adds to `served`.
const STRIDE: u64 = 1 << 20;
/// Tasks that a queue may place before another has its turn.
const TURN_TASKS: u32 = 16;

impl Budget {
    /// One pass of the live system: looks at up to a million nodes and places up to [`BATCH_MAX`] tasks.
    pub const PASS: Self = Self::new(1_000_000, BATCH_MAX as u32);

    /// A budget of `steps` looked-at nodes and `tasks` placed tasks.
    #[must_use]
    pub const fn new(steps: u64, tasks: u32) -> Self {
        Self { steps, tasks, placed: false }
    }

    /// Whether nothing more may be done.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.tasks == 0 || (self.steps == 0 && self.placed)
    }

    /// How many more tasks may be placed.
    #[must_use]
    pub fn tasks_left(&self) -> u32 {
        self.tasks
    }

    /// Notes that one node was looked at.
    pub fn spend_step(&mut self) {
        self.steps = self.steps.saturating_sub(1);
    }

    /// Notes that tasks were placed.
    pub fn spend_tasks(&mut self, tasks: u32) {
        self.tasks = self.tasks.saturating_sub(tasks);
        self.placed |= tasks > 0;
    }
}

impl Planner {
    /// Proposes placements for what is queued. Returns the plan, and whether the budget ended it: then there may be more to do.
    pub fn plan(&mut self, state: &State, ranked: &Ranked, budget: Budget) -> (Plan, bool) {
        self.plan_after(state, ranked, &[], budget)
    }

    /// As [`plan`](Self::plan), for a state in which the live attempts of the tasks `ending`, which are sorted, will have ended.
    pub fn plan_after(
        &mut self,
        state: &State,
        ranked: &Ranked,
        ending: &[TaskId],
        mut budget: Budget,
    ) -> (Plan, bool) {
        let mut plan = Plan::default();
        let mut cluster = Cluster::new(state, ending);
        let mut open = self.open(state, ranked);
        while let Some(id) = self.next_turn(&open) {
            if budget.is_used_up() {
                return (plan, true);
            }
            let turn = if open.len() == 1 { budget.tasks } else { TURN_TASKS.min(budget.tasks) };
            let (Some(pending), Some(seat)) = (open.get_mut(&id), self.queues.get_mut(&id)) else {
                break;
            };
            let mut share = Budget { tasks: turn, ..budget };
            seat.policy.place(&mut cluster, pending, &mut share, &mut plan);
            let placed = turn.saturating_sub(share.tasks);
            budget.steps = share.steps;
            budget.spend_tasks(placed);
            let weight = state.queue(id).map_or(1, |queue| u64::from(queue.spec.weight.max(1)));
            let share = u64::from(placed).saturating_mul(STRIDE) / weight;
            // Even the heaviest queue moves on, or no other would have a turn.
            seat.served = seat.served.saturating_add(share.max(u64::from(placed > 0)));
            if placed < turn && !budget.is_used_up() {
                open.remove(&id);
            }
        }
        (plan, false)
    }

    /// The queues that may start something, each with its tasks. A queue that comes back from idleness gets no credit for it.
    fn open<'a>(&mut self, state: &State, ranked: &'a Ranked) -> BTreeMap<QueueId, Pending<'a>> {
        let mut open = BTreeMap::new();
        self.queues.retain(|id, _| state.queue(*id).is_some());
        for id in ranked.waiting() {
            let (Some(queue), Some(tasks)) = (state.queue(id), ranked.queue(id)) else {
                continue;
            };
            if queue.room() > 0 {
                open.insert(id, Pending::new(tasks, queue.room()));
                let settings = queue.spec.placement;
                let seat = self.queues.entry(id).or_insert_with(|| Seat::new(settings));
                if seat.settings != settings {
                    *seat = Seat { served: seat.served, ..Seat::new(settings) };
                }
            }
        }
        let floor = self
            .queues
            .iter()
            .filter(|(id, _)| open.contains_key(id))
            .map(|(_, seat)| seat.served)
            .max();
        let slack = u64::from(TURN_TASKS).saturating_mul(STRIDE);
        for (id, seat) in &mut self.queues {
            if open.contains_key(id) {
                seat.served = seat.served.max(floor.unwrap_or(0).saturating_sub(slack));
            }
        }
        open
    }

    fn next_turn(&self, open: &BTreeMap<QueueId, Pending<'_>>) -> Option<QueueId> {
        open.keys()
            .copied()
            .min_by_key(|id| (self.queues.get(id).map_or(0, |seat| seat.served), *id))
    }
}

impl Seat {
    fn new(settings: Placement) -> Self {
        Self { settings, policy: placement(settings), served: 0 }
    }
}
