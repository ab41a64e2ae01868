//! `echod doctor` against faults that are made on purpose: each is named, with what to do, and the exit status follows.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::app::{TestApp, new_database, on_postgres};
use crate::backing::on_bucket;

/// What doctor finds on this data folder, with free ports unless others are given.
struct Found {
    status: Option<i32>,
    items: Vec<Value>,
}

impl Found {
    fn read(Output { status, stdout, stderr }: &Output) -> Self {
        let text = String::from_utf8_lossy(stdout);
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(stderr)));
        Self { status: status.code(), items: answer["items"].as_array().expect("items").clone() }
    }

    /// The worst about this, in one line.
    #[track_caller]
    fn about(&self, what: &str) -> String {
        let rank = |item: &Value| ["good", "warning", "failure"].iter().position(|verdict| item["verdict"] == **verdict);
        let found = self.items.iter().filter(|item| item["what"] == what).max_by_key(|item| rank(item));
        let found = found.unwrap_or_else(|| panic!("nothing about {what} in {:?}", self.items));
        let text = |name: &str| found[name].as_str().expect("text");
        assert_eq!(text("verdict") == "good", text("advice").is_empty(), "{found}");
        format!("{}: {} [{}]", text("verdict"), text("says"), text("advice"))
    }

    #[track_caller]
    fn says(&self, what: &str, expect: &[&str]) -> &Self {
        let said = self.about(what);
        assert!(expect.iter().all(|part| said.contains(part)), "{said}\nis not {expect:?}");
        self
    }

    #[track_caller]
    fn ends_with(&self, status: i32) {
        assert_eq!(self.status, Some(status), "{:#?}", self.items);
    }
}

fn doctor(data: &Path, arguments: &[&str], settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
    command.args(["doctor", "--json", "--admin-listen", "127.0.0.1:0"]).arg("--data").arg(data);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(arguments).envs(settings.iter().map(|(name, value)| (name, value))).current_dir(std::env::temp_dir());
    command
}

fn look(data: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Found {
    let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Found::read(&doctor(data, arguments, &settings).output().expect("echod runs"))
}

/// This account's alone.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("our own");
    folder
}

#[test]
fn a_good_place_is_called_good_and_is_left_as_it_was() {
    let data = folder();
    let found = look(data.path(), &[], &[]);
    found.says("settings", &["good"]).says("data folder", &["good"]).says("clock", &["good"]).ends_with(0);
    assert_eq!(std::fs::read_dir(data.path()).expect("a folder").count(), 0, "doctor left something behind");
    let plain = Command::new(env!("CARGO_BIN_EXE_echod"))
        .args(["doctor", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .current_dir(data.path())
        .output()
        .expect("echod runs");
    let said = String::from_utf8_lossy(&plain.stdout);
    assert!(plain.status.success() && said.contains("good     data folder: ") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let data = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let found = look(data.path(), &["--listen", &address], &[]);
    found.says("clients' address", &["failure", &address, "server.listen", "ss -ltnp"]).says("operator's address", &["good"]).ends_with(1);
}

#[tokio::test]
async fn the_ports_of_the_host_on_this_folder_are_not_taken_by_a_stranger() {
    let app = TestApp::with(&["location"], &[]).await;
    let address = app.url.trim_start_matches("http://").to_owned();
    let found = look(&app.data_folder(), &["--listen", &address], &[]);
    found.says("clients' address", &["good", "a host runs there"]).says("data folder", &["good"]).ends_with(0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_low_limit_of_open_files_is_a_warning() {
    let data = folder();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 1024 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_echod"), "doctor", "--json"]);
    shell.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]).arg(data.path()).current_dir(data.path());
    let found = Found::read(&shell.output().expect("a shell"));
    found.says("open files", &["warning", "1024", "512 connections", "LimitNOFILE", "server.connections_max"]).ends_with(0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_data_folder_that_cannot_be_written_to_or_made_is_said() {
    // Root too may write nothing there.
    look(Path::new("/proc/self"), &[], &[]).says("data folder", &["failure", "cannot be written to"]).ends_with(1);
    look(Path::new("/proc/echo-data"), &[], &[]).says("data folder", &["failure", "cannot be made", "/proc"]).ends_with(1);
}

#[test]
fn what_is_wrong_with_the_settings_is_said_one_by_one() {
    let data = folder();
    let found = look(data.path(), &[], &[("ECHO_SERVER__LISTN", "x"), ("ECHO_EVENTS__REPLICS", "1")]);
    let said: Vec<_> = found.items.iter().map(ToString::to_string).collect();
    assert!(["server.listen", "events.replicas"].iter().all(|name| said.iter().any(|item| item.contains(name))), "{said:#?}");
    found.says("settings", &["failure", "echo.toml"]).ends_with(1);
    let certificate = [("ECHO_SERVER__TLS_CERT", "/nowhere.pem"), ("ECHO_SERVER__TLS_KEY", "/nowhere.key")];
    look(data.path(), &[], &certificate).says("settings", &["failure", "server.tls_cert"]).ends_with(1);
}

#[test]
fn a_folder_of_files_that_is_not_mounted_is_said() {
    let data = folder();
    let url = |path: &Path| format!("file:{}", path.display());
    let found = look(data.path(), &[], &[("ECHO_BLOB__URL", &url(&data.path().join("mount")))]);
    found.says("folder of files", &["failure", "is no folder", "blob.url"]).ends_with(1);
    let files = folder();
    look(data.path(), &[], &[("ECHO_BLOB__URL", &url(files.path()))]).says("folder of files", &["good"]).ends_with(0);
    assert_eq!(std::fs::read_dir(files.path()).expect("a folder").count(), 0, "doctor left something behind");
}

#[test]
fn a_bucket_is_tried_out() {
    let data = folder();
    let endpoint = echo_engines::s3::of_this_process().unwrap_or_else(|error| panic!("{error}"));
    let on = |endpoint: &str, more: &[(&str, &str)]| {
        let mut settings = on_bucket(endpoint, "doctor");
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Found::read(&doctor(data.path(), &[], &settings).output().expect("echod runs"))
    };
    on(&endpoint, &[]).says("bucket of files", &["good"]).ends_with(0);
    on(&endpoint, &[("ECHO_BLOB__URL", "s3://no-such-bucket")]).says("bucket of files", &["failure", "no-such-bucket"]).ends_with(1);
    on("http://127.0.0.1:1", &[]).says("bucket of files", &["warning", "blob.endpoint"]).ends_with(0);
}

#[test]
fn engines_that_are_away_are_said_and_what_it_costs() {
    let data = folder();
    let database = new_database();
    let with = |more: &[(&str, &str)]| {
        let mut settings = on_postgres(&database).to_vec();
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Found::read(&doctor(data.path(), &[], &settings).output().expect("echod runs"))
    };
    with(&[]).says("PostgreSQL", &["good", "connections to spare"]).ends_with(0);
    let away = [("ECHO_CACHE__URL", "redis://127.0.0.1:1"), ("ECHO_EVENTS__URL", "nats://127.0.0.1:1")];
    with(&away).says("Redis", &["warning", "cache.url"]).says("NATS", &["warning", "events.url"]).ends_with(0);
    let no_database = database.url().rsplit_once('/').map(|(server, _)| format!("{server}/none")).expect("a database");
    with(&[("ECHO_SQL__URL", "env:NO_DATABASE"), ("NO_DATABASE", &no_database)]).says("PostgreSQL", &["failure", "none"]).ends_with(1);
    let nobody = with(&[("ECHO_SQL__URL", "postgres://echo@127.0.0.1:1/echo")]);
    nobody.says("PostgreSQL", &["failure", "sql.url"]).ends_with(1);
}

#[test]
fn engines_that_are_too_old_are_said_with_their_version() {
    let data = folder();
    let database = new_database();
    let (redis, nats) = (old_redis(), old_nats());
    let mut settings = on_postgres(&database).to_vec();
    settings.push(("ECHO_CACHE__URL".to_owned(), format!("redis://{redis}")));
    settings.push(("ECHO_EVENTS__URL".to_owned(), format!("nats://{nats}")));
    let found = Found::read(&doctor(data.path(), &[], &settings).output().expect("echod runs"));
    found.says("Redis", &["failure", "6.2.14", "7 or later"]).says("NATS", &["failure", "2.9.1", "events.old_servers"]).ends_with(1);
}

/// The address of a server that answers each connection so.
fn serve(answer: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // Whoever asked may go away in the middle.
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    address
}

/// Of the protocol as much as is asked for (https://redis.io/docs/latest/develop/reference/protocol-spec/).
fn old_redis() -> String {
    serve(|stream| {
        let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let count: usize = line.trim().trim_start_matches('*').parse().unwrap_or(0);
            let mut words = Vec::new();
            for _ in 0..count {
                let mut length = String::new();
                reader.read_line(&mut length)?;
                let mut word = vec![0; length.trim().trim_start_matches('$').parse::<usize>().unwrap_or(0) + 2];
                reader.read_exact(&mut word)?;
                words.push(String::from_utf8_lossy(&word).trim().to_uppercase());
            }
            let info = "# Server\r\nredis_version:6.2.14\r\n";
            match words.first().map(String::as_str) {
                Some("INFO") => write!(writer, "${}\r\n{info}\r\n", info.len())?,
                _ => write!(writer, "+OK\r\n")?,
            }
        }
    })
}

/// <https://docs.nats.io/reference/reference-protocols/nats-protocol>
fn old_nats() -> String {
    serve(|stream| {
        let (reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
        let info = r#"{"server_id":"old","server_name":"old","version":"2.9.1","proto":1,"host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"go":"go","auth_required":false,"tls_required":false,"jetstream":true}"#;
        write!(writer, "INFO {info}\r\n")?;
        for line in reader.lines() {
            if line?.starts_with("PING") {
                write!(writer, "PONG\r\n")?;
            }
        }
        Ok(())
    })
}
