//! Routes and the permission that each declares: there is no way to register a handler without one.

use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::Method;
use http::header::{CACHE_CONTROL, HeaderValue};
use http_body::Body as _;
use rota_api::ErrorCode;
use rota_core::token::{Grant, Role};
use rota_identity::Peer;
use utoipa::openapi::path::{Operation, PathItem, Paths};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr};
use utoipa_axum::router::UtoipaMethodRouter;

use super::App;
use super::problem::{Refused, refuse};
use crate::auth::{ACTOR, Actor, Caller, Connection, Holder, role_of, unauthenticated};

/// What a caller has to be allowed to do. One per route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Permission {
    /// Tells nothing about work or nodes: health, version, documentation.
    Public,
    /// See jobs, tasks and their output.
    ReadJobs,
    /// Submit jobs.
    SubmitJobs,
    /// Cancel and retry jobs.
    ManageJobs,
    /// See nodes, queues, events and figures.
    ReadCluster,
    /// Drain and remove nodes.
    ManageNodes,
    /// Create, change, pause and remove queues.
    ManageQueues,
    /// Add and remove servers, and hand over the lead.
    ManageCluster,
    /// Make, list and revoke tokens.
    ManageTokens,
    /// See keys, sessions and locks.
    ReadKeys,
    /// Change keys, open and end sessions, take locks and give them back.
    WriteKeys,
    /// Read who changed what.
    ReadAudit,
    /// Be somebody, whoever it is.
    Known,
    /// Hold a token of the API, in whatever role.
    LogIn,
    /// Hold a token for joining.
    Join,
    /// Be a worker.
    Work,
    /// Be another server.
    Replicate,
}

impl Permission {
    /// What it allows, in words, for the page that people read.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Public => "none; it tells nothing about work or nodes",
            Self::ReadJobs => "see jobs, tasks and their output",
            Self::SubmitJobs => "submit jobs",
            Self::ManageJobs => "cancel jobs",
            Self::ReadCluster => "see nodes, queues, events and figures",
            Self::ManageNodes => "drain and remove nodes",
            Self::ManageQueues => "create, change, pause and remove queues",
            Self::ManageCluster => "add and remove servers, and hand over the lead",
            Self::ManageTokens => "make, list and revoke tokens",
            Self::ReadKeys => "see keys, sessions and locks",
            Self::WriteKeys => "change keys, use sessions and locks",
            Self::ReadAudit => "read who changed what",
            Self::Known => "be somebody, whoever it is",
            Self::LogIn => "hold a token of the API",
            Self::Join => "hold a token for joining",
            Self::Work => "be a worker",
            Self::Replicate => "be a server of the cluster",
        }
    }
}

/// One line of the table of routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Declared {
    pub(crate) path: String,
    pub(crate) method: &'static str,
    pub(crate) permission: Permission,
}

/// The routes under construction.
pub(crate) struct Routes {
    router: Router<App>,
    paths: Paths,
    schemas: Vec<(String, RefOr<Schema>)>,
    table: Vec<Declared>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), paths: Paths::new(), schemas: Vec::new(), table: Vec::new() }
    }

    /// Adds the handlers of one path, for those who have `permission`. A server that does not lead passes the request on.
    pub(crate) fn at(self, permission: Permission, methods: UtoipaMethodRouter<App>) -> Self {
        self.add(permission, false, methods)
    }

    /// As [`at`](Self::at), for what every server answers by itself.
    pub(crate) fn anywhere(self, permission: Permission, methods: UtoipaMethodRouter<App>) -> Self {
        self.add(permission, true, methods)
    }

    fn add(
        mut self,
        permission: Permission,
        anywhere: bool,
        (schemas, paths, methods): UtoipaMethodRouter<App>,
    ) -> Self {
        let methods =
            methods.route_layer(middleware::from_fn(move |request: Request, next: Next| {
                super::forward::dispatch(anywhere, request, next)
            }));
        let mut methods =
            Some(methods.route_layer(middleware::from_fn(move |request: Request, next: Next| {
                allow(permission, request, next)
            })));
        for (path, item) in &paths.paths {
            for (method, _) in operations(item) {
                self.table.push(Declared { path: path.clone(), method, permission });
            }
            if let Some(methods) = methods.take() {
                self.router = self.router.route(&served(path), methods);
            }
        }
        self.paths.merge(paths);
        self.schemas.extend(schemas);
        self
    }

    /// Adds what workers speak to: gRPC on the same port.
    pub(crate) fn gateway(self, gateway: crate::gateway::Service) -> Self {
        self.grpc(Permission::Work, "/rota.v1.WorkerGateway/{rpc}", gateway)
    }

    /// Adds what other servers speak to.
    pub(crate) fn peers(self, peers: crate::peers::Service) -> Self {
        self.grpc(Permission::Replicate, "/rota.peer.v1.PeerGateway/{rpc}", peers)
    }

    fn grpc<S>(mut self, permission: Permission, path: &str, service: S) -> Self
    where
        S: tower::Service<Request, Error = std::convert::Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        let service = tower::ServiceBuilder::new()
            .layer(middleware::from_fn(move |request: Request, next: Next| {
                allow(permission, request, next)
            }))
            .service(service);
        self.router = self.router.route_service(path, service);
        self.table.push(Declared { path: path.to_owned(), method: "post", permission });
        self
    }

    /// The routes, their description and their table.
    pub(crate) fn build(self) -> (Router<App>, OpenApi, Vec<Declared>) {
        let info = InfoBuilder::new()
            .title("rota")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "Submit, watch and steer work. Errors are problem documents (RFC 9457) with a stable `code`; \
                 GET /problems/{code} explains each. Clients must ignore fields of answers that they do not know.",
            ))
            .build();
        let components = ComponentsBuilder::new().schemas_from_iter(self.schemas).build();
        let openapi =
            OpenApiBuilder::new().info(info).paths(self.paths).components(Some(components)).build();
        (self.router, openapi, self.table)
    }
}

/// A path as the router wants it: names of keys and locks are the rest of the path, slashes included.
fn served(path: &str) -> String {
    path.replace("{key}", "{*key}").replace("{lock}", "{*lock}")
}

/// The operations of one path, by method.
pub(crate) fn operations(item: &PathItem) -> Vec<(&'static str, &Operation)> {
    [
        ("get", &item.get),
        ("put", &item.put),
        ("post", &item.post),
        ("patch", &item.patch),
        ("delete", &item.delete),
        ("head", &item.head),
        ("options", &item.options),
        ("trace", &item.trace),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_ref().map(|operation| (method, operation)))
    .collect()
}

/// Bytes of a request's method and path that the audit keeps.
const ACTION_BYTES_MAX: usize = 200;

impl Permission {
    /// The least role of a token that has it; `None` if no role has it.
    pub(crate) const fn least_role(self) -> Option<Role> {
        match self {
            Self::Public
            | Self::Known
            | Self::LogIn
            | Self::ReadJobs
            | Self::ReadCluster
            | Self::ReadKeys => Some(Role::Reader),
            Self::SubmitJobs | Self::ManageJobs | Self::WriteKeys => Some(Role::Submitter),
            Self::ManageNodes | Self::ManageQueues => Some(Role::Operator),
            Self::ManageTokens | Self::ManageCluster | Self::ReadAudit => Some(Role::Admin),
            Self::Join | Self::Work | Self::Replicate => None,
        }
    }
}

/// Lets a request through if its caller has the permission: the one place where that is decided.
async fn allow(permission: Permission, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.unwrap_or_else(|| Caller::Unknown(Box::new(unauthenticated("nobody"))));
    if let Err(refused) = may(permission, &caller) {
        turned_away(&request, &caller, &refused);
        return refused.into_response();
    }
    let mut response = match actor(&caller, &request) {
        Some(actor) => ACTOR.scope(actor, next.run(request)).await,
        None => next.run(request).await,
    };
    if caller.name().is_some() {
        // Told to somebody in particular: no cache may tell it to the next one.
        let headers = response.headers_mut();
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    match caller {
        // A token for joining opens no streams, and may be used up before the answer of the leader has been passed on.
        Caller::Holder(holder) if matches!(holder.token.spec.grant, Grant::Api(_)) => {
            cut_when_revoked(response, holder)
        }
        _ => response,
    }
}

/// Whether the caller has the permission.
fn may(permission: Permission, caller: &Caller) -> Result<(), Refused> {
    let forbidden = |detail: String| Err(refuse(ErrorCode::Forbidden, detail));
    match (caller, permission) {
        (_, Permission::Public) | (Caller::Anyone, _) => Ok(()),
        (Caller::Unknown(refused), _) => Err((**refused).clone()),
        (Caller::Worker(_), Permission::Known | Permission::Work) => Ok(()),
        (Caller::Server(_), Permission::Known | Permission::Replicate) => Ok(()),
        (Caller::Worker(name), _) => {
            forbidden(format!("worker {name:?} may only do a worker's work"))
        }
        (Caller::Server(number), _) => {
            forbidden(format!("server {number} may not do this in its own name"))
        }
        (Caller::Holder(holder), _) => match (holder.token.spec.grant, permission) {
            (Grant::Join { .. }, Permission::Join) => Ok(()),
            (Grant::Join { .. }, _) => forbidden("a token for joining is for joining only".into()),
            (Grant::Api(role), _) => match permission.least_role() {
                Some(least) if role >= least => Ok(()),
                Some(least) => forbidden(format!(
                    "the token's role is {}; this takes the role {}",
                    role.name(),
                    least.name()
                )),
                None => forbidden(format!(
                    "this takes a certificate or a token for joining, not the role {}",
                    role_of(holder.token.spec.grant).name()
                )),
            },
        },
    }
}

/// Who is to be noted for what the request changes. Reading changes nothing.
fn actor(caller: &Caller, request: &Request) -> Option<Actor> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let source = source(request).map_or_else(String::new, |source| source.to_string());
    caller.name().map(|who| Actor { who, source, action: action(request) })
}

/// Where a request came from; another server says so of those that it passed on.
fn source(request: &Request) -> Option<IpAddr> {
    let connection = request.extensions().get::<Connection>()?;
    let passed_on = match connection.peer {
        Some(Peer::Server(_)) => request.headers().get(&super::forward::SOURCE),
        Some(Peer::Worker(_)) | None => None,
    };
    let told = passed_on.and_then(|from| from.to_str().ok()).and_then(|from| from.parse().ok());
    Some(told.unwrap_or_else(|| connection.from.ip()))
}

/// Method and path.
fn action(request: &Request) -> String {
    let mut action = format!("{} {}", request.method(), request.uri().path());
    let end =
        (0..=action.len().min(ACTION_BYTES_MAX)).rev().find(|end| action.is_char_boundary(*end));
    action.truncate(end.unwrap_or(0));
    action
}

/// Notes somebody who was turned away.
pub(super) fn turned_away(request: &Request, caller: &Caller, refused: &Refused) {
    let app = request.extensions().get::<App>();
    if let Some((app, from)) = app.zip(source(request)) {
        let code = refused.problem().error_code().map_or("unknown", ErrorCode::name);
        let who = caller.name().unwrap_or_default();
        app.refusals.note(from, &who, &action(request), code);
    }
}

/// Ends an answer that is still being sent when its caller's token is revoked or expires.
fn cut_when_revoked(response: Response, holder: Holder) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let until = Box::pin(holder.ended());
    Response::from_parts(parts, Body::from_stream(body.into_data_stream().take_until(until)))
}
