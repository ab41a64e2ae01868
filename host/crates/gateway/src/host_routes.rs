//! The paths that the host answers itself, before those of the services.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::MethodRouter;
use http::Method;
use tower::Service;

use super::rate_limit::Rule;

/// Paths without variables, each with its handlers.
#[derive(Default)]
pub(super) struct HostRoutes {
    /// Beside the router, because they are looked for on every request, and a router's way there costs more.
    paths: BTreeMap<&'static str, HostRoute>,
    /// By the first segment, with what is below it.
    trees: BTreeMap<&'static str, HostRoute>,
    router: Router,
}

pub(super) struct HostRoute {
    /// The path as it was added.
    pub path: &'static str,
    /// None where the handler counts its requests itself, because only it knows the user.
    pub rate: Option<(Rule, u64)>,
}

impl HostRoutes {
    /// Panics where two have one path, and for a path with variables: it would never be found.
    pub fn add(&mut self, path: &'static str, rate: Option<(Rule, u64)>, handlers: MethodRouter) {
        assert!(!path.contains('{'), "{path}: the host's own paths have no variables");
        self.paths.insert(path, HostRoute { path, rate });
        self.router = std::mem::take(&mut self.router).route(path, handlers);
    }

    /// GET of the path and of everything below it; other methods are the services'. Panics where `path` has more than one segment.
    pub fn add_tree(&mut self, path: &'static str, rate: Option<(Rule, u64)>, handlers: MethodRouter) {
        assert_eq!(first_segment(path), path, "a tree begins at the root");
        self.trees.insert(path, HostRoute { path, rate });
        let router = std::mem::take(&mut self.router);
        self.router = router.route(path, handlers.clone()).route(&format!("{path}/{{*below}}"), handlers);
    }

    pub fn find(&self, method: &Method, path: &str) -> Option<&HostRoute> {
        self.paths.get(path).or_else(|| self.trees.get(first_segment(path)).filter(|_| method == Method::GET))
    }

    pub async fn answer(&self, request: Request) -> Response {
        let Ok(response) = self.router.clone().call(request).await;
        response
    }
}

/// `/c` of `/c/1/details`.
fn first_segment(path: &str) -> &str {
    match path.get(1..).and_then(|rest| rest.find('/')) {
        Some(end) => &path[..=end],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    #[test]
    fn a_tree_has_what_is_below_it_and_nothing_beside_it() {
        let mut routes = HostRoutes::default();
        routes.add("/", None, get(async || "root"));
        routes.add_tree("/c", None, get(async || "tree"));
        for (path, found) in [
            ("/", Some("/")),
            ("/c", Some("/c")),
            ("/c/", Some("/c")),
            ("/c/1", Some("/c")),
            ("/c/1/details", Some("/c")),
            ("/cc", None),
            ("/c1/c", None),
            ("/api/v1/c", None),
            ("", None),
            ("c", None),
            ("/é/c", None),
        ] {
            assert_eq!(routes.find(&Method::GET, path).map(|route| route.path), found, "{path}");
        }
        assert!(routes.find(&Method::POST, "/").is_some(), "to say that there is no such method");
        assert!(routes.find(&Method::POST, "/c/1").is_none());
    }
}
