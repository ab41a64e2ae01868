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
    /// By the first segment, with what is below the route's path.
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

    /// GET of the path and of everything below it; other methods are the services'. Panics where another tree begins with the same segment.
    pub fn add_tree(&mut self, path: &'static str, rate: Option<(Rule, u64)>, handlers: MethodRouter) {
        let before = self.trees.insert(first_segment(path), HostRoute { path, rate });
        assert!(before.is_none(), "{path}: two trees begin with the same segment");
        let router = std::mem::take(&mut self.router);
        self.router = router.route(path, handlers.clone()).route(&format!("{path}/{{*below}}"), handlers);
    }

    pub fn find(&self, method: &Method, path: &str) -> Option<&HostRoute> {
        let tree = || self.trees.get(first_segment(path)).filter(|tree| method == Method::GET && is_in(tree.path, path));
        self.paths.get(path).or_else(tree)
    }

    pub async fn answer(&self, request: Request) -> Response {
        let Ok(response) = self.router.clone().call(request).await;
        response
    }
}

fn is_in(tree: &str, path: &str) -> bool {
    path.strip_prefix(tree).is_some_and(|below| below.is_empty() || below.starts_with('/'))
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
        routes.add("/d", None, get(async || "above a tree"));
        routes.add_tree("/d/e", None, get(async || "deeper tree"));
        for (path, found) in [
            ("/", Some("/")),
            ("/c", Some("/c")),
            ("/c/", Some("/c")),
            ("/c/1", Some("/c")),
            ("/c/1/details", Some("/c")),
            ("/d", Some("/d")),
            ("/d/e", Some("/d/e")),
            ("/d/e/1/2", Some("/d/e")),
            ("/d/e.css", None),
            ("/d/1", None),
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
