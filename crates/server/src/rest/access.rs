//! Routes and the permission that each declares: there is no way to register a handler without one.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use utoipa::openapi::path::{Operation, PathItem, Paths};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr};
use utoipa_axum::router::UtoipaMethodRouter;

use super::App;

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
                self.router = self.router.route(path, methods);
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

/// Lets a request through if its principal has the permission. Only loopback can connect, and everybody there may do everything
/// until there are tokens: the one place where that will change.
async fn allow(_permission: Permission, request: Request, next: Next) -> Response {
    next.run(request).await
}
