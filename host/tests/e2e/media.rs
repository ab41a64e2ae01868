//! Files: sent whole or piece by piece, kept without what was recorded about them, read by their owner and by a signed address.

use std::path::Path;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ALL, Ask, Person, TestApp, until};

pub const MEDIA: &str = "/api/v1/media";
const SECRET: &[u8] = b"52.5200N 13.4050E";
const OFFSETS: (&str, &str) = ("content-type", "application/offset+octet-stream");

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), &kind[..], body, &[0; 4]].concat()
}

/// A picture of this width and height, by its header; `more` stands between the header and the picture.
pub fn png(side: u32, more: &[u8]) -> Vec<u8> {
    let header = chunk(b"IHDR", &[&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat());
    [b"\x89PNG\r\n\x1a\n", &header[..], more, &chunk(b"IDAT", b"x"), &chunk(b"IEND", b"")].concat()
}

pub fn form(app: &TestApp, person: &Person, name: &str, declared: &str, bytes: &[u8]) -> Ask {
    with_form(app.request(Method::POST, &format!("{MEDIA}/upload")).by(person), name, declared, bytes)
}

/// With one file in it.
pub fn with_form(ask: Ask, name: &str, declared: &str, bytes: &[u8]) -> Ask {
    let head = format!("--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: {declared}\r\n\r\n");
    let body = [head.as_bytes(), bytes, b"\r\n--B--\r\n"].concat();
    ask.header("content-type", "multipart/form-data; boundary=B").bytes(body)
}

pub async fn bytes_of(app: &TestApp, person: Option<&Person>, path: &str) -> (StatusCode, reqwest::header::HeaderMap, Vec<u8>) {
    let ask = app.client.get(format!("{}{path}", app.url));
    let ask = match person {
        Some(person) => ask.bearer_auth(&person.access_token),
        None => ask,
    };
    let reply = ask.send().await.expect("an answer");
    (reply.status(), reply.headers().clone(), reply.bytes().await.expect("a body").to_vec())
}

/// Whether any file below the folder has these bytes.
fn holds(folder: &Path, what: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            holds(&path, what)
        } else {
            std::fs::read(&path).expect("a file").windows(what.len()).any(|window| window == what)
        }
    })
}

pub fn content(media: &Value) -> String {
    format!("{MEDIA}/{}/content", media["id"].as_str().expect("id"))
}

#[tokio::test]
async fn a_picture_is_sent_seen_and_deleted_and_says_nothing_of_where_it_was_taken() {
    let app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let blobs = app.data_folder().join("blobs");
    let image = png(7, &chunk(b"eXIf", SECRET));
    let media = form(&app, &ada, "cat.png", "text/html", &image).send().await.expect(StatusCode::CREATED);
    let clean = png(7, b"");
    let expect = json!({ "content_type": "image/png", "kind": "image", "file_name": "cat.png", "size": clean.len(), "width": 7, "height": 7, "state": "ready" });
    for (field, value) in expect.as_object().expect("an object") {
        assert_eq!(&media[field], value, "{field} of {media}");
    }
    assert!(!holds(&blobs, SECRET), "what was recorded is in no blob");

    let (status, headers, bytes) = bytes_of(&app, Some(&ada), &content(&media)).await;
    assert_eq!((status, bytes), (StatusCode::OK, clean.clone()));
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "inline; filename=\"cat.png\"; filename*=UTF-8''cat.png"),
        ("cache-control", "private, no-cache"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let part = app.get(&content(&media)).by(&ada).header("range", "bytes=1-3").send().await;
    assert_eq!(part.header("content-range"), format!("bytes 1-3/{}", clean.len()));
    assert_eq!(part.expect(StatusCode::PARTIAL_CONTENT), "PNG");

    // Nobody else, but by an address that the owner was given, and not by one that was changed.
    for path in [content(&media), format!("{MEDIA}/{}", media["id"].as_str().unwrap())] {
        app.get(&path).by(&bala).send().await.expect_problem(404, "not_found");
    }
    app.get(&content(&media)).send().await.expect_problem(401, "unauthenticated");
    let address = media["content_url"].as_str().expect("an address");
    let (status, headers, bytes) = bytes_of(&app, None, address).await;
    assert_eq!((status, bytes), (StatusCode::OK, clean));
    let shared = headers["cache-control"].to_str().expect("text");
    assert!(shared.starts_with("public, max-age=") && shared.ends_with(", immutable"), "{shared}");
    let later = address.replace("expires=", "expires=9");
    app.get(&later).by(&bala).send().await.expect_problem(404, "not_found");

    let usage = app.get(&format!("{MEDIA}/usage")).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&usage["used"], &usage["files"]), (&media["size"], &json!(1)));
    let path = format!("{MEDIA}/{}", media["id"].as_str().unwrap());
    app.delete(&path).by(&bala).send().await.expect_problem(404, "not_found");
    app.delete(&path).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.get(&content(&media)).by(&ada).send().await.expect_problem(404, "not_found");
    assert!(!holds(&blobs, b"IHDR"), "its bytes are gone too");
}

#[tokio::test]
async fn a_resumable_upload_goes_on_after_the_host_was_killed() {
    let mut app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let create = app.request(Method::POST, MEDIA).by(&ada).header("tus-resumable", "1.0.0");
    let created = create.header("upload-length", "3000000").header("upload-metadata", "filename YS5iaW4=").send().await;
    let location = created.header("location").to_owned();
    let id = created.expect(StatusCode::CREATED)["id"].as_str().expect("id").to_owned();
    assert_eq!(location, format!("{MEDIA}/{id}"));
    let patch = |app: &TestApp, person: &Person, offset: usize, bytes: &[u8]| {
        let ask = app.request(Method::PATCH, &location).by(person).header("tus-resumable", "1.0.0").header(OFFSETS.0, OFFSETS.1);
        ask.header("upload-offset", &offset.to_string()).bytes(bytes.to_vec())
    };
    patch(&app, &bala, 0, b"x").send().await.expect_problem(404, "not_found");
    patch(&app, &ada, 0, &bytes[..2_000_000]).send().await.expect(StatusCode::NO_CONTENT);
    app.kill();
    app.restart().await;
    let state = app.request(Method::HEAD, &location).by(&ada).header("tus-resumable", "1.0.0").send().await;
    assert_eq!((state.header("upload-offset"), state.header("upload-length")), ("2000000", "3000000"));
    patch(&app, &ada, 0, b"x").send().await.expect_problem(409, "wrong_offset");
    // Two at one offset: one of them is taken.
    let (one, other) =
        tokio::join!(patch(&app, &ada, 2_000_000, &bytes[2_000_000..]).send(), patch(&app, &ada, 2_000_000, &bytes[2_000_000..]).send());
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
    let media = app.get(&location).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(
        (&media["state"], &media["content_type"], &media["size"]),
        (&json!("ready"), &json!("application/octet-stream"), &json!(3_000_000))
    );
    let (status, headers, found) = bytes_of(&app, Some(&ada), &content(&media)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    assert!(found == bytes, "{} bytes came back", found.len());
}

#[tokio::test]
async fn hostile_files_are_refused_or_harmless() {
    let app = TestApp::with(&ALL, &[("ECHO_SERVICES__MEDIA__QUOTA_BYTES", "1000000")]).await;
    let ada = app.someone().await;
    let refused = async |bytes: &[u8], status: u16, code: &str| {
        form(&app, &ada, "a.png", "image/png", bytes).send().await.expect_problem(status, code);
    };
    let bomb = png(16_384, b"");
    refused(&bomb, 422, "dimensions_too_large").await;
    refused(&bomb[..usize::min(65, bomb.len() - 1)], 422, "dimensions_too_large").await;
    refused(&png(7, b"")[..50], 422, "unreadable_image").await;
    refused(&png(0, b""), 422, "unreadable_image").await;
    refused(b"\xff\xd8\xff\xe0", 422, "unreadable_image").await;
    refused(&vec![b'x'; 1_000_001], 413, "quota_exceeded").await;
    refused(b"", 422, "empty").await;

    // What a browser could run is saved, whatever it is called.
    for page in [&b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"[..], b"<!DOCTYPE html><script>alert(1)</script>"] {
        let media = form(&app, &ada, "a.svg", "image/svg+xml", page).send().await.expect(StatusCode::CREATED);
        let (_, headers, _) = bytes_of(&app, Some(&ada), &content(&media)).await;
        assert_eq!(headers["content-type"], "application/octet-stream");
        assert!(headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    }
    // A picture that is a page too is a picture alone.
    let polyglot = [png(7, b""), b"<script>alert(1)</script>".to_vec()].concat();
    let media = form(&app, &ada, "a.html", "text/html", &polyglot).send().await.expect(StatusCode::CREATED);
    assert_eq!(bytes_of(&app, Some(&ada), &content(&media)).await.2, png(7, b""));

    // 4 GiB that are only said, and what is never finished.
    let begin = |length: &str| app.request(Method::POST, MEDIA).by(&ada).header("tus-resumable", "1.0.0").header("upload-length", length);
    begin("4294967296").send().await.expect_problem(413, "too_large");
    begin("999999").send().await.expect_problem(413, "quota_exceeded");
    let _: Value = begin("500000").send().await.expect(StatusCode::CREATED);
    begin("500000").send().await.expect_problem(413, "quota_exceeded");
    let usage = app.get(&format!("{MEDIA}/usage")).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(usage["files"], 4);
    assert!(!app.log().contains("panicked"), "{}", app.log());
}

/// A chunk with its sum (PNG, annex D).
pub fn checked_chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in kind.iter().chain(body) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    [&(body.len() as u32).to_be_bytes(), &kind[..], body, &(!crc).to_be_bytes()].concat()
}

/// A picture that can be decoded, 400 by 300 and grey.
pub fn real_png() -> Vec<u8> {
    let row = [&[0][..], &[0x80; 400]].concat();
    let raw = row.repeat(300);
    // zlib without compression (RFC 1950, RFC 1951): blocks of at most 65,535 bytes.
    let mut data = vec![0x78, 0x01];
    let blocks: Vec<_> = raw.chunks(60_000).collect();
    for (at, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        data.push(u8::from(at + 1 == blocks.len()));
        data.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        data.extend_from_slice(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &raw {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    data.extend((b << 16 | a).to_be_bytes());
    let header = [&400_u32.to_be_bytes()[..], &300_u32.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), checked_chunk(b"IHDR", &header), checked_chunk(b"IDAT", &data), checked_chunk(b"IEND", b"")].concat()
}

fn file_message(app: &TestApp, sender: &Person, conversation: &str, client_message_id: &str, media: &Value) -> Ask {
    let body = json!({ "conversation_id": conversation, "client_message_id": client_message_id, "type": "image", "media_id": media["id"] });
    app.post("/api/v1/messages", body).by(sender)
}

async fn reads(app: &TestApp, person: &Person, media: &Value) -> StatusCode {
    bytes_of(app, Some(person), &content(media)).await.0
}

#[tokio::test]
async fn a_file_is_read_by_who_sees_a_message_with_it_and_by_nobody_else() {
    let app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let (chen, dana) = app.two().await;
    let talk = app.group(&ada, &[&bala, &chen]).await;
    let media = form(&app, &ada, "a.png", "image/png", &png(7, b"")).send().await.expect(StatusCode::CREATED);
    assert_eq!(reads(&app, &bala, &media).await, StatusCode::NOT_FOUND, "it is in no message yet");
    // Not another's file, not one that is not whole, not one that never was.
    let with_dana = app.conversation(&dana, &bala).await;
    file_message(&app, &dana, &with_dana, "1", &media).send().await.expect_problem(422, "unknown_media");
    let begun = app.request(Method::POST, MEDIA).by(&ada).header("tus-resumable", "1.0.0").header("upload-length", "9").send().await;
    file_message(&app, &ada, &talk, "1", &begun.expect(StatusCode::CREATED)).send().await.expect_problem(422, "unknown_media");
    let nothing = json!({ "id": "01890000-0000-7000-8000-000000000000" });
    file_message(&app, &ada, &talk, "1", &nothing).send().await.expect_problem(422, "unknown_media");

    let message = file_message(&app, &ada, &talk, "1", &media).send().await.expect(StatusCode::CREATED);
    for (person, expect) in [(&ada, 200), (&bala, 200), (&chen, 200), (&dana, 404)] {
        assert_eq!(reads(&app, person, &media).await.as_u16(), expect);
        let path = format!("{MEDIA}/{}", media["id"].as_str().expect("id"));
        assert_eq!(app.get(&path).by(person).send().await.status.as_u16(), expect);
        assert_eq!(app.get(&format!("{path}/thumbnail")).by(person).send().await.status.as_u16() == 404, expect == 404);
    }
    let path = format!("{MEDIA}/{}", media["id"].as_str().expect("id"));
    app.delete(&path).by(&bala).send().await.expect_problem(404, "not_found");
    // What a message has is not taken from it.
    app.delete(&path).by(&ada).send().await.expect_problem(409, "media_in_use");
    assert_eq!(reads(&app, &bala, &media).await, StatusCode::OK);
    // And it goes as what it is, the owner's own and what is passed on.
    for (type_, person, expect) in [("audio", &ada, 422), ("audio", &bala, 422), ("video", &ada, 422), ("document", &bala, 201)] {
        let body = json!({ "conversation_id": talk, "client_message_id": format!("as {type_}"), "type": type_, "media_id": media["id"] });
        let answer = app.post("/api/v1/messages", body).by(person).send().await;
        assert_eq!(answer.status.as_u16(), expect, "{type_}: {}", answer.body);
        if expect == 422 {
            answer.expect_problem(422, "not_for_type");
        } else {
            let id = answer.body["id"].as_str().expect("an id").to_owned();
            app.delete(&format!("/api/v1/messages/{id}?for=everyone")).by(person).send().await.expect(StatusCode::NO_CONTENT);
        }
    }

    // Who has left reads it no more; who sees it passes it on.
    let participant = format!("/api/v1/messages/conversations/{talk}/participants/{}", chen.id);
    assert!(app.delete(&participant).by(&chen).send().await.status.is_success());
    assert_eq!(reads(&app, &chen, &media).await, StatusCode::NOT_FOUND);
    let passed_on = file_message(&app, &bala, &with_dana, "1", &media).send().await.expect(StatusCode::CREATED);
    assert_eq!(reads(&app, &dana, &media).await, StatusCode::OK);

    // What somebody sends to whoever blocks them is not there to be read.
    let with_chen = app.conversation(&ada, &chen).await;
    app.put(&format!("/api/v1/users/blocked/{}", ada.id), json!({})).by(&chen).send().await.expect(StatusCode::NO_CONTENT);
    let other = form(&app, &ada, "b.png", "image/png", &png(9, b"")).send().await.expect(StatusCode::CREATED);
    until("the block is known", async || {
        let fresh = form(&app, &ada, "c.png", "image/png", &png(8, b"")).send().await.expect(StatusCode::CREATED);
        let key = fresh["id"].as_str().expect("id");
        let sent = file_message(&app, &ada, &with_chen, key, &fresh).send().await;
        (!sent.status.is_success() || reads(&app, &chen, &fresh).await == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    file_message(&app, &ada, &with_chen, "last", &other).send().await;
    assert_eq!(reads(&app, &chen, &other).await, StatusCode::NOT_FOUND);

    // The file goes with the last message that has it.
    let delete = |message: &Value| format!("/api/v1/messages/{}?for=everyone", message["id"].as_str().expect("id"));
    app.delete(&delete(&message)).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(reads(&app, &dana, &media).await, StatusCode::OK);
    app.delete(&delete(&passed_on)).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(reads(&app, &dana, &media).await, StatusCode::NOT_FOUND);
    until("it is gone for its owner too", async || (reads(&app, &ada, &media).await == StatusCode::NOT_FOUND).then_some(())).await;

    // And with a message that disappears.
    let settings = format!("/api/v1/messages/conversations/{talk}/settings");
    app.put(&settings, json!({ "disappearing_after": 3 })).by(&ada).send().await.expect(StatusCode::OK);
    let fleeting = form(&app, &ada, "d.png", "image/png", &png(6, b"")).send().await.expect(StatusCode::CREATED);
    file_message(&app, &ada, &talk, "fleeting", &fleeting).send().await.expect(StatusCode::CREATED);
    for person in [&bala, &ada] {
        until("the file has disappeared", async || (reads(&app, person, &fleeting).await == StatusCode::NOT_FOUND).then_some(())).await;
    }
}

#[tokio::test]
async fn a_picture_has_thumbnails_and_what_cannot_be_decoded_costs_its_own_call_alone() {
    let app = TestApp::start().await;
    let ada = app.someone().await;
    let media = form(&app, &ada, "a.png", "image/png", &real_png()).send().await.expect(StatusCode::CREATED);
    let path = |media: &Value| format!("{MEDIA}/{}/thumbnail", media["id"].as_str().expect("id"));
    for (size, width) in [("", 320_u16), ("?size=100", 128), ("?size=128", 128), ("?size=2000", 400)] {
        let (status, headers, bytes) = bytes_of(&app, Some(&ada), &format!("{}{size}", path(&media))).await;
        assert_eq!((status, headers["content-type"].to_str().expect("text")), (StatusCode::OK, "image/jpeg"), "{size}");
        assert_eq!(headers["content-security-policy"], "default-src 'none'; sandbox");
        // Of the start of frame: height and width.
        let frame = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a frame");
        let number = |at: usize| u16::from_be_bytes([bytes[frame + at], bytes[frame + at + 1]]);
        assert_eq!((number(7), number(5)), (width, width * 3 / 4), "{size}");
    }
    let signed = media["content_url"].as_str().expect("an address").replace("/content?", "/thumbnail?");
    assert_eq!(bytes_of(&app, None, &signed).await.0, StatusCode::OK);
    app.get(&path(&media)).send().await.expect_problem(401, "unauthenticated");

    // Claims of 8,000 by 5,000 and of a picture that is none; and no picture at all.
    let bomb = form(&app, &ada, "b.png", "image/png", &png(6_000, b"")).send().await.expect(StatusCode::CREATED);
    let text = form(&app, &ada, "c.txt", "text/plain", b"text").send().await.expect(StatusCode::CREATED);
    for media in [&bomb, &text] {
        app.get(&path(media)).by(&ada).send().await.expect_problem(422, "no_thumbnail");
    }
    assert_eq!(bytes_of(&app, Some(&ada), &path(&media)).await.0, StatusCode::OK);

    let deleted = format!("{MEDIA}/{}", media["id"].as_str().expect("id"));
    app.delete(&deleted).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.get(&path(&media)).by(&ada).send().await.expect_problem(404, "not_found");
    assert!(!holds(&app.data_folder().join("blobs"), b"JFIF"), "its thumbnails are gone too");
}

#[tokio::test]
async fn a_recording_says_how_long_it_is() {
    let app = TestApp::start().await;
    let ada = app.someone().await;
    // 8,000 samples a second of two bytes, for a second and a half.
    let rate = [&8_000_u32.to_le_bytes()[..], &16_000_u32.to_le_bytes(), &[2, 0, 16, 0]].concat();
    let head = [&b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0"[..], &rate, b"data", &24_000_u32.to_le_bytes()].concat();
    let recording = [head, vec![0; 24_000]].concat();
    let media = form(&app, &ada, "a.wav", "audio/wav", &recording).send().await.expect(StatusCode::CREATED);
    assert_eq!((&media["kind"], &media["duration_ms"]), (&json!("audio"), &json!(1_500)));
}
