//! The tasks of one queue during one planning pass.

use alloc::collections::btree_map;
use alloc::collections::{BTreeMap, BTreeSet};

use rota_core::ShapeId;
use rota_types::TaskId;

use crate::discipline::Rank;
use crate::ranked::RankedQueue;

/// The queued tasks of one queue, best first, merged over shapes. A shape that was refused once is passed over for the rest of
/// the pass: what follows it may go ahead.
#[derive(Debug)]
pub struct Pending<'a> {
    heads: BTreeSet<(Rank, TaskId, ShapeId)>,
    shapes: BTreeMap<ShapeId, Runs<'a>>,
    room: u64,
}

/// The rest of one shape's runs.
#[derive(Debug)]
struct Runs<'a> {
    rest: btree_map::Iter<'a, (Rank, TaskId), u32>,
    /// How many tasks of the head's run are left.
    left: u32,
}

/// The tasks that go next: a run of consecutive tasks of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The first of the run.
    pub task: TaskId,
    /// How many there are.
    pub count: u32,
    /// What they demand.
    pub shape: ShapeId,
}

impl<'a> Pending<'a> {
    /// All queued tasks of a queue of which `room` may start.
    pub(crate) fn new(queue: &'a RankedQueue, room: u64) -> Self {
        let mut pending = Self { heads: BTreeSet::new(), shapes: BTreeMap::new(), room };
        for (shape, runs) in &queue.by_shape {
            let runs = Runs { rest: runs.iter(), left: 0 };
            pending.shapes.insert(*shape, runs);
            pending.advance(*shape);
        }
        pending
    }

    /// The tasks that go next, if any may.
    #[must_use]
    pub fn next(&self) -> Option<Candidate> {
        let (_, task, shape) = *self.heads.first()?;
        let left = self.shapes.get(&shape)?.left;
        let room = u32::try_from(self.room).unwrap_or(u32::MAX);
        (room > 0).then_some(Candidate { task, count: left.min(room), shape })
    }

    /// Takes the first `count` tasks of the candidate out.
    pub fn take(&mut self, count: u32) {
        self.room = self.room.saturating_sub(u64::from(count));
        let Some((rank, task, shape)) = self.heads.pop_first() else {
            return;
        };
        let Some(runs) = self.shapes.get_mut(&shape) else {
            return;
        };
        runs.left = runs.left.saturating_sub(count);
        if runs.left == 0 {
            self.advance(shape);
        } else {
            let task = TaskId { index: task.index.saturating_add(count), ..task };
            self.heads.insert((rank, task, shape));
        }
    }

    /// Passes over every task of the candidate's shape for the rest of the pass.
    pub fn refuse(&mut self) {
        if let Some((_, _, shape)) = self.heads.pop_first() {
            self.shapes.remove(&shape);
        }
    }

    fn advance(&mut self, shape: ShapeId) {
        let Some(runs) = self.shapes.get_mut(&shape) else {
            return;
        };
        if let Some(((rank, task), count)) = runs.rest.next() {
            runs.left = *count;
            self.heads.insert((*rank, *task, shape));
        }
    }
}
