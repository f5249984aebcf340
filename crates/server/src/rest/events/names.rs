//! The names of nodes, for everybody who follows events.

use std::collections::{BTreeMap, BTreeSet};

use rota_types::NodeId;
use tokio::sync::Mutex;

/// Names that are remembered; beyond, they are looked up again.
const KNOWN_MAX: usize = 50_000;

/// Names that were looked up: a node's never changes.
#[derive(Default)]
pub(crate) struct Names(Mutex<BTreeMap<NodeId, String>>);

impl Names {
    /// The names of these nodes. What is not known yet is asked for, by one at a time: those who wait meanwhile find it known.
    ///
    /// # Errors
    /// If asking fails.
    pub(super) async fn of<A, E>(
        &self,
        nodes: BTreeSet<NodeId>,
        ask: impl FnOnce(BTreeSet<NodeId>) -> A,
    ) -> Result<BTreeMap<NodeId, String>, E>
    where
        A: Future<Output = Result<BTreeMap<NodeId, String>, E>>,
    {
        if nodes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut known = self.0.lock().await;
        if known.len() + nodes.len() > KNOWN_MAX {
            known.clear();
        }
        let missing: BTreeSet<NodeId> =
            nodes.iter().filter(|node| !known.contains_key(node)).copied().collect();
        if !missing.is_empty() {
            known.extend(ask(missing).await?);
        }
        let named = |node| Some((node, known.get(&node)?.clone()));
        Ok(nodes.into_iter().filter_map(named).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn a_name_is_asked_for_once_however_many_follow() {
        let names = Names::default();
        let asked = RefCell::new(Vec::new());
        let ask = |nodes: BTreeSet<NodeId>| async {
            tokio::task::yield_now().await;
            asked.borrow_mut().push(nodes.clone());
            Ok::<_, ()>(nodes.into_iter().map(|node| (node, format!("n{node}"))).collect())
        };
        let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let wanted = |ids: &[u32]| {
            Ok(ids.iter().map(|id| (NodeId(*id), format!("n{id}"))).collect::<BTreeMap<_, _>>())
        };
        let (first, second) =
            tokio::join!(names.of(nodes(&[1, 2]), ask), names.of(nodes(&[2, 3]), ask));
        assert_eq!((first, second), (wanted(&[1, 2]), wanted(&[2, 3])));
        assert_eq!(names.of(nodes(&[1, 3]), ask).await, wanted(&[1, 3]));
        assert_eq!(*asked.borrow(), [nodes(&[1, 2]), nodes(&[3])]);
        let refuse = |_| async { Err(()) };
        assert_eq!(names.of(nodes(&[4]), refuse).await, Err(()));
        assert_eq!(names.of(nodes(&[4]), ask).await, wanted(&[4]));
    }
}
