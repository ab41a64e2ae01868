//! The access matrix: every route and every frame, asked by everybody there is, against the table in `access.txt`. The routes are those that the host
//! itself describes, and its own, so that a new one without a request here, or without its row there, fails. Each row has the route's rate too.
//!
//! A changed table is written beside the old one as `target/access.txt`, to be looked at and taken over.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ALL, Ask, Person, Reply, TestApp, in_seconds, until};
use crate::{exports, media};

const ADMIN: &str = "+14155552671";
const ROLES: (&str, &str) = ("ECHO_SERVICES__AUTH__ROLES", "+14155552671=admin");
const NOBODY_ID: &str = "01890000-0000-7000-8000-000000000000";
const TABLE: &str = include_str!("access.txt");

/// By which development mode multiplies every rate.
const RATE_SCALE: u64 = 1_000;

/// What the document does not describe, or what a route does besides: the host's own paths for people, and other forms of requests.
const BESIDES: [&str; 8] = [
    "DELETE /api/v1/messages/{id}?for=me",
    "GET /",
    "GET /asyncapi.json",
    "GET /dev/outbox",
    "GET /docs",
    "GET /metrics",
    "GET /openapi.json",
    "HEAD /api/v1/media/{id}",
];

/// Who asks. All but the first are signed in. The group's owner blocks the one who is blocked; the operator's role is in its token alone.
const WHO: [&str; 8] = ["nobody", "stranger", "blocked", "left", "member", "admin", "owner", "operator"];

struct Everybody {
    /// By `WHO`, without the first.
    people: Vec<Person>,
    /// Somebody else, who asks nothing: in the owner's address book and blocked by the owner.
    other: Person,
}

impl Everybody {
    fn named(&self, who: &str) -> Option<&Person> {
        WHO.iter().position(|name| *name == who)?.checked_sub(1).map(|at| &self.people[at])
    }

    fn owner(&self) -> &Person {
        self.named("owner").expect("there")
    }

    fn member(&self) -> &Person {
        self.named("member").expect("there")
    }
}

/// A group that nobody has used yet, with something of everything in it. All of it is the owner's.
struct Scene {
    group: String,
    message: String,
    poll: String,
    invite: String,
}

async fn everybody(app: &TestApp) -> Everybody {
    let mut people = Vec::new();
    for who in &WHO[1..] {
        people.push(match *who {
            "operator" => app.sign_up(ADMIN, "desk").await,
            _ => app.someone().await,
        });
    }
    let all = Everybody { people, other: app.someone().await };
    let path = format!("/api/v1/users/blocked/{}", all.named("blocked").expect("there").id);
    assert!(app.request(Method::PUT, &path).by(all.owner()).send().await.status.is_success());
    all
}

/// What of the owner's own the route names, as it was before somebody asked.
async fn owned(app: &TestApp, all: &Everybody, scene: &Scene, route: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let owner = all.owner();
    let (_, path) = route.split_once(' ').expect("a method and a path");
    let id_of = |made: Value| made["id"].as_str().expect("id").to_owned();
    if path.starts_with("/api/v1/messages/scheduled/") {
        let group = &scene.group;
        let later = json!({ "conversation_id": group, "client_message_id": format!("later {number}"), "type": "text", "content": "Later", "send_at": in_seconds(3_600) });
        return id_of(app.post("/api/v1/messages/scheduled", later).by(owner).send().await.expect(StatusCode::CREATED));
    }
    if route.starts_with("GET ") && path.ends_with("/export") {
        // The first time counts: later ones are too soon.
        app.request(Method::POST, "/api/v1/auth/account/export").by(owner).send().await;
        exports::prepared(app, owner, &["analytics", "media", "message", "notification", "user"]).await;
    }
    if path.ends_with("/draft") {
        let draft = format!("/api/v1/messages/conversations/{}/draft", scene.group);
        app.put(&draft, json!({ "content": "Well" })).by(owner).send().await.expect(StatusCode::OK);
    }
    if path.starts_with("/api/v1/auth/sessions/") {
        return app.log_in(owner, &format!("device {number}")).await.session_id;
    }
    if route == "PATCH /api/v1/media/{id}" || route == "HEAD /api/v1/media/{id}" {
        let begun = tus(app.request(Method::POST, "/api/v1/media")).header("upload-length", "9").by(owner).send().await;
        let place = begun.header("location").rsplit('/').next().expect("an id").to_owned();
        begun.expect(StatusCode::CREATED);
        return place;
    }
    if path.starts_with("/api/v1/media/{id}") {
        let sent = media::form(app, owner, "cat.png", "image/png", &media::real_png()).send().await;
        let media = id_of(sent.expect(StatusCode::CREATED));
        // One that is in a message goes with it alone.
        if route.starts_with("DELETE") {
            return media;
        }
        let shown =
            json!({ "conversation_id": scene.group, "client_message_id": format!("picture {number}"), "type": "image", "media_id": media });
        app.post("/api/v1/messages", shown).by(owner).send().await.expect(StatusCode::CREATED);
        return media;
    }
    if path == "/api/v1/notifications/read" {
        let member = all.member();
        let text = json!({ "conversation_id": scene.group, "client_message_id": format!("mention {number}"), "type": "text", "content": "You", "mentions": [owner.id] });
        let message = id_of(app.post("/api/v1/messages", text).by(member).send().await.expect(StatusCode::CREATED));
        return until("the owner's notification", async || {
            let list = app.get("/api/v1/notifications").by(owner).send().await.expect(StatusCode::OK);
            list["items"].as_array()?.iter().find(|item| item["message_id"] == *message).map(|item| id_of(item.clone()))
        })
        .await;
    }
    if path.starts_with("/api/v1/notifications/trace/") {
        let trace = format!("/api/v1/notifications/trace/{}", scene.message);
        until("the message's trace", async || app.get(&trace).by(owner).send().await.status.is_success().then_some(())).await;
        return scene.message.clone();
    }
    if path.ends_with("/{user_id}") && (path.contains("/contacts/") || path.contains("/blocked/")) {
        let other = &all.other.id;
        let made = [
            app.post("/api/v1/users/contacts", json!({ "user_id": other })).by(owner).send().await,
            app.request(Method::PUT, &format!("/api/v1/users/blocked/{other}")).by(owner).send().await,
        ];
        assert!(made.iter().all(|reply| reply.status.is_success()), "{made:?}");
    }
    NOBODY_ID.to_owned()
}

fn tus(ask: Ask) -> Ask {
    ask.header("tus-resumable", "1.0.0")
}

async fn scene(app: &TestApp, all: &Everybody) -> Scene {
    let owner = all.owner();
    let [member, admin, left] = ["member", "admin", "left"].map(|who| all.named(who).expect("there"));
    let group = app.group(owner, &[member, admin, left]).await;
    let of_group = |rest: &str| format!("/api/v1/messages/conversations/{group}{rest}");
    let promoted = app.patch(&of_group(&format!("/participants/{}", admin.id)), json!({ "role": "admin" })).by(owner).send().await;
    assert!(promoted.status.is_success(), "{promoted:?}");
    let gone = app.delete(&of_group(&format!("/participants/{}", left.id))).by(left).send().await;
    assert!(gone.status.is_success(), "{gone:?}");
    let invite = app.post(&of_group("/invites"), json!({})).by(owner).send().await;
    assert!(invite.status.is_success(), "{invite:?}");
    let message = app.say(owner, &group, "Hello").await;
    let options = json!({ "question": "When?", "options": ["today", "tomorrow"], "multiple": false });
    let poll = json!({ "conversation_id": group, "client_message_id": format!("poll of {group}"), "type": "poll", "poll": options });
    let poll = app.post("/api/v1/messages", poll).by(owner).send().await;
    assert!(poll.status.is_success(), "{poll:?}");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    Scene { message: text(&message["id"]), poll: text(&poll["id"]), invite: text(&invite["code"]), group }
}

/// What is asked: the path with its variables, and a body. None: this test does not know the route.
fn request(route: &str, scene: &Scene, owned: &str, all: &Everybody, key: &str) -> Option<(String, Option<Value>)> {
    let (_, path) = route.split_once(' ')?;
    let (group, message) = (scene.group.as_str(), scene.message.as_str());
    let text = json!({ "conversation_id": group, "client_message_id": key, "type": "text", "content": "Hello" });
    let body = match route {
        // Of these nothing but the access is asked: an empty request is not valid.
        "POST /api/v1/auth/register"
        | "POST /api/v1/auth/verify-otp"
        | "POST /api/v1/auth/resend-otp"
        | "POST /api/v1/auth/login"
        | "POST /api/v1/auth/refresh"
        | "POST /api/v1/auth/password/forgot"
        | "POST /api/v1/auth/password/reset"
        | "POST /api/v1/auth/password/change"
        | "POST /api/v1/auth/totp"
        | "POST /api/v1/auth/totp/confirm"
        | "POST /api/v1/auth/oauth/{provider}"
        | "DELETE /api/v1/auth/totp" => Some(json!({})),
        "POST /api/v1/analytics/events" | "POST /api/v1/users/batch" | "POST /api/v1/users/contacts/match" => Some(json!({})),
        "POST /api/v1/messages" => Some(text),
        "POST /api/v1/messages/scheduled" => {
            let mut scheduled = text;
            scheduled["send_at"] = json!(in_seconds(3_600));
            Some(scheduled)
        }
        "PATCH /api/v1/messages/scheduled/{id}" => Some(json!({ "content": "Later" })),
        "POST /api/v1/messages/read" | "POST /api/v1/messages/delivered" => Some(json!({ "conversation_id": group, "up_to_seq": 1 })),
        "POST /api/v1/messages/typing" => Some(json!({ "conversation_id": group, "is_typing": true })),
        "PATCH /api/v1/messages/{id}" => Some(json!({ "content": "Hello again" })),
        "PUT /api/v1/messages/{id}/vote" => Some(json!({ "options": [0] })),
        "POST /api/v1/messages/conversations" => Some(json!({ "type": "direct", "participant_ids": [all.owner().id] })),
        "PATCH /api/v1/messages/conversations/{id}" => Some(json!({ "title": "Another title" })),
        "POST /api/v1/messages/conversations/{id}/participants" => Some(json!({ "user_ids": [all.named("stranger")?.id] })),
        "PATCH /api/v1/messages/conversations/{id}/participants/{user_id}" => Some(json!({ "role": "admin" })),
        "PUT /api/v1/messages/conversations/{id}/settings" => Some(json!({ "archived": true })),
        "POST /api/v1/messages/conversations/{id}/invites" => Some(json!({})),
        "PUT /api/v1/messages/conversations/{id}/draft" => Some(json!({ "content": "Well" })),
        "PUT /api/v1/messages/conversations/{id}/unread" => Some(json!({ "unread": true })),
        "POST /api/v1/notifications/devices" | "DELETE /api/v1/notifications/devices" => Some(json!({})),
        "PUT /api/v1/notifications/preferences" => Some(json!({ "messages": "all", "previews": true })),
        "POST /api/v1/notifications/read" => Some(json!({ "up_to": owned })),
        "PUT /api/v1/presence" => Some(json!({ "status": "online" })),
        "PATCH /api/v1/users/me" => Some(json!({ "bio": "" })),
        "PUT /api/v1/users/me/privacy" => Some(json!({})),
        "POST /api/v1/users/contacts" => Some(json!({ "user_id": all.member().id })),
        "PATCH /api/v1/users/contacts/{user_id}" => Some(json!({ "alias": "M" })),
        "POST /api/v1/users/reports" => Some(json!({ "message_id": message, "reason": "spam" })),
        _ if route.starts_with("POST ") && !BODILESS.contains(&route) => return None,
        _ => None,
    };
    let id = match path {
        "/api/v1/messages/scheduled/{id}" => owned,
        path if path.starts_with("/api/v1/messages/conversations/{id}") => group,
        "/api/v1/messages/{id}/vote" | "/api/v1/messages/{id}/close" => &scene.poll,
        path if path.starts_with("/api/v1/messages/{id}") => message,
        "/api/v1/users/{id}" => &all.owner().id,
        _ => owned,
    };
    let user = if path.contains("/participants/") { &all.member().id } else { &all.other.id };
    let query = match route {
        "GET /api/v1/messages" => format!("?conversation_id={group}"),
        "GET /api/v1/messages/search" => format!("?q=hello&conversation_id={group}"),
        "GET /api/v1/users/search" => "?q=person".to_owned(),
        "GET /api/v1/presence" => format!("?user_ids={}", all.owner().id),
        "GET /api/v1/location/lookup" => "?phone=%2B14155552671".to_owned(),
        "DELETE /api/v1/messages/{id}" => "?for=everyone".to_owned(),
        "GET /api/v1/media/{id}/thumbnail" => "?size=64".to_owned(),
        "GET /api/v1/sync" => "?since=0".to_owned(),
        "DELETE /api/v1/auth/oauth" => "?provider=google".to_owned(),
        "GET /api/v1/analytics/timeseries" | "GET /api/v1/analytics/top" => "?metric=messages".to_owned(),
        _ => String::new(),
    };
    let path = path.replace("{id}", id).replace("{user_id}", user).replace("{message_id}", owned).replace("{emoji}", "%F0%9F%91%8D");
    let path = path.replace("{code}", &scene.invite).replace("{provider}", "google");
    // Whatever another route brings along is in this test's way.
    (!path.contains('{')).then_some((path + &query, body))
}

/// What ends the session of whoever calls it, or what changes what they get at other routes, and has nothing to do with who that is: each call is by
/// somebody new.
const BY_SOMEBODY_NEW: [&str; 4] =
    ["POST /api/v1/auth/logout", "POST /api/v1/auth/logout-all", "DELETE /api/v1/auth/account", "POST /api/v1/auth/account/export"];

/// POSTs without a body, or whose body is no JSON (`with_body`).
const BODILESS: [&str; 9] = [
    "POST /api/v1/auth/account/export",
    "POST /api/v1/auth/logout",
    "POST /api/v1/auth/logout-all",
    "POST /api/v1/auth/ws-ticket",
    "POST /api/v1/media",
    "POST /api/v1/media/upload",
    "POST /api/v1/messages/join/{code}",
    "POST /api/v1/messages/{id}/close",
    "POST /api/v1/presence/heartbeat",
];

/// What is no JSON, and headers.
fn with_body(ask: Ask, route: &str, body: Option<Value>) -> Ask {
    match (route, body) {
        (_, Some(body)) => ask.json(body),
        ("POST /api/v1/media", None) => tus(ask).header("upload-length", "9"),
        ("PATCH /api/v1/media/{id}", None) => {
            tus(ask).header("content-type", "application/offset+octet-stream").header("upload-offset", "0").bytes("some text")
        }
        ("HEAD /api/v1/media/{id}", None) => tus(ask),
        ("POST /api/v1/media/upload", None) => media::with_form(ask, "note.txt", "text/plain", b"some text"),
        (_, None) => ask,
    }
}

/// What the answer says of the route's rate: per whom, how many, in how many seconds; as the manifest writes it.
fn rate_of(answer: &Reply) -> String {
    let policy = answer.headers.get("ratelimit-policy").and_then(|policy| policy.to_str().ok()).unwrap_or_default();
    let part = |name: &str| policy.split(';').find_map(|part| part.strip_prefix(name)).and_then(|number| number.parse::<u64>().ok());
    match (policy.split('"').nth(1), part("q="), part("w=")) {
        (Some(per), Some(count), Some(seconds)) => format!("{}/{seconds}s {per}", count / RATE_SCALE),
        _ => "none".to_owned(),
    }
}

/// Frames with what they hold.
fn frames(scene: &Scene, key: &str) -> BTreeMap<&'static str, Value> {
    let group = &scene.group;
    BTreeMap::from([
        ("message", json!({ "conversation_id": group, "client_message_id": key, "type": "text", "content": "Hello" })),
        ("presence", json!({ "status": "online" })),
        ("read_receipt", json!({ "conversation_id": group, "up_to_seq": 1 })),
        ("typing", json!({ "conversation_id": group, "is_typing": true })),
    ])
}

/// The hub's own frames, which name nothing that could be somebody else's.
const OF_THE_HUB: [&str; 3] = ["ack", "auth", "ping"];

fn row(table: &mut String, name: &str, rate: &str, cells: &[String]) {
    write!(table, "{name:<68} {rate:<14}").expect("a string takes all");
    cells.iter().for_each(|cell| write!(table, " {cell:>8}").expect("a string takes all"));
    table.push('\n');
}

#[tokio::test]
async fn everybody_gets_at_every_route_and_frame_what_the_table_says() {
    let app = TestApp::with(&ALL, &[ROLES]).await;
    let all = everybody(&app).await;
    let mut table = String::from(
        "What everybody gets at every route and frame: the status, and `ok` or the problem's status for a frame. Made by `host/tests/e2e/access.rs`, which also says\n\
         what is asked. The group is the owner's, and so are message, poll and invitation; the one who left took part before; the owner blocks the one who is\n\
         blocked; the operator's role is `admin`. What a route names besides (a session, a file, a scheduled message, somebody in the address book) is the\n\
         owner's own. 422 is a request that was let in and is not valid; 429 would be one too many. The rate is that of `plugin.toml`.\n\n",
    );
    row(&mut table, "", "rate", &WHO.map(str::to_owned));
    let document = app.get("/openapi.json").send().await.body;
    let described = document["paths"].as_object().expect("paths").iter().flat_map(|(path, operations)| {
        operations.as_object().expect("operations").keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    let mut unknown = Vec::new();
    let mut number = 0;
    for route in described.chain(BESIDES.map(str::to_owned)) {
        let method: Method = route.split(' ').next().and_then(|method| method.parse().ok()).expect("a method");
        let changes = !method.is_safe();
        let mut shared = None;
        let mut cells = Vec::new();
        let mut rate = String::new();
        for who in WHO {
            number += 1;
            // What changes something finds everything as it was.
            if changes || shared.is_none() {
                let scene = scene(&app, &all).await;
                let owned = owned(&app, &all, &scene, &route).await;
                shared = Some((scene, owned));
            }
            let (scene, owned) = shared.as_ref().expect("made above");
            let Some((path, body)) = request(&route, scene, owned, &all, &format!("{number}")) else {
                unknown.push(route.clone());
                break;
            };
            let ask = with_body(app.request(method.clone(), &path), &route, body);
            let ask = match all.named(who) {
                // It would count for all that follows.
                Some(_) if BY_SOMEBODY_NEW.contains(&route.as_str()) => ask.by(&app.someone().await),
                Some(person) => ask.by(person),
                None => ask,
            };
            let answer = ask.send().await;
            rate = rate_of(&answer);
            cells.push(answer.status.as_u16().to_string());
        }
        row(&mut table, &route, &rate, &cells);
    }
    assert!(unknown.is_empty(), "this test asks nothing of {unknown:?}: say in `request` what is to be sent");
    let described = app.get("/asyncapi.json").send().await.body;
    let messages = described["components"]["messages"].as_object().expect("messages");
    let theirs = messages.iter().filter(|(name, _)| name.starts_with("client_")).filter_map(|(_, message)| message["name"].as_str());
    let mut names: Vec<&str> = theirs.filter(|name| !OF_THE_HUB.contains(name)).collect();
    names.sort_unstable();
    let first = scene(&app, &all).await;
    assert_eq!(names, frames(&first, "").into_keys().collect::<Vec<_>>(), "a frame that this test does not know");
    for name in names {
        let scene = scene(&app, &all).await;
        let mut cells = vec!["401".to_owned()];
        for (at, person) in all.people.iter().enumerate() {
            let mut socket = app.socket(person, None).await;
            let answer = socket.ask(name, frames(&scene, &format!("frame {at}"))[name].clone()).await;
            cells.push(if answer["type"] == "reply" { "ok".to_owned() } else { answer["payload"]["status"].to_string() });
        }
        row(&mut table, &format!("frame {name}"), "its route's", &cells);
    }
    assert!(app.open_socket("", &[]).await.is_err(), "a socket without an identity");
    if table != TABLE {
        let folder =
            std::path::Path::new(env!("CARGO_BIN_EXE_echod")).parent().and_then(std::path::Path::parent).expect("the target folder");
        std::fs::write(folder.join("access.txt"), &table).expect("writes");
    }
    let changed: Vec<&str> = table.lines().filter(|line| !TABLE.lines().any(|old| old == *line)).collect();
    let gone: Vec<&str> = TABLE.lines().filter(|line| !table.lines().any(|new| new == *line)).collect();
    assert!(
        changed.is_empty() && gone.is_empty(),
        "now:\n{}\nin the table:\n{}\nSee target/access.txt.",
        changed.join("\n"),
        gone.join("\n")
    );
}
