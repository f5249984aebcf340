//! The log of a single server keeps the contract of a replicated log.

use rota_ports::{
    Committed, EntryBytes, Frame, FrameSeq, LogEntry, ProposeRefused, ReplicatedLog, contract,
};
use rota_store::solo::{SoloLimits, SoloLog};
use rota_types::LogIndex;

fn log() -> SoloLog {
    SoloLog::new(LogIndex(41), SoloLimits { entries: 128, bytes: 1 << 20 })
}

fn entry(bytes: usize) -> EntryBytes {
    EntryBytes::from(vec![7; bytes])
}

#[test]
fn entries_are_committed_once_in_order_after_they_are_durable() {
    contract::entries_are_committed_once_in_order_after_they_are_durable(log());
}

#[test]
fn a_read_sees_every_write_acknowledged_before_it() {
    contract::a_read_sees_every_write_acknowledged_before_it(log());
}

#[test]
fn too_much_is_refused_until_something_is_committed() {
    contract::too_much_is_refused_until_something_is_committed(log(), 128);
}

#[test]
fn compaction_loses_nothing() {
    contract::compaction_loses_nothing(log());
}

#[test]
fn any_mixture_keeps_every_promise() {
    for seed in 0..500 {
        contract::any_mixture_keeps_every_promise(log(), seed);
    }
}

#[test]
fn what_is_proposed_during_a_write_makes_up_the_next_frame() {
    let mut log = SoloLog::new(LogIndex(0), SoloLimits::default());
    let frame = |seq, first, sizes: &[usize]| Frame {
        seq: FrameSeq(seq),
        first: LogIndex(first),
        entries: sizes.iter().map(|size| LogEntry::command(entry(*size))).collect(),
        state: None,
        reset: false,
    };
    log.propose(entry(1)).expect("taken");
    assert_eq!(log.poll().frame, Some(frame(1, 1, &[1])));
    log.propose(entry(2)).expect("taken");
    log.propose(entry(3)).expect("taken");
    assert_eq!(log.poll().frame, None, "one frame at a time");
    log.persisted(FrameSeq(1));
    let effects = log.poll();
    assert_eq!(effects.committed, vec![Committed { index: LogIndex(1), entry: Some(entry(1)) }]);
    assert_eq!(effects.frame, Some(frame(2, 2, &[2, 3])));
}

#[test]
fn bytes_in_flight_are_limited_and_a_single_entry_always_fits() {
    let limits = SoloLimits { entries: 9, bytes: 100 };
    for (second, expected) in [(39, Ok(())), (40, Ok(())), (41, Err(ProposeRefused::Busy))] {
        let mut log = SoloLog::new(LogIndex(0), limits);
        log.propose(entry(60)).expect("taken");
        assert_eq!(log.propose(entry(second)), expected, "{second} bytes");
    }
    let mut log = SoloLog::new(LogIndex(0), limits);
    assert_eq!(log.propose(entry(101)), Ok(()));
    assert_eq!(log.propose(entry(0)), Err(ProposeRefused::Busy));
    assert!(log.poll().frame.is_some());
    log.persisted(FrameSeq(1));
    assert_eq!(log.propose(entry(1)), Ok(()));
}
