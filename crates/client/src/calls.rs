//! One method per path.

use reqwest::Method;
use rota_api::{
    AddServer, AuditRecord, CancelReply, CancelRequest, ClusterStats, ClusterStatus, Explain,
    Health, Job, JobBatch, JobEvents, JobFile, JobQuery, JobShowQuery, NewToken, Node, Page,
    PageQuery, Queue, QueueSettings, RefusedRecord, RetryRequest, ServerAdded, SubmitReply, Task,
    TaskQuery, TokenList, TokenRequest, TransferRequest, Validated, Version, Whoami,
};

use crate::error::Result;
use crate::transport::{Call, Client, escape};

/// The header that makes a repeated submit safe.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl Client {
    /// Submits one job under an idempotency key: see [`fresh_key`](crate::fresh_key).
    ///
    /// # Errors
    /// If the job is refused or no server answers. A submit is repeated by itself.
    pub async fn submit(&self, job: &JobFile, key: &str) -> Result<SubmitReply> {
        self.json(Call::post("/v1/jobs").header(IDEMPOTENCY_KEY, key).json(job).repeatable()).await
    }

    /// Submits several jobs, all or none.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_all(&self, jobs: Vec<JobFile>, key: &str) -> Result<SubmitReply> {
        let batch = JobBatch { jobs };
        self.json(Call::post("/v1/jobs").header(IDEMPOTENCY_KEY, key).json(&batch).repeatable())
            .await
    }

    /// Submits jobs as newline-delimited JSON, all or none; `lines` is sent as it is.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_ndjson(&self, lines: Vec<u8>, key: &str) -> Result<SubmitReply> {
        let mut call = Call::post("/v1/jobs").header(IDEMPOTENCY_KEY, key).repeatable();
        call.body = Some(("application/x-ndjson", lines));
        self.json(call).await
    }

    /// Checks a job without submitting it.
    ///
    /// # Errors
    /// If the job is not valid or no server answers.
    pub async fn validate(&self, job: &JobFile) -> Result<Validated> {
        self.json(Call::post("/v1/jobs/validate").json(job).repeatable()).await
    }

    /// One page of jobs, newest first.
    ///
    /// # Errors
    /// If a filter is not valid or no server answers.
    pub async fn jobs(&self, query: &JobQuery) -> Result<Page<Job>> {
        self.json(Call::get("/v1/jobs").query(query)).await
    }

    /// One job; with `spec` also what was submitted.
    ///
    /// # Errors
    /// If there is no such job or no server answers.
    pub async fn job(&self, id: u64, spec: bool) -> Result<Job> {
        let query = JobShowQuery { spec: spec.then_some(true) };
        self.json(Call::get(&format!("/v1/jobs/{id}")).query(&query)).await
    }

    /// One page of the events of a job that the server still has, the oldest first.
    ///
    /// # Errors
    /// If there is no such job, what follows the cursor is not kept any more, or no server answers.
    pub async fn job_events(&self, id: u64, query: &PageQuery) -> Result<JobEvents> {
        self.json(Call::get(&format!("/v1/jobs/{id}/events")).query(query)).await
    }

    /// Cancels tasks of a job.
    ///
    /// # Errors
    /// If there is nothing to cancel or no server answers.
    pub async fn cancel(&self, id: u64, request: &CancelRequest) -> Result<CancelReply> {
        self.json(Call::post(&format!("/v1/jobs/{id}/cancel")).json(request)).await
    }

    /// Tries tasks of a finished job again, as a new job.
    ///
    /// # Errors
    /// If the job is not over, nothing is left to try, or no server answers.
    pub async fn retry(&self, id: u64, request: &RetryRequest, key: &str) -> Result<SubmitReply> {
        let path = format!("/v1/jobs/{id}/retry");
        self.json(Call::post(&path).header(IDEMPOTENCY_KEY, key).json(request).repeatable()).await
    }

    /// One page of a job's tasks.
    ///
    /// # Errors
    /// If there is no such job, a filter is not valid, or no server answers.
    pub async fn tasks(&self, job: u64, query: &TaskQuery) -> Result<Page<Task>> {
        self.json(Call::get(&format!("/v1/jobs/{job}/tasks")).query(query)).await
    }

    /// One task with its attempts. The id is written `17.3`.
    ///
    /// # Errors
    /// If there is no such task or no server answers.
    pub async fn task(&self, id: &str) -> Result<Task> {
        self.json(Call::get(&format!("/v1/tasks/{}", escape(id)))).await
    }

    /// Why a task waits.
    ///
    /// # Errors
    /// As [`task`](Self::task).
    pub async fn explain(&self, id: &str) -> Result<Explain> {
        self.json(Call::get(&format!("/v1/tasks/{}/explain", escape(id)))).await
    }

    /// One page of nodes.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn nodes(&self, query: &PageQuery) -> Result<Page<Node>> {
        self.json(Call::get("/v1/nodes").query(query)).await
    }

    /// One node.
    ///
    /// # Errors
    /// If there is no such node or no server answers.
    pub async fn node(&self, name: &str) -> Result<Node> {
        self.json(Call::get(&format!("/v1/nodes/{}", escape(name)))).await
    }

    /// Stops (`true`) or resumes (`false`) placing tasks on a node.
    ///
    /// # Errors
    /// As [`node`](Self::node).
    pub async fn drain(&self, name: &str, draining: bool) -> Result<Node> {
        let verb = if draining { "drain" } else { "undrain" };
        self.json(Call::post(&format!("/v1/nodes/{}/{verb}", escape(name))).repeatable()).await
    }

    /// Forgets a node.
    ///
    /// # Errors
    /// If the node is busy, there is none, or no server answers.
    pub async fn remove_node(&self, name: &str) -> Result<()> {
        self.done(Call::new(Method::DELETE, &format!("/v1/nodes/{}", escape(name)))).await
    }

    /// One page of queues.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn queues(&self, query: &PageQuery) -> Result<Page<Queue>> {
        self.json(Call::get("/v1/queues").query(query)).await
    }

    /// One queue.
    ///
    /// # Errors
    /// If there is no such queue or no server answers.
    pub async fn queue(&self, name: &str) -> Result<Queue> {
        self.json(Call::get(&queue_path(name, ""))).await
    }

    /// Adds a queue.
    ///
    /// # Errors
    /// If it exists, a setting is not valid, or no server answers.
    pub async fn create_queue(&self, name: &str, settings: &QueueSettings) -> Result<Queue> {
        let path = queue_path(name, "");
        let mut call = Call::new(Method::PUT, &path).header("if-none-match", "*").json(settings);
        // A repeated creation would be refused although it was done.
        call.repeatable = false;
        self.json(call).await
    }

    /// Changes settings of a queue.
    ///
    /// # Errors
    /// If there is no such queue, a setting is not valid, or no server answers.
    pub async fn configure_queue(&self, name: &str, settings: &QueueSettings) -> Result<Queue> {
        self.json(Call::new(Method::PATCH, &queue_path(name, "")).json(settings).repeatable()).await
    }

    /// Stops (`true`) or resumes (`false`) starting tasks of a queue.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn pause_queue(&self, name: &str, paused: bool) -> Result<Queue> {
        let verb = if paused { "/pause" } else { "/resume" };
        self.json(Call::post(&queue_path(name, verb)).repeatable()).await
    }

    /// Cancels everything in a queue that is not running.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn purge_queue(&self, name: &str) -> Result<CancelReply> {
        self.json(Call::post(&queue_path(name, "/purge"))).await
    }

    /// Forgets an empty queue.
    ///
    /// # Errors
    /// If it is not empty, there is none, or no server answers.
    pub async fn remove_queue(&self, name: &str) -> Result<()> {
        self.done(Call::new(Method::DELETE, &queue_path(name, ""))).await
    }

    /// Makes a token. Sent once: a repeated request would make another one.
    ///
    /// # Errors
    /// If the caller may not, if it is refused, or if no server answers.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<NewToken> {
        self.json(Call::post("/v1/tokens").json(request)).await
    }

    /// Every token, without what would make it usable.
    ///
    /// # Errors
    /// If the caller may not, or if no server answers.
    pub async fn tokens(&self) -> Result<TokenList> {
        self.json(Call::get("/v1/tokens")).await
    }

    /// Ends a token.
    ///
    /// # Errors
    /// If the caller may not, if there is none, or if no server answers.
    pub async fn revoke_token(&self, id: &str) -> Result<()> {
        self.done(Call::new(Method::DELETE, &format!("/v1/tokens/{}", escape(id)))).await
    }

    /// Who the server says that this is.
    ///
    /// # Errors
    /// If it does not know, or if no server answers.
    pub async fn whoami(&self) -> Result<Whoami> {
        self.json(Call::get("/v1/whoami")).await
    }

    /// One page of requests that changed something, the newest first.
    ///
    /// # Errors
    /// If the caller may not, or if no server answers.
    pub async fn audit(&self, query: &PageQuery) -> Result<Page<AuditRecord>> {
        self.json(Call::get("/v1/audit").query(query)).await
    }

    /// Whom the server turned away since it was started, the last one first.
    ///
    /// # Errors
    /// If the caller may not, or if no server answers.
    pub async fn turned_away(&self) -> Result<Page<RefusedRecord>> {
        self.json(Call::get("/v1/audit/refused")).await
    }

    /// Numbers about the whole cluster.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn stats(&self) -> Result<ClusterStats> {
        self.json(Call::get("/v1/cluster/stats")).await
    }

    /// What the server says about itself.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn version(&self) -> Result<Version> {
        self.json(Call::get("/v1/version")).await
    }

    /// The servers of the cluster.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn cluster_status(&self) -> Result<ClusterStatus> {
        self.json(Call::get("/v1/cluster/status")).await
    }

    /// Lets a new server in that will be at this address.
    ///
    /// # Errors
    /// If it is refused or no server answers.
    pub async fn add_server(&self, request: &AddServer) -> Result<ServerAdded> {
        self.json(Call::post("/v1/cluster/servers").json(request)).await
    }

    /// Removes a server from the cluster.
    ///
    /// # Errors
    /// If it is refused or no server answers.
    pub async fn remove_server(&self, id: u64) -> Result<()> {
        self.done(Call::new(Method::DELETE, &format!("/v1/cluster/servers/{id}"))).await
    }

    /// Begins to get a backup of everything that the cluster holds.
    ///
    /// # Errors
    /// If it is refused or no server answers.
    pub async fn back_up(&self) -> Result<Download> {
        let response = self.send(Call::post("/v1/cluster/backup").stream()).await?;
        Ok(Download { client: self.clone(), response })
    }

    /// Hands the lead to another server.
    ///
    /// # Errors
    /// If it is refused or no server answers.
    pub async fn transfer_lead(&self, request: &TransferRequest) -> Result<()> {
        self.done(Call::post("/v1/cluster/transfer").json(request)).await
    }

    /// Whether the server is ready to serve.
    ///
    /// # Errors
    /// If it is not, or no server answers.
    pub async fn ready(&self) -> Result<Health> {
        self.json(Call::get("/readyz")).await
    }
}

/// An answer that is not text.
pub struct Download {
    client: Client,
    response: reqwest::Response,
}

impl Download {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If the answer breaks off.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        self.response.chunk().await.map_err(|error| self.client.broken(&error))
    }
}

fn queue_path(name: &str, rest: &str) -> String {
    format!("/v1/queues/{}{rest}", escape(name))
}
