//! Members as rota knows them, and as the library does.

use std::collections::BTreeMap;

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use rota_ports::{Change, ChangeRefused, MEMBERS_MAX, Members};
use rota_types::ServerId;

use crate::cursor::{Cursor, Put};

/// The members after each entry that changed them.
#[derive(Debug)]
pub(super) struct History(BTreeMap<u64, Members>);

impl History {
    pub(super) fn new(index: u64, members: Members) -> Self {
        Self(BTreeMap::from([(index, members)]))
    }

    pub(super) fn note(&mut self, index: u64, members: Members) {
        self.0.insert(index, members);
    }

    /// The members after the entry at `index`.
    pub(super) fn at(&self, index: u64) -> Option<&Members> {
        self.0.range(..=index).next_back().map(|(_, members)| members)
    }

    /// The members after the last entry.
    pub(super) fn now(&self) -> &Members {
        self.0.values().next_back().expect("there are members from the start")
    }

    /// Forgets what was before the entry at `index`.
    pub(super) fn forget_before(&mut self, index: u64) {
        if let Some(members) = self.at(index).cloned() {
            self.0 = self.0.split_off(&index);
            self.0.entry(index).or_insert(members);
        }
    }
}

fn raw(servers: &[ServerId]) -> Vec<u64> {
    servers.iter().map(|server| server.0).collect()
}

fn sorted(ids: &[u64]) -> Vec<ServerId> {
    let mut servers: Vec<ServerId> = ids.iter().copied().map(ServerId).collect();
    servers.sort_unstable();
    servers
}

pub(super) fn conf_state(members: &Members) -> ConfState {
    let Members { voters, outgoing, learners, learners_next } = members;
    ConfState {
        voters: raw(voters),
        learners: raw(learners),
        voters_outgoing: raw(outgoing),
        learners_next: raw(learners_next),
        // Joint members are left as soon as all changes are committed: no other kind is ever asked for.
        auto_leave: !outgoing.is_empty(),
        ..ConfState::default()
    }
}

pub(super) fn from_conf_state(state: &ConfState) -> Members {
    Members {
        voters: sorted(&state.voters),
        outgoing: sorted(&state.voters_outgoing),
        learners: sorted(&state.learners),
        learners_next: sorted(&state.learners_next),
    }
}

/// The bytes of a change in the log.
pub(super) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.count(changes.len());
    for change in changes {
        bytes.push(match change {
            Change::AddLearner(_) => 0,
            Change::AddVoter(_) => 1,
            Change::Remove(_) => 2,
        });
        bytes.number(change.server().0);
    }
    bytes
}

/// The change that those bytes describe; nothing leaves joint membership.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Change>> {
    if bytes.is_empty() {
        return Some(Vec::new()); // the library asked for it by itself
    }
    let mut cursor = Cursor(bytes);
    let count = cursor.count(9)?;
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let (kind, server) = (cursor.byte()?, ServerId(cursor.number()?));
        changes.push(match kind {
            0 => Change::AddLearner(server),
            1 => Change::AddVoter(server),
            2 => Change::Remove(server),
            _ => return None,
        });
    }
    cursor.end(changes)
}

/// The change as the library knows it.
pub(super) fn to_library(changes: &[Change]) -> ConfChangeV2 {
    let changes = changes.iter().map(|change| {
        let change_type = match change {
            Change::AddLearner(_) => ConfChangeType::AddLearnerNode,
            Change::AddVoter(_) => ConfChangeType::AddNode,
            Change::Remove(_) => ConfChangeType::RemoveNode,
        };
        ConfChangeSingle { change_type, node_id: change.server().0, ..ConfChangeSingle::default() }
    });
    ConfChangeV2 { changes: changes.collect::<Vec<_>>().into(), ..ConfChangeV2::default() }
}

/// Says whether `leader` may ask for these changes of `members`.
pub(super) fn check(
    members: &Members,
    changes: &[Change],
    leader: ServerId,
) -> Result<(), ChangeRefused> {
    let (mut voters, mut learners) = (members.voters.clone(), members.learners.clone());
    for (at, change) in changes.iter().enumerate() {
        let server = change.server();
        if server == ServerId(0) {
            return Err(ChangeRefused::Invalid("0 is no server's id"));
        }
        if changes[..at].iter().any(|before| before.server() == server) {
            return Err(ChangeRefused::Invalid("the same server is changed twice"));
        }
        if server == leader && *change != Change::AddVoter(server) {
            let why = "the leader can't remove itself; transfer leadership first";
            return Err(ChangeRefused::Invalid(why));
        }
        if matches!(change, Change::AddVoter(_))
            && !voters.contains(&server)
            && !learners.contains(&server)
        {
            return Err(ChangeRefused::Invalid("a new server has to be a learner first"));
        }
        voters.retain(|voter| *voter != server);
        learners.retain(|learner| *learner != server);
        match change {
            Change::AddLearner(_) => learners.push(server),
            Change::AddVoter(_) => voters.push(server),
            Change::Remove(_) => {}
        }
    }
    if voters.len() + learners.len() > MEMBERS_MAX {
        return Err(ChangeRefused::Invalid("a cluster has at most 32 members; remove one first"));
    }
    if changes.is_empty() || (voters.len(), learners.len()) == (0, 0) {
        return Err(ChangeRefused::Invalid("nothing is asked for"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(ids: &[u64]) -> Vec<ServerId> {
        ids.iter().copied().map(ServerId).collect()
    }

    #[test]
    fn a_change_reads_back_as_it_was_written() {
        let changes = [
            Change::AddLearner(ServerId(7)),
            Change::AddVoter(ServerId(u64::MAX)),
            Change::Remove(ServerId(1)),
        ];
        let bytes = encode(&changes);
        assert_eq!(decode(&bytes).as_deref(), Some(&changes[..]));
        for cut in 1..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "cut to {cut}");
        }
    }

    #[test]
    fn changes_that_make_no_sense_are_refused_with_a_reason() {
        let members =
            Members { voters: servers(&[1, 2]), learners: servers(&[3]), ..Members::default() };
        let refused = |changes: &[Change]| match check(&members, changes, ServerId(1)) {
            Err(ChangeRefused::Invalid(why)) => why,
            other => panic!("{changes:?}: {other:?}"),
        };
        assert!(refused(&[]).contains("nothing"));
        assert!(refused(&[Change::Remove(ServerId(1))]).contains("transfer"));
        assert!(refused(&[Change::AddLearner(ServerId(1))]).contains("transfer"));
        assert!(refused(&[Change::AddVoter(ServerId(4))]).contains("learner first"));
        assert!(refused(&[Change::AddLearner(ServerId(0))]).contains("no server's id"));
        let twice = [Change::AddLearner(ServerId(4)), Change::Remove(ServerId(4))];
        assert!(refused(&twice).contains("twice"));
        let swap = [Change::AddVoter(ServerId(3)), Change::Remove(ServerId(2))];
        assert_eq!(check(&members, &swap, ServerId(1)), Ok(()));
    }

    #[test]
    fn a_cluster_takes_as_many_members_as_it_may_have_and_no_more() {
        for (have, allowed) in
            [(MEMBERS_MAX - 2, true), (MEMBERS_MAX - 1, true), (MEMBERS_MAX, false)]
        {
            let ids: Vec<u64> = (1..=have as u64).collect();
            let members = Members { voters: servers(&ids), ..Members::default() };
            let change = [Change::AddLearner(ServerId(1_000))];
            assert_eq!(check(&members, &change, ServerId(1)).is_ok(), allowed, "{have} members");
        }
    }
}
