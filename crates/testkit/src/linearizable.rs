//! Whether what clients saw of keys could have come from one copy that does one thing at a time.
//!
//! A history is linearizable if each operation can be given an instant between its call and its answer so that the answers are those of
//! a single store (Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", 1990). It is if that of each key
//! is, so that keys are checked one by one. The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the
//! memory of Lowe ("Testing for linearizability", 2017): of two ways to the same operations done and the same value, one is followed.
//!
//! An operation whose answer never came may have been done at any time since its call, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A value. Those that are written have to differ from each other, so that a value tells which write was seen.
pub type Value = u64;

/// What a client asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Read it.
    Get,
    /// Give it this value.
    Put(Value),
    /// Delete it.
    Delete,
    /// Give it a value if it holds what was seen before, which may be nothing.
    Swap {
        /// What it has to hold.
        from: Option<Value>,
        /// What it is to hold then.
        to: Value,
    },
}

/// What the client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// The key holds this, or is not there.
    Holds(Option<Value>),
    /// It was done. Of a deletion: there was such a key.
    Done,
    /// Nothing was done: the key does not hold what it has to. Of a deletion: there was no such key.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The key.
    pub key: String,
    /// What was asked.
    pub ask: Ask,
    /// What was answered.
    pub answer: Answer,
    /// When it was asked, on a clock that all clients share.
    pub called: u64,
    /// When the answer came; of no meaning without one.
    pub answered: u64,
}

/// No order of a key's operations explains their answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    /// The key.
    pub key: String,
    /// Its operations, in the order of their calls.
    pub operations: Vec<Operation>,
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order explains what was seen of {:?}:", self.key)?;
        for operation in &self.operations {
            let Operation { ask, answer, called, answered, .. } = operation;
            writeln!(f, "  {called}..{answered} {ask:?} -> {answer:?}")?;
        }
        Ok(())
    }
}

/// Checks a history that began with an empty store.
///
/// # Errors
/// If it is not linearizable: with the first key of which it is not.
pub fn check_linearizable(history: &[Operation]) -> Result<(), NotLinearizable> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        let unseen = operation.ask == Ask::Get && operation.answer == Answer::Unknown;
        if !unseen {
            keys.entry(&operation.key).or_default().push(operation);
        }
    }
    for (key, mut operations) in keys {
        operations.sort_by_key(|operation| operation.called);
        if !Search::new(&operations).finds() {
            let operations = operations.into_iter().cloned().collect();
            return Err(NotLinearizable { key: key.to_owned(), operations });
        }
    }
    Ok(())
}

/// What the key holds after the operation, if it can be done now with that answer.
fn step(holds: Option<Value>, operation: &Operation) -> Option<Option<Value>> {
    match (operation.ask, operation.answer) {
        (Ask::Get, Answer::Holds(seen)) => (seen == holds).then_some(holds),
        (Ask::Put(value), Answer::Done | Answer::Unknown) => Some(Some(value)),
        (Ask::Delete, Answer::Done) => holds.is_some().then_some(None),
        (Ask::Delete, Answer::Refused) => holds.is_none().then_some(None),
        (Ask::Delete, Answer::Unknown) => Some(None),
        (Ask::Swap { from, to }, Answer::Done | Answer::Unknown) => {
            (from == holds).then_some(Some(to))
        }
        (Ask::Swap { from, .. }, Answer::Refused) => (from != holds).then_some(holds),
        (Ask::Get | Ask::Put(_), _) | (Ask::Delete | Ask::Swap { .. }, Answer::Holds(_)) => None,
    }
}

/// The end of the list of calls and answers, and its beginning.
const EDGE: usize = 0;

/// A call or an answer in the order of time, as a list from which operations that are done are taken out.
#[derive(Clone, Copy, Debug)]
struct Mark {
    operation: usize,
    is_call: bool,
    before: usize,
    after: usize,
}

struct Search<'a> {
    operations: &'a [&'a Operation],
    /// The first is the [`EDGE`].
    marks: Vec<Mark>,
    /// The mark of each operation's answer, if it has one.
    answers: Vec<Option<usize>>,
    /// Operations with an answer that are not done yet.
    left: usize,
    done: Vec<u64>,
    seen: BTreeSet<(Vec<u64>, Option<Value>)>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        // At one instant, calls go before answers: whatever touches overlaps.
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (place, operation) in operations.iter().enumerate() {
            order.push((operation.called, false, place));
            if operation.answer != Answer::Unknown {
                order.push((operation.answered, true, place));
            }
        }
        order.sort_unstable();
        let mut answers = vec![None; operations.len()];
        let edge = Mark { operation: 0, is_call: false, before: order.len(), after: EDGE };
        let mut marks = vec![edge];
        for (number, (_, is_answer, operation)) in order.into_iter().enumerate() {
            let place = number + 1;
            if let (true, Some(answer)) = (is_answer, answers.get_mut(operation)) {
                *answer = Some(place);
            }
            marks.push(Mark { operation, is_call: !is_answer, before: number, after: EDGE });
            marks[number].after = place;
        }
        let left = answers.iter().flatten().count();
        let done = vec![0; operations.len().div_ceil(64)];
        Self { operations, marks, answers, left, done, seen: BTreeSet::new() }
    }

    /// Whether there is an order.
    fn finds(mut self) -> bool {
        let mut holds = None;
        let mut here = self.marks[EDGE].after;
        let mut path: Vec<(usize, Option<Value>)> = Vec::new();
        while self.left > 0 {
            let mark = self.marks[here];
            if here != EDGE && mark.is_call {
                match step(holds, self.operations[mark.operation]) {
                    Some(next) if self.is_new(mark.operation, next) => {
                        path.push((here, holds));
                        self.take_out(here);
                        holds = next;
                        here = self.marks[EDGE].after;
                    }
                    Some(_) | None => here = mark.after,
                }
                continue;
            }
            // An operation that should have been done by now was not: one of those before was the wrong one.
            let Some((call, held)) = path.pop() else { return false };
            self.put_back(call);
            holds = held;
            here = self.marks[call].after;
        }
        true
    }

    /// Whether nobody has come to the same operations and value before.
    fn is_new(&mut self, operation: usize, holds: Option<Value>) -> bool {
        let mut done = self.done.clone();
        done[operation / 64] |= 1 << (operation % 64);
        self.seen.insert((done, holds))
    }

    fn take_out(&mut self, call: usize) {
        let operation = self.marks[call].operation;
        self.done[operation / 64] |= 1 << (operation % 64);
        self.unlink(call);
        if let Some(answer) = self.answers[operation] {
            self.unlink(answer);
            self.left -= 1;
        }
    }

    fn put_back(&mut self, call: usize) {
        let operation = self.marks[call].operation;
        self.done[operation / 64] &= !(1 << (operation % 64));
        if let Some(answer) = self.answers[operation] {
            self.link(answer);
            self.left += 1;
        }
        self.link(call);
    }

    fn unlink(&mut self, place: usize) {
        let Mark { before, after, .. } = self.marks[place];
        self.marks[before].after = after;
        self.marks[after].before = before;
    }

    /// The opposite of [`unlink`](Self::unlink), in the opposite order.
    fn link(&mut self, place: usize) {
        let Mark { before, after, .. } = self.marks[place];
        self.marks[before].after = place;
        self.marks[after].before = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(called: u64, answered: u64, ask: Ask, answer: Answer) -> Operation {
        Operation { key: "k".to_owned(), ask, answer, called, answered }
    }

    fn get(called: u64, answered: u64, seen: Option<Value>) -> Operation {
        at(called, answered, Ask::Get, Answer::Holds(seen))
    }

    fn put(called: u64, answered: u64, value: Value) -> Operation {
        at(called, answered, Ask::Put(value), Answer::Done)
    }

    fn holds(history: &[Operation]) -> bool {
        check_linearizable(history).is_ok()
    }

    #[test]
    fn what_happens_at_the_same_time_may_be_seen_in_either_order() {
        assert!(holds(&[]));
        assert!(holds(&[put(0, 10, 1), put(0, 10, 2), get(11, 12, Some(1))]));
        assert!(holds(&[put(0, 10, 1), put(0, 10, 2), get(11, 12, Some(2))]));
        assert!(holds(&[put(0, 10, 1), get(1, 2, None), get(3, 4, Some(1))]));
        assert!(holds(&[put(0, 10, 1), get(10, 12, None)]), "what touches overlaps");
    }

    #[test]
    fn what_was_over_before_is_seen() {
        assert!(!holds(&[put(0, 10, 1), get(11, 12, None)]), "a stale read");
        assert!(!holds(&[put(0, 1, 1), put(2, 3, 2), get(4, 5, Some(1))]), "a write that was lost");
        assert!(!holds(&[put(0, 10, 1), get(1, 2, Some(1)), get(3, 4, None)]), "back in time");
        assert!(!holds(&[get(0, 1, Some(7))]), "a value that nobody wrote");
    }

    #[test]
    fn only_one_of_those_who_saw_the_same_can_swap_it() {
        let swap = |from, to, answer| at(2, 9, Ask::Swap { from, to }, answer);
        let first = put(0, 1, 1);
        let won = swap(Some(1), 2, Answer::Done);
        assert!(holds(&[first.clone(), won.clone(), swap(Some(1), 3, Answer::Refused)]));
        assert!(!holds(&[first.clone(), won.clone(), swap(Some(1), 3, Answer::Done)]));
        assert!(holds(&[first.clone(), won, swap(Some(2), 3, Answer::Done)]));
        assert!(!holds(&[first, swap(None, 2, Answer::Done)]));
        let create = |to, answer| swap(None, to, answer);
        assert!(holds(&[create(2, Answer::Done), create(3, Answer::Refused)]));
        assert!(!holds(&[create(2, Answer::Refused)]), "nothing was there");
    }

    #[test]
    fn a_deletion_says_whether_something_was_there() {
        let delete = |called, answer| at(called, called + 1, Ask::Delete, answer);
        let first = put(0, 1, 1);
        assert!(holds(&[first.clone(), delete(2, Answer::Done), get(4, 5, None)]));
        assert!(!holds(&[first.clone(), delete(2, Answer::Refused)]));
        assert!(!holds(&[first, delete(2, Answer::Done), delete(4, Answer::Done)]));
    }

    #[test]
    fn what_was_never_answered_may_be_done_later_or_never_but_once() {
        let lost = at(0, 0, Ask::Put(1), Answer::Unknown);
        assert!(holds(&[lost.clone(), get(5, 6, None), get(7, 8, None)]));
        assert!(holds(&[lost.clone(), get(5, 6, None), get(7, 8, Some(1))]));
        assert!(!holds(&[lost.clone(), get(5, 6, Some(1)), get(7, 8, None)]));
        let again = [lost, get(5, 6, Some(1)), put(7, 8, 2), get(9, 10, Some(1))];
        assert!(!holds(&again), "done twice");
        let swap = at(0, 0, Ask::Swap { from: Some(1), to: 2 }, Answer::Unknown);
        assert!(holds(&[swap.clone(), put(1, 2, 1), get(3, 4, Some(2))]));
        assert!(!holds(&[swap, put(1, 2, 3), get(3, 4, Some(2))]));
    }

    #[test]
    fn keys_are_apart_and_the_wrong_one_is_named() {
        let mut history = vec![put(0, 1, 1), get(2, 3, Some(1))];
        history.push(Operation { key: "other".to_owned(), ..get(2, 3, None) });
        assert!(holds(&history));
        history.push(Operation { key: "other".to_owned(), ..get(4, 5, Some(1)) });
        let wrong = check_linearizable(&history).unwrap_err();
        assert_eq!((wrong.key.as_str(), wrong.operations.len()), ("other", 2));
    }

    /// Numbers in an order that nobody chose.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end
        }
    }

    /// What clients of a single store see that does one thing at a time, in the order of the list.
    fn drawn(draw: &mut Draw, count: u64) -> Vec<Operation> {
        let mut holds = None;
        let mut history = Vec::new();
        for number in 0..count {
            let value = 100 + number;
            let instant = number * 10 + 100;
            let ask = match draw.below(5) {
                0 | 1 => Ask::Get,
                2 => Ask::Put(value),
                3 => Ask::Delete,
                _ => Ask::Swap { from: if draw.below(3) > 0 { holds } else { Some(1) }, to: value },
            };
            let is_lost = draw.below(6) == 0;
            let is_done = !is_lost || draw.below(2) == 0;
            let (after, answer) = match ask {
                Ask::Get => (holds, Answer::Holds(holds)),
                Ask::Put(value) => (Some(value), Answer::Done),
                Ask::Delete if holds.is_some() => (None, Answer::Done),
                Ask::Swap { from, to } if from == holds => (Some(to), Answer::Done),
                Ask::Delete | Ask::Swap { .. } => (holds, Answer::Refused),
            };
            holds = if is_done { after } else { holds };
            let answer = if is_lost { Answer::Unknown } else { answer };
            let (called, answered) = (instant - draw.below(60), instant + draw.below(60));
            history.push(at(called, answered, ask, answer));
        }
        history
    }

    #[test]
    fn whatever_a_single_store_answers_is_accepted() {
        for seed in 0..300 {
            let history = drawn(&mut Draw(seed), 60);
            assert!(holds(&history), "seed {seed}: {history:?}");
        }
    }

    /// Tries every order.
    fn slowly(left: &[&Operation], value: Option<Value>) -> bool {
        let known = |operation: &&&Operation| operation.answer != Answer::Unknown;
        let Some(first_answer) = left.iter().filter(known).map(|one| one.answered).min() else {
            return true;
        };
        (0..left.len()).any(|place| {
            let mut rest = left.to_vec();
            let next = rest.remove(place);
            next.called <= first_answer
                && step(value, next).is_some_and(|value| slowly(&rest, value))
        })
    }

    #[test]
    fn small_histories_are_judged_as_by_trying_every_order() {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..3_000 {
            let mut draw = Draw(seed);
            let mut history = drawn(&mut draw, 6);
            // Somebody sees something else.
            let other = usize::try_from(draw.below(6)).unwrap();
            if history[other].ask == Ask::Get {
                history[other].answer = Answer::Holds(
                    [None, Some(100), Some(103)][usize::try_from(draw.below(3)).unwrap()],
                );
            } else if history[other].answer == Answer::Refused {
                history[other].answer = Answer::Done;
            }
            let seen: Vec<&Operation> = history
                .iter()
                .filter(|one| (one.ask, one.answer) != (Ask::Get, Answer::Unknown))
                .collect();
            let wanted = slowly(&seen, None);
            assert_eq!(holds(&history), wanted, "seed {seed}: {history:?}");
            *(if wanted { &mut good } else { &mut bad }) += 1;
        }
        assert!(good > 300 && bad > 300, "{good} and {bad}");
    }
}
