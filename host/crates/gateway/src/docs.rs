//! `/docs`: one page to read and try the interface, made from `/openapi.json` in the browser. It loads nothing from elsewhere, and its
//! content security policy lets nothing run but the page's own script and style, by their hashes.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("docs/page.css");
const SCRIPT: &str = include_str!("docs/page.js");

struct Page {
    html: String,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let html = include_str!("docs/page.html").replace("/*style*/", STYLE).replace("/*script*/", SCRIPT);
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    Page { html, policy: HeaderValue::from_str(&policy).expect("ASCII") }
});

pub(super) async fn page() -> Response {
    let mut response = ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache")], PAGE.html.as_str()).into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGE.policy.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_its_script_and_style_and_nothing_from_elsewhere() {
        let html = &PAGE.html;
        assert!(html.contains(&format!("<script>{SCRIPT}</script>")), "the hash is of all between the tags");
        assert!(html.contains(&format!("<style>{STYLE}</style>")));
        for foreign in ["src=", "href=\"http", "//cdn", "innerHTML", " onclick", " style="] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }
}
