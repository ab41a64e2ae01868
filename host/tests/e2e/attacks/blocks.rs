//! A block holds and does not show: what a blocked person sees is what somebody sees whom the other's privacy keeps out and who is away; and
//! nothing that the blocked person does reaches the one who blocks them.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Ask, Person, Socket, TestApp, until};

const CONVERSATIONS: &str = "/api/v1/messages/conversations";
const MARKER: &str = "the end";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    /// Is there, and keeps nothing back.
    Open,
    /// Is away, and shows nobody anything.
    Private,
    /// Is there, keeps nothing back from others, and blocks.
    Blocking,
}

/// One of each story: the one who tries, the other, and a friend of both.
struct People {
    ada: Person,
    them: Person,
    carl: Person,
}

#[tokio::test]
async fn a_block_looks_like_privacy_and_absence_on_every_surface() {
    let settings = [("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "1")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let open = story(&app, Stance::Open).await;
    let private = story(&app, Stance::Private).await;
    let blocking = story(&app, Stance::Blocking).await;

    for (surface, seen) in &blocking {
        assert_eq!(seen, &private[surface], "{surface}: a block shows");
    }
    // Where the two are the same because nobody sees anything, the comparison would prove nothing.
    for surface in [
        "profile",
        "profiles",
        "search by number",
        "matched numbers",
        "contact by number",
        "a new group",
        "added",
        "added after leaving",
        "status of an old message",
        "an old message",
        "status of an old message in a group",
        "participants",
        "frames",
    ] {
        assert_ne!(blocking[surface], open[surface], "{surface}: no difference to somebody who keeps nothing back");
    }
    let kept_out = json!([{ "user_id": "them", "reason": "privacy" }]);
    for surface in ["a new group", "added", "added after leaving"] {
        assert_eq!(blocking[surface]["not_added"], kept_out, "{surface}");
        assert_eq!(open[surface]["not_added"], json!([]), "{surface}");
    }
}

/// What Ada sees of the other on each surface, with names in place of ids.
async fn story(app: &TestApp, stance: Stance) -> BTreeMap<&'static str, Value> {
    let people = People { ada: app.someone().await, them: app.someone().await, carl: app.someone().await };
    let People { ada, them, carl } = &people;
    let call = async |ask: Ask| ask.send().await.body;
    app.patch("/api/v1/users/me", json!({ "display_name": "Somebody", "bio": "Numbers" })).by(them).send().await.expect(StatusCode::OK);
    let device = json!({ "token": format!("token-of-{}", them.id), "provider": "fcm" });
    app.post("/api/v1/notifications/devices", device).by(them).send().await.expect(StatusCode::CREATED);
    let talk = app.conversation(ada, them).await;
    let (to_ada, to_them) = (app.conversation(carl, ada).await, app.conversation(carl, them).await);
    let group = app.group(ada, &[them, carl]).await;
    let left = app.group(ada, &[them, carl]).await;
    let probes = app.group(ada, &[them, carl]).await;
    let promote = json!({ "role": "admin" });
    let role = app.patch(&format!("{CONVERSATIONS}/{group}/participants/{}", carl.id), promote).by(ada);
    role.send().await.expect(StatusCode::OK);
    let leave = format!("{CONVERSATIONS}/{left}/participants/{}", them.id);
    app.delete(&leave).by(them).send().await.expect(StatusCode::NO_CONTENT);

    // Before: one message is delivered, one in each conversation is on its way.
    let mut of_ada = app.socket(ada, None).await;
    let first = app.say(ada, &talk, "one").await;
    let delivered = json!({ "conversation_id": talk, "up_to_seq": 1 });
    app.post("/api/v1/messages/delivered", delivered).by(them).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(of_ada.next_of("message_status").await["payload"]["status"], "delivered");
    let old = app.say(ada, &talk, "two").await;
    let old_in_group = app.say(ada, &group, "to the group").await;
    let from_carl = app.say(carl, &group, "from Carl").await;
    take(app, stance, &people, &probes).await;
    let new = app.say(ada, &talk, "three").await;

    let scene = Scene { people: &people, talk: &talk, group: &group, to_them: &to_them, first: &first, old: &old, new: &new };

    // Who is there reads and writes; who is away does not.
    if stance != Stance::Private {
        let mut of_them = app.socket(them, Some(0)).await;
        while of_them.next().await["type"] != "caught_up" {}
        let all = json!({ "seq": of_them.cursor() });
        of_them.call("ack", all).await;
        until("what was acknowledged counts", async || {
            let statuses = app.get(&format!("{}/status", path_of(&from_carl))).by(carl).send().await.expect(StatusCode::OK);
            let items = statuses["items"].as_array().expect("items").clone();
            items.iter().any(|item| item["user_id"] == them.id.as_str() && item["status"] == "delivered").then_some(())
        })
        .await;
        for (conversation, seq) in [(&talk, 3), (&group, 2)] {
            of_them.call("typing", json!({ "conversation_id": conversation, "is_typing": true })).await;
            of_them.call("read_receipt", json!({ "conversation_id": conversation, "up_to_seq": seq })).await;
        }
        scene.tries(app).await;
        scene.reaches(app, stance, &mut of_them).await;
    } else {
        scene.tries(app).await;
        scene.carl_gives_a_title(app).await;
    }

    let mut seen = BTreeMap::new();
    let number = them.phone.replace('+', "%2B");
    let trace = format!("/api/v1/notifications/trace/{}", new["id"].as_str().expect("id"));
    until("it is decided on a push", async || {
        let trace = app.get(&trace).by(ada).send().await;
        (trace.status == StatusCode::OK && trace["items"][0]["decision"] != "waiting").then_some(())
    })
    .await;
    let group_of = json!({ "type": "group", "title": "Another", "participant_ids": [them.id, carl.id] });
    let direct = json!({ "type": "direct", "participant_ids": [them.id] });
    let add = json!({ "user_ids": [them.id] });
    let another = app.group(ada, &[carl]).await;
    for (surface, ask) in [
        ("profile", app.get(&format!("/api/v1/users/{}", them.id))),
        ("profiles", app.post("/api/v1/users/batch", json!({ "ids": [them.id] }))),
        ("search by number", app.get(&format!("/api/v1/users/search?q={number}"))),
        ("matched numbers", app.post("/api/v1/users/contacts/match", json!({ "phones": [them.phone] }))),
        ("contact by number", app.post("/api/v1/users/contacts", json!({ "phone": them.phone }))),
        ("a direct conversation again", app.post(CONVERSATIONS, direct)),
        ("a new group", app.post(CONVERSATIONS, group_of)),
        ("added", app.post(&format!("{CONVERSATIONS}/{another}/participants"), add.clone())),
        ("added after leaving", app.post(&format!("{CONVERSATIONS}/{left}/participants"), add.clone())),
        ("added though a member", app.post(&format!("{CONVERSATIONS}/{probes}/participants"), add)),
        ("status of an old message", app.get(&format!("{}/status", path_of(&old)))),
        ("status of an old message in a group", app.get(&format!("{}/status", path_of(&old_in_group)))),
        ("status of a new message", app.get(&format!("{}/status", path_of(&new)))),
        ("an old message", app.get(&path_of(&old))),
        ("a new message", app.get(&path_of(&new))),
        ("messages", app.get(&format!("/api/v1/messages?conversation_id={talk}"))),
        ("edits", app.get(&format!("{}/edits", path_of(&old)))),
        ("conversation", app.get(&format!("{CONVERSATIONS}/{group}"))),
        ("participants", app.get(&format!("{CONVERSATIONS}/{group}/participants"))),
        ("participants of a direct conversation", app.get(&format!("{CONVERSATIONS}/{talk}/participants"))),
        ("trace", app.get(&trace)),
        ("a role", app.patch(&format!("{CONVERSATIONS}/{group}/participants/{}", them.id), json!({ "role": "admin" }))),
        ("another title", app.patch(&format!("{CONVERSATIONS}/{group}"), json!({ "title": "Once more" }))),
        ("typing", app.post("/api/v1/messages/typing", json!({ "conversation_id": talk, "is_typing": true }))),
    ] {
        seen.insert(surface, named(call(ask.by(ada)).await, &people));
    }

    app.say(carl, &to_ada, MARKER).await;
    let mut frames = Vec::new();
    loop {
        let mut frame = of_ada.next().await;
        if frame["payload"]["content"] == MARKER {
            break;
        }
        // An edit that is sent after the next one was made says what the message is now.
        if frame["type"] == "message_edited" {
            frame["payload"]["content"] = json!("edited");
        }
        // When a conversation is told of depends on how many changes come together, and the probes are of one story alone.
        if frame["type"] != "conversation" && frame["payload"]["conversation_id"] != probes.as_str() {
            frames.push(named(json!([frame["type"], frame["payload"]]), &people));
        }
    }
    seen.insert("frames", Value::Array(frames));

    if stance == Stance::Blocking {
        // After the block what arrived meanwhile is delivered; that it was read stays kept back until the next reading.
        app.delete(&format!("/api/v1/users/blocked/{}", ada.id)).by(them).send().await.expect(StatusCode::NO_CONTENT);
        until("the block is lifted", async || {
            let statuses = app.get(&format!("{}/status", path_of(&old))).by(ada).send().await.expect(StatusCode::OK);
            (statuses["items"][0]["status"] == "delivered").then_some(())
        })
        .await;
    }
    seen
}

/// Chooses, and waits until it counts.
async fn take(app: &TestApp, stance: Stance, people: &People, probes: &str) {
    let People { ada, them, .. } = people;
    let privacy = if stance == Stance::Private {
        json!({ "phone_visible": "nobody", "profile_visible": "nobody", "last_seen_visible": "nobody", "presence_visible": "nobody",
            "read_receipts": "nobody", "groups": "nobody" })
    } else {
        json!({ "phone_visible": "everyone" })
    };
    app.put("/api/v1/users/me/privacy", privacy).by(them).send().await.expect(StatusCode::OK);
    if stance == Stance::Blocking {
        app.put(&format!("/api/v1/users/blocked/{}", ada.id), json!({})).by(them).send().await.expect(StatusCode::NO_CONTENT);
        until("the block is in force", async || {
            let probe = app.say(ada, probes, "probe").await;
            (app.get(&path_of(&probe)).by(them).send().await.status == StatusCode::NOT_FOUND).then_some(())
        })
        .await;
    }
}

struct Scene<'a> {
    people: &'a People,
    talk: &'a str,
    group: &'a str,
    /// Carl's conversation with the other.
    to_them: &'a str,
    first: &'a Value,
    old: &'a Value,
    new: &'a Value,
}

impl Scene<'_> {
    async fn carl_gives_a_title(&self, app: &TestApp) {
        let title = json!({ "title": "Carl's title" });
        app.patch(&format!("{CONVERSATIONS}/{}", self.group), title).by(&self.people.carl).send().await.expect(StatusCode::OK);
    }

    /// What Ada does that would reach the other.
    async fn tries(&self, app: &TestApp) {
        let Scene { people: People { ada, .. }, talk, group, first, old, .. } = *self;
        app.patch(&path_of(old), json!({ "content": "two, edited" })).by(ada).send().await.expect(StatusCode::OK);
        app.patch(&path_of(old), json!({ "content": "two, edited again" })).by(ada).send().await.expect(StatusCode::OK);
        app.delete(&format!("{}?for=everyone", path_of(first))).by(ada).send().await.expect(StatusCode::NO_CONTENT);
        let typing = json!({ "conversation_id": talk, "is_typing": true });
        app.post("/api/v1/messages/typing", typing).by(ada).send().await.expect(StatusCode::NO_CONTENT);
        let title = json!({ "title": "Ada's title" });
        app.patch(&format!("{CONVERSATIONS}/{group}"), title).by(ada).send().await.expect(StatusCode::OK);
    }

    /// Whether it reaches the other: all of it, or nothing.
    async fn reaches(&self, app: &TestApp, stance: Stance, of_them: &mut Socket) {
        let Scene { people: People { ada, them, carl }, to_them, old, new, .. } = *self;
        let titles = async || {
            let feed = app.get("/api/v1/sync?limit=500").by(them).send().await.expect(StatusCode::OK);
            let items = feed["items"].as_array().expect("items").iter();
            items.filter(|event| event["type"] == "conversation").map(|event| event["payload"]["title"].clone()).collect::<Vec<_>>()
        };
        if stance == Stance::Open {
            until("the title arrives", async || titles().await.contains(&json!("Ada's title")).then_some(())).await;
        }
        self.carl_gives_a_title(app).await;
        until("another's title arrives", async || titles().await.contains(&json!("Carl's title")).then_some(())).await;
        assert_eq!(titles().await.contains(&json!("Ada's title")), stance == Stance::Open);

        app.say(carl, to_them, MARKER).await;
        let mut arrived = Vec::new();
        loop {
            let frame = of_them.next().await;
            if frame["payload"]["content"] == MARKER {
                break;
            }
            arrived.push(frame["type"].as_str().expect("a type").to_owned());
        }
        for kind in ["message_edited", "message_deleted", "typing"] {
            assert_eq!(arrived.iter().any(|arrived| arrived == kind), stance == Stance::Open, "{kind} in {arrived:?}");
        }
        // Nor is it found by asking: the old message is as it was, the new one is not there.
        let (content, edits, found) = match stance {
            Stance::Open => ("two, edited again", 2, StatusCode::OK),
            _ => ("two", 0, StatusCode::NOT_FOUND),
        };
        let old_one = app.get(&path_of(old)).by(them).send().await.expect(StatusCode::OK);
        assert_eq!((&old_one["content"], old_one["edited_at"].is_null()), (&json!(content), edits == 0), "{old_one}");
        let history = app.get(&format!("{}/edits", path_of(old))).by(them).send().await.expect(StatusCode::OK);
        assert_eq!(history["items"].as_array().map(Vec::len), Some(edits), "{history}");
        assert_eq!(app.get(&path_of(new)).by(them).send().await.status, found);
        let feed = app.get("/api/v1/sync?limit=500").by(them).send().await.expect(StatusCode::OK).to_string();
        for text in ["two, edited again", "three"] {
            assert_eq!(feed.contains(text), stance == Stance::Open, "{text} in {feed}");
        }
        assert!(!feed.contains("\"two\"") && !feed.contains("\"two, edited\""), "a former text is in no feed: {feed}");
        let trace = format!("/api/v1/notifications/trace/{}", new["id"].as_str().expect("id"));
        until("the message is known there", async || (app.get(&trace).by(ada).send().await.status == StatusCode::OK).then_some(())).await;
        assert_eq!(app.get(&trace).by(them).send().await.status, found);
    }
}

#[tokio::test]
async fn messages_of_a_blocked_person_move_nothing_on_the_list_of_who_blocks_them() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let friend = app.someone().await;
    let (talk, other) = (app.conversation(&ada, &bala).await, app.conversation(&friend, &bala).await);
    let listed = async || {
        let mut listed = Vec::new();
        let mut path = format!("{CONVERSATIONS}?limit=1");
        loop {
            let page = app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
            let one = &page["items"][0];
            listed.push((one["id"].as_str().expect("id").to_owned(), one["last_seq"].as_u64().expect("a seq")));
            let Some(cursor) = page["next_cursor"].as_str() else { return listed };
            path = format!("{CONVERSATIONS}?limit=1&cursor={cursor}");
        }
    };
    let block = format!("/api/v1/users/blocked/{}", ada.id);
    app.put(&block, json!({})).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    let mut seen_seq = 0;
    until("the block is in force", async || {
        let probe = app.say(&ada, &talk, "probe").await;
        let seen = app.get(&path_of(&probe)).by(&bala).send().await.status == StatusCode::OK;
        if seen {
            seen_seq = probe["seq"].as_u64().expect("a seq");
        }
        (!seen).then_some(())
    })
    .await;
    app.say(&friend, &other, "hello").await;
    let before = listed().await;
    assert_eq!(before, [(other.clone(), 1), (talk.clone(), seen_seq)]);
    for _ in 0..2 {
        app.say(&ada, &talk, "hidden").await;
    }
    assert_eq!(listed().await, before);
    let one = app.get(&format!("{CONVERSATIONS}/{talk}")).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!((&one["last_seq"], &one["unread_count"]), (&json!(seen_seq), &json!(seen_seq)));
    // What Bala says is news; what is kept back after it moves nothing again.
    let said = app.say(&bala, &talk, "an answer to nobody").await["seq"].as_u64().expect("a seq");
    app.say(&friend, &other, "hello again").await;
    app.say(&ada, &talk, "hidden").await;
    assert_eq!(listed().await, [(other.clone(), 2), (talk.clone(), said)]);

    app.delete(&block).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    until("the block is lifted", async || {
        let probe = app.say(&ada, &talk, "after").await;
        (app.get(&path_of(&probe)).by(&bala).send().await.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(listed().await[0].0, talk);
}

#[tokio::test]
async fn who_is_kept_out_of_groups_is_not_added_and_who_is_unknown_is_named() {
    let app = TestApp::shared().await;
    let (owner, friend) = app.two().await;
    let (choosy, closed) = app.two().await;
    for (person, audience) in [(&choosy, "contacts"), (&closed, "nobody")] {
        let privacy = app.put("/api/v1/users/me/privacy", json!({ "groups": audience })).by(person);
        assert_eq!(privacy.send().await.expect(StatusCode::OK)["groups"], audience);
    }
    let everybody = json!([friend.id, choosy.id, closed.id]);
    let request = json!({ "type": "group", "title": "G", "participant_ids": everybody });
    let group = app.post(CONVERSATIONS, request).by(&owner).send().await.expect(StatusCode::CREATED);
    let mut kept_out: Vec<&str> = group["not_added"].as_array().expect("a list").iter().filter_map(|one| one["user_id"].as_str()).collect();
    kept_out.sort_unstable();
    let mut expected = [choosy.id.as_str(), closed.id.as_str()];
    expected.sort_unstable();
    assert_eq!(kept_out, expected);
    assert_eq!(group["participant_count"], 2);

    // A contact of theirs may.
    app.post("/api/v1/users/contacts", json!({ "user_id": owner.id })).by(&choosy).send().await.expect(StatusCode::CREATED);
    let participants = format!("{CONVERSATIONS}/{}/participants", group["id"].as_str().expect("id"));
    let added = app.post(&participants, json!({ "user_ids": everybody })).by(&owner).send().await.expect(StatusCode::CREATED);
    assert_eq!(added["items"].as_array().map(Vec::len), Some(2), "{added}");
    assert_eq!(added["not_added"], json!([{ "user_id": closed.id, "reason": "privacy" }]));

    let unknown = json!({ "user_ids": [closed.id, "01890000-0000-7000-8000-000000000000"] });
    let refused = app.post(&participants, unknown).by(&owner).send().await.expect_problem(422, "unknown_participant");
    assert_eq!(refused["errors"].as_array().map(Vec::len), Some(1));
    assert_eq!(refused["errors"][0]["field"], "user_ids[1]");
}

fn path_of(message: &Value) -> String {
    format!("/api/v1/messages/{}", message["id"].as_str().expect("id"))
}

/// With the people's names in place of their ids, and without what differs from story to story: other ids, times, numbers.
fn named(mut value: Value, people: &People) -> Value {
    match &mut value {
        Value::String(text) => {
            let is_id = text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
            let is_time = text.len() == 27 && text.ends_with('Z');
            let name = [(&people.ada, "ada"), (&people.them, "them"), (&people.carl, "carl")].into_iter().find(|(one, _)| one.id == *text);
            match name {
                Some((_, name)) => *text = name.to_owned(),
                None if is_id => *text = "an id".to_owned(),
                None if is_time => *text = "a time".to_owned(),
                None if text.starts_with("said-") => *text = "a client's id".to_owned(),
                None => *text = text.replace(&people.them.phone, "their number"),
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = named(item.take(), people)),
        Value::Object(fields) => {
            fields.remove("request_id");
            fields.values_mut().for_each(|field| *field = named(field.take(), people));
        }
        _ => {}
    }
    value
}
