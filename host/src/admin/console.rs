//! `/console`: the operators' web page, as it was built into `host/web/console/dist` (`cargo xtask web`) and compiled in here. Whoever opens it needs a
//! token for everything that it shows.

use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use tower_http::compression::CompressionLayer;

/// Scripts, styles, pictures and requests of this origin alone, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// A file of the console: its path, what it is, its bytes.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! file {
    ($path:literal, $name:literal, $content_type:literal) => {
        File {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/console/dist/", $name)),
        }
    };
}

static FILES: [File; 4] = [
    file!("/console", "index.html", "text/html; charset=utf-8"),
    file!("/console/console.js", "console.js", "text/javascript; charset=utf-8"),
    file!("/console/console.css", "console.css", "text/css; charset=utf-8"),
    file!("/console/icon.svg", "icon.svg", "image/svg+xml"),
];

/// One tag for all: the files belong together. A weak one, as they are sent compressed or not (RFC 9110, section 8.8.1).
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for file in &FILES {
        digest.update(file.bytes);
    }
    let tag: String = digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("W/\"{tag}\"")).expect("hexadecimal is ASCII")
});

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let files =
        FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(async |headers: HeaderMap| answer(file, &headers))));
    files
        .layer(CompressionLayer::new())
        .route("/", get(async || Redirect::temporary("/console")))
        .route("/console/", get(async || Redirect::permanent("/console")))
}

/// Names are stable, so a browser asks each time whether its copy is good still; that costs no body.
fn answer(file: &File, asked: &HeaderMap) -> Response {
    let known = asked.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let own = TAG.to_str().expect("hexadecimal is ASCII").trim_start_matches("W/");
    let is_known = known.split(',').any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == own);
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, file.content_type)], Body::from(Bytes::from_static(file.bytes))).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, TAG.clone());
    for (name, value) in [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_that_was_built_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/console/dist");
        let built: BTreeSet<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let name_of = |file: &File| file.path.strip_prefix("/console/").unwrap_or("index.html").to_owned();
        assert_eq!(built, FILES.iter().map(name_of).collect());
    }

    #[test]
    fn the_document_names_no_other_origin_and_has_nothing_inline() {
        let text = std::str::from_utf8(FILES[0].bytes).unwrap();
        for file in &FILES[1..] {
            assert!(text.contains(&format!("\"{}\"", file.path)), "{}", file.path);
        }
        for foreign in ["http:", "https:", "\"//", "<style", "<script>", "style=", " on"] {
            assert!(!text.replace("content=", "").contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_policy_makes_no_exception() {
        for exception in ["unsafe", "*", "data:", "blob:", "http", "nonce", "sha256"] {
            assert!(!POLICY.contains(exception), "{exception}");
        }
        assert!(POLICY.starts_with("default-src 'none'"));
    }

    #[test]
    fn a_copy_that_is_good_still_is_not_sent_again() {
        let mut asked = HeaderMap::new();
        assert_eq!(answer(&FILES[1], &asked).status(), StatusCode::OK);
        let strong = TAG.to_str().unwrap().trim_start_matches("W/").to_owned();
        for (tags, expect) in [(TAG.to_str().unwrap().to_owned(), 304), (format!("\"x\", {strong}"), 304), ("\"x\"".to_owned(), 200)] {
            asked.insert(IF_NONE_MATCH, HeaderValue::from_str(&tags).unwrap());
            assert_eq!(answer(&FILES[1], &asked).status().as_u16(), expect, "{tags}");
        }
    }
}
