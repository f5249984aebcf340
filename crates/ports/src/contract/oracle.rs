//! What the cluster has promised, and whether it keeps it.

use std::collections::{BTreeMap, BTreeSet};

use rota_types::{LogIndex, ServerId};

use super::disk::Machine;

#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// The state after each entry, as the first server to apply it had it.
    digests: BTreeMap<u64, u64>,
    /// Every entry with commands that was committed.
    chosen: BTreeSet<Box<[u8]>>,
    /// The last entry that anybody was told of.
    pub(super) seen: u64,
    /// Which server led each term.
    leaders: BTreeMap<u64, ServerId>,
    /// The last entry that was acknowledged in each term.
    last_of_term: BTreeMap<u64, u64>,
}

impl Oracle {
    /// How many entries were committed.
    pub(super) fn committed(&self) -> u64 {
        self.digests.keys().next_back().copied().unwrap_or(0)
    }

    /// Prefix agreement, and one outcome per proposal.
    pub(super) fn applied(&mut self, machine: Machine, entry: Option<&[u8]>) -> Result<(), String> {
        let Machine { index, digest } = machine;
        if let Some(before) = self.digests.get(&index) {
            if *before == digest {
                return Ok(());
            }
            return Err(format!("two servers applied different entries up to {index}"));
        }
        self.digests.insert(index, digest);
        match entry {
            Some(bytes) if !self.chosen.insert(bytes.into()) => {
                Err(format!("a proposal was committed again at {index}"))
            }
            _ => Ok(()),
        }
    }

    /// A read that was asked for when everything up to `seen` was known is answered.
    pub(super) fn read(
        &mut self,
        asked: u64,
        index: LogIndex,
        machine: Machine,
    ) -> Result<(), String> {
        if index.0 < asked {
            return Err(format!("a read from entry {index} misses entry {asked}"));
        }
        self.seen = self.seen.max(machine.index);
        Ok(())
    }

    /// Notes that somebody was told of a write.
    pub(super) fn acknowledged(&mut self, term: u64, index: u64) {
        self.seen = self.seen.max(index);
        self.last_of_term.insert(term, index);
    }

    /// A leader that begins has what was acknowledged in earlier terms.
    pub(super) fn begins(&mut self, term: u64, machine: Machine) -> Result<(), String> {
        let before = self.last_of_term.range(..term).map(|(_, index)| *index).max().unwrap_or(0);
        if machine.index >= before {
            return Ok(());
        }
        Err(format!("it leads term {term} from entry {} on, without entry {before}", machine.index))
    }

    /// One leader per term.
    pub(super) fn led(&mut self, term: u64, server: ServerId) -> Result<(), String> {
        let leader = *self.leaders.entry(term).or_insert(server);
        if leader == server {
            return Ok(());
        }
        Err(format!("servers {leader} and {server} both lead in term {term}"))
    }

    pub(super) fn elections(&self) -> usize {
        self.leaders.len()
    }
}
