//! A plain HTTP client: one connection per request, no retries, nothing hidden.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long a request may take, unless told otherwise.
const LIMIT: Duration = Duration::from_secs(20);

/// The most servers of a cluster.
const SERVERS_MAX: usize = 5;

/// Where requests go: to one server after the other, or to the next one if nobody listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Api {
    servers: [Option<SocketAddr>; SERVERS_MAX],
    /// How long a request may take.
    limit: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON of this type.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of a problem document; empty if it is none.
    pub(crate) fn code(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The body, if the status is this one.
    pub(crate) fn expect<T: DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// Where the next request goes first.
static TURN: AtomicUsize = AtomicUsize::new(0);

impl Api {
    /// One server.
    pub(crate) fn at(server: SocketAddr) -> Self {
        Self::of(&[server])
    }

    /// The servers of a cluster.
    pub(crate) fn of(servers: &[SocketAddr]) -> Self {
        assert!((1..=SERVERS_MAX).contains(&servers.len()));
        Self { servers: std::array::from_fn(|place| servers.get(place).copied()), limit: LIMIT }
    }

    /// The same servers, with less patience: connecting, and each read and write after that, take no longer than this.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Asks for something; fails the test if there is no good answer.
    pub(crate) fn get<T: DeserializeOwned>(self, path: &str) -> T {
        let ask = || {
            let answer = self.send("GET", path, &[], b"");
            let answer = answer.unwrap_or_else(|error| panic!("GET {path}: {error}"));
            // No server leads for a moment.
            (answer.status != 503).then_some(answer)
        };
        super::until("an answer to a read", super::PATIENCE, ask).expect(200)
    }

    /// Sends JSON.
    pub(crate) fn json(self, method: &str, path: &str, body: &Value) -> io::Result<Answer> {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string().as_bytes())
    }

    /// Sends one request. An error means that it is not known whether anything was done.
    pub(crate) fn send(
        self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let (mut stream, server) = self.connect()?;
        stream.set_read_timeout(Some(self.limit))?;
        stream.set_write_timeout(Some(self.limit))?;
        stream.set_nodelay(true)?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        stream.write_all(&[head.as_bytes(), body].concat())?;
        read_answer(BufReader::new(stream))
    }

    fn connect(self) -> io::Result<(TcpStream, SocketAddr)> {
        let servers: Vec<SocketAddr> = self.servers.into_iter().flatten().collect();
        let first = TURN.fetch_add(1, Ordering::Relaxed);
        let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for turn in 0..servers.len() {
            let server = servers[(first + turn) % servers.len()];
            match TcpStream::connect_timeout(&server, self.limit) {
                Ok(stream) => return Ok((stream, server)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }
}

fn read_answer(mut stream: impl BufRead) -> io::Result<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| broken("there is no status line"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(broken("the head is cut off"));
        }
        let field = line.trim_end().to_ascii_lowercase();
        match field.split_once(':') {
            None => break,
            Some(("content-length", value)) => length = value.trim().parse::<usize>().ok(),
            Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
            Some(_) => {}
        }
    }
    let body = if chunked {
        read_chunks(stream)?
    } else {
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        body
    };
    Ok(Answer { status, body })
}

fn read_chunks(mut stream: impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16);
        let length = length.map_err(|_| broken("a chunk is cut off"))?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk)?;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}
