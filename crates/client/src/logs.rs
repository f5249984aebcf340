//! The output of an attempt, as a stream that survives a broken connection.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rota_api::{ErrorCode, FrameReader, LOG_FRAMES, LogQuery};

use crate::error::{Error, Result};
use crate::transport::{Call, Client, escape, jittered, worth_repeating};

/// How often a stream that breaks is taken up again without having made progress.
const RESUMES_MAX: u32 = 8;
/// The pause before it is taken up again.
const RESUME_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Part of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// Bytes that the output limit dropped before it.
    pub skipped: u64,
    /// What was written.
    pub data: Vec<u8>,
}

/// Output in order; where something is missing, it says how much.
pub struct Logs {
    client: Client,
    task: String,
    query: LogQuery,
    /// The offset of the next byte; known once the server has told where the stream begins.
    offset: Option<u64>,
    /// Bytes that the output limit dropped before the first one, until that is told.
    skipped: u64,
    frames: FrameReader,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    resumes: u32,
}

impl Client {
    /// The output of a task's attempt. The id is written `17.3`.
    ///
    /// # Errors
    /// If there is no such task or attempt, its output is gone, or no server answers.
    pub async fn logs(&self, task: &str, query: LogQuery) -> Result<Logs> {
        let (client, task) = (self.clone(), task.to_owned());
        let frames = FrameReader::default();
        let mut logs =
            Logs { client, task, query, offset: None, skipped: 0, frames, body: None, resumes: 0 };
        logs.open().await?;
        Ok(logs)
    }
}

impl Logs {
    /// Where what comes next begins, or what came ended, in the attempt's whole output; known unless an older server answers.
    #[must_use]
    pub const fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// The next part; `None` at the end, which with `follow` is when the attempt is over.
    ///
    /// # Errors
    /// If the stream breaks and can't be taken up again.
    pub async fn next(&mut self) -> Result<Option<LogPart>> {
        loop {
            if let Some(part) = self.part()? {
                return Ok(Some(part));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.next().await {
                Some(Ok(bytes)) => self.frames.push(&bytes),
                Some(Err(error)) => self.resume(self.client.broken(&error)).await?,
                None => {
                    self.body = None;
                    return Ok(None);
                }
            }
        }
    }

    /// What has come already.
    fn part(&mut self) -> Result<Option<LogPart>> {
        let next = self.frames.take().map_err(|error| Error::InvalidAnswer {
            server: self.client.server().to_owned(),
            reason: error.to_string(),
        })?;
        let Some((offset, data)) = next else { return Ok(None) };
        let expected = self.offset.unwrap_or(offset);
        let skipped = std::mem::take(&mut self.skipped) + offset.saturating_sub(expected);
        self.offset = Some(offset + data.len() as u64);
        self.resumes = 0;
        Ok(Some(LogPart { skipped, data }))
    }

    async fn resume(&mut self, mut error: Error) -> Result<()> {
        loop {
            self.resumes += 1;
            // Followed output that can't be had this instant may be there when its worker has come back.
            let again = worth_repeating(&error, true)
                || (self.query.follow == Some(true) && error.is(ErrorCode::OutputUnavailable));
            if self.resumes > RESUMES_MAX || !again || self.offset.is_none() {
                return Err(error);
            }
            tokio::time::sleep(jittered(RESUME_PAUSE)).await;
            match self.open().await {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
    }

    async fn open(&mut self) -> Result<()> {
        if self.offset.is_some() {
            self.query.offset = self.offset;
            self.query.tail = None;
        }
        let path = format!("/v1/tasks/{}/logs", escape(&self.task));
        let call = Call::get(&path).query(&self.query).header("accept", LOG_FRAMES).stream();
        let response = self.client.send(call).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
        // What a stream that is taken up again skips is seen from where it goes on.
        if self.offset.is_none() {
            self.offset = header("x-log-offset");
            self.skipped = header("x-log-skipped").unwrap_or(0);
        }
        self.frames = FrameReader::default();
        self.body = Some(response.bytes_stream().boxed());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::{Access, ClientConfig};

    /// A server that gives these answers, one per connection, and then what it was asked.
    fn server(answers: Vec<String>) -> (Client, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let serve = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                stream.write_all(answer.as_bytes()).unwrap();
                first
            };
            answers.into_iter().map(serve).collect()
        });
        let timeout = std::time::Duration::from_secs(10);
        let config = ClientConfig {
            servers: vec![address],
            timeout,
            retry: false,
            submitter: None,
            access: Access::default(),
        };
        (Client::new(&config).unwrap(), thread)
    }

    /// An answer of which `missing` bytes never come.
    fn answer(offset: u64, skipped: u64, body: &str, missing: usize) -> String {
        let length = body.len() + missing;
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\
             x-log-offset: {offset}\r\nx-log-skipped: {skipped}\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn a_stream_that_breaks_behind_a_gap_goes_on_where_it_was_and_repeats_nothing() {
        let (client, asked) = server(vec![
            answer(5, 2, "5 3\nabc100 6\nde", 4),
            answer(102, 0, "102 4\nfghi110 1\nj", 0),
        ]);
        let mut logs = client.logs("1.0", LogQuery::default()).await.unwrap();
        let mut parts: Vec<LogPart> = Vec::new();
        while let Some(part) = logs.next().await.unwrap() {
            match parts.last_mut() {
                Some(last) if part.skipped == 0 => last.data.extend(part.data),
                _ => parts.push(part),
            }
        }
        let part = |skipped, data: &str| LogPart { skipped, data: data.as_bytes().to_vec() };
        assert_eq!(parts, [part(2, "abc"), part(92, "defghi"), part(4, "j")]);
        let asked = asked.join().unwrap();
        assert!(asked[1].contains("offset=102"), "{asked:?}");
    }

    #[tokio::test]
    async fn followed_output_that_cannot_be_had_for_a_moment_is_asked_for_again() {
        let problem = rota_api::Problem::new(ErrorCode::OutputUnavailable, "not connected");
        let body = serde_json::to_string(&problem).unwrap();
        let refusal = format!(
            "HTTP/1.1 503 Unavailable\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (client, asked) =
            server(vec![answer(0, 0, "0 3\na", 2), refusal, answer(1, 0, "1 2\nbc", 0)]);
        let query = LogQuery { follow: Some(true), ..LogQuery::default() };
        let mut logs = client.logs("1.0", query).await.unwrap();
        let mut text = Vec::new();
        while let Some(part) = logs.next().await.unwrap() {
            text.extend(part.data);
        }
        assert_eq!(text, b"abc");
        assert_eq!(asked.join().unwrap().len(), 3);
    }
}
