//! Who is there: over REST, over the socket, for a contact, a stranger and somebody who is blocked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ALL, Person, Socket, TestApp, until};
use crate::candidate::{Candidate, repacked};

const PRESENCE: &str = "/api/v1/presence";
/// A person whom a closed socket makes offline soon.
const OFFLINE_SOON: (&str, &str) = ("ECHO_SERVICES__PRESENCE__OFFLINE_AFTER_S", "1");

async fn seen(app: &TestApp, viewer: &Person, whom: &Person) -> Value {
    let reply = app.get(&format!("{PRESENCE}?user_ids={}", whom.id)).by(viewer).send().await.expect(StatusCode::OK);
    let items = reply["items"].as_array().expect("items");
    assert_eq!((items.len(), &items[0]["user_id"]), (1, &json!(whom.id)), "{reply}");
    items[0].clone()
}

async fn sees(app: &TestApp, viewer: &Person, whom: &Person, status: &str) -> Value {
    until(&format!("{status} is seen"), async || {
        let seen = seen(app, viewer, whom).await;
        (seen["status"] == status).then_some(seen)
    })
    .await
}

/// The owner lets the other see what contacts see.
async fn befriend(app: &TestApp, owner: &Person, other: &Person) {
    let contact = json!({ "user_id": other.id });
    app.post("/api/v1/users/contacts", contact).by(owner).send().await.expect(StatusCode::CREATED);
}

async fn open(app: &TestApp, person: &Person) -> Socket {
    let mut socket = app.socket(person, None).await;
    socket.next_of("connection_ack").await;
    socket
}

/// The next `presence` frame about this person.
async fn frame_about(socket: &mut Socket, whom: &Person) -> Value {
    loop {
        let frame = socket.next_of("presence").await;
        assert!(frame.get("seq").is_none(), "{frame}");
        if frame["payload"]["user_id"] == json!(whom.id) {
            return frame["payload"].clone();
        }
    }
}

/// The types of the frames that came before the answer to a ping.
async fn frames_so_far(socket: &mut Socket) -> Vec<Value> {
    socket.send(json!({ "type": "ping" })).await;
    let mut frames = Vec::new();
    loop {
        let frame = socket.next().await;
        if frame["type"] == "pong" {
            return frames;
        }
        frames.push(frame);
    }
}

#[tokio::test]
async fn people_see_who_is_there_on_whichever_device() {
    let app = TestApp::with(&ALL, &[OFFLINE_SOON]).await;
    let (ada, bala) = app.two().await;
    befriend(&app, &ada, &bala).await;
    let mut of_bala = open(&app, &bala).await;

    // GET /: nobody was there yet.
    let nothing = json!({ "user_id": ada.id, "status": "offline", "activity": null, "last_seen": null });
    assert_eq!(seen(&app, &bala, &ada).await, nothing);

    // She comes, and Bala's open socket hears of it.
    let of_phone = open(&app, &ada).await;
    assert_eq!(
        frame_about(&mut of_bala, &ada).await,
        json!({ "user_id": ada.id, "status": "online", "activity": null, "last_seen": null })
    );

    // A frame `presence` is the same as PUT /; her other devices learn of it as well.
    let tablet = app.log_in(&ada, "tablet").await;
    let mut of_tablet = open(&app, &tablet).await;
    let chosen = of_tablet.call("presence", json!({ "status": "busy" })).await;
    assert_eq!((&chosen["status"], &chosen["activity"]), (&json!("busy"), &Value::Null));
    assert_eq!(frame_about(&mut of_bala, &ada).await["status"], "busy");
    let put = json!({ "status": "online", "activity": "recording" });
    let chosen = app.request(Method::PUT, PRESENCE).json(put).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(chosen["activity"], "recording");
    let recording = frame_about(&mut of_bala, &ada).await;
    assert_eq!((&recording["status"], &recording["activity"]), (&json!("online"), &json!("recording")));
    assert_eq!(frame_about(&mut of_tablet, &ada).await["status"], "busy");
    assert_eq!(frame_about(&mut of_tablet, &ada).await["activity"], "recording");

    // GET /devices, for herself alone.
    let devices = app.get(&format!("{PRESENCE}/devices")).by(&tablet).send().await.expect(StatusCode::OK);
    let device = |id: &str| devices["items"].as_array().expect("items").iter().find(|device| device["device_id"] == id).cloned();
    let (phone, on_tablet) = (device("phone").expect("her phone"), device("tablet").expect("her tablet"));
    assert_eq!((&phone["connected"], &phone["present"], &phone["current"]), (&json!(true), &json!(true), &json!(false)));
    assert_eq!((&on_tablet["connected"], &on_tablet["current"]), (&json!(true), &json!(true)));

    // One device is enough; the last one that goes takes her along, and then it is known when.
    of_phone.cut();
    until("the phone is gone", async || {
        let devices = app.get(&format!("{PRESENCE}/devices")).by(&ada).send().await.expect(StatusCode::OK);
        let phone = devices["items"].as_array()?.iter().find(|device| device["device_id"] == "phone")?;
        (phone["connected"] == false).then_some(())
    })
    .await;
    assert_eq!(sees(&app, &bala, &ada, "online").await["last_seen"], Value::Null);
    of_tablet.cut();
    let gone = loop {
        let frame = frame_about(&mut of_bala, &ada).await;
        if frame["status"] == "offline" {
            break frame;
        }
    };
    assert!(gone["last_seen"].is_string(), "{gone}");
    assert_eq!(sees(&app, &bala, &ada, "offline").await["last_seen"], gone["last_seen"]);

    // POST /heartbeat, for a client without a socket.
    let alive = app.request(Method::POST, &format!("{PRESENCE}/heartbeat")).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&alive["status"], &alive["expires_in"]), (&json!("online"), &json!(90)));
    assert_eq!(frame_about(&mut of_bala, &ada).await["status"], "online");

    // What cannot be asked.
    app.get(PRESENCE).by(&ada).send().await.expect_problem(422, "invalid");
    app.get(&format!("{PRESENCE}?user_ids=x")).by(&ada).send().await.expect_problem(422, "invalid");
    let many = vec![ada.id.as_str(); 101].join(",");
    app.get(&format!("{PRESENCE}?user_ids={many}")).by(&ada).send().await.expect_problem(422, "invalid");
    let unknown = json!({ "status": "asleep" });
    app.request(Method::PUT, PRESENCE).json(unknown).by(&ada).send().await.expect_problem(422, "invalid");
}

#[tokio::test]
async fn whoever_has_just_signed_up_is_seen_at_once() {
    let app = TestApp::shared().await;
    let viewer = app.someone().await;
    let mut of_viewer = open(&app, &viewer).await;
    for _ in 0..10 {
        let new = app.someone().await;
        befriend(&app, &new, &viewer).await;
        seen(&app, &viewer, &new).await;
        let _of_new = open(&app, &new).await;
        assert_eq!(frame_about(&mut of_viewer, &new).await["status"], "online");
    }
}

/// What is shown of somebody who is there, in each case of privacy: to a contact, a stranger and somebody who is blocked.
#[tokio::test]
async fn privacy_decides_what_is_seen_and_a_block_looks_the_same() {
    let app = TestApp::shared().await;
    let people = join_all((0..4).map(|_| app.someone())).await;
    let [ada, contact, stranger, blocked] = <[Person; 4]>::try_from(people).expect("four people");
    for other in [&contact, &blocked] {
        befriend(&app, &ada, other).await;
    }
    app.request(Method::PUT, &format!("/api/v1/users/blocked/{}", blocked.id)).by(&ada).send().await.expect(StatusCode::NO_CONTENT);

    // She was there before, and is there again: so there is something to hide of both.
    let before = open(&app, &ada).await;
    sees(&app, &contact, &ada, "online").await;
    app.request(Method::PUT, PRESENCE).json(json!({ "status": "offline" })).by(&ada).send().await.expect(StatusCode::OK);
    let last_seen = sees(&app, &contact, &ada, "offline").await["last_seen"].clone();
    assert!(last_seen.is_string());
    app.request(Method::PUT, PRESENCE).json(json!({ "status": "busy" })).by(&ada).send().await.expect(StatusCode::OK);

    let hidden = json!({ "user_id": ada.id, "status": "offline", "activity": null, "last_seen": null });
    let nobody = Person { id: "01890000-0000-7000-8000-000000000000".to_owned(), ..ada.clone() };
    for (presence, last, to_contact, to_stranger) in [
        ("contacts", "contacts", ("busy", false), ("offline", false)),
        ("everyone", "everyone", ("busy", false), ("busy", false)),
        ("nobody", "nobody", ("offline", false), ("offline", false)),
        // Only when she was there before she came, which says nothing of whether she is.
        ("nobody", "everyone", ("offline", true), ("offline", true)),
        ("contacts", "everyone", ("busy", false), ("offline", true)),
        ("nobody", "contacts", ("offline", true), ("offline", false)),
    ] {
        let privacy = json!({ "presence_visible": presence, "last_seen_visible": last });
        app.request(Method::PUT, "/api/v1/users/me/privacy").json(privacy).by(&ada).send().await.expect(StatusCode::OK);
        for (viewer, (status, with_last_seen)) in [(&contact, to_contact), (&stranger, to_stranger)] {
            let seen = seen(&app, viewer, &ada).await;
            let last_seen = if with_last_seen { &last_seen } else { &Value::Null };
            assert_eq!((&seen["status"], &seen["last_seen"]), (&json!(status), last_seen), "{presence} {last}: {seen}");
        }
        assert_eq!(seen(&app, &blocked, &ada).await, hidden, "{presence} {last}");
        assert_eq!(seen(&app, &ada, &ada).await["status"], "busy");
        let unknown = seen(&app, &contact, &nobody).await;
        assert_eq!((&unknown["status"], &unknown["last_seen"]), (&hidden["status"], &hidden["last_seen"]));
    }
    drop(before);
}

#[tokio::test]
async fn whoever_is_blocked_or_kept_out_sees_the_other_leave_on_the_open_socket() {
    let app = TestApp::shared().await;
    let people = join_all((0..3).map(|_| app.someone())).await;
    let [ada, bala, chen] = <[Person; 3]>::try_from(people).expect("three people");
    let (mut of_bala, mut of_chen) = (open(&app, &bala).await, open(&app, &chen).await);
    for other in [&bala, &chen] {
        befriend(&app, &ada, other).await;
    }
    let _of_ada = open(&app, &ada).await;
    for viewer in [&bala, &chen] {
        sees(&app, viewer, &ada, "online").await;
    }

    app.request(Method::PUT, &format!("/api/v1/users/blocked/{}", bala.id)).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let hidden = json!({ "user_id": ada.id, "status": "offline", "activity": null, "last_seen": null });
    assert_eq!(seen(&app, &bala, &ada).await, hidden, "from that moment");
    while frame_about(&mut of_bala, &ada).await != hidden {}
    // The other goes on, and hears what Bala does not.
    app.request(Method::PUT, PRESENCE).json(json!({ "status": "busy" })).by(&ada).send().await.expect(StatusCode::OK);
    while frame_about(&mut of_chen, &ada).await["status"] != "busy" {}
    let frames = frames_so_far(&mut of_bala).await;
    assert!(frames.iter().all(|frame| frame["type"] != "presence"), "{frames:?}");

    // A choice of privacy, and a contact that is taken off, do the same.
    app.delete(&format!("/api/v1/users/contacts/{}", chen.id)).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(frame_about(&mut of_chen, &ada).await, hidden);
    befriend(&app, &ada, &chen).await;
    assert_eq!(seen(&app, &chen, &ada).await["status"], "busy");
    let privacy = json!({ "presence_visible": "nobody" });
    app.request(Method::PUT, "/api/v1/users/me/privacy").json(privacy).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(frame_about(&mut of_chen, &ada).await["status"], "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_reconnect_at_once_cause_no_storm_of_frames() {
    const PEOPLE: usize = 60;
    let app = TestApp::with(&ALL, &[]).await;
    let viewer = app.someone().await;
    let mut people = Vec::new();
    for _ in 0..PEOPLE / 10 {
        people.extend(join_all((0..10).map(|_| app.someone())).await);
    }
    join_all(people.iter().map(|person| befriend(&app, person, &viewer))).await;
    let mut of_viewer = open(&app, &viewer).await;
    let ids: Vec<&str> = people.iter().map(|person| person.id.as_str()).collect();
    let asked = app.get(&format!("{PRESENCE}?user_ids={}", ids.join(","))).by(&viewer).send().await.expect(StatusCode::OK);
    assert!(asked["items"].as_array().expect("items").iter().all(|item| item["status"] == "offline"));

    // Each is heard of once.
    let mut sockets = join_all(people.iter().map(|person| open(&app, person))).await;
    for _ in &people {
        assert_eq!(of_viewer.next_of("presence").await["payload"]["status"], "online");
    }
    // Everybody loses the connection and is back, three times.
    for _ in 0..3 {
        sockets.into_iter().for_each(Socket::cut);
        sockets = join_all(people.iter().map(|person| open(&app, person))).await;
    }
    // What is said of somebody else comes after whatever would have been said of them.
    let last = app.someone().await;
    befriend(&app, &last, &viewer).await;
    seen(&app, &viewer, &last).await;
    let _of_last = open(&app, &last).await;
    let mut frames = 0;
    while of_viewer.next_of("presence").await["payload"]["user_id"] != json!(last.id) {
        frames += 1;
    }
    assert_eq!(frames, 0, "{PEOPLE} people reconnected three times");
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_swapped_while_people_ask_and_come_and_go() {
    const SWAPS: usize = 20;
    let app = Arc::new(TestApp::start().await);
    for version in ["0.1.1", "0.1.2"] {
        let file = repacked("presence", &[("version = \"0.1.0\"", &format!("version = \"{version}\""))]);
        app.admin(Method::POST, "/admin/v1/plugins/presence/versions").bytes(file).send().await.expect(StatusCode::CREATED);
    }
    let pairs = join_all((0..4).map(|_| app.two())).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let asking: Vec<_> = pairs
        .into_iter()
        .map(|(one, other)| {
            let (app, stopped) = (app.clone(), stopped.clone());
            tokio::spawn(async move {
                befriend(&app, &one, &other).await;
                let (mut of_one, mut of_other) = (open(&app, &one).await, open(&app, &other).await);
                seen(&app, &other, &one).await;
                let mut asked = 0;
                while !*stopped.borrow() {
                    let status = ["busy", "online", "away"][asked % 3];
                    assert_eq!(of_one.call("presence", json!({ "status": status })).await["status"], status);
                    assert_eq!(seen(&app, &other, &one).await["status"], status, "the state is not the version's");
                    asked += 1;
                    // Half as fast as a socket may send (4429).
                    tokio::time::sleep(Duration::from_secs(2) / echo_base::limits::SOCKET_FRAMES_PER_S).await;
                }
                // The sockets are the same ones, and the last change gets through.
                of_one.call("presence", json!({ "status": "busy", "activity": "typing" })).await;
                while frame_about(&mut of_other, &one).await["activity"] != "typing" {}
                asked
            })
        })
        .collect();
    for swap in 0..SWAPS {
        let version = ["0.1.1", "0.1.2", "0.1.0"][swap % 3];
        app.admin(Method::PUT, "/admin/v1/plugins/presence/active").json(json!({ "version": version })).send().await.expect(StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    stop.send_replace(true);
    let asked: usize = join_all(asking).await.into_iter().map(|asked| asked.expect("nothing failed")).sum();
    assert!(asked > SWAPS, "only {asked} questions beside {SWAPS} swaps");
    let dead = app.admin(Method::GET, "/admin/v1/queue/dead-letters").send().await.expect(StatusCode::OK);
    assert_eq!(dead["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presence_that_fails_takes_no_other_service_along() {
    let app = TestApp::start().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut of_bala = open(&app, &bala).await;
    // It has no code: every call traps.
    app.deploy("presence", Candidate::of("presence").packed()).await.expect(StatusCode::OK);
    let until_it_is_back = Instant::now() + crate::app::PATIENCE;
    let mut failed = 0;
    loop {
        let reply = app.get(&format!("{PRESENCE}?user_ids={}", bala.id)).by(&ada).send().await;
        match reply.status {
            StatusCode::OK => break,
            StatusCode::SERVICE_UNAVAILABLE => assert!(reply.headers.contains_key("retry-after"), "{reply:?}"),
            _ => drop(reply.expect_problem(500, "service_failed")),
        }
        failed += 1;
        let said = app.say(&ada, &talk, "still here").await;
        assert_eq!(of_bala.next_of("message").await["payload"]["id"], said["id"]);
        assert!(Instant::now() < until_it_is_back, "the version that fails is not taken back");
    }
    assert!(failed > 0, "it never failed");
}
