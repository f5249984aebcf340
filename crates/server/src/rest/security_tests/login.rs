//! Browsers that log in, and what other people's pages can't do with that.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};

use super::{Told, World, told};

const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");
const TYPED: (&str, &str) = ("sec-fetch-site", "none");

/// The session in an answer, as a browser would send it back.
fn cookie_of(answer: &Response) -> String {
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    let (pair, attributes) = set.split_once("; ").unwrap();
    let (_, rest) = attributes.split_once("; ").unwrap();
    assert!(attributes.starts_with("Max-Age="), "{set}");
    assert_eq!(rest, "Path=/; Secure; HttpOnly; SameSite=Strict");
    pair.to_owned()
}

impl World {
    /// Logs in and answers the cookie.
    async fn log_in(&self, token: &str) -> String {
        let answer = self.send("post", "/v1/login", Some(token), &json!({})).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        cookie_of(&answer)
    }

    async fn browse(
        &self,
        (method, path): (&str, &str),
        cookies: &[&str],
        headers: &[(&str, &str)],
    ) -> Response {
        let method: reqwest::Method = method.to_uppercase().parse().unwrap();
        let mut request = self.client.request(method, self.url(path));
        for cookie in cookies {
            request = request.header("cookie", *cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn browsed(&self, call: (&str, &str), cookie: &str, header: (&str, &str)) -> Told {
        told(self.browse(call, &[cookie], &[header]).await).await
    }
}

#[tokio::test]
async fn a_browser_that_is_logged_in_may_do_what_its_token_may() {
    let world = World::new().await;
    let (id, reader) = world.token("reader", json!({})).await;
    let cookie = world.log_in(&reader).await;
    assert!(!cookie.contains(&reader));
    for header in [OWN, TYPED] {
        assert_eq!(world.browsed(("get", "/v1/jobs"), &cookie, header).await.0, 200);
    }
    let (status, who) = world.browsed(("get", "/v1/whoami"), &cookie, OWN).await;
    assert_eq!((status, &who["name"], &who["role"]), (200, &json!("a reader"), &json!("reader")));
    assert_eq!(world.browsed(("post", "/v1/jobs"), &cookie, OWN).await.0, 403);
    let (_, listed) = world.admin("get", "/v1/tokens", &json!({})).await;
    let holders: Vec<&Value> =
        listed["items"].as_array().unwrap().iter().map(|one| &one["session_of"]).collect();
    assert_eq!(holders.iter().filter(|holder| **holder == &json!(id)).count(), 1, "{listed}");
    // The page for it is there for everybody, may run its own script only, and no other page may show it in a frame.
    for path in ["/login", "/login.js"] {
        assert_eq!(world.browse(("get", path), &[], &[]).await.status(), 200);
    }
    let page = world.browse(("get", "/login"), &[], &[]).await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"));
}

#[tokio::test]
async fn a_session_never_counts_for_a_page_of_another_origin() {
    let world = World::new().await;
    let cookie = world.log_in(&world.admin).await;
    let own = world.url("");
    let plain = own.replace("https://", "http://");
    let other_port = "https://127.0.0.1:1".to_owned();
    let refused: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site")],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("origin", &plain)],
        vec![("origin", &other_port)],
        vec![("origin", "https://evil.example"), OWN],
        vec![("origin", &own), ("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
        vec![("referer", &own)],
    ];
    for headers in &refused {
        for call in
            [("get", "/v1/jobs"), ("post", "/v1/queues/default/pause"), ("post", "/v1/logout")]
        {
            let (status, problem) = told(world.browse(call, &[&cookie], headers).await).await;
            assert_eq!(
                (status, &problem["code"]),
                (403, &json!("forbidden-origin")),
                "{headers:?}"
            );
        }
    }
    // An address that was typed reads and changes nothing.
    let pause = ("post", "/v1/queues/default/pause");
    assert_eq!(world.browsed(pause, &cookie, TYPED).await.0, 403);
    assert_eq!(world.browsed(pause, &cookie, ("origin", &own)).await.0, 200);
    assert_eq!(world.browsed(pause, &cookie, OWN).await.0, 200);
}

#[tokio::test]
async fn sessions_and_tokens_do_not_count_in_each_others_place() {
    let world = World::new().await;
    let cookie = world.log_in(&world.admin).await;
    let get = ("get", "/v1/jobs");
    let as_cookie = format!("__Host-rota={}", world.admin);
    assert_eq!(world.browsed(get, &as_cookie, OWN).await.0, 401);
    let session = cookie.split_once('=').unwrap().1;
    assert_eq!(world.send("get", "/v1/jobs", Some(session), &json!({})).await.status(), 401);
    let two = world.browse(get, &[&cookie, &cookie], &[OWN]).await;
    assert_eq!(two.status(), 401);
    // A session makes no sessions, and whoever may only join does not log in.
    assert_eq!(world.browsed(("post", "/v1/login"), &cookie, OWN).await.0, 422);
    let (_, join) = world.token("worker", json!({})).await;
    assert_eq!(world.send("post", "/v1/login", Some(&join), &json!({})).await.status(), 403);
    // A token counts before a session that comes along.
    let (_, reader) = world.token("reader", json!({})).await;
    let bearer = format!("Bearer {reader}");
    let both = world.browse(("get", "/v1/whoami"), &[&cookie], &[("authorization", &bearer)]).await;
    assert_eq!(told(both).await.1["role"], "reader");
}

#[tokio::test]
async fn a_session_ends_by_logging_out_with_its_token_and_in_time() {
    let world = World::new().await;
    let (id, token) = world.token("reader", json!({})).await;
    let (_, short) = world.token("reader", json!({"valid_for": "2s"})).await;
    let [out, revoked, expired] =
        [world.log_in(&token).await, world.log_in(&token).await, world.log_in(&short).await];
    let follow = async |cookie: &str| {
        let answer = world.browse(("get", "/v1/events"), &[cookie], &[OWN]).await;
        assert_eq!(answer.status(), 200);
        answer.bytes_stream()
    };
    let mut streams = [follow(&out).await, follow(&revoked).await, follow(&expired).await];
    let begun = Instant::now();
    let answer = world.browse(("post", "/v1/logout"), &[&out], &[OWN]).await;
    assert_eq!(answer.status(), 204);
    assert!(
        answer.headers()["set-cookie"].to_str().unwrap().starts_with("__Host-rota=; Max-Age=0;")
    );
    while streams[0].next().await.is_some() {}
    // The other session of the same token goes on until the token is revoked.
    assert_eq!(world.browsed(("get", "/v1/jobs"), &revoked, OWN).await.0, 200);
    assert_eq!(world.admin("delete", &format!("/v1/tokens/{id}"), &json!({})).await.0, 204);
    for stream in &mut streams[1..] {
        while stream.next().await.is_some() {}
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for cookie in [&out, &revoked, &expired] {
        assert_eq!(world.browsed(("get", "/v1/jobs"), cookie, OWN).await.0, 401);
    }
    assert_eq!(
        world.send("post", "/v1/logout", Some(&world.admin), &json!({})).await.status(),
        422
    );
}
