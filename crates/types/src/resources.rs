//! Amounts of what a node offers and a task needs. All integers.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

/// Amounts of cpu, memory and named resources: a node's capacity, or one task's need.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources {
    /// Thousandths of a cpu.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Thousandths of a unit of each named resource, such as `gpu`. Never holds a zero.
    pub named: BTreeMap<Box<str>, u64>,
}

/// Which resource is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Thousandths of a cpu.
    Cpu,
    /// Bytes.
    Memory,
    /// Thousandths of a unit of the named resource.
    Named(Box<str>),
}

/// A resource of which there is too little.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shortage {
    /// What is short.
    pub resource: Resource,
    /// How much is needed, in the resource's unit.
    pub need: u64,
    /// How much there is.
    pub have: u64,
}

impl Resources {
    /// Cpus (in thousandths) and memory only.
    #[must_use]
    pub const fn new(cpu_millis: u64, memory_bytes: u64) -> Self {
        Self { cpu_millis, memory_bytes, named: BTreeMap::new() }
    }

    /// How much of `resource` this holds.
    #[must_use]
    pub fn amount(&self, resource: &Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu_millis,
            Resource::Memory => self.memory_bytes,
            Resource::Named(name) => self.named.get(name).copied().unwrap_or(0),
        }
    }

    /// Whether `need` fits into this.
    #[must_use]
    pub fn covers(&self, need: &Self) -> bool {
        self.cpu_millis >= need.cpu_millis
            && self.memory_bytes >= need.memory_bytes
            && need.named.iter().all(|(name, amount)| {
                self.named.get(name).is_some_and(|available| available >= amount)
            })
    }

    /// How many times `need` fits into this; `u64::MAX` if it needs nothing.
    #[must_use]
    pub fn times(&self, need: &Self) -> u64 {
        let share = |have: u64, need: u64| have.checked_div(need).unwrap_or(u64::MAX);
        let plain = share(self.cpu_millis, need.cpu_millis)
            .min(share(self.memory_bytes, need.memory_bytes));
        need.named.iter().fold(plain, |times, (name, amount)| {
            times.min(share(self.named.get(name).copied().unwrap_or(0), *amount))
        })
    }

    /// Everything of which this has less than `need`, in the order cpu, memory, names.
    #[must_use]
    pub fn shortages(&self, need: &Self) -> Vec<Shortage> {
        need.kinds()
            .filter_map(|resource| {
                let (need, have) = (need.amount(&resource), self.amount(&resource));
                (have < need).then_some(Shortage { resource, need, have })
            })
            .collect()
    }

    /// The resources that this holds any of, in the order cpu, memory, names.
    pub fn kinds(&self) -> impl Iterator<Item = Resource> + '_ {
        let cpu = (self.cpu_millis > 0).then_some(Resource::Cpu);
        let memory = (self.memory_bytes > 0).then_some(Resource::Memory);
        cpu.into_iter().chain(memory).chain(self.named.keys().cloned().map(Resource::Named))
    }

    /// Adds `count` times `other`, saturating.
    pub fn add(&mut self, other: &Self, count: u64) {
        let sum = |have: u64, more: u64| have.saturating_add(more.saturating_mul(count));
        self.cpu_millis = sum(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = sum(self.memory_bytes, other.memory_bytes);
        for (name, amount) in &other.named {
            let have = self.named.entry(name.clone()).or_insert(0);
            *have = sum(*have, *amount);
        }
        self.named.retain(|_, amount| *amount > 0);
    }

    /// Takes `count` times `other` away; what is short stays at zero.
    pub fn sub(&mut self, other: &Self, count: u64) {
        let rest = |have: u64, less: u64| have.saturating_sub(less.saturating_mul(count));
        self.cpu_millis = rest(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = rest(self.memory_bytes, other.memory_bytes);
        for (name, amount) in &other.named {
            if let Some(have) = self.named.get_mut(name) {
                *have = rest(*have, *amount);
            }
        }
        self.named.retain(|_, amount| *amount > 0);
    }

    /// Whether this holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpu_millis == 0 && self.memory_bytes == 0 && self.named.is_empty()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpus"),
            Self::Memory => f.write_str("memory"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn gpu(cpu_millis: u64, gpu_millis: u64) -> Resources {
        let mut resources = Resources::new(cpu_millis, 0);
        resources.named.insert("gpu".into(), gpu_millis);
        resources
    }

    #[test]
    fn what_fits_covers_and_what_does_not_names_every_shortage() {
        let node = gpu(2_000, 1_000);
        assert!(node.covers(&gpu(2_000, 1_000)));
        assert_eq!(
            node.shortages(&gpu(2_001, 1_500)),
            vec![
                Shortage { resource: Resource::Cpu, need: 2_001, have: 2_000 },
                Shortage { resource: Resource::Named("gpu".into()), need: 1_500, have: 1_000 },
            ]
        );
        assert_eq!(node.times(&gpu(500, 500)), 2);
        assert_eq!(node.times(&Resources::default()), u64::MAX);
        assert_eq!(Resources::new(1, 1).times(&gpu(0, 1)), 0);
    }

    #[test]
    fn taking_and_giving_back_leaves_the_same_amounts() {
        let mut node = gpu(4_000, 2_000);
        let task = gpu(1_000, 1_000);
        node.sub(&task, 2);
        assert_eq!(node, Resources::new(2_000, 0));
        node.add(&task, 2);
        assert_eq!(node, gpu(4_000, 2_000));
    }
}
