//! Who may do what, tried on every route that the router has, over TLS.

mod login;
mod refused;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use reqwest::{Client, Method, Response};
use rota_core::token::Role;
use rota_identity::{
    AdminToken, ApiToken, Authority, Identity, IdentityDir, JoinToken, Joining, Names, Peer,
    Reloadable, client_config, joining_config,
};
use rota_types::ServerId;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::access::{Declared, Permission};
use crate::{ClusterConfig, LogKind, RunningServer, Server, ServerConfig};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with an identity, and its administrator.
struct World {
    dir: TempDir,
    server: RunningServer,
    authority: Authority,
    admin: String,
    client: Client,
}

/// An answer's status and body.
type Told = (u16, Value);

impl World {
    async fn new() -> Self {
        Self::with(config).await
    }

    /// Its server is the only one of a cluster so far.
    async fn in_a_cluster() -> Self {
        let world = Self::with(|dir| {
            let mut config = config(dir);
            let authority = config.identity().fingerprint().unwrap();
            let founders = [(ServerId(1), "https://127.0.0.1:1".to_owned())].into();
            let place = ClusterConfig::found("test", LogKind::Raft, founders, ServerId(1));
            config.cluster = Some(place.under(authority));
            config
        });
        let world = world.await;
        let deadline = Instant::now() + PATIENCE;
        let waits = IdentityDir::below(&world.dir.path().join("data"));
        while waits.admin_token(SystemTime::now()).unwrap().is_some() {
            assert!(Instant::now() < deadline, "the administrator's token was not taken in");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world
    }

    async fn with(config: impl FnOnce(&TempDir) -> ServerConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let identity = IdentityDir::below(&dir.path().join("data"));
        let authority = Authority::create(&identity, SystemTime::now()).unwrap();
        let admin = ApiToken::generate().unwrap();
        let waits = AdminToken { id: admin.id(), hash: admin.hash(), is_first: true };
        identity.save_admin_token(&waits).unwrap();
        let server = Server::start(config(&dir)).await.unwrap();
        let issued = Identity::load(&identity).unwrap();
        let client = client(client_config(issued.authority(), None).unwrap());
        Self { dir, server, authority, admin: admin.reveal(), client }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.server.address())
    }

    async fn send(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Response {
        self.send_by(&self.client, (method, path), token, body).await
    }

    async fn send_by(
        &self,
        client: &Client,
        (method, path): (&str, &str),
        token: Option<&str>,
        body: &Value,
    ) -> Response {
        let method: Method = method.to_uppercase().parse().unwrap();
        let mut request = client.request(method.clone(), self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if method != Method::GET {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }

    async fn admin(&self, method: &str, path: &str, body: &Value) -> Told {
        told(self.send(method, path, Some(&self.admin), body).await).await
    }

    /// Makes a token and answers its id and text.
    async fn token(&self, role: &str, more: Value) -> (String, String) {
        let mut body = json!({"name": format!("a {role}"), "role": role});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, made) = self.admin("post", "/v1/tokens", &body).await;
        assert_eq!(status, 201, "{made}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["info"]["id"]), text(&made["token"]))
    }

    /// Signs a certificate without asking the server.
    fn certified(&self, peer: &Peer) -> Client {
        self.showing(&signed(&self.authority, peer, SystemTime::now()))
    }

    /// A client that trusts this cluster and shows this.
    fn showing(&self, identity: &Identity) -> Client {
        let issued = Identity::load(&IdentityDir::below(&self.dir.path().join("data"))).unwrap();
        let shown = Reloadable::new(identity);
        client(client_config(issued.authority(), Some(shown)).unwrap())
    }

    /// What was counted under `rota_refused_total`.
    async fn refused(&self) -> BTreeMap<String, u64> {
        let (_, text) = self.admin("get", "/metrics", &json!({})).await;
        let lines = text.as_str().unwrap().lines();
        let counted = lines.filter_map(|line| line.strip_prefix("rota_refused_total{code=\""));
        let pairs = counted.map(|line| line.split_once("\"} ").unwrap());
        pairs.map(|(code, count)| (code.to_owned(), count.parse().unwrap())).collect()
    }
}

/// A certificate that this authority signed at this time.
fn signed(authority: &Authority, peer: &Peer, now: SystemTime) -> Identity {
    let home = TempDir::new().unwrap();
    let joining = Joining::new().unwrap();
    let request = joining.request().unwrap();
    let chain = authority.sign(&request, peer, &Names::default(), now).unwrap();
    let dir = IdentityDir::below(home.path());
    joining.accept(&dir, &chain, authority.certificate()).unwrap()
}

fn config(dir: &TempDir) -> ServerConfig {
    let mut config = ServerConfig::new(dir.path().join("data"));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.disk_reserve_bytes = 0;
    config
}

async fn start(dir: &TempDir) -> RunningServer {
    Server::start(config(dir)).await.unwrap()
}

fn client(tls: rustls::ClientConfig) -> Client {
    Client::builder().no_proxy().tls_backend_preconfigured(tls).timeout(PATIENCE).build().unwrap()
}

async fn told(response: Response) -> Told {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Every route, the worker gateway included.
fn every_route() -> Vec<Declared> {
    let (_, _, mut table) = super::routes().build();
    table.push(Declared {
        path: "/rota.peer.v1.PeerGateway/Image".to_owned(),
        method: "post",
        permission: Permission::Replicate,
    });
    table.push(Declared {
        path: "/rota.v1.WorkerGateway/Session".to_owned(),
        method: "post",
        permission: Permission::Work,
    });
    table
}

/// What has to come out of it: let through, or refused with this status.
fn verdict(permission: Permission, caller: &str) -> Option<u16> {
    let role = Role::ALL.into_iter().find(|role| role.name() == caller);
    match (permission, caller) {
        (Permission::Public, _) => None,
        (_, "nobody" | "garbage" | "mistyped" | "stranger" | "revoked" | "expired") => Some(401),
        (Permission::Known, "joiner") => Some(403),
        (Permission::Known, _) | (Permission::Work, "worker") | (Permission::Join, "joiner") => {
            None
        }
        (Permission::Replicate, "server") => None,
        _ if role.is_some() && role >= permission.least_role() => {
            permission.least_role().map_or(Some(403), |_| None)
        }
        _ => Some(403),
    }
}

#[tokio::test]
async fn every_route_asks_everybody_for_what_it_declares() {
    let world = World::new().await;
    let mut callers: Vec<(&str, Option<String>, Client)> = Vec::new();
    let mut with = |name, token: &str| {
        callers.push((name, Some(token.to_owned()), world.client.clone()));
    };
    for role in Role::ALL {
        with(role.name(), &world.token(role.name(), json!({})).await.1);
    }
    with("joiner", &world.token("worker", json!({"uses": 100})).await.1);
    with("garbage", "secret");
    with("mistyped", &world.admin[..world.admin.len() - 1]);
    with("stranger", &ApiToken::generate().unwrap().reveal());
    let (id, revoked) = world.token("admin", json!({})).await;
    assert_eq!(world.admin("delete", &format!("/v1/tokens/{id}"), &json!({})).await.0, 204);
    with("revoked", &revoked);
    let (_, expired) = world.token("admin", json!({"valid_for": "200ms"})).await;
    with("expired", &expired);
    callers.push(("nobody", None, world.client.clone()));
    callers.push(("worker", None, world.certified(&Peer::Worker("w".to_owned()))));
    callers.push(("server", None, world.certified(&Peer::Server(2))));
    tokio::time::sleep(Duration::from_millis(250)).await;
    let mut wrong = Vec::new();
    let mut tried = 0;
    for Declared { path, method, permission } in every_route() {
        let path = path.replace("{id}", "7").replace("{name}", "n").replace("{code}", "forbidden");
        let path = path.replace("{key}", "a/b").replace("{lock}", "a/b");
        for (caller, token, client) in &callers {
            let call = (method, path.as_str());
            let answer = world.send_by(client, call, token.as_deref(), &json!({})).await;
            // Wrong tokens of one address are soon answered with 429.
            let status = match answer.status().as_u16() {
                status @ (401 | 403) => Some(status),
                429 => Some(401),
                _ => None,
            };
            if status == Some(401) && answer.status() == 401 {
                assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"rota\"");
            }
            tried += 1;
            if status != verdict(permission, caller) {
                wrong.push(format!("{method} {path} by {caller}: {}", answer.status()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(tried, every_route().len() * 13);
}

#[tokio::test]
async fn a_stream_ends_within_five_seconds_of_its_token() {
    let world = World::new().await;
    let follow = async |token: &str| {
        let path = "/v1/events";
        let answer = world.send("get", path, Some(token), &json!({})).await;
        assert_eq!(answer.status(), 200);
        answer.bytes_stream()
    };
    let (id, token) = world.token("reader", json!({})).await;
    let (_, short) = world.token("reader", json!({"valid_for": "1s"})).await;
    let (_, other) = world.token("reader", json!({})).await;
    let (mut revoked, mut expired, mut kept) =
        (follow(&token).await, follow(&short).await, follow(&other).await);
    let begun = Instant::now();
    assert_eq!(world.admin("delete", &format!("/v1/tokens/{id}"), &json!({})).await.0, 204);
    while revoked.next().await.is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    while expired.next().await.is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The third one has heard of the revocation and goes on.
    let mut heard = String::new();
    while !heard.contains("token_revoked") {
        heard.push_str(&String::from_utf8_lossy(&kept.next().await.unwrap().unwrap()));
    }
    let refused = world.send("get", "/v1/jobs", Some(&token), &json!({})).await;
    assert_eq!(refused.status(), 401);
}

#[tokio::test]
async fn a_worker_joins_with_a_token_that_it_uses_up_and_renews_by_its_certificate() {
    let world = World::new().await;
    let (_, text) = world.token("worker", json!({})).await;
    let token = JoinToken::parse(&text).unwrap();
    let pinned = client(joining_config(token.authority()).unwrap());
    let joining = Joining::new().unwrap();
    let body = json!({"node": "node-a", "request": joining.request().unwrap()});
    // A mistake does not cost the token.
    let call = ("post", "/v1/join");
    for wrong in
        [json!({}), json!({"node": "", "request": "x"}), json!({"node": "a", "request": "x"})]
    {
        let (status, problem) = told(world.send_by(&pinned, call, Some(&text), &wrong).await).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid-request")));
    }
    let (status, joined) = told(world.send_by(&pinned, call, Some(&text), &body).await).await;
    assert_eq!((status, joined.get("authority_key")), (200, None));
    let again = world.send_by(&pinned, call, Some(&text), &body).await;
    assert_eq!(again.status(), 401);
    let dir = IdentityDir::below(&world.dir.path().join("worker"));
    let text = |field: &str| joined[field].as_str().unwrap().to_owned();
    let identity = joining.accept(&dir, &text("certificate"), &text("authority")).unwrap();
    assert_eq!(identity.peer(), &Peer::Worker("node-a".to_owned()));
    let shown = Reloadable::new(&identity);
    let worker = client(client_config(identity.authority(), Some(shown)).unwrap());
    let whoami = told(world.send_by(&worker, ("get", "/v1/whoami"), None, &json!({})).await).await;
    assert_eq!(whoami, (200, json!({"name": "node-a", "role": "worker"})));
    let renewing = Joining::new().unwrap();
    let body = json!({"request": renewing.request().unwrap()});
    let (status, renewed) =
        told(world.send_by(&worker, ("post", "/v1/renew"), None, &body).await).await;
    assert_eq!(status, 200);
    let chain = renewed["certificate"].as_str().unwrap();
    let renewed = renewing.accept(&dir, chain, &text("authority")).unwrap();
    assert_eq!(renewed.peer(), identity.peer());
}

#[tokio::test]
async fn a_server_that_joins_gets_the_authority_and_its_place() {
    let world = World::in_a_cluster().await;
    let (_, text) = world.token("server", json!({})).await;
    let join =
        async |body: &Value| told(world.send("post", "/v1/join", Some(&text), body).await).await;
    // A mistake does not cost the token.
    for wrong in [json!({}), json!({"address": "http://127.0.0.9:1"})] {
        let (status, problem) = join(&wrong).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid-request")), "{problem}");
    }
    let (status, joined) = join(&json!({"address": "https://127.0.0.9:1"})).await;
    assert_eq!(status, 200, "{joined}");
    let text = |field: &str| joined[field].as_str().unwrap();
    let authority = Authority::from_pem(text("authority"), text("authority_key")).unwrap();
    assert_eq!(authority.fingerprint(), world.authority.fingerprint());
    let (_, shown) = world.admin("get", "/v1/cluster/status", &json!({})).await;
    let place = json!({"id": 2, "cluster": shown["cluster"], "log": "raft"});
    assert_eq!(joined["server"], place);
    let (status, problem) = join(&json!({"address": "https://127.0.0.9:1"})).await;
    assert_eq!((status, &problem["code"]), (401, &json!("unauthenticated")));
    assert_eq!(shown["servers"][1]["address"], "https://127.0.0.9:1");
}

#[tokio::test]
async fn wrong_tokens_are_soon_not_listened_to_and_right_ones_are() {
    let world = World::new().await;
    let wrong = ApiToken::generate().unwrap().reveal();
    let mut statuses = Vec::new();
    for _ in 0..22 {
        let answer = world.send("get", "/v1/jobs", Some(&wrong), &json!({})).await;
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [&[401; 20][..], &[429; 2]].concat());
    assert_eq!(world.admin("get", "/v1/jobs", &json!({})).await.0, 200);
}

#[tokio::test]
async fn the_audit_says_who_changed_what_also_after_a_restart() {
    let mut world = World::new().await;
    let (id, token) = world.token("submitter", json!({})).await;
    let job = json!({"job": {"name": "j"}, "task": [{"noop": true}]});
    let submitted = told(world.send("post", "/v1/jobs", Some(&token), &job).await).await;
    assert_eq!(submitted.0, 201, "{}", submitted.1);
    let (_, shown) = world.admin("get", "/v1/jobs/1", &json!({})).await;
    assert_eq!(shown["submitter"], "a submitter");
    let (status, problem) = world.admin("delete", "/v1/queues/default", &json!({})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("queue-protected")));
    for _ in 0..2 {
        let (status, page) = world.admin("get", "/v1/audit", &json!({})).await;
        assert_eq!(status, 200, "{page}");
        let told: Vec<(&str, &str, &str, u64, u64)> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| {
                let text = |field: &str| item[field].as_str().unwrap();
                let number = |field: &str| item[field].as_u64().unwrap();
                let who = text("who").split(" (").next().unwrap();
                (who, text("source"), text("action"), number("commands"), number("refused"))
            })
            .collect();
        let here = "127.0.0.1";
        let wanted = [
            ("admin", here, "DELETE /v1/queues/default", 1, 1),
            ("a submitter", here, "POST /v1/jobs", 1, 0),
            ("admin", here, "POST /v1/tokens", 1, 0),
        ];
        assert_eq!(told, wanted);
        assert!(page["items"][0]["who"].as_str().unwrap().len() > "admin ()".len());
        let World { dir, server, authority, admin, client } = world;
        server.shutdown().await;
        let server = start(&dir).await;
        world = World { dir, server, authority, admin, client };
    }
    let (_, first) = world.admin("get", "/v1/audit?limit=1", &json!({})).await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, next) =
        world.admin("get", &format!("/v1/audit?limit=1&cursor={cursor}"), &json!({})).await;
    assert!(next["items"][0]["index"].as_u64() < first["items"][0]["index"].as_u64());
    assert!(!id.is_empty());
}

#[tokio::test]
async fn no_secret_is_in_any_file_but_its_own_and_none_is_listed() {
    let world = World::new().await;
    let (_, token) = world.token("operator", json!({})).await;
    let (_, join) = world.token("worker", json!({})).await;
    let (_, listed) = world.admin("get", "/v1/tokens", &json!({})).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    let World { dir, server, authority, admin, .. } = world;
    server.shutdown().await;
    let secret = |text: &str| text.split('_').next_back().unwrap()[..52].to_owned();
    let mut secrets = [&admin, &token, &join].map(|text| secret(text)).to_vec();
    secrets.push(authority.key().lines().nth(1).unwrap().to_owned());
    assert!(secrets.iter().all(|secret| !listed.to_string().contains(secret.as_str())));
    let mut todo: Vec<PathBuf> = vec![dir.path().to_path_buf()];
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for secret in &secrets {
            if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                found.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    assert_eq!(found, ["ca.key"]);
}

#[tokio::test]
async fn a_server_without_an_identity_makes_no_tokens_and_one_with_it_speaks_tls_only() {
    let dir = TempDir::new().unwrap();
    let server = start(&dir).await;
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let open = Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/tokens", server.address());
    let body = json!({"name": "x", "role": "reader"});
    let (status, problem) = told(open.post(url).json(&body).send().await.unwrap()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("not-secured")));
    let world = World::new().await;
    let plain = format!("http://{}/healthz", world.server.address());
    assert!(open.get(plain).send().await.is_err());
    // With an identity, the server may be reached from elsewhere.
    let exposed = ServerConfig { listen: "0.0.0.0:7600".parse().unwrap(), ..config(&world.dir) };
    assert!(exposed.check().is_ok());
}
