//! HTTP tasks against a small server on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use rota_wire::worker::*;
use rota_worker::WorkerConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::fake::{Session, assignment, failed, pair, stdout, stopped, succeeded};

/// Answers each path in its own way, and `/echo` with what was sent.
async fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, address));
        }
    });
    address
}

async fn answer(stream: TcpStream, address: SocketAddr) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
        if head.get(before..)?.trim().is_empty() {
            break;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().expect("a number"))];
    stream.read_exact(&mut body).await.ok()?;
    let path = head.split(' ').nth(1)?;
    let ok =
        |text: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let moved = |status: &str, to: &str| {
        format!("HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
    };
    let to = |to: &str| moved("302 Found", to);
    let text = match path {
        "/echo" => ok(&format!("{head}{}", String::from_utf8_lossy(&body))),
        "/missing" => "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone".to_owned(),
        "/hop" => to("/echo"),
        "/loop" => to("/loop"),
        "/hop301" => moved("301 Moved Permanently", "/echo"),
        "/hop303" => moved("303 See Other", "/echo"),
        "/hop307" => moved("307 Temporary Redirect", "/echo"),
        "/inward307" => {
            moved("307 Temporary Redirect", &format!("http://localhost:{}/echo", address.port()))
        }
        "/inward" => to(&format!("http://localhost:{}/echo", address.port())),
        "/metadata" => to("http://169.254.169.254/latest"),
        "/file" => to("file:///etc/passwd"),
        "/big" => ok(&"x".repeat(5_000)),
        _ => std::future::pending().await,
    };
    stream.write_all(text.as_bytes()).await.ok()
}

fn allow(config: &mut WorkerConfig, address: SocketAddr) {
    config.http.networks = vec!["127.0.0.1".parse().expect("an address")];
    config.http.ports = vec![address.port()];
}

fn get(url: String) -> HttpAction {
    HttpAction { url, ..HttpAction::default() }
}

async fn send(session: &mut Session, job: u64, action: HttpAction) -> Report {
    session.start(vec![assignment(job, action::Kind::Http(action))]).await;
    session.report(job).await
}

fn http(status: Option<u32>, message: &str) -> Option<report::End> {
    failed(failed::Kind::Http(HttpFailure { status }), message)
}

#[tokio::test]
async fn a_request_is_sent_as_the_task_says_and_its_answer_is_captured() {
    let address = target().await;
    let (_server, _worker, mut session) = pair(|config| allow(config, address)).await;
    let request = HttpAction {
        method: "put".into(),
        headers: vec![Header { name: "X-Job".into(), value: "j{job}".into() }],
        body: b"for {task}".to_vec(),
        ..get(format!("http://{address}/echo?node={{node}}").replace("?node={node}", ""))
    };
    let report = send(&mut session, 17, request).await;
    assert_eq!(report.end, succeeded());
    let text = stdout(&report);
    for part in ["put /echo http/1.1\r\n", "x-job: j17\r\n", "rota-attempt: 17.3#2\r\n", "for 17.3"]
    {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
}

#[tokio::test]
async fn a_status_that_was_not_expected_is_a_failure() {
    let address = target().await;
    let (_server, _worker, mut session) = pair(|config| allow(config, address)).await;
    let missing = || get(format!("http://{address}/missing"));
    let report = send(&mut session, 1, missing()).await;
    assert_eq!(report.end, http(Some(404), "answered 404 Not Found"));
    assert_eq!(stdout(&report), "gone");
    for (job, from, to, expected) in
        [(2, 404, 404, true), (3, 400, 499, true), (4, 405, 499, false), (5, 400, 403, false)]
    {
        let request = HttpAction { expect: vec![StatusRange { from, to }], ..missing() };
        assert_eq!(
            send(&mut session, job, request).await.end == succeeded(),
            expected,
            "{from}-{to}"
        );
    }
    let found = HttpAction {
        expect: vec![StatusRange { from: 302, to: 302 }],
        ..get(format!("http://{address}/hop"))
    };
    assert_eq!(send(&mut session, 6, found).await.end, succeeded(), "not followed if expected");
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_they_are_allowed() {
    let address = target().await;
    let (_server, _worker, mut session) = pair(|config| allow(config, address)).await;
    let mut go = async |job, path: &str| {
        send(&mut session, job, get(format!("http://{address}{path}"))).await.end
    };
    assert_eq!(go(1, "/hop").await, succeeded());
    assert_eq!(go(2, "/loop").await, http(None, "more than 3 redirects"));
    let metadata = "redirected to http://169.254.169.254/latest: the address 169.254.169.254 is \
                    internal and not allowed by this worker";
    assert_eq!(go(3, "/metadata").await, http(Some(302), metadata));
    let file =
        "redirected to file:///etc/passwd: the scheme file is not allowed: use http or https";
    assert_eq!(go(4, "/file").await, http(Some(302), file));
}

#[tokio::test]
async fn a_redirect_changes_the_method_only_where_the_standard_says_so() {
    let address = target().await;
    let (_server, _worker, mut session) = pair(|config| allow(config, address)).await;
    let cases = [
        ("post", "/hop301", "get"),
        ("post", "/hop", "get"),
        ("put", "/hop301", "put"),
        ("delete", "/hop", "delete"),
        ("patch", "/hop303", "get"),
        ("head", "/hop303", "head"),
        ("post", "/hop307", "post"),
    ];
    for (job, (method, path, becomes)) in (1..).zip(cases) {
        let request = HttpAction {
            method: method.into(),
            headers: vec![Header { name: "Content-Type".into(), value: "text/plain".into() }],
            body: b"content".to_vec(),
            ..get(format!("http://{address}{path}"))
        };
        let report = send(&mut session, job, request).await;
        assert_eq!(report.end, succeeded(), "{method} {path}");
        if becomes == "head" {
            continue; // the answer to it is never read
        }
        let text = stdout(&report);
        assert!(text.starts_with(&format!("{becomes} /echo ")), "{method} {path}: {text}");
        let keeps = becomes != "get";
        assert_eq!(text.contains("content-type: text/plain"), keeps, "{method} {path}");
        assert_eq!(text.ends_with("\r\n\r\ncontent"), keeps, "{method} {path}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_nothing_secret_along() {
    let address = target().await;
    let allowed = |config: &mut WorkerConfig| {
        allow(config, address);
        config.http.hosts = vec!["localhost".into()];
    };
    let (_server, _worker, mut session) = pair(allowed).await;
    let header = |name: &str| Header { name: name.into(), value: "s3cr3t".into() };
    let request = |path: &str| HttpAction {
        headers: vec![header("X-Api-Key"), header("Authorization"), header("Accept")],
        ..get(format!("http://{address}{path}"))
    };
    let text = stdout(&send(&mut session, 1, request("/hop")).await);
    assert_eq!(text.matches("s3cr3t").count(), 3, "the same host: {text}");
    let text = stdout(&send(&mut session, 2, request("/inward")).await);
    assert!(text.contains("accept: s3cr3t") && text.contains("rota-attempt: 2.3#2"), "{text}");
    assert_eq!(text.matches("s3cr3t").count(), 1, "another host: {text}");
    let body = HttpAction { method: "post".into(), body: b"x".to_vec(), ..request("/inward307") };
    let report = send(&mut session, 3, body).await;
    let message = format!(
        "redirected to another host with a body: write http://localhost:{}/echo into the task if it is meant",
        address.port()
    );
    assert_eq!(report.end, http(Some(307), &message));
}

#[tokio::test]
async fn names_that_resolve_to_internal_addresses_are_refused_unless_allowed() {
    let address = target().await;
    let (_server, _worker, mut session) = pair(|config| {
        config.http.ports = vec![address.port()];
    })
    .await;
    let url = format!("http://localhost:{}/echo", address.port());
    let Some(report::End::Failed(Failed { message, .. })) =
        send(&mut session, 1, get(url.clone())).await.end
    else {
        panic!("localhost was reached");
    };
    assert!(message.contains("is internal and not allowed by this worker"), "{message}");
    let (_server, _worker, mut session) = pair(|config| {
        config.http.ports = vec![address.port()];
        config.http.hosts = vec!["LocalHost".into()];
    })
    .await;
    assert_eq!(send(&mut session, 1, get(url)).await.end, succeeded());
}

#[tokio::test]
async fn headers_that_could_deceive_are_refused() {
    let address = target().await;
    let (_server, _worker, mut session) = pair(|config| allow(config, address)).await;
    let names =
        ["Host", "connection", "Metadata-Flavor", "X-aws-ec2-metadata-token", "rota-attempt"];
    for (job, name) in (1..).zip(names) {
        let request = HttpAction {
            headers: vec![Header { name: name.into(), value: "x".into() }],
            ..get(format!("http://{address}/echo"))
        };
        let message = format!("the header {} is not allowed", name.to_lowercase());
        let end = send(&mut session, job, request).await.end;
        assert_eq!(end, failed(failed::Kind::Start(true), &message));
    }
}

#[tokio::test]
async fn a_request_ends_at_its_timeout_or_when_it_is_told_to() {
    let address = target().await;
    let (_server, _worker, mut session) = pair(|config| allow(config, address)).await;
    let silent = || assignment(1, action::Kind::Http(get(format!("http://{address}/never"))));
    let timed = Assignment { timeout_micros: Some(50_000), ..silent() };
    session.start(vec![timed]).await;
    let end = session.report(1).await.end;
    assert_eq!(end, failed(failed::Kind::Timeout(true), "no answer in time"));
    session.settle(1).await;
    let second = Assignment { attempt: Some(super::fake::id(2)), ..silent() };
    session.start(vec![second]).await;
    session.running(2).await;
    session.stop(2, Duration::from_secs(60)).await;
    assert_eq!(session.report(2).await.end, stopped());
}

#[tokio::test]
async fn a_long_answer_is_cut_off_at_the_limit_and_not_before() {
    let address = target().await;
    for (limit, notes) in
        [(4_999, vec!["answer cut off after 4999 bytes"]), (5_000, vec![]), (5_001, vec![])]
    {
        let (_server, _worker, mut session) = pair(|config| {
            allow(config, address);
            config.http.body_bytes_max = limit;
        })
        .await;
        let report = send(&mut session, 1, get(format!("http://{address}/big"))).await;
        let detail = report.detail.expect("there");
        assert_eq!(detail.notes, notes);
        assert_eq!(detail.stdout_bytes, limit.min(5_000));
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_failure_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (_server, _worker, mut session) = pair(|config| allow(config, address)).await;
    let Some(report::End::Failed(Failed { message, .. })) =
        send(&mut session, 1, get(format!("http://{address}/"))).await.end
    else {
        panic!("nobody listens there");
    };
    assert!(message.to_lowercase().contains("connection refused"), "{message}");
}
