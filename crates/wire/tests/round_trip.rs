//! Whatever is encoded comes back, and whatever is decoded is a value or an error.

mod common;

use proptest::collection::vec;
use proptest::prelude::*;
use rota_core::command::{Command, Entry, NodeSpec, Placement, Plan};
use rota_types::{ActionKind, JobId, LogIndex, NodeId, Steady, TaskId, Timestamp};
use rota_wire::{DecodeError, action, history, log, snapshot, worker};

/// Lets every decoder have a go. None may panic.
fn decode_all(bytes: &[u8]) {
    let _entry = log::decode_entry(LogIndex(1), bytes).is_ok();
    let _record = snapshot::decode_record(bytes).is_ok();
    let _attempts = history::decode_attempts(bytes).is_ok();
    let _job = history::decode_finished_job(bytes).is_ok();
    let _cancelled = history::decode_tasks_cancelled(bytes).is_ok();
    let _noted = history::decode_noted(bytes).is_ok();
    let _action = action::decode_group_action(bytes).is_ok();
    let _detail = worker::decode_detail(bytes).is_ok();
}

/// Decodes every prefix, and the bytes with each of a few changes.
fn decode_damaged(bytes: &[u8], changes: &[(usize, u8)]) {
    for length in 0..bytes.len().min(400) {
        decode_all(&bytes[..length]);
    }
    let mut bytes = bytes.to_vec();
    for (at, change) in changes {
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] ^= change;
        }
        decode_all(&bytes);
    }
}

proptest! {
    #[test]
    fn every_command_comes_back(
        commands in vec(common::command(), 0..4),
        (at, steady, index) in any::<(u64, u64, u64)>(),
        changes in vec(any::<(usize, u8)>(), 0..20),
    ) {
        let (at, steady) = (Timestamp(at), Steady(steady));
        let bytes = log::encode_entry(at, steady, &commands);
        let entry = Entry { index: LogIndex(index), at, steady, commands };
        prop_assert_eq!(log::decode_entry(LogIndex(index), &bytes), Ok(entry));
        decode_damaged(&bytes, &changes);
    }

    #[test]
    fn every_snapshot_record_comes_back(
        record in common::record(),
        changes in vec(any::<(usize, u8)>(), 0..20),
    ) {
        let bytes = snapshot::encode_record(&record);
        prop_assert_eq!(snapshot::decode_record(&bytes), Ok(record));
        decode_damaged(&bytes, &changes);
    }

    #[test]
    fn every_attempt_record_comes_back(
        records in vec(common::attempt_record(JobId(17)), 0..5),
        changes in vec(any::<(usize, u8)>(), 0..20),
    ) {
        let bytes = history::encode_attempts(JobId(17), &records);
        prop_assert_eq!(history::decode_attempts(&bytes), Ok(records));
        decode_damaged(&bytes, &changes);
    }

    #[test]
    fn every_finished_job_and_note_comes_back(
        job in common::finished_job(),
        note in common::tasks_cancelled(),
        noted in common::noted(),
        changes in vec(any::<(usize, u8)>(), 0..20),
    ) {
        let bytes = history::encode_noted(&noted, note.at);
        prop_assert_eq!(history::decode_noted(&bytes), Ok((noted, note.at)));
        decode_damaged(&bytes, &changes);
        let bytes = history::encode_finished_job(&job);
        prop_assert_eq!(history::decode_finished_job(&bytes), Ok(job));
        decode_damaged(&bytes, &changes);
        let bytes = history::encode_tasks_cancelled(&note);
        prop_assert_eq!(history::decode_tasks_cancelled(&bytes), Ok(note));
    }

    #[test]
    fn what_workers_say_comes_back(
        spec in common::node_spec(),
        report in common::report(),
        labels in common::labels(),
    ) {
        prop_assert_eq!(NodeSpec::try_from(worker::hello(&spec)), Ok(spec));
        let sent = worker::report_to_wire(&report).expect("the detail is one");
        prop_assert_eq!(worker::report_from_wire(report.node, sent), Ok(report));
        let sent = worker::labels_to_wire(&labels);
        prop_assert_eq!(worker::labels_from_wire(sent), Ok(labels));
    }

    #[test]
    fn any_bytes_decode_to_a_value_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
    }
}

fn decoded(bytes: &[u8]) -> Result<Vec<Command>, DecodeError> {
    log::decode_entry(LogIndex(1), bytes).map(|entry| entry.commands)
}

#[test]
fn what_this_version_does_not_know_is_an_error_and_never_skipped() {
    // One command of kind 999, empty.
    let unknown = [0x22, 3, 0xBA, 0x3E, 0];
    assert_eq!(decoded(&unknown), Err(DecodeError::Unknown("a command")));
    // Format 1.
    let newer = DecodeError::Format { what: "a log entry", format: 1 };
    assert_eq!(decoded(&[0x08, 1]), Err(newer.clone()));
    assert_eq!(newer.to_string(), "a log entry has format 1; this version reads up to 0");
    assert_eq!(snapshot::decode_record(&[]), Err(DecodeError::Unknown("a record")));
    assert_eq!(action::decode_group_action(&[]), Err(DecodeError::Unknown("an action")));
    let message = decoded(&[0xFF]).expect_err("is cut off").to_string();
    assert!(message.starts_with("not a log entry: "), "{message}");
}

#[test]
fn what_contradicts_itself_is_an_error() {
    let job = |tasks: &[u8]| {
        // CancelTasks with a range set of these spans.
        let set = [&[0x0A, u8::try_from(tasks.len()).expect("short")][..], tasks].concat();
        let cancel = [&[0x12, u8::try_from(set.len()).expect("short")][..], &set].concat();
        let command = [&[0x12, u8::try_from(cancel.len()).expect("short")][..], &cancel].concat();
        [&[0x22, u8::try_from(command.len()).expect("short")][..], &command].concat()
    };
    assert!(decoded(&job(&[1, 3])).is_ok());
    let inconsistent = |what| Err(DecodeError::Inconsistent(what));
    assert_eq!(decoded(&job(&[1])), inconsistent("a range has a start but no length"));
    assert_eq!(decoded(&job(&[1, 0])), inconsistent("a range is empty or touches another"));
    assert_eq!(decoded(&job(&[1, 3, 0, 2])), inconsistent("a range is empty or touches another"));
    let max = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    let too_long = [&max[..], &[2]].concat();
    let out = DecodeError::OutOfRange { what: "range end", value: u64::from(u32::MAX) + 2 };
    assert_eq!(decoded(&job(&too_long)), Err(out));
    let hello = worker::Hello { protocol: 2, ..worker::Hello::default() };
    let out = DecodeError::OutOfRange { what: "the worker's protocol", value: 2 };
    assert_eq!(NodeSpec::try_from(hello), Err(out));
}

#[test]
fn a_kind_of_action_from_the_future_does_not_keep_a_worker_out_but_stops_a_log() {
    let kinds = vec![1, 77];
    let hello = worker::Hello {
        protocol: 1,
        capacity: Some(worker::Resources::default()),
        runs: Some(worker::ActionKinds { kinds }),
        ..worker::Hello::default()
    };
    let spec = NodeSpec::try_from(hello).expect("a newer worker is welcome");
    assert_eq!(spec.runs, [ActionKind::Http].into_iter().collect());
    // register_node { capacity {}, runs { kinds: [77] } }
    let entry = [0x22, 0x09, 0x2A, 0x07, 0x1A, 0x00, 0x3A, 0x03, 0x0A, 0x01, 77];
    assert_eq!(decoded(&entry), Err(DecodeError::Unknown("a kind of action")));
}

#[test]
fn a_plan_of_an_array_takes_few_bytes_a_placement() {
    let placements: Vec<Placement> = (0..8_192)
        .map(|n| Placement {
            task: TaskId { job: JobId(3_000_000), index: 5_000_000 + n * 2 },
            count: 2,
            node: NodeId(n % 100),
        })
        .collect();
    let plan = Command::CommitPlan(Plan { placements, ..Plan::default() });
    let bytes = log::encode_entry(Timestamp(1), Steady(1), std::slice::from_ref(&plan));
    assert!(bytes.len() < 4 * 8_192 + 64, "{} bytes", bytes.len());
    assert_eq!(decoded(&bytes), Ok(vec![plan]));
}
