//! The REST interface. One file per noun; what they share is here.

pub(crate) mod access;
mod audit;
mod backup;
mod changes;
mod cluster;
mod docs;
pub(crate) mod events;
mod explain;
mod extract;
mod forward;
mod guard;
mod jobs;
mod keys;
mod lists;
mod locks;
mod login;
mod logs;
mod meta;
mod nodes;
mod output;
mod present;
pub(crate) mod problem;
mod queues;
mod servers;
mod sessions;
mod submit;
mod tasks;
mod tokens;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::response::IntoResponse;
use rota_api::ErrorCode;
use rota_store::Identity;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa_axum::routes;

use self::access::{Declared, Permission, Routes};
pub(crate) use self::extract::Bodies;
pub(crate) use self::guard::RequestIds;
use self::problem::{Answer, refuse};
use crate::auth::Secured;
use crate::config::ServerConfig;
use crate::disk_space::DiskSpace;
use crate::gateway::{Gateway, Outputs};
use crate::handle::{Core, CoreError};
use crate::history::History;
use crate::peers::{Images, PeerGateway};
use crate::refusals::Refusals;
use crate::renewals::Renewals;
use crate::ring::Ring;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) core: Core,
    pub(crate) ring: Arc<Ring>,
    pub(crate) images: Images,
    pub(crate) history: History,
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) config: ServerConfig,
    pub(crate) identity: Identity,
    /// Passes requests on to the leader.
    pub(crate) forwarder: reqwest::Client,
    pub(crate) hosts: Vec<String>,
    pub(crate) request_ids: RequestIds,
    pub(crate) space: DiskSpace,
    /// There if this server asks who calls.
    pub(crate) secured: Option<Arc<Secured>>,
    /// Who was turned away.
    pub(crate) refusals: Arc<Refusals>,
    /// A permit for each stream that somebody follows.
    pub(crate) followers: Arc<Semaphore>,
    /// Names of nodes, for those who follow events.
    pub(crate) names: events::Names,
    /// Held while settings of a queue are read, changed and written back: nobody's change is lost in between.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Renewals of sessions on their way into the log.
    pub(crate) renewals: Arc<Renewals>,
    /// Room for bodies that are being read.
    pub(crate) bodies: Bodies,
    pub(crate) stop: watch::Receiver<bool>,
    /// The description of the interface, as it is served.
    pub(crate) openapi: Arc<str>,
    pub(crate) docs: Arc<str>,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Places for `count` more streams that are followed.
    fn follow(&self, count: u32) -> Answer<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.followers).try_acquire_many_owned(count);
        places.map_err(|_| CoreError::Overloaded.into())
    }
}

/// Every route with its permission.
pub(crate) fn routes() -> Routes {
    use Permission::{
        Join, Known, LogIn, ManageCluster, ManageJobs, ManageNodes, ManageQueues, ManageTokens,
        Public, ReadAudit, ReadCluster, ReadJobs, SubmitJobs, Work,
    };
    with_keys(Routes::new())
        .at(SubmitJobs, routes!(submit::submit_jobs))
        .at(SubmitJobs, routes!(submit::validate_job))
        .at(SubmitJobs, routes!(submit::retry_job))
        .at(ReadJobs, routes!(jobs::list_jobs))
        .at(ReadJobs, routes!(jobs::show_job))
        .at(ReadJobs, routes!(events::job_events))
        .at(ManageJobs, routes!(jobs::cancel_job))
        .at(ManageJobs, routes!(jobs::kill_job))
        .at(ReadJobs, routes!(tasks::list_tasks))
        .at(ReadJobs, routes!(tasks::show_task))
        .at(ReadJobs, routes!(tasks::list_attempts))
        .at(ReadJobs, routes!(tasks::explain_task))
        .at(ReadJobs, routes!(logs::task_logs))
        .at(ReadJobs, routes!(logs::job_logs))
        .at(ReadCluster, routes!(nodes::list_nodes))
        .at(ReadCluster, routes!(nodes::show_node))
        .at(ManageNodes, routes!(nodes::remove_node))
        .at(ManageNodes, routes!(nodes::drain_node))
        .at(ManageNodes, routes!(nodes::undrain_node))
        .at(ReadCluster, routes!(queues::list_queues))
        .at(ReadCluster, routes!(queues::show_queue))
        .at(ManageQueues, routes!(queues::put_queue))
        .at(ManageQueues, routes!(queues::change_queue))
        .at(ManageQueues, routes!(queues::remove_queue))
        .at(ManageQueues, routes!(queues::pause_queue))
        .at(ManageQueues, routes!(queues::resume_queue))
        .at(ManageQueues, routes!(queues::purge_queue))
        .at(ReadCluster, routes!(cluster::cluster_stats))
        .at(ReadCluster, routes!(servers::cluster_status))
        .at(ManageCluster, routes!(servers::add_server))
        .at(ManageCluster, routes!(servers::remove_server))
        .at(ManageCluster, routes!(servers::transfer_lead))
        .at(ManageCluster, routes!(backup::back_up))
        .anywhere(ReadCluster, routes!(cluster::metrics))
        .anywhere(ReadCluster, routes!(events::follow_events))
        .at(ManageTokens, routes!(tokens::list_tokens))
        .at(ManageTokens, routes!(tokens::create_token))
        .at(ManageTokens, routes!(tokens::revoke_token))
        .at(Join, routes!(tokens::join))
        .at(LogIn, routes!(login::login))
        .at(LogIn, routes!(login::logout))
        .anywhere(Work, routes!(tokens::renew))
        .anywhere(Known, routes!(tokens::whoami))
        .at(ReadAudit, routes!(audit::list_audit))
        .anywhere(ReadAudit, routes!(audit::list_refused))
        .anywhere(Public, routes!(meta::health))
        .anywhere(Public, routes!(meta::ready))
        .anywhere(Public, routes!(meta::version))
        .anywhere(Public, routes!(meta::version_short))
        .anywhere(Public, routes!(meta::openapi))
        .anywhere(Public, routes!(meta::openapi_short))
        .anywhere(Public, routes!(meta::docs))
        .anywhere(Public, routes!(login::login_page))
        .anywhere(Public, routes!(login::login_script))
        .anywhere(Public, routes!(meta::explain_problem))
}

/// The routes of keys, sessions and locks.
fn with_keys(routes: Routes) -> Routes {
    use Permission::{ReadKeys, WriteKeys};
    routes
        .at(ReadKeys, routes!(keys::list_keys))
        .at(WriteKeys, routes!(keys::change_keys))
        .at(WriteKeys, routes!(keys::delete_keys))
        .at(ReadKeys, routes!(keys::get_key))
        .at(WriteKeys, routes!(keys::put_key))
        .at(WriteKeys, routes!(keys::delete_key))
        .anywhere(ReadKeys, routes!(changes::watch_keys))
        .at(ReadKeys, routes!(sessions::list_sessions))
        .at(WriteKeys, routes!(sessions::open_session))
        .at(ReadKeys, routes!(sessions::show_session))
        .at(WriteKeys, routes!(sessions::close_session))
        .at(WriteKeys, routes!(sessions::renew_session))
        .at(ReadKeys, routes!(locks::list_locks))
        .at(ReadKeys, routes!(locks::show_lock))
        .at(WriteKeys, routes!(locks::acquire_lock))
        .at(WriteKeys, routes!(locks::release_lock))
}

/// The whole interface, guarded.
pub(crate) fn router(routes: Router<App>, app: &App) -> Router {
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_route)
        .layer(middleware::from_fn_with_state(app.clone(), guard::check))
        .with_state(app.clone())
}

/// Routes, their description and their table.
pub(crate) fn describe(
    gateway: Gateway,
    peers: PeerGateway,
) -> (Router<App>, utoipa::openapi::OpenApi, Vec<Declared>) {
    routes().gateway(gateway.service()).peers(peers.service()).build()
}

/// The page that people read, made from the description.
pub(crate) fn render_docs(openapi: &utoipa::openapi::OpenApi, table: &[Declared]) -> String {
    docs::render(openapi, table)
}

async fn unknown_route(uri: http::Uri) -> impl IntoResponse {
    refuse(ErrorCode::UnknownRoute, format!("there is nothing at {:?}", uri.path()))
}

async fn method_not_allowed(method: http::Method, uri: http::Uri) -> impl IntoResponse {
    let detail = format!("{:?} does not take the method {method}", uri.path());
    refuse(ErrorCode::MethodNotAllowed, detail)
}

#[cfg(test)]
mod security_tests;
#[cfg(test)]
mod tests {
    use super::access::Declared;

    /// Every route and what it takes. A new route is added here on purpose.
    const WANTED: &str = "\
delete /v1/cluster/servers/{id} ManageCluster
delete /v1/kv WriteKeys
delete /v1/kv/{key} WriteKeys
delete /v1/locks/{lock} WriteKeys
delete /v1/nodes/{name} ManageNodes
delete /v1/queues/{name} ManageQueues
delete /v1/sessions/{id} WriteKeys
delete /v1/tokens/{id} ManageTokens
get /docs Public
get /healthz Public
get /login Public
get /login.js Public
get /metrics ReadCluster
get /openapi.json Public
get /problems/{code} Public
get /readyz Public
get /v1/audit ReadAudit
get /v1/audit/refused ReadAudit
get /v1/cluster/stats ReadCluster
get /v1/cluster/status ReadCluster
get /v1/events ReadCluster
get /v1/jobs ReadJobs
get /v1/jobs/{id} ReadJobs
get /v1/jobs/{id}/events ReadJobs
get /v1/jobs/{id}/logs ReadJobs
get /v1/jobs/{id}/tasks ReadJobs
get /v1/kv ReadKeys
get /v1/kv/{key} ReadKeys
get /v1/locks ReadKeys
get /v1/locks/{lock} ReadKeys
get /v1/nodes ReadCluster
get /v1/nodes/{name} ReadCluster
get /v1/openapi.json Public
get /v1/queues ReadCluster
get /v1/queues/{name} ReadCluster
get /v1/sessions ReadKeys
get /v1/sessions/{id} ReadKeys
get /v1/tasks/{id} ReadJobs
get /v1/tasks/{id}/attempts ReadJobs
get /v1/tasks/{id}/explain ReadJobs
get /v1/tasks/{id}/logs ReadJobs
get /v1/tokens ManageTokens
get /v1/version Public
get /v1/watch ReadKeys
get /v1/whoami Known
get /version Public
patch /v1/queues/{name} ManageQueues
post /v1/cluster/backup ManageCluster
post /v1/cluster/servers ManageCluster
post /v1/cluster/transfer ManageCluster
post /v1/jobs SubmitJobs
post /v1/jobs/validate SubmitJobs
post /v1/jobs/{id}/cancel ManageJobs
post /v1/jobs/{id}/kill ManageJobs
post /v1/jobs/{id}/retry SubmitJobs
post /v1/join Join
post /v1/kv WriteKeys
post /v1/login LogIn
post /v1/logout LogIn
post /v1/nodes/{name}/drain ManageNodes
post /v1/nodes/{name}/undrain ManageNodes
post /v1/queues/{name}/pause ManageQueues
post /v1/queues/{name}/purge ManageQueues
post /v1/queues/{name}/resume ManageQueues
post /v1/renew Work
post /v1/sessions WriteKeys
post /v1/sessions/{id}/renew WriteKeys
post /v1/tokens ManageTokens
put /v1/kv/{key} WriteKeys
put /v1/locks/{lock} WriteKeys
put /v1/queues/{name} ManageQueues";

    #[test]
    fn every_route_declares_the_permission_that_was_decided_for_it() {
        let (_, _, mut table) = super::routes().build();
        table.sort();
        let told: Vec<String> = table
            .iter()
            .map(|Declared { path, method, permission }| format!("{method} {path} {permission:?}"))
            .collect();
        let mut told = told;
        told.sort();
        assert_eq!(told.join("\n"), WANTED);
    }
}
