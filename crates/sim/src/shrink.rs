//! Makes a failing run smaller: fewer kinds of faults, fewer requests, less time, fewer workers.

use crate::options::Options;
use crate::world::Failure;

/// Looks for a smaller run that fails too, trying at most `budget` runs. `fails` runs one.
pub fn shrink(
    failure: Box<Failure>,
    mut budget: u32,
    fails: impl Fn(&Options) -> Option<Box<Failure>>,
) -> Box<Failure> {
    let mut best = failure;
    loop {
        let mut found = None;
        for smaller in candidates(&best.options) {
            if budget == 0 {
                return best;
            }
            budget -= 1;
            found = fails(&smaller);
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// Runs that are one step smaller, the largest steps first.
fn candidates(options: &Options) -> Vec<Options> {
    let mut found = Vec::new();
    for fault in options.faults.iter() {
        found.push(Options { faults: options.faults.without(fault), ..options.clone() });
    }
    let halves = [
        Options { requests: options.requests / 2, ..options.clone() },
        Options { requests: options.requests.saturating_sub(1), ..options.clone() },
        Options { trouble_millis: options.trouble_millis / 2, ..options.clone() },
        Options { trouble_millis: options.trouble_millis / 8 * 7, ..options.clone() },
        Options { tasks_max: options.tasks_max / 2, ..options.clone() },
        Options { workers: options.workers.saturating_sub(1), ..options.clone() },
        Options { clients: options.clients.saturating_sub(1), ..options.clone() },
        Options { servers: 1.max(options.servers.min(3)), ..options.clone() },
    ];
    let sane = |smaller: &Options| {
        smaller.workers > 0
            && smaller.clients > 0
            && smaller.tasks_max > 0
            && smaller.trouble_millis > 100
    };
    found.extend(halves.into_iter().filter(|smaller| sane(smaller) && smaller != options));
    found
}
