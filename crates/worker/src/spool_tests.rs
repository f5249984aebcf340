//! The spool against a naive one that keeps everything.

use std::time::Duration;

use rota_types::{AttemptId, JobId, TaskId};

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

/// Everything that is kept, with the bytes that were skipped.
fn read_all(capture: &Capture, max: usize) -> (Vec<u8>, u64) {
    let (mut data, mut skipped, mut offset) = (Vec::new(), 0, 0);
    loop {
        let piece = capture.read(Channel::Stdout, offset, max).expect("readable");
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
        let spool = Spool::open(dir.path().join("output"), limits).expect("writable");
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
    }
}

#[test]
fn nothing_is_dropped_at_the_limit_and_one_byte_is_beyond_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (size, dropped) in [(99, 0), (100, 0), (101, 1)] {
        let spool = Spool::open(dir.path().join("output"), limits(60, 40)).expect("writable");
        let capture = spool.begin(attempt(1));
        capture.write(Channel::Stdout, &vec![b'x'; size]);
        assert_eq!(read_all(&capture, 7).1, dropped);
    }
}

#[test]
fn files_are_made_beyond_the_memory_limit_and_not_at_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (size, files) in [(SPILL_BYTES - 1, 0), (SPILL_BYTES, 0), (SPILL_BYTES + 1, 1)] {
        let place = dir.path().join("output");
        let spool = Spool::open(place.clone(), limits(1 << 20, 1 << 20)).expect("writable");
        let capture = spool.begin(attempt(1));
        capture.write(Channel::Stderr, &vec![0; usize::try_from(size).expect("small")]);
        assert_eq!(fs::read_dir(place).expect("there").count(), files);
    }
}

#[test]
fn a_disk_that_takes_nothing_costs_the_output_and_not_the_attempt() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = dir.path().join("output");
    let spool = Spool::open(place.clone(), limits(1 << 20, 1 << 20)).expect("writable");
    fs::remove_dir(&place).expect("empty");
    let capture = spool.begin(attempt(1));
    capture.write(Channel::Stdout, &[0; 5_000]);
    capture.write(Channel::Stdout, &[0; 5_000]);
    let summary = capture.summary(Channel::Stdout);
    assert_eq!(summary.written, 10_000);
    assert!(summary.note.is_some_and(|note| note.starts_with("stdout: output not kept: ")));
    assert!(capture.read(Channel::Stdout, 0, 10).is_err());
}

#[test]
fn the_oldest_outputs_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = Spool::open(dir.path().join("output"), limits(1 << 20, 1 << 20)).expect("writable");
    let most = FINISHED_MAX as u64;
    let running = spool.begin(attempt(0));
    for job in 1..=most {
        spool.finish(&spool.begin(attempt(job)));
    }
    assert!(spool.find(attempt(1)).is_some());
    spool.finish(&spool.begin(attempt(most + 1)));
    assert!(spool.find(attempt(1)).is_none() && spool.find(attempt(2)).is_some());
    assert!(spool.find(attempt(0)).is_some() && !running.is_over());
}
