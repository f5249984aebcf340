//! Why a task waits, in sentences.

use std::collections::BTreeMap;

use rota_api::{Explain, ExplainQueue, NodeReason, ReasonKind, TaskState};
use rota_core::explain::{Explanation, Hold};
use rota_core::node::Unfit;
use rota_types::{NodeId, Resource, Shortage, TaskId};

use super::present;
use crate::core_thread::View;

/// Runs of tasks that are looked at for a task's place in its queue.
const RUNS_MAX: usize = 10_000;
/// Names of nodes per reason.
const EXAMPLES_MAX: usize = 5;

/// Explains a task of a live job; `None` if the job is not live or has no such task.
pub(super) fn explain(view: &View<'_>, id: TaskId) -> Option<Explain> {
    let explanation = view.state.explain(id)?;
    let task = present::live_task(view, id)?;
    let group = view.state.group(id)?;
    let fitting = explanation.nodes.iter().filter(|(_, unfit)| unfit.is_empty()).count();
    let reasons = reasons(view, &explanation);
    let queue = queue(view, id);
    let mut told = Explain {
        task: task.id,
        state: task.state,
        summary: Vec::new(),
        queue,
        node: task.node,
        waiting_until: task.waiting_until,
        need: Some(present::amounts(&view.state.shape(group.shape).need)),
        nodes: explanation.nodes.len() as u64,
        nodes_fitting: fitting as u64,
        suggestions: suggestions(view, &explanation, &reasons),
        reasons,
    };
    told.summary = summary(&told, &explanation);
    Some(told)
}

fn queue(view: &View<'_>, id: TaskId) -> Option<ExplainQueue> {
    let job = view.state.job(id.job)?;
    let queue = view.state.queue(job.queue)?;
    let ahead = view.controller.ahead(view.state, id, RUNS_MAX);
    Some(ExplainQueue {
        name: queue.spec.name.to_string(),
        paused: queue.paused,
        position: ahead.map(|ahead| ahead.tasks.saturating_add(1)),
        further_back: ahead.is_some_and(|ahead| ahead.more),
        queued: queue.counts.queued,
        running: queue.counts.running,
        running_max: queue.spec.running_max,
    })
}

fn summary(told: &Explain, explanation: &Explanation) -> Vec<String> {
    let mut lines: Vec<String> =
        explanation.holds.iter().map(|hold| hold_text(hold, told)).collect();
    if told.state != TaskState::Queued {
        return lines;
    }
    if told.nodes == 0 {
        lines.push("no node has ever joined: start a worker with `rota worker`".to_owned());
    } else if explanation.holds.iter().any(|hold| matches!(hold, Hold::Staged(..))) {
        return lines;
    } else if told.nodes_fitting == 0 {
        let why =
            told.reasons.first().map_or_else(String::new, |reason| format!(": {}", reason.reason));
        lines.push(match told.nodes {
            1 => format!("the only node can't take it now{why}"),
            nodes => format!("none of the {nodes} nodes can take it now{why}"),
        });
    } else if lines.is_empty() {
        lines.push(place(told.queue.as_ref()));
    }
    lines
}

fn place(queue: Option<&ExplainQueue>) -> String {
    let position = queue.and_then(|queue| queue.position).unwrap_or(1);
    let ahead = position.saturating_sub(1);
    match ahead {
        _ if queue.is_some_and(|queue| queue.further_back) => {
            format!("more than {ahead} queued tasks go before it")
        }
        0 => "it is first in its queue and starts with the next pass".to_owned(),
        ahead => format!("{ahead} queued tasks go before it"),
    }
}

fn hold_text(hold: &Hold, told: &Explain) -> String {
    match hold {
        Hold::Running(_) => {
            format!("it runs on {}", told.node.as_deref().unwrap_or("a node"))
        }
        Hold::Staged(_, ahead) => {
            let node = told.node.as_deref().unwrap_or("a node");
            format!("it goes next on {node}: it starts there when {ahead} has ended")
        }
        Hold::Over => format!("it is over: {}", told.state),
        Hold::BackingOff(_) => match told.waiting_until {
            Some(until) => format!("its last attempt failed; it is queued again at {until}"),
            None => "its last attempt failed; it waits for the pause to end".to_owned(),
        },
        Hold::QueuePaused => "its queue is paused".to_owned(),
        Hold::QueueFull { limit } => format!("its queue runs as many tasks as it may: {limit}"),
        Hold::GroupFull { limit } => format!("its group runs as many tasks as it may: {limit}"),
    }
}

/// Nodes that say no for the same reason.
#[derive(Default)]
struct Gathered {
    nodes: u64,
    examples: Vec<String>,
    /// The least that is missing, and where.
    best: Option<(Shortage, NodeId)>,
}

fn reasons(view: &View<'_>, explanation: &Explanation) -> Vec<NodeReason> {
    let mut gathered: BTreeMap<(ReasonKind, String), Gathered> = BTreeMap::new();
    for (node, unfit) in &explanation.nodes {
        // The first reason of a node is the one that weighs most; the others would count it twice.
        let Some(reason) = unfit.iter().min_by_key(|unfit| weight(unfit)) else { continue };
        let (kind, text, shortage) = describe(reason);
        let entry = gathered.entry((kind, text)).or_default();
        entry.nodes += 1;
        if entry.examples.len() < EXAMPLES_MAX {
            entry.examples.push(present::node_name(view.state, *node));
        }
        if let Some(shortage) = shortage
            && entry.best.as_ref().is_none_or(|(best, _)| shortage.have > best.have)
        {
            entry.best = Some((shortage, *node));
        }
    }
    let mut reasons: Vec<NodeReason> = gathered
        .into_iter()
        .map(|((kind, reason), gathered)| NodeReason {
            kind,
            nodes: gathered.nodes,
            reason,
            detail: gathered.best.map_or_else(String::new, |(shortage, node)| {
                let name = present::node_name(view.state, node);
                let (need, have) =
                    (amount(&shortage, shortage.need), amount(&shortage, shortage.have));
                format!("need {need}, best has {have} ({name})")
            }),
            examples: gathered.examples,
        })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.nodes));
    reasons
}

/// What can't change by waiting comes first.
fn weight(unfit: &Unfit) -> u8 {
    match unfit {
        Unfit::Lost => 0,
        Unfit::Refused(_) => 1,
        Unfit::Constraint(_) => 2,
        Unfit::TooSmall(_) => 3,
        Unfit::Draining => 4,
        Unfit::Short(_) => 5,
        Unfit::Full { .. } => 6,
    }
}

fn describe(unfit: &Unfit) -> (ReasonKind, String, Option<Shortage>) {
    match unfit {
        Unfit::Lost => (ReasonKind::Lost, "lost".to_owned(), None),
        Unfit::Draining => (ReasonKind::Draining, "draining".to_owned(), None),
        Unfit::Refused(kind) => {
            (ReasonKind::ActionKind, format!("runs no {} (worker setting)", kind.plural()), None)
        }
        Unfit::Constraint(unmet) => {
            (ReasonKind::Requirement, format!("{} is not met", unmet.constraint), None)
        }
        Unfit::TooSmall(shortage) => {
            let text = format!("too few {} even when empty", shortage.resource);
            (ReasonKind::TooSmall, text, Some(shortage.clone()))
        }
        Unfit::Short(shortage) => {
            let text = format!("too few free {}", shortage.resource);
            (ReasonKind::Busy, text, Some(shortage.clone()))
        }
        Unfit::Full { limit } => {
            (ReasonKind::AttemptsMax, format!("runs {limit} attempts, as many as it may"), None)
        }
    }
}

/// An amount in the unit that people use.
fn amount(shortage: &Shortage, amount: u64) -> String {
    match shortage.resource {
        Resource::Memory => rota_api::Size(amount).to_string(),
        Resource::Cpu | Resource::Named(_) => rota_api::Amount(amount).as_f64().to_string(),
    }
}

/// Single changes that would let the task start.
fn suggestions(view: &View<'_>, explanation: &Explanation, reasons: &[NodeReason]) -> Vec<String> {
    let mut all = Vec::new();
    let held = explanation.holds.len();
    let anywhere = explanation.nodes.iter().any(|(_, unfit)| unfit.is_empty());
    if anywhere && held == 1 {
        all.extend(explanation.holds.iter().filter_map(|hold| match hold {
            Hold::QueuePaused => Some("resume the queue".to_owned()),
            Hold::QueueFull { limit } => {
                Some(format!("raise the queue's running_max above {limit}"))
            }
            Hold::GroupFull { limit } => {
                Some(format!("allow more than {limit} of the group at a time"))
            }
            Hold::BackingOff(_) => Some("wait for the pause to end".to_owned()),
            Hold::Running(_) | Hold::Staged(..) | Hold::Over => None,
        }));
    }
    if held == 0 && !anywhere {
        // Nodes with exactly one reason: removing that one is enough.
        for (node, unfit) in &explanation.nodes {
            let [only] = unfit.as_slice() else { continue };
            let name = present::node_name(view.state, *node);
            let text = match only {
                // To ask for none of it is no help to a task that needs it.
                Unfit::TooSmall(shortage) if shortage.have == 0 => continue,
                Unfit::Draining => format!("undrain {name}"),
                Unfit::Lost => format!("start the worker of {name} again"),
                Unfit::Refused(kind) => {
                    format!("let the worker of {name} run {}", kind.plural())
                }
                Unfit::Constraint(unmet) => {
                    format!("drop the requirement {} (for {name})", unmet.constraint)
                }
                Unfit::TooSmall(shortage) => {
                    let have = amount(shortage, shortage.have);
                    format!("ask for at most {have} {} (fits {name} when empty)", shortage.resource)
                }
                Unfit::Short(shortage) => {
                    let missing = amount(shortage, shortage.need.saturating_sub(shortage.have));
                    format!("wait until {missing} more {} are free on {name}", shortage.resource)
                }
                Unfit::Full { .. } => format!("wait until an attempt on {name} ends"),
            };
            if all.len() < EXAMPLES_MAX && !all.contains(&text) {
                all.push(text);
            }
        }
        if let Some(missing) = offered_nowhere(explanation).filter(|_| all.is_empty()) {
            all.push(format!(
                "start a worker that has it: `rota worker --resource {}={}`",
                missing.resource,
                amount(missing, missing.need)
            ));
        }
        if reasons.is_empty() {
            all.push("start a worker: `rota worker --server URL`".to_owned());
        }
    }
    all
}

/// What the task needs of a named resource that no node has any of.
fn offered_nowhere(explanation: &Explanation) -> Option<&Shortage> {
    let lacking = |unfit: &Vec<Unfit>, resource: &Resource| {
        let is_it = |shortage: &Shortage| shortage.resource == *resource && shortage.have == 0;
        unfit.iter().any(|unfit| matches!(unfit, Unfit::TooSmall(shortage) if is_it(shortage)))
    };
    let (_, first) = explanation.nodes.first()?;
    first.iter().find_map(|unfit| match unfit {
        Unfit::TooSmall(shortage) => Some(shortage)
            .filter(|shortage| matches!(shortage.resource, Resource::Named(_)))
            .filter(|shortage| {
                explanation.nodes.iter().all(|(_, unfit)| lacking(unfit, &shortage.resource))
            }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_known_exactly_is_told_as_a_bound() {
        let queue = |position, further_back| ExplainQueue {
            position: Some(position),
            further_back,
            ..ExplainQueue::default()
        };
        for (queue, wanted) in [
            (queue(1, false), "it is first in its queue and starts with the next pass"),
            (queue(10_000, false), "9999 queued tasks go before it"),
            (queue(10_001, true), "more than 10000 queued tasks go before it"),
        ] {
            assert_eq!(place(Some(&queue)), wanted);
        }
    }
}
