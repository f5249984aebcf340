//! Keys, sessions and locks over REST.

#![expect(clippy::unwrap_used, reason = "in tests, a failure is a panic")]

mod common;

use std::pin::Pin;
use std::time::{Duration, Instant};

use common::clients::Clients;
use common::{PATIENCE, World, read};
use futures_util::{Stream, StreamExt};
use reqwest::{Method, Response};
use rota_types::limits::{
    CLAIM_VALUE_BYTES_MAX, KEY_BYTES_MAX, KEY_CHANGES_MAX, KEY_PAGE_BYTES_MAX, KEY_VALUE_BYTES_MAX,
    KEYS_DELETED_MAX, LOCK_WAIT_MAX, SESSION_TTL_MAX, SESSION_TTL_MIN,
};
use serde_json::{Value, json};

async fn put(world: &World, key: &str, value: impl Into<reqwest::Body>) -> (u16, Value) {
    put_if(world, key, value, &[]).await
}

async fn put_if(
    world: &World,
    path: &str,
    value: impl Into<reqwest::Body>,
    headers: &[(&str, &str)],
) -> (u16, Value) {
    let request = world.request(Method::PUT, &format!("/v1/kv/{path}")).body(value);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    read(request.send().await.unwrap()).await
}

async fn delete(world: &World, path: &str) -> (u16, Value) {
    read(world.request(Method::DELETE, path).send().await.unwrap()).await
}

async fn open(world: &World, ttl: &str) -> u64 {
    let (status, session) = world.post("/v1/sessions", &json!({"ttl": ttl})).await;
    assert_eq!(status, 201, "{session}");
    session["id"].as_u64().unwrap()
}

async fn acquire(world: &World, lock: &str, body: Value) -> (u16, Value) {
    let request = world.request(Method::PUT, &format!("/v1/locks/{lock}")).json(&body);
    read(request.send().await.unwrap()).await
}

fn told((status, value): &(u16, Value)) -> (u16, &str) {
    (*status, value["code"].as_str().unwrap_or(""))
}

fn number(response: &Response, header: &str) -> Option<u64> {
    response.headers().get(header).map(|value| value.to_str().unwrap().parse().unwrap())
}

/// A stream of changes, cut into messages of id, event and data.
struct Watch {
    body: Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
    /// The last position that was told.
    last: String,
}

impl Watch {
    async fn open(world: &World, query: &str, last: Option<&str>) -> Self {
        let url = world.url(&format!("/v1/watch?{query}"));
        let mut request = world.client.get(url);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = Box::pin(response.bytes_stream());
        let mut watch = Self { body, text: String::new(), last: String::new() };
        assert_eq!(watch.message().await, (String::new(), Value::Null), "first, the position");
        watch
    }

    async fn message(&mut self) -> (String, Value) {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let (mut event, mut data) = (String::new(), Value::Null);
                for line in message.lines() {
                    match line.split_once(": ").unwrap() {
                        ("id", id) => self.last = id.to_owned(),
                        ("event", name) => event = name.to_owned(),
                        ("data", text) => data = serde_json::from_str(text).unwrap(),
                        other => panic!("{other:?}"),
                    }
                }
                self.text = rest.to_owned();
                return (event, data);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
    }

    /// The next change, as kind, name and value or holder.
    async fn next(&mut self) -> (String, String, Value) {
        let (event, data) = self.message().await;
        assert_eq!(data["kind"].as_str().unwrap_or("reset"), event);
        let name = data["key"].as_str().or(data["lock"].as_str()).unwrap_or_default().to_owned();
        let what =
            if data["lock"].is_null() { &data["now"]["value"] } else { &data["holder"]["session"] };
        (event, name, what.clone())
    }
}

fn change(kind: &str, name: &str, what: Value) -> (String, String, Value) {
    (kind.to_owned(), name.to_owned(), what)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_comes_back_as_it_was_put_with_everything_known_of_it() {
    let mut world = World::new().await;
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(put(&world, "a", "old").await.0, 200);
    let request = world.request(Method::PUT, "/v1/kv/config/web%20%C3%A4/port").body(bytes.clone());
    let response = request.send().await.unwrap();
    assert_eq!(
        (number(&response, "x-rota-index"), &response.headers()["etag"]),
        (Some(2), &"\"2\"".parse().unwrap())
    );
    let (_, changed) = read(response).await;
    assert_eq!(changed, json!({"revision": 2, "deleted": 0, "index": 2}));
    put(&world, "config/web ä/port", bytes.clone()).await;
    world.kill_and_restart().await;
    // Slashes may be written either way.
    for path in ["/v1/kv/config/web ä/port", "/v1/kv/config%2Fweb%20%C3%A4%2Fport"] {
        let response = world.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/octet-stream");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let seen = ["x-rota-revision", "x-rota-created", "x-rota-version", "x-rota-session"];
        assert_eq!(seen.map(|name| number(&response, name)), [Some(3), Some(2), Some(2), None]);
        assert_eq!(response.headers()["etag"], "\"3\"");
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    let response = world.request(Method::GET, "/v1/kv/a").header("Accept", "application/json");
    let (_, key) = read(response.send().await.unwrap()).await;
    assert_eq!(
        key,
        json!({"key": "a", "revision": 1, "created": 1, "version": 1, "size": 3, "value": "b2xk"})
    );
    assert_eq!(told(&world.get("/v1/kv/b").await), (404, "key-not-found"));
    let (_, gone) = delete(&world, "/v1/kv/a").await;
    assert_eq!((&gone["deleted"], &gone["revision"]), (&json!(1), &json!(4)));
    let (status, gone) = delete(&world, "/v1/kv/a").await;
    assert_eq!((status, &gone["deleted"], &gone["revision"]), (200, &json!(0), &json!(4)));
    assert_eq!(told(&world.get("/v1/kv/a").await), (404, "key-not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_depends_on_a_revision_is_made_at_that_revision_only() {
    let world = World::new().await;
    let create = [("If-None-Match", "*")];
    assert_eq!(put_if(&world, "a", "1", &create).await.0, 200);
    assert_eq!(told(&put_if(&world, "a", "2", &create).await), (412, "revision-mismatch"));
    for (tag, wanted) in [("\"1\"", 200), ("\"1\"", 412), ("2", 200), ("\"9\"", 412), ("1", 412)] {
        let (status, answer) = put_if(&world, "a", "3", &[("If-Match", tag)]).await;
        assert_eq!(status, wanted, "{tag}: {answer}");
    }
    let refused = put_if(&world, "b", "1", &[("If-Match", "1")]).await;
    assert_eq!(told(&refused), (412, "revision-mismatch"));
    assert!(refused.1["detail"].as_str().unwrap().contains("there is no key \"b\""));
    for wrong in [
        &[("If-Match", "*")][..],
        &[("If-Match", "W/\"1\"")],
        &[("If-Match", "+1")],
        &[("If-Match", "")],
        &[("If-None-Match", "\"1\"")],
    ] {
        assert_eq!(
            told(&put_if(&world, "a", "x", wrong).await),
            (400, "invalid-parameter"),
            "{wrong:?}"
        );
    }
    let both = [("If-Match", "1"), ("If-None-Match", "*")];
    assert_eq!(told(&put_if(&world, "a", "x", &both).await), (422, "invalid-request"));
    let remove =
        |tag: &'static str| world.request(Method::DELETE, "/v1/kv/a").header("If-Match", tag);
    let refused = read(remove("1").send().await.unwrap()).await;
    assert_eq!(told(&refused), (412, "revision-mismatch"));
    let (_, done) = read(remove("3").send().await.unwrap()).await;
    assert_eq!(done["deleted"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_done_as_a_whole_or_not_at_all() {
    let world = World::new().await;
    put(&world, "a", "1").await;
    let both = json!({
        "conditions": [{"unchanged": {"key": "a", "revision": 1}}, {"absent": {"key": "b"}}],
        "changes": [{"delete": {"key": "a"}}, {"put": {"key": "b", "value": "Mg=="}}, {"put": {"key": "c", "value": ""}}],
    });
    let (status, done) = world.post("/v1/kv", &both).await;
    assert_eq!(
        (status, &done["revision"], &done["deleted"]),
        (200, &json!(2), &json!(1)),
        "{done}"
    );
    let refused = world.post("/v1/kv", &both).await;
    assert_eq!(told(&refused), (412, "revision-mismatch"));
    let (_, keys) = world.get("/v1/kv").await;
    let key = |name: &str, value: &str, size: u64| json!({"key": name, "revision": 2, "created": 2, "version": 1, "size": size, "value": value});
    assert_eq!(keys["items"], json!([key("b", "Mg==", 1), key("c", "", 0)]));
    let puts = |count: usize| {
        let put = |n| json!({"put": {"key": format!("k{n}"), "value": ""}});
        json!({"changes": (0..count).map(put).collect::<Vec<_>>()})
    };
    for (count, wanted) in [
        (0, (422, "invalid-request")),
        (1, (200, "")),
        (KEY_CHANGES_MAX - 1, (200, "")),
        (KEY_CHANGES_MAX, (200, "")),
        (KEY_CHANGES_MAX + 1, (422, "limit-exceeded")),
    ] {
        assert_eq!(told(&world.post("/v1/kv", &puts(count)).await), wanted, "{count} changes");
    }
    for (count, wanted) in [
        (KEY_CHANGES_MAX - 1, (200, "")),
        (KEY_CHANGES_MAX, (200, "")),
        (KEY_CHANGES_MAX + 1, (422, "limit-exceeded")),
    ] {
        let absent = |n| json!({"absent": {"key": format!("absent-{n}")}});
        let conditions = (0..count).map(absent).collect::<Vec<_>>();
        let body = json!({"conditions": conditions, "changes": [{"delete": {"key": "z"}}]});
        assert_eq!(told(&world.post("/v1/kv", &body).await), wanted, "{count} conditions");
    }
    let twice = json!({"changes": [{"delete": {"key": "z"}}, {"delete": {"key": "z"}}]});
    assert_eq!(told(&world.post("/v1/kv", &twice).await), (422, "invalid-request"));
    let wrong = json!({"changes": [{"put": {"key": "z", "value": "not base64"}}]});
    assert_eq!(told(&world.post("/v1/kv", &wrong).await), (422, "invalid-request"));
    // As large as all limits allow.
    let value = "A".repeat(KEY_VALUE_BYTES_MAX / 3 * 4);
    let put = |n| json!({"put": {"key": format!("{n:0>512}"), "value": value}});
    let body = json!({"changes": (0..KEY_CHANGES_MAX).map(put).collect::<Vec<_>>()});
    assert_eq!(told(&world.post("/v1/kv", &body).await), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_are_as_long_as_they_may_be_and_no_longer() {
    let world = World::new().await;
    for (length, wanted) in [
        (KEY_BYTES_MAX - 1, (200, "")),
        (KEY_BYTES_MAX, (200, "")),
        (KEY_BYTES_MAX + 1, (422, "limit-exceeded")),
    ] {
        assert_eq!(told(&put(&world, &"k".repeat(length), "v").await), wanted, "{length}");
    }
    for (length, wanted) in [
        (0, (200, "")),
        (KEY_VALUE_BYTES_MAX - 1, (200, "")),
        (KEY_VALUE_BYTES_MAX, (200, "")),
        (KEY_VALUE_BYTES_MAX + 1, (413, "body-too-large")),
    ] {
        let value = vec![7; length];
        assert_eq!(told(&put(&world, "a", value.clone()).await), wanted, "{length}");
        // Nobody has to say before how long it will be.
        let chunks = value.chunks(1_000).map(|part| Ok::<_, std::io::Error>(part.to_vec()));
        let chunks = futures_util::stream::iter(chunks.collect::<Vec<_>>());
        let streamed = put(&world, "a", reqwest::Body::wrap_stream(chunks)).await;
        assert_eq!(told(&streamed), wanted, "{length}, streamed");
    }
    for wrong in ["a//b", "a/", "a%0Ab", "%1B"] {
        let (status, problem) = put(&world, wrong, "v").await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid-request")), "{wrong}");
        assert_eq!(problem["errors"][0]["pointer"], "/key");
    }
    assert_eq!(told(&put(&world, "%FF", "v").await), (400, "invalid-parameter"));
    assert_eq!(told(&put(&world, "a?ttl=5s", "v").await), (400, "invalid-parameter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_on_where_the_page_before_ended_and_end_when_they_grow_heavy() {
    let world = World::new().await;
    for name in ["a/1", "a/2", "a/3", "b/1", "a"] {
        put(&world, name, "v").await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/kv?prefix=a/&limit=2&keys_only=true".to_owned();
    loop {
        let (status, page) = world.get(&path).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(page["items"].as_array().unwrap().iter().map(|key| key["key"].clone()));
        assert!(page["items"][0]["value"].is_null());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        let other = world.get(&format!("/v1/kv?prefix=b&cursor={cursor}")).await;
        assert_eq!(told(&other), (400, "invalid-cursor"));
        path = format!("/v1/kv?prefix=a/&limit=2&keys_only=true&cursor={cursor}");
    }
    assert_eq!(seen, ["a/1", "a/2", "a/3"]);
    for (limit, wanted) in [(0, 400), (1, 200), (999, 200), (1_000, 200), (1_001, 400)] {
        for list in ["kv", "locks", "sessions"] {
            assert_eq!(
                world.get(&format!("/v1/{list}?limit={limit}")).await.0,
                wanted,
                "{list} {limit}"
            );
        }
    }
    // Names of one byte less, as many and one byte more than a page takes.
    let full = KEY_PAGE_BYTES_MAX / KEY_VALUE_BYTES_MAX;
    for number in 0..full {
        let name = format!("heavy/{number:02}");
        let length = KEY_VALUE_BYTES_MAX - name.len();
        put(&world, &name, vec![0; length]).await;
    }
    for (last, wanted) in [(1, full), (0, full), (-1, full - 1)] {
        let name = format!("heavy/{:02}", full - 1);
        let length = (KEY_VALUE_BYTES_MAX - name.len()) as i64 - last;
        put(&world, &name, vec![0; length as usize]).await;
        let (_, page) = world.get("/v1/kv?prefix=heavy/&limit=1000").await;
        assert_eq!(page["items"].as_array().unwrap().len(), wanted, "{last}");
        assert_eq!(page["next_cursor"].is_null(), wanted == full);
        let (_, light) = world.get("/v1/kv?prefix=heavy/&limit=1000&keys_only=true").await;
        assert_eq!(light["items"].as_array().unwrap().len(), full);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_begin_alike_are_deleted_together_up_to_a_limit() {
    let world = World::new().await;
    for name in ["a/1", "a/2", "a/3", "b"] {
        put(&world, name, "v").await;
    }
    let (status, some) = delete(&world, "/v1/kv?prefix=a/&at_most=2").await;
    assert_eq!((status, &some["deleted"], &some["revision"]), (200, &json!(2), &json!(5)));
    let (_, rest) = delete(&world, "/v1/kv?prefix=a/").await;
    assert_eq!((&rest["deleted"], &rest["revision"]), (&json!(1), &json!(6)));
    assert_eq!(world.get("/v1/kv").await.1["items"].as_array().unwrap().len(), 1);
    assert_eq!(told(&delete(&world, "/v1/kv").await), (400, "invalid-parameter"), "not by mistake");
    for (at_most, wanted) in [
        (0, (422, "invalid-request")),
        (1, (200, "")),
        (KEYS_DELETED_MAX - 1, (200, "")),
        (KEYS_DELETED_MAX, (200, "")),
        (KEYS_DELETED_MAX + 1, (422, "limit-exceeded")),
    ] {
        let path = format!("/v1/kv?prefix=none&at_most={at_most}");
        assert_eq!(told(&delete(&world, &path).await), wanted, "{at_most}");
    }
    for (length, wanted) in [
        (KEY_BYTES_MAX - 1, (200, "")),
        (KEY_BYTES_MAX, (200, "")),
        (KEY_BYTES_MAX + 1, (422, "limit-exceeded")),
    ] {
        let path = format!("/v1/kv?prefix={}", "p".repeat(length));
        assert_eq!(told(&delete(&world, &path).await), wanted, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bound_to_a_session_goes_when_its_time_is_up_and_stays_while_it_is_renewed() {
    let world = World::new().await;
    let (kept, left) = (open(&world, "1s").await, open(&world, "1s").await);
    let begun = Instant::now();
    for (session, key) in [(kept, "kept"), (left, "left")] {
        assert_eq!(put(&world, &format!("{key}?session={session}"), "v").await.0, 200);
        let lock = json!({"session": session, "value": key});
        assert_eq!(acquire(&world, key, lock).await.0, 200);
    }
    put(&world, "free", "v").await;
    let response = world.request(Method::GET, "/v1/kv/left").send().await.unwrap();
    assert_eq!(number(&response, "x-rota-session"), Some(left));
    let mut watch = Watch::open(&world, "prefix=&since=0", None).await;
    while begun.elapsed() < Duration::from_millis(2_500) {
        let (status, session) =
            world.post(&format!("/v1/sessions/{kept}/renew"), &Value::Null).await;
        assert_eq!((status, &session["ttl"]), (200, &json!("1s")));
        // Maybe a moment less, by the time that it is told.
        let left = session["expires_in"].as_str().unwrap();
        assert!(left == "1s" || left.starts_with('9'), "{left}");
        assert_eq!((&session["keys"], &session["locks"]), (&json!(1), &json!(1)));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(told(&world.get("/v1/kv/left").await), (404, "key-not-found"));
    assert_eq!(told(&world.get("/v1/locks/left").await), (404, "lock-not-held"));
    assert_eq!(world.get("/v1/kv/kept").await.0, 200);
    assert_eq!(
        world.get("/v1/locks/kept").await.1["holder"],
        json!({"session": kept, "value": "kept"})
    );
    for (method, path) in [
        (Method::GET, format!("/v1/sessions/{left}")),
        (Method::DELETE, format!("/v1/sessions/{left}")),
        (Method::POST, format!("/v1/sessions/{left}/renew")),
        (Method::PUT, format!("/v1/kv/x?session={left}")),
    ] {
        let refused = read(world.request(method, &path).send().await.unwrap()).await;
        assert_eq!(told(&refused), (404, "session-not-found"), "{path}");
    }
    let refused = acquire(&world, "x", json!({"session": left})).await;
    assert_eq!(told(&refused), (404, "session-not-found"));
    for wanted in [
        change("put", "kept", json!("dg==")),
        change("put", "left", json!("dg==")),
        change("put", "free", json!("dg==")),
        change("delete", "left", Value::Null),
    ] {
        assert_eq!(watch.next().await, wanted);
    }
    assert_eq!(delete(&world, &format!("/v1/sessions/{kept}")).await.0, 204);
    assert_eq!(watch.next().await, change("delete", "kept", Value::Null));
    let (_, sessions) = world.get("/v1/sessions").await;
    assert_eq!(sessions["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_as_long_as_it_may_and_no_longer() {
    let world = World::new().await;
    for (micros, wanted) in [
        (SESSION_TTL_MIN.0 - 1, (422, "invalid-request")),
        (SESSION_TTL_MIN.0, (201, "")),
        (SESSION_TTL_MIN.0 + 1, (201, "")),
        (SESSION_TTL_MAX.0 - 1, (201, "")),
        (SESSION_TTL_MAX.0, (201, "")),
        (SESSION_TTL_MAX.0 + 1, (422, "limit-exceeded")),
    ] {
        let answer = world.post("/v1/sessions", &json!({"ttl": format!("{micros}us")})).await;
        assert_eq!(told(&answer), wanted, "{micros} us");
    }
    let (status, session) = world.post("/v1/sessions", &Value::Null).await;
    assert_eq!((status, &session["ttl"]), (201, &json!("30s")));
    let (_, first) = world.get("/v1/sessions?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, next) = world.get(&format!("/v1/sessions?limit=1000&cursor={cursor}")).await;
    let ids = |page: &Value| {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!([ids(&first), ids(&next)].concat().last(), Some(&session["id"].as_u64().unwrap()));
    assert_eq!(next["next_cursor"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_of_many_sessions_take_few_entries_of_the_log() {
    let world = World::new().await;
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(open(&world, "10s").await);
    }
    let before = world.get("/v1/kv").await.1["index"].as_u64().unwrap();
    let begun = Instant::now();
    for _ in 0..3 {
        let renewals = sessions.iter().map(|session| {
            let path = format!("/v1/sessions/{session}/renew");
            let request = world.request(Method::POST, &path);
            async move { request.send().await.unwrap().status().as_u16() }
        });
        let done = futures_util::future::join_all(renewals).await;
        assert!(done.iter().all(|status| *status == 200), "{done:?}");
    }
    let entries = world.get("/v1/kv").await.1["index"].as_u64().unwrap() - before;
    let windows = begun.elapsed().as_millis() as u64 / 100 + 2;
    assert!(entries <= windows && entries < 100, "{entries} entries in {windows} windows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_passes_in_the_order_of_claims_when_a_holder_gives_it_back_or_goes_silent() {
    let world = World::new().await;
    let holder = open(&world, "1s").await;
    let (second, third) = (open(&world, "60s").await, open(&world, "60s").await);
    let mut watch = Watch::open(&world, "lock=db", None).await;
    let (status, held) = acquire(&world, "db", json!({"session": holder, "value": "host-1"})).await;
    assert_eq!((status, &held["held"]), (200, &json!(true)));
    let first = held["token"].as_u64().unwrap();
    let (_, again) = acquire(&world, "db", json!({"session": holder})).await;
    assert_eq!(again["token"].as_u64(), Some(first), "to repeat it changes nothing");
    let refused = acquire(&world, "db", json!({"session": second})).await;
    assert_eq!(told(&refused), (409, "lock-held"));
    // The second one takes its place without an answer in time, the third one behind it.
    let (status, waits) = acquire(&world, "db", json!({"session": second, "wait": "0s"})).await;
    assert_eq!((status, &waits["held"], &waits["ahead"]), (202, &json!(false), &json!(0)));
    let (status, waits) =
        acquire(&world, "db", json!({"session": third, "wait": "1ms", "value": "host-3"})).await;
    assert_eq!((status, &waits["ahead"]), (202, &json!(1)));
    let (_, lock) = world.get("/v1/locks/db").await;
    assert_eq!((&lock["holder"]["value"], &lock["waiting"]), (&json!("host-1"), &json!(2)));
    assert_eq!(
        lock["waiters"],
        json!([{"session": second, "value": ""}, {"session": third, "value": "host-3"}])
    );
    // The holder says nothing more.
    let (status, held) = acquire(&world, "db", json!({"session": second, "wait": "20s"})).await;
    assert_eq!((status, &held["held"]), (200, &json!(true)), "{held}");
    let token = held["token"].as_u64().unwrap();
    assert!(token > first);
    let waiting = acquire(&world, "db", json!({"session": third, "wait": "20s"}));
    let released = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        delete(&world, &format!("/v1/locks/db?session={second}")).await
    };
    let ((status, last), (released, _)) = tokio::join!(waiting, released);
    assert_eq!((status, released), (200, 204));
    assert!(last["token"].as_u64().unwrap() > token);
    assert_eq!(
        told(&delete(&world, &format!("/v1/locks/db?session={second}")).await),
        (404, "no-claim")
    );
    assert_eq!(told(&delete(&world, "/v1/locks/db").await), (400, "invalid-parameter"));
    assert_eq!(delete(&world, &format!("/v1/sessions/{third}")).await.0, 204);
    for wanted in [
        change("held", "db", json!(holder)),
        change("held", "db", json!(second)),
        change("held", "db", json!(third)),
        change("free", "db", Value::Null),
    ] {
        assert_eq!(watch.next().await, wanted);
    }
    assert_eq!(world.get("/v1/locks?prefix=d").await.1["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waits_is_told_when_it_is_taken_away() {
    let world = World::new().await;
    let sessions =
        [open(&world, "60s").await, open(&world, "60s").await, open(&world, "60s").await];
    acquire(&world, "a/b", json!({"session": sessions[0]})).await;
    let waits = |session: u64| acquire(&world, "a/b", json!({"session": session, "wait": "20s"}));
    let (closed, released, ()) = tokio::join!(waits(sessions[1]), waits(sessions[2]), async {
        world.until("/v1/locks/a/b", |lock| lock["waiting"] == json!(2)).await;
        assert_eq!(delete(&world, &format!("/v1/sessions/{}", sessions[1])).await.0, 204);
        // Neither is a reason to look for the other one.
        assert_eq!(delete(&world, &format!("/v1/locks/a/b?session={}", sessions[2])).await.0, 204);
        assert_eq!(delete(&world, &format!("/v1/locks/a/b?session={}", sessions[0])).await.0, 204);
    });
    assert_eq!(told(&closed), (404, "session-not-found"));
    assert_eq!(told(&released), (404, "no-claim"));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_as_long_and_wait_as_long_as_they_may() {
    let world = World::new().await;
    let session = open(&world, "60s").await;
    for (length, wanted) in [
        (CLAIM_VALUE_BYTES_MAX - 1, (200, "")),
        (CLAIM_VALUE_BYTES_MAX, (200, "")),
        (CLAIM_VALUE_BYTES_MAX + 1, (422, "limit-exceeded")),
    ] {
        let body = json!({"session": session, "value": "v".repeat(length)});
        assert_eq!(told(&acquire(&world, &format!("value-{length}"), body).await), wanted);
    }
    for (length, wanted) in [
        (KEY_BYTES_MAX - 1, (200, "")),
        (KEY_BYTES_MAX, (200, "")),
        (KEY_BYTES_MAX + 1, (422, "limit-exceeded")),
    ] {
        let name = "n".repeat(length);
        assert_eq!(told(&acquire(&world, &name, json!({"session": session})).await), wanted);
    }
    for (micros, wanted) in [
        (LOCK_WAIT_MAX.0 - 1, (200, "")),
        (LOCK_WAIT_MAX.0, (200, "")),
        (LOCK_WAIT_MAX.0 + 1, (422, "invalid-request")),
    ] {
        let body = json!({"session": session, "wait": format!("{micros}us")});
        assert_eq!(told(&acquire(&world, "waits", body).await), wanted, "{micros} us");
    }
    for wrong in ["a//b", "%1B"] {
        let (status, problem) = acquire(&world, wrong, json!({"session": session})).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/lock")), "{wrong}");
    }
    let (_, first) = world.get("/v1/locks?limit=1").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, rest) = world.get(&format!("/v1/locks?cursor={cursor}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 4);
    assert_eq!(told(&world.get(&format!("/v1/kv?cursor={cursor}")).await), (400, "invalid-cursor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_a_token_that_is_not_the_holders_any_more_is_refused() {
    let world = World::new().await;
    let (old, new) = (open(&world, "60s").await, open(&world, "60s").await);
    let token = |(_, held): (u16, Value)| held["token"].as_u64().unwrap();
    let first = token(acquire(&world, "l", json!({"session": old})).await);
    assert_eq!(put(&world, &format!("a?lock=l&token={first}"), "old").await.0, 200);
    delete(&world, &format!("/v1/locks/l?session={old}")).await;
    let path = format!("a?lock=l&token={first}");
    assert_eq!(told(&put(&world, &path, "late").await), (412, "lock-lost"));
    let second = token(acquire(&world, "l", json!({"session": new})).await);
    assert!(second > first);
    assert_eq!(told(&put(&world, &path, "late").await), (412, "lock-lost"));
    assert_eq!(told(&delete(&world, &format!("/v1/kv/{path}")).await), (412, "lock-lost"));
    let late = json!({
        "conditions": [{"held": {"lock": "l", "token": first}}],
        "changes": [{"delete": {"key": "a"}}],
    });
    assert_eq!(told(&world.post("/v1/kv", &late).await), (412, "lock-lost"));
    assert_eq!(put(&world, &format!("a?lock=l&token={second}"), "new").await.0, 200);
    assert_eq!(told(&put(&world, "a?lock=l", "x").await), (422, "invalid-request"));
    assert_eq!(told(&put(&world, "a?token=1", "x").await), (422, "invalid-request"));
    assert_eq!(world.get("/v1/kv/a").await.1, json!("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_it_is_about_in_order_and_resumes_behind_what_was_told() {
    let world = World::new().await;
    put(&world, "a", "1").await;
    let mut one = Watch::open(&world, "key=a", None).await;
    let mut many = Watch::open(&world, "prefix=a", None).await;
    let body = json!({"changes": [
        {"put": {"key": "a", "value": "MQ=="}}, {"put": {"key": "a/b", "value": "Mg=="}},
        {"put": {"key": "c", "value": "Mw=="}}, {"delete": {"key": "none"}},
    ]});
    world.post("/v1/kv", &body).await;
    delete(&world, "/v1/kv/a").await;
    let wanted = [
        change("put", "a", json!("MQ==")),
        change("put", "a/b", json!("Mg==")),
        change("delete", "a", Value::Null),
    ];
    assert_eq!([one.next().await, one.next().await], [wanted[0].clone(), wanted[2].clone()]);
    assert_eq!(many.next().await, wanted[0]);
    // In the middle of an entry.
    let middle = many.last.clone();
    assert_eq!([many.next().await, many.next().await], [wanted[1].clone(), wanted[2].clone()]);
    for (query, last) in
        [("prefix=a", Some(middle.as_str())), (&format!("prefix=a&since={middle}"), None)]
    {
        let mut resumed = Watch::open(&world, query, last).await;
        assert_eq!(
            [resumed.next().await, resumed.next().await],
            [wanted[1].clone(), wanted[2].clone()]
        );
    }
    // From the index of a list, nothing is missed and nothing is told twice.
    let index = world.get("/v1/kv?prefix=a").await.1["index"].clone();
    let mut listed = Watch::open(&world, &format!("prefix=a&since={index}"), None).await;
    put(&world, "a/c", "9").await;
    assert_eq!(listed.next().await, change("put", "a/c", json!("OQ==")));
    for wrong in ["", "key=a&prefix=b", "key=a&lock=b", "key=a&since=x", "name=a"] {
        let answer = world.get(&format!("/v1/watch?{wrong}")).await;
        assert_eq!(told(&answer), (400, "invalid-parameter"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_over_a_restart_and_says_when_changes_are_missing() {
    let mut world = World::new().await;
    put(&world, "a", "1").await;
    let mut watch = Watch::open(&world, "key=a&since=0", None).await;
    assert_eq!(watch.next().await, change("put", "a", json!("MQ==")));
    let (seen, early) = (watch.last.clone(), "0".to_owned());
    world.kill_and_restart().await;
    put(&world, "a", "2").await;
    // Everything before the restart was told: nothing is missing.
    let mut resumed = Watch::open(&world, "key=a", Some(seen.split(':').next().unwrap())).await;
    assert_eq!(resumed.next().await, change("put", "a", json!("Mg==")));
    // What happened before it started, a server does not know.
    let mut late = Watch::open(&world, "key=a", Some(&early)).await;
    assert_eq!(late.message().await, ("reset".to_owned(), json!({"index": 2})));
    put(&world, "a", "3").await;
    assert_eq!(late.next().await, change("put", "a", json!("Mw==")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_so_many_changes_and_tells_whoever_asks_for_older_ones() {
    let world = World::with(|config| config.events_kept_max = 10).await;
    for number in 0..20 {
        put(&world, "a", format!("{number}")).await;
    }
    for (since, missing) in [(9, true), (10, false), (11, false)] {
        let mut watch = Watch::open(&world, &format!("key=a&since={since}"), None).await;
        assert_eq!(watch.next().await.0 == "reset", missing, "since {since}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_may_be_stale_or_wait_for_an_entry() {
    let world = World::new().await;
    let (_, changed) = put(&world, "a", "1").await;
    let path = format!("/v1/kv/a?consistency=stale&min_index={}", changed["index"]);
    let response = world.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.headers()["x-rota-consistency"], "stale");
    assert_eq!(response.text().await.unwrap(), "1");
    assert_eq!(world.get("/v1/kv?consistency=any").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_see_who_change_keys_at_the_same_time_could_be_seen_of_one_copy() {
    let world = World::new().await;
    let address = world.server.as_ref().unwrap().address();
    let clients = Clients::new(&world.client);
    let until = Instant::now() + Duration::from_secs(2);
    let running = (1..=12).map(|number| clients.clone().run(number, vec![address], 3, until));
    futures_util::future::join_all(running).await;
    let history = clients.history();
    rota_testkit::check_linearizable(&history).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(history.len() > 100, "void: {} operations", history.len());
}
