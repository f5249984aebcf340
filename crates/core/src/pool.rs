//! Values that many jobs have in common, kept once each.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

/// Equal values of live jobs, kept once, with how many hold each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool<T> {
    uses: BTreeMap<Arc<T>, u64>,
}

impl<T: Ord> Pool<T> {
    /// Finds or adds `value` for one more holder.
    pub(crate) fn acquire(&mut self, value: T) -> Arc<T> {
        let shared = match self.uses.get_key_value(&value) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(value),
        };
        self.note(&shared);
        shared
    }

    /// Counts one more holder of `shared`.
    pub(crate) fn note(&mut self, shared: &Arc<T>) {
        let uses = self.uses.entry(Arc::clone(shared)).or_default();
        *uses = uses.saturating_add(1);
    }

    /// Notes that one holder has gone; forgets the value with the last.
    pub(crate) fn release(&mut self, value: &T) {
        if let Some(uses) = self.uses.get_mut(value) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.uses.remove(value);
            }
        }
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { uses: BTreeMap::new() }
    }
}
