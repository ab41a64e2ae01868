//! An outside service behind the gateway, with a real server of its own: who calls it, its WebSocket, its health, and settings of it that are wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::app::{PATIENCE, TestApp};

/// A server that repeats what comes on its WebSockets and answers other requests; and the heads of all.
async fn outside() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, seen.clone()));
        }
    });
    (address, heads)
}

async fn answer(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
    let mut bytes = vec![0; 16 * 1024];
    let head = loop {
        // Not taken away: the WebSocket's server reads it too.
        let count = stream.peek(&mut bytes).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]).to_ascii_lowercase();
        if count == 0 || text.contains("\r\n\r\n") {
            break text;
        }
        tokio::task::yield_now().await;
    };
    seen.lock().push(head.clone());
    if !head.contains("upgrade: websocket") {
        let answer = "HTTP/1.1 418 I'm a teapot\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 3\r\n\r\ntea";
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_outside_service_knows_who_calls_and_its_websocket_ends_with_the_session() {
    let (target, heads) = outside().await;
    let folder = TempDir::new().expect("a folder");
    let (file, key) = (folder.path().join("echo.toml"), folder.path().join("outside.key"));
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").expect("the key is written");
    let rate = "rate = { per = \"user\", strategy = \"token-bucket\", limit = 600, window = \"1m\" }";
    let entry = format!(
        "[[gateway.prefixes]]\nprefix = \"/out\"\ntarget = \"http://{target}/base\"\naccess = \"user\"\nidentity_key = \"file:{}\"\n",
        key.display()
    );
    std::fs::write(&file, format!("{entry}{rate}\n")).expect("the settings are written");
    let app = TestApp::launch_on(folder, "dev", &["auth", "location", "message", "notification", "user"], &[]).await;
    let ada = app.someone().await;

    app.get("/out/x").send().await.expect_problem(401, "token_missing");
    assert!(heads.lock().is_empty());
    let answered = app.client.get(format!("{}/out/x?y=1", app.url)).bearer_auth(&ada.access_token).send().await.expect("an answer");
    assert_eq!((answered.status().as_u16(), answered.text().await.expect("text")), (418, "tea".to_owned()));
    let head = heads.lock().last().expect("a request").clone();
    for line in ["get /base/x?y=1 http/1.1\r\n", &format!("x-user-id: {}\r\n", ada.id), "signature: echo=:"] {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
    assert!(!head.contains("bearer"), "{head}");
    let ready = app.get("/ready").send().await.expect(StatusCode::OK);
    assert_eq!(ready["checks"]["outside"], json!({ "/out": { "status": "up" } }));

    let mut request = format!("{}/out/chat", app.url.replacen("http", "ws", 1)).into_client_request().expect("a request");
    request.headers_mut().insert("authorization", format!("Bearer {}", ada.access_token).parse().expect("a header"));
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("a WebSocket opens");
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.expect("it is sent");
        let came = tokio::time::timeout(PATIENCE, socket.next()).await.expect("it comes back").expect("an open socket").expect("a message");
        assert_eq!(came.to_text().expect("a text"), text);
    }
    app.request(Method::POST, "/api/v1/auth/logout-all").by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    let ended = tokio::time::timeout(PATIENCE, socket.next()).await.expect("it ends");
    assert!(!matches!(ended, Some(Ok(Message::Text(_)))), "{ended:?}");

    std::fs::write(&file, &entry).expect("the settings are written");
    let refused = app.admin(Method::POST, "/admin/v1/reload").send().await.expect_problem(422, "settings_refused");
    let said = refused["errors"].to_string();
    assert!(said.contains("echo.toml, line 1") && said.contains("a target wants a rate"), "{said}");
    app.get("/out/x").send().await.expect_problem(401, "token_missing");
    std::fs::write(&file, "").expect("the settings are written");
    app.admin(Method::POST, "/admin/v1/reload").send().await.expect(StatusCode::OK);
    app.get("/out/x").send().await.expect_problem(404, "not_found");
}
