//! Files as a client sends and gets them, over a fake service and blobs in memory.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::fakes::{Seen, TestGateway, reply, route};
use echo_base::names::ServiceName;

const TUS: &str = "tus-resumable: 1.0.0";
const FORM: &str = "content-type: multipart/form-data; boundary=B";
const OFFSETS: &str = "content-type: application/offset+octet-stream";
/// The blob of every download.
const BLOB: &str = "file-1";
const BYTES_MAX: usize = 1_000;

fn service() -> ServiceName {
    ServiceName::parse("test").unwrap()
}

fn gateway() -> TestGateway {
    let streamed = |http, kind| {
        let status = if kind == "upload" || kind == "tus-create" { "status = 201\n" } else { "" };
        route("test", http, "user", &format!("{status}stream = {{ kind = \"{kind}\", bytes_max = \"{BYTES_MAX}\" }}"))
    };
    let routes = vec![
        streamed("POST /form", "upload"),
        streamed("GET /{id}/content", "download"),
        streamed("POST /files", "tus-create"),
        streamed("GET /files/{id}", "tus-state"),
        streamed("PATCH /files/{id}", "tus-append"),
    ];
    TestGateway::new(routes, async |seen: Seen| {
        let body: Value = seen.body.as_deref().map_or(Value::Null, |body| serde_json::from_str(body).unwrap());
        match seen.route.as_str() {
            "GET /files/{id}" if seen.path.iter().any(|(_, id)| id == "whole") => {
                reply(json!({ "id": "whole", "size": 9, "uploaded": 11 }))
            }
            "POST /files" if body["length"] == 0 => Err(echo_runtime::CallError::Invalid(vec![wrong_length()])),
            "POST /form" if body["file_name"] == "refused.txt" => Err(echo_runtime::CallError::Invalid(Vec::new())),
            "POST /form" => reply(body),
            "GET /{id}/content" => reply(json!({
                "blob": BLOB, "content_type": "text/plain", "file_name": "naïve \"name\".txt", "is_inline": false, "public_max_age_s": null
            })),
            "POST /files" => reply(json!({ "id": "u-1", "upload_length": body["length"] })),
            _ => reply(json!({ "id": "u-1", "upload_length": 11 })),
        }
    })
}

fn wrong_length() -> echo_runtime::FieldError {
    echo_runtime::FieldError { field: "length".to_owned(), code: "out_of_range".to_owned(), detail: "at least 1".to_owned() }
}

async fn send(gateway: &TestGateway, line: &str, headers: &[&str], body: impl Into<Body>) -> (u16, HeaderMap, Bytes) {
    let headers = [headers, &["authorization: Bearer alice"]].concat();
    let (parts, body) = gateway.send_raw(line, &headers, body).await.into_parts();
    (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn code(body: &[u8]) -> String {
    serde_json::from_slice::<Value>(body).map_or_else(|_| String::new(), |body| body["code"].as_str().unwrap_or_default().to_owned())
}

fn form(name: &str, file_name: &str, bytes: &str) -> String {
    format!(
        "--B\r\ncontent-disposition: form-data; name=\"{name}\"; \
         filename=\"{file_name}\"\r\ncontent-type: image/png\r\n\r\n{bytes}\r\n--B--\r\n"
    )
}

async fn size_of(gateway: &TestGateway, upload: &str) -> Option<u64> {
    gateway.blobs.upload_size(&service(), upload).await.ok()
}

#[tokio::test]
async fn the_file_of_a_form_is_an_upload_when_the_service_is_called() {
    let gateway = gateway();
    let (status, _, body) = send(&gateway, "POST /form", &[FORM], form("file", "a.png", "hello")).await;
    let reply: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 201, "{reply}");
    assert_eq!((&reply["size"], &reply["file_name"], &reply["content_type"]), (&json!(5), &json!("a.png"), &json!("image/png")));
    assert_eq!(size_of(&gateway, reply["upload"].as_str().unwrap()).await, Some(5));
    // As long as the file may be, and one byte more.
    assert_eq!(send(&gateway, "POST /form", &[FORM], form("file", "a", &"x".repeat(BYTES_MAX))).await.0, 201);
    let (status, _, body) = send(&gateway, "POST /form", &[FORM], form("file", "a", &"x".repeat(BYTES_MAX + 1))).await;
    assert_eq!((status, &*code(&body)), (413, "too_large"));
}

#[tokio::test]
async fn what_is_no_form_with_one_file_is_refused_and_not_kept() {
    let gateway = gateway();
    let check = async |headers: &[&str], body: Body, expect: (u16, &str)| {
        let (status, _, body) = send(&gateway, "POST /form", headers, body).await;
        assert_eq!((status, &*code(&body)), expect);
    };
    check(&["content-type: application/json"], "{}".into(), (415, "unsupported_media_type")).await;
    check(&["content-type: multipart/form-data"], "".into(), (415, "unsupported_media_type")).await;
    check(&[FORM], form("other", "a", "x").into(), (422, "invalid")).await;
    let note = "--B\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nhi\r\n";
    check(&[FORM], format!("{note}{}", form("file", "a", "x")).into(), (422, "invalid")).await;
    check(&[FORM], form("file", "a", "x").replace("--B--", &format!("{note}--B--")).into(), (422, "invalid")).await;
    check(&[FORM], form("file", "a", "x").replace("--B--", "--B").into(), (400, "unreadable")).await;
    check(&[FORM, "content-length: 99999999999"], "".into(), (413, "too_large")).await;
    let calls = gateway.calls_count();
    let whole = form("file", "a", "x");
    let broken = stream::iter([Ok(Bytes::from(whole[..whole.len() - 8].to_owned())), Err(std::io::Error::other("reset"))]);
    check(&[FORM], Body::from_stream(broken), (400, "unreadable")).await;
    assert_eq!(gateway.calls_count(), calls, "the service is called for what is whole");
    check(&[FORM], form("file", "refused.txt", "x").into(), (422, "invalid")).await;
    let seen: Value = serde_json::from_str(gateway.last_seen().body.as_deref().unwrap()).unwrap();
    assert_eq!(size_of(&gateway, seen["upload"].as_str().unwrap()).await, None, "what the service declined is gone");
}

#[tokio::test]
async fn tus_uploads_go_on_where_they_stopped() {
    let gateway = gateway();
    let (status, headers, _) = send(&gateway, "OPTIONS /files", &[], "").await;
    assert_eq!((status, text(&headers, "tus-version"), text(&headers, "tus-max-size")), (204, "1.0.0", "1000"));
    let good = ["upload-length: 11", "upload-metadata: filename bsOpLg==, filetype dGV4dC9wbGFpbg==,other"];
    let not_text = ["upload-length: 11", TUS, "upload-metadata: filename //8="];
    assert_eq!(send(&gateway, "POST /files", &not_text, "").await.0, 400, "no UTF-8");
    let (status, headers, _) = send(&gateway, "POST /files", &[&good[..], &[TUS]].concat(), "").await;
    assert_eq!((status, text(&headers, "location"), text(&headers, "upload-offset")), (201, "/files/u-1", "0"));
    let reply: Value = serde_json::from_str(gateway.last_seen().body.as_deref().unwrap()).unwrap();
    assert_eq!(reply, json!({ "length": 11, "file_name": "né.", "content_type": "text/plain" }));

    let patch = async |offset: &str, body: Body| send(&gateway, "PATCH /files/u-1", &[TUS, OFFSETS, offset], body).await;
    let broken = stream::iter([Ok(Bytes::from_static(b"hel")), Err(std::io::Error::other("reset"))]);
    assert_eq!(patch("upload-offset: 0", Body::from_stream(broken)).await.0, 400);
    let (status, headers, _) = send(&gateway, "HEAD /files/u-1", &[TUS], "").await;
    assert_eq!((status, text(&headers, "upload-offset"), text(&headers, "upload-length")), (200, "3", "11"), "what had come is kept");
    let (status, headers, body) = patch("upload-offset: 0", "hello".into()).await;
    assert_eq!((status, &*code(&body), text(&headers, "upload-offset")), (409, "wrong_offset", "3"));
    let (status, headers, _) = patch("upload-offset: 3", "lo world".into()).await;
    assert_eq!((status, text(&headers, "upload-offset"), text(&headers, "tus-resumable")), (204, "11", "1.0.0"));
    assert_eq!(gateway.last_seen().body.as_deref(), Some("{\"size\":11}"), "the service is told how much there is");
    let (status, headers, _) = send(&gateway, "HEAD /files/whole", &[TUS], "").await;
    assert_eq!((status, text(&headers, "upload-offset"), text(&headers, "upload-length")), (200, "11", "11"), "one that is whole");
    let (status, _, body) = patch("upload-offset: 11", "!".into()).await;
    assert_eq!((status, &*code(&body)), (413, "too_large"), "more than was said");
}

#[tokio::test]
async fn wrong_tus_requests_have_their_status() {
    let gateway = gateway();
    let check = async |line: &str, headers: &[&str], body: &'static str, expect: (u16, &str)| {
        let (status, _, body) = send(&gateway, line, headers, body).await;
        assert_eq!((status, &*code(&body)), expect, "{line} {headers:?}");
    };
    check("POST /files", &["upload-length: 5"], "", (412, "tus_version")).await;
    check("POST /files", &["tus-resumable: 0.2.2", "upload-length: 5"], "", (412, "tus_version")).await;
    check("POST /files", &[TUS], "", (400, "unreadable")).await;
    check("POST /files", &[TUS, "upload-length: -5"], "", (400, "unreadable")).await;
    check("POST /files", &[TUS, "upload-length: 1001"], "", (413, "too_large")).await;
    check("POST /files", &[TUS, "upload-length: 4294967296"], "", (413, "too_large")).await;
    check("POST /files", &[TUS, "upload-length: 99999999999999999999999999"], "", (413, "too_large")).await;
    let (_, _, body) = send(&gateway, "POST /files", &[TUS, "upload-length: 0"], "").await;
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["errors"][0]["field"], "Upload-Length", "{problem}");
    check("PATCH /files/u-1", &[TUS, "upload-offset: 0"], "x", (415, "unsupported_media_type")).await;
    check("PATCH /files/u-1", &[TUS, OFFSETS], "x", (400, "unreadable")).await;
    check("PATCH /files/u-1", &[TUS, OFFSETS, "upload-offset: 5"], "x", (409, "wrong_offset")).await;
}

#[tokio::test]
async fn a_download_honours_conditions_and_every_form_of_range() {
    let gateway = gateway();
    let whole: String = ('a'..='z').cycle().take(2_600).collect();
    let bytes = stream::iter([Ok(Bytes::from(whole.clone()))]);
    gateway.blobs.append(&service(), BLOB, 0, 10_000, Box::pin(bytes)).await.unwrap();
    gateway.blobs.finish(&service(), BLOB).await.unwrap();
    let get = async |headers: &[&str]| send(&gateway, "GET /1/content", headers, "").await;

    let (status, headers, body) = get(&["accept-encoding: gzip"]).await;
    assert_eq!((status, &body[..], text(&headers, "content-length")), (200, whole.as_bytes(), "2600"));
    for (name, expect) in [
        ("content-encoding", ""),
        ("content-type", "text/plain"),
        ("etag", "\"file-1\""),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cache-control", "private, no-cache"),
        ("content-disposition", "attachment; filename=\"na_ve _name_.txt\"; filename*=UTF-8''na%C3%AFve%20%22name%22.txt"),
    ] {
        assert_eq!(text(&headers, name), expect, "{name}");
    }
    let check = async |headers: &[&str], expect: (u16, &str, &str)| {
        let (status, answered, body) = get(headers).await;
        let body = if status == 200 { "whole".into() } else { String::from_utf8_lossy(&body) };
        let body = if status == 416 { "".into() } else { body };
        assert_eq!((status, text(&answered, "content-range"), &*body), expect, "{headers:?}");
    };
    check(&["range: bytes=0-3"], (206, "bytes 0-3/2600", "abcd")).await;
    check(&["range: bytes=-2"], (206, "bytes 2598-2599/2600", "yz")).await;
    check(&["range: bytes=2598-"], (206, "bytes 2598-2599/2600", "yz")).await;
    check(&["range: bytes=2600-"], (416, "bytes */2600", "")).await;
    check(&["range: bytes=3-1"], (200, "", "whole")).await;
    check(&["range: bytes=0-3", "if-range: \"file-1\""], (206, "bytes 0-3/2600", "abcd")).await;
    check(&["range: bytes=0-3", "if-range: \"other\""], (200, "", "whole")).await;
    check(&["range: bytes=0-3", "if-range: W/\"file-1\""], (200, "", "whole")).await;
    check(&["range: bytes=0-3", "if-none-match: \"file-1\""], (304, "", "")).await;
    let (status, headers, body) = get(&["range: bytes=0-1,26-27"]).await;
    let boundary = text(&headers, "content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, bytes: &str| {
        format!("\r\n--{boundary}\r\ncontent-type: text/plain\r\ncontent-range: bytes {range}/2600\r\n\r\n{bytes}")
    };
    let expect = format!("{}{}\r\n--{boundary}--\r\n", part("0-1", "ab"), part("26-27", "ab"));
    assert_eq!((status, &body[..], text(&headers, "content-length")), (206, expect.as_bytes(), &*expect.len().to_string()));
    let (status, headers, body) = send(&gateway, "HEAD /1/content", &["range: bytes=0-3"], "").await;
    assert_eq!((status, text(&headers, "content-length"), body.len()), (200, "2600", 0));
}

#[tokio::test]
async fn a_name_is_no_path() {
    for (given, expect) in [
        ("a.png", Some("a.png")),
        ("../../etc/passwd", Some("passwd")),
        ("C:\\temp\\..\\a b.txt", Some("a b.txt")),
        ("/", None),
        ("a/..", None),
        ("", None),
        ("...", Some("...")),
    ] {
        assert_eq!(super::base_name(given).as_deref(), expect, "{given:?}");
    }
    let gateway = gateway();
    let (_, _, body) = send(&gateway, "POST /form", &[FORM], form("file", "../up/a.png", "hello")).await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["file_name"], "a.png");
    // `../a.txt`
    send(&gateway, "POST /files", &[TUS, "upload-length: 11", "upload-metadata: filename Li4vYS50eHQ="], "").await;
    let told: Value = serde_json::from_str(gateway.last_seen().body.as_deref().unwrap()).unwrap();
    assert_eq!(told["file_name"], "a.txt");
}

#[tokio::test]
async fn an_upload_with_a_key_is_done_once() {
    let gateway = gateway();
    let key = "idempotency-key: k-1";
    let (status, headers, first) = send(&gateway, "POST /form", &[FORM, key], form("file", "a", "hello")).await;
    assert_eq!((status, text(&headers, "idempotent-replayed")), (201, ""));
    let calls = gateway.calls_count();
    let (status, headers, again) = send(&gateway, "POST /form", &[FORM, key], form("file", "a", "hello")).await;
    assert_eq!((status, text(&headers, "idempotent-replayed"), &again), (201, "true", &first));
    let (status, _, body) = send(&gateway, "POST /form", &[FORM, key], form("file", "a", "other")).await;
    assert_eq!((status, &*code(&body)), (422, "idempotency_key_reused"));
    assert_eq!(gateway.calls_count(), calls, "the service is asked once");

    let begin = async |length: &str| send(&gateway, "POST /files", &[TUS, "idempotency-key: k-2", length], "").await;
    let (status, headers, first) = begin("upload-length: 11").await;
    assert_eq!((status, text(&headers, "location"), text(&headers, "idempotent-replayed")), (201, "/files/u-1", ""));
    let calls = gateway.calls_count();
    let (status, headers, again) = begin("upload-length: 11").await;
    assert_eq!((status, text(&headers, "location"), text(&headers, "idempotent-replayed"), &again), (201, "/files/u-1", "true", &first));
    assert_eq!(code(&begin("upload-length: 12").await.2), "idempotency_key_reused");
    assert_eq!(gateway.calls_count(), calls);
}
