//! What really ran: a file that the tasks' own processes add lines to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// When in the life of a process a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    Start,
    End,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) label: String,
    pub(crate) task: String,
    pub(crate) attempt: u32,
    pub(crate) moment: Moment,
    /// The worker that started the process.
    pub(crate) node: String,
}

/// The file. It lies outside of everything that is killed, stopped or filled up.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(PathBuf);

impl Ledger {
    pub(crate) fn new(dir: &Path) -> Self {
        let path = dir.join("ledger");
        std::fs::write(&path, "").expect("the ledger can be made");
        Self(path)
    }

    /// A shell script that notes its start, does `work`, notes its end and exits with `exit` (an expression of the shell).
    pub(crate) fn script(&self, label: &str, work: &str, exit: &str) -> String {
        // Each line is one write to a file opened for appending, so that lines never mix.
        let mark = |moment: &str| {
            let file = self.0.display();
            format!("echo \"{label} $ROTA_TASK_ID $ROTA_ATTEMPT {moment} $ROTA_NODE\" >> {file}")
        };
        format!("{}\n{work}\n{}\nexit {exit}\n", mark("start"), mark("end"))
    }

    /// Every line, in the order in which they were written.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let text = std::fs::read_to_string(&self.0).expect("the ledger can be read");
        text.lines()
            .map(|line| parse(line).unwrap_or_else(|| panic!("a line of the ledger: {line}")))
            .collect()
    }

    /// How many processes have started and not ended.
    pub(crate) fn running(&self) -> usize {
        let marks = self.marks();
        let starts = marks.iter().filter(|mark| mark.moment == Moment::Start).count();
        (2 * starts).saturating_sub(marks.len())
    }

    /// How often each attempt of each task started and ended.
    pub(crate) fn counts(&self) -> BTreeMap<(String, u32), [u32; 2]> {
        let mut counts = BTreeMap::new();
        for mark in self.marks() {
            let of: &mut [u32; 2] = counts.entry((mark.task, mark.attempt)).or_default();
            of[mark.moment as usize] += 1;
        }
        counts
    }
}

fn parse(line: &str) -> Option<Mark> {
    let [label, task, attempt, moment, node] =
        line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let moment = match moment {
        "start" => Moment::Start,
        "end" => Moment::End,
        _ => return None,
    };
    Some(Mark {
        label: label.to_owned(),
        task: task.to_owned(),
        attempt: attempt.parse().ok()?,
        moment,
        node: node.to_owned(),
    })
}
