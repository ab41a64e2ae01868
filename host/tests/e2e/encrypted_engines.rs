//! PostgreSQL, Redis and NATS by TLS, with passwords from the environment and from files.

use std::process::Command;

use echo_engines::Tls;
use echo_engines::nats::Nats;
use echo_engines::postgres::Postgres;
use echo_engines::redis::Redis;
use reqwest::StatusCode;
use tempfile::TempDir;

use crate::app::{TestApp, until};
use crate::kill;

const PASSWORD: &str = "a password of tests";
const MASTER_KEY: &str = "the master key of tests, 32 characters or more";

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_are_reached_by_tls_and_nobody_elses_certificate_is_taken() {
    let folder = TempDir::new().expect("a temporary folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = Tls { certificate: &certificate, key: &key };
    let postgres = Postgres::start_with(&std::env::temp_dir(), Some(&tls)).expect("PostgreSQL");
    let redis = Redis::start_with_tls(&std::env::temp_dir(), &tls, "s3cret").expect("Redis");
    let nats = Nats::start_with_tls(&std::env::temp_dir(), &tls).expect("NATS");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let trusted = file("trusted.pem", &certificate);
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let untrusted = file("untrusted.pem", &other.cert.pem());
    let redis_at = |name: &str| format!("rediss://:s3cret@{name}:{}", redis.port());
    let redis_url = format!("file:{}", file("redis", &redis_at("localhost")));
    let nats_url = nats.tls_url("localhost");
    std::fs::create_dir(folder.path().join("blobs")).expect("a folder");
    let blobs = format!("file:{}", folder.path().join("blobs").display());
    let master_key = format!("file:{}", file("master-key", MASTER_KEY));
    let database_url = |roots: &str| {
        let url = postgres.url("postgres").replace("127.0.0.1", "localhost");
        format!("{url}?sslmode=verify-full&sslrootcert={roots}")
    };
    // Its user owns no database yet.
    let superuser = postgres.superuser_url("postgres");
    let sql = "ALTER DATABASE postgres OWNER TO operator";
    assert!(Command::new("psql").args(["-qAt", "-d", &superuser, "-c", sql]).status().expect("psql is there").success());

    let good = database_url(&trusted);
    let settings = [
        ("ECHO_SQL__URL", "env:DATABASE_OF_TEST"),
        ("DATABASE_OF_TEST", good.as_str()),
        ("ECHO_CACHE__URL", redis_url.as_str()),
        ("ECHO_EVENTS__URL", nats_url.as_str()),
        ("ECHO_EVENTS__REPLICAS", "1"),
        ("ECHO_BLOB__URL", blobs.as_str()),
        ("ECHO_EVENTS__BYTES_MAX", crate::backing::EVENTS_BYTES_MAX),
        ("ECHO_TOKENS__MASTER_KEY", master_key.as_str()),
        // What the operating system trusts.
        ("SSL_CERT_FILE", trusted.as_str()),
    ];
    let app = TestApp::with(&kill::SERVICES, &settings).await;
    let [ada, bala] = [app.someone().await, app.someone().await];
    let talk = app.group(&ada, &[&bala]).await;
    let mut socket = app.socket(&bala, None).await;
    app.say(&ada, &talk, "encrypted on the way").await;
    assert_eq!(socket.next_of("message").await["payload"]["content"], "encrypted on the way");
    let ready = until("all parts to be up", async || {
        let ready = app.get("/ready").send().await.expect(StatusCode::OK);
        (ready["status"] == "up").then_some(ready)
    })
    .await;
    assert_eq!((&ready["checks"]["cache"]["status"], &ready["checks"]["queue"]["status"]), (&"up".into(), &"up".into()));
    let open = "SELECT count(*), bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'echo%'";
    let output = Command::new("psql").args(["-qAt", "-d", &superuser, "-c", open]).output().expect("psql is there");
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(answer.ends_with("|t") && !answer.starts_with("0|"), "every connection is encrypted: {answer}");

    // A server whose certificate nobody vouches for, one that is asked for by another name, and a wrong password.
    let wrong_password = good.replace("operator-of-tests", PASSWORD).replace(' ', "%20");
    let other_name = good.replace("localhost", "127.0.0.1");
    let redis_by_another_name = format!("file:{}", file("redis-by-another-name", &redis_at("127.0.0.1")));
    let nats_by_another_name = nats.tls_url("127.0.0.1");
    // What PostgreSQL's address names is trusted besides what the operating system trusts.
    let untrusted_url = database_url(&untrusted);
    for (setting, value, roots, expect) in [
        ("DATABASE_OF_TEST", untrusted_url.as_str(), &untrusted, "the server's certificate is not accepted: nobody"),
        ("DATABASE_OF_TEST", &other_name, &trusted, "the server's certificate is not accepted: it is for another name"),
        ("DATABASE_OF_TEST", &wrong_password, &trusted, "password"),
        ("ECHO_CACHE__URL", &redis_url, &untrusted, "the server's certificate is not accepted: nobody"),
        ("ECHO_CACHE__URL", &redis_by_another_name, &trusted, "the server's certificate is not accepted: it is for another name"),
        ("ECHO_EVENTS__URL", &nats_url, &untrusted, "the server's certificate is not accepted: nobody"),
        ("ECHO_EVENTS__URL", &nats_by_another_name, &trusted, "the server's certificate is not accepted: it is for another name"),
    ] {
        let data = TempDir::new().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).arg("--data").arg(data.path());
        command.envs(settings).env(setting, value).env("SSL_CERT_FILE", roots).current_dir(data.path());
        if setting == "ECHO_EVENTS__URL" {
            // The one that is looked at after it, which would not accept these roots either.
            command.env("ECHO_CACHE__URL", "");
        }
        let output = command.output().expect("echod runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(expect), "{expect}: {said}");
        assert!(!said.contains("operator-of-tests") && !said.contains(PASSWORD) && !said.contains("s3cret"), "a password is shown: {said}");
    }
}
