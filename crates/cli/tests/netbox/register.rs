//! Clients that write and read one setting, and whether what they saw can have happened in one order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Answer, Api};

/// The setting that serves as a register. Every write has a number of its own, far beyond what limits anything.
const PATH: &str = "/v1/queues/default";
const FIRST: u64 = 1_000_000;
/// Clients are numbered from here.
pub(crate) const FIRST_CLIENT: usize = 0;
/// After this a client gives up and asks the next server.
const LIMIT: Duration = Duration::from_secs(1);

/// One operation that was answered, or a write that may have been done. Times since the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) write: bool,
    pub(crate) value: u64,
    pub(crate) from: Duration,
    /// `None` if nobody answered.
    pub(crate) to: Option<Duration>,
}

/// What the clients share.
pub(crate) struct Register {
    began: Instant,
    next: AtomicU64,
    over: AtomicBool,
    history: Mutex<Vec<Operation>>,
    /// What servers said when they told that a write was not done.
    refused: Mutex<BTreeMap<u64, String>>,
}

impl Register {
    /// Writes once, so that every later read finds a number of ours.
    pub(crate) fn new(api: Api, began: Instant) -> Self {
        let register = Self {
            began,
            next: AtomicU64::new(FIRST),
            over: AtomicBool::new(false),
            history: Mutex::default(),
            refused: Mutex::default(),
        };
        crate::harness::until("a first write", crate::harness::PATIENCE, || {
            register.write(FIRST_CLIENT, api).then_some(())
        });
        register
    }

    /// Writes and reads until the run is over.
    pub(crate) fn use_it(&self, client: usize, api: Api) {
        let api = api.within(LIMIT);
        while !self.over.load(Ordering::Relaxed) {
            self.write(client, api);
            std::thread::sleep(Duration::from_millis(30));
            self.read(client, api);
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn history(&self) -> Vec<Operation> {
        self.history.lock().expect("no client failed").clone()
    }

    /// Every write that was refused as not done and was read nevertheless, with the refusal.
    pub(crate) fn done_though_refused(&self) -> Vec<String> {
        let refused = self.refused.lock().expect("no client failed");
        let history = self.history();
        let reads = history.iter().filter(|it| !it.write);
        let seen: BTreeMap<u64, &Operation> = reads.map(|it| (it.value, it)).collect();
        let told = |(value, said)| {
            seen.get(value).map(|read| format!("a write was refused {said}, and yet {read:?}"))
        };
        refused.iter().filter_map(told).collect()
    }

    fn write(&self, client: usize, api: Api) -> bool {
        let value = self.next.fetch_add(1, Ordering::Relaxed);
        let from = self.began.elapsed();
        let answer = api.json("PATCH", PATH, &json!({ "running_max": value }));
        let to = match status(&answer) {
            Some(200) => Some(self.began.elapsed()),
            // Nothing was done.
            Some(503) => {
                let said = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
                let said = format!("at {from:?}: {}", said.unwrap_or_default());
                self.refused.lock().expect("no client failed").insert(value, said);
                return false;
            }
            Some(504) | None => None,
            Some(other) => panic!("a write was answered with {other}: {answer:?}"),
        };
        self.note(Operation { client, write: true, value, from, to });
        to.is_some()
    }

    fn read(&self, client: usize, api: Api) {
        let from = self.began.elapsed();
        let answer = api.send("GET", PATH, &[], b"");
        match (status(&answer), answer) {
            (Some(200), Ok(answer)) => {
                let seen: Value = answer.json();
                let value = seen["running_max"].as_u64().expect("the first write was done");
                let to = Some(self.began.elapsed());
                self.note(Operation { client, write: false, value, from, to });
            }
            (Some(503 | 504) | None, _) => {}
            (Some(other), answer) => panic!("a read was answered with {other}: {answer:?}"),
        }
    }

    fn note(&self, operation: Operation) {
        self.history.lock().expect("no client failed").push(operation);
    }
}

fn status(answer: &io::Result<Answer>) -> Option<u16> {
    answer.as_ref().ok().map(|answer| answer.status)
}

/// The longest time that touches this stretch and in which no write of these clients was acknowledged.
fn longest_pause(
    history: &[Operation],
    of: impl Fn(usize) -> bool,
    (from, to): (Duration, Duration),
) -> Duration {
    let writes = history.iter().filter(|it| it.write && of(it.client));
    let mut answered: Vec<Duration> = writes.filter_map(|it| it.to).collect();
    answered.sort_unstable();
    let pauses = answered.windows(2).filter(|pair| pair[0] < to && pair[1] > from);
    pauses.map(|pair| pair[1] - pair[0]).max().unwrap_or(to - from)
}

/// The longest time without an acknowledged write that touches this stretch: of all clients together, and as the unluckiest one saw it.
pub(crate) fn pauses(history: &[Operation], stretch: (Duration, Duration)) -> [Duration; 2] {
    let last = history.iter().map(|it| it.client).max().unwrap_or(FIRST_CLIENT);
    let of_one = |client| longest_pause(history, |it| it == client, stretch);
    let unluckiest = (FIRST_CLIENT..=last).map(of_one).max().unwrap_or_default();
    [longest_pause(history, |_| true, stretch), unluckiest]
}

/// The times of all operations on one number.
#[derive(Clone, Copy, Debug)]
struct Zone {
    value: u64,
    /// The earliest end of any of them.
    first_end: Duration,
    /// The latest beginning.
    last_begin: Duration,
}

/// Whether a history of one register, in which no number is written twice, is linearizable; if not, why.
///
/// After Gibbons and Korach, "Testing shared memories" (SIAM J. Comput. 26, 1997): the operations on one number make a zone, from the
/// earliest end to the latest beginning. A zone in which the end is before the beginning holds its number throughout ("forward"); two of those
/// must not overlap, and none may contain a backward one.
pub(crate) fn check(history: &[Operation]) -> Result<(), String> {
    let mut zones: BTreeMap<u64, Zone> = BTreeMap::new();
    let writes = history.iter().filter(|it| it.write);
    let begun: BTreeMap<u64, Duration> = writes.map(|it| (it.value, it.from)).collect();
    for it in history {
        let written = begun.get(&it.value);
        let written = written.ok_or_else(|| format!("{it:?} saw what nobody wrote"))?;
        let end = it.to.unwrap_or(Duration::MAX);
        if end < *written {
            return Err(format!("{it:?} saw what was written at {written:?}"));
        }
        let new = Zone { value: it.value, first_end: Duration::MAX, last_begin: Duration::ZERO };
        let zone = zones.entry(it.value).or_insert(new);
        zone.first_end = zone.first_end.min(end);
        zone.last_begin = zone.last_begin.max(it.from);
    }
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) =
        zones.into_values().partition(|zone| zone.first_end < zone.last_begin);
    forward.sort_unstable_by_key(|zone| zone.first_end);
    if let Some(pair) = forward.windows(2).find(|pair| pair[0].last_begin > pair[1].first_end) {
        return Err(format!(
            "{} and {} were both there at one time: {pair:?}",
            pair[0].value, pair[1].value
        ));
    }
    for inner in backward {
        let place = forward.partition_point(|outer| outer.first_end < inner.last_begin);
        let outer = place.checked_sub(1).map(|place| forward[place]);
        if let Some(outer) = outer.filter(|outer| inner.first_end < outer.last_begin) {
            return Err(format!(
                "{} was not there when it was read or written, but {}: {inner:?} within {outer:?}",
                inner.value, outer.value
            ));
        }
    }
    Ok(())
}

/// The checker finds what it is for. Runs before everything else, because a checker that sees nothing proves nothing.
pub(crate) fn check_the_checker() {
    let at = Duration::from_millis;
    let done = |write, value, from, to| Operation {
        client: 0,
        write,
        value,
        from: at(from),
        to: Some(at(to)),
    };
    let (write, read) = (|v, f, t| done(true, v, f, t), |v, f, t| done(false, v, f, t));
    let lost = |value, from| Operation { client: 0, write: true, value, from: at(from), to: None };
    let fine = [
        vec![write(1, 0, 10), read(1, 20, 30), write(2, 25, 50), read(1, 30, 40), read(2, 45, 60)],
        vec![write(1, 0, 10), lost(2, 20), read(1, 30, 40), read(2, 50, 60)],
        vec![write(1, 0, 10), lost(2, 20), read(1, 30, 40), read(1, 50, 60)],
        vec![write(1, 0, 100), write(2, 0, 100), read(2, 10, 20), read(1, 30, 40)],
    ];
    for history in fine {
        assert_eq!(check(&history), Ok(()), "{history:?}");
    }
    let wrong = [
        vec![write(1, 0, 10), write(2, 20, 30), read(1, 40, 50)],
        vec![write(1, 0, 10), lost(2, 20), read(2, 30, 40), read(1, 50, 60)],
        vec![write(1, 0, 10), read(2, 20, 30)],
        vec![read(1, 0, 10), write(1, 20, 30)],
        vec![write(1, 0, 10), write(2, 0, 10), read(1, 20, 30), read(2, 40, 50), read(1, 60, 70)],
    ];
    for history in wrong {
        assert!(check(&history).is_err(), "{history:?}");
    }
}
