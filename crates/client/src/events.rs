//! Server-sent events, taken up again where they broke off.

use std::collections::VecDeque;
use std::marker::PhantomData;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rota_api::{Change, ErrorCode, Event, EventQuery, Problem, WatchQuery};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::transport::{Call, Client, jittered, worth_repeating};

/// How often a stream that breaks is taken up again without having made progress.
const RESUMES_MAX: u32 = 20;
/// The pause before it is taken up again.
const RESUME_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
/// The type of the message that says that events are missing.
const RESET: &str = "reset";
/// Bytes of one event at most.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What happens in the cluster.
pub type Events = Stream<Event>;

/// What happens to keys or locks.
pub type Changes = Stream<Change>;

/// Events of one kind in order, each once.
pub struct Stream<T> {
    client: Client,
    path: &'static str,
    /// Encoded.
    query: String,
    last: Option<String>,
    parser: SseParser,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    ready: VecDeque<Message>,
    resumes: u32,
    kind: PhantomData<fn() -> T>,
}

/// One message of an event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where to resume after it.
    pub id: Option<String>,
    /// Its type; empty means `message`.
    pub event: String,
    /// Its content.
    pub data: String,
}

impl Client {
    /// Follows events: from now on, or after `query.since`.
    ///
    /// # Errors
    /// If the position is not kept any more, a filter is not valid, or no server answers.
    pub async fn events(&self, query: EventQuery) -> Result<Events> {
        Stream::open(self, "/v1/events", &query).await
    }

    /// Watches keys or locks: from now on, or after `query.since`.
    ///
    /// # Errors
    /// If the query is not valid, or no server answers.
    pub async fn watch(&self, query: &WatchQuery) -> Result<Changes> {
        Stream::open(self, "/v1/watch", query).await
    }
}

impl<T: DeserializeOwned> Stream<T> {
    async fn open(client: &Client, path: &'static str, query: &impl Serialize) -> Result<Self> {
        let query = Call::get(path).query(query).query;
        let body = open(client, (path, &query), None).await?;
        Ok(Self {
            client: client.clone(),
            path,
            query,
            last: None,
            parser: SseParser::default(),
            body,
            ready: VecDeque::new(),
            resumes: 0,
            kind: PhantomData,
        })
    }

    /// The next event. Waits as long as there is none.
    ///
    /// # Errors
    /// If the stream breaks and can't be taken up again. [`ErrorCode::EventsCompacted`] says that events were missed; the next call goes
    /// on behind the gap.
    pub async fn next(&mut self) -> Result<T> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                self.last = message.id.or(self.last.take());
                self.resumes = 0;
                if message.data.is_empty() {
                    continue; // a position to resume from, and nothing new
                }
                if message.event == RESET {
                    let detail = "some events before this are not kept any more";
                    let problem = Problem::new(ErrorCode::EventsCompacted, detail);
                    return Err(Error::Problem(Box::new(problem)));
                }
                return serde_json::from_str(&message.data)
                    .map_err(|error| self.unreadable(&error));
            }
            match self.body.next().await {
                Some(Ok(chunk)) => {
                    let messages =
                        self.parser.push(&chunk).map_err(|reason| self.invalid(reason))?;
                    self.ready.extend(messages);
                }
                Some(Err(error)) => self.resume(self.client.broken(&error)).await?,
                None => self.resume(self.invalid("the stream ended")).await?,
            }
        }
    }

    fn unreadable(&self, error: &serde_json::Error) -> Error {
        self.invalid(&error.to_string())
    }

    fn invalid(&self, reason: &str) -> Error {
        Error::InvalidAnswer { server: self.client.server().to_owned(), reason: reason.to_owned() }
    }

    async fn resume(&mut self, mut error: Error) -> Result<()> {
        loop {
            self.resumes += 1;
            if self.resumes > RESUMES_MAX || !worth_repeating(&error, true) {
                return Err(error);
            }
            tokio::time::sleep(jittered(RESUME_PAUSE)).await;
            match open(&self.client, (self.path, &self.query), self.last.as_deref()).await {
                Ok(body) => {
                    self.body = body;
                    self.parser = SseParser::default();
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }
}

async fn open(
    client: &Client,
    (path, query): (&str, &str),
    last: Option<&str>,
) -> Result<BoxStream<'static, reqwest::Result<Bytes>>> {
    let mut call = Call::get(path).header("accept", "text/event-stream").stream();
    query.clone_into(&mut call.query);
    if let Some(last) = last {
        call = call.header("last-event-id", last);
    }
    Ok(client.send(call).await?.bytes_stream().boxed())
}

/// Cuts a byte stream into the messages of an event stream.
#[derive(Debug, Default)]
pub struct SseParser {
    buffer: Vec<u8>,
    message: Message,
}

impl SseParser {
    /// Takes in bytes and gives out the messages that they complete.
    ///
    /// # Errors
    /// If one message grows too large.
    pub fn push(&mut self, bytes: &[u8]) -> std::result::Result<Vec<Message>, &'static str> {
        let mut messages = Vec::new();
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\r', '\n']), &mut messages);
        }
        if self.buffer.len() + self.message.data.len() > EVENT_BYTES_MAX {
            return Err("an event is too large");
        }
        Ok(messages)
    }

    fn line(&mut self, line: &str, messages: &mut Vec<Message>) {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            if message != Message::default() {
                messages.push(message);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.message.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // Comments keep the connection alive; other fields are for browsers.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_wherever_the_chunks_end() {
        let text = b": keep-alive\n\nid: 7:0\nevent: job_submitted\ndata: {\"a\":1}\n\ndata: x\r\ndata:y\r\n\r\n";
        let wanted = vec![
            Message {
                id: Some("7:0".to_owned()),
                event: "job_submitted".to_owned(),
                data: "{\"a\":1}".to_owned(),
            },
            Message { data: "x\ny".to_owned(), ..Message::default() },
        ];
        for size in 1..text.len() {
            let mut parser = SseParser::default();
            let chunks = text.chunks(size).map(|chunk| parser.push(chunk));
            let messages: Vec<Message> =
                chunks.flat_map(std::result::Result::unwrap_or_default).collect();
            assert_eq!(messages, wanted, "chunks of {size}");
        }
    }
}
