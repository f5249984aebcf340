//! What Raft's library leaves to its user, one test for each.

use rota_consensus::StartError;
use rota_consensus::raft::{RaftConfig, RaftLog, founding_frame};
use rota_ports::contract;
use rota_ports::{
    Change, EntryBytes, LogEntry, Members, ReadId, ReplicatedLog, SnapshotMeta, Stored,
};
use rota_types::{LogIndex, ServerId};

use crate::bench::{Bench, Disk};
use crate::common::Raft;

type RaftBench = Bench<Raft>;

fn others(leader: u64) -> (u64, u64) {
    let mut rest = (1..=3).filter(|id| *id != leader);
    (rest.next().expect("three servers"), rest.next().expect("three servers"))
}

/// A log of one voter that leads.
fn alone() -> RaftLog {
    let mut disk = Disk::default();
    disk.take(founding_frame(LogIndex(0), &[ServerId(1)]));
    let config = RaftConfig { entries_max: 128, ..RaftConfig::new(ServerId(1), 7) };
    let mut log = RaftLog::new(config, disk.stored()).expect("starts");
    while !log.status().leads {
        log.tick();
        while let Some(frame) = log.poll().frame {
            log.persisted(frame.seq);
        }
    }
    log
}

#[test]
fn one_voter_alone_keeps_the_contract_of_logs() {
    contract::entries_are_committed_once_in_order_after_they_are_durable(alone());
    contract::a_read_sees_every_write_acknowledged_before_it(alone());
    contract::too_much_is_refused_until_something_is_committed(alone(), 128);
    contract::compaction_loses_nothing(alone());
    for seed in 0..50 {
        contract::any_mixture_keeps_every_promise(alone(), seed);
    }
}

#[test]
fn a_log_of_one_server_becomes_a_cluster_with_all_its_entries() {
    let texts = ["a", "b", "c"];
    let entries = texts.map(|text| LogEntry::command(EntryBytes::from(text.as_bytes())));
    let founding = founding_frame(LogIndex(3), &[ServerId(1)]);
    let stored = Stored {
        snapshot: SnapshotMeta::default(),
        entries: entries.into_iter().chain(founding.entries).collect(),
        state: founding.state,
    };
    let mut log = RaftLog::new(RaftConfig::new(ServerId(1), 1), stored).expect("starts");
    let committed = log.poll().committed;
    let found: Vec<Option<EntryBytes>> = committed.into_iter().map(|one| one.entry).collect();
    let expected = texts.map(|text| Some(EntryBytes::from(text.as_bytes())));
    assert_eq!(found, [&expected[..], &[None]].concat());
    for _ in 0..30 {
        log.tick();
        while let Some(frame) = log.poll().frame {
            log.persisted(frame.seq);
        }
    }
    assert!(log.status().leads, "{:?}", log.status());
}

#[test]
fn a_remembered_commit_index_outside_the_log_is_brought_into_it() {
    let state = founding_frame(LogIndex(9), &[ServerId(1)]).state; // commits entry 10
    let members = Members { voters: vec![ServerId(1)], ..Members::default() };
    for (snapshot, entries, expected) in [(50, 0, 50), (4, 2, 6), (10, 3, 10)] {
        let snapshot =
            SnapshotMeta { index: LogIndex(snapshot), term: 1, members: members.clone() };
        let entry = LogEntry { term: 1, ..LogEntry::command(EntryBytes::from(&b"x"[..])) };
        let stored = Stored { snapshot, entries: vec![entry; entries], state: state.clone() };
        let mut log = RaftLog::new(RaftConfig::new(ServerId(1), 1), stored).expect("starts");
        log.poll();
        assert_eq!(log.status().committed, LogIndex(expected));
    }
}

#[test]
fn a_log_of_another_protocol_is_refused() {
    let state =
        rota_consensus::paxos::founding_frame(LogIndex(0), &[ServerId(1), ServerId(2)]).state;
    let stored = Stored { state, ..Stored::default() };
    let error = RaftLog::new(RaftConfig::new(ServerId(1), 1), stored).err();
    assert_eq!(error, Some(StartError::Foreign));
}

#[test]
fn an_acknowledgement_of_a_repeated_append_waits_for_the_frame_of_the_first() {
    let mut bench = RaftBench::new(3);
    let leader = bench.elect();
    let (follower, other) = others(leader);
    bench.isolate(other);
    bench.settle();
    bench.seat(follower).is_held_up = true;
    bench.propose(leader, "a");
    let letter = bench.mail.pop_front().expect("an append");
    assert_eq!(letter.1, follower);
    let before = bench.log(leader).status().committed;
    for _ in 0..3 {
        bench.deliver(letter.clone());
    }
    bench.settle();
    assert_eq!(bench.log(leader).status().committed, before, "it is durable in one place only");
    bench.sync(follower);
    bench.settle();
    assert_eq!(bench.log(leader).status().committed, before.next());
}

#[test]
fn a_restarted_server_votes_for_nobody_while_a_lease_may_hold() {
    let mut bench = RaftBench::new(3);
    let leader = bench.elect();
    let (voter, candidate) = others(leader);
    bench.isolate(leader);
    let disk = bench.seat(voter).disk.clone();
    bench.start(voter, disk);
    bench.mail.clear();
    bench.tick(candidate, 20);
    assert!(bench.mail.iter().any(|letter| letter.1 == voter), "it asks for votes");
    bench.settle();
    assert!(bench.mail.is_empty() && !bench.log(candidate).status().leads);
    bench.tick(voter, 10);
    for _ in 0..40 {
        bench.tick(candidate, 1);
        bench.settle();
    }
    assert!(bench.log(candidate).status().leads, "the lease is over");
}

#[test]
fn a_server_that_is_far_behind_is_pointed_to_the_snapshot_until_it_has_it() {
    let mut bench = RaftBench::new(3);
    let leader = bench.elect();
    let (lagging, _) = others(leader);
    bench.isolate(lagging);
    for number in 0..100 {
        bench.propose(leader, &format!("a long entry, the {number}th of them"));
        bench.settle();
    }
    let meta = bench.compact(leader);
    bench.cut.clear();
    // Everything to it but heartbeats is lost at first: the word of the snapshot is among it.
    for _ in 0..40 {
        bench.pass(1);
        bench.seat(lagging).installs.clear();
        bench.log(lagging).install_failed();
    }
    for _ in 0..250 {
        bench.pass(1);
    }
    assert_eq!(bench.seat(lagging).installs.pop(), Some((meta.clone(), ServerId(leader))));
    bench.seat(lagging).disk.snapshot = meta.clone();
    // Until the switch is durable, no election is begun, and none is asked for.
    bench.seat(lagging).is_held_up = true;
    bench.log(lagging).installed(meta.clone());
    bench.drive(lagging);
    bench.isolate(lagging);
    bench.tick(lagging, 100);
    bench.cut.clear();
    bench.seat(lagging).is_held_up = false;
    bench.sync(lagging);
    bench.drive(lagging);
    bench.pass(200);
    let committed = bench.log(leader).status().committed;
    assert_eq!(bench.log(lagging).status().committed, committed);
    assert_eq!(bench.log(lagging).snapshot_meta(meta.index), Some(meta));
}

#[test]
fn a_new_server_takes_a_snapshot_that_does_not_know_it() {
    let mut bench = RaftBench::new(1);
    assert_eq!(bench.elect(), 1);
    for number in 0..100 {
        bench.propose(1, &format!("a long entry, the {number}th of them"));
    }
    let meta = bench.compact(1);
    bench.start(2, Disk::default());
    assert_eq!(bench.log(1).change_members(&[Change::AddLearner(ServerId(2))]), Ok(()));
    bench.drive(1);
    bench.pass(10);
    assert_eq!(bench.seat(2).installs.pop(), Some((meta.clone(), ServerId(1))));
    bench.seat(2).disk.snapshot = meta.clone();
    bench.log(2).installed(meta);
    bench.drive(2);
    bench.pass(40);
    assert_eq!(bench.log(1).change_members(&[Change::AddVoter(ServerId(2))]), Ok(()));
    bench.drive(1);
    bench.pass(10);
    bench.propose(1, "last");
    bench.pass(10);
    assert_eq!(bench.texts(2), ["last"]);
    assert_eq!(bench.log(1).members(), {
        let mut members = bench.log(1).members();
        members.iter_mut().for_each(|member| member.role = rota_ports::Role::Voter);
        members
    });
}

#[test]
fn a_leader_that_commits_its_own_removal_makes_way() {
    let mut bench = RaftBench::new(3);
    let first = bench.elect();
    let (second, third) = others(first);
    // The removal of the second server reaches everybody, and no answer reaches the first.
    bench.cut.extend([(second, first), (third, first)]);
    assert_eq!(bench.log(first).change_members(&[Change::Remove(ServerId(second))]), Ok(()));
    bench.drive(first);
    bench.settle();
    bench.isolate(first);
    // The second server gets to lead, because the third does not try.
    for _ in 0..60 {
        bench.tick(second, 1);
        bench.settle();
        if !bench.log(second).members().iter().any(|member| member.id == ServerId(second)) {
            break;
        }
        if bench.log(third).status().leader != Some(ServerId(second)) {
            bench.tick(third, 1);
        }
    }
    bench.cut.clear();
    bench.isolate(second);
    bench.cut.retain(|(from, to)| *from == second || *to == second);
    let leader = bench.elect();
    assert_ne!(leader, second);
    let members: Vec<ServerId> = bench.log(leader).members().iter().map(|one| one.id).collect();
    assert!(!members.contains(&ServerId(second)), "{members:?}");
    bench.propose(leader, "goes on");
    bench.pass(20);
    assert_eq!(bench.texts(leader).last().map(String::as_str), Some("goes on"));
}

#[test]
fn joint_members_are_left_though_the_leader_that_asked_is_gone() {
    let mut bench = RaftBench::new(3);
    let first = bench.elect();
    let (second, third) = others(first);
    bench.start(4, Disk::default());
    assert_eq!(bench.log(first).change_members(&[Change::AddLearner(ServerId(4))]), Ok(()));
    bench.drive(first);
    bench.pass(20);
    let swap = [Change::AddVoter(ServerId(4)), Change::Remove(ServerId(second))];
    assert_eq!(bench.log(first).change_members(&swap), Ok(()));
    bench.drive(first);
    // It is in everybody's log, and its author is gone.
    let appends: Vec<_> = bench.mail.drain(..).collect();
    for letter in appends {
        bench.deliver(letter);
    }
    bench.isolate(first);
    bench.settle();
    bench.pass(60);
    let leader = bench.elect();
    assert_ne!(leader, first);
    bench.pass(60);
    let ids: Vec<ServerId> = bench.log(leader).members().iter().map(|member| member.id).collect();
    let mut expected = [ServerId(first), ServerId(third), ServerId(4)];
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

#[test]
fn a_server_that_lost_its_log_and_kept_its_id_does_not_bring_anybody_down() {
    let mut bench = RaftBench::new(3);
    let leader = bench.elect();
    let (wiped, _) = others(leader);
    for number in 0..10 {
        bench.propose(leader, &number.to_string());
        bench.settle();
    }
    bench.start(wiped, Disk::default());
    bench.pass(60);
    bench.propose(leader, "goes on");
    bench.pass(10);
    assert_eq!(bench.texts(leader).last().map(String::as_str), Some("goes on"));
}

#[test]
fn a_hand_over_that_fails_ends_the_leadership_and_its_lease() {
    let mut bench = RaftBench::new(3);
    let leader = bench.elect();
    let (to, _) = others(leader);
    bench.pass(10);
    assert!(bench.log(leader).status().confirmed_tick > 0);
    bench.cut.insert((leader, to));
    assert_eq!(bench.log(leader).transfer_leader(ServerId(to)), Ok(()));
    bench.drive(leader);
    bench.settle();
    let term = bench.log(leader).status().term;
    for _ in 0..12 {
        bench.tick(leader, 1);
        bench.settle();
        let status = bench.log(leader).status();
        assert!(!status.leads || status.confirmed_tick == 0 || status.term > term, "{status:?}");
    }
    assert!(!bench.log(leader).status().leads, "the word may still be under way");
}

/// The answers to a round are kept by the network, and come again when a later read waits at a leader that leads no more.
#[test]
fn an_answer_to_an_earlier_round_serves_no_later_read() {
    let mut bench = RaftBench::new(3);
    let old = bench.elect();
    bench.pass(4);
    assert_eq!(bench.log(old).read_barrier(ReadId(1)), Ok(()));
    bench.drive(old);
    let rounds: Vec<_> = bench.mail.drain(..).collect();
    for letter in rounds {
        bench.deliver(letter);
    }
    let answers: Vec<_> = bench.mail.iter().cloned().collect();
    bench.settle();
    assert_eq!(bench.seat(old).reads.len(), 1);
    // Somebody else leads, and writes; the old leader has not noticed.
    bench.isolate(old);
    let (one, two) = others(old);
    for _ in 0..60 {
        bench.tick(one, 1);
        bench.tick(two, 1);
        bench.settle();
    }
    let new = if bench.log(one).status().leads { one } else { two };
    bench.propose(new, "later");
    bench.settle();
    assert_eq!(bench.texts(new).last().map(String::as_str), Some("later"));
    assert_eq!(bench.log(old).read_barrier(ReadId(2)), Ok(()));
    bench.drive(old);
    bench.cut.clear();
    for letter in answers {
        bench.deliver(letter);
    }
    assert_eq!(bench.seat(old).reads.len(), 1, "the second read is not answered");
}

#[test]
fn what_is_no_message_is_dropped() {
    let mut bench = RaftBench::new(3);
    let leader = bench.elect();
    bench.propose(leader, "a");
    let letters: Vec<_> = bench.mail.iter().cloned().collect();
    bench.settle();
    let before = bench.log(leader).status();
    for (_, _, message) in letters {
        for cut in 0..message.len() {
            bench.log(leader).step(ServerId(2), &message[..cut]);
        }
        let mut longer = message.clone();
        longer.push(0);
        bench.log(leader).step(ServerId(2), &longer);
        for kind in 10..=255 {
            let mut other = message.clone();
            other[1] = kind;
            bench.log(leader).step(ServerId(2), &other);
        }
    }
    assert_eq!(bench.log(leader).status(), before);
}
