//! The operator's settings of routes: what they change, over HTTP and over sockets, and what becomes of a file with mistakes.

use std::process::{Command, Output};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::app::{ALL, TestApp, until};

const LOOKUP: &str = "/api/v1/location/lookup?phone=%2B14155552671";

fn folder_with(settings: &str) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), settings);
    folder
}

fn write(folder: &std::path::Path, settings: &str) {
    std::fs::write(folder.join("echo.toml"), settings).expect("the settings are written");
}

/// The output of `serve --check`.
fn check(folder: &std::path::Path, app: &TestApp) -> (bool, String) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_echod"));
    check.args(["serve", "--check", "--plugins"]).arg(app.plugins()).current_dir(folder);
    let Output { status, stderr, .. } = check.output().expect("echod runs");
    (status.success(), String::from_utf8_lossy(&stderr).into_owned())
}

#[tokio::test]
async fn settings_of_routes_are_read_again_and_a_mistake_changes_nothing() {
    let folder = folder_with("[gateway]\nrate_scale = 1\n");
    let path = folder.path().to_owned();
    let app = TestApp::launch_on(folder, "serve", &["location"], &[("ECHO_PASSWORDS__COST", "production")]).await;
    app.get(LOOKUP).send().await.expect(StatusCode::OK);

    // Stricter access, under a second prefix too, and both as the documents say.
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\naccess = \"user\"\n[[gateway.prefixes]]\nprefix = \"/v2/numbers\"\n\
         service = \"location\"\n",
    );
    assert_eq!(check(&path, &app), (true, String::new()));
    let reloaded = app.admin(Method::POST, "/admin/v1/reload").send().await.expect(StatusCode::OK);
    assert_eq!((&reloaded["overrides"], &reloaded["prefixes"]), (&json!(1), &json!(1)), "{reloaded}");
    app.get(LOOKUP).send().await.expect_problem(401, "token_missing");
    app.get("/v2/numbers/lookup?phone=%2B14155552671").send().await.expect_problem(401, "token_missing");
    let document = app.get("/openapi.json").send().await.expect(StatusCode::OK);
    for path in ["/api/v1/location/lookup", "/v2/numbers/lookup"] {
        assert_eq!(document["paths"][path]["get"]["security"], json!([{ "bearer": [] }]), "{path}");
    }

    // A rate, by SIGHUP: what went before is counted too, so the first request may be one too many.
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nrate = { per = \"ip\", strategy = \"fixed-window\", limit = 2, window = \"1h\" }\n",
    );
    app.signal("HUP");
    until("the access is as before", async || (app.get(LOOKUP).send().await.status != StatusCode::UNAUTHORIZED).then_some(())).await;
    until("the rate is the operator's", async || (app.get(LOOKUP).send().await.status == StatusCode::TOO_MANY_REQUESTS).then_some(()))
        .await;
    app.get("/v2/numbers/lookup").send().await.expect_problem(404, "not_found");

    // Mistakes: each with its line, and nothing changes.
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lokup\"\naccess = \"user\"\n[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\n\
         timeout = \"29s\"\n",
    );
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    let said = refused["errors"].to_string();
    let (is_good, checked) = check(&path, &app);
    assert!(!is_good);
    for said in [said, checked] {
        for expect in ["echo.toml, line 1", "did you mean GET /api/v1/location/lookup?", "echo.toml, line 4", "limits.wall"] {
            assert!(said.contains(expect), "{said} does not say {expect}");
        }
    }
    write(&path, "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nacess = \"user\"\n");
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    assert!(refused["errors"].to_string().contains("echo.toml, line 3"), "{refused}");
    app.get(LOOKUP).send().await.expect_problem(429, "rate_limited");
    // Of every kind, all at once.
    write(
        &path,
        "[server]\nrequest_timeout = \"11h\"\ndocs = 7\n[gateway]\nservices_off = [\"locatio\"]\n[[gateway.routes]]\nmatch = \"GET /nowhere\"\naccess = \"user\"\n\
         [[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nacess = \"user\"\n[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\ntimeout = \"0s\"\n",
    );
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    for said in [refused["errors"].to_string(), check(&path, &app).1] {
        for expect in ["server.request_timeout", "server.docs", "line 5: gateway.services_off", "line 6", "line 11", "line 12"] {
            assert!(said.contains(expect), "{said} does not say {expect}");
        }
    }

    // Other settings wait for a restart, and without its entries a route is as its manifest says.
    write(&path, "[gateway]\nrate_scale = 1\n[feed]\ncursors_kept = \"30d\"\n");
    let reloaded = app.admin(Method::POST, "/admin/v1/reload").send().await.expect(StatusCode::OK);
    assert_eq!(reloaded, json!({ "overrides": 0, "prefixes": 0, "after_restart": ["feed.cursors_kept"] }));
    app.get(LOOKUP).send().await.expect(StatusCode::OK);
}

#[tokio::test]
async fn an_override_holds_for_the_frames_that_call_the_same_function() {
    let folder = folder_with(
        "[[gateway.routes]]\nmatch = \"POST /api/v1/messages/typing\"\naccess = \"role:support\"\n\
         rate = { per = \"user\", strategy = \"fixed-window\", limit = 4, window = \"1h\" }\n",
    );
    let services = ["auth", "location", "message", "notification", "user"];
    let app = TestApp::launch_on(folder, "dev", &services, &[("ECHO_GATEWAY__RATE_SCALE", "1")]).await;
    // Services start one after another: a setting of one that is about to come is no mistake.
    assert!(!app.log().contains("has no effect"), "{}", app.log());
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let typing = json!({ "conversation_id": talk, "is_typing": true });
    app.post("/api/v1/messages/typing", typing.clone()).by(&ada).send().await.expect_problem(403, "role_required");
    let mut socket = app.socket(&ada, None).await;
    // Four are counted at most in the hour, and a fifth is one too many even where the hour begins anew between them.
    let mut codes = Vec::new();
    for _ in 0..10 {
        let answer = socket.ask("typing", typing.clone()).await;
        codes.push(answer["payload"]["code"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(codes[0], "role_required");
    assert_eq!(codes.last().map(String::as_str), Some("rate_limited"));
}

#[tokio::test]
async fn a_service_that_is_switched_off_answers_503_and_the_others_go_on() {
    let folder = folder_with("[gateway]\nrate_scale = 1000\n");
    let path = folder.path().to_owned();
    let app = TestApp::launch_on(folder, "dev", &ALL, &[]).await;
    let (ada, bala) = app.two().await;
    let talk = app.conversation(&ada, &bala).await;
    let reload = async |settings: &str| {
        write(&path, settings);
        app.admin(Method::POST, "/admin/v1/reload").send().await
    };
    let document = app.get("/openapi.json").send().await.expect(StatusCode::OK);
    let routes: Vec<(Method, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, operations)| operations.as_object().expect("operations").keys().map(move |method| (method, path)))
        .map(|(method, path)| (method.to_uppercase().parse().expect("a method"), path.clone()))
        .collect();
    let ask = |method: &Method, path: &str| {
        let path = ["{id}", "{user_id}", "{message_id}"].iter().fold(path.to_owned(), |path, name| path.replace(name, &ada.id));
        let path = path.replace("{emoji}", "a").replace("{code}", "a");
        let ask = app.request(method.clone(), &path).by(&ada);
        if *method == Method::GET || *method == Method::DELETE { ask } else { ask.json(json!({})) }
    };
    // Uploads are refused for their headers before any service is asked.
    let is_upload = |method: &Method, path: &str| *method != Method::GET && *method != Method::DELETE && path.starts_with("/api/v1/media");
    let prefixes = ["analytics", "location", "media", "message", "notification", "presence", "user"];
    for off in prefixes {
        reload(&format!("[gateway]\nservices_off = [\"{off}\"]\n")).await.expect(StatusCode::OK);
        let mut asked = 0;
        for (method, path) in routes.iter().filter(|(method, path)| path.starts_with(&format!("/api/v1/{off}")) && !is_upload(method, path))
        {
            let reply = ask(method, path).send().await;
            // Whose role is wanted is asked before.
            if reply.status == StatusCode::FORBIDDEN {
                continue;
            }
            assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{method} {path}");
            reply.expect_problem(503, "service_off");
            asked += 1;
        }
        assert!(asked > 0, "{off} has no routes");
        let ready = app.get("/ready").send().await.expect(StatusCode::OK);
        let others = prefixes.iter().filter(|other| **other != off).all(|other| ready["checks"]["plugins"][other]["status"] == "up");
        assert!(ready["checks"]["plugins"][off]["status"] == "off" && others && ready["status"] == "up", "{ready}");
        let shown = app.admin(Method::GET, &format!("/admin/v1/plugins/{off}")).send().await.expect(StatusCode::OK);
        assert_eq!(shown["state"], "off");
        app.get("/api/v1/auth/sessions").by(&ada).send().await.expect(StatusCode::OK);
        if off != "message" && off != "user" {
            app.say(&ada, &talk, "the others go on").await;
        }
        if off != "user" {
            app.get("/api/v1/users/me").by(&ada).send().await.expect(StatusCode::OK);
        }
    }
    // Frames too, and the socket stays.
    let mut socket = app.socket(&ada, None).await;
    reload("[gateway]\nservices_off = [\"presence\", \"notification\"]\n").await.expect(StatusCode::OK);
    let answer = socket.ask("presence", json!({ "status": "busy" })).await;
    assert_eq!((&answer["type"], &answer["payload"]["status"]), (&json!("error"), &json!(503)), "{answer}");
    assert_eq!(answer["payload"]["code"], "service_off");
    // What happened meanwhile comes to the service when it is there again.
    let text =
        json!({ "conversation_id": talk, "client_message_id": "meanwhile", "type": "text", "content": "You", "mentions": [bala.id] });
    let message = app.post("/api/v1/messages", text).by(&ada).send().await.expect(StatusCode::CREATED);

    let refused = reload("[gateway]\nservices_off = [\"presense\"]\n").await.expect_problem(422, "settings_refused");
    let said = refused["errors"].to_string();
    assert!(said.contains("echo.toml, line 2") && said.contains("did you mean presence?"), "{refused}");
    reload("").await.expect(StatusCode::OK);
    assert_eq!(socket.ask("presence", json!({ "status": "busy" })).await["type"], "reply");
    until("the mention is in the list", async || {
        let list = app.get("/api/v1/notifications").by(&bala).send().await.expect(StatusCode::OK);
        list["items"].as_array()?.iter().any(|item| item["message_id"] == message["id"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fields_and_headers_of_a_route_are_changed_and_the_document_says_so() {
    let folder = folder_with("[gateway]\nrate_scale = 1000\n");
    let path = folder.path().to_owned();
    let app = TestApp::launch_on(folder, "dev", &["auth", "location", "message", "notification", "user"], &[]).await;
    let ada = app.someone().await;
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nrequest_fields = { rename = { number = \"phone\" } }\n\
         response_fields = { rename = { country = \"land\" }, default = { carrier = \"unknown\" } }\nresponse_headers = { set = { X-Source = \"numbers\" } }\n\
         [[gateway.routes]]\nmatch = \"PATCH /api/v1/users/me\"\nrequest_fields = { rename = { name = \"display_name\" }, default = { bio = \"new here\" } }\n\
         response_fields = { rename = { display_name = \"name\" } }\n\
         [[gateway.routes]]\nmatch = \"POST /api/v1/messages/conversations\"\nrequest_headers = { rename = { X-Once = \"Idempotency-Key\" } }\n\
         [[gateway.prefixes]]\nprefix = \"/v2/numbers\"\nservice = \"location\"\n",
    );
    assert_eq!(check(&path, &app), (true, String::new()));
    app.admin(Method::POST, "/admin/v1/reload").send().await.expect(StatusCode::OK);

    // The query's fields, and the answer's, also where it is kept, and under another prefix.
    for lookup in ["/api/v1/location/lookup", "/v2/numbers/lookup"] {
        let mut etag = String::new();
        for _ in 0..3 {
            let answer = app.get(&format!("{lookup}?number=%2B14155552671")).send().await;
            assert_eq!(answer.header("x-source"), "numbers");
            etag = answer.header("etag").to_owned();
            let found = answer.expect(StatusCode::OK);
            assert_eq!((&found["land"], &found["country"], &found["carrier"]), (&json!("US"), &json!(null), &json!("unknown")), "{found}");
        }
        let kept = app.client.get(format!("{}{lookup}?number=%2B14155552671", app.url)).header("if-none-match", etag);
        assert_eq!(kept.send().await.expect("an answer").status().as_u16(), 304);
        let refused = app.get(&format!("{lookup}?phone=%2B14155552671")).send().await.expect_problem(422, "invalid");
        assert_eq!(refused["errors"][0]["field"], "phone", "{refused}");
    }
    // A body's. A value that is given takes the place of the default.
    let patch = async |body| app.request(Method::PATCH, "/api/v1/users/me").by(&ada).json(body).send().await;
    let me = patch(json!({ "name": "Ada" })).await.expect(StatusCode::OK);
    assert_eq!((&me["name"], &me["display_name"], &me["bio"]), (&json!("Ada"), &json!(null), &json!("new here")), "{me}");
    let me = patch(json!({ "name": "Ada", "bio": "a poet" })).await.expect(StatusCode::OK);
    assert_eq!(me["bio"], "a poet");
    let refused = patch(json!({ "name": 7 })).await.expect_problem(422, "invalid");
    assert_eq!(refused["errors"][0]["field"], "name", "{refused}");
    let refused = patch(json!({ "display_name": "Ada" })).await.expect_problem(422, "invalid");
    assert_eq!(refused["errors"][0]["code"], "unknown_field", "{refused}");
    let me = app.get("/api/v1/users/me").by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&me["display_name"], &me["name"]), (&json!("Ada"), &json!(null)), "other routes have the service's names: {me}");

    let document = app.get("/openapi.json").send().await.expect(StatusCode::OK);
    let resolved = |schema: &serde_json::Value| match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("it is there").clone(),
        None => schema.clone(),
    };
    for lookup in ["/api/v1/location/lookup", "/v2/numbers/lookup"] {
        let operation = &document["paths"][lookup]["get"];
        assert_eq!(operation["parameters"][0]["name"], "number");
        let reply = resolved(&operation["responses"]["200"]["content"]["application/json"]["schema"]);
        assert!(reply["properties"]["land"].is_object() && reply["properties"]["country"].is_null(), "{reply}");
        assert_eq!(reply["properties"]["carrier"]["type"], "string", "never null: {reply}");
    }
    let body = resolved(&document["paths"]["/api/v1/users/me"]["patch"]["requestBody"]["content"]["application/json"]["schema"]);
    assert_eq!((&body["properties"]["bio"]["default"], &body["properties"]["display_name"]), (&json!("new here"), &json!(null)));
    let own = resolved(&document["paths"]["/api/v1/users/me"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]);
    assert!(own["properties"]["display_name"].is_object() && own["properties"]["name"].is_null(), "{own}");

    // A key for repeating, under the client's own name.
    let bala = app.someone().await;
    let body = json!({ "type": "group", "title": "Poets", "participant_ids": [bala.id] });
    let begin = async || app.post("/api/v1/messages/conversations", body.clone()).by(&ada).header("x-once", "1").send().await;
    let first = begin().await.expect(StatusCode::CREATED);
    let again = begin().await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(StatusCode::CREATED)["id"], first["id"]);

    // Mistakes: each with its line and the nearest name, and nothing changes.
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nrequest_fields = { rename = { number = \"fone\" } }\n\
         response_fields = { rename = { county = \"land\", region = \"country\" }, default = { valid = \"yes\" } }\n\
         response_headers = { set = { Set-Cookie = \"a=b\" } }\n[[gateway.routes]]\nmatch = \"PATCH /api/v1/users/me\"\n\
         request_fields = { default = { bio = 7 } }\n",
    );
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    let (is_good, checked) = check(&path, &app);
    assert!(!is_good);
    assert!(checked.contains("Set-Cookie") && refused["errors"].to_string().contains("Set-Cookie"), "{checked} {refused}");
    write(
        &path,
        "[[gateway.routes]]\nmatch = \"GET /api/v1/location/lookup\"\nrequest_fields = { rename = { number = \"phones\" } }\n\
         response_fields = { rename = { countri = \"land\", region = \"country\" }, default = { valid = true } }\n\
         [[gateway.routes]]\nmatch = \"PATCH /api/v1/users/me\"\nrequest_fields = { default = { bio = 7 } }\n",
    );
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    let (is_good, checked) = check(&path, &app);
    assert!(!is_good);
    for said in [refused["errors"].to_string(), checked] {
        for expect in [
            "echo.toml, line 1",
            "did you mean phone?",
            "did you mean country?",
            "two fields would be named country",
            "valid is never null",
            "echo.toml, line 5",
            "the default 7",
        ] {
            assert!(said.contains(expect), "{said} does not say {expect}");
        }
    }
    app.get("/api/v1/location/lookup?number=%2B14155552671").send().await.expect(StatusCode::OK);
}
