//! Who is turned away is counted, and told to those who may know.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use reqwest::Client;
use rota_identity::{AdminToken, ApiToken, Connector, Identity, IdentityDir, Peer, Reloadable};
use rota_store::ClusterId;
use rota_wire::peer as pb;
use serde_json::json;

use super::{World, signed, start};

/// What a server is told that introduces itself as `from`, showing this identity.
async fn introduced(world: &World, identity: &Identity, from: u64) -> Result<(), tonic::Code> {
    let issued = Identity::load(&IdentityDir::below(&world.dir.path().join("data"))).unwrap();
    let tls = Connector::new(issued.authority(), Reloadable::new(identity)).unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(world.url("")).unwrap();
    let channel = endpoint.connect_with_connector(tls).await.map_err(|_| tonic::Code::Unknown)?;
    let (_, status) = world.admin("get", "/v1/cluster/status", &json!({})).await;
    let cluster = ClusterId::parse(status["cluster"].as_str().unwrap()).unwrap();
    let introduction = pb::Introduction {
        protocol: pb::PROTOCOL,
        cluster: cluster.0.to_vec(),
        from,
        to: 1,
        address: "https://127.0.0.9:1".to_owned(),
        version: "0".to_owned(),
        level: 1,
    };
    let first = pb::Batch { introduction: Some(introduction), ..pb::Batch::default() };
    let mut client = pb::peer_gateway_client::PeerGatewayClient::new(channel);
    let sent = client.exchange(tokio_stream::iter([first])).await;
    sent.map(drop).map_err(|status| status.code())
}

#[tokio::test]
async fn whoever_can_not_prove_to_be_a_server_of_the_cluster_is_refused_and_counted() {
    let (world, other) = (World::in_a_cluster().await, World::new().await);
    let now = SystemTime::now();
    let old = now - rota_identity::VALID_FOR - Duration::from_secs(60);
    let (server, worker) = (Peer::Server(2), Peer::Worker("w".to_owned()));
    let right = signed(&world.authority, &server, now);
    assert_eq!(introduced(&world, &right, 2).await, Ok(()));
    assert_eq!(world.refused().await, BTreeMap::new());
    // The number of another server.
    assert_eq!(introduced(&world, &right, 3).await, Err(tonic::Code::PermissionDenied));
    // A worker's certificate.
    let shown = signed(&world.authority, &worker, now);
    assert!(introduced(&world, &shown, 2).await.is_err());
    // An authority of its own; a time that is over.
    let strange = signed(&other.authority, &server, now);
    assert!(introduced(&world, &strange, 2).await.is_err());
    let expired = signed(&world.authority, &server, old);
    assert!(introduced(&world, &expired, 2).await.is_err());
    // No certificate.
    let call = ("post", "/rota.peer.v1.PeerGateway/Exchange");
    let nobody = world.send_by(&world.client, call, None, &json!({})).await;
    assert_eq!(nobody.status(), 401);
    let mut counted = world.refused().await;
    // Whoever connects may have tried again.
    let certificates = counted.remove("certificate");
    assert!(certificates.is_some_and(|count| count >= 2), "{certificates:?}");
    let rest = [("forbidden", 1), ("unauthenticated", 1), ("wrong-server", 1)];
    assert_eq!(counted, rest.map(|(code, count)| (code.to_owned(), count)).into());
}

#[tokio::test]
async fn who_was_turned_away_is_counted_and_listed_and_not_in_the_log() {
    let world = World::new().await;
    let (id, reader) = world.token("reader", json!({})).await;
    for _ in 0..3 {
        let answer = world.send("post", "/v1/jobs", Some(&reader), &json!({})).await;
        assert_eq!(answer.status(), 403);
    }
    let answer = world.send("get", "/v1/jobs", None, &json!({})).await;
    assert_eq!(answer.status(), 401);
    let request = world.client.get(world.url("/v1/jobs")).header("origin", "https://evil.example");
    assert_eq!(request.send().await.unwrap().status(), 403);
    let open = Client::builder().no_proxy().build().unwrap();
    let plain = format!("http://{}/healthz", world.server.address());
    assert!(open.get(plain).send().await.is_err());
    let codes = ["forbidden", "forbidden-origin", "handshake", "unauthenticated"];
    let counted: BTreeMap<String, u64> =
        codes.map(str::to_owned).into_iter().zip([3, 1, 1, 1]).collect();
    assert_eq!(world.refused().await, counted);
    let (status, page) = world.admin("get", "/v1/audit/refused", &json!({})).await;
    assert_eq!(status, 200, "{page}");
    let mut told: Vec<(u64, &str, &str, &str)> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |field: &str| item[field].as_str().unwrap();
            assert_eq!((text("source"), &item["server"]), ("127.0.0.1", &json!(1)));
            (item["count"].as_u64().unwrap(), text("who"), text("action"), text("code"))
        })
        .filter(|(.., code)| *code != "handshake")
        .collect();
    told.sort_by_key(|(.., code)| *code);
    let who = format!("a reader ({id})");
    let wanted = [
        (3, who.as_str(), "POST /v1/jobs", "forbidden"),
        (1, "", "GET /v1/jobs", "forbidden-origin"),
        (1, "", "GET /v1/jobs", "unauthenticated"),
    ];
    assert_eq!(told, wanted);
    let (_, audit) = world.admin("get", "/v1/audit", &json!({})).await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 1, "{audit}");
}

#[tokio::test]
async fn a_connection_lasts_no_longer_than_the_certificate_that_was_shown() {
    let world = World::new().await;
    let begun = SystemTime::now() + Duration::from_secs(3) - rota_identity::VALID_FOR;
    let worker = world.showing(&signed(&world.authority, &Peer::Worker("w".to_owned()), begun));
    let ask =
        async || worker.get(world.url("/v1/whoami")).send().await.map(|answer| answer.status());
    assert_eq!(ask().await.unwrap(), 200);
    let deadline = SystemTime::now() + Duration::from_secs(10);
    while ask().await.is_ok() {
        assert!(SystemTime::now() < deadline, "the connection is still used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_copy_of_the_first_administrator_token_brings_nothing_back() {
    let world = World::new().await;
    let World { dir, server, authority, admin, client } = world;
    server.shutdown().await;
    let identity = IdentityDir::below(&dir.path().join("data"));
    let waiting = |is_first| {
        let token = ApiToken::generate().unwrap();
        let waits = AdminToken { id: token.id(), hash: token.hash(), is_first };
        identity.save_admin_token(&waits).unwrap();
        token.reveal()
    };
    let copy = waiting(true);
    let world = World { server: start(&dir).await, dir, authority, admin, client };
    assert_eq!(world.send("get", "/v1/tokens", Some(&copy), &json!({})).await.status(), 401);
    assert_eq!(identity.admin_token(SystemTime::now()).unwrap(), None);
    // One that was made because the others were lost is taken in.
    let World { dir, server, authority, admin, client } = world;
    server.shutdown().await;
    let asked_for = waiting(false);
    let world = World { server: start(&dir).await, dir, authority, admin, client };
    assert_eq!(world.send("get", "/v1/tokens", Some(&asked_for), &json!({})).await.status(), 200);
}
