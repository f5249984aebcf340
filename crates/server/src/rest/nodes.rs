//! Nodes.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use rota_api::{ErrorCode, Node, Page, PageQuery, Problem};
use rota_core::command::Command;
use rota_types::NodeId;

use super::App;
use super::extract::{PathPart, Query};
use super::lists::{self, ListId};
use super::present;
use super::problem::{About, Answer, Refused, refuse, rejected};
use crate::core_thread::View;
use crate::handle::Urgency;

/// Lists nodes, oldest first.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", operation_id = "listNodes", params(PageQuery), responses(
    (status = 200, description = "A page of nodes.", body = Page<Node>),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_nodes(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<Node>>> {
    let limit = lists::limit(query.limit)?;
    let list = ListId::new("nodes", &[]);
    let after = list.begin(query.cursor.as_deref())?;
    let page = app
        .core
        .query(move |view| {
            let behind = |id: NodeId| after.is_none_or(|after| u64::from(id.0) > after);
            let mut nodes = view.state.nodes().filter(|(id, _)| behind(*id));
            let items: Vec<Node> =
                nodes.by_ref().take(limit).map(|(id, node)| tell(view, id, node)).collect();
            let last = items.last().map(|node| u64::from(node.id));
            let next_cursor = nodes.next().and(last).map(|last| list.cursor(last));
            Page { items, next_cursor, index: view.state.index().0 }
        })
        .await?;
    Ok(Json(page))
}

/// Shows one node.
#[utoipa::path(get, path = "/v1/nodes/{name}", tag = "nodes", operation_id = "showNode",
    params(("name" = String, Path, description = "The node's name.")), responses(
    (status = 200, description = "The node.", body = Node),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show_node(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<Node>> {
    show(&app, name).await.map(Json)
}

/// Stops placing tasks on a node; what runs there goes on.
#[utoipa::path(post, path = "/v1/nodes/{name}/drain", tag = "nodes", operation_id = "drainNode",
    params(("name" = String, Path, description = "The node's name.")), responses(
    (status = 200, description = "The node drains.", body = Node),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn drain_node(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<Node>> {
    drain(&app, name, true).await
}

/// Places tasks on a node again.
#[utoipa::path(post, path = "/v1/nodes/{name}/undrain", tag = "nodes", operation_id = "undrainNode",
    params(("name" = String, Path, description = "The node's name.")), responses(
    (status = 200, description = "The node takes tasks.", body = Node),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn undrain_node(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<Json<Node>> {
    drain(&app, name, false).await
}

/// Forgets a node that runs nothing and whose worker is gone.
#[utoipa::path(delete, path = "/v1/nodes/{name}", tag = "nodes", operation_id = "removeNode",
    params(("name" = String, Path, description = "The node's name.")), responses(
    (status = 204, description = "The node is forgotten."),
    (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn remove_node(
    State(app): State<App>,
    PathPart(name): PathPart<String>,
) -> Answer<StatusCode> {
    let (id, connected) = app
        .core
        .query({
            let name = name.clone();
            move |view| {
                let (id, _) = view.state.node_named(&name)?;
                Some((id, view.sessions.is_connected(id)))
            }
        })
        .await?
        .ok_or_else(|| unknown(&name))?;
    if connected {
        return Err(refuse(ErrorCode::NodeBusy, format!("the worker of {name:?} is connected")));
    }
    match app.core.command(Urgency::Finishing, Command::RemoveNode(id)).await? {
        (_, Ok(_)) => Ok(StatusCode::NO_CONTENT),
        (_, Err(rejection)) => Err(rejected(About::Node, &rejection)),
    }
}

async fn drain(app: &App, name: String, draining: bool) -> Answer<Json<Node>> {
    let id = app
        .core
        .query({
            let name = name.clone();
            move |view| view.state.node_named(&name).map(|(id, _)| id)
        })
        .await?
        .ok_or_else(|| unknown(&name))?;
    let command = Command::DrainNode { node: id, draining };
    match app.core.command(Urgency::Finishing, command).await? {
        (_, Ok(_)) => show(app, name).await.map(Json).map_err(Refused::after_a_change),
        (_, Err(rejection)) => Err(rejected(About::Node, &rejection)),
    }
}

async fn show(app: &App, name: String) -> Answer<Node> {
    let found = app
        .core
        .query({
            let name = name.clone();
            move |view| view.state.node_named(&name).map(|(id, node)| tell(view, id, node))
        })
        .await?;
    found.ok_or_else(|| unknown(&name))
}

fn unknown(name: &str) -> Refused {
    refuse(ErrorCode::NodeNotFound, format!("there is no node {name:?}"))
}

fn tell(view: &View<'_>, id: NodeId, node: &rota_core::node::Node) -> Node {
    Node {
        id: id.0,
        name: node.spec.name.to_string(),
        state: node.state().into(),
        connected: view.sessions.is_connected(id),
        last_seen_at: view.sessions.heard_at(id).map(rota_api::Moment),
        capacity: present::amounts(&node.spec.capacity),
        free: present::amounts(&node.free),
        used: present::amounts(&node.held),
        tasks: u32::try_from(node.live.len()).unwrap_or(u32::MAX),
        attempts_max: node.spec.attempts_max,
        labels: present::labels(&node.spec.labels),
        version: node.spec.version.to_string(),
        runs: node.spec.runs.iter().map(|kind| kind.name().to_owned()).collect(),
    }
}
