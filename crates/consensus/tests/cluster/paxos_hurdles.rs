//! What Paxos' library leaves to its user, one test for each.

use rota_consensus::StartError;
use rota_consensus::paxos::{PaxosConfig, PaxosLog, founding_frame};
use rota_ports::{Change, ChangeRefused, Frame, FrameSeq, ReplicatedLog, Stored};
use rota_types::{LogIndex, ServerId};

use crate::bench::Bench;
use crate::common::Paxos;

type PaxosBench = Bench<Paxos>;

fn others(leader: u64) -> (u64, u64) {
    let mut rest = (1..=3).filter(|id| *id != leader);
    (rest.next().expect("three servers"), rest.next().expect("three servers"))
}

#[test]
fn nothing_is_decided_before_it_is_durable_at_the_leader() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    bench.pass(10);
    let before = bench.log(leader).status().committed;
    bench.seat(leader).is_held_up = true;
    bench.propose(leader, "a");
    bench.settle();
    let last = bench.seats.values().filter(|seat| seat.log.status().last > before).count();
    assert_eq!(last, 3, "everybody has it");
    assert_eq!(bench.log(leader).status().committed, before);
    bench.sync(leader);
    bench.drive(leader);
    assert_eq!(bench.log(leader).status().committed, before.next());
}

/// The library would wait for the next entry, which nobody proposes to a leader that can't decide this one.
#[test]
fn a_lost_acceptance_is_made_good_without_further_entries() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    bench.pass(10);
    bench.propose(leader, "a");
    let appends: Vec<_> = bench.mail.drain(..).collect();
    for letter in appends {
        bench.deliver(letter);
    }
    bench.mail.clear();
    bench.pass(10);
    assert_eq!(bench.texts(leader), ["a"]);
    // The word that it is decided is lost as well, for one of the others.
    let (follower, _) = others(leader);
    bench.propose(leader, "b");
    let appends: Vec<_> = bench.mail.drain(..).collect();
    for letter in appends {
        bench.deliver(letter);
    }
    let answers: Vec<_> = bench.mail.drain(..).collect();
    for letter in answers {
        bench.deliver(letter);
    }
    bench.mail.retain(|(_, to, _)| *to != follower);
    bench.pass(40);
    assert_eq!(bench.texts(follower), ["a", "b"]);
}

#[test]
fn a_leader_climbs_above_a_promise_that_nobody_fights_for() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    bench.pass(10);
    let (candidate, follower) = others(leader);
    // The candidate gets a promise of the follower, and is gone before it hears of it.
    bench.isolate(leader);
    bench.mail.clear();
    let term = bench.log(leader).status().term;
    for _ in 0..200 {
        bench.tick(candidate, 1);
        bench.tick(follower, 1);
        bench.settle();
        let promised = bench.log(follower).status().term;
        let asked = bench.log(candidate).status().term;
        if promised > term || asked > term {
            break;
        }
    }
    bench.settle();
    let promised = bench.log(follower).status().term;
    assert!(promised > term, "the follower has promised something higher");
    bench.cut.clear();
    bench.isolate(candidate);
    let now = bench.elect();
    assert_ne!(now, candidate);
    assert!(bench.log(now).status().term > promised);
    bench.propose(now, "goes on");
    bench.pass(10);
    assert_eq!(bench.texts(now).last().map(String::as_str), Some("goes on"));
    let (first, second) = (bench.texts(leader), bench.texts(follower));
    assert_eq!(first, second);
}

#[test]
fn a_server_that_is_far_behind_begins_anew_from_a_snapshot() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    let (lagging, _) = others(leader);
    bench.pass(10);
    bench.isolate(lagging);
    for number in 0..100 {
        bench.propose(leader, &format!("a long entry, the {number}th of them"));
        bench.settle();
    }
    bench.pass(10);
    let meta = bench.compact(leader);
    bench.cut.clear();
    for _ in 0..400 {
        bench.pass(1);
        if bench.seat(lagging).installs.pop().is_some_and(|(asked, _)| asked == meta) {
            bench.seat(lagging).disk.snapshot = meta.clone();
            bench.log(lagging).installed(meta.clone());
            bench.drive(lagging);
        }
    }
    let now = bench.elect();
    bench.propose(now, "last");
    bench.pass(100);
    assert_eq!(bench.texts(lagging).last().map(String::as_str), Some("last"));
    let status = bench.log(lagging).status();
    assert_eq!(status.committed, bench.log(now).status().committed);
}

/// The snapshot ends in a ballot of which the server that starts from it knows nothing.
#[test]
fn a_server_that_starts_from_a_snapshot_goes_on_right_behind_it() {
    for later in [10, 60] {
        let mut bench = PaxosBench::new(3);
        let first = bench.elect();
        let (lagging, second) = others(first);
        bench.propose(first, "everybody has it");
        bench.pass(10);
        bench.isolate(lagging);
        let propose = |bench: &mut PaxosBench, leader, count| {
            for number in 0..count {
                bench.propose(leader, &format!("a long entry, the {number}th of them"));
                bench.settle();
            }
            bench.pass(10);
        };
        propose(&mut bench, first, 100);
        bench.compact(second);
        assert_eq!(bench.log(first).transfer_leader(ServerId(second)), Ok(()));
        bench.drive(first);
        bench.pass(10);
        assert!(bench.log(second).status().leads);
        propose(&mut bench, second, later);
        let meta = bench.compact(second);
        let mut disk = bench.seat(lagging).disk.clone();
        disk.snapshot = meta.clone();
        disk.take(Frame {
            seq: FrameSeq(0),
            first: meta.index.next(),
            entries: Vec::new(),
            state: None,
            reset: true,
        });
        bench.cut.clear();
        bench.start(lagging, disk);
        bench.pass(20);
        let leader = bench.elect();
        assert_eq!(leader, second, "nobody had to take its place");
        bench.propose(leader, "last");
        bench.pass(20);
        assert_eq!(bench.texts(lagging), ["last"], "after {later}");
        let committed = bench.log(leader).status().committed;
        assert_eq!(bench.log(lagging).status().committed, committed);
    }
}

#[test]
fn a_restarted_server_promises_nobody_else_while_a_lease_may_hold() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    bench.pass(10);
    let pair = others(leader);
    bench.isolate(leader);
    bench.mail.clear();
    let term = bench.log(leader).status().term;
    // One of the others asks for a promise, and the other one restarts before it hears of it.
    let (candidate, voter) = loop {
        for (one, other) in [pair, (pair.1, pair.0)] {
            bench.tick(one, 1);
            if bench.log(one).status().term == term {
                bench.settle();
            } else {
                break;
            }
            assert_eq!(bench.log(other).status().term, term);
        }
        match pair {
            (one, other) if bench.log(one).status().term > term => break (one, other),
            (one, other) if bench.log(other).status().term > term => break (other, one),
            _ => {}
        }
    };
    let asked: Vec<_> = bench.mail.drain(..).collect();
    let disk = bench.seat(voter).disk.clone();
    bench.start(voter, disk);
    bench.mail.clear();
    for letter in asked {
        bench.deliver(letter);
    }
    assert_eq!(bench.log(voter).status().term, term);
    for _ in 0..60 {
        bench.tick(candidate, 1);
        bench.tick(voter, 1);
        bench.settle();
    }
    assert!(bench.log(voter).status().term > term, "the lease is over");
}

#[test]
fn leadership_is_handed_over_within_a_few_ticks() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    bench.pass(10);
    let (to, _) = others(leader);
    assert!(bench.log(leader).status().confirmed_tick > 0);
    assert_eq!(bench.log(leader).transfer_leader(ServerId(to)), Ok(()));
    assert_eq!(bench.log(leader).status().confirmed_tick, 0, "its lease ends at once");
    bench.drive(leader);
    bench.pass(4);
    assert!(bench.log(to).status().leads, "{:?}", bench.log(to).status());
}

#[test]
fn a_hand_over_that_fails_goes_on_in_a_higher_ballot() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    bench.pass(10);
    let (to, _) = others(leader);
    let term = bench.log(leader).status().term;
    assert_eq!(bench.log(leader).transfer_leader(ServerId(to)), Ok(()));
    bench.cut.insert((leader, to));
    bench.drive(leader);
    for _ in 0..40 {
        bench.pass(1);
        let status = bench.log(leader).status();
        assert!(status.term > term || status.confirmed_tick == 0, "{status:?}");
    }
    assert!(bench.log(leader).status().term > term);
}

#[test]
fn one_server_is_no_cluster_and_members_stay_as_they_are() {
    let frame = founding_frame(LogIndex(0), &[ServerId(1)]);
    let stored = Stored { state: frame.state, ..Stored::default() };
    let error = PaxosLog::new(PaxosConfig::new(ServerId(1), 1), stored).err();
    assert!(matches!(error, Some(StartError::Refused(_))), "{error:?}");
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    let refused = bench.log(leader).change_members(&[Change::Remove(ServerId(9))]);
    assert!(matches!(refused, Err(ChangeRefused::Invalid(why)) if why.contains("Paxos")));
}

#[test]
fn server_ids_are_limited_because_the_library_has_lists_that_long() {
    for (id, starts) in [(0, false), (1, true), (65_535, true), (65_536, true), (65_537, false)] {
        let frame = founding_frame(LogIndex(0), &[ServerId(id), ServerId(7)]);
        let stored = Stored { state: frame.state, ..Stored::default() };
        let log = PaxosLog::new(PaxosConfig::new(ServerId(7), 1), stored);
        assert_eq!(log.is_ok(), starts, "{id}");
    }
}

#[test]
fn what_is_no_message_or_comes_again_is_dropped() {
    let mut bench = PaxosBench::new(3);
    let leader = bench.elect();
    bench.pass(10);
    bench.propose(leader, "a");
    let letters: Vec<_> = bench.mail.iter().cloned().collect();
    bench.settle();
    let before = bench.log(leader).status();
    for (from, to, message) in letters {
        bench.deliver((from, to, message.clone()));
        for cut in 0..message.len() {
            bench.log(leader).step(ServerId(2), &message[..cut]);
        }
        let mut longer = message;
        longer.push(0);
        bench.log(leader).step(ServerId(2), &longer);
    }
    bench.settle();
    assert_eq!(bench.log(leader).status(), before);
}
