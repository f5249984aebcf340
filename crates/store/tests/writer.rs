//! The log thread: it syncs before it reports, gathers what waits, and ends at the first error.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rota_ports::{EntryBytes, Frame, FrameSeq, LogEntry, Store};
use rota_store::writer::LogWriter;
use rota_types::LogIndex;

const DEADLINE: Duration = Duration::from_secs(20);

/// What was asked of a store, and a gate that every sync waits at.
struct Recorder {
    calls: Arc<Mutex<Vec<String>>>,
    entered: Sender<()>,
    gate: Receiver<io::Result<()>>,
}

impl Recorder {
    fn note(&self, call: String) {
        self.calls.lock().expect("no panics").push(call);
    }
}

impl Store for Recorder {
    fn append(&mut self, frame: &Frame) -> io::Result<()> {
        self.note(format!("append {}", frame.seq.0));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.note("sync".into());
        self.entered.send(()).expect("the test waits");
        self.gate.recv_timeout(DEADLINE).expect("the test opens the gate")
    }

    fn truncate_before(&mut self, index: LogIndex) -> io::Result<()> {
        self.note(format!("truncate {index}"));
        Ok(())
    }
}

struct Setup {
    writer: LogWriter,
    calls: Arc<Mutex<Vec<String>>>,
    entered: Receiver<()>,
    gate: Sender<io::Result<()>>,
    durable: Receiver<(u64, usize)>,
    fatal: Receiver<String>,
}

fn setup() -> Setup {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (entered_sender, entered) = channel();
    let (gate, gate_receiver) = channel();
    let (durable_sender, durable) = channel();
    let (fatal_sender, fatal) = channel();
    let store =
        Recorder { calls: Arc::clone(&calls), entered: entered_sender, gate: gate_receiver };
    let writer = LogWriter::spawn(
        store,
        move |done| {
            durable_sender.send((done.frame.0, done.frames)).expect("the test listens");
        },
        move |error| fatal_sender.send(error.to_string()).expect("the test listens"),
    );
    Setup { writer: writer.expect("starts"), calls, entered, gate, durable, fatal }
}

fn frame(seq: u64) -> Frame {
    Frame {
        seq: FrameSeq(seq),
        first: LogIndex(seq),
        entries: vec![LogEntry::command(EntryBytes::from(&b"entry"[..]))],
        state: None,
        reset: false,
    }
}

#[test]
fn frames_that_wait_share_one_sync_and_are_reported_after_it() {
    let Setup { writer, calls, entered, gate, durable, fatal } = setup();
    writer.append(frame(1));
    entered.recv_timeout(DEADLINE).expect("syncs");
    for seq in 2..=4 {
        writer.append(frame(seq));
    }
    writer.truncate_before(LogIndex(1));
    assert!(durable.try_recv().is_err(), "nothing is reported before the sync is over");
    gate.send(Ok(())).expect("listens");
    assert_eq!(durable.recv_timeout(DEADLINE), Ok((1, 1)));
    entered.recv_timeout(DEADLINE).expect("syncs");
    gate.send(Ok(())).expect("listens");
    assert_eq!(durable.recv_timeout(DEADLINE), Ok((4, 3)));
    drop(writer);
    let expected = ["append 1", "sync", "append 2", "append 3", "append 4", "sync", "truncate 1"];
    assert_eq!(*calls.lock().expect("no panics"), expected);
    assert!(fatal.try_recv().is_err());
}

#[test]
fn an_error_is_reported_once_and_nothing_is_written_after_it() {
    let Setup { writer, calls, entered, gate, durable, fatal } = setup();
    writer.append(frame(1));
    entered.recv_timeout(DEADLINE).expect("syncs");
    gate.send(Err(io::Error::other("the disk is gone"))).expect("listens");
    assert_eq!(fatal.recv_timeout(DEADLINE).as_deref(), Ok("the disk is gone"));
    writer.append(frame(2));
    drop(writer);
    assert_eq!(*calls.lock().expect("no panics"), ["append 1", "sync"]);
    assert!(durable.try_recv().is_err(), "a frame whose sync failed is not durable");
}

#[test]
fn what_was_handed_over_is_written_before_the_thread_ends() {
    let Setup { writer, calls, entered, gate, durable, .. } = setup();
    writer.append(frame(1));
    entered.recv_timeout(DEADLINE).expect("syncs");
    writer.append(frame(2));
    gate.send(Ok(())).expect("listens");
    gate.send(Ok(())).expect("listens");
    drop(writer);
    assert_eq!(durable.iter().collect::<Vec<_>>(), [(1, 1), (2, 1)]);
    assert_eq!(*calls.lock().expect("no panics"), ["append 1", "sync", "append 2", "sync"]);
}

/// A store with a bug.
struct Buggy;

impl Store for Buggy {
    fn append(&mut self, _frame: &Frame) -> io::Result<()> {
        panic!("a planted bug")
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate_before(&mut self, _index: LogIndex) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_of_the_log_thread_is_fatal_too() {
    let (sender, fatal) = channel();
    let report = move |error: io::Error| sender.send(error.to_string()).expect("the test listens");
    let writer = LogWriter::spawn(Buggy, |_| panic!("nothing is durable"), report);
    writer.expect("starts").append(frame(1));
    assert_eq!(fatal.recv_timeout(DEADLINE).as_deref(), Ok("the log thread panicked"));
}
