//! The paths that the host answers itself, before any service is asked.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::MethodRouter;
use tower::Service;

/// Paths without variables, each with its handlers.
#[derive(Default)]
pub(super) struct HostRoutes {
    /// Beside the router, because they are looked for on every request, and a router's way there costs more.
    paths: BTreeSet<&'static str>,
    router: Router,
}

impl HostRoutes {
    /// Panics where two have one path, and for a path with variables: it would never be found.
    pub fn add(&mut self, path: &'static str, handlers: MethodRouter) {
        assert!(!path.contains('{'), "{path}: the host's own paths have no variables");
        self.paths.insert(path);
        self.router = std::mem::take(&mut self.router).route(path, handlers);
    }

    /// The path as it was added.
    pub fn find(&self, path: &str) -> Option<&'static str> {
        self.paths.get(path).copied()
    }

    pub async fn answer(&self, request: Request) -> Response {
        let Ok(response) = self.router.clone().call(request).await;
        response
    }
}
