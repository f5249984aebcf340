//! The servers of the cluster.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use rota_api::{
    AddServer, ClusterStatus, ErrorCode, Problem, ServerAdded, ServerRole, ServerStatus,
    TransferRequest,
};
use rota_core::command::{Command, Rejection, Reply};
use rota_core::server::ServerCommand;
use rota_ports::{Change, MemberStatus, Role};
use rota_types::ServerId;

use super::App;
use super::extract::{OptionalJson, PathPart};
use super::problem::{About, Answer, refuse, rejected};
use crate::core_thread::View;
use crate::handle::{Core, SteerRefused, Steering, Urgency};

/// How long a hand-over or a change of the members may take.
const CHANGE_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether it has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Shows the servers: who leads, how far each is, what it does.
#[utoipa::path(get, path = "/v1/cluster/status", tag = "cluster", operation_id = "clusterStatus", responses(
    (status = 200, description = "The cluster.", body = ClusterStatus),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cluster_status(State(app): State<App>) -> Answer<Json<ClusterStatus>> {
    let mut status = app.core.query(tell).await?;
    status.cluster = app.identity.cluster.to_string();
    status.server = app.identity.server.0;
    status.log = app.config.log_name().to_owned();
    Ok(Json(status))
}

/// Gives out a number for a new server and lets it in as a learner. It decides with the others once it has caught up.
#[utoipa::path(post, path = "/v1/cluster/servers", tag = "cluster", operation_id = "addServer",
    request_body = AddServer, responses(
    (status = 201, description = "What the new server has to know.", body = ServerAdded),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn add_server(
    State(app): State<App>,
    OptionalJson(request): OptionalJson<AddServer>,
) -> Answer<(StatusCode, Json<ServerAdded>)> {
    Ok((StatusCode::CREATED, Json(admit(&app, request).await?)))
}

/// Lets the server at this address in as a learner.
pub(super) async fn admit(app: &App, request: AddServer) -> Answer<ServerAdded> {
    replicated(app)?;
    let AddServer { address, level: understood } = request;
    let level = app.core.query(|view| view.state.level()).await?;
    if let Some(understood) = understood.filter(|understood| *understood < level) {
        let detail = format!(
            "the servers of this cluster have agreed on feature level {level}, and the new one knows {understood} at most: run a newer version there"
        );
        return Err(refuse(ErrorCode::InvalidChange, detail));
    }
    let scheme = if app.secured.is_some() { "https://" } else { "http://" };
    if !address.starts_with(scheme) {
        let detail = format!(
            "`address` is {address:?}: the servers of this cluster reach each other at {scheme} addresses"
        );
        return Err(refuse(ErrorCode::InvalidRequest, detail));
    }
    let command = Command::Servers(ServerCommand::Add { address: address.into() });
    let id = match app.core.command(Urgency::Finishing, command).await? {
        (_, Ok(Reply::Server(id))) => id,
        (_, Ok(_)) => return Err(refuse(ErrorCode::Internal, "a wrong answer to a new server")),
        (_, Err(rejection)) => return Err(rejected(About::Cluster, &rejection)),
    };
    if let Err(refused) = steer(app, Steering::Members(vec![Change::AddLearner(id)])).await {
        // The number stays used; the entry would only be in the way.
        let forget = Command::Servers(ServerCommand::Remove(id));
        drop(app.core.command(Urgency::Finishing, forget).await);
        return Err(refused);
    }
    Ok(ServerAdded {
        id: id.0,
        cluster: app.identity.cluster.to_string(),
        log: app.config.log_name().to_owned(),
    })
}

/// Removes a server from the cluster, whether it runs or not. Its number is never given out again.
#[utoipa::path(delete, path = "/v1/cluster/servers/{id}", tag = "cluster", operation_id = "removeServer",
    params(("id" = u64, Path, description = "The server's number.")), responses(
    (status = 204, description = "It is forgotten."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn remove_server(
    State(app): State<App>,
    PathPart(id): PathPart<u64>,
) -> Answer<StatusCode> {
    replicated(&app)?;
    let id = ServerId(id);
    known(&app, id).await?;
    dismiss(&app, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a server out of the members, if it is one, and forgets it.
pub(super) async fn dismiss(app: &App, id: ServerId) -> Answer<()> {
    let member =
        app.core.query(move |view| view.replica.members().iter().any(|one| one.id == id)).await?;
    if member {
        steer(app, Steering::Members(vec![Change::Remove(id)])).await?;
        until(app, move |members| members.iter().all(|member| member.id != id)).await?;
    }
    let command = Command::Servers(ServerCommand::Remove(id));
    match app.core.command(Urgency::Finishing, command).await? {
        (_, Ok(_) | Err(Rejection::UnknownServer(_))) => Ok(()),
        (_, Err(rejection)) => Err(rejected(About::Cluster, &rejection)),
    }
}

/// Hands the lead to another server, as before a planned restart. Answers when that server leads.
#[utoipa::path(post, path = "/v1/cluster/transfer", tag = "cluster", operation_id = "transferLead",
    request_body = TransferRequest, responses(
    (status = 204, description = "Another server leads."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn transfer_lead(
    State(app): State<App>,
    OptionalJson(request): OptionalJson<TransferRequest>,
) -> Answer<StatusCode> {
    replicated(&app)?;
    let to = match request.to {
        Some(to) => ServerId(to),
        None => best(&app).await?,
    };
    if to == app.identity.server {
        return Ok(StatusCode::NO_CONTENT);
    }
    known(&app, to).await?;
    steer(&app, Steering::Transfer(to)).await?;
    let mut standing = app.core.standing();
    let handed = standing
        .wait_for(|now| !now.leads && now.leader.as_ref().is_some_and(|(leader, _)| *leader == to));
    match tokio::time::timeout(CHANGE_WAIT, handed).await {
        Ok(Ok(_)) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(_)) | Err(_) => {
            let detail =
                format!("server {to} did not take the lead in time; nothing else has changed");
            Err(refuse(ErrorCode::OutcomeUnknown, detail))
        }
    }
}

fn replicated(app: &App) -> Answer<()> {
    if app.config.cluster.is_none() {
        let detail = "this server runs alone; start servers with --cluster to form a cluster";
        return Err(refuse(ErrorCode::InvalidChange, detail));
    }
    Ok(())
}

async fn known(app: &App, id: ServerId) -> Answer<()> {
    let known = move |view: &View<'_>| {
        let is_member = view.replica.members().iter().any(|member| member.id == id);
        is_member || view.state.server(id).is_some()
    };
    if app.core.query(known).await? {
        Ok(())
    } else {
        Err(refuse(ErrorCode::ServerNotFound, format!("there is no server {id}")))
    }
}

/// The healthy voter that is furthest.
async fn best(app: &App) -> Answer<ServerId> {
    let own = app.identity.server;
    let members = app.core.query(|view| view.replica.members()).await?;
    let others = members
        .into_iter()
        .filter(|member| member.id != own && member.role == Role::Voter && member.is_active);
    let best = others.max_by_key(|member| (member.matched, std::cmp::Reverse(member.id)));
    let nobody = || refuse(ErrorCode::InvalidChange, "no other server could lead: none is healthy");
    best.map(|member| member.id).ok_or_else(nobody)
}

async fn steer(app: &App, steering: Steering) -> Answer<()> {
    app.core.steer(steering).await.map_err(|refused| match refused {
        SteerRefused::NotLeader => {
            refuse(ErrorCode::NoLeader, "this server leads no more").retry_after(Core::RETRY_AFTER)
        }
        SteerRefused::Busy => refuse(ErrorCode::ClusterBusy, "another change is under way"),
        SteerRefused::Invalid(why) => refuse(ErrorCode::InvalidChange, why),
    })
}

/// Waits until the members are as wanted.
async fn until(
    app: &App,
    wanted: impl Fn(&[MemberStatus]) -> bool + Copy + Send + 'static,
) -> Answer<()> {
    let deadline = tokio::time::Instant::now() + CHANGE_WAIT;
    while !app.core.query(move |view| wanted(&view.replica.members())).await? {
        if tokio::time::Instant::now() >= deadline {
            let detail = "the change was proposed and has not taken effect in time";
            return Err(refuse(ErrorCode::OutcomeUnknown, detail));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn tell(view: &View<'_>) -> ClusterStatus {
    let log = view.replica.status();
    let members = view.replica.members();
    let voters = members.iter().filter(|member| member.role == Role::Voter).count();
    let servers = members.iter().map(|member| {
        let known = view.state.server(member.id);
        ServerStatus {
            id: member.id.0,
            address: known.map_or_else(String::new, |server| server.spec.address.to_string()),
            role: match member.role {
                Role::Voter if log.leader == Some(member.id) => ServerRole::Leader,
                Role::Voter => ServerRole::Voter,
                Role::Learner => ServerRole::Learner,
            },
            healthy: log.leads.then_some(member.is_active),
            lag: member.matched.map(|matched| log.last.0.saturating_sub(matched.0)),
            version: known.map_or_else(String::new, |server| server.spec.version.to_string()),
            level: known.map_or(0, |server| server.spec.level),
        }
    });
    ClusterStatus {
        leader: log.leader.map(|id| id.0),
        term: log.term,
        index: view.state.index().0,
        level: view.state.level(),
        tolerates: u32::try_from(voters.saturating_sub(1) / 2).unwrap_or(0),
        servers: servers.collect(),
        ..ClusterStatus::default()
    }
}
