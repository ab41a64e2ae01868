//! A host as an operator starts it, on a data folder of its own and free ports, and users who call its public interface.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use echo_engines::postgres::Database;
use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::backing::{self, Backing, Jumps};
use echo_base::limits;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The services of the repository.
pub const ALL: [&str; 8] = ["analytics", "auth", "location", "media", "message", "notification", "presence", "user"];

/// A running `echod dev`, or several on shared engines. Dropping it kills it.
pub struct TestApp {
    hosts: Vec<Host>,
    pub data: TempDir,
    /// Of the first host.
    pub url: String,
    pub admin_url: String,
    pub admin_token: String,
    pub client: reqwest::Client,
    settings: Vec<(String, String)>,
    plugins: PathBuf,
    arguments: Vec<String>,
    /// Which host the next request and the next socket go to.
    jumps: Jumps,
    /// Gone after the host.
    database: Option<Database>,
}

/// One process, with its data and its log in the test's folder.
struct Host {
    process: Child,
    number: usize,
    url: String,
    admin_url: String,
    admin_token: String,
}

/// Where `cargo xtask plugins --guests` puts what it packs.
pub fn packed(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_echod")).parent().and_then(Path::parent).expect("the binary is in target/<profile>");
    let candidates = [target.join("plugins"), target.join("guests")];
    let path = candidates.iter().map(|folder| folder.join(format!("{name}.wasm"))).find(|path| path.exists());
    path.unwrap_or_else(|| panic!("{name} is not packed; run `cargo xtask plugins --guests` first"))
}

/// Keeps connections for less time than the host does: one that the host has just closed would fail the request.
fn client() -> reqwest::Client {
    let kept = Duration::from_millis(limits::HEADER_READ_TIMEOUT_MS / 2);
    reqwest::Client::builder().pool_idle_timeout(kept).build().expect("a client")
}

impl TestApp {
    /// All services, in development mode.
    pub async fn start() -> Self {
        Self::with(&ALL, &[]).await
    }

    /// The host shared by tests that neither stop it nor need other settings, and that work beside other users. It runs as long as one of them.
    pub async fn shared() -> Arc<Self> {
        static SHARED: [tokio::sync::Mutex<Weak<TestApp>>; 3] = [const { tokio::sync::Mutex::const_new(Weak::new()) }; 3];
        let mut shared = SHARED[Backing::of_this_test() as usize].lock().await;
        if let Some(app) = shared.upgrade() {
            return app;
        }
        let mut app = Self::start().await;
        // A kept connection belongs to the test that opened it, and ends with that test.
        app.client = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        let app = Arc::new(app);
        *shared = Arc::downgrade(&app);
        app
    }

    /// These services, and these settings as environment variables.
    pub async fn with(services: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::launch("dev", services, settings).await
    }

    /// `mode`: `dev` or `serve`.
    pub async fn launch(mode: &str, services: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::launch_on(TempDir::new().expect("a temporary folder"), mode, services, settings).await
    }

    /// `data`: what is there already below `data_folder` is its data.
    pub async fn launch_on(data: TempDir, mode: &str, services: &[&str], settings: &[(&str, &str)]) -> Self {
        let count = if Backing::of_this_test() == Backing::Hosts { backing::hosts() } else { 1 };
        Self::launch_hosts(count, data, mode, services, settings).await
    }

    async fn launch_hosts(count: usize, data: TempDir, mode: &str, services: &[&str], settings: &[(&str, &str)]) -> Self {
        let plugins = data.path().join("packed");
        std::fs::create_dir(&plugins).expect("a folder in the temporary one");
        for service in services {
            std::fs::copy(packed(service), plugins.join(format!("{service}.wasm"))).expect("a packed file is copied");
        }
        let permissions = data.path().join("guests.wit");
        std::fs::write(&permissions, include_str!("../wit/services.wit")).expect("the guests' permissions");
        let mut settings: Vec<(String, String)> = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        settings.push(("ECHO_DATA__PERMISSIONS".to_owned(), permissions.display().to_string()));
        if !settings.iter().any(|(key, _)| key == "ECHO_PASSWORDS__COST") {
            settings.push(("ECHO_PASSWORDS__COST".to_owned(), "light".to_owned()));
        }
        let backing = Backing::of_this_test();
        // The same stories on the other engines.
        let database = (backing != Backing::Embedded && !is_on_postgres(&settings)).then(new_database);
        if let Some(database) = &database {
            settings.extend(on_postgres(database));
        }
        if count > 1 && !settings.iter().any(|(key, _)| key == "ECHO_CACHE__URL") {
            settings.extend(backing::shared_by_hosts());
        }
        let arguments = vec![mode.to_owned(), "--listen".into(), "127.0.0.1:0".into(), "--admin-listen".into(), "127.0.0.1:0".into()];
        let mut app = Self {
            hosts: Vec::new(),
            data,
            url: String::new(),
            admin_url: String::new(),
            admin_token: String::new(),
            client: client(),
            settings,
            plugins,
            arguments,
            jumps: Jumps::new(),
            database,
        };
        // The first makes the tables.
        for number in 0..count {
            let host = app.spawn(number);
            app.hosts.push(host);
            app.wait_until_ready(number).await;
        }
        app
    }

    /// In development mode, on a PostgreSQL database of its own.
    pub async fn with_postgres(services: &[&str], settings: &[(&str, &str)]) -> Self {
        let database = new_database();
        let on_postgres = on_postgres(&database);
        let on_postgres = on_postgres.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let settings: Vec<(&str, &str)> = settings.iter().copied().chain(on_postgres).collect();
        let mut app = Self::with(services, &settings).await;
        app.database = Some(database);
        app
    }

    /// Its `--data`; the first host's.
    pub fn data_folder(&self) -> PathBuf {
        data_folder(&self.data)
    }

    /// Of all hosts.
    pub fn data_folders(&self) -> Vec<PathBuf> {
        self.hosts.iter().map(|host| data_folder_of(&self.data, host.number)).collect()
    }

    /// The address of its PostgreSQL database, where it has one of its own.
    pub fn database(&self) -> Option<&str> {
        self.database.as_ref().map(Database::url)
    }

    /// Its `--plugins`.
    pub fn plugins(&self) -> &Path {
        &self.plugins
    }

    /// The first host's.
    pub fn pid(&self) -> u32 {
        self.hosts[0].process.id()
    }

    /// kill -9 of every host.
    pub fn kill(&mut self) {
        for host in &mut self.hosts {
            host.process.kill().expect("the host is there to be killed");
            host.process.wait().expect("a killed process ends");
        }
    }

    /// SIGTERM to every host, and an exit status that is no success where there was one.
    pub async fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// `TERM`, `INT`, … to every host.
    pub fn signal(&self, name: &str) {
        for host in &self.hosts {
            echo_engines::signal(host.process.id(), name).expect("the host is there to be told");
        }
    }

    /// Waits for the end of the processes; an exit status that is no success where there was one.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let until = Instant::now() + PATIENCE;
        let mut statuses = Vec::new();
        for host in &mut self.hosts {
            loop {
                if let Some(status) = host.process.try_wait().expect("our own child") {
                    statuses.push(status);
                    break;
                }
                assert!(Instant::now() < until, "the host did not end within {PATIENCE:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        *statuses.iter().find(|status| !status.success()).unwrap_or(&statuses[0])
    }

    /// Starts again on the same data, at other addresses.
    pub async fn restart(&mut self) {
        self.begin_restart();
        for number in 0..self.hosts.len() {
            self.wait_until_ready(number).await;
        }
    }

    /// A setting, as an environment variable, from the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Ended, and up again in the other mode on the same data.
    pub async fn restart_in(&mut self, mode: &str) {
        self.terminate().await;
        mode.clone_into(&mut self.arguments[0]);
        if mode == "serve" {
            // Light hashing is for development alone.
            self.settings.retain(|(key, _)| key != "ECHO_PASSWORDS__COST");
        }
        self.restart().await;
    }

    /// Starts again on the same data, without waiting until it serves.
    pub fn begin_restart(&mut self) {
        for number in 0..self.hosts.len() {
            let _ = std::fs::remove_file(self.addresses_of(number));
            self.hosts[number] = self.spawn(number);
        }
    }

    async fn wait_until_ready(&mut self, number: usize) {
        let file = self.addresses_of(number);
        let until = Instant::now() + START_TIMEOUT;
        loop {
            assert!(Instant::now() < until, "the host was not ready in time; its log:\n{}", self.log());
            if let Some(status) = self.hosts[number].process.try_wait().expect("our own child") {
                panic!("the host ended with {status}; its log:\n{}", self.log());
            }
            if let Some(addresses) = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok()) {
                let is_encrypted = addresses["tls"] == true;
                let scheme = if is_encrypted { "https" } else { "http" };
                let host = &mut self.hosts[number];
                host.url = format!("{scheme}://{}", addresses["public"].as_str().expect("public"));
                host.admin_url = format!("http://{}", addresses["admin"].as_str().expect("admin"));
                host.admin_token = addresses["admin_token"].as_str().expect("admin_token").to_owned();
                if number == 0 {
                    (self.url, self.admin_url) = (host.url.clone(), host.admin_url.clone());
                    self.admin_token = host.admin_token.clone();
                }
                // The operator's listener has no TLS.
                let url = if is_encrypted { &host.admin_url } else { &host.url };
                if let Ok(reply) = self.client.get(format!("{url}/ready")).send().await
                    && reply.status() == StatusCode::OK
                {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn spawn(&self, number: usize) -> Host {
        let (data, log) = (data_folder_of(&self.data, number), log_of(&self.data, number));
        let name = format!("host-{}", number + 1);
        let mut settings = self.settings.clone();
        if number > 0 || Backing::of_this_test() == Backing::Hosts {
            settings.push(("ECHO_NODE__NAME".to_owned(), name));
        }
        let process = spawn(self.data.path(), &log, &data, &self.plugins, &self.arguments, &settings);
        Host { process, number, url: String::new(), admin_url: String::new(), admin_token: String::new() }
    }

    /// Where the next request or socket goes.
    fn next_url(&self) -> &str {
        &self.hosts[self.jumps.next(self.hosts.len())].url
    }

    /// The first host's.
    pub fn addresses(&self) -> PathBuf {
        self.addresses_of(0)
    }

    fn addresses_of(&self, number: usize) -> PathBuf {
        data_folder_of(&self.data, number).join("run/addresses.json")
    }

    /// Of all hosts, one after the other.
    pub fn log(&self) -> String {
        self.hosts.iter().map(|host| std::fs::read_to_string(log_of(&self.data, host.number)).unwrap_or_default()).collect()
    }

    /// At one of the hosts.
    pub fn request(&self, method: Method, path: &str) -> Ask {
        Ask(self.client.request(method, format!("{}{path}", self.next_url())))
    }

    pub fn get(&self, path: &str) -> Ask {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: Value) -> Ask {
        self.request(Method::POST, path).json(body)
    }

    pub fn put(&self, path: &str, body: Value) -> Ask {
        self.request(Method::PUT, path).json(body)
    }

    pub fn patch(&self, path: &str, body: Value) -> Ask {
        self.request(Method::PATCH, path).json(body)
    }

    pub fn delete(&self, path: &str) -> Ask {
        self.request(Method::DELETE, path)
    }

    /// Sends a chunked body without Content-Length; the whole answer as text.
    pub async fn chunked(&self, method: &str, path: &str, body: &[u8]) -> String {
        let (mut from, mut to) = self.connect().await.into_split();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let sending = async {
            // The host may answer and close before it has read all; only the answer counts.
            let _ = to.write_all(head.as_bytes()).await;
            for piece in body.chunks(16 * 1024) {
                let piece = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                if to.write_all(&piece).await.is_err() {
                    break;
                }
            }
            let _ = to.write_all(b"0\r\n\r\n").await;
        };
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(PATIENCE, from.read_to_end(&mut answer));
        let ((), read) = tokio::join!(sending, reading);
        read.expect("an answer in time").expect("an answer");
        String::from_utf8(answer).expect("an answer is text")
    }

    /// A TCP connection, for bytes that no client library would send.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.url.trim_start_matches("http://")).await.expect("the host listens")
    }

    /// The operator API, with the operator's token.
    pub fn admin(&self, method: Method, path: &str) -> Ask {
        Ask(self.client.request(method, format!("{}{path}", self.admin_url)).bearer_auth(&self.admin_token))
    }

    /// Uploads a packed file and makes it live; the answer of the last step.
    pub async fn deploy(&self, service: &str, file: Vec<u8>) -> Reply {
        self.deploy_allowing(service, file, &[]).await
    }

    /// ... with these changes confirmed by their names.
    pub async fn deploy_allowing(&self, service: &str, file: Vec<u8>, allow: &[&str]) -> Reply {
        let allow: Vec<String> = allow.iter().map(|name| format!("allow={}", name.replace(' ', "+"))).collect();
        let allow = allow.join("&");
        let staged = self.admin(Method::POST, &format!("/admin/v1/plugins/{service}/versions?{allow}")).bytes(file).send().await;
        if staged.status != StatusCode::CREATED {
            return staged;
        }
        let version = staged.body["version"].clone();
        self.admin(Method::PUT, &format!("/admin/v1/plugins/{service}/active?{allow}")).json(json!({ "version": version })).send().await
    }

    /// What would have left, as GET /dev/outbox shows it, newest first. Hosts that share a database show the same.
    pub async fn outbox(&self) -> Vec<Value> {
        let outbox = self.get("/dev/outbox").send().await.expect(StatusCode::OK);
        outbox["items"].as_array().expect("items").clone()
    }

    /// The newest code sent to this number.
    pub async fn code_sent_to(&self, phone: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let items = self.outbox().await;
            if let Some(code) = items.iter().find(|item| item["to"] == phone).and_then(|item| item["code"].as_str()) {
                return code.to_owned();
            }
            assert!(Instant::now() < until, "no code was sent to {phone}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Registers, confirms the number and signs in on a first device.
    pub async fn sign_up(&self, phone: &str, device: &str) -> Person {
        self.sign_up_with(phone, device, |ask| ask).await
    }

    /// The same from this address, of a host behind one proxy.
    pub async fn sign_up_from(&self, phone: &str, device: &str, address: &str) -> Person {
        self.sign_up_with(phone, device, |ask| ask.header("x-forwarded-for", address)).await
    }

    async fn sign_up_with(&self, phone: &str, device: &str, change: impl Fn(Ask) -> Ask) -> Person {
        let password = "correct horse battery 7";
        let register = json!({ "phone": phone, "password": password, "name": format!("Person {phone}") });
        let registered = change(self.post("/api/v1/auth/register", register)).send().await.expect(StatusCode::CREATED);
        let otp = self.code_sent_to(phone).await;
        let registration = &registered["registration_id"];
        let verify = json!({ "registration_id": registration, "phone": phone, "otp": otp, "device": { "id": device } });
        let tokens = change(self.post("/api/v1/auth/verify-otp", verify)).send().await.expect(StatusCode::OK);
        Person::new(phone, password, device, &tokens)
    }

    /// Signed up with a number of its own.
    pub async fn someone(&self) -> Person {
        self.sign_up(&unused_phone(), "phone").await
    }

    pub async fn two(&self) -> (Person, Person) {
        (self.someone().await, self.someone().await)
    }

    /// The same person on another device.
    pub async fn log_in(&self, person: &Person, device: &str) -> Person {
        let login = json!({ "phone": person.phone, "password": person.password, "device": { "id": device } });
        let tokens = self.post("/api/v1/auth/login", login).send().await.expect(StatusCode::OK);
        Person::new(&person.phone, &person.password, device, &tokens)
    }

    /// A group of the person and others; its id.
    pub async fn group(&self, owner: &Person, members: &[&Person]) -> String {
        let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
        let request = json!({ "type": "group", "title": "A group", "participant_ids": ids });
        let group = self.post("/api/v1/messages/conversations", request).by(owner).send().await.expect(StatusCode::CREATED);
        group["id"].as_str().expect("id").to_owned()
    }

    /// Sends a text and gives the message.
    pub async fn say(&self, person: &Person, conversation: &str, content: &str) -> Value {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let client_message_id = format!("said-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.text(person, conversation, &client_message_id, content).send().await.expect(StatusCode::CREATED)
    }

    /// A direct conversation of two; its id.
    pub async fn conversation(&self, one: &Person, other: &Person) -> String {
        let request = json!({ "type": "direct", "participant_ids": [other.id] });
        let reply = self.post("/api/v1/messages/conversations", request).by(one).send().await;
        assert!(matches!(reply.status, StatusCode::CREATED | StatusCode::OK), "{reply:?}");
        reply.body["id"].as_str().expect("id").to_owned()
    }

    pub fn text(&self, person: &Person, conversation: &str, client_message_id: &str, content: &str) -> Ask {
        let message =
            json!({ "conversation_id": conversation, "client_message_id": client_message_id, "type": "text", "content": content });
        self.post("/api/v1/messages", message).by(person)
    }

    /// Opens a socket with the person's token; `since` resumes.
    pub async fn socket(&self, person: &Person, since: Option<u64>) -> Socket {
        self.try_socket(person, since).await.expect("a socket opens")
    }

    pub async fn try_socket(&self, person: &Person, since: Option<u64>) -> Result<Socket, SocketError> {
        Socket::open(self.next_url(), person, since).await
    }

    /// With this query (`?` included) and these headers and no others.
    pub async fn open_socket(&self, query: &str, headers: &[(&'static str, &str)]) -> Result<Socket, SocketError> {
        Socket::open_with(self.next_url(), query, headers).await
    }
}

/// The time so many seconds from now, as JSON has it (RFC 3339).
pub fn in_seconds(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

/// A valid number that no test has used before: 201-555-xxxx stands in every edition of the North American plan.
pub fn unused_phone() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("+1201555{:04}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            let _ = host.process.kill();
            let _ = host.process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the host's log ({}) ---\n{}", self.jumps, self.log());
        }
    }
}

pub fn new_database() -> Database {
    Database::new().unwrap_or_else(|error| panic!("{error}"))
}

/// The settings of a host on this database.
pub fn on_postgres(database: &Database) -> [(String, String); 4] {
    on_database(database.url())
}

pub fn on_database(url: &str) -> [(String, String); 4] {
    [
        ("ECHO_SQL__URL", "env:DATABASE_OF_TEST"),
        ("DATABASE_OF_TEST", url),
        ("ECHO_TOKENS__MASTER_KEY", "env:MASTER_KEY_OF_TEST"),
        ("MASTER_KEY_OF_TEST", "the master key of tests, 32 characters or more"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn is_on_postgres(settings: &[(String, String)]) -> bool {
    settings.iter().any(|(key, _)| key == "ECHO_SQL__URL")
}

/// Where a host of this temporary folder has its data.
pub fn data_folder(data: &TempDir) -> PathBuf {
    data_folder_of(data, 0)
}

fn data_folder_of(data: &TempDir, number: usize) -> PathBuf {
    data.path().join(if number == 0 { "data".to_owned() } else { format!("data-{}", number + 1) })
}

fn log_of(data: &TempDir, number: usize) -> PathBuf {
    data.path().join(if number == 0 { "log".to_owned() } else { format!("log-{}", number + 1) })
}

fn spawn(folder: &Path, log: &Path, data: &Path, plugins: &Path, arguments: &[String], settings: &[(String, String)]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).expect("a log file");
    Command::new(env!("CARGO_BIN_EXE_echod"))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .arg("--plugins")
        .arg(plugins)
        // Not in the source tree: a test's host has no sources to watch.
        .current_dir(folder)
        .envs(settings.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the host starts")
}

/// A user signed in on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: String,
    pub phone: String,
    pub password: String,
    pub device: String,
    pub session_id: String,
    pub access_token: String,
    pub refresh_token: String,
}

impl Person {
    /// From the answer that signed them in.
    pub fn new(phone: &str, password: &str, device: &str, tokens: &Value) -> Self {
        let text = |key: &str| tokens[key].as_str().unwrap_or_else(|| panic!("no {key} in {tokens}")).to_owned();
        Self {
            id: text("user_id"),
            phone: phone.to_owned(),
            password: password.to_owned(),
            device: device.to_owned(),
            session_id: text("session_id"),
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
        }
    }
}

/// A request being put together.
pub struct Ask(reqwest::RequestBuilder);

impl Ask {
    pub fn by(self, person: &Person) -> Self {
        self.token(&person.access_token)
    }

    pub fn token(self, token: &str) -> Self {
        Self(self.0.bearer_auth(token))
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub fn json(self, body: Value) -> Self {
        Self(self.0.header("content-type", "application/json").body(body.to_string()))
    }

    /// A raw body.
    pub fn bytes(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    pub async fn send(self) -> Reply {
        self.try_send().await.expect("an answer")
    }

    pub async fn try_send(self) -> reqwest::Result<Reply> {
        let reply = self.0.send().await?;
        let (status, headers) = (reply.status(), reply.headers().clone());
        let bytes = reply.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Ok(Reply { status, headers, body })
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl std::ops::Index<&str> for Reply {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        &self.body[key]
    }
}

impl Reply {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().expect("a header is text")
    }

    /// The body, of an answer with this status.
    #[track_caller]
    pub fn expect(self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// A problem with this status and code.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert!(self.body["request_id"].is_string(), "{}", self.body);
        self.body
    }
}

/// An open socket, from the client's side. It checks every frame's `seq`: in every test the feed has no gap and no repetition.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The subprotocol that the server picked.
    pub protocol: Option<String>,
    /// The seq of the last durable event, beginning with what `connection_ack` says.
    cursor: Option<u64>,
    /// Frames that were read while another one was awaited.
    kept: VecDeque<Value>,
}

impl Socket {
    /// With the person's token, at the host with this public address.
    pub async fn open(url: &str, person: &Person, since: Option<u64>) -> Result<Self, SocketError> {
        let query = since.map_or_else(String::new, |since| format!("?since={since}"));
        Self::open_with(url, &query, &[("authorization", &format!("Bearer {}", person.access_token))]).await
    }

    /// With this query (`?` included) and these headers and no others.
    pub async fn open_with(url: &str, query: &str, headers: &[(&'static str, &str)]) -> Result<Self, SocketError> {
        let mut request = format!("{}/ws{query}", url.replacen("http", "ws", 1)).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let (stream, response) = tokio_tungstenite::connect_async(request).await?;
        let protocol = response.headers().get("sec-websocket-protocol").map(|protocol| protocol.to_str().expect("text").to_owned());
        Ok(Self { stream, protocol, cursor: None, kept: VecDeque::new() })
    }

    pub async fn send(&mut self, frame: Value) {
        self.try_send(frame).await.expect("the socket takes a frame");
    }

    pub async fn try_send(&mut self, frame: Value) -> Result<(), SocketError> {
        self.stream.send(Message::text(frame.to_string())).await
    }

    pub async fn send_raw(&mut self, message: Message) {
        self.try_send_raw(message).await.expect("the socket takes a frame");
    }

    pub async fn try_send_raw(&mut self, message: Message) -> Result<(), SocketError> {
        self.stream.send(message).await
    }

    /// Sends a request; the payload of the reply.
    pub async fn call(&mut self, kind: &str, payload: Value) -> Value {
        let answer = self.ask(kind, payload).await;
        assert_eq!(answer["type"], "reply", "{answer}");
        answer["payload"].clone()
    }

    /// Sends a request; the frame that answers it, a `reply` or an `error`. What comes before it is kept for later.
    pub async fn ask(&mut self, kind: &str, payload: Value) -> Value {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("request {}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.send(json!({ "type": kind, "id": id, "payload": payload })).await;
        loop {
            let frame = self.read().await.unwrap_or_else(|close| panic!("the socket closed with {close:?}"));
            if frame["id"] == id {
                return frame;
            }
            self.kept.push_back(frame);
        }
    }

    /// Everything up to this event has reached the device.
    pub async fn ack(&mut self, event: &Value) {
        self.send(json!({ "type": "ack", "payload": { "seq": event["seq"] } })).await;
    }

    /// The seq of the last durable event that was read.
    pub fn cursor(&self) -> u64 {
        self.cursor.expect("connection_ack was read")
    }

    /// The next frame, whatever it is.
    pub async fn next(&mut self) -> Value {
        self.try_next().await.unwrap_or_else(|close| panic!("the socket closed with {close:?}"))
    }

    /// The next frame, or the code with which the socket was closed.
    pub async fn try_next(&mut self) -> Result<Value, Option<u16>> {
        match self.kept.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read().await,
        }
    }

    /// The next frame of this type; others before it are skipped.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Reads until the socket is closed; the code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Err(code) = self.try_next().await {
                return code;
            }
        }
    }

    /// Breaks the connection without a close handshake, as a lost network does.
    pub fn cut(self) {
        drop(self);
    }

    async fn read(&mut self) -> Result<Value, Option<u16>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("a frame in time");
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(close))) => return Err(close.map(|close| close.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Err(None),
            };
            let frame: Value = serde_json::from_str(text.as_str()).expect("a frame is JSON");
            self.note(&frame);
            return Ok(frame);
        }
    }

    #[track_caller]
    fn note(&mut self, frame: &Value) {
        match frame["type"].as_str().expect("a frame has a type") {
            "connection_ack" | "resync_required" => self.cursor = frame["payload"]["cursor"].as_u64(),
            "caught_up" => assert_eq!(frame["payload"]["cursor"].as_u64(), self.cursor, "{frame}"),
            _ => {
                if let Some(seq) = frame["seq"].as_u64() {
                    assert_eq!(Some(seq), self.cursor.map(|cursor| cursor + 1), "the feed has a hole or repeats itself: {frame}");
                    self.cursor = Some(seq);
                }
            }
        }
    }
}
