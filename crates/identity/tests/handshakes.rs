//! Who may speak to whom: every pair of certificates over a connection in memory.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rota_identity::{
    Authority, Identity, IdentityDir, Joining, Names, Peer, Reloadable, VALID_FOR, client_config,
    joining_config, peer_of, server_config,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A cluster with one server.
struct Cluster {
    home: TempDir,
    authority: Authority,
    server: Identity,
}

impl Cluster {
    fn new() -> Self {
        Self::at(SystemTime::now())
    }

    fn at(now: SystemTime) -> Self {
        let home = TempDir::new().unwrap();
        let dir = IdentityDir::below(home.path());
        let authority = Authority::create(&dir, now).unwrap();
        let server = server(&dir, &authority, now);
        Self { home, authority, server }
    }

    fn worker(&self, name: &str, now: SystemTime) -> Identity {
        let dir = IdentityDir::below(&self.home.path().join(name));
        let joining = Joining::new().unwrap();
        let request = joining.request().unwrap();
        let peer = Peer::Worker(name.to_owned());
        let chain = self.authority.sign(&request, &peer, &Names::default(), now).unwrap();
        joining.accept(&dir, &chain, self.authority.certificate()).unwrap();
        Identity::load(&dir).unwrap()
    }

    fn serving(&self) -> ServerConfig {
        server_config(&self.server, Reloadable::new(&self.server)).unwrap()
    }

    fn trusting(&self, shown: Option<&Identity>) -> ClientConfig {
        client_config(self.server.authority(), shown.map(Reloadable::new)).unwrap()
    }
}

fn server(dir: &IdentityDir, authority: &Authority, now: SystemTime) -> Identity {
    let names = Names(vec!["rota.example".to_owned(), "127.0.0.1".to_owned()]);
    Identity::issue(dir, authority, (&Peer::Server(1), &names), now).unwrap()
}

/// Connects, says a word both ways, and answers whom the server saw.
async fn meet(
    server: ServerConfig,
    client: ClientConfig,
    name: &str,
    cluster: &Cluster,
) -> Result<Option<Peer>, String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let serving = async {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
        let mut word = [0; 2];
        stream.read_exact(&mut word).await?;
        stream.write_all(&word).await?;
        stream.flush().await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        Ok::<_, std::io::Error>(shown.map(|shown| shown.clone().into_owned()))
    };
    let calling = async {
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
        stream.write_all(b"hi").await?;
        stream.flush().await?;
        let mut word = [0; 2];
        stream.read_exact(&mut word).await
    };
    let (served, called) = tokio::join!(serving, calling);
    called.map_err(|error| format!("client: {error}"))?;
    let shown = served.map_err(|error| format!("server: {error}"))?;
    let cluster = cluster.server.cluster();
    shown.map(|shown| peer_of(&shown, &cluster)).transpose().map_err(|error| error.to_string())
}

#[tokio::test]
async fn servers_see_who_calls_them_and_clients_without_a_certificate_are_nobody() {
    let cluster = Cluster::new();
    let worker = cluster.worker("node ä", SystemTime::now());
    let seen = async |shown| {
        meet(cluster.serving(), cluster.trusting(shown), "rota.example", &cluster).await
    };
    assert_eq!(seen(None).await, Ok(None));
    assert_eq!(seen(Some(&worker)).await, Ok(Some(Peer::Worker("node ä".to_owned()))));
    assert_eq!(seen(Some(&cluster.server)).await, Ok(Some(Peer::Server(1))));
    let by_address = meet(cluster.serving(), cluster.trusting(None), "127.0.0.1", &cluster).await;
    assert_eq!(by_address, Ok(None));
}

#[tokio::test]
async fn a_server_of_another_cluster_name_or_time_is_refused() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let strange = meet(other.serving(), cluster.trusting(None), "rota.example", &cluster).await;
    assert!(strange.unwrap_err().contains("UnknownIssuer"));
    let named = meet(cluster.serving(), cluster.trusting(None), "evil.example", &cluster).await;
    assert!(named.unwrap_err().contains("not valid for name"));
    let old = Cluster::at(SystemTime::now() - VALID_FOR - Duration::from_secs(60));
    let expired = meet(old.serving(), old.trusting(None), "rota.example", &old).await;
    assert!(expired.unwrap_err().contains("expired"));
}

#[tokio::test]
async fn a_certificate_of_another_cluster_or_an_expired_one_is_refused() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let stranger = other.worker("node-a", SystemTime::now());
    let shown = cluster.trusting(Some(&stranger));
    assert!(meet(cluster.serving(), shown, "rota.example", &cluster).await.is_err());
    let old = cluster.worker("old", SystemTime::now() - VALID_FOR - Duration::from_secs(60));
    let shown = cluster.trusting(Some(&old));
    assert!(meet(cluster.serving(), shown, "rota.example", &cluster).await.is_err());
}

#[tokio::test]
async fn a_worker_can_not_pose_as_a_server() {
    let cluster = Cluster::new();
    let worker = cluster.worker("rota.example", SystemTime::now());
    let posing = server_config(&worker, Reloadable::new(&worker)).unwrap();
    let refused = meet(posing, cluster.trusting(None), "rota.example", &cluster).await;
    assert!(refused.unwrap_err().starts_with("client: invalid peer certificate"));
}

#[tokio::test]
async fn a_joiner_that_knows_the_fingerprint_only_accepts_that_cluster_alone() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let pinned = |of: &Cluster| joining_config(of.authority.fingerprint()).unwrap();
    let right = meet(cluster.serving(), pinned(&cluster), "rota.example", &cluster).await;
    assert_eq!(right, Ok(None));
    let wrong = meet(other.serving(), pinned(&cluster), "rota.example", &cluster).await;
    assert!(wrong.unwrap_err().contains("UnknownIssuer"));
    let named = meet(cluster.serving(), pinned(&cluster), "evil.example", &cluster).await;
    assert!(named.unwrap_err().contains("not valid for name"));
}

#[tokio::test]
async fn a_replaced_identity_is_shown_from_the_next_connection_on() {
    let cluster = Cluster::new();
    let early = SystemTime::now() - VALID_FOR - Duration::from_secs(60);
    let dir = IdentityDir::below(cluster.home.path());
    let old = server(&dir, &cluster.authority, early);
    let shown = Reloadable::new(&old);
    let config = server_config(&old, shown.clone()).unwrap();
    let before = meet(config.clone(), cluster.trusting(None), "rota.example", &cluster).await;
    assert!(before.is_err());
    shown.replace(&cluster.server);
    let after = meet(config, cluster.trusting(None), "rota.example", &cluster).await;
    assert_eq!(after, Ok(None));
}

#[test]
fn an_authority_is_made_once_and_found_again() {
    let cluster = Cluster::new();
    let dir = IdentityDir::below(cluster.home.path());
    let again = Authority::create(&dir, SystemTime::now()).unwrap_err().to_string();
    assert!(again.contains("rota cluster admin-token"), "{again}");
    assert_eq!(Authority::load(&dir).unwrap().fingerprint(), cluster.authority.fingerprint());
    let key = cluster.authority.key();
    let moved = Authority::from_pem(cluster.authority.certificate(), &key).unwrap();
    assert_eq!(moved.fingerprint(), cluster.authority.fingerprint());
    assert!(Authority::from_pem(Cluster::new().authority.certificate(), &key).is_err());
    let told =
        format!("{:?} {:?} {:?}", cluster.authority, cluster.server, Joining::new().unwrap());
    assert!(!told.contains("PRIVATE") && told.len() < 300, "{told}");
    let renew = cluster.server.renew_at();
    assert!(renew > SystemTime::now() && renew < cluster.server.expires_at());
}

#[test]
fn a_request_that_was_tampered_with_is_refused() {
    let cluster = Cluster::new();
    let request = Joining::new().unwrap().request().unwrap();
    let peer = Peer::Worker("a".to_owned());
    let sign = |request: &str| {
        cluster.authority.sign(request, &peer, &Names::default(), SystemTime::now()).is_ok()
    };
    assert!(sign(&request));
    assert!(!sign(""));
    assert!(!sign(cluster.authority.certificate()));
    let middle = request.len() / 2;
    let other = if request.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let changed = format!("{}{other}{}", &request[..middle], &request[middle + 1..]);
    assert!(!sign(&changed));
    let names = Names(vec!["ä.example".to_owned()]);
    let named = cluster.authority.sign(&request, &peer, &names, SystemTime::now());
    assert!(named.unwrap_err().to_string().contains("xn--"));
}

#[test]
fn a_crash_while_an_identity_is_replaced_leaves_one_that_works() {
    let cluster = Cluster::new();
    let now = SystemTime::now();
    let file = |name: &str| IdentityDir::below(&cluster.home.path().join("w")).path().join(name);
    let dir = IdentityDir::below(&cluster.home.path().join("w"));
    let replace = || {
        let joining = Joining::new().unwrap();
        let request = joining.request().unwrap();
        let peer = Peer::Worker("w".to_owned());
        let chain = cluster.authority.sign(&request, &peer, &Names::default(), now).unwrap();
        joining.accept(&dir, &chain, cluster.authority.certificate()).unwrap();
        (std::fs::read(file("node.key")).unwrap(), chain)
    };
    let put_key = |name: &str, key: &[u8]| {
        std::fs::write(file(name), key).unwrap();
        std::fs::set_permissions(file(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
    };
    let (old_key, old_chain) = replace();
    let (new_key, new_chain) = replace();
    assert!(!file("node.key.next").exists());
    // The new key was written, its certificate was not.
    put_key("node.key", &old_key);
    put_key("node.key.next", &new_key);
    std::fs::write(file("node.pem"), &old_chain).unwrap();
    assert!(Identity::load(&dir).is_ok());
    // Its certificate was written, too; the key was not moved.
    std::fs::write(file("node.pem"), &new_chain).unwrap();
    assert!(Identity::load(&dir).is_ok());
    assert_eq!(std::fs::read(file("node.key")).unwrap(), new_key);
    assert!(Identity::load(&dir).is_ok() && !file("node.key.next").exists());
    // The same, of the first identity of all.
    std::fs::rename(file("node.key"), file("node.key.next")).unwrap();
    assert!(Identity::load(&dir).is_ok());
    put_key("node.key", &old_key);
    assert!(Identity::load(&dir).unwrap_err().to_string().contains("is not usable"));
}

#[tokio::test]
async fn certificates_are_looked_at_on_every_connection() {
    let cluster = Cluster::new();
    let worker = cluster.worker("w", SystemTime::now());
    let client = TlsConnector::from(Arc::new(cluster.trusting(Some(&worker))));
    let server = TlsAcceptor::from(Arc::new(cluster.serving()));
    for _ in 0..3 {
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("rota.example").unwrap();
        let serving = async {
            let mut stream = server.accept(far).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        let calling = async {
            let mut stream = client.connect(name, near).await.unwrap();
            stream.read_u8().await.unwrap();
            stream
        };
        let (served, called) = tokio::join!(serving, calling);
        assert_eq!(served.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(called.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
}
