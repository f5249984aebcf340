//! Queues are created, configured, paused, purged and removed.

use alloc::vec::Vec;

use rota_types::limits::{PURGE_JOBS_MAX, QUEUES_MAX};
use rota_types::{JobId, QueueId, RangeSet};

use crate::apply::cancel::Cancelling;
use crate::apply::submit::{check_name, limit};
use crate::command::{Outcome, QueueSpec, Rejection, Reply};
use crate::event::Event;
use crate::job::{Counts, Job};
use crate::queue::{DEFAULT_QUEUE, Discipline};
use crate::state::State;

impl State {
    pub(super) fn create_queue(&mut self, spec: &QueueSpec, events: &mut Vec<Event>) -> Outcome {
        check_queue(spec)?;
        limit("queues", (self.queues.len() as u64).saturating_add(1), QUEUES_MAX as u64)?;
        if self.queue_names.contains_key(&spec.name) {
            return Err(Rejection::QueueExists(spec.name.clone()));
        }
        self.add_queue(spec.clone());
        events.push(Event::QueueConfigured(spec.name.clone()));
        Ok(Reply::Done)
    }

    pub(super) fn configure_queue(&mut self, spec: &QueueSpec, events: &mut Vec<Event>) -> Outcome {
        check_queue(spec)?;
        let id = self.queue_id(&spec.name)?;
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.spec = spec.clone();
            events.push(Event::QueueConfigured(spec.name.clone()));
        }
        Ok(Reply::Done)
    }

    pub(super) fn pause_queue(
        &mut self,
        name: &str,
        paused: bool,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let id = self.queue_id(name)?;
        if let Some(queue) = self.queues.get_mut(&id).filter(|queue| queue.paused != paused) {
            queue.paused = paused;
            events.push(Event::QueuePaused(name.into(), paused));
        }
        Ok(Reply::Done)
    }

    pub(super) fn purge_queue(
        &mut self,
        name: &str,
        before: Option<JobId>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let id = self.queue_id(name)?;
        let most = before.map_or(usize::MAX, |_| PURGE_JOBS_MAX);
        let idle = |job: &Job| {
            let Counts { queued, waiting, .. } = job.counts();
            queued > 0 || waiting > 0
        };
        let jobs: Vec<(JobId, u32)> = self
            .jobs
            .below(before.unwrap_or(self.next_job))
            .filter(|(_, job)| job.queue == id && idle(job))
            .take(most)
            .map(|(id, job)| (id, job.tasks()))
            .collect();
        let mut ended: u64 = 0;
        for (job, tasks) in jobs {
            let tasks = RangeSet::from_range(0, tasks);
            let purging =
                Cancelling { job, tasks: &tasks, grace: None, reason: "the queue was purged" };
            let (count, _) = self.cancel(&purging, events);
            ended = ended.saturating_add(count);
        }
        Ok(Reply::Cancelled { ended, stopping: 0 })
    }

    pub(super) fn remove_queue(&mut self, name: &str, events: &mut Vec<Event>) -> Outcome {
        let id = self.queue_id(name)?;
        if name == DEFAULT_QUEUE {
            return Err(Rejection::QueueProtected(name.into()));
        }
        if self.queues.get(&id).is_some_and(|queue| queue.counts.live() > 0) {
            return Err(Rejection::QueueNotEmpty(name.into()));
        }
        self.queues.remove(&id);
        self.queue_names.remove(name);
        events.push(Event::QueueRemoved(name.into()));
        Ok(Reply::Done)
    }

    fn queue_id(&self, name: &str) -> Result<QueueId, Rejection> {
        self.queue_names.get(name).copied().ok_or_else(|| Rejection::UnknownQueue(name.into()))
    }
}

fn check_queue(spec: &QueueSpec) -> Result<(), Rejection> {
    check_name("queue.name", &spec.name)?;
    if spec.weight == 0 {
        return Err(Rejection::Invalid { what: "queue.weight", why: "must be at least 1" });
    }
    if spec.discipline == (Discipline::Priority { aging: rota_types::Span::ZERO }) {
        return Err(Rejection::Invalid { what: "queue.aging", why: "must be above zero" });
    }
    Ok(())
}
