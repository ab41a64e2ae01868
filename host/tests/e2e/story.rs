//! What people do with Echo, as the API page tells it: first one walk through all of it, then the promises on the way, one by one.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Person, Socket, TestApp, until, unused_phone};

const CONVERSATIONS: &str = "/api/v1/messages/conversations";

#[tokio::test]
async fn two_people_meet_and_talk() {
    walk(&TestApp::start().await).await;
}

/// On a host of its own, with all services.
pub async fn walk(app: &TestApp) {
    // POST /auth/register knows where a number belongs; the code comes by SMS, which development mode shows.
    let mut people = Vec::new();
    for (phone, name, country, region, timezone) in [
        ("+14155552671", "Ada", "US", json!("California"), "America/Los_Angeles"),
        ("+918123456789", "Bala", "IN", Value::Null, "Asia/Kolkata"),
    ] {
        let password = "correct horse battery 7";
        let register = json!({ "phone": phone, "password": password, "name": name });
        let registered = app.post("/api/v1/auth/register", register).send().await.expect(StatusCode::CREATED);
        assert_eq!(registered["country"], country);
        assert_eq!(registered["region"], region);
        assert_eq!(registered["timezone"], timezone);
        assert_eq!((&registered["otp_expires_in"], &registered["resend_after"]), (&json!(300), &json!(60)));

        let device = json!({ "id": "phone", "name": format!("{name}'s phone"), "platform": "android" });
        let login = json!({ "phone": phone, "password": password, "device": device });
        app.post("/api/v1/auth/login", login).send().await.expect_problem(403, "phone_unverified");

        let otp = app.code_sent_to(phone).await;
        assert!(otp.len() == 6 && otp.bytes().all(|digit| digit.is_ascii_digit()), "{otp}");
        let verify = json!({ "registration_id": registered["registration_id"], "phone": phone, "otp": otp, "device": device });
        let tokens = app.post("/api/v1/auth/verify-otp", verify).send().await.expect(StatusCode::OK);
        assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(900)));
        assert_eq!(tokens["device_id"], "phone");
        assert!(tokens["refresh_expires_in"].as_u64() > Some(900));
        people.push(Person::new(phone, password, "phone", &tokens));
    }
    let [ada, bala] = <[Person; 2]>::try_from(people).expect("two people");

    // GET and PATCH /users/me; the other sees the profile, but not the number.
    let me = app.get("/api/v1/users/me").by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&me["id"], &me["phone"]), (&json!(ada.id), &json!("+14155552671")));
    assert_eq!((&me["display_name"], &me["country"]), (&json!("Ada"), &json!("US")));
    assert_eq!(me["timezone"], "America/Los_Angeles");
    let change = json!({ "display_name": "Ada L.", "bio": "Numbers", "status_text": "counting" });
    let changed = app.patch("/api/v1/users/me", change).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&changed["display_name"], &changed["bio"]), (&json!("Ada L."), &json!("Numbers")));
    let seen = app.get(&format!("/api/v1/users/{}", ada.id)).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!((&seen["display_name"], &seen["status_text"]), (&json!("Ada L."), &json!("counting")));
    assert_eq!(seen["phone"], Value::Null);

    // POST /messages/conversations; again, from either side, it is the same one.
    let open = |other: &Person| json!({ "type": "direct", "participant_ids": [other.id] });
    let talk = app.post(CONVERSATIONS, open(&bala)).by(&ada).send().await.expect(StatusCode::CREATED);
    assert_eq!((&talk["type"], &talk["last_seq"], &talk["unread_count"]), (&json!("direct"), &json!(0), &json!(0)));
    for (person, other) in [(&ada, &bala), (&bala, &ada)] {
        let again = app.post(CONVERSATIONS, open(other)).by(person).send().await.expect(StatusCode::OK);
        assert_eq!(again["id"], talk["id"]);
    }
    let talk = talk["id"].as_str().expect("id").to_owned();

    // GET /ws, both of them.
    let (mut of_ada, mut of_bala) = (app.socket(&ada, None).await, app.socket(&bala, None).await);
    for (socket, person) in [(&mut of_ada, &ada), (&mut of_bala, &bala)] {
        let hello = socket.next().await;
        assert_eq!(hello["type"], "connection_ack");
        let hello = &hello["payload"];
        assert_eq!((&hello["user_id"], &hello["device_id"]), (&json!(person.id), &json!("phone")));
        assert_eq!((&hello["heartbeat_interval"], &hello["idle_timeout"]), (&json!(30), &json!(60)));
        assert!(hello["connection_id"].is_string() && hello["cursor"].is_u64(), "{hello}");
    }

    // POST /messages: the recipient gets it as GET /messages/{id} gives it, the sender gets its echo.
    let hello = app.text(&ada, &talk, "ada-1", "Hello, Bala!").send().await.expect(StatusCode::CREATED);
    assert_eq!((&hello["seq"], &hello["status"]), (&json!(1), &json!("sent")));
    assert_eq!((&hello["sender_id"], &hello["client_message_id"]), (&json!(ada.id), &json!("ada-1")));
    let hello_at_bala = of_bala.next_of("message").await;
    let hello_path = path_of(&hello);
    assert_eq!(hello_at_bala["payload"], app.get(&hello_path).by(&bala).send().await.expect(StatusCode::OK));
    assert_eq!(hello_at_bala["payload"]["content"], "Hello, Bala!");
    assert!(hello_at_bala["seq"].is_u64() && hello_at_bala["at"].is_string(), "{hello_at_bala}");
    assert_eq!(of_ada.next_of("message").await["payload"]["client_message_id"], "ada-1");

    // A `message` frame is the same as POST /messages.
    let answer = json!({ "conversation_id": talk, "client_message_id": "bala-1", "type": "text", "content": "Hello, Ada!" });
    let answer = of_bala.call("message", answer).await;
    assert_eq!((&answer["seq"], &answer["sender_id"]), (&json!(2), &json!(bala.id)));
    let answer_at_ada = of_ada.next_of("message").await;
    assert_eq!(answer_at_ada["payload"]["id"], answer["id"]);
    assert_eq!(of_bala.next_of("message").await["payload"]["client_message_id"], "bala-1");

    // Nobody has acknowledged anything: sent, and unread.
    assert_eq!(status_of(app, &ada, &hello).await["status"], "sent");
    let listed = app.get(CONVERSATIONS).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    let listed = &listed["items"][0];
    assert_eq!((&listed["unread_count"], &listed["read_seq"], &listed["last_seq"]), (&json!(1), &json!(0), &json!(2)));
    assert_eq!(listed["last_message"]["id"], answer["id"]);

    // `ack` makes it delivered, and its sender learns of it.
    of_bala.ack(&hello_at_bala).await;
    let delivered = of_ada.next_of("message_status").await;
    assert_eq!((&delivered["payload"]["message_id"], &delivered["payload"]["user_id"]), (&hello["id"], &json!(bala.id)));
    assert_eq!(delivered["payload"]["status"], "delivered");
    let status = status_of(app, &ada, &hello).await;
    assert_eq!((&status["user_id"], &status["status"]), (&json!(bala.id), &json!("delivered")));
    assert!(status["delivered_at"].is_string() && status["read_at"].is_null(), "{status}");

    // `read_receipt` makes it read.
    let read = of_bala.call("read_receipt", json!({ "conversation_id": talk, "up_to_seq": 2 })).await;
    assert_eq!((&read["read_seq"], &read["unread_count"]), (&json!(2), &json!(0)));
    let read = of_ada.next_of("message_status").await;
    assert_eq!((&read["payload"]["message_id"], &read["payload"]["status"]), (&hello["id"], &json!("read")));
    let status = status_of(app, &ada, &hello).await;
    assert_eq!(status["status"], "read");
    assert!(status["read_at"].is_string(), "{status}");
    assert_eq!(conversation_of(app, &bala, &talk).await["unread_count"], 0);

    // PATCH /messages/{id}; what it said before stays to be seen.
    let edited = app.patch(&hello_path, json!({ "content": "Hello, dear Bala!" })).by(&ada).send().await.expect(StatusCode::OK);
    assert!(edited["edited_at"].is_string(), "{edited}");
    for socket in [&mut of_ada, &mut of_bala] {
        let event = socket.next_of("message_edited").await;
        assert_eq!((&event["payload"]["id"], &event["payload"]["content"]), (&hello["id"], &json!("Hello, dear Bala!")));
    }
    let edits = app.get(&format!("{hello_path}/edits")).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(edits["items"][0]["content"], "Hello, Bala!");

    // Typing is told to the other and kept nowhere.
    of_bala.call("typing", json!({ "conversation_id": talk, "is_typing": true })).await;
    let typing = of_ada.next_of("typing").await;
    assert_eq!(typing["payload"], json!({ "conversation_id": talk, "user_id": bala.id, "is_typing": true }));
    assert!(typing.get("seq").is_none(), "{typing}");

    // DELETE /messages/{id}?for=everyone takes the content away; its place in the sequence stays.
    app.delete(&format!("{hello_path}?for=everyone")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(of_bala.next_of("message_deleted").await["payload"]["message_id"], hello["id"]);
    let deleted = app.get(&hello_path).by(&bala).send().await.expect(StatusCode::OK);
    assert!(deleted["content"].is_null() && deleted["deleted_at"].is_string(), "{deleted}");
    assert_eq!(deleted["seq"], 1);

    // The network breaks. What happens meanwhile is there after `?since=<cursor>`: nothing missing, nothing twice.
    let cursor = of_bala.cursor();
    of_bala.cut();
    for n in 0..3 {
        let missed = app.say(&ada, &talk, &format!("Are you there? {n}")).await;
        in_the_feed_of(app, &bala, &missed).await;
    }
    let mut of_bala = app.socket(&bala, Some(cursor)).await;
    let missed = up_to_caught_up(&mut of_bala).await;
    assert_eq!(contents(&missed), ["Are you there? 0", "Are you there? 1", "Are you there? 2"]);
    let live = app.say(&ada, &talk, "There you are").await;
    assert_eq!(of_bala.next_of("message").await["payload"]["id"], live["id"]);

    // GET /sync tells the same.
    let page = app.get(&format!("/api/v1/sync?since={cursor}")).by(&bala).send().await.expect(StatusCode::OK);
    let same: Vec<Value> = page["items"].as_array().expect("items").iter().take(missed.len()).cloned().collect();
    assert_eq!(same, missed);

    // POST /auth/refresh gives new tokens; POST /auth/logout ends the session and its socket at once.
    let refreshed = app.post("/api/v1/auth/refresh", json!({ "refresh_token": bala.refresh_token })).send().await.expect(StatusCode::OK);
    let bala = Person::new(&bala.phone, &bala.password, "phone", &refreshed);
    app.get("/api/v1/users/me").by(&bala).send().await.expect(StatusCode::OK);
    app.request(Method::POST, "/api/v1/auth/logout").by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(of_bala.closed().await, Some(4401));
    app.get("/api/v1/users/me").by(&bala).send().await.expect_problem(401, "token_revoked");

    // And back again with the password.
    let bala = app.log_in(&bala, "phone").await;
    let conversation = conversation_of(app, &bala, &talk).await;
    assert_eq!((&conversation["unread_count"], &conversation["last_seq"]), (&json!(4), &json!(6)));
}

// --- Sending -----------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_message_is_sent_once_however_often_it_is_asked_for() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut of_bala = app.socket(&bala, None).await;

    let first = app.text(&ada, &talk, "one", "once").send().await.expect(StatusCode::CREATED);
    assert_eq!(app.text(&ada, &talk, "one", "once").send().await.expect(StatusCode::CREATED), first);
    app.text(&ada, &talk, "one", "twice").send().await.expect_problem(409, "client_message_id_reused");

    // Over the socket as well, and after an edit too: the answer is the message as it is now.
    let edited = app.patch(&path_of(&first), json!({ "content": "changed" })).by(&ada).send().await.expect(StatusCode::OK);
    let mut of_ada = app.socket(&ada, None).await;
    let draft = |content: &str| json!({ "conversation_id": talk, "client_message_id": "one", "type": "text", "content": content });
    assert_eq!(of_ada.call("message", draft("once")).await, edited);
    assert_eq!(of_ada.ask("message", draft("twice")).await["payload"]["code"], "client_message_id_reused");

    // The same id of another sender is another message.
    assert_eq!(app.text(&bala, &talk, "one", "once").send().await.expect(StatusCode::CREATED)["seq"], 2);
    assert_eq!(of_bala.next_of("message").await["payload"]["id"], first["id"]);
    assert_eq!(of_bala.next_of("message").await["payload"]["seq"], 2);
}

#[tokio::test]
async fn twenty_requests_at_once_with_one_id_make_one_message() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut of_bala = app.socket(&bala, None).await;

    let all = join_all((0..20).map(|_| app.text(&ada, &talk, "at once", "only once").send())).await;
    let all: Vec<Value> = all.into_iter().map(|reply| reply.expect(StatusCode::CREATED)).collect();
    assert!(all.iter().all(|message| *message == all[0]), "{all:?}");

    app.say(&ada, &talk, "the next").await;
    assert_eq!(of_bala.next_of("message").await["payload"]["id"], all[0]["id"]);
    let next = of_bala.next_of("message").await;
    assert_eq!((&next["payload"]["content"], &next["payload"]["seq"]), (&json!("the next"), &json!(2)));
}

#[tokio::test]
async fn eight_senders_at_once_make_one_sequence_without_a_gap() {
    const EACH: usize = 12;
    let app = TestApp::shared().await;
    let reader = app.someone().await;
    let senders = join_all((0..8).map(|_| app.someone())).await;
    let group = app.group(&reader, &senders.iter().collect::<Vec<_>>()).await;
    let mut of_reader = app.socket(&reader, None).await;

    join_all(senders.iter().map(async |sender| {
        for _ in 0..EACH {
            app.say(sender, &group, "hello").await;
        }
    }))
    .await;

    let count = senders.len() * EACH;
    let mut arrived = Vec::new();
    while arrived.len() < count {
        arrived.push(of_reader.next_of("message").await["payload"].clone());
    }
    let seqs: Vec<u64> = arrived.iter().filter_map(|message| message["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=count as u64).collect::<Vec<_>>(), "in their order, without a gap");
    let listed = everything(&app, &reader, &format!("/api/v1/messages?conversation_id={group}&after_seq=0&limit=40")).await;
    assert_eq!(listed, arrived);
}

#[tokio::test]
async fn messages_are_listed_from_either_end() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    for n in 1..=5 {
        app.say(&ada, &talk, &n.to_string()).await;
    }
    for (query, expect) in [
        ("", vec!["5", "4", "3", "2", "1"]),
        ("&limit=2", vec!["5", "4"]),
        ("&before_seq=3", vec!["2", "1"]),
        ("&after_seq=3", vec!["4", "5"]),
        ("&after_seq=1&before_seq=4", vec!["2", "3"]),
    ] {
        let page = app.get(&format!("/api/v1/messages?conversation_id={talk}{query}")).by(&bala).send().await.expect(StatusCode::OK);
        let found: Vec<_> = page["items"].as_array().expect("items").iter().map(|message| message["content"].clone()).collect();
        assert_eq!(found, expect, "{query}");
    }
    let paged = everything(&app, &bala, &format!("/api/v1/messages?conversation_id={talk}&limit=2")).await;
    assert_eq!(paged.iter().map(|message| message["content"].clone()).collect::<Vec<_>>(), ["5", "4", "3", "2", "1"]);
}

// --- Delivered and read ------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn status_goes_from_sent_to_delivered_to_read_and_never_back() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let (first, second) = (app.say(&ada, &talk, "first").await, app.say(&ada, &talk, "second").await);
    let status = async |message: &Value| status_of(&app, &ada, message).await["status"].clone();

    // A socket that reads and does not acknowledge makes nothing delivered.
    in_the_feed_of(&app, &bala, &second).await;
    let mut of_bala = app.socket(&bala, Some(0)).await;
    let missed = up_to_caught_up(&mut of_bala).await;
    assert_eq!(contents(&missed), ["first", "second"]);
    assert_eq!(of_bala.call("ping", json!({})).await, json!({}));
    assert_eq!((status(&first).await, status(&second).await), (json!("sent"), json!("sent")));

    let mut of_ada = app.socket(&ada, None).await;
    of_bala.ack(&missed[missed.len() - 2]).await;
    let told = of_ada.next_of("message_status").await;
    assert_eq!((&told["payload"]["message_id"], &told["payload"]["status"]), (&first["id"], &json!("delivered")));
    assert_eq!((status(&first).await, status(&second).await), (json!("delivered"), json!("sent")));

    let up_to = |seq: u64| json!({ "conversation_id": talk, "up_to_seq": seq });
    app.post("/api/v1/messages/read", up_to(1)).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(of_ada.next_of("message_status").await["payload"]["status"], "read");
    assert_eq!((status(&first).await, status(&second).await), (json!("read"), json!("sent")));

    // Without a socket POST /delivered does it; again, or for less, it changes nothing.
    for seq in [2, 2, 1] {
        app.post("/api/v1/messages/delivered", up_to(seq)).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    }
    let state = app.post("/api/v1/messages/read", up_to(0)).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(state["read_seq"], 1);
    assert_eq!((status(&first).await, status(&second).await), (json!("read"), json!("delivered")));

    // A reading beyond the last message is a reading of all there is; the next one is unread.
    let state = app.post("/api/v1/messages/read", up_to(99)).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!((&state["read_seq"], &state["unread_count"]), (&json!(2), &json!(0)));
    app.say(&ada, &talk, "third").await;
    assert_eq!(conversation_of(&app, &bala, &talk).await["unread_count"], 1);

    let told: Vec<Value> = [of_ada.next_of("message_status").await, of_ada.next_of("message_status").await].to_vec();
    let told: Vec<&Value> = told.iter().map(|event| &event["payload"]["status"]).collect();
    assert_eq!(told, ["delivered", "read"], "each step once");
}

#[tokio::test]
async fn unread_counts_are_of_what_others_said_and_is_still_there() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let unread = async |person: &Person| conversation_of(&app, person, &talk).await["unread_count"].clone();

    let first = app.say(&ada, &talk, "one").await;
    let second = app.say(&ada, &talk, "two").await;
    app.say(&ada, &talk, "three").await;
    app.say(&bala, &talk, "one's own is not unread").await;
    assert_eq!((unread(&ada).await, unread(&bala).await), (json!(1), json!(3)));

    app.delete(&format!("{}?for=everyone", path_of(&first))).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(unread(&bala).await, 2);
    // For oneself alone is what is meant without a word.
    app.delete(&path_of(&second)).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(unread(&bala).await, 1);
    app.get(&path_of(&second)).by(&bala).send().await.expect_problem(404, "not_found");
    app.get(&path_of(&second)).by(&ada).send().await.expect(StatusCode::OK);

    app.post("/api/v1/messages/read", json!({ "conversation_id": talk, "up_to_seq": 4 })).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!((unread(&ada).await, unread(&bala).await), (json!(1), json!(0)));
}

#[tokio::test]
async fn who_reads_without_telling_is_delivered_to_and_no_more() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut of_ada = app.socket(&ada, None).await;
    let tells = async |audience: &str| {
        let privacy = app.put("/api/v1/users/me/privacy", json!({ "read_receipts": audience })).by(&bala);
        assert_eq!(privacy.send().await.expect(StatusCode::OK)["read_receipts"], audience);
    };
    let read = async |seq: u64| {
        let read = json!({ "conversation_id": talk, "up_to_seq": seq });
        app.post("/api/v1/messages/read", read).by(&bala).send().await.expect(StatusCode::OK)
    };
    // Up to where the other seems to have read, to each of the two.
    let read_seq = async |viewer: &Person| {
        let listed = app.get(&format!("{CONVERSATIONS}/{talk}/participants")).by(viewer).send().await.expect(StatusCode::OK);
        let items = listed["items"].as_array().expect("items").clone();
        items.into_iter().find(|participant| participant["user_id"] == bala.id.as_str()).expect("takes part")["read_seq"].clone()
    };

    let first = app.say(&ada, &talk, "first").await;
    read(1).await;
    tells("nobody").await;
    let second = app.say(&ada, &talk, "second").await;
    let state = read(2).await;
    assert_eq!((&state["read_seq"], &state["unread_count"]), (&json!(2), &json!(0)), "for the reader all is as ever");
    let tablet = app.log_in(&bala, "tablet").await;
    assert_eq!(conversation_of(&app, &tablet, &talk).await["unread_count"], 0, "on every device");
    assert_eq!(status_of(&app, &ada, &first).await["status"], "read", "what was told stays told");
    let status = status_of(&app, &ada, &second).await;
    assert!(status["status"] == "delivered" && status["delivered_at"].is_string() && status["read_at"].is_null(), "{status}");
    assert_eq!(app.get(&path_of(&second)).by(&ada).send().await.expect(StatusCode::OK)["status"], "delivered");
    assert_eq!(conversation_of(&app, &ada, &talk).await["last_message"]["status"], "delivered");
    assert_eq!((read_seq(&ada).await, read_seq(&bala).await), (json!(1), json!(2)));

    // A reading in which nothing of others was read tells nothing of the one before.
    app.say(&bala, &talk, "my own").await;
    read(3).await;
    assert_eq!(status_of(&app, &ada, &second).await["status"], "delivered");

    // Told again, it is told as ever: of all up to there.
    tells("everyone").await;
    let last = app.say(&ada, &talk, "last").await;
    read(4).await;
    assert_eq!((status_of(&app, &ada, &second).await["status"].clone(), read_seq(&ada).await), (json!("read"), json!(4)));
    let mut told = Vec::new();
    for _ in 0..3 {
        let event = of_ada.next_of("message_status").await["payload"].clone();
        told.push((event["message_id"].clone(), event["status"].clone()));
    }
    let expect = [(&first, "read"), (&second, "delivered"), (&last, "read")];
    assert_eq!(told, expect.map(|(message, status)| (message["id"].clone(), json!(status))));
}

#[tokio::test]
async fn readings_told_to_contacts_are_told_to_nobody_else() {
    let app = TestApp::shared().await;
    let (friend, stranger) = app.two().await;
    let bala = app.someone().await;
    let group = app.group(&bala, &[&friend, &stranger]).await;
    let contact = json!({ "user_id": friend.id });
    app.post("/api/v1/users/contacts", contact).by(&bala).send().await.expect(StatusCode::CREATED);
    let privacy = app.put("/api/v1/users/me/privacy", json!({ "read_receipts": "contacts" })).by(&bala);
    privacy.send().await.expect(StatusCode::OK);
    let read = async |seq: u64| {
        let read = json!({ "conversation_id": group, "up_to_seq": seq });
        app.post("/api/v1/messages/read", read).by(&bala).send().await.expect(StatusCode::OK)
    };
    let at_bala = async |sender: &Person, message: &Value| {
        let statuses = app.get(&format!("{}/status", path_of(message))).by(sender).send().await.expect(StatusCode::OK);
        let items = statuses["items"].as_array().expect("items").clone();
        items.into_iter().find(|item| item["user_id"] == bala.id.as_str()).expect("a recipient")["status"].clone()
    };
    let (mut of_friend, mut of_stranger) = (app.socket(&friend, None).await, app.socket(&stranger, None).await);

    let (from_friend, from_stranger) = (app.say(&friend, &group, "one").await, app.say(&stranger, &group, "two").await);
    assert_eq!(read(2).await["unread_count"], 0);
    assert_eq!(of_friend.next_of("message_status").await["payload"]["status"], "read");
    assert_eq!(of_stranger.next_of("message_status").await["payload"]["status"], "delivered");
    assert_eq!(at_bala(&friend, &from_friend).await, "read");
    assert_eq!(at_bala(&stranger, &from_stranger).await, "delivered");

    // Reading something of the friend's alone says nothing to the stranger either.
    let next = app.say(&friend, &group, "three").await;
    read(3).await;
    assert_eq!(of_friend.next_of("message_status").await["payload"]["message_id"], next["id"]);
    assert_eq!(at_bala(&friend, &next).await, "read");
    assert_eq!(at_bala(&stranger, &from_stranger).await, "delivered");
    // Nor does a status ever go back: what a contact knew stays known.
    app.delete(&format!("/api/v1/users/contacts/{}", friend.id)).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    let unknown = app.say(&friend, &group, "four").await;
    read(4).await;
    assert_eq!((at_bala(&friend, &next).await, at_bala(&friend, &unknown).await), (json!("read"), json!("delivered")));
}

#[tokio::test]
async fn only_the_sender_changes_a_message_or_sees_who_has_it() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let path = path_of(&app.say(&ada, &talk, "mine").await);

    app.patch(&path, json!({ "content": "yours" })).by(&bala).send().await.expect_problem(403, "not_allowed");
    app.delete(&format!("{path}?for=everyone")).by(&bala).send().await.expect_problem(403, "not_allowed");
    app.get(&format!("{path}/status")).by(&bala).send().await.expect_problem(403, "not_allowed");
    app.delete(&format!("{path}?for=everyone")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.patch(&path, json!({ "content": "again" })).by(&ada).send().await.expect_problem(409, "message_deleted");
}

#[tokio::test]
async fn edits_and_deletions_have_their_time() {
    let settings = [("ECHO_SERVICES__MESSAGE__EDIT_WINDOW_S", "0"), ("ECHO_SERVICES__MESSAGE__DELETE_WINDOW_S", "0")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let path = path_of(&app.say(&ada, &talk, "for ever").await);
    app.patch(&path, json!({ "content": "not for ever" })).by(&ada).send().await.expect_problem(403, "edit_window_over");
    app.delete(&format!("{path}?for=everyone")).by(&ada).send().await.expect_problem(403, "delete_window_over");
    app.delete(&path).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
}

// --- The feed ----------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_socket_that_is_cut_again_and_again_misses_nothing_and_repeats_nothing() {
    const COUNT: usize = 150;
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;

    let sending = async {
        for n in 0..COUNT {
            app.say(&ada, &talk, &n.to_string()).await;
        }
    };
    let reading = async {
        let (mut cursor, mut arrived) = (0, Vec::new());
        // Cut after 1, 2, 3 … events: in the middle of the resume, right after it, and while live events come.
        for patience in 1.. {
            let mut socket = app.socket(&bala, Some(cursor)).await;
            socket.next_of("connection_ack").await;
            let mut events = 0;
            while events < patience && arrived.len() < COUNT {
                let event = socket.next().await;
                events += 1;
                if event["type"] == "message" {
                    arrived.push(event["payload"]["content"].as_str().expect("content").to_owned());
                }
            }
            cursor = socket.cursor();
            socket.cut();
            if arrived.len() == COUNT {
                return arrived;
            }
        }
        unreachable!("the messages come to an end")
    };
    let ((), arrived) = tokio::join!(sending, reading);
    assert_eq!(arrived, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_feed_is_the_same_over_rest() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    // More than a page of either.
    let mut last = Value::Null;
    for n in 0..120 {
        last = app.say(&ada, &talk, &n.to_string()).await;
    }
    in_the_feed_of(&app, &bala, &last).await;
    let mut socket = app.socket(&bala, Some(0)).await;
    let told = up_to_caught_up(&mut socket).await;
    assert_eq!(contents(&told).len(), 120);

    for limit in [7, 100, 500] {
        let mut read = Vec::new();
        let mut since = 0;
        loop {
            let path = format!("/api/v1/sync?since={since}&limit={limit}");
            let page = app.get(&path).by(&bala).send().await.expect(StatusCode::OK);
            let items = page["items"].as_array().expect("items");
            assert!(items.len() <= limit, "{} items", items.len());
            read.extend(items.iter().cloned());
            match page["next_cursor"].as_u64() {
                Some(next) => since = next,
                None => break,
            }
        }
        assert_eq!(read, told, "pages of {limit}");
    }

    // Who starts with the feed's end gets nothing; who names a cursor that no feed has is told to load anew.
    let end = app.get(&format!("/api/v1/sync?since={}", socket.cursor())).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(end, json!({ "items": [], "next_cursor": null }));
    app.get("/api/v1/sync?since=1000000").by(&bala).send().await.expect_problem(410, "resync_required");
    let mut lost = app.socket(&bala, Some(1_000_000)).await;
    assert_eq!(lost.next().await["type"], "connection_ack");
    let resync = lost.next().await;
    assert_eq!((&resync["type"], &resync["payload"]["cursor"]), (&json!("resync_required"), &json!(socket.cursor())));
    let live = app.say(&ada, &talk, "live").await;
    assert_eq!(lost.next().await["payload"]["id"], live["id"]);
}

#[tokio::test]
async fn every_device_of_both_gets_a_message_and_one_of_them_makes_it_delivered() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let (ada_laptop, bala_laptop) = (app.log_in(&ada, "laptop").await, app.log_in(&bala, "laptop").await);
    let talk = app.conversation(&ada, &bala).await;
    let mut sockets = Vec::new();
    for person in [&ada, &ada_laptop, &bala, &bala_laptop] {
        sockets.push(app.socket(person, None).await);
    }
    let message = app.say(&ada, &talk, "to all").await;
    let mut event = Value::Null;
    for socket in &mut sockets {
        event = socket.next_of("message").await;
        assert_eq!(event["payload"]["id"], message["id"]);
    }
    // One's own device acknowledging one's own message tells nobody anything; the second device of the other neither.
    let [of_ada, of_ada_laptop, of_bala, of_bala_laptop] = &mut sockets[..] else { unreachable!("four") };
    let own = json!({ "seq": of_ada_laptop.cursor() });
    of_ada_laptop.call("ack", own).await;
    of_bala_laptop.ack(&event).await;
    assert_eq!(of_ada.next_of("message_status").await["payload"]["status"], "delivered");
    let all = json!({ "seq": of_bala.cursor() });
    of_bala.call("ack", all).await;
    let next = app.say(&bala, &talk, "an answer").await;
    let after = of_ada.next().await;
    assert_eq!((&after["type"], &after["payload"]["id"]), (&json!("message"), &next["id"]), "delivered is told once");
}

#[tokio::test]
async fn a_sender_hears_once_of_each_recipient_that_has_a_message() {
    let app = TestApp::shared().await;
    let (sender, mut recipients) = (app.someone().await, Vec::new());
    for _ in 0..5 {
        recipients.push(app.someone().await);
    }
    let group = app.group(&sender, &recipients.iter().collect::<Vec<_>>()).await;
    let mut of_sender = app.socket(&sender, None).await;
    let mut sockets = Vec::new();
    for recipient in &recipients {
        sockets.push(app.socket(recipient, None).await);
    }
    let mut messages = Vec::new();
    for number in 0..3 {
        messages.push(app.say(&sender, &group, &number.to_string()).await);
    }
    let newest = messages.last().expect("three")["id"].clone();
    let mut last_of = Vec::new();
    for socket in &mut sockets {
        last_of.push(loop {
            let event = socket.next_of("message").await;
            if event["payload"]["id"] == newest {
                break event;
            }
        });
    }
    // All at once, one of them twice; each covers all three messages. The sender's own device says the same of its copies.
    for (socket, event) in sockets.iter_mut().zip(&last_of) {
        socket.ack(event).await;
    }
    sockets[0].ack(&last_of[0]).await;
    let mut told = std::collections::BTreeMap::new();
    let mut own = 0;
    while told.len() < recipients.len() || own < 3 {
        let event = of_sender.next().await;
        if event["type"] == "message" {
            own += 1;
            of_sender.ack(&event).await;
        }
        if event["type"] == "message_status" {
            let of = |field: &str| event["payload"][field].as_str().unwrap_or_default().to_owned();
            assert_eq!(
                (of("status"), of("message_id"), event["payload"]["up_to_seq"].as_u64()),
                ("delivered".to_owned(), newest.as_str().expect("an id").to_owned(), Some(3))
            );
            *told.entry(of("user_id")).or_insert(0) += 1;
        }
    }
    for recipient in &recipients {
        assert_eq!(told.get(&recipient.id), Some(&1), "{told:?}");
    }
    // Nothing more of it comes.
    app.say(&sender, &group, "after").await;
    assert_eq!(of_sender.next().await["type"], "message");
}

#[tokio::test]
async fn typing_reaches_who_is_there_and_stays_in_no_feed() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let mut of_bala = app.socket(&bala, None).await;
    for is_typing in [true, false] {
        let typing = json!({ "conversation_id": talk, "is_typing": is_typing });
        app.post("/api/v1/messages/typing", typing).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
        let event = of_bala.next_of("typing").await;
        assert_eq!((&event["payload"]["user_id"], &event["payload"]["is_typing"]), (&json!(ada.id), &json!(is_typing)));
    }
    app.say(&ada, &talk, "done").await;
    of_bala.next_of("message").await;
    let feed = app.get("/api/v1/sync").by(&bala).send().await.expect(StatusCode::OK);
    assert!(feed["items"].as_array().expect("items").iter().all(|event| event["type"] != "typing"), "{feed}");
}

// --- Push notifications ------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn who_did_not_acknowledge_in_time_gets_a_push_and_nobody_else() {
    let settings = [("ECHO_SERVICES__NOTIFICATION__ACK_WAIT_S", "3")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let sender = app.someone().await;
    let [absent, reading, muting, without] = [app.someone().await, app.someone().await, app.someone().await, app.someone().await];
    let group = app.group(&sender, &[&absent, &reading, &muting, &without]).await;
    for (person, token) in [(&absent, "token-absent"), (&reading, "token-reading"), (&muting, "token-muting")] {
        let device = json!({ "token": token, "provider": "fcm", "platform": "android" });
        app.post("/api/v1/notifications/devices", device).by(person).send().await.expect(StatusCode::CREATED);
    }
    let devices = app.get("/api/v1/notifications/devices").by(&absent).send().await.expect(StatusCode::OK);
    assert_eq!((&devices["items"][0]["token"], &devices["items"][0]["provider"]), (&json!("token-absent"), &json!("fcm")));
    let mute = json!({ "muted_until": "2100-01-01T00:00:00Z" });
    let muted = app.put(&format!("{CONVERSATIONS}/{group}/settings"), mute).by(&muting).send().await.expect(StatusCode::OK);
    assert_eq!(muted["muted_until"], "2100-01-01T00:00:00.000000Z");

    let mut socket = app.socket(&reading, None).await;
    let message = app.say(&sender, &group, "Is anybody there?").await;
    let arrived = socket.next_of("message").await;
    socket.ack(&arrived).await;

    let trace = format!("/api/v1/notifications/trace/{}", message["id"].as_str().expect("id"));
    let decided = until("a decision", async || {
        let trace = app.get(&trace).by(&sender).send().await;
        if trace.status == StatusCode::NOT_FOUND {
            return None;
        }
        let trace = trace.expect(StatusCode::OK);
        let lines = trace["items"].as_array().expect("items").clone();
        lines.iter().all(|line| line["decision"] != "waiting").then_some(lines)
    })
    .await;
    let decision = |person: &Person| decided.iter().find(|line| line["user_id"] == person.id.as_str()).map(|line| line["decision"].clone());
    assert_eq!(decision(&absent), Some(json!("pushed")));
    assert_eq!(decision(&reading), Some(json!("acknowledged")));
    // That somebody muted the conversation is nobody's business but theirs: they got no push, and say so to themselves.
    assert_eq!(decision(&muting), Some(json!("pushed")));
    let own = app.get(&trace).by(&muting).send().await.expect(StatusCode::OK);
    assert_eq!(own["items"][0]["decision"], "muted");
    assert_eq!(decision(&without), Some(json!("no_device")));
    assert_eq!(decision(&sender), None);

    let pushes = pushes(&app).await;
    assert_eq!(pushes.len(), 1, "{pushes:?}");
    assert_eq!((&pushes[0]["to"], &pushes[0]["body"]), (&json!("token-absent"), &json!("Is anybody there?")));
    // A recipient sees why they themselves were told or not, and of nobody else.
    let own = app.get(&trace).by(&absent).send().await.expect(StatusCode::OK);
    assert_eq!(own["items"].as_array().map(Vec::len), Some(1));
    app.get(&trace).by(&app.someone().await).send().await.expect_problem(404, "not_found");

    // A device that is taken away gets nothing more.
    app.delete("/api/v1/notifications/devices?token=token-absent").by(&absent).send().await.expect(StatusCode::NO_CONTENT);
    let devices = app.get("/api/v1/notifications/devices").by(&absent).send().await.expect(StatusCode::OK);
    assert_eq!(devices["items"], json!([]));
}

// --- Blocks ------------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_blocked_person_reaches_nobody_and_learns_nothing() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let friend = app.someone().await;
    let (talk, other_talk) = (app.conversation(&ada, &bala).await, app.conversation(&friend, &bala).await);
    let mut of_bala = app.socket(&bala, None).await;
    let mut of_ada = app.socket(&ada, None).await;
    let sees = async |message: &Value| app.get(&path_of(message)).by(&bala).send().await.status == StatusCode::OK;

    let before = app.say(&ada, &talk, "before").await;
    let arrived = of_bala.next_of("message").await;
    of_bala.ack(&arrived).await;
    of_ada.next_of("message_status").await;

    let block = format!("/api/v1/users/blocked/{}", ada.id);
    for _ in 0..2 {
        app.put(&block, json!({})).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    }
    let blocked = app.get("/api/v1/users/blocked").by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(blocked["items"][0]["user_id"], ada.id.as_str());
    // Word of it travels by the queue; a probe says when it has arrived.
    until("the block is in force", async || {
        let probe = app.say(&ada, &talk, "probe").await;
        (!sees(&probe).await).then_some(())
    })
    .await;
    let in_force_at = app.say(&friend, &other_talk, "in force").await;
    while of_bala.next_of("message").await["payload"]["id"] != in_force_at["id"] {}

    // To the blocked one all looks as ever.
    let hidden = app.say(&ada, &talk, "hidden").await;
    assert_eq!(hidden["status"], "sent");
    let typing = json!({ "conversation_id": talk, "is_typing": true });
    app.post("/api/v1/messages/typing", typing).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.patch(&path_of(&before), json!({ "content": "before, edited" })).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!(conversation_of(&app, &ada, &talk).await["last_message"]["id"], hidden["id"]);
    assert_eq!(app.get(&format!("/api/v1/users/{}", bala.id)).by(&ada).send().await.expect(StatusCode::OK)["id"], bala.id.as_str());

    // Nothing of it arrives: the next event at the blocker is a friend's.
    let friendly = app.say(&friend, &other_talk, "hello").await;
    let next = of_bala.next().await;
    assert_eq!((&next["type"], &next["payload"]["id"]), (&json!("message"), &friendly["id"]));
    assert!(!sees(&hidden).await);
    let listed = everything(&app, &bala, &format!("/api/v1/messages?conversation_id={talk}")).await;
    assert!(listed.iter().all(|message| message["id"] != hidden["id"]), "{listed:?}");

    // What is read or acknowledged after it does not count for it.
    of_bala.ack(&next).await;
    let read = json!({ "conversation_id": talk, "up_to_seq": hidden["seq"] });
    app.post("/api/v1/messages/read", read).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(status_of(&app, &ada, &hidden).await["status"], "sent");

    // After the block messages arrive again; what was sent meanwhile never does.
    app.delete(&block).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    let after = until("the block is lifted", async || {
        let probe = app.say(&ada, &talk, "after").await;
        sees(&probe).await.then_some(probe)
    })
    .await;
    let arrived = of_bala.next_of("message").await;
    assert_eq!(arrived["payload"]["id"], after["id"]);
    assert!(!sees(&hidden).await);
}

// --- Groups ------------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_group_has_an_owner_admins_and_members() {
    let app = TestApp::shared().await;
    let owner = app.someone().await;
    let (admin, member) = app.two().await;
    let late = app.someone().await;
    let group = app.group(&owner, &[&admin, &member]).await;
    let participants = format!("{CONVERSATIONS}/{group}/participants");
    let participant = |person: &Person| format!("{participants}/{}", person.id);
    let role = async |person: &Person| conversation_of(&app, person, &group).await["role"].clone();
    assert_eq!((role(&owner).await, role(&member).await), (json!("owner"), json!("member")));
    app.say(&member, &group, "before").await;

    // Members talk; they manage nothing.
    let rename = || json!({ "title": "Renamed" });
    app.patch(&format!("{CONVERSATIONS}/{group}"), rename()).by(&member).send().await.expect_problem(403, "not_allowed");
    let add = || json!({ "user_ids": [late.id] });
    app.post(&participants, add()).by(&member).send().await.expect_problem(403, "not_allowed");
    app.delete(&participant(&admin)).by(&member).send().await.expect_problem(403, "not_allowed");
    app.patch(&participant(&member), json!({ "role": "admin" })).by(&member).send().await.expect_problem(403, "not_allowed");

    // An admin manages, and does not touch roles or the owner.
    let promoted = app.patch(&participant(&admin), json!({ "role": "admin" })).by(&owner).send().await.expect(StatusCode::OK);
    assert_eq!((&promoted["user_id"], &promoted["role"]), (&json!(admin.id), &json!("admin")));
    app.patch(&format!("{CONVERSATIONS}/{group}"), rename()).by(&admin).send().await.expect(StatusCode::OK);
    app.patch(&participant(&member), json!({ "role": "admin" })).by(&admin).send().await.expect_problem(403, "not_allowed");
    app.delete(&participant(&owner)).by(&admin).send().await.expect_problem(403, "not_allowed");
    let nobody = json!({ "user_ids": ["01890000-0000-7000-8000-000000000000"] });
    let unknown = app.post(&participants, nobody).by(&admin).send().await.expect_problem(422, "unknown_participant");
    assert_eq!(unknown["errors"][0]["field"], "user_ids[0]");
    let mut of_late = app.socket(&late, None).await;
    app.post(&participants, add()).by(&admin).send().await.expect(StatusCode::CREATED);

    // Who joins sees what is said from then on.
    let joined = of_late.next_of("conversation").await;
    assert_eq!((&joined["payload"]["id"], &joined["payload"]["title"]), (&json!(group), &json!("Renamed")));
    app.say(&owner, &group, "welcome").await;
    assert_eq!(of_late.next_of("message").await["payload"]["content"], "welcome");
    let seen = everything(&app, &late, &format!("/api/v1/messages?conversation_id={group}")).await;
    assert_eq!(seen.iter().map(|message| message["content"].clone()).collect::<Vec<_>>(), ["welcome"]);

    // Who is removed is told, and sees nothing more.
    app.delete(&participant(&late)).by(&admin).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(of_late.next_of("conversation").await["payload"], json!({ "id": group, "member": false }));
    app.get(&format!("{CONVERSATIONS}/{group}")).by(&late).send().await.expect_problem(404, "not_found");
    app.text(&late, &group, "late", "still here?").send().await.expect_problem(404, "not_found");

    // The owner leaves, the admin follows; a new owner makes the old one an admin; the last owner ends it for all.
    app.delete(&participant(&owner)).by(&owner).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(role(&admin).await, "owner");
    app.patch(&participant(&admin), json!({ "role": "member" })).by(&admin).send().await.expect_problem(409, "owner_needed");
    app.patch(&participant(&member), json!({ "role": "owner" })).by(&admin).send().await.expect(StatusCode::OK);
    assert_eq!((role(&admin).await, role(&member).await), (json!("admin"), json!("owner")));
    let listed = everything(&app, &member, &participants).await;
    assert_eq!(listed.len(), 2);
    app.delete(&format!("{CONVERSATIONS}/{group}")).by(&admin).send().await.expect_problem(403, "not_allowed");
    app.delete(&format!("{CONVERSATIONS}/{group}")).by(&member).send().await.expect(StatusCode::NO_CONTENT);
    app.get(&format!("{CONVERSATIONS}/{group}")).by(&admin).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn in_a_channel_the_owner_writes_and_all_read() {
    let app = TestApp::shared().await;
    let (owner, reader) = app.two().await;
    let request = json!({ "type": "channel", "title": "News", "participant_ids": [reader.id] });
    let channel = app.post(CONVERSATIONS, request).by(&owner).send().await.expect(StatusCode::CREATED);
    let channel = channel["id"].as_str().expect("id");
    app.text(&reader, channel, "r-1", "May I?").send().await.expect_problem(403, "not_allowed");
    let mut of_reader = app.socket(&reader, None).await;
    app.say(&owner, channel, "The news").await;
    assert_eq!(of_reader.next_of("message").await["payload"]["content"], "The news");
}

#[tokio::test]
async fn everybody_arranges_their_own_conversations() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let friend = app.someone().await;
    let (talk, other_talk) = (app.conversation(&ada, &bala).await, app.conversation(&ada, &friend).await);
    let settings = json!({ "archived": true, "pinned": true });
    let set = app.put(&format!("{CONVERSATIONS}/{talk}/settings"), settings).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&set["archived"], &set["pinned"]), (&json!(true), &json!(true)));
    assert_eq!(conversation_of(&app, &bala, &talk).await["archived"], false);

    // The newest activity first, page by page.
    app.say(&ada, &other_talk, "1").await;
    app.say(&ada, &talk, "2").await;
    let listed = everything(&app, &ada, &format!("{CONVERSATIONS}?limit=1")).await;
    assert_eq!(listed.iter().map(|listed| listed["id"].clone()).collect::<Vec<_>>(), [talk.as_str(), other_talk.as_str()]);

    // A direct conversation that is deleted is off one's own list until somebody says something.
    app.delete(&format!("{CONVERSATIONS}/{talk}")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(everything(&app, &ada, CONVERSATIONS).await.len(), 1);
    assert_eq!(everything(&app, &bala, CONVERSATIONS).await.len(), 1);
    app.say(&bala, &talk, "3").await;
    assert_eq!(everything(&app, &ada, CONVERSATIONS).await.len(), 2);
}

// --- Sessions ----------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_refresh_token_used_again_after_its_successor_ends_the_session() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let refresh = |token: &str| app.post("/api/v1/auth/refresh", json!({ "refresh_token": token }));

    let second = Person::new(&ada.phone, "", "phone", &refresh(&ada.refresh_token).send().await.expect(StatusCode::OK));
    assert_eq!(second.session_id, ada.session_id);
    assert_ne!((&second.refresh_token, &second.access_token), (&ada.refresh_token, &ada.access_token));
    let second = Person::new(&ada.phone, "", "phone", &refresh(&second.refresh_token).send().await.expect(StatusCode::OK));
    let mut socket = app.socket(&second, None).await;

    // A copy of the first one is about, and its successor was used.
    refresh(&ada.refresh_token).send().await.expect_problem(401, "refresh_reused");
    assert_eq!(socket.closed().await, Some(4401));
    for person in [&ada, &second] {
        app.get("/api/v1/users/me").by(person).send().await.expect_problem(401, "token_revoked");
    }
    refresh(&second.refresh_token).send().await.expect_problem(401, "refresh_invalid");
    app.log_in(&ada, "phone").await;
}

/// Each gets a pair, as two tabs would, and ends the unused one before it: one pair is good in the end.
#[tokio::test]
async fn ten_refreshes_at_once_leave_one_good_pair() {
    let app = TestApp::shared().await;
    let ada = app.someone().await;
    let refresh = |token: &str| app.post("/api/v1/auth/refresh", json!({ "refresh_token": token }));
    let replies = join_all((0..10).map(|_| refresh(&ada.refresh_token).send())).await;
    let tokens: Vec<Value> = replies.into_iter().map(|reply| reply.expect(StatusCode::OK)["refresh_token"].clone()).collect();
    let mut good = 0;
    for token in &tokens {
        let reply = refresh(token.as_str().expect("a token")).send().await;
        match reply.status {
            StatusCode::OK => good += 1,
            _ => drop(reply.expect_problem(401, "refresh_invalid")),
        }
    }
    assert_eq!(good, 1);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one_or_all() {
    let app = TestApp::shared().await;
    let phone = app.someone().await;
    let laptop = app.log_in(&phone, "laptop").await;
    let tablet = app.log_in(&phone, "tablet").await;
    let sessions = async || app.get("/api/v1/auth/sessions").by(&phone).send().await.expect(StatusCode::OK)["items"].clone();

    let listed = sessions().await;
    let listed: Vec<_> = listed.as_array().expect("items").iter().map(|session| (&session["device"]["id"], &session["current"])).collect();
    assert_eq!(listed, [(&json!("tablet"), &json!(false)), (&json!("laptop"), &json!(false)), (&json!("phone"), &json!(true))]);

    let (mut of_laptop, mut of_tablet) = (app.socket(&laptop, None).await, app.socket(&tablet, None).await);
    let end = |session: &str| app.delete(&format!("/api/v1/auth/sessions/{session}")).by(&phone);
    end(&laptop.session_id).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(of_laptop.closed().await, Some(4401));
    app.get("/api/v1/users/me").by(&laptop).send().await.expect_problem(401, "token_revoked");
    end(&laptop.session_id).send().await.expect_problem(404, "not_found");
    end(&app.someone().await.session_id).send().await.expect_problem(404, "not_found");

    // Signing in again on a device replaces its session.
    let tablet_again = app.log_in(&phone, "tablet").await;
    assert_eq!(of_tablet.closed().await, Some(4401));
    assert_eq!(sessions().await.as_array().map(Vec::len), Some(2));

    let mut of_phone = app.socket(&phone, None).await;
    app.request(Method::POST, "/api/v1/auth/logout-all").by(&phone).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(of_phone.closed().await, Some(4401));
    app.get("/api/v1/users/me").by(&tablet_again).send().await.expect_problem(401, "token_revoked");

    let back = app.log_in(&phone, "phone").await;
    let history = everything(&app, &back, "/api/v1/auth/login-history?limit=2").await;
    assert!(history.iter().all(|attempt| attempt["outcome"] == "succeeded"), "{history:?}");
    assert_eq!(history[0]["device_id"], "phone");
    assert_eq!(history.len(), 4);
}

#[tokio::test]
async fn a_password_is_changed_forgotten_and_reset() {
    let settings = [("ECHO_SERVICES__AUTH__OTP_RESEND_S", "0")];
    let app = TestApp::with(&["auth", "location", "message", "notification", "user"], &settings).await;
    let ada = app.someone().await;
    let laptop = app.log_in(&ada, "laptop").await;
    let change = |current: &str, new: &str| {
        app.post("/api/v1/auth/password/change", json!({ "current_password": current, "new_password": new })).by(&ada)
    };
    change("not the password", "a new password 1").send().await.expect_problem(403, "wrong_password");
    change(&ada.password, &ada.password).send().await.expect_problem(422, "password_reused");
    change(&ada.password, "12345678").send().await.expect_problem(422, "weak_password");
    change(&ada.password, "a new password 1").send().await.expect(StatusCode::NO_CONTENT);
    app.get("/api/v1/users/me").by(&ada).send().await.expect(StatusCode::OK);
    app.get("/api/v1/users/me").by(&laptop).send().await.expect_problem(401, "token_revoked");

    // The last five are refused.
    for n in 1..=4 {
        let (current, new) = (format!("a new password {n}"), format!("a new password {}", n + 1));
        change(&current, &new).send().await.expect(StatusCode::NO_CONTENT);
    }
    change("a new password 5", "a new password 1").send().await.expect_problem(422, "password_reused");
    change("a new password 5", &ada.password).send().await.expect(StatusCode::NO_CONTENT);

    // Forgotten: a number that nobody has is answered in the same way.
    let codes = async || {
        app.outbox().await.into_iter().filter(|item| item["to"] == ada.phone.as_str() && item["code"].is_string()).collect::<Vec<_>>()
    };
    let sent_before = codes().await.len();
    let forgot = async |phone: &str| {
        let request = app.post("/api/v1/auth/password/forgot", json!({ "phone": phone }));
        let mut answer = request.send().await.expect(StatusCode::ACCEPTED);
        let secret = answer.as_object_mut().and_then(|answer| answer.remove("reset_id")).expect("reset_id");
        assert_eq!(secret.as_str().map(str::len), Some(43));
        answer
    };
    let answer = forgot(&ada.phone).await;
    assert_eq!(forgot(&unused_phone()).await, answer);
    let code = until("a code to reset the password", async || {
        let codes = codes().await;
        (codes.len() > sent_before).then(|| codes[0]["code"].as_str().expect("code").to_owned())
    })
    .await;

    // A code for resetting confirms no number.
    let verify = json!({ "registration_id": "A".repeat(43), "phone": ada.phone, "otp": code, "device": { "id": "phone" } });
    app.post("/api/v1/auth/verify-otp", verify).send().await.expect_problem(422, "invalid_otp");
    let reset =
        |code: &str, new: &str| app.post("/api/v1/auth/password/reset", json!({ "phone": ada.phone, "otp": code, "new_password": new }));
    reset(&code, &ada.password).send().await.expect_problem(422, "password_reused");
    reset(&code, "yet another one 9").send().await.expect(StatusCode::NO_CONTENT);
    app.get("/api/v1/users/me").by(&ada).send().await.expect_problem(401, "token_revoked");
    reset(&code, "and another one 9").send().await.expect_problem(422, "invalid_otp");
    let ada = Person { password: "yet another one 9".to_owned(), ..ada };
    app.log_in(&ada, "phone").await;
}

// --- People ------------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn people_find_and_keep_each_other() {
    let app = TestApp::shared().await;
    let (ada, bala) = app.two().await;
    let name = format!("Zoë Quill {}", &ada.id[30..]);
    app.patch("/api/v1/users/me", json!({ "display_name": name })).by(&ada).send().await.expect(StatusCode::OK);

    // By the beginning of any word, without marks, in any case; and by the whole number, where Ada has Bala's too.
    app.post("/api/v1/users/contacts/match", json!({ "phones": [bala.phone] })).by(&ada).send().await.expect(StatusCode::OK);
    for query in ["zoe%20quill", "QUILL", "Zo%C3%AB", &ada.phone.replace('+', "%2B")] {
        let found = everything(&app, &bala, &format!("/api/v1/users/search?q={query}")).await;
        assert!(found.iter().any(|profile| profile["id"] == ada.id.as_str()), "{query}: {found:?}");
    }
    let batch = json!({ "ids": [bala.id, "01890000-0000-7000-8000-000000000000", ada.id] });
    let batch = app.post("/api/v1/users/batch", batch).by(&bala).send().await.expect(StatusCode::OK);
    let batch: Vec<_> = batch["items"].as_array().expect("items").iter().map(|profile| profile["id"].clone()).collect();
    assert_eq!(batch, [bala.id.as_str(), ada.id.as_str()]);
    let matches = json!({ "phones": [ada.phone, "+14155550000"] });
    let matches = app.post("/api/v1/users/contacts/match", matches).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(matches["items"], json!([{ "phone": ada.phone, "user_id": ada.id }]));

    // Contacts: one adds the other by number; only then the other shows theirs.
    let add = json!({ "phone": ada.phone, "alias": "Z" });
    let contact = app.post("/api/v1/users/contacts", add).by(&bala).send().await.expect(StatusCode::CREATED);
    assert_eq!((&contact["user_id"], &contact["alias"], &contact["profile"]["phone"]), (&json!(ada.id), &json!("Z"), &Value::Null));
    let add = json!({ "user_id": bala.id });
    app.post("/api/v1/users/contacts", add).by(&ada).send().await.expect(StatusCode::CREATED);
    let listed = everything(&app, &bala, "/api/v1/users/contacts").await;
    assert_eq!(listed[0]["profile"]["phone"], ada.phone.as_str());
    let path = format!("/api/v1/users/contacts/{}", ada.id);
    let renamed = app.patch(&path, json!({ "alias": "Zed" })).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!(renamed["alias"], "Zed");
    app.delete(&path).by(&bala).send().await.expect(StatusCode::NO_CONTENT);
    assert_eq!(everything(&app, &bala, "/api/v1/users/contacts").await, Vec::<Value>::new());

    // Privacy: what is for nobody is seen by nobody.
    let privacy = app.get("/api/v1/users/me/privacy").by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&privacy["phone_visible"], &privacy["profile_visible"]), (&json!("contacts"), &json!("everyone")));
    let hide = json!({ "phone_visible": "nobody", "profile_visible": "nobody" });
    let hidden = app.put("/api/v1/users/me/privacy", hide).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&hidden["phone_visible"], &hidden["last_seen_visible"]), (&json!("nobody"), &json!("contacts")));
    let seen = app.get(&format!("/api/v1/users/{}", ada.id)).by(&bala).send().await.expect(StatusCode::OK);
    assert_eq!((&seen["phone"], &seen["country"], &seen["display_name"]), (&Value::Null, &Value::Null, &json!(name)));
    let found = everything(&app, &bala, &format!("/api/v1/users/search?q={}", ada.phone.replace('+', "%2B"))).await;
    assert_eq!(found, Vec::<Value>::new());
}

// --- What the tests ask -----------------------------------------------------------------------------------------------------------------------

fn path_of(message: &Value) -> String {
    format!("/api/v1/messages/{}", message["id"].as_str().expect("id"))
}

/// The one other's status of a message, as its sender sees it.
async fn status_of(app: &TestApp, sender: &Person, message: &Value) -> Value {
    let statuses = app.get(&format!("{}/status", path_of(message))).by(sender).send().await.expect(StatusCode::OK);
    statuses["items"][0].clone()
}

async fn conversation_of(app: &TestApp, person: &Person, id: &str) -> Value {
    app.get(&format!("{CONVERSATIONS}/{id}")).by(person).send().await.expect(StatusCode::OK)
}

/// All items of a list, page by page.
async fn everything(app: &TestApp, person: &Person, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut page = app.get(path).by(person).send().await.expect(StatusCode::OK);
    loop {
        items.extend(page["items"].as_array().expect("items").iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else { return items };
        let next = format!("{path}{}cursor={cursor}", if path.contains('?') { '&' } else { '?' });
        page = app.get(&next).by(person).send().await.expect(StatusCode::OK);
    }
}

/// Waits until the message has reached the feed: it goes there right after the answer to its sender, not before it.
async fn in_the_feed_of(app: &TestApp, person: &Person, message: &Value) {
    until("the message is in the feed", async || {
        let feed = app.get("/api/v1/sync?limit=500").by(person).send().await.expect(StatusCode::OK);
        feed["items"].as_array().expect("items").iter().any(|event| event["payload"]["id"] == message["id"]).then_some(())
    })
    .await;
}

/// The durable events of a resume.
async fn up_to_caught_up(socket: &mut Socket) -> Vec<Value> {
    assert_eq!(socket.next().await["type"], "connection_ack");
    let mut events = Vec::new();
    loop {
        let frame = socket.next().await;
        if frame["type"] == "caught_up" {
            return events;
        }
        events.push(frame);
    }
}

/// What the messages among these events say.
fn contents(events: &[Value]) -> Vec<String> {
    let messages = events.iter().filter(|event| event["type"] == "message");
    messages.map(|event| event["payload"]["content"].as_str().expect("content").to_owned()).collect()
}

async fn pushes(app: &TestApp) -> Vec<Value> {
    app.outbox().await.into_iter().filter(|item| item["channel"] == "push").collect()
}
