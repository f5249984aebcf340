//! The spool against a naive one that keeps everything.

use std::time::Duration;

use rota_types::{AttemptId, JobId, TaskId};

use super::capture::Summary;
use super::*;

fn attempt(job: u64) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(job), index: 0 }, number: 1 }
}

fn limits(head_bytes: u64, tail_bytes: u64) -> OutputLimits {
    let (total_bytes, age) = (u64::MAX, Duration::MAX);
    OutputLimits { head_bytes, tail_bytes, total_bytes, age }
}

/// A tiny generator.
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

/// The files that there are.
fn names(spool: &Spool) -> Vec<String> {
    let entries = fs::read_dir(&spool.dir).expect("there");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("readable").file_name();
    let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().expect("text")).collect();
    names.sort();
    names
}

/// Everything that is kept, with the bytes that were skipped.
fn read_all(capture: &Capture, max: usize) -> (Vec<u8>, u64) {
    read_channel(capture, Channel::Stdout, max)
}

fn read_channel(capture: &Capture, channel: Channel, max: usize) -> (Vec<u8>, u64) {
    let (mut data, mut skipped, mut offset) = (Vec::new(), 0, 0);
    loop {
        let piece = capture.read(channel, offset, max).expect("readable");
        skipped += piece.skipped;
        if piece.data.is_empty() {
            return (data, skipped);
        }
        offset = piece.offset + piece.data.len() as u64;
        data.extend(piece.data);
    }
}

/// What must be kept of `all`.
fn kept(all: &[u8], limits: &OutputLimits) -> (Vec<u8>, u64) {
    let head = usize::try_from(limits.head_bytes).expect("small").min(all.len());
    let tail = usize::try_from(limits.tail_bytes).expect("small").min(all.len() - head);
    let dropped = all.len() - head - tail;
    ([&all[..head], &all[all.len() - tail..]].concat(), dropped as u64)
}

#[test]
fn what_is_kept_is_the_head_and_the_tail_whatever_the_sizes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for seed in 0..300 {
        let mut seed = seed;
        let limits = limits(random(&mut seed, 9_000), random(&mut seed, 9_000));
        let spool = Spool::open(dir.path(), limits).expect("writable");
        assert_eq!(names(&spool), Vec::<String>::new(), "of another layout");
        let capture = spool.begin(attempt(1));
        let mut all = Vec::new();
        for _ in 0..12 {
            let size = random(&mut seed, 4_000);
            let chunk: Vec<u8> = (0..size).map(|_| random(&mut seed, 256) as u8).collect();
            capture.write(Channel::Stdout, &chunk);
            all.extend(chunk);
            let max = 1 + usize::try_from(random(&mut seed, 5_000)).expect("small");
            assert_eq!(read_all(&capture, max), kept(&all, &limits));
        }
        let Summary { tail, written, note } = capture.summary(Channel::Stdout);
        let (whole, dropped) = kept(&all, &limits);
        assert_eq!((written, note.is_some()), (all.len() as u64, dropped > 0));
        assert!(whole.ends_with(&tail) && tail.len() as u64 <= DETAIL_TAIL_BYTES);
        spool.finish(&capture);
        let max = 1 + usize::try_from(random(&mut seed, 5_000)).expect("small");
        let found = spool.find(attempt(1)).expect("just over");
        assert_eq!(read_all(&found, max), (whole.clone(), dropped));
        // And the same from the next worker's point of view, unless all of it was in memory.
        let on_disk = !names(&spool).is_empty();
        let next = Spool::open(dir.path(), limits).expect("writable");
        let found = next.find(attempt(1));
        assert_eq!(found.map(|it| read_all(&it, max)), on_disk.then_some((whole, dropped)));
    }
}

#[test]
fn nothing_is_dropped_at_the_limit_and_one_byte_is_beyond_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (size, dropped) in [(99, 0), (100, 0), (101, 1)] {
        let spool = Spool::open(dir.path(), limits(60, 40)).expect("writable");
        let capture = spool.begin(attempt(1));
        capture.write(Channel::Stdout, &vec![b'x'; size]);
        assert_eq!(read_all(&capture, 7).1, dropped);
    }
}

#[test]
fn files_are_made_beyond_the_memory_limit_and_not_at_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (size, files) in [(SPILL_BYTES - 1, 0), (SPILL_BYTES, 0), (SPILL_BYTES + 1, 1)] {
        let spool = Spool::open(dir.path(), limits(1 << 20, 1 << 20)).expect("writable");
        let capture = spool.begin(attempt(1));
        capture.write(Channel::Stderr, &vec![0; usize::try_from(size).expect("small")]);
        assert_eq!(names(&spool).len(), files);
    }
}

#[test]
fn a_disk_that_takes_nothing_costs_all_but_the_last_of_the_output_and_not_the_attempt() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = Spool::open(dir.path(), limits(1 << 20, 1 << 20)).expect("writable");
    fs::remove_dir(&spool.dir).expect("empty");
    let capture = spool.begin(attempt(1));
    let data: Vec<u8> = (0..10_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    for part in [&data[..3_000], &data[3_000..8_000], &data[8_000..]] {
        capture.write(Channel::Stdout, part);
    }
    let last = data.len() - usize::try_from(DETAIL_TAIL_BYTES).expect("small");
    let summary = capture.summary(Channel::Stdout);
    assert_eq!((summary.written, summary.tail.as_slice()), (10_000, &data[last..]));
    assert!(summary.note.is_some_and(|note| note.starts_with("stdout: output not kept: ")));
    spool.finish(&capture);
    let found = spool.find(attempt(1)).expect("remembered");
    assert!(found.is_over());
    for (from, begin, length) in
        [(0, last, 10), (last, last, 10), (9_995, 9_995, 5), (10_001, 10_001, 0)]
    {
        let piece = found.read(Channel::Stdout, from as u64, 10).expect("the last of it is there");
        let expected = Piece {
            offset: begin as u64,
            data: data.get(begin..begin + length).unwrap_or_default().to_vec(),
            skipped: (begin - from) as u64,
        };
        assert_eq!(piece, expected);
    }
}

#[test]
fn a_file_that_fails_leaves_the_last_of_both_streams() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = Spool::open(dir.path(), limits(1 << 20, 1 << 20)).expect("writable");
    let capture = spool.begin(attempt(1));
    capture.write(Channel::Stderr, &[b'e'; 5_000]);
    fs::remove_file(shelf::file(&spool.dir, attempt(1), Channel::Stderr)).expect("there");
    fs::remove_dir(&spool.dir).expect("empty");
    capture.write(Channel::Stdout, &[b'o'; 5_000]);
    spool.finish(&capture);
    for (channel, byte) in [(Channel::Stdout, b'o'), (Channel::Stderr, b'e')] {
        assert_eq!(capture.summary(channel).tail, [byte; 4_096]);
    }
}

#[test]
fn the_oldest_outputs_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = Spool::open(dir.path(), limits(1 << 20, 1 << 20)).expect("writable");
    let most = SHORT_MAX as u64;
    let running = spool.begin(attempt(0));
    for job in 1..=most {
        spool.finish(&spool.begin(attempt(job)));
    }
    assert!(spool.find(attempt(1)).is_some());
    spool.finish(&spool.begin(attempt(most + 1)));
    assert!(spool.find(attempt(1)).is_none() && spool.find(attempt(2)).is_some());
    assert!(spool.find(attempt(0)).is_some() && !running.is_over());
}

/// What a worker writes that is killed: nothing is closed. Returns what was written.
fn killed(dir: &Path, limits: OutputLimits, sizes: &[usize]) -> Vec<u8> {
    let spool = Spool::open(dir, limits).expect("writable");
    let capture = spool.begin(attempt(1));
    let mut all = Vec::new();
    for size in sizes {
        let chunk: Vec<u8> = (all.len()..all.len() + size).map(|at| (at % 251) as u8).collect();
        capture.write(Channel::Stdout, &chunk);
        all.extend(chunk);
    }
    all
}

#[test]
fn what_a_killed_worker_wrote_is_read_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = limits(100_000, 200_000);
    for sizes in [&[5_000][..], &[100_000, 5], &[300_000]] {
        let all = killed(dir.path(), limits, sizes);
        let spool = Spool::open(dir.path(), limits).expect("writable");
        let found = spool.find(attempt(1)).expect("on disk");
        assert_eq!(read_all(&found, 7_000), (all, 0));
        assert!(found.is_over(), "nobody adds to it");
        assert_eq!(read_channel(&found, Channel::Stderr, 10), (vec![], 0));
    }
}

#[test]
fn a_ring_that_was_being_written_lacks_what_may_have_been_overwritten() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = limits(100_000, 200_000);
    let all = killed(dir.path(), limits, &[300_000, 1, 70_000]);
    let expected = |until: usize| {
        let tail = &all[until - 200_000 + (64 << 10)..until];
        ([&all[..100_000], tail].concat(), (until - 300_000 + (64 << 10)) as u64)
    };
    let read = || {
        let spool = Spool::open(dir.path(), limits).expect("writable");
        read_all(&spool.find(attempt(1)).expect("on disk"), 7_000)
    };
    assert_eq!(read(), expected(370_001));
    // Killed between a write and its mark: the data is there, the mark is the one before.
    let spool = Spool::open(dir.path(), limits).expect("writable");
    let file = shelf::file(&spool.dir, attempt(1), Channel::Stdout);
    let bytes = fs::read(&file).expect("there");
    let mark = |length: u64| [&bytes[..300_000], &length.to_le_bytes()[..], &[0; 8]].concat();
    fs::write(&file, mark(365_536)).expect("writable");
    assert_eq!(read(), expected(365_536));
    // Killed between the first mark and the write behind it.
    let all = killed(dir.path(), limits, &[290_000, 10_000]);
    fs::write(&file, [&all[..], &290_000_u64.to_le_bytes()[..], &[0; 8]].concat()).expect("there");
    let (data, skipped) = read();
    assert_eq!(data, [&all[..100_000], &all[90_000 + (64 << 10)..290_000]].concat());
    assert_eq!(skipped, 90_000 + (64 << 10) - 100_000);
}

#[test]
fn whatever_a_crash_leaves_in_the_directory_does_no_harm() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = limits(5_000, 5_000);
    for seed in 0..300 {
        let mut seed = seed;
        let size = [10_000, 10_016, 20_000][random(&mut seed, 3) as usize];
        let length = size - random(&mut seed, 40);
        let mut bytes: Vec<u8> = (0..length).map(|_| random(&mut seed, 256) as u8).collect();
        if random(&mut seed, 2) == 0 {
            bytes.fill(0xFF);
        }
        let spool = Spool::open(dir.path(), limits).expect("writable");
        fs::write(shelf::file(&spool.dir, attempt(1), Channel::Stderr), &bytes).expect("writable");
        let spool = Spool::open(dir.path(), limits).expect("writable");
        let found = spool.find(attempt(1)).expect("on disk");
        let head = found.read(Channel::Stderr, 0, 5_000).expect("the head is trusted");
        assert_eq!(head.data, bytes[..5_000]);
        for offset in [0, 4_999, 5_000, 9_999, 10_000, 10_001, u64::MAX / 2, u64::MAX] {
            drop(found.read(Channel::Stderr, offset, 5_000));
        }
        drop(found.summary(Channel::Stderr));
    }
    let spool = Spool::open(dir.path(), limits).expect("writable");
    for name in ["1.0.1", "1.0.1.stdin", "1.0.1.stdout.old", "x.0.1.stdout", "-1.0.1.stdout", ".."]
    {
        drop(fs::write(spool.dir.join(name), "?"));
    }
    fs::create_dir(spool.dir.join("2.0.1.stdout")).expect("writable");
    fs::write(dir.path().join("3.0.1.stdout"), "of an earlier version").expect("writable");
    let spool = Spool::open(dir.path(), limits).expect("writable");
    assert_eq!(names(&spool), ["1.0.1.stderr"]);
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1);
}

#[test]
fn an_attempt_that_runs_for_long_gets_a_file_at_the_second_call() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = limits(1 << 20, 1 << 20);
    let spool = Spool::open(dir.path(), limits).expect("writable");
    let (silent, lasting) = (spool.begin(attempt(1)), spool.begin(attempt(2)));
    lasting.write(Channel::Stdout, b"still ");
    spool.tend();
    let soon_over = spool.begin(attempt(3));
    soon_over.write(Channel::Stdout, b"over");
    assert_eq!(names(&spool), Vec::<String>::new());
    spool.tend();
    assert_eq!(names(&spool), ["2.0.1.stdout"]);
    lasting.write(Channel::Stdout, b"here");
    let next = Spool::open(dir.path(), limits).expect("writable");
    let found = next.find(attempt(2)).expect("on disk");
    assert_eq!(read_all(&found, 3), (b"still here".to_vec(), 0));
    assert!(next.find(attempt(1)).is_none() && next.find(attempt(3)).is_none());
    drop((silent, soon_over));
}

#[test]
fn a_short_stream_beside_a_long_one_gets_a_file_at_the_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = limits(1 << 20, 1 << 20);
    let spool = Spool::open(dir.path(), limits).expect("writable");
    let capture = spool.begin(attempt(1));
    capture.write(Channel::Stdout, &[b'o'; 5_000]);
    capture.write(Channel::Stderr, b"short");
    assert_eq!(names(&spool), ["1.0.1.stdout"]);
    spool.finish(&capture);
    assert_eq!(names(&spool), ["1.0.1.stderr", "1.0.1.stdout"]);
    for spool in [&spool, &Spool::open(dir.path(), limits).expect("writable")] {
        let found = spool.find(attempt(1)).expect("on disk");
        assert_eq!(read_channel(&found, Channel::Stderr, 10), (b"short".to_vec(), 0));
        assert_eq!(read_all(&found, 999), (vec![b'o'; 5_000], 0));
    }
}

#[test]
fn many_short_attempts_do_not_push_out_what_is_on_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = Spool::open(dir.path(), limits(1 << 20, 1 << 20)).expect("writable");
    let long = spool.begin(attempt(0));
    long.write(Channel::Stdout, &[0; 5_000]);
    spool.finish(&long);
    for job in 1..=SHORT_MAX as u64 + 1 {
        spool.finish(&spool.begin(attempt(job)));
    }
    assert!(spool.find(attempt(0)).is_some() && spool.find(attempt(1)).is_none());
}

#[test]
fn an_id_that_is_given_out_again_does_not_show_what_was_there_before() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = limits(1 << 20, 1 << 20);
    drop(killed(dir.path(), limits, &[5_000]));
    let spool = Spool::open(dir.path(), limits).expect("writable");
    let capture = spool.begin(attempt(1));
    assert_eq!(names(&spool), Vec::<String>::new());
    spool.finish(&capture);
    let found = spool.find(attempt(1)).expect("just over");
    assert_eq!(read_all(&found, 10), (vec![], 0));
}

#[test]
fn the_oldest_files_go_when_they_take_too_much_or_are_too_old_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let most = |total_bytes, seconds| {
        let age = Duration::from_secs(seconds);
        OutputLimits { head_bytes: 1 << 20, tail_bytes: 1 << 20, total_bytes, age }
    };
    let spool = Spool::open(dir.path(), most(u64::MAX, 100)).expect("writable");
    for (job, age) in [(1, 50), (2, 30), (3, 70)] {
        let capture = spool.begin(attempt(job));
        capture.write(Channel::Stdout, &[0; 8_000]); // two blocks
        spool.finish(&capture);
        let file = shelf::file(&spool.dir, attempt(job), Channel::Stdout);
        let file = fs::File::options().write(true).open(file).expect("there");
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("settable");
    }
    let left =
        |total, seconds| names(&Spool::open(dir.path(), most(total, seconds)).expect("writable"));
    let all = ["1.0.1.stdout", "2.0.1.stdout", "3.0.1.stdout"];
    assert_eq!(left((24 << 10) + 1, 100), all);
    assert_eq!(left(24 << 10, 100), all);
    assert_eq!(left((24 << 10) - 1, 100), all[..2], "3 ended first");
    assert_eq!(left(u64::MAX, 40), all[1..2]);
    let spool = Spool::open(dir.path(), most(20 << 10, 100)).expect("writable");
    for job in 4..=5 {
        let capture = spool.begin(attempt(job));
        capture.write(Channel::Stderr, &[0; 8_000]);
        spool.finish(&capture);
    }
    assert_eq!(names(&spool), ["4.0.1.stderr", "5.0.1.stderr"]);
}
