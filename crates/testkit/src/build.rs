//! Builders: a test names what it is about and leaves the rest to them.

use rota_core::command::{
    Backoff, Command, GroupSpec, IdempotencyKey, JobSpec, NodeSpec, RetryPolicy, RetryRule, Shape,
    SubmitJobs,
};
use rota_core::queue::DEFAULT_QUEUE;
use rota_types::{ActionKinds, Constraint, Predicate, RangeSet, Resources, Span};

/// Builds a [`JobSpec`].
#[derive(Clone, Debug)]
pub struct JobBuilder {
    spec: JobSpec,
    key: Option<IdempotencyKey>,
}

/// Builds a [`GroupSpec`].
#[derive(Clone, Debug)]
pub struct GroupBuilder(GroupSpec);

/// Builds a [`NodeSpec`].
#[derive(Clone, Debug)]
pub struct NodeBuilder(NodeSpec);

/// A job in the default queue. Without a group it gets one with a single task.
#[must_use]
pub fn job(name: &str) -> JobBuilder {
    let spec = JobSpec {
        name: name.into(),
        queue: DEFAULT_QUEUE.into(),
        priority: 0,
        labels: Default::default(),
        submitter: "test".into(),
        retry_of: None,
        groups: Vec::new(),
    };
    JobBuilder { spec, key: None }
}

/// A group of one task that needs nothing and is tried once.
#[must_use]
pub fn group(name: &str) -> GroupBuilder {
    GroupBuilder(GroupSpec {
        name: name.into(),
        array: RangeSet::from_range(0, 1),
        is_array: false,
        action: [].into(),
        shape: Shape::default(),
        estimate: None,
        timeout: None,
        retry: RetryPolicy {
            attempts_max: 1,
            backoff: Backoff { base: Span::ZERO, max: Span::ZERO, jitter_percent: 0 },
            on: Vec::new(),
        },
        parallel_max: None,
    })
}

/// A node with four cpus and room for a hundred attempts, on its first start.
#[must_use]
pub fn node(name: &str) -> NodeBuilder {
    NodeBuilder(NodeSpec {
        name: name.into(),
        incarnation: 1,
        capacity: Resources::new(4_000, 1 << 40),
        attempts_max: 100,
        labels: Default::default(),
        version: "test".into(),
        runs: ActionKinds::EVERY,
        stages: true,
    })
}

impl JobBuilder {
    /// Adds a group.
    #[must_use]
    pub fn group(mut self, group: GroupBuilder) -> Self {
        self.spec.groups.push(group.0);
        self
    }

    /// Submits to another queue.
    #[must_use]
    pub fn queue(mut self, queue: &str) -> Self {
        self.spec.queue = queue.into();
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.spec.priority = priority;
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.spec.labels.insert(key.into(), value.into());
        self
    }

    /// Submits under an idempotency key. Its digest follows from the job's name and the number of its groups.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        let mut digest = [0; 16];
        let text = self.spec.name.bytes().chain(self.spec.groups.len().to_le_bytes());
        for (at, byte) in text.enumerate() {
            digest[at % 16] ^= byte.rotate_left(u32::try_from(at / 16).unwrap_or(0));
        }
        self.key = Some(IdempotencyKey { key: key.into(), digest });
        self
    }

    /// What is to be submitted.
    #[must_use]
    pub fn build(&self) -> JobSpec {
        let mut spec = self.spec.clone();
        if spec.groups.is_empty() {
            spec.groups.push(group("main").build());
        }
        spec
    }

    /// The command that submits the job.
    #[must_use]
    pub fn submit(&self) -> Command {
        Command::SubmitJobs(SubmitJobs { jobs: vec![self.build()], idempotency: self.key.clone() })
    }
}

impl GroupBuilder {
    /// An array of `count` tasks, with the array indexes from 0.
    #[must_use]
    pub fn tasks(mut self, count: u32) -> Self {
        self.0.array = RangeSet::from_range(0, count);
        self.0.is_array = true;
        self
    }

    /// An array with these array indexes.
    #[must_use]
    pub fn array(mut self, array: RangeSet) -> Self {
        self.0.array = array;
        self.0.is_array = true;
        self
    }

    /// Whole cpus that each task needs.
    #[must_use]
    pub fn cpus(self, cpus: u64) -> Self {
        self.cpu_millis(cpus.saturating_mul(1_000))
    }

    /// Thousandths of a cpu that each task needs.
    #[must_use]
    pub fn cpu_millis(mut self, cpu_millis: u64) -> Self {
        self.0.shape.need.cpu_millis = cpu_millis;
        self
    }

    /// Bytes of memory that each task needs.
    #[must_use]
    pub fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.0.shape.need.memory_bytes = memory_bytes;
        self
    }

    /// Thousandths of a named resource that each task needs.
    #[must_use]
    pub fn resource(mut self, name: &str, millis: u64) -> Self {
        self.0.shape.need.named.insert(name.into(), millis);
        self
    }

    /// Demands a label of the node.
    #[must_use]
    pub fn require(mut self, key: &str, predicate: Predicate) -> Self {
        self.0.shape.constraints.push(Constraint { key: key.into(), predicate });
        self
    }

    /// Attempts in all, the first included.
    #[must_use]
    pub fn attempts(mut self, attempts_max: u32) -> Self {
        self.0.retry.attempts_max = attempts_max;
        self
    }

    /// The pause between attempts: doubled from `base` up to `max`, and made longer by up to `jitter_percent`.
    #[must_use]
    pub fn backoff(mut self, base: Span, max: Span, jitter_percent: u8) -> Self {
        self.0.retry.backoff = Backoff { base, max, jitter_percent };
        self
    }

    /// Adds a kind of failure that is tried again.
    #[must_use]
    pub fn retry_on(mut self, rule: RetryRule) -> Self {
        self.0.retry.on.push(rule);
        self
    }

    /// How many of the group may run at a time.
    #[must_use]
    pub fn parallel_max(mut self, parallel_max: u32) -> Self {
        self.0.parallel_max = Some(parallel_max);
        self
    }

    /// How long one attempt may run.
    #[must_use]
    pub fn timeout(mut self, timeout: Span) -> Self {
        self.0.timeout = Some(timeout);
        self
    }

    /// How long one task is expected to run.
    #[must_use]
    pub fn estimate(mut self, estimate: Span) -> Self {
        self.0.estimate = Some(estimate);
        self
    }

    /// The group.
    #[must_use]
    pub fn build(&self) -> GroupSpec {
        self.0.clone()
    }
}

impl NodeBuilder {
    /// Whole cpus.
    #[must_use]
    pub fn cpus(mut self, cpus: u64) -> Self {
        self.0.capacity.cpu_millis = cpus.saturating_mul(1_000);
        self
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.0.capacity.memory_bytes = memory_bytes;
        self
    }

    /// Thousandths of a named resource.
    #[must_use]
    pub fn resource(mut self, name: &str, millis: u64) -> Self {
        self.0.capacity.named.insert(name.into(), millis);
        self
    }

    /// Attempts at a time.
    #[must_use]
    pub fn attempts_max(mut self, attempts_max: u32) -> Self {
        self.0.attempts_max = attempts_max;
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.into(), value.into());
        self
    }

    /// Another start of the worker process.
    #[must_use]
    pub fn incarnation(mut self, incarnation: u64) -> Self {
        self.0.incarnation = incarnation;
        self
    }

    /// The node.
    #[must_use]
    pub fn build(&self) -> NodeSpec {
        self.0.clone()
    }
}
