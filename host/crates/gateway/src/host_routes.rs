//! The paths that the host answers itself, before any service is asked.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::MethodRouter;
use tower::Service;

use super::rate_limit::Rule;

/// Paths without variables, each with its handlers.
#[derive(Default)]
pub(super) struct HostRoutes {
    /// Beside the router, because they are looked for on every request, and a router's way there costs more.
    paths: BTreeMap<&'static str, HostRoute>,
    router: Router,
}

pub(super) struct HostRoute {
    /// The path as it was added.
    pub path: &'static str,
    /// None where whoever serves it counts its requests, because only he knows whose they are.
    pub rate: Option<(Rule, u64)>,
}

impl HostRoutes {
    /// Panics where two have one path, and for a path with variables: it would never be found.
    pub fn add(&mut self, path: &'static str, rate: Option<(Rule, u64)>, handlers: MethodRouter) {
        assert!(!path.contains('{'), "{path}: the host's own paths have no variables");
        self.paths.insert(path, HostRoute { path, rate });
        self.router = std::mem::take(&mut self.router).route(path, handlers);
    }

    pub fn find(&self, path: &str) -> Option<&HostRoute> {
        self.paths.get(path)
    }

    pub async fn answer(&self, request: Request) -> Response {
        let Ok(response) = self.router.clone().call(request).await;
        response
    }
}
