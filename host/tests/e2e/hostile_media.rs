//! Files made to harm who looks at them, and a thousand uploads at once: each costs its own call, and nobody else notices.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ALL, PATIENCE, Person, Reply, TestApp, until};
use crate::media::{MEDIA, bytes_of, checked_chunk, content, form, png, real_png};

/// So many zeros are what is taken out of a bomb, in bytes.
const BOMB_BYTES: u32 = 200_000_000;

/// At least so many zeros, by zlib (RFC 1950): one byte, and the same 258 again and again, of thirteen bits each (RFC 1951, fixed codes).
fn zeros_deflated(count: u32) -> Vec<u8> {
    struct Bits(Vec<u8>, u32);
    impl Bits {
        /// The first is the lowest of its byte.
        fn put(&mut self, bits: &str) {
            for bit in bits.bytes() {
                if self.1.is_multiple_of(8) {
                    self.0.push(0);
                }
                *self.0.last_mut().expect("a byte") |= (bit - b'0') << (self.1 % 8);
                self.1 += 1;
            }
        }
    }
    let again = count.div_ceil(258);
    let mut bits = Bits(vec![0x78, 0x01], 0);
    // The last block, of fixed codes; the byte 0.
    bits.put("11000110000");
    for _ in 0..again {
        bits.put("1100010100000");
    }
    bits.put("0000000");
    // Adler-32 of zeros: the low half stays 1, the high one counts them.
    let sum = ((1 + 258 * u64::from(again)) % 65_521) as u32;
    [bits.0, (sum << 16 | 1).to_be_bytes().to_vec()].concat()
}

/// Red, green and blue; what is in `more` stands between the header and the picture.
fn png_of(side: u32, more: &[u8], data: &[u8]) -> Vec<u8> {
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let (header, data, end) = (checked_chunk(b"IHDR", &header), checked_chunk(b"IDAT", data), checked_chunk(b"IEND", b""));
    [b"\x89PNG\r\n\x1a\n", &header[..], more, &data, &end].concat()
}

async fn kept(app: &TestApp, person: &Person, declared: &str, bytes: &[u8]) -> Value {
    form(app, person, "a.png", declared, bytes).send().await.expect(StatusCode::CREATED)
}

async fn thumbnail_of(app: &TestApp, person: &Person, media: &Value) -> Reply {
    app.get(&format!("{MEDIA}/{}/thumbnail?size=128", media["id"].as_str().expect("id"))).by(person).send().await
}

#[tokio::test]
async fn a_bomb_goes_off_in_its_own_call() {
    let app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let picture = kept(&app, &bala, "image/png", &real_png()).await;
    let zeros = zeros_deflated(BOMB_BYTES);
    assert!(zeros.len() < 1_300_000, "{} bytes", zeros.len());
    let small = zeros_deflated(8 * (1 + 3 * 8) - 1);

    // Of a picture, of its colours' profile, and a picture as large as one may be.
    let profile = checked_chunk(b"iCCP", &[&b"a\0\0"[..], &zeros].concat());
    let bombs = [png_of(8, b"", &zeros), png_of(8, &profile, &small), png_of(4_800, b"", &zeros_deflated(4_800 * (1 + 3 * 4_800) - 1))];
    for (at, bomb) in bombs.iter().enumerate() {
        let bomb = kept(&app, &ada, "image/png", bomb).await;
        let (reply, seen, said) = tokio::join!(
            thumbnail_of(&app, &ada, &bomb),
            thumbnail_of(&app, &bala, &picture),
            app.text(&ada, &talk, &format!("{at}"), "meanwhile").send()
        );
        assert!(matches!(reply.status.as_u16(), 200 | 422), "{at}: {} {}", reply.status, reply.body);
        seen.expect(StatusCode::OK);
        said.expect(StatusCode::CREATED);
    }

    // An archive is never opened.
    let archive = [b"PK\x03\x04\x14\0\0\0\x08\0".as_slice(), &zeros].concat();
    let archive_media = kept(&app, &ada, "application/zip", &archive).await;
    assert_eq!(archive_media["size"], archive.len());
    let (_, headers, bytes) = bytes_of(&app, Some(&ada), &content(&archive_media)).await;
    assert!(bytes == archive, "{} bytes came back", bytes.len());
    assert!(headers["content-disposition"].to_str().expect("text").starts_with("attachment"));
    assert!(!app.log().contains("panicked"), "{}", app.log());
}

/// Whoever asks for it: it is read three times, and then no more.
#[tokio::test]
async fn a_picture_that_cannot_be_decoded_is_not_decoded_for_ever() {
    let app = TestApp::start().await;
    let ada = app.someone().await;
    // Its pixels are no deflated ones.
    let broken = kept(&app, &ada, "image/png", &png_of(8, b"", b"x")).await;
    for _ in 0..3 {
        thumbnail_of(&app, &ada, &broken).await.expect_problem(422, "no_thumbnail");
    }
    let reply = thumbnail_of(&app, &ada, &broken).await;
    assert!(reply.headers.contains_key("retry-after"));
    reply.expect_problem(503, "unavailable");
    let picture = kept(&app, &ada, "image/png", &real_png()).await;
    for _ in 0..5 {
        thumbnail_of(&app, &ada, &picture).await.expect(StatusCode::OK);
    }
}

/// As a group does to which a picture was sent.
#[tokio::test]
async fn people_who_open_a_picture_at_once_get_its_thumbnail() {
    let app = TestApp::start().await;
    let ada = app.someone().await;
    for _ in 0..5 {
        let picture = kept(&app, &ada, "image/png", &real_png()).await;
        let opened = async |_| {
            until("the thumbnail is there", async || {
                let reply = thumbnail_of(&app, &ada, &picture).await;
                match reply.status.as_u16() {
                    200 => Some(()),
                    503 => None,
                    _ => panic!("{} {}", reply.status, reply.body),
                }
            })
            .await;
        };
        join_all((0..12).map(opened)).await;
    }
}

#[tokio::test]
async fn what_is_cut_off_or_two_things_at_once_is_refused_or_one_picture() {
    let app = TestApp::start().await;
    let ada = app.someone().await;
    let whole = real_png();
    let media = kept(&app, &ada, "image/png", &whole).await;
    let path = format!("{MEDIA}/{}/thumbnail", media["id"].as_str().expect("id"));
    let jpeg = bytes_of(&app, Some(&ada), &path).await.2;
    assert!(jpeg.starts_with(b"\xff\xd8") && jpeg.ends_with(b"\xff\xd9"));

    for picture in [&whole, &jpeg] {
        for length in [9, 20, picture.len() / 3, picture.len() - 1] {
            form(&app, &ada, "a", "image/png", &picture[..length]).send().await.expect_problem(422, "unreadable_image");
        }
        // Cut off in the middle, and ended as if it were whole.
        let end: &[u8] = if picture == &jpeg { b"\xff\xd9" } else { &whole[whole.len() - 12..] };
        let patched = [&picture[..picture.len() * 2 / 3], end].concat();
        let reply = form(&app, &ada, "a", "image/png", &patched).send().await;
        if reply.status == StatusCode::CREATED {
            let reply = thumbnail_of(&app, &ada, &reply.body).await;
            assert!(matches!(reply.status.as_u16(), 200 | 422), "{} {}", reply.status, reply.body);
        } else {
            reply.expect_problem(422, "unreadable_image");
        }
        // An archive or a page behind it, as archives are read from their end.
        for behind in [&b"PK\x03\x04 and so on, PK\x05\x06"[..], b"<script>alert(1)</script>"] {
            let media = kept(&app, &ada, "text/html", &[&picture[..], behind].concat()).await;
            assert!(bytes_of(&app, Some(&ada), &content(&media)).await.2 == *picture);
        }
    }
    // A page in a comment.
    let comment = b"<script>alert(1)</script>";
    let hidden = [&jpeg[..2], b"\xff\xfe", &(comment.len() as u16 + 2).to_be_bytes(), comment, &jpeg[2..]].concat();
    let media = kept(&app, &ada, "text/html", &hidden).await;
    assert!(bytes_of(&app, Some(&ada), &content(&media)).await.2 == jpeg);
    // Whatever is said of it, a file is what its bytes say.
    for (declared, bytes, kind, content_type) in [
        ("image/png", &b"\x1a\x45\xdf\xa3 and no more"[..], "video", "video/webm"),
        ("image/svg+xml", b"<?xml version='1.0'?><svg onload='alert(1)'/>", "document", "application/octet-stream"),
        ("image/jpeg", b"GIF89a;", "document", "application/octet-stream"),
        ("video/mp4", b"%PDF-1.7", "document", "application/pdf"),
        ("text/html", b"\0\0\0\x18ftypisom", "video", "video/mp4"),
    ] {
        let media = kept(&app, &ada, declared, bytes).await;
        assert_eq!((&media["kind"], &media["content_type"]), (&json!(kind), &json!(content_type)), "{declared}");
        thumbnail_of(&app, &ada, &media).await.expect_problem(422, "no_thumbnail");
    }
    assert!(!app.log().contains("panicked"), "{}", app.log());
}

/// A thousand at once, of four people, each of whom may have 150 of 250.
#[tokio::test]
async fn a_thousand_uploads_at_once_are_answered_and_no_share_is_overdrawn() {
    const FILE: [u8; 100] = [b'x'; 100];
    let app = TestApp::with(&ALL, &[("ECHO_SERVICES__MEDIA__QUOTA_BYTES", "15000")]).await;
    let ((ada, bala), (chen, dana)) = (app.two().await, app.two().await);
    let people = [ada, bala, chen, dana];
    let upload = async |person: &Person| {
        let until = Instant::now() + 10 * PATIENCE;
        loop {
            let reply = form(&app, person, "a.txt", "text/plain", &FILE).send().await;
            match reply.status.as_u16() {
                201 => return true,
                413 => {
                    reply.expect_problem(413, "quota_exceeded");
                    return false;
                }
                // Too many at once: it says when to come back.
                429 | 503 => assert!(reply.headers.contains_key("retry-after") && Instant::now() < until, "{}", reply.body),
                _ => panic!("{} {}", reply.status, reply.body),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let taken = join_all((0..1_000).map(|at| upload(&people[at % 4]))).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 600);
    for person in &people {
        let usage = app.request(Method::GET, &format!("{MEDIA}/usage")).by(person).send().await.expect(StatusCode::OK);
        assert_eq!((&usage["files"], &usage["used"]), (&json!(150), &json!(15_000)));
    }
    // A share that is used up takes no bytes of the disk by what is refused.
    form(&app, &people[0], "a.png", "image/png", &png(7, b"")).send().await.expect_problem(413, "quota_exceeded");
    assert!(!app.log().contains("panicked"), "{}", app.log());
}
