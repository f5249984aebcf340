//! The output of an attempt, as a stream that survives a broken connection.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rota_api::LogQuery;

use crate::error::{Error, Result};
use crate::transport::{Call, Client, escape, jittered, worth_repeating};

/// How often a stream that breaks is taken up again without having made progress.
const RESUMES_MAX: u32 = 8;
/// The pause before it is taken up again.
const RESUME_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Chunks of output, in order and without gaps.
pub struct Logs {
    client: Client,
    task: String,
    query: LogQuery,
    /// The offset of the next byte; known once the server has told where the stream begins.
    offset: Option<u64>,
    /// Bytes that the output limit dropped before the first one.
    skipped: u64,
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
        let mut logs =
            Logs { client, task, query, offset: None, skipped: 0, body: None, resumes: 0 };
        logs.open().await?;
        Ok(logs)
    }
}

impl Logs {
    /// The next bytes; `None` at the end, which with `follow` is when the attempt is over.
    ///
    /// # Errors
    /// If the stream breaks and can't be taken up again.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.next().await {
                Some(Ok(chunk)) => {
                    self.offset = self.offset.map(|offset| offset + chunk.len() as u64);
                    self.resumes = 0;
                    return Ok(Some(chunk));
                }
                None => {
                    self.body = None;
                    return Ok(None);
                }
                Some(Err(error)) => self.resume(self.client.broken(&error)).await?,
            }
        }
    }

    /// Bytes that the output limit dropped before the first one of this stream.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    async fn resume(&mut self, mut error: Error) -> Result<()> {
        loop {
            self.resumes += 1;
            if self.resumes > RESUMES_MAX || !worth_repeating(&error, true) || self.offset.is_none()
            {
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
        let response = self.client.send(Call::get(&path).query(&self.query).stream()).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
        if self.offset.is_none() {
            self.skipped = header("x-log-skipped").unwrap_or(0);
        }
        self.offset = header("x-log-offset").or(self.offset);
        self.body = Some(response.bytes_stream().boxed());
        Ok(())
    }
}
