//! An author writes a service outside the repository as README and the SDK's pages say: made by `echod plugin new`, built, packed, granted,
//! deployed to a host that was built before it, changed, rolled back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::app::{TestApp, until};
use crate::candidate::{copy, replaced};

const GRANTS: &str = "echo:context,echo:sql,echo:hub,echo:config,echo:log,echo:polls";

/// The author's folder and the commands run there.
struct Author {
    folder: TempDir,
    admin: Vec<String>,
}

impl Author {
    fn new(app: &TestApp) -> Self {
        let admin = ["--admin", &app.admin_url, "--token", &app.admin_token].map(str::to_owned).to_vec();
        Self { folder: TempDir::new().expect("a temporary folder"), admin }
    }

    fn polls(&self) -> PathBuf {
        self.folder.path().join("polls")
    }

    fn echod(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_echod")).current_dir(self.folder.path()).args(arguments).output().expect("echod runs")
    }

    fn operate(&self, arguments: &[&str]) -> Output {
        let admin: Vec<&str> = self.admin.iter().map(String::as_str).collect();
        self.echod(&[arguments, &admin].concat())
    }

    /// The SDK as a package, unpacked with the time of now, so that cargo sees a change: nothing of the repository is needed after that.
    fn sdk(&self) -> PathBuf {
        let package = repository().join("plugins/sdk");
        let target = self.folder.path().join("package");
        let cargo =
            |arguments: &[&str]| done(Command::new(env!("CARGO")).current_dir(&package).args(arguments).output().expect("cargo runs"));
        cargo(&["package", "--allow-dirty", "--no-verify", "--quiet", "--target-dir", target.to_str().expect("a plain name")]);
        let packed = target.join(format!("package/echo-sdk-{}.crate", env!("CARGO_PKG_VERSION")));
        done(Command::new("tar").current_dir(self.folder.path()).arg("-xzmf").arg(packed).output().expect("tar is there"));
        self.folder.path().join(format!("echo-sdk-{}", env!("CARGO_PKG_VERSION")))
    }

    /// With this machine's way to WebAssembly; the target folder stays for the next run.
    fn build_and_pack(&self) -> PathBuf {
        let target = repository().join("target/author");
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(repository()).args(["xtask", "component"]).arg(self.polls()).arg("--target-dir").arg(&target);
        done(build.output().expect("cargo runs"));
        let component = target.join("wasm32-unknown-unknown/release/polls.wasm");
        let packed = self.folder.path().join("polls.wasm");
        done(self.echod(&["plugin", "pack", "polls", "--component", path(&component), "-o", path(&packed)]));
        packed
    }

    fn change(&self, file: &str, changes: &[(&str, &str)]) {
        let file = self.polls().join(file);
        fs::write(&file, replaced(fs::read_to_string(&file).expect("a file of the author's"), changes)).expect("a file of the author's");
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is plain")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_ones_own_needs_no_new_host() {
    let mut app = TestApp::with(&["auth", "location", "notification", "user"], &[]).await;
    let (ann, ben) = app.two().await;
    app.restart_in("serve").await;
    let author = Author::new(&app);

    // What `new` writes is a whole service: it builds, and the host takes it.
    let sdk = author.sdk();
    done(author.echod(&["plugin", "new", "polls", "--sdk", path(&sdk)]));
    let fresh = author.build_and_pack();
    let looked = done(author.operate(&["plugin", "deploy", path(&fresh), "--dry-run", "--grant", GRANTS]));
    assert!(looked.contains("nothing was changed"), "{looked}");

    // The author replaces it by another service.
    copy(&repository().join("host/tests/author/polls"), &author.polls());
    for leftover in ["migrations/0001_notes.sqlite.sql", "migrations/0001_notes.postgres.sql"] {
        fs::remove_file(author.polls().join(leftover)).expect("it was written by `new`");
    }
    let first = author.build_and_pack();

    // Nothing is granted by default, and the refusal says how to grant it, once.
    let refused = author.operate(&["plugin", "deploy", path(&first)]);
    let reason = "it imports echo:sql/sql@0.1.0, which polls is not granted; grant it with the deployment (--grant echo:sql/sql)";
    assert!(!refused.status.success());
    assert_eq!(said(&refused).matches(reason).count(), 1, "{}", said(&refused));
    done(author.operate(&["plugin", "deploy", path(&first), "--grant", GRANTS]));

    let question = json!({ "question": "Tea or coffee?", "options": ["tea", "coffee"] });
    let poll = app.post("/api/v1/polls", question.clone()).by(&ann).send().await.expect(StatusCode::CREATED);
    let at = format!("/api/v1/polls/{}", poll["id"].as_str().expect("an id"));
    let vote = async |place: u32| app.put(&format!("{at}/vote"), json!({ "place": place })).by(&ben).send().await;
    vote(7).await.expect_problem(422, "no_such_option");
    vote(1).await.expect(StatusCode::NO_CONTENT);
    vote(0).await.expect_problem(409, "voted_before");
    let votes = async || {
        let poll = app.get(&at).by(&ann).send().await.expect(StatusCode::OK);
        poll["options"].as_array().expect("options").iter().map(|option| option["votes"].as_u64().expect("a count")).collect::<Vec<_>>()
    };
    until("the event is handled", async || (votes().await == [0, 1]).then_some(())).await;
    let pushed: Value = until("the push is in the owner's feed", async || {
        let feed = app.get("/api/v1/sync?since=0").by(&ann).send().await.expect(StatusCode::OK);
        feed["items"].as_array()?.iter().find(|event| event["type"] == "poll_voted").cloned()
    })
    .await;
    assert_eq!(pushed["payload"], json!({ "poll_id": poll["id"], "place": 1 }));

    // A change that adds, with a table's new column behind it; the grants given once go on.
    author.change("plugin.toml", &[("version = \"0.1.0\"", "version = \"0.1.1\"")]);
    author.change(
        "wit/deps/polls/polls.wit",
        &[
            ("    options: list<string>,\n", "    options: list<string>,\n    /// @length ..=30\n    topic: option<string>,\n"),
            (
                "    created-at: timestamp,\n  }\n\n  record poll-request",
                "    created-at: timestamp,\n    topic: option<string>,\n  }\n\n  record poll-request",
            ),
        ],
    );
    author.change(
        "src/lib.rs",
        &[(
            "created_at: time::now_us() };\n        transaction",
            "created_at: time::now_us(), topic: request.topic };\n        transaction",
        )],
    );
    author.change(
        "src/store.rs",
        &[
            ("question, created_at) VALUES ($1, $2, $3, $4)", "question, created_at, topic) VALUES ($1, $2, $3, $4, $5)"),
            ("timestamp(poll.created_at)]", "timestamp(poll.created_at), poll.topic.as_deref()]"),
            ("SELECT owner_id, question, created_at FROM", "SELECT owner_id, question, created_at, topic FROM"),
            (
                "Some((owner_id, question, created_at)) = db.row::<(String, String, u64)>",
                "Some((owner_id, question, created_at, topic)) = db.row::<(String, String, u64, Option<String>)>",
            ),
            ("options, created_at }))", "options, created_at, topic }))"),
        ],
    );
    for dialect in ["sqlite", "postgres"] {
        let file = author.polls().join(format!("migrations/0002_topic.{dialect}.sql"));
        fs::write(file, "ALTER TABLE polls ADD COLUMN topic TEXT;\n").expect("a file of the author's");
    }
    let second = author.build_and_pack();
    let planned = done(author.operate(&["plugin", "deploy", path(&second), "--dry-run"]));
    assert!(planned.contains("0002_topic"), "{planned}");
    done(author.operate(&["plugin", "deploy", path(&second)]));
    let with_topic = json!({ "question": "And?", "options": ["a", "b"], "topic": "drinks" });
    let added = app.post("/api/v1/polls", with_topic.clone()).by(&ann).send().await.expect(StatusCode::CREATED);
    assert_eq!(added["topic"], "drinks");
    assert_eq!(votes().await, [0, 1], "the first version's poll");

    // And the rollback.
    done(author.operate(&["plugin", "rollback", "polls"]));
    app.post("/api/v1/polls", with_topic).by(&ann).send().await.expect_problem(422, "invalid");
    app.post("/api/v1/polls", question).by(&ann).send().await.expect(StatusCode::CREATED);
    assert_eq!(votes().await, [0, 1]);
    let history = done(author.operate(&["plugin", "history", "polls"]));
    assert!(history.contains("echo:sql"), "the grants are in the history: {history}");
}
