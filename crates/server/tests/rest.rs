//! The REST interface, over real sockets.

#![expect(clippy::unwrap_used, reason = "in tests, a failure is a panic")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{PATIENCE, World, noop_job, read, refs};
use futures_util::StreamExt;
use reqwest::Method;
use rota_api::ErrorCode;
use rota_types::limits::MESSAGE_BYTES_MAX;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECTED"];

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_answers_ids_and_the_job_can_be_read_at_once() {
    let world = World::new().await;
    let response =
        world.request(Method::POST, "/v1/jobs").json(&noop_job("a", 3)).send().await.unwrap();
    assert_eq!(response.headers()["location"], "/v1/jobs/1");
    assert_eq!(response.headers()["x-rota-index"], "1");
    assert!(response.headers().contains_key("x-request-id"));
    let (status, reply) = read(response).await;
    assert_eq!(status, 201);
    let submitted = json!({"id": 1, "name": "a", "queue": "default", "tasks": 3});
    assert_eq!(reply, json!({"jobs": [submitted], "replayed": false, "index": 1}));
    let (status, job) = world.get("/v1/jobs/1").await;
    assert_eq!(
        (status, &job["state"], &job["counts"]["queued"]),
        (200, &json!("queued"), &json!(3))
    );
    let (_, tasks) = world.get("/v1/jobs/1/tasks?limit=2").await;
    assert_eq!(tasks["items"].as_array().unwrap().len(), 2);
    let cursor = tasks["next_cursor"].as_str().unwrap();
    let (_, rest) = world.get(&format!("/v1/jobs/1/tasks?limit=2&cursor={cursor}")).await;
    assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&json!("1.2"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_repeating_safe_and_another_body_under_it_is_refused() {
    let mut world = World::new().await;
    let submit = |world: &World, job: Value| {
        world.request(Method::POST, "/v1/jobs").header("Idempotency-Key", "k").json(&job).send()
    };
    let (_, first) = read(submit(&world, noop_job("a", 1)).await.unwrap()).await;
    world.kill_and_restart().await;
    let again = submit(&world, noop_job("a", 1)).await.unwrap();
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let (status, again) = read(again).await;
    assert_eq!((status, &again["jobs"], &again["replayed"]), (201, &first["jobs"], &json!(true)));
    let (status, other) = read(submit(&world, noop_job("b", 1)).await.unwrap()).await;
    assert_eq!((status, &other["code"]), (409, &json!("idempotency-conflict")));
    let (_, jobs) = world.get("/v1/jobs").await;
    assert_eq!(jobs["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_lines_are_answered_one_by_one() {
    let world = World::new().await;
    let body = format!("{}\n\nnot json\n{}", noop_job("a", 1), noop_job("b", 2));
    let send = |accept: &'static str| {
        world
            .request(Method::POST, "/v1/jobs")
            .header("Content-Type", "application/x-ndjson")
            .header("Accept", accept)
            .body(body.clone())
            .send()
    };
    let (status, text) = read(send("application/x-ndjson").await.unwrap()).await;
    assert_eq!(status, 200);
    let mut lines: Vec<Value> =
        text.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["line"].as_u64());
    let told: Vec<_> =
        lines.iter().map(|line| (&line["line"], &line["id"], &line["problem"]["status"])).collect();
    let null = Value::Null;
    assert_eq!(
        told,
        vec![
            (&json!(1), &json!(1), &null),
            (&json!(3), &null, &json!(400)),
            (&json!(4), &json!(2), &null),
        ]
    );
    let (status, _) = read(send("application/json").await.unwrap()).await;
    assert!((400..500).contains(&status), "all or none: {status}");
}

/// The answers to a streamed submit.
async fn stream(world: &World, key: &str, body: String) -> (u16, Vec<Value>) {
    let request = world
        .request(Method::POST, "/v1/jobs")
        .header("Content-Type", "application/x-ndjson")
        .header("Accept", "application/x-ndjson")
        .header("Idempotency-Key", key);
    let (status, text) = read(request.body(body).send().await.unwrap()).await;
    let lines = text.as_str().map(|text| text.lines().map(|line| line.parse().unwrap()).collect());
    (status, lines.unwrap_or_else(|| vec![text]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_submit_that_ends_early_tells_what_it_recorded() {
    let world = World::with(|config| config.body_bytes_max = 10_000).await;
    let job = noop_job("a", 1);
    // The first thousand are recorded; the rest is not.
    let body = format!("{}{}", format!("{job}\n").repeat(1_002), "x".repeat(10_001));
    let longest = "k".repeat(128);
    let (status, lines) = stream(&world, &longest, body).await;
    assert_eq!((status, lines.len()), (200, 1_001));
    assert_eq!(lines[999], json!({"line": 1_000, "id": 1_000}));
    let last = &lines[1_000];
    assert_eq!(
        (&last["line"], &last["problem"]["code"]),
        (&json!(1_001), &json!("body-too-large"))
    );
    // Nothing was recorded: the whole is refused.
    let (status, problem) = stream(&world, "other", format!("{job}\n{}", "x".repeat(10_001))).await;
    assert_eq!((status, &problem[0]["code"]), (413, &json!("body-too-large")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_submit_stops_at_the_first_line_behind_too_many_refusals() {
    let world = World::new().await;
    for wrong in [999, 1_000, 1_001] {
        let job = noop_job("a", 1);
        let body = format!("{}{job}\n{job}\n", "1\n".repeat(wrong));
        let (status, lines) = stream(&world, &format!("with-{wrong}"), body).await;
        let told = lines.iter().filter(|line| line["id"].is_u64()).count();
        let last = lines.last().unwrap();
        let limit = last["problem"]["code"] == json!("limit-exceeded");
        let wanted = if wrong < 1_000 { (1_001, 2, false) } else { (1_001, 0, true) };
        assert_eq!((status, (lines.len(), told, limit)), (200, wanted), "{wrong}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_queue_that_are_changed_at_once_are_all_kept() {
    let world = World::new().await;
    for round in 1..20 {
        let change = |body: Value| {
            let request = world.request(Method::PATCH, "/v1/queues/default").json(&body);
            async move { request.send().await.unwrap().status().as_u16() }
        };
        let done = tokio::join!(
            change(json!({"running_max": round})),
            change(json!({"tasks_max": 100 + round})),
            change(json!({"weight": round})),
        );
        assert_eq!(done, (200, 200, 200));
        let (_, queue) = world.get("/v1/queues/default").await;
        let kept = (&queue["running_max"], &queue["tasks_max"], &queue["weight"]);
        assert_eq!(kept, (&json!(round), &json!(100 + round), &json!(round)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_every_subject_can_be_asked_for() {
    let world = World::new().await;
    for subject in ["job", "task", "node", "queue", "server", "token", "audit"] {
        let path = format!("/v1/events?types={subject}");
        let answer = world.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{subject}");
    }
    assert_eq!(world.get("/v1/events?types=tasks").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_over_live_and_finished_jobs_show_each_job_once() {
    let world = World::new().await;
    for number in 0..30 {
        let mut job = noop_job(&format!("job-{}", number % 3), 1);
        job["job"]["labels"] = json!({"team": if number % 2 == 0 { "a" } else { "b" }});
        world.submit(&job).await;
    }
    // Two thirds of them end.
    for id in (1..=30).filter(|id| id % 3 != 0) {
        let (status, reply) = world.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await;
        assert_eq!((status, reply), (202, json!({"ended": 1, "stopping": 0})));
    }
    for limit in [1, 7, 29, 30, 31] {
        for (filter, wanted) in [
            ("", (1..=30).rev().collect::<Vec<u64>>()),
            ("&state=queued", (1..=30).rev().filter(|id| id % 3 == 0).collect()),
            ("&state=cancelled", (1..=30).rev().filter(|id| id % 3 != 0).collect()),
            ("&label=team=a", (1..=30).rev().filter(|id| id % 2 == 1).collect()),
            ("&label=team!=a,team", (1..=30).rev().filter(|id| id % 2 == 0).collect()),
            ("&label=team=c", Vec::new()),
            (
                "&label=team=b&state=cancelled",
                (1..=30).rev().filter(|id| id % 2 == 0 && id % 3 != 0).collect(),
            ),
            ("&submitter=nobody", Vec::new()),
            ("&name=job-1", (1..=30).rev().filter(|id| id % 3 == 2).collect()),
            (
                "&state=queued,cancelled&queue=default&name=job-0",
                (1..=30).rev().filter(|id| id % 3 == 1).collect(),
            ),
        ] {
            let mut listed = Vec::new();
            let mut cursor = String::new();
            loop {
                let (status, page) =
                    world.get(&format!("/v1/jobs?limit={limit}{filter}{cursor}")).await;
                assert_eq!(status, 200, "{page}");
                let items = page["items"].as_array().unwrap();
                assert!(items.len() <= limit);
                listed.extend(items.iter().map(|job| job["id"].as_u64().unwrap()));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(listed, wanted, "limit {limit}, filter {filter:?}");
        }
    }
    let (_, page) = world.get("/v1/jobs?limit=1").await;
    let stolen = page["next_cursor"].as_str().unwrap();
    let (status, problem) =
        world.get(&format!("/v1/jobs?limit=1&state=queued&cursor={stolen}")).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid-cursor")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_is_added_up_over_no_more_than_twenty_thousand_groups() {
    let world = World::new().await;
    let groups = |count: usize, estimate: &str| {
        let group = |n| json!({"name": format!("g{n}"), "noop": true, "estimate": estimate});
        json!({"job": {"name": "many"}, "task": (0..count).map(group).collect::<Vec<_>>()})
    };
    let mut without = groups(1_000, "");
    for group in without["task"].as_array_mut().unwrap() {
        group.as_object_mut().unwrap().remove("estimate");
    }
    world.submit(&groups(999, "1s")).await;
    for _ in 0..19 {
        world.submit(&without).await;
    }
    for told in [19_000, 19_001, 19_001] {
        let (_, stats) = world.get("/v1/cluster/stats").await;
        assert_eq!(stats["load"]["tasks_without_estimate"], json!(told), "{stats}");
        world.submit(&noop_job("one more", 1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_and_other_sites_are_refused_on_every_method() {
    let world = World::new().await;
    for method in METHODS {
        for path in ["/v1/jobs", "/healthz", "/docs", "/nothing"] {
            let send = |name: &'static str, value: &'static str| {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                world.request(method, path).header(name, value).send()
            };
            let status = send("Host", "evil.example").await.unwrap().status().as_u16();
            assert_eq!(status, 421, "{method} {path}");
            for (name, value) in [
                ("Origin", "http://evil.example"),
                ("Origin", "null"),
                ("Sec-Fetch-Site", "cross-site"),
            ] {
                let response = send(name, value).await.unwrap();
                assert_eq!(response.status().as_u16(), 403, "{method} {path} {name}");
                assert!(!response.headers().contains_key("access-control-allow-origin"));
            }
        }
    }
    let (_, jobs) = world.get("/v1/jobs").await;
    assert_eq!(jobs["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_refused_is_a_problem_document() {
    let world = World::new().await;
    let send = async |method: &str, path: &str, kind: &str, body: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = world.request(method, path).body(body.to_owned());
        let request = if kind.is_empty() { request } else { request.header("Content-Type", kind) };
        let response = request.send().await.unwrap();
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
        let (status, problem) = read(response).await;
        assert_eq!(problem["status"], json!(status), "{problem}");
        assert_eq!(problem["instance"], json!(path.split('?').next().unwrap()));
        assert_eq!(problem["request_id"], json!(headers["x-request-id"].to_str().unwrap()));
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], json!(format!("/problems/{code}")));
        (status, code, headers)
    };
    let json = "application/json";
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    for (method, path, kind, body, status, code) in [
        ("GET", "/v1/nothing", "", "", 404, "unknown-route"),
        ("GET", "/v1/jobs/7", "", "", 404, "job-not-found"),
        ("GET", "/v1/tasks/7.1", "", "", 404, "job-not-found"),
        ("GET", "/v1/nodes/x", "", "", 404, "node-not-found"),
        ("GET", "/v1/queues/x", "", "", 404, "queue-not-found"),
        ("POST", "/v1/queues/x/pause", "", "", 404, "queue-not-found"),
        ("GET", "/v1/jobs/x", "", "", 400, "invalid-parameter"),
        ("GET", "/v1/jobs/%FF", "", "", 400, "invalid-parameter"),
        ("GET", "/v1/jobs?stat=queued", "", "", 400, "invalid-parameter"),
        ("GET", "/v1/jobs?state=quueud", "", "", 400, "invalid-parameter"),
        ("GET", "/v1/jobs?limit=0", "", "", 400, "invalid-parameter"),
        ("GET", "/v1/jobs?limit=1001", "", "", 400, "invalid-parameter"),
        ("GET", "/v1/jobs?cursor=x", "", "", 400, "invalid-cursor"),
        ("GET", "/v1/events?since=x", "", "", 400, "invalid-parameter"),
        ("GET", "/v1/events?types=x", "", "", 400, "invalid-parameter"),
        ("POST", "/v1/jobs", "", "{}", 415, "unsupported-media-type"),
        ("POST", "/v1/jobs", "text/plain", "{}", 415, "unsupported-media-type"),
        ("POST", "/v1/jobs", json, "{\n ]", 400, "invalid-json"),
        ("POST", "/v1/jobs", json, &deep, 400, "invalid-json"),
        ("POST", "/v1/jobs", json, "{\"task\": []}", 422, "invalid-job"),
        ("POST", "/v1/jobs", json, "{\"task\": [{\"nop\": true}]}", 422, "invalid-job"),
        (
            "POST",
            "/v1/jobs",
            json,
            "{\"job\": {\"queue\": \"x\"}, \"task\": [{\"noop\": true}]}",
            422,
            "unknown-queue",
        ),
        ("POST", "/v1/jobs/1/cancel", json, "{\"grace\": 1, \"x\": 1}", 422, "invalid-request"),
        ("POST", "/v1/jobs/1/retry", json, "{}", 404, "job-not-found"),
        ("DELETE", "/v1/queues/default", "", "", 409, "queue-protected"),
    ] {
        let (found, name, _) = send(method, path, kind, body).await;
        assert_eq!((found, name.as_str()), (status, code), "{method} {path} {body}");
    }
    let (status, _, headers) = send("DELETE", "/v1/jobs", "", "").await;
    assert_eq!((status, &headers["allow"]), (405, &"POST,GET,HEAD".parse().unwrap()));
    let (status, _, headers) = send("TRACE", "/v1/jobs/1/cancel", "", "").await;
    assert_eq!((status, &headers["allow"]), (405, &"POST".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guard_refuses_has_the_status_that_the_catalogue_names() {
    let world = World::new().await;
    let get = || world.request(Method::GET, "/v1/jobs");
    let many = (0..65).fold(get(), |request, number| request.header(format!("x-{number}"), "1"));
    for (request, status, code) in [
        (get().header("Host", "evil.example"), 421, ErrorCode::ForbiddenHost),
        (get().header("Origin", "http://evil.example"), 403, ErrorCode::ForbiddenOrigin),
        (many, 431, ErrorCode::HeadersTooLarge),
        (get().header("x-long", "y".repeat(16 << 10)), 431, ErrorCode::HeadersTooLarge),
    ] {
        let (found, problem) = read(request.send().await.unwrap()).await;
        assert_eq!((found, &problem["code"]), (status, &json!(code.name())));
        assert_eq!(Some(found), code.status(), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_described_and_taken_in_together() {
    let world = World::new().await;
    let (_, spec) = world.get("/v1/openapi.json").await;
    let forms = &spec["components"]["schemas"]["SubmitRequest"]["oneOf"];
    let names: Vec<&Value> = forms.as_array().unwrap().iter().map(|form| &form["$ref"]).collect();
    assert_eq!(names, ["#/components/schemas/JobFile", "#/components/schemas/JobBatch"]);
    let body = &spec["paths"]["/v1/jobs"]["post"]["requestBody"]["content"];
    let kinds: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(kinds, ["application/json", "application/x-ndjson"]);
    let batch = |last: Value| json!({"jobs": [noop_job("a", 1), noop_job("b", 2), last]});
    let (status, reply) = world.post("/v1/jobs", &batch(noop_job("c", 3))).await;
    assert_eq!((status, reply["jobs"].as_array().map(Vec::len)), (201, Some(3)));
    let (status, problem) = world.post("/v1/jobs", &batch(json!({"task": []}))).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/jobs/2/task")));
    let (_, jobs) = world.get("/v1/jobs").await;
    assert_eq!(jobs["items"].as_array().map(Vec::len), Some(3), "a bad batch adds nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_exactly_as_large_as_its_limit() {
    let world = World::with(|config| config.body_bytes_max = 1_000).await;
    let job = noop_job("a", 1).to_string();
    for (size, wanted) in [(999, 201), (1_000, 201), (1_001, 413)] {
        let body = format!("{job}{}", " ".repeat(size - job.len()));
        let sized =
            world.request(Method::POST, "/v1/jobs").header("Content-Type", "application/json");
        let response = sized.body(body.clone()).send().await.unwrap();
        assert_eq!(response.status().as_u16(), wanted, "{size} bytes");
        let chunked =
            world.request(Method::POST, "/v1/jobs").header("Content-Type", "application/json");
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(body)]);
        let response = chunked.body(reqwest::Body::wrap_stream(stream)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), wanted, "{size} bytes of unknown length");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_work_and_takes_finishing_work() {
    let world = World::with(|config| config.disk_reserve_bytes = 0).await;
    let id = world.submit(&noop_job("a", 1)).await;
    drop(world);
    let world = World::with(|config| config.disk_reserve_bytes = u64::MAX).await;
    let (status, refused) = world.post("/v1/jobs", &noop_job("a", 1)).await;
    assert_eq!((status, &refused["code"]), (507, &json!("disk-full")));
    let (status, _) = world.get("/readyz").await;
    assert_eq!(status, 503);
    let (status, _) = world.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 404, "it is recorded that there is nothing to cancel");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_created_changed_paused_and_removed() {
    let world = World::new().await;
    let put = |body: Value| {
        world
            .request(Method::PUT, "/v1/queues/a%2Fb")
            .header("If-None-Match", "*")
            .json(&body)
            .send()
    };
    let response = put(json!({"discipline": "priority", "weight": 3})).await.unwrap();
    assert_eq!(response.headers()["location"], "/v1/queues/a%2Fb");
    let (status, queue) = read(response).await;
    assert_eq!((status, &queue["name"], &queue["aging"]), (201, &json!("a/b"), &json!("1m")));
    let (status, again) = read(put(json!({})).await.unwrap()).await;
    assert_eq!((status, &again["code"]), (409, &json!("queue-exists")));
    let patch = world.request(Method::PATCH, "/v1/queues/a%2Fb").json(&json!({"running_max": 5}));
    let (status, queue) = read(patch.send().await.unwrap()).await;
    assert_eq!((status, &queue["weight"], &queue["running_max"]), (200, &json!(3), &json!(5)));
    let (_, queue) = world.post("/v1/queues/a%2Fb/pause", &json!({})).await;
    assert_eq!(queue["paused"], json!(true));
    let (_, queues) = world.get("/v1/queues?limit=1").await;
    let cursor = queues["next_cursor"].as_str().unwrap();
    let (_, rest) = world.get(&format!("/v1/queues?limit=1&cursor={cursor}")).await;
    assert_eq!((&rest["items"][0]["name"], &rest["next_cursor"]), (&json!("a/b"), &Value::Null));
    let delete = world.request(Method::DELETE, "/v1/queues/a%2Fb").send().await.unwrap();
    assert_eq!(delete.status().as_u16(), 204);
    assert_eq!(world.get("/v1/queues/a%2Fb").await.0, 404);
}

/// Asks on a connection whether the server is well; `None` if no answer comes in that time.
async fn ask(stream: &mut TcpStream, patience: Duration) -> Option<usize> {
    let asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(asked).await.unwrap();
    let mut answer = [0; 4_096];
    let read = tokio::time::timeout(patience, stream.read(&mut answer)).await.ok()?;
    Some(read.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_until_one_ends() {
    let world = World::with(|config| config.connections_max = 3).await;
    let address = world.server.as_ref().unwrap().address();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream, PATIENCE).await.is_some_and(|bytes| bytes > 0));
        open.push(stream);
    }
    let mut beyond = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut beyond, Duration::from_millis(300)).await, None);
    drop(open.pop());
    let mut answer = [0; 12];
    let read = tokio::time::timeout(PATIENCE, beyond.read_exact(&mut answer)).await;
    assert!(read.is_ok_and(|read| read.is_ok()), "the place that became free is given on");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_beyond_the_limit_are_refused_until_one_leaves() {
    let world = World::with(|config| config.followers_max = 2).await;
    let follow = async || world.request(Method::GET, "/v1/events").send().await.unwrap();
    let (first, second) = (follow().await, follow().await);
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    world.submit(&noop_job("a", 1)).await;
    let logs = ["tasks/1.0", "jobs/1"].map(|of| format!("/v1/{of}/logs?follow=true"));
    for path in [&["/v1/events".to_owned()][..], &logs].concat() {
        let (status, problem) = world.get(&path).await;
        assert_eq!((status, &problem["code"]), (503, &json!("overloaded")), "{path}");
    }
    drop(second);
    let deadline = Instant::now() + PATIENCE;
    while follow().await.status().as_u16() != 200 {
        assert!(Instant::now() < deadline, "the place does not become free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_cancel_has_a_limit() {
    let world = World::new().await;
    for (bytes, wanted) in
        [(MESSAGE_BYTES_MAX - 1, 202), (MESSAGE_BYTES_MAX, 202), (MESSAGE_BYTES_MAX + 1, 422)]
    {
        let id = world.submit(&noop_job("a", 1)).await;
        let reason = json!({"reason": "x".repeat(bytes)});
        let (status, _) = world.post(&format!("/v1/jobs/{id}/cancel"), &reason).await;
        assert_eq!(status, wanted, "{bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_cancel_is_told_with_the_task_and_with_the_job() {
    let world = World::new().await;
    world.submit(&noop_job("a", 4)).await;
    let cancel = |tasks: &'static str, reason: &'static str| {
        let body = json!({"tasks": tasks, "reason": reason});
        async { world.post("/v1/jobs/1/cancel", &{ body }).await.0 }
    };
    assert_eq!(cancel("1-2", "wrong data").await, 202);
    let reason = |task: &Value| task["cancel_reason"].clone();
    let tell = |job: &Value| {
        let told = job["cancels"].as_array().cloned().unwrap_or_default();
        let told = told.into_iter().map(|one| (one["tasks"].clone(), one["reason"].clone()));
        told.collect::<Vec<_>>()
    };
    let first = vec![(json!(2), json!("wrong data"))];
    // While the job is live, and when it is over.
    for _ in 0..2 {
        let (_, task) = world.get("/v1/tasks/1.2").await;
        assert_eq!((&task["state"], reason(&task)), (&json!("cancelled"), json!("wrong data")));
        let (_, tasks) = world.get("/v1/jobs/1/tasks").await;
        let told: Vec<_> = tasks["items"].as_array().unwrap().iter().map(reason).collect();
        let why = || json!("wrong data");
        assert_eq!(told, [Value::Null, why(), why(), Value::Null]);
        let (_, job) = world.get("/v1/jobs/1").await;
        assert_eq!(tell(&job), first);
        assert!([202, 409].contains(&cancel("0,3", "").await));
    }
    assert_eq!(world.get("/v1/jobs/1").await.1["state"], json!("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_job_are_listed_page_by_page_as_far_as_they_are_kept() {
    let mut world = World::with(|config| config.events_kept_max = 8).await;
    let list = async |world: &World, query: &str| {
        let (status, page) = world.get(&format!("/v1/jobs/1/events{query}")).await;
        let kinds =
            page["items"].as_array().into_iter().flatten().map(|event| event["type"].clone());
        (status, kinds.collect::<Vec<_>>(), page)
    };
    assert_eq!(list(&world, "").await.0, 404);
    let id = world.submit(&noop_job("a", 1)).await;
    world.submit(&noop_job("b", 1)).await;
    let (status, _) = world.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 202);
    let (_, kinds, page) = list(&world, "").await;
    assert_eq!(kinds, ["job_submitted", "tasks_cancelled", "job_finished"]);
    assert_eq!((&page["complete"], &page["next_cursor"]), (&json!(true), &Value::Null));
    let (_, first, page) = list(&world, "?limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    let (_, rest, last) = list(&world, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!([first, rest].concat(), kinds);
    assert_eq!((&last["complete"], &last["next_cursor"]), (&json!(true), &Value::Null));
    assert_eq!(list(&world, "?cursor=x").await.2["code"], json!("invalid-cursor"));
    for _ in 0..8 {
        world.submit(&noop_job("c", 1)).await;
    }
    let (_, kinds, page) = list(&world, "").await;
    assert_eq!((kinds.len(), &page["complete"]), (0, &json!(false)));
    let (status, _, page) = list(&world, &format!("?cursor={cursor}")).await;
    assert_eq!((status, &page["code"]), (410, &json!("events-compacted")));
    world.kill_and_restart().await;
    assert_eq!(list(&world, "").await.2["complete"], json!(false));
}

/// Reads `count` events of a stream, ids and types.
async fn events(response: reqwest::Response, count: usize) -> Vec<(String, String)> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let chunk = tokio::time::timeout(common::PATIENCE, stream.next()).await.unwrap();
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
    }
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    text.split("\n\n")
        .filter(|event| event.contains("event:"))
        .map(|event| (field(event, "id: "), field(event, "event: ")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_resume_behind_any_event_and_say_when_they_can_not() {
    let mut world = World::with(|config| config.events_kept_max = 5).await;
    let follow = |world: &World, query: &str, last: &str| {
        world
            .request(Method::GET, &format!("/v1/events{query}"))
            .header("Last-Event-ID", last)
            .send()
    };
    // What the server says of itself comes before or with the submit.
    let live = follow(&world, "?job=1", "").await.unwrap();
    world.submit(&noop_job("a", 1)).await;
    world.post("/v1/jobs/1/cancel", &json!({})).await;
    let all = events(live, 3).await;
    let kinds: Vec<&str> = all.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds, ["job_submitted", "tasks_cancelled", "job_finished"]);
    for (place, (id, _)) in all.iter().enumerate().take(2) {
        let rest = events(follow(&world, "?job=1", id).await.unwrap(), 2 - place).await;
        assert_eq!(rest, all[place + 1..]);
    }
    let jobs = events(follow(&world, "?types=job&job=1", "0").await.unwrap(), 2).await;
    assert_eq!(jobs, [all[0].clone(), all[2].clone()]);
    for _ in 0..4 {
        world.submit(&noop_job("b", 1)).await;
    }
    let reset = events(follow(&world, "", "1:0").await.unwrap(), 1).await;
    assert_eq!(reset[0].1, "reset");
    world.kill_and_restart().await;
    let reset = events(follow(&world, "", "2:1").await.unwrap(), 1).await;
    assert_eq!(reset[0].1, "reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_lists_exactly_what_is_served_and_every_code_is_explained() {
    let world = World::new().await;
    let (_, spec) = world.get("/v1/openapi.json").await;
    assert_eq!(spec["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    let text = spec.to_string();
    let named: BTreeSet<&str> = text
        .split("#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    for name in named {
        assert!(
            spec["components"]["schemas"].get(name).is_some(),
            "{name} is referred to and missing"
        );
    }
    let (status, docs) = world.get("/docs").await;
    assert_eq!(status, 200);
    let docs = docs.as_str().unwrap();
    assert!(docs.contains("/v1/jobs/{id}/cancel") && !docs.contains("<script"));
    assert!(!docs.contains("=\"http") && !docs.contains("src=") && !docs.contains("@import"));
    for code in rota_api::ErrorCode::ALL {
        let (status, text) = world.get(&format!("/problems/{code}")).await;
        assert_eq!(status, 200, "{code}");
        assert!(text.as_str().unwrap().contains(code.title()));
    }
    assert_eq!(world.get("/problems/nonsense").await.0, 404);
    for path in ["/healthz", "/readyz", "/version", "/v1/version", "/metrics", "/v1/cluster/stats"]
    {
        assert_eq!(world.get(path).await.0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_a_new_job_of_what_did_not_succeed() {
    let world = World::new().await;
    let job = json!({"job": {"name": "r"}, "task": [
        {"name": "a", "noop": true, "array": "5-7"},
        {"name": "b", "noop": true, "entries": ["x", "y", "z"]},
    ]});
    let id = world.submit(&job).await;
    assert_eq!(world.post("/v1/jobs/1/retry", &json!({})).await.0, 409);
    let mut worker = world.worker("n", 1).await;
    let starts = worker.starts(6).await;
    let (good, bad): (Vec<_>, Vec<_>) =
        refs(&starts).into_iter().partition(|attempt| ![1, 4].contains(&attempt.index));
    worker.succeed(&good).await;
    let exit = rota_wire::worker::Failed {
        kind: Some(rota_wire::worker::failed::Kind::Exit(3)),
        message: String::new(),
    };
    worker.report(&bad, &rota_wire::worker::report::End::Failed(exit)).await;
    let failed =
        world.until(&format!("/v1/jobs/{id}"), |job| job["state"] == json!("failed")).await;
    assert_eq!(failed["first_failure"]["failure"]["code"], json!(3));
    let (status, reply) = world.post("/v1/jobs/1/retry", &json!({})).await;
    assert_eq!((status, &reply["jobs"][0]["tasks"]), (201, &json!(2)));
    let (_, job) = world.get("/v1/jobs/2?spec=true").await;
    assert_eq!((&job["retry_of"], &job["spec"]["task"][0]["array"]), (&json!(1), &json!("6")));
    assert_eq!(job["spec"]["task"][1]["entries"], json!(["y"]));
    let (_, reply) = world.post("/v1/jobs/1/retry", &json!({"all": true})).await;
    assert_eq!(reply["jobs"][0]["tasks"], json!(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_closes_streams_and_keeps_everything() {
    let mut world = World::new().await;
    let stream = world.request(Method::GET, "/v1/events").send().await.unwrap();
    let worker = world.worker("n", 1).await;
    let id = world.submit(&noop_job("a", 1)).await;
    let began = std::time::Instant::now();
    world.shut_down().await;
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
    stream.bytes().await.unwrap();
    drop(worker);
    world.start().await;
    assert_eq!(world.get(&format!("/v1/jobs/{id}")).await.0, 200);
}
