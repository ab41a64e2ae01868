//! `/`: the web client, as it was built into `host/web/dist` (`cargo xtask web`) and compiled in here. Its pages have addresses of their own,
//! which all begin with the same document. `/docs`: the page to read and try the interface, built there too.

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use sha2::{Digest, Sha256};

use super::response_cache;
use echo_edge::error_pages;

/// Scripts, styles and requests of this origin alone, nothing inline. `blob:` is for pictures and sounds that the client holds in memory.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; \
     connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where the client's pages are; what is below them too.
pub(super) const PAGES: [&str; 6] = ["/c", "/join", "/new", "/settings", "/sign-in", "/forgot"];

/// A file of the client: its path, what it is, its bytes.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File {
            path: concat!("/", $name),
            content_type: $content_type,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/dist/", $name)),
        }
    };
}

static INDEX: File = file!("index.html", "text/html; charset=utf-8");

static FILES: [&File; 5] = [
    &file!("client.js", "text/javascript; charset=utf-8"),
    &file!("client.css", "text/css; charset=utf-8"),
    &file!("icon.svg", "image/svg+xml"),
    &file!("manifest.webmanifest", "application/manifest+json"),
    &file!("sw.js", "text/javascript; charset=utf-8"),
];

static DOCS: File = file!("docs.html", "text/html; charset=utf-8");

static DOCS_FILES: [&File; 3] = [
    &file!("docs.js", "text/javascript; charset=utf-8"),
    &file!("docs.css", "text/css; charset=utf-8"),
    &file!("docs-viewer.js", "text/javascript; charset=utf-8"),
];

fn all_files() -> impl Iterator<Item = &'static File> {
    FILES.iter().copied().chain(DOCS_FILES.iter().copied()).chain([&INDEX, &DOCS])
}

/// One tag for all: the files belong together.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for file in all_files() {
        digest.update(file.bytes);
    }
    HeaderValue::from_str(&format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest.finalize()[..16]))).expect("base64 is ASCII")
});

/// The document at `/` and at the pages' addresses.
pub(super) fn index() -> MethodRouter {
    serve(&INDEX)
}

/// The files that the document names, with their paths.
pub(super) fn files() -> impl Iterator<Item = (&'static str, MethodRouter)> {
    FILES.iter().map(|file| (file.path, serve(file)))
}

/// The document at `/docs`.
pub(super) fn docs() -> MethodRouter {
    serve(&DOCS)
}

/// What explains the codes of errors, at whichever of its paths.
pub(super) fn error_page() -> MethodRouter {
    get(async |uri: Uri| error_pages::answer(uri.path()))
}

/// The files that it names, with their paths.
pub(super) fn docs_files() -> impl Iterator<Item = (&'static str, MethodRouter)> {
    DOCS_FILES.iter().map(|file| (file.path, serve(file)))
}

fn serve(file: &'static File) -> MethodRouter {
    get(async move |headers: HeaderMap| answer(file, &headers))
}

/// Names are stable, so a browser asks each time whether its copy is good still; that costs no body.
fn answer(file: &File, asked: &HeaderMap) -> Response {
    let mut response = if response_cache::matches(asked, &TAG) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, file.content_type)], Body::from(Bytes::from_static(file.bytes))).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, TAG.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_that_was_built_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/dist");
        let built: BTreeSet<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| format!("/{}", entry.unwrap().file_name().display())).collect();
        let served: BTreeSet<_> = all_files().map(|file| file.path.to_owned()).collect();
        assert_eq!(built, served);
    }

    #[test]
    fn the_documents_name_no_other_origin_and_have_nothing_inline() {
        // A script names the service worker, and another one the viewer.
        let not_named = ["/sw.js", "/docs-viewer.js"];
        for (document, files) in [(&INDEX, &FILES[..]), (&DOCS, &DOCS_FILES[..])] {
            let text = std::str::from_utf8(document.bytes).unwrap();
            for file in files.iter().filter(|file| !not_named.contains(&file.path)) {
                assert!(text.contains(&format!("\"{}\"", file.path)), "{}", file.path);
            }
            for foreign in ["http:", "https:", "\"//", "<style", "<script>", "style=", " on"] {
                assert!(!text.replace("content=", "").contains(foreign), "{}: {foreign}", document.path);
            }
        }
    }

    #[test]
    fn the_policy_makes_no_exception() {
        for exception in ["unsafe", "*", "data:", "http", "nonce", "sha256"] {
            assert!(!POLICY.contains(exception), "{exception}");
        }
        assert!(POLICY.starts_with("default-src 'none'"));
    }
}
