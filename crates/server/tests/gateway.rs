//! Worker sessions, crashes and restarts, with a worker that does what the test tells it.

#![expect(clippy::unwrap_used, reason = "in tests, a failure is a panic")]

mod common;

use common::{World, noop_job, refs};
use reqwest::Method;
use rota_types::Span;
use rota_wire::worker as pb;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_from_submit_to_done_and_survives_a_kill_at_each_step() {
    let mut world = World::new().await;
    let id = world.submit(&noop_job("a", 3)).await;
    world.kill_and_restart().await;
    let mut worker = world.worker("n", 7).await;
    let starts = worker.starts(3).await;
    assert_eq!(starts[0].job_name, "a");
    assert_eq!(starts.iter().filter_map(|start| start.array_index).collect::<Vec<_>>(), [1, 2, 3]);
    world.kill_and_restart().await;
    // The same worker process comes back: it keeps its attempts, and no new ones are made.
    let mut worker = world.worker("n", 7).await;
    let full = worker.desired().await;
    assert!(full.full);
    assert_eq!(refs(&full.start), refs(&starts));
    let attempts = refs(&starts);
    worker.succeed(&attempts).await;
    assert_eq!(worker.settled(3).await, attempts);
    world.kill_and_restart().await;
    let (_, job) = world.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!((&job["state"], &job["counts"]["succeeded"]), (&json!("succeeded"), &json!(3)));
    let (_, task) = world.get("/v1/tasks/1.1").await;
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(task["attempts"][0]["detail"]["stdout_tail"], json!("the end\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_lost_attempts_are_settled_and_change_nothing() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    let mut old = world.worker("n", 1).await;
    let first = refs(&old.starts(1).await);
    // Another process takes the name: the attempts of the old one are lost, and it is sent away for good.
    let mut new = world.worker("n", 2).await;
    let second = refs(&new.starts(1).await);
    assert_eq!((first[0].number, second[0].number), (1, 2));
    let refused = loop {
        match old.next().await {
            Some(pb::server_message::Kind::Refused(refused)) => break refused,
            Some(_) => {}
            None => panic!("the old worker was not told"),
        }
    };
    assert!(refused.remedy.contains("--name"));
    new.succeed(&first).await;
    assert_eq!(new.settled(1).await, first);
    let (_, task) = world.get("/v1/tasks/1.0").await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("running"), &json!(2)));
    new.succeed(&second).await;
    let task = world.until("/v1/tasks/1.0", |task| task["state"] == json!("succeeded")).await;
    let states: Vec<_> =
        task["attempts"].as_array().unwrap().iter().map(|a| a["state"].clone()).collect();
    assert_eq!(states, [json!("lost"), json!("succeeded")]);
    let metrics =
        world.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\nrota_stale_reports_total 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_lost_after_its_lease_and_its_tasks_go_elsewhere() {
    let world = World::with(|config| config.lease = Span::from_millis(300)).await;
    world.submit(&noop_job("a", 1)).await;
    let mut silent = world.worker("silent", 1).await;
    assert_eq!(refs(&silent.starts(1).await)[0].number, 1);
    world.until("/v1/nodes/silent", |node| node["state"] == json!("lost")).await;
    let mut other = world.worker("other", 2).await;
    let again = refs(&other.starts(1).await);
    assert_eq!(again[0].number, 2);
    // The session of a lost node is over, so that its worker registers again.
    while silent.next().await.is_some() {}
    world.until("/v1/tasks/1.0", |task| task["node"] == json!("other")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_the_worker_and_ends_the_task() {
    let world = World::new().await;
    world.submit(&noop_job("a", 2)).await;
    let mut worker = world.worker("n", 1).await;
    let attempts = refs(&worker.starts(2).await);
    let (status, reply) = world.post("/v1/jobs/1/cancel", &json!({"grace": "3s"})).await;
    assert_eq!((status, reply), (202, json!({"ended": 0, "stopping": 2})));
    let mut stops = Vec::new();
    while stops.len() < 2 {
        stops.extend(worker.desired().await.stop);
    }
    assert_eq!(stops[0], pb::Stop { attempt: Some(attempts[0]), grace_micros: 3_000_000 });
    worker.report(&attempts, &pb::report::End::Stopped(pb::Stopped {})).await;
    world.until("/v1/jobs/1", |job| job["state"] == json!("cancelled")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_acknowledged_and_nodes_drain_and_go() {
    let world = World::new().await;
    let mut worker = world.worker("n", 1).await;
    worker.heartbeat().await;
    loop {
        match worker.next().await {
            Some(pb::server_message::Kind::HeartbeatAck(ack)) => {
                assert_eq!(ack.sent_micros, 1);
                break;
            }
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
    let (_, node) = world.post("/v1/nodes/n/drain", &json!({})).await;
    assert_eq!((&node["state"], &node["connected"]), (&json!("draining"), &json!(true)));
    world.submit(&noop_job("a", 1)).await;
    let (_, explain) = world.get("/v1/tasks/1.0/explain").await;
    assert_eq!(explain["reasons"][0]["kind"], json!("draining"));
    assert_eq!(explain["suggestions"], json!(["undrain n"]));
    let busy = world.request(Method::DELETE, "/v1/nodes/n").send().await.unwrap();
    assert_eq!(busy.status().as_u16(), 409);
    drop(worker);
    world.until("/v1/nodes/n", |node| node["connected"] == json!(false)).await;
    let gone = world.request(Method::DELETE, "/v1/nodes/n").send().await.unwrap();
    assert_eq!(gone.status().as_u16(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_gets_nothing_new_and_comes_back_as_if_nothing_had_been() {
    let world = World::new().await;
    let worker = world.worker("n", 1).await;
    worker.leave(pb::Leaving::Draining).await;
    world.until("/v1/nodes/n", |node| node["state"] == json!("draining")).await;
    worker.leave(pb::Leaving::Gone).await;
    world.until("/v1/nodes/n", |node| node["state"] == json!("lost")).await;
    world.submit(&noop_job("a", 1)).await;
    let mut again = world.worker("n", 2).await;
    assert_eq!(again.starts(1).await.len(), 1);
    let (_, node) = world.get("/v1/nodes/n").await;
    assert_eq!(node["state"], json!("ready"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_output_can_be_read_when_its_node_is_gone() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    let mut worker = world.worker("n", 1).await;
    let attempts = refs(&worker.starts(1).await);
    worker.succeed(&attempts).await;
    worker.settled(1).await;
    drop(worker);
    let read =
        |query: &str| world.request(Method::GET, &format!("/v1/tasks/1.0/logs{query}")).send();
    let response = read("").await.unwrap();
    assert_eq!(response.headers()["x-log-source"], "record");
    assert_eq!(
        (&response.headers()["x-log-offset"], &response.headers()["x-log-skipped"]),
        (&"92".parse().unwrap(), &"92".parse().unwrap())
    );
    assert_eq!(response.text().await.unwrap(), "the end\n");
    let tail = read("?tail=4").await.unwrap();
    assert_eq!(tail.headers()["x-log-offset"], "96");
    assert_eq!(tail.text().await.unwrap(), "end\n");
    let joined = world.request(Method::GET, "/v1/jobs/1/logs").send().await.unwrap();
    let mark = "[… 92 bytes were dropped by the output limit …]";
    assert_eq!(joined.text().await.unwrap(), format!("1.0 {mark}\n1.0 the end\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_wrote_nothing_has_an_empty_output_and_a_lost_one_has_none() {
    let world = World::new().await;
    world.submit(&noop_job("a", 2)).await;
    let mut worker = world.worker("n", 1).await;
    let attempts = refs(&worker.starts(2).await);
    let end = pb::report::End::Succeeded(pb::Succeeded {});
    worker.report_detail(&attempts[..1], &end, &pb::Detail::default()).await;
    worker.settled(1).await;
    drop(worker);
    let mut again = world.worker("n", 2).await;
    again.starts(1).await;
    drop(again);
    world.until("/v1/nodes/n", |node| node["connected"] == json!(false)).await;
    let silent = world.request(Method::GET, "/v1/tasks/1.0/logs").send().await.unwrap();
    assert_eq!((silent.status().as_u16(), silent.text().await.unwrap()), (200, String::new()));
    let (status, lost) = world.get("/v1/tasks/1.1/logs?attempt=1").await;
    assert_eq!((status, &lost["code"]), (410, &json!("output-expired")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_output_is_read_from_its_worker_and_followed_to_its_end() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    let mut worker = world.worker("n", 1).await;
    let attempt = refs(&worker.starts(1).await)[0];
    let early = world.request(Method::GET, "/v1/tasks/1.0/logs").send().await.unwrap();
    assert_eq!(early.status().as_u16(), 503, "nobody holds the output yet");
    let mut output = world.output(worker.node).await;
    let path = "/v1/tasks/1.0/logs?follow=true&stream=stderr&offset=3";
    let reading = tokio::spawn(world.request(Method::GET, path).send());
    let (id, read) = output.asked().await;
    let wanted = pb::ReadOutput {
        attempt: Some(attempt),
        stream: pb::OutputStream::Stderr.into(),
        offset: 3,
        tail_bytes: None,
        follow: true,
    };
    assert_eq!(read, Some(pb::output_request::Kind::Read(wanted)));
    output.answer(id, 10, b"first ", false).await;
    let response = reading.await.unwrap().unwrap();
    assert_eq!(response.headers()["x-log-offset"], "10");
    assert_eq!(response.headers()["x-log-source"], "worker");
    output.answer(id, 16, b"second", true).await;
    assert_eq!(response.text().await.unwrap(), "first second");
    // A reader that goes away is cancelled at the worker.
    let reading = tokio::spawn(world.request(Method::GET, path).send());
    let (id, _) = output.asked().await;
    output.answer(id, 10, b"first ", false).await;
    drop(reading.await.unwrap().unwrap());
    assert_eq!(output.asked().await, (id, Some(pb::output_request::Kind::Cancel(true))));
}

#[tokio::test(flavor = "multi_thread")]
async fn following_a_job_mixes_whole_lines_of_its_tasks() {
    let world = World::new().await;
    world.submit(&noop_job("a", 2)).await;
    let mut worker = world.worker("n", 1).await;
    worker.starts(2).await;
    let mut output = world.output(worker.node).await;
    let reading = tokio::spawn(world.request(Method::GET, "/v1/jobs/1/logs?follow=true").send());
    let mut reads = std::collections::BTreeMap::new();
    while reads.len() < 2 {
        if let (id, Some(pb::output_request::Kind::Read(read))) = output.asked().await {
            reads.insert(read.attempt.unwrap().index, id);
        }
    }
    output.answer(reads[&0], 0, b"one\ntw", false).await;
    output.answer(reads[&1], 0, b"uno\n", false).await;
    output.answer(reads[&0], 6, b"o\nend", true).await;
    output.answer(reads[&1], 4, b"dos\n", true).await;
    let text = reading.await.unwrap().unwrap().text().await.unwrap();
    let of = |prefix: &str| {
        text.lines().filter_map(|line| line.strip_prefix(prefix)).collect::<Vec<_>>()
    };
    assert_eq!((of("1.0 "), of("1.1 ")), (vec!["one", "two", "end"], vec!["uno", "dos"]));
}

/// Reads a path to its end.
fn reading(world: &World, path: &str) -> tokio::task::JoinHandle<String> {
    let request = world.request(Method::GET, path);
    tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() })
}

/// Asserts that a read does not end by itself.
async fn waits<T>(read: &mut tokio::task::JoinHandle<T>) {
    let moment = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(moment, read).await.is_err(), "it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_the_limit_dropped_are_marked_in_text_and_seen_in_frames() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    let mut worker = world.worker("n", 1).await;
    worker.starts(1).await;
    let mut output = world.output(worker.node).await;
    let mut text = Vec::new();
    let frames = rota_api::LOG_FRAMES;
    for (path, accept) in
        [("/v1/tasks/1.0/logs", "*/*"), ("/v1/jobs/1/logs", "*/*"), ("/v1/tasks/1.0/logs", frames)]
    {
        let request = world.request(Method::GET, path).header("accept", accept);
        let reading = tokio::spawn(request.send());
        let (id, _) = output.asked().await;
        output.answer(id, 0, b"head", false).await;
        let data = b"tail\n".to_vec();
        let behind = pb::OutputChunk { id, offset: 100, data, skipped: 96, ..Default::default() };
        output.send(behind).await;
        output.answer(id, 105, b"", true).await;
        text.push(reading.await.unwrap().unwrap().text().await.unwrap());
    }
    let mark = "[… 96 bytes were dropped by the output limit …]";
    assert_eq!(text[0], format!("head\n{mark}\ntail\n"));
    assert_eq!(text[1], format!("1.0 head\n1.0 {mark}\n1.0 tail\n"));
    assert_eq!(text[2], "0 4\nhead100 5\ntail\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_waits_for_a_worker_that_is_away_and_misses_nothing() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    let mut worker = world.worker("n", 1).await;
    let attempts = refs(&worker.starts(1).await);
    let request = world.request(Method::GET, "/v1/tasks/1.0/logs?follow=true");
    let mut opened = tokio::spawn(request.send());
    waits(&mut opened).await;
    let mut output = world.output(worker.node).await;
    let (id, _) = output.asked().await;
    let error = "this worker has no output of it".to_owned();
    output.send(pb::OutputChunk { id, error, ..Default::default() }).await;
    let (id, _) = output.asked().await;
    output.answer(id, 0, b"first ", false).await;
    let mut response = opened.await.unwrap().unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first ");
    drop(output);
    let mut output = world.output(worker.node).await;
    let (id, kind) = output.asked().await;
    let Some(pb::output_request::Kind::Read(again)) = kind else { panic!("{kind:?}") };
    assert_eq!((again.offset, again.follow), (6, true));
    output.answer(id, 6, b"second", false).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "second");
    // Gone for good: the end comes from the record.
    drop(output);
    worker.succeed(&attempts).await;
    let mark = "[… 80 bytes were dropped by the output limit …]";
    assert_eq!(response.text().await.unwrap(), format!("\n{mark}\nthe end\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_tasks_far_apart_tells_the_last_attempt_of_each() {
    let world = World::new().await;
    let mut job = noop_job("a", 20);
    job["task"][0]["retry"] = json!({"max": 1, "backoff": "1ms"});
    world.submit(&job).await;
    let mut worker = world.worker("n", 1).await;
    let failed = |code| {
        let kind = Some(pb::failed::Kind::Exit(code));
        pb::report::End::Failed(pb::Failed { kind, ..Default::default() })
    };
    let attempts = refs(&worker.starts(20).await);
    let ends = |attempt: &pb::AttemptRef| [0, 19].contains(&attempt.index);
    let (bad, good): (Vec<_>, Vec<_>) = attempts.into_iter().partition(ends);
    worker.succeed(&good).await;
    worker.report(&bad, &failed(3)).await;
    let again = refs(&worker.starts(2).await);
    worker.report(&again, &failed(4)).await;
    world.until("/v1/jobs/1", |job| job["state"] == json!("failed")).await;
    let (_, page) = world.get("/v1/jobs/1/tasks?state=failed").await;
    let told: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| (&task["index"], &task["attempt"], &task["node"], &task["failure"]["code"]))
        .collect();
    let wanted = [json!(0), json!(19), json!(2), json!("n"), json!(4)];
    let [first, last, attempt, node, code] = &wanted;
    assert_eq!(told, [(first, attempt, node, code), (last, attempt, node, code)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn following_a_task_that_never_ran_ends_when_it_is_cancelled() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    world.submit(&noop_job("b", 1)).await;
    for job in [1, 2] {
        let mut task = reading(&world, &format!("/v1/tasks/{job}.0/logs?follow=true"));
        let mut whole = reading(&world, &format!("/v1/jobs/{job}/logs?follow=true"));
        waits(&mut task).await;
        waits(&mut whole).await;
        let (status, _) = world.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await;
        assert_eq!(status, 202);
        assert_eq!((task.await.unwrap(), whole.await.unwrap()), (String::new(), String::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_job_says_where_that_of_a_task_broke_off() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    let mut worker = world.worker("n", 1).await;
    worker.starts(1).await;
    let mut output = world.output(worker.node).await;
    let read = reading(&world, "/v1/jobs/1/logs");
    let (id, _) = output.asked().await;
    output.answer(id, 0, b"part", false).await;
    let error = "its file can't be read".to_owned();
    output.send(pb::OutputChunk { id, error, ..Default::default() }).await;
    let told = "[output broke off: the output of 1.0#1: its file can't be read]";
    assert_eq!(read.await.unwrap(), format!("1.0 part\n1.0 {told}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_asks_again_and_misses_nothing() {
    let world = World::new().await;
    world.submit(&noop_job("a", 1)).await;
    let mut worker = world.worker("n", 1).await;
    worker.starts(1).await;
    let mut output = world.output(worker.node).await;
    let reading = tokio::spawn(world.request(Method::GET, "/v1/tasks/1.0/logs").send());
    let total = 32_usize << 20;
    let piece = vec![b'x'; 64 << 10];
    let serving = tokio::spawn(async move {
        let mut current = None;
        loop {
            if let Some((id, kind)) = output.asked_now(current.is_none()).await {
                current = match kind {
                    Some(pb::output_request::Kind::Read(read)) => Some((id, read.offset)),
                    _ => current.filter(|(current, _)| *current != id),
                };
            }
            if let Some((id, offset)) = current {
                let next = offset + piece.len() as u64;
                let end = next as usize >= total;
                output.answer(id, offset, &piece, end).await;
                current = (!end).then_some((id, next));
            }
        }
    });
    let response = reading.await.unwrap().unwrap();
    // Long enough for everything between worker and reader to fill up.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let body = response.bytes().await.unwrap();
    assert!(body.len() == total && body.iter().all(|byte| *byte == b'x'), "{}", body.len());
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_made_beside_the_running_server_and_lose_nothing() {
    let mut world = World::with(|config| config.snapshot_log_bytes = 2_000).await;
    let mut worker = world.worker("n", 1).await;
    for round in 0..60 {
        world.submit(&noop_job(&format!("job {round}"), 2)).await;
        let attempts = refs(&worker.starts(2).await);
        worker.succeed(&attempts[..1]).await;
    }
    world
        .until("/metrics", |text| {
            let text = text.as_str().unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("rota_snapshots_total "));
            count.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 2)
        })
        .await;
    world.until("/v1/jobs/60", |job| job["counts"]["succeeded"] == json!(1)).await;
    let (_, before) = world.get("/v1/jobs?limit=1000").await;
    for _ in 0..2 {
        world.kill_and_restart().await;
        let (_, after) = world.get("/v1/jobs?limit=1000").await;
        assert_eq!(after["items"], before["items"]);
    }
    world.shut_down().await;
    world.start().await;
    let (_, after) = world.get("/v1/jobs?limit=1000").await;
    assert_eq!(after["items"], before["items"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_directory_is_refused_with_a_remedy() {
    let world = World::new().await;
    let mut config = rota_server::ServerConfig::new(world.dir.path().join("data"));
    config.listen = "127.0.0.1:0".parse().unwrap();
    let error = rota_server::Server::start(config).await.err().unwrap().to_string();
    assert!(error.contains("in use by process") && error.contains("data directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_missing_what_a_snapshot_left_out_is_refused() {
    let mut world = World::with(|config| config.snapshot_log_bytes = 200).await;
    for number in 0..5 {
        world.submit(&noop_job(&format!("job {number}"), 1)).await;
    }
    world
        .until("/metrics", |text| {
            text.as_str().is_some_and(|text| !text.contains("\nrota_snapshots_total 0\n"))
        })
        .await;
    world.shut_down().await;
    let data = world.dir.path().join("data");
    std::fs::remove_file(data.join("history.redb")).unwrap();
    let mut config = rota_server::ServerConfig::new(data);
    config.listen = "127.0.0.1:0".parse().unwrap();
    let error = rota_server::Server::start(config).await.err().unwrap();
    assert_eq!(error.exit_code(), 74);
    assert!(error.to_string().contains("history.redb was removed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_does_not_run_is_not_placed_there_and_explained() {
    let world = World::new().await;
    let mut hooks = world.choosy_worker("hooks", &[pb::ActionKind::Http]).await;
    let job = json!({"job": {"name": "a"}, "task": [{"command": ["true"], "cpus": 0}]});
    world.submit(&job).await;
    let (_, explain) = world.get("/v1/tasks/1.0/explain").await;
    assert_eq!(explain["reasons"][0]["kind"], json!("action_kind"));
    assert_eq!(explain["reasons"][0]["reason"], json!("runs no commands (worker setting)"));
    assert_eq!(explain["suggestions"], json!(["let the worker of hooks run commands"]));
    let (_, node) = world.get("/v1/nodes/hooks").await;
    assert_eq!(node["runs"], json!(["http"]));
    let request = json!({"job": {"name": "b"}, "task": [{"http": {"url": "http://example.org"}}]});
    world.submit(&request).await;
    assert_eq!(hooks.starts(1).await[0].job_name, "b");
    let mut willing = world.worker("n", 1).await;
    assert_eq!(willing.starts(1).await[0].job_name, "a");
    let (_, node) = world.get("/v1/nodes/n").await;
    assert_eq!(node["runs"], json!(["command", "http", "noop"]));
}
