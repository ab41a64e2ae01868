//! What operators' tokens do, wherever they are kept.

use uuid::Uuid;

use super::files::FileOperators;
use super::postgres::PostgresOperators;
use super::{AuditEntry, OperatorToken, Operators, OperatorsError, Scope, token_sha256};
use crate::sql::postgres::fixture::{Server, settings};
use echo_base::limits;

fn token(name: &str, text: &str, scopes: &[Scope]) -> OperatorToken {
    OperatorToken {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        sha256: token_sha256(text),
        created_by: "operator".to_owned(),
        created_at_us: 1_700_000_000_000_000,
        expires_at_us: None,
        used_at_us: None,
    }
}

async fn passes(operators: &dyn Operators) {
    assert!(operators.list().await.expect("lists").is_empty());
    let (ci, scraper) =
        (token("ci", "text of ci", &[Scope::Read, Scope::Deploy]), token("a-scraper", "text of scraper", &[Scope::Metrics]));
    operators.create(ci.clone()).await.expect("made");
    operators.create(scraper.clone()).await.expect("made");
    let taken = operators.create(token("ci", "another text", &[Scope::Admin])).await.expect_err("refused");
    assert!(matches!(&taken, OperatorsError::NameTaken(name) if name == "ci"), "{taken}");
    assert_eq!(operators.list().await.expect("lists"), [scraper.clone(), ci.clone()], "by name");

    assert!(operators.find(&token_sha256("guessed")).await.expect("answers").is_none());
    let found = operators.find(&ci.sha256).await.expect("answers").expect("it is good");
    assert_eq!((found.id, found.scope()), (ci.id, Scope::Deploy));
    let used = operators.list().await.expect("lists");
    assert_eq!((used[0].used_at_us, used[1].used_at_us.is_some()), (None, true), "who was used is noted");

    let mut expired = token("expired", "text of expired", &[Scope::Admin]);
    expired.expires_at_us = Some(1_700_000_000_000_000);
    operators.create(expired.clone()).await.expect("made");
    assert!(operators.find(&expired.sha256).await.expect("answers").is_none());
    let mut again = token("expired", "the next of this name", &[Scope::Admin]);
    again.expires_at_us = expired.expires_at_us;
    operators.create(again.clone()).await.expect("an expired token has freed its name");
    let of_name = operators.list().await.expect("lists").into_iter().filter(|token| token.name == "expired");
    assert_eq!(of_name.map(|token| token.id).collect::<Vec<_>>(), [again.id]);
    let mut later = token("later", "text of later", &[Scope::Admin]);
    later.expires_at_us = Some(9_000_000_000_000_000);
    operators.create(later.clone()).await.expect("made");
    assert_eq!(operators.find(&later.sha256).await.expect("answers").map(|token| token.expires_at_us), Some(later.expires_at_us));

    assert_eq!(operators.end(ci.id).await.expect("ended").name, "ci");
    assert!(operators.find(&ci.sha256).await.expect("answers").is_none(), "an ended token opens nothing");
    assert!(matches!(operators.end(ci.id).await, Err(OperatorsError::NoSuchToken(id)) if id == ci.id));
    operators.create(token("ci", "the next one", &[Scope::Deploy])).await.expect("the name is free again");

    let entry = |number: u64| AuditEntry {
        id: 0,
        at_us: number,
        operator: "ci".to_owned(),
        node: "one".to_owned(),
        request: format!("POST /{number}"),
        status: 201,
        detail: "what".to_owned(),
    };
    for number in 1..=3 {
        operators.note(entry(number)).await.expect("noted");
    }
    let newest = operators.audit(None, 2).await.expect("lists");
    assert!(newest[0].id > newest[1].id && newest[1].id > 0, "{newest:?}");
    let times = |entries: &[AuditEntry]| entries.iter().map(|entry| entry.at_us).collect::<Vec<_>>();
    assert_eq!(AuditEntry { id: 0, ..newest[0].clone() }, entry(3));
    assert_eq!(times(&newest), [3, 2], "newest first");
    assert_eq!(times(&operators.audit(Some(newest[1].id), 2).await.expect("lists")), [1], "those before");
    assert_eq!(times(&operators.audit(Some(newest[0].id), 1).await.expect("lists")), [2]);
    assert!(operators.audit(Some(0), 2).await.expect("lists").is_empty());

    // The expired one gives its place to the last of them.
    for number in operators.list().await.expect("lists").len()..=limits::OPERATOR_TOKENS_MAX {
        operators.create(token(&format!("n{number}"), &format!("text {number}"), &[Scope::Read])).await.expect("made");
    }
    assert!(operators.list().await.expect("lists").iter().all(|token| token.name != "expired"));
    let full = operators.create(token("one-more", "one more", &[Scope::Read])).await.expect_err("refused");
    assert!(matches!(full, OperatorsError::Full(limits::OPERATOR_TOKENS_MAX)), "{full}");
}

#[tokio::test]
async fn those_in_a_file_pass_and_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets/operators.json");
    passes(&FileOperators::open(&path).expect("opens")).await;
    let again = FileOperators::open(&path).expect("opens");
    assert_eq!(again.list().await.expect("lists").len(), limits::OPERATOR_TOKENS_MAX);
    assert_eq!(again.audit(None, 10).await.expect("lists").len(), 3);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&token_sha256("text of later")) && !text.contains("text of later"), "only hashes are kept");
    std::fs::write(&path, "torn").unwrap();
    assert!(FileOperators::open(&path).is_err(), "a file that cannot be read is no empty list");
}

#[tokio::test]
async fn entries_of_before_they_had_ids_are_paged_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("operators.json");
    let old = r#"{"at_us":AT,"operator":"ci","node":"one","request":"POST /","status":201,"detail":""}"#;
    let entries: Vec<String> = (1..=3).map(|at| old.replace("AT", &at.to_string())).collect();
    std::fs::write(&path, format!("{{\"tokens\":[],\"audit\":[{}]}}", entries.join(","))).unwrap();
    let operators = FileOperators::open(&path).expect("opens");
    let newest = operators.audit(None, 1).await.expect("lists");
    assert_eq!((newest[0].at_us, newest[0].id), (3, 3));
    operators.note(AuditEntry { id: 0, at_us: 4, ..newest[0].clone() }).await.expect("noted");
    let before: Vec<_> = operators.audit(Some(4), 5).await.expect("lists").into_iter().map(|entry| entry.at_us).collect();
    assert_eq!(before, [3, 2, 1]);
}

#[tokio::test]
async fn the_oldest_audit_entries_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let operators = FileOperators::open(&folder.path().join("operators.json")).expect("opens");
    let entry = |at_us| AuditEntry {
        id: at_us + 1,
        at_us,
        operator: String::new(),
        node: String::new(),
        request: String::new(),
        status: 200,
        detail: String::new(),
    };
    operators.kept_for_test(limits::OPERATOR_AUDIT_MAX, entry);
    operators.note(entry(9_999)).await.expect("noted");
    let kept = operators.audit(None, usize::MAX).await.expect("lists");
    assert_eq!((kept.len(), kept[0].at_us, kept.last().map(|entry| entry.at_us)), (limits::OPERATOR_AUDIT_MAX, 9_999, Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_in_postgres_pass_and_are_those_of_every_host() {
    let server = Server::start().await;
    let one = PostgresOperators::open(&server.backend_of("one", "operators", settings(4)).await).await.expect("opens");
    passes(&one).await;
    let other = PostgresOperators::open(&server.backend_of("other", "operators", settings(4)).await).await.expect("opens");
    let tokens = other.list().await.expect("lists");
    assert_eq!(tokens.len(), limits::OPERATOR_TOKENS_MAX);
    let later = tokens.iter().find(|token| token.name == "later").expect("it is there");
    one.end(later.id).await.expect("ended");
    assert!(other.find(&later.sha256).await.expect("answers").is_none(), "ended on one host, ended on all");
}
