//! Shapes, kept once each: tasks that demand the same are planned, refused and counted together.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::Shape;

/// Names a shape for as long as a live group has it. Not replicated: two servers may number shapes differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeId(pub u32);

/// Every shape that a live group has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shapes {
    entries: Vec<ShapeUse>,
    ids: BTreeMap<Arc<Shape>, ShapeId>,
    free: BTreeSet<ShapeId>,
}

/// A shape, and how much it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShapeUse {
    pub(crate) shape: Arc<Shape>,
    pub(crate) groups: u64,
    pub(crate) queued: u64,
    pub(crate) running: u64,
}

impl Shapes {
    /// Finds or adds `shape` for one more group.
    pub(crate) fn acquire(&mut self, shape: &Shape) -> ShapeId {
        let id = match self.ids.get(shape) {
            Some(id) => *id,
            None => self.add(Arc::new(shape.clone())),
        };
        if let Some(entry) = self.entries.get_mut(id.0 as usize) {
            entry.groups = entry.groups.saturating_add(1);
        }
        id
    }

    fn add(&mut self, shape: Arc<Shape>) -> ShapeId {
        let fresh = ShapeUse { shape: Arc::clone(&shape), ..ShapeUse::default() };
        let id = match self.free.pop_first() {
            Some(id) => {
                if let Some(entry) = self.entries.get_mut(id.0 as usize) {
                    *entry = fresh;
                }
                id
            }
            None => {
                let id = ShapeId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
                self.entries.push(fresh);
                id
            }
        };
        self.ids.insert(shape, id);
        id
    }

    /// Notes that one group has gone; forgets the shape with its last group.
    pub(crate) fn release(&mut self, id: ShapeId) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        entry.groups = entry.groups.saturating_sub(1);
        if entry.groups == 0 {
            self.ids.remove(&entry.shape);
            *entry = ShapeUse::default();
            self.free.insert(id);
        }
    }

    /// The shape with this id.
    ///
    /// # Panics
    /// If no live group has it: groups hold their shapes.
    pub(crate) fn get(&self, id: ShapeId) -> &ShapeUse {
        self.entries.get(id.0 as usize).expect("groups hold their shapes")
    }

    pub(crate) fn get_mut(&mut self, id: ShapeId) -> Option<&mut ShapeUse> {
        self.entries.get_mut(id.0 as usize)
    }

    /// Every shape in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ShapeId, &ShapeUse)> {
        self.ids.values().map(|id| (*id, self.get(*id)))
    }
}
