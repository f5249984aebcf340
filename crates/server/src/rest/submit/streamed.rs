//! A submit of lines that are taken in while they come, and answered one by one.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use rota_api::{ErrorCode, Problem, SubmitReply};
use rota_core::command::{IdempotencyKey, JobSpec};
use rota_types::limits::SUBMIT_JOBS_MAX;
use serde::Serialize;

use super::{NDJSON, digest, json_of, specs, take_in};
use crate::rest::App;
use crate::rest::extract::{next_chunk, too_large};
use crate::rest::problem::{Answer, Refused, refuse};

/// Bytes of lines that one commit holds.
const COMMIT_BYTES: usize = 4 << 20;
/// Lines that are refused before the rest is not read any more.
const REFUSED_MAX: usize = 1_000;
/// Pauses while the server has too much to do.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// A submit whose lines are taken in as they come.
pub(super) struct Streamed {
    app: App,
    submitter: String,
    key: Option<Box<str>>,
    answers: Vec<u8>,
    line: u64,
    refused: usize,
    /// Whether something was taken in.
    begun: bool,
}

/// The answer to one line.
#[derive(Serialize)]
struct LineAnswer {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

/// Lines that are proposed together.
#[derive(Default)]
struct Commit {
    lines: Vec<u64>,
    jobs: Vec<JobSpec>,
    digest: blake3::Hasher,
    bytes: usize,
    number: u64,
}

impl Streamed {
    pub(super) fn new(app: App, submitter: String, key: Option<Box<str>>) -> Self {
        Self { app, submitter, key, answers: Vec::new(), line: 0, refused: 0, begun: false }
    }

    /// Takes the lines in and answers each.
    pub(super) async fn run(mut self, body: Body) -> Answer<Response> {
        let _room = self.app.bodies.room(COMMIT_BYTES + self.app.config.body_bytes_max)?;
        let mut commit = Commit::default();
        if let Err(refused) = self.take_all(body, &mut commit).await {
            if !self.begun && self.refused == 0 {
                return Err(refused);
            }
            // What was recorded has to be told. What has gathered since goes: a repeat would cut its commits elsewhere.
            let first = commit.lines.first().copied().unwrap_or(self.line);
            self.answer(first, Err(&refused));
        }
        let kind = [(CONTENT_TYPE, HeaderValue::from_static(NDJSON))];
        Ok((StatusCode::OK, kind, self.answers).into_response())
    }

    async fn take_all(&mut self, body: Body, commit: &mut Commit) -> Answer<()> {
        let mut stream = body.into_data_stream();
        let mut rest: Vec<u8> = Vec::new();
        let mut total = 0;
        while let Some(chunk) = next_chunk(&mut stream).await? {
            total += chunk.len();
            if total > self.app.config.bulk_bytes_max {
                return Err(too_large(self.app.config.bulk_bytes_max));
            }
            rest.extend_from_slice(&chunk);
            let mut from = 0;
            while let Some(length) =
                rest.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
            {
                let line = rest.get(from..from + length).unwrap_or(&[]).to_vec();
                self.take_line(&line, commit).await?;
                from += length + 1;
            }
            rest.drain(..from);
            if rest.len() > self.app.config.body_bytes_max {
                self.line += 1;
                return Err(too_large(self.app.config.body_bytes_max));
            }
        }
        self.take_line(&rest, commit).await?;
        self.commit(commit).await
    }

    async fn take_line(&mut self, line: &[u8], commit: &mut Commit) -> Answer<()> {
        self.line += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        if self.refused >= REFUSED_MAX {
            self.commit(commit).await?;
            let detail = format!("{REFUSED_MAX} lines were refused: from here on none was read");
            return Err(refuse(ErrorCode::LimitExceeded, detail));
        }
        match json_of(line).and_then(|jobs| specs(jobs, &self.submitter)) {
            Ok(jobs) => {
                commit.lines.extend(jobs.iter().map(|_| self.line));
                commit.jobs.extend(jobs);
                commit.bytes += line.len();
                commit.digest.update(line).update(b"\n");
            }
            Err(refused) => self.answer(self.line, Err(&refused)),
        }
        if commit.jobs.len() >= SUBMIT_JOBS_MAX || commit.bytes >= COMMIT_BYTES {
            self.commit(commit).await?;
        }
        Ok(())
    }

    /// Takes what has gathered in. A refusal of the whole commit answers each of its lines.
    async fn commit(&mut self, commit: &mut Commit) -> Answer<()> {
        let number = commit.number;
        let Commit { lines, jobs, digest, bytes, .. } =
            std::mem::replace(commit, Commit { number: number + 1, ..Commit::default() });
        let mut lines = lines;
        let mut jobs = jobs.into_iter();
        while !lines.is_empty() {
            // A line may hold several jobs, so that a commit may exceed its number by a few.
            let rest = lines.split_off(lines.len().min(SUBMIT_JOBS_MAX));
            let part: Vec<JobSpec> = jobs.by_ref().take(lines.len()).collect();
            let idempotency = self.key.as_ref().map(|key| {
                let mut first = [0; 16];
                digest.finalize_xof().fill(&mut first);
                IdempotencyKey { key: part_key(key, number, rest.len()), digest: first }
            });
            match self.patiently(part, idempotency, bytes).await {
                Ok(reply) => {
                    self.begun = true;
                    for (line, job) in lines.iter().zip(&reply.jobs) {
                        self.answer(*line, Ok(job.id));
                    }
                }
                Err(refused) => {
                    for line in &lines {
                        self.answer(*line, Err(&refused));
                    }
                }
            }
            lines = rest;
        }
        Ok(())
    }

    /// Takes jobs in; waits its turn instead of being refused for overload.
    async fn patiently(
        &self,
        jobs: Vec<JobSpec>,
        idempotency: Option<IdempotencyKey>,
        bytes: usize,
    ) -> Answer<SubmitReply> {
        loop {
            let taken = take_in(&self.app, jobs.clone(), idempotency.clone(), bytes).await;
            match taken {
                Err(refused) if refused.problem().code == ErrorCode::Overloaded.name() => {
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    fn answer(&mut self, line: u64, outcome: Result<u64, &Refused>) {
        let answer = match outcome {
            Ok(id) => LineAnswer { line, id: Some(id), problem: None },
            Err(refused) => {
                self.refused += 1;
                LineAnswer { line, id: None, problem: Some(refused.problem().clone()) }
            }
        };
        if let Ok(text) = serde_json::to_vec(&answer) {
            self.answers.extend(text);
            self.answers.push(b'\n');
        }
    }
}

/// The key of one part of a submit that was given a key. As long whatever the caller's is, and like no key that a caller gives.
fn part_key(key: &str, number: u64, rest: usize) -> Box<str> {
    let place = format!("{number}.{rest}");
    let name = digest(&[b"streamed", key.as_bytes(), place.as_bytes()]);
    format!("streamed:{:032x}", u128::from_be_bytes(name)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_submit_have_keys_of_their_own_whatever_the_length_of_its_key() {
        use rota_types::limits::IDEMPOTENCY_KEY_BYTES_MAX;
        let longest = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
        let keys: std::collections::BTreeSet<Box<str>> = [("a", 0, 0), ("a", 1, 0), ("a", 0, 1)]
            .into_iter()
            .chain([(longest.as_str(), 0, 0), ("b", 0, 0)])
            .map(|(key, number, rest)| part_key(key, number, rest))
            .collect();
        assert_eq!(keys.len(), 5);
        assert!(keys.iter().all(|key| key.len() <= IDEMPOTENCY_KEY_BYTES_MAX));
    }
}
