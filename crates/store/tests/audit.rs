//! Who asked for what is stored once, read back from wherever it is, travels to other servers and ends with its age.

use std::path::Path;
use std::time::Duration;

use rota_core::event::Event;
use rota_core::token::{Note, Noted};
use rota_store::history::{Audited, History, HistoryOptions, Import, Retention};
use rota_store::{ClusterId, Identity};
use rota_types::{LogIndex, ServerId, Span, Timestamp};

const IDENTITY: Identity = Identity { cluster: ClusterId([7; 16]), server: ServerId(1) };
const ALL: usize = 1_000;

fn open(path: &Path, commit_every: Duration) -> History {
    let options = HistoryOptions { commit_every, ..HistoryOptions::default() };
    History::open(path, &IDENTITY, options, |error| panic!("{error}")).expect("opens")
}

fn audited(index: u64, part: u32) -> Audited {
    let note = Note {
        who: format!("who {index}").into(),
        source: "192.0.2.7".into(),
        action: "POST /v1/jobs".into(),
        commands: part,
    };
    let noted = Noted { note, refused: 1 };
    Audited { index: LogIndex(index), part, at: Timestamp(index * 10), noted }
}

/// Two notes in each entry with an even index.
fn feed(history: &History, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let parts = if index.is_multiple_of(2) { 0..2 } else { 0..0 };
        let noted = |part| Event::Noted(Box::new(audited(index, part).noted));
        let mut events: Vec<Event> = parts.map(noted).collect();
        events.insert(0, Event::TokenAdded("other events do not count".into()));
        history.feed(LogIndex(index), Timestamp(index * 10), &events);
    }
}

fn newest_first(indexes: &[u64]) -> Vec<Audited> {
    indexes.iter().flat_map(|index| [audited(*index, 1), audited(*index, 0)]).collect()
}

#[test]
fn notes_are_read_newest_first_whether_stored_or_not_and_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("history.redb");
    let history = open(&path, Duration::ZERO);
    feed(&history, 1..=4);
    history.flush();
    drop(history);
    let history = open(&path, Duration::from_secs(3_600));
    // Fed again from the log, as after a crash.
    feed(&history, 3..=6);
    let all = newest_first(&[6, 4, 2]);
    assert_eq!(history.audit(None, ALL).expect("reads"), all);
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = history.audit(before, 2).expect("reads");
        let Some(last) = page.last() else { break };
        before = Some((last.index, last.part));
        pages.extend(page);
    }
    assert_eq!(pages, all);
    history.flush();
    assert_eq!(history.audit(Some((LogIndex(6), 1)), 2).expect("reads"), all[1..3]);
}

#[test]
fn notes_travel_to_another_server_and_end_with_their_age() {
    let dir = tempfile::tempdir().expect("a directory");
    let history = open(&dir.path().join("one.redb"), Duration::ZERO);
    feed(&history, 1..=6);
    let mut rows = Vec::new();
    let reached = history
        .export(|part| {
            rows.extend(part);
            true
        })
        .expect("exports");
    let path = dir.path().join("two.redb");
    let mut import = Import::create(&path, &IDENTITY).expect("is made");
    import.add(rows).expect("is taken in");
    import.finish(reached).expect("is stored");
    let copy = open(&path, Duration::ZERO);
    assert_eq!(copy.audit(None, ALL).expect("reads"), newest_first(&[6, 4, 2]));
    let retention = Retention { jobs_max: 10, age_max: Span(20) };
    // At 60, what was noted at 40 is just young enough.
    let prune = |now, rows| copy.prune(&retention, Timestamp(now), rows).expect("prunes");
    assert!(prune(60, 1));
    assert!(!prune(60, ALL));
    assert_eq!(copy.audit(None, ALL).expect("reads"), newest_first(&[6, 4]));
    assert!(!prune(61, ALL));
    assert_eq!(copy.audit(None, ALL).expect("reads"), newest_first(&[6]));
}
