//! How jobs, tasks, nodes, queues and the rest look to people.

use std::fmt::Write;

use rota_api::{
    Amounts, Attempt, AttemptState, ClusterStats, Explain, Job, Node, NodeState, Percentiles,
    Queue, Task,
};

use crate::output::{Column, Show, align, grid};
use crate::screen::{Screen, bar, bytes, clean, counts, grouped, several, short_span};

macro_rules! columns {
    ($(($title:literal, $wide:expr, $cell:expr)),* $(,)?) => {
        vec![$(Column { title: $title, wide: $wide, cell: $cell }),*]
    };
}

impl Show for Job {
    fn columns() -> Vec<Column<Self>> {
        columns![
            ("ID", false, |job, _| job.id.to_string()),
            ("NAME", false, |job, _| clean(&job.name)),
            ("QUEUE", false, |job, _| clean(&job.queue)),
            ("STATE", false, |job, screen| screen.job_state(job.state)),
            ("TASKS", false, |job, _| counts(&job.counts)),
            ("AGE", false, |job, screen| screen.when(job.submitted_at)),
            ("DURATION", false, |job, screen| screen.took(job.started_at, job.finished_at)),
            ("PRIORITY", true, |job, _| job.priority.to_string()),
            ("LABELS", true, |job, _| labels(&job.labels)),
            ("SUBMITTER", true, |job, _| clean(&job.submitter)),
        ]
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn detail(&self, screen: &Screen) -> String {
        let head = format!("job {} {}", self.id, clean(&self.name));
        let mut parts = vec![screen.strong(&head), screen.job_state(self.state)];
        parts.push(format!("queue {}", clean(&self.queue)));
        if self.priority != 0 {
            parts.push(format!("priority {}", self.priority));
        }
        parts.push(format!("by {}, {}", clean(&self.submitter), screen.when(self.submitted_at)));
        if self.started_at.is_some() {
            parts.push(format!("ran {}", screen.took(self.started_at, self.finished_at)));
        }
        parts.extend(self.retry_of.map(|job| format!("tries job {job} again")));
        let mut text = parts.join(" · ");
        if !self.labels.is_empty() {
            write!(text, "\n  labels: {}", labels(&self.labels)).ok();
        }
        let row = |group: &rota_api::Group| {
            let mut need = amounts(&group.need);
            if let Some(array) = &group.array {
                need = format!("array {}, {need}", clean(array));
            }
            vec![format!("  {}", clean(&group.name)), counts(&group.counts), screen.faint(&need)]
        };
        let all = align(self.groups.iter().map(row));
        let plain = format!("  {}", counts(&self.counts));
        write!(text, "\n{}", if self.groups.is_empty() { &plain } else { &all }).ok();
        if let Some(attempt) = &self.first_failure {
            write!(text, "\n{}", failure(attempt, screen)).ok();
            write!(text, "\nnext: rota logs {} · rota job retry {}", attempt.task, self.id).ok();
        }
        for cancelled in &self.cancels {
            let (tasks, when) = (several(cancelled.tasks, "task"), screen.when(cancelled.at));
            write!(text, "\ncancelled: {tasks}, {when}: {}", clean(&cancelled.reason)).ok();
        }
        text
    }
}

/// Why an attempt failed, with the end of what it said.
pub(crate) fn failure(attempt: &Attempt, screen: &Screen) -> String {
    let why =
        attempt.failure.as_ref().map_or_else(String::new, |failure| clean(&failure.to_string()));
    let mut text = format!(
        "why: {} ({}) on {}: {}",
        attempt.id,
        clean(&attempt.group),
        clean(&attempt.node),
        screen.bad(&why)
    );
    if let Some(detail) = &attempt.detail {
        let said = if detail.stderr_tail.trim().is_empty() {
            &detail.stdout_tail
        } else {
            &detail.stderr_tail
        };
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in lines.iter().skip(lines.len().saturating_sub(5)) {
            write!(text, "\n  {}", clean(line)).ok();
        }
    }
    text
}

impl Show for Task {
    fn columns() -> Vec<Column<Self>> {
        columns![
            ("TASK", false, |task, _| task.id.clone()),
            ("GROUP", false, |task, _| clean(&task.group)),
            ("STATE", false, |task, screen| screen.task_state(task.state)),
            ("ATTEMPT", false, |task, _| task.attempt.to_string()),
            ("NODE", false, |task, _| dash(task.node.as_deref())),
            ("STARTED", false, |task, screen| task
                .started_at
                .map_or("-".to_owned(), |at| screen.when(at))),
            ("DURATION", false, |task, screen| screen.took(task.started_at, task.finished_at)),
            ("NOTE", false, |task, screen| note(task, screen)),
            ("INDEX", true, |task, _| task
                .array_index
                .map_or("-".to_owned(), |index| index.to_string())),
            ("ENTRY", true, |task, _| dash(task.entry.as_deref())),
        ]
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        let head = screen.strong(&format!("task {} {}", self.id, clean(&self.group)));
        let job = format!("job {} {}", self.job, clean(&self.job_name));
        let mut text = [head, screen.task_state(self.state), job].join(" · ");
        for (name, value) in [
            ("index", self.array_index.map(|index| index.to_string())),
            ("entry", self.entry.clone()),
        ] {
            if let Some(value) = value {
                write!(text, " · {name} {}", clean(&value)).ok();
            }
        }
        let note = note(self, screen);
        if !note.is_empty() {
            write!(text, "\n  {note}").ok();
        }
        if self.attempts.is_empty() {
            return text;
        }
        let rows = self.attempts.iter().map(|attempt| attempt_row(attempt, screen));
        let titles = ["  ATTEMPT", "STATE", "NODE", "STARTED", "DURATION", "CPU", "MEMORY", "WHY"];
        write!(text, "\n{}", grid(titles, rows)).ok();
        if let Some(last) =
            self.attempts.last().filter(|attempt| attempt.state == AttemptState::Failed)
        {
            write!(text, "\n{}", failure(last, screen)).ok();
        }
        let notes = self
            .attempts
            .iter()
            .filter_map(|attempt| attempt.detail.as_ref())
            .flat_map(|detail| &detail.notes);
        for note in notes.collect::<std::collections::BTreeSet<_>>() {
            write!(text, "\n  note: {}", clean(note)).ok();
        }
        text
    }
}

fn attempt_row(attempt: &Attempt, screen: &Screen) -> Vec<String> {
    let detail = attempt.detail.as_ref();
    let state = match attempt.state {
        AttemptState::Live => screen.busy("▶ live"),
        AttemptState::Succeeded => screen.good("✔ succeeded"),
        AttemptState::Failed => screen.bad("✖ failed"),
        AttemptState::Cancelled => screen.faint("⊘ cancelled"),
        AttemptState::Lost => screen.bad("? lost"),
        AttemptState::Recalled => screen.faint("↩ recalled"),
    };
    vec![
        format!("  {}", attempt.id),
        state,
        clean(&attempt.node),
        screen.when(attempt.placed_at),
        screen.took(attempt.started_at, attempt.ended_at),
        detail.map_or("-".to_owned(), |detail| short_span(detail.cpu_time.0.micros())),
        detail.map_or("-".to_owned(), |detail| bytes(detail.memory_peak_bytes)),
        attempt.failure.as_ref().map_or_else(String::new, |failure| clean(&failure.to_string())),
    ]
}

/// What deserves to be said of a task in a few words.
fn note(task: &Task, screen: &Screen) -> String {
    match (&task.failure, task.waiting_until) {
        (Some(failure), Some(until)) => {
            format!("{} · again {}", clean(&failure.to_string()), screen.when(until))
        }
        (None, Some(until)) => format!("again {}", screen.when(until)),
        (Some(failure), None) => clean(&failure.to_string()),
        (None, None) => task.cancel_reason.as_deref().map_or_else(String::new, clean),
    }
}

impl Show for Node {
    fn columns() -> Vec<Column<Self>> {
        columns![
            ("NODE", false, |node, _| clean(&node.name)),
            ("STATE", false, |node, screen| node_state(node, screen)),
            ("CPUS", false, |node, _| {
                let share = bar(node.used.cpus.0, node.capacity.cpus.0);
                format!("{share} {}/{}", node.used.cpus, node.capacity.cpus)
            }),
            ("MEMORY", false, |node, _| {
                let share = bar(node.used.memory_bytes, node.capacity.memory_bytes);
                format!(
                    "{share} {}/{}",
                    bytes(node.used.memory_bytes),
                    bytes(node.capacity.memory_bytes)
                )
            }),
            ("TASKS", false, |node, _| format!("{}/{}", node.tasks, node.attempts_max)),
            ("RESOURCES", false, |node, _| {
                let amount = |(name, whole): (&String, &rota_api::Amount)| {
                    let used = node.used.resources.get(name).copied().unwrap_or_default();
                    format!("{} {used}/{whole}", clean(name))
                };
                dash_list(node.capacity.resources.iter().map(amount))
            }),
            ("LABELS", false, |node, _| labels(&node.labels)),
            ("SEEN", false, |node, screen| node
                .last_seen_at
                .map_or("-".to_owned(), |at| screen.when(at))),
            ("VERSION", true, |node, _| clean(&node.version)),
            ("ID", true, |node, _| node.id.to_string()),
        ]
    }

    fn id(&self) -> String {
        self.name.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        let mut text = format!(
            "{} · {}",
            screen.strong(&format!("node {}", clean(&self.name))),
            node_state(self, screen)
        );
        let seen = self.last_seen_at.map_or("never".to_owned(), |at| screen.when(at));
        let rows = [
            ("capacity", amounts(&self.capacity)),
            ("used", amounts(&self.used)),
            ("free", amounts(&self.free)),
            ("tasks", format!("{} of at most {}", self.tasks, self.attempts_max)),
            ("runs", dash_list(self.runs.iter().map(|kind| clean(kind)))),
            ("labels", labels(&self.labels)),
            ("seen", seen),
            ("version", clean(&self.version)),
        ];
        for (name, value) in rows {
            write!(text, "\n  {name:<9} {value}").ok();
        }
        text
    }
}

fn node_state(node: &Node, screen: &Screen) -> String {
    match (node.state, node.connected) {
        (NodeState::Ready, true) => screen.good("✔ ready"),
        (NodeState::Ready, false) => screen.bad("? silent"),
        (NodeState::Draining, _) => screen.busy("↓ draining"),
        (NodeState::Lost, _) => screen.bad("✖ lost"),
    }
}

impl Show for Queue {
    fn columns() -> Vec<Column<Self>> {
        columns![
            ("QUEUE", false, |queue, _| clean(&queue.name)),
            ("STATE", false, |queue, screen| {
                if queue.paused { screen.bad("‖ paused") } else { screen.good("▶ open") }
            }),
            ("ORDER", false, |queue, _| match queue.aging {
                Some(aging) => format!("{} (aging {aging})", queue.discipline.name()),
                None => queue.discipline.name().to_owned(),
            }),
            ("PLACE", false, |queue, _| queue.placement.name().to_owned()),
            ("WEIGHT", false, |queue, _| queue.weight.to_string()),
            ("QUEUED", false, |queue, _| grouped(queue.counts.queued + queue.counts.waiting)),
            ("RUNNING", false, |queue, _| match queue.running_max {
                Some(limit) => format!("{}/{limit}", queue.counts.running),
                None => queue.counts.running.to_string(),
            }),
            ("LIMIT", false, |queue, _| queue.tasks_max.map_or("-".to_owned(), grouped)),
        ]
    }

    fn id(&self) -> String {
        self.name.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        crate::output::render(std::slice::from_ref(self), true, screen)
    }
}

impl Show for Explain {
    fn columns() -> Vec<Column<Self>> {
        columns![("TASK", false, |explain, _| explain.task.clone())]
    }

    fn id(&self) -> String {
        self.task.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        let mut text = format!(
            "{} · {}",
            screen.strong(&format!("task {}", self.task)),
            screen.task_state(self.state)
        );
        for line in &self.summary {
            write!(text, "\n{}", clean(line)).ok();
        }
        if let Some(queue) = &self.queue {
            let place = queue.position.map_or(String::new(), |place| {
                let behind = if queue.further_back { "behind " } else { "" };
                format!(", {behind}place {} of {}", grouped(place), grouped(queue.queued))
            });
            let limit =
                queue.running_max.map_or(String::new(), |limit| format!(" of at most {limit}"));
            let paused = if queue.paused { ", paused" } else { "" };
            write!(
                text,
                "\nqueue {}{paused}{place}, {} running{limit}",
                clean(&queue.name),
                queue.running
            )
            .ok();
        }
        if let Some(until) = self.waiting_until {
            write!(text, "\nqueued again {}", screen.when(until)).ok();
        }
        if !self.reasons.is_empty() {
            write!(
                text,
                "\n{} considered, {} could take it now:",
                several(self.nodes, "node"),
                self.nodes_fitting
            )
            .ok();
            let row = |reason: &rota_api::NodeReason| {
                vec![
                    format!("  {}", several(reason.nodes, "node")),
                    clean(&reason.reason),
                    clean(&reason.detail),
                    dash_list(reason.examples.iter().map(|name| clean(name))),
                ]
            };
            write!(text, "\n{}", align(self.reasons.iter().map(row))).ok();
        }
        for suggestion in &self.suggestions {
            write!(text, "\n→ {}", clean(suggestion)).ok();
        }
        text
    }
}

impl Show for ClusterStats {
    fn columns() -> Vec<Column<Self>> {
        columns![("INDEX", false, |stats, _| stats.index.to_string())]
    }

    fn id(&self) -> String {
        self.index.to_string()
    }

    fn detail(&self, screen: &Screen) -> String {
        let nodes = &self.nodes;
        let mut text = format!(
            "nodes      {} ready, {} draining, {} lost\njobs       {} live · tasks {}\nrate       {:.1} tasks/s over the last minute",
            nodes.ready,
            nodes.draining,
            nodes.lost,
            grouped(self.jobs),
            counts(&self.counts),
            self.tasks_per_second
        );
        match &self.load {
            Some(load) => {
                let time = short_span((load.seconds.max(0.0) * 1e6) as u64);
                write!(
                    text,
                    "\nload       L = ΣT/ΣP = {:.1} cpu·s / {} cpus = {time} of work",
                    load.work_cpu_seconds, load.power_cpus
                )
                .ok();
                if load.tasks_without_estimate > 0 {
                    write!(
                        text,
                        " (without {} tasks that have no estimate)",
                        grouped(load.tasks_without_estimate)
                    )
                    .ok();
                }
            }
            None => text.push_str("\nload       - (no task has an estimate)"),
        }
        for demand in &self.demand {
            let ratio = demand.ratio.map_or("no supply".to_owned(), |ratio| format!("{ratio:.2}"));
            // Memory is the one resource that is counted in bytes.
            let amount = |amount: f64| match demand.resource.as_str() {
                "memory" => bytes(amount.max(0.0) as u64),
                _ => amount.to_string(),
            };
            let (wanted, there) = (amount(demand.demand), amount(demand.supply));
            let resource = clean(&demand.resource);
            write!(text, "\ndemand     {resource:<10} R = D/S = {wanted} / {there} = {ratio}").ok();
        }
        let odds = &self.failure;
        write!(
            text,
            "\nfailure    p = {:.4} of {} recent attempts; 1-(1-p)^n = {:.4} for {}",
            odds.attempt,
            grouped(odds.sample),
            odds.any,
            several(odds.tasks, "task")
        )
        .ok();
        write!(text, "\ndelay      {}", percentiles(&self.scheduling_delay)).ok();
        for queue in &self.queues {
            write!(text, "\nwait       {:<10} {}", clean(&queue.queue), percentiles(&queue.wait))
                .ok();
        }
        if let Some(sync) = &self.log_sync {
            write!(text, "\nlog sync   {}", percentiles(sync)).ok();
        }
        write!(text, "\n{}", screen.faint(&format!("as of log index {}", self.index))).ok();
        text
    }
}

fn percentiles(times: &Percentiles) -> String {
    if times.count == 0 {
        return "nothing measured yet".to_owned();
    }
    let time = |millis: f64| short_span((millis.max(0.0) * 1e3) as u64);
    format!(
        "p50 {}, p95 {}, p99 {}, max {} ({} tasks)",
        time(times.p50_ms),
        time(times.p95_ms),
        time(times.p99_ms),
        time(times.max_ms),
        grouped(times.count)
    )
}

/// `2 cpus, 4 GiB, gpu 1`.
pub(crate) fn amounts(amounts: &Amounts) -> String {
    let mut parts = Vec::new();
    if amounts.cpus.0 > 0 {
        parts.push(format!(
            "{} cpu{}",
            amounts.cpus,
            if amounts.cpus.0 == 1_000 { "" } else { "s" }
        ));
    }
    if amounts.memory_bytes > 0 {
        parts.push(bytes(amounts.memory_bytes));
    }
    parts
        .extend(amounts.resources.iter().map(|(name, amount)| format!("{} {amount}", clean(name))));
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// `zone=a, ssd`.
pub(crate) fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    dash_list(labels.iter().map(|(key, value)| match value.is_empty() {
        true => clean(key),
        false => format!("{}={}", clean(key), clean(value)),
    }))
}

fn dash(text: Option<&str>) -> String {
    text.map_or("-".to_owned(), clean)
}

fn dash_list(items: impl Iterator<Item = String>) -> String {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "-".to_owned() } else { text }
}
