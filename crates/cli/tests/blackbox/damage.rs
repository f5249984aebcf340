//! Bytes on the disk that are not what was written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rota_api::SubmitReply;
use serde_json::json;

use crate::harness::{Api, Arena, Chance, PATIENCE, Record, Server, one_at_a_time, until};

/// The log's files, oldest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![data.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("the data can be listed") {
            let path = entry.expect("the data can be listed").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "seg") {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    found
}

/// How far something was written into the file, as opposed to reserved.
fn written(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("the log can be read");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// Changes one bit, and back again when called a second time.
fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).expect("the log can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("the log can be read");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("the log can be written");
}

fn submit(api: Api, name: &str, ballast: usize) {
    let body = json!({
        "job": {"name": name, "queue": "default"},
        "task": [{"command": ["true"], "stdin": "x".repeat(ballast)}],
    });
    let answer = api.json("POST", "/v1/jobs", &body).expect("the server answers");
    assert_eq!(answer.expect::<SubmitReply>(201).jobs[0].name, name);
}

/// Starts the server on damaged data: it must refuse and name the place, or have lost nothing.
fn refuses_or_has_lost_nothing(
    server: &mut Server,
    file: &Path,
    offset: u64,
    before: &Record,
) -> bool {
    let printed_before = server.printed().len();
    server.launch();
    let status = until("a decision", PATIENCE, || {
        let ready =
            server.api().send("GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200);
        let ended = server.process().exited();
        (ready || ended.is_some()).then_some(ended)
    });
    let Some(status) = status else {
        assert_eq!(
            &Record::read(server.api()),
            before,
            "a flipped bit at {offset} went unnoticed and did harm"
        );
        server.kill();
        return false;
    };
    let printed = server.printed().split_off(printed_before);
    let start_failed = i32::from(rota_api::ErrorCode::StartFailed.exit_code());
    assert_eq!(status.code(), Some(start_failed), "{printed}");
    let name = file.file_name().expect("a segment has a name").to_string_lossy().into_owned();
    let words: Vec<u64> =
        printed.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert!(printed.contains(&name), "the message does not name {name}: {printed}");
    let near = |named: &u64| *named <= offset && offset - *named <= 2 << 20;
    assert!(
        words.iter().any(near),
        "the message does not name a place at or before {offset}: {printed}"
    );
    true
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_is_found_and_named_and_nothing_is_forgotten() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("damage");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &[]);
    server.start();
    for number in 0..60 {
        submit(server.api(), &format!("job-{number}"), 3_000);
    }
    let before = Record::read(server.api());
    server.kill();
    let found = segments(&arena.path("server"));
    let file = found.last().expect("there is a log");
    let length = written(file);
    assert!(length > 150_000, "void: the log has {length} bytes");
    let mut refused = 0;
    for _ in 0..12 {
        // Not in the last batches: there, a flipped bit looks like a write that was cut off.
        let offset = chance.between(0, length * 3 / 4);
        flip(file, offset);
        refused += u32::from(refuses_or_has_lost_nothing(&mut server, file, offset, &before));
        flip(file, offset);
    }
    assert!(refused >= 6, "void: only {refused} of 12 flipped bits were found");
    server.start();
    assert_eq!(Record::read(server.api()), before, "a refused start changes nothing");
}

#[test]
fn a_flipped_bit_in_a_closed_segment_is_found_and_named() {
    let _turn = one_at_a_time();
    let mut chance = Chance::for_test("damage");
    let arena = Arena::new();
    let mut server = arena.server(&mut chance, &[]);
    server.start();
    // The next segment is begun while the snapshot that would make the first one superfluous is still to be made.
    let mut number = 0;
    while segments(&arena.path("server")).len() < 2 {
        submit(server.api(), &format!("job-{number}"), 900_000);
        number += 1;
        assert!(number < 400, "void: the log stays in one segment");
    }
    let before = Record::read(server.api());
    server.kill();
    let found = segments(&arena.path("server"));
    assert!(found.len() >= 2, "void: the closed segment is gone already");
    let offset = written(&found[0]) / 2;
    flip(&found[0], offset);
    let refused = refuses_or_has_lost_nothing(&mut server, &found[0], offset, &before);
    assert!(refused, "the middle of a closed segment is a job's text: damage there must be found");
    flip(&found[0], offset);
    server.start();
    assert_eq!(Record::read(server.api()), before, "a refused start changes nothing");
}
