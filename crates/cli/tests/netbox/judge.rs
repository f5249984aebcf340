//! What the ledger says about overlaps and capacity.

use std::collections::{BTreeMap, BTreeSet};

use crate::faults::Done;
use crate::harness::{Mark, Moment};
use crate::plan::Fault;

/// Marks of attempts after the next one had begun, each with whether a promise is broken: not if its worker was frozen at some time in the run,
/// which is what promises.md calls a machine that was suspended.
pub(crate) fn overlaps(late: &[&Mark], faults: &[Done]) -> (usize, Vec<Mark>) {
    let frozen = faults.iter().filter(|done| done.fault == Fault::FreezeWorker);
    let frozen: BTreeSet<&str> = frozen.filter_map(|done| done.worker.as_deref()).collect();
    let (explained, broken): (Vec<&Mark>, Vec<&Mark>) =
        late.iter().partition(|mark| frozen.contains(mark.node.as_str()));
    (explained.len(), broken.into_iter().cloned().collect())
}

/// The most attempts of one worker that ran at one time. Those that never told their end were killed: they count as over at once.
pub(crate) fn most_at_once(marks: &[Mark]) -> BTreeMap<&str, usize> {
    let of = |mark: &Mark| (mark.task.clone(), mark.attempt);
    let ended: BTreeSet<_> =
        marks.iter().filter(|mark| mark.moment == Moment::End).map(of).collect();
    let mut running: BTreeMap<&str, BTreeSet<(String, u32)>> = BTreeMap::new();
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    for mark in marks.iter().filter(|mark| ended.contains(&of(mark))) {
        let now = running.entry(&mark.node).or_default();
        match mark.moment {
            Moment::Start => now.insert(of(mark)),
            Moment::End => now.remove(&of(mark)),
        };
        let most = most.entry(&mark.node).or_default();
        *most = (*most).max(now.len());
    }
    most
}
