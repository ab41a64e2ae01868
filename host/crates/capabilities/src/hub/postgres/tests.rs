//! What can go wrong where hosts share outboxes and feeds, each made to happen and not waited for.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use sqlx::{Connection, Executor, PgConnection};

use super::*;
use crate::hub::{Class, LeasedOutbox, Push, Relayed};
use crate::sql::postgres::fixture::{Server, settings};
use crate::sql::{Database, SqlBackend};
use echo_base::names::ServiceName;

/// One of the hosts of a database.
struct Node {
    backend: PostgresBackend,
    feed: Arc<PostgresFeed>,
    database: Arc<dyn Database>,
    outbox: ServiceOutbox,
}

impl Node {
    async fn start(server: &Server, name: &str) -> Self {
        Self::start_as(server, &Uuid::new_v4().simple().to_string(), name).await
    }

    async fn start_as(server: &Server, node: &str, name: &str) -> Self {
        let backend = server.backend_of(node, name, settings(8)).await;
        let feed = Arc::new(PostgresFeed::open(&backend).await.expect("opens"));
        let service = ServiceName::parse("alpha").expect("a good name");
        let database = backend.open(&service).await.expect("opens");
        let outbox = ServiceOutbox::of_service(feed.clone(), &service, database.clone());
        Self { backend, feed, database, outbox }
    }

    async fn relay_all(&self) -> Vec<Relayed> {
        let mut all = Vec::new();
        loop {
            let relayed = self.outbox.relay().await.expect("relays").expect("it has the lease");
            if relayed.effects == 0 {
                return all;
            }
            all.push(relayed);
        }
    }

    async fn read(&self, user: Uuid) -> Vec<String> {
        let page = self.feed.read(user, 0, 500).await.expect("reads");
        assert!(
            page.entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq) && page.head == page.entries.len() as u64,
            "a gap: {page:?}"
        );
        page.entries.into_iter().map(|entry| entry.payload.to_string()).collect()
    }

    async fn events(&self) -> Vec<(i64, String)> {
        let events = self.outbox.events().peek(i64::MIN, 10_000).await.expect("peeks");
        events.into_iter().map(|(position, effect)| (position, text_of(effect))).collect()
    }
}

fn text_of(effect: Effect) -> String {
    match effect {
        Effect::Event(event) => event.payload,
        other => panic!("no event: {other:?}"),
    }
}

fn push(users: &[Uuid], payload: &str) -> Effect {
    Effect::Push(Push {
        users: users.to_vec(),
        event: "message".to_owned(),
        payload: payload.to_owned(),
        class: Class::Durable,
        receipt: Some(payload.to_owned()),
        subject: None,
        state: None,
    })
}

fn event(payload: &str) -> Effect {
    Effect::Event(Event {
        id: Uuid::now_v7(),
        topic: "test.happened".to_owned(),
        key: "k".to_owned(),
        payload: payload.to_owned(),
        at_us: 1,
        correlation_id: "c".to_owned(),
    })
}

async fn operator(server: &Server, name: &str) -> PgConnection {
    PgConnection::connect(&server.url(name).await).await.expect("connects")
}

/// Its position is given out now, and its commit is the caller's to make.
async fn open_transaction(server: &Server, name: &str, effects: &[Effect]) -> PgConnection {
    let mut connection = operator(server, name).await;
    connection.execute("BEGIN").await.expect("begins");
    for effect in effects {
        let text = serde_json::to_string(effect).expect("encodes");
        let insert = sqlx::query("INSERT INTO echo_alpha._echo_outbox (effect) VALUES ($1)").bind(text);
        connection.execute(insert).await.expect("inserts");
    }
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_commits_after_a_later_one_is_not_passed_over() {
    let server = Server::start().await;
    let node = Node::start(&server, "race").await;
    assert!(node.outbox.lease().await.expect("asks"));
    let user = Uuid::now_v7();
    // The first has the lower position and commits last; between them the relay looks, more than once.
    let mut first = open_transaction(&server, "race", &[push(&[user], "first"), event("first")]).await;
    node.database.emit(vec![push(&[user], "second"), event("second")]).await.expect("emits");
    assert_eq!(node.relay_all().await.len(), 1);
    assert_eq!(node.read(user).await, ["second"]);
    first.execute("COMMIT").await.expect("commits");
    assert_eq!(node.relay_all().await.len(), 1);
    assert_eq!(node.relay_all().await.len(), 0);
    assert_eq!(node.read(user).await, ["second", "first"]);
    let events = node.events().await;
    assert_eq!(events.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["second", "first"], "in the order of the commits");
    assert!(events[0].0 < events[1].0);
    assert_eq!(node.database.peek(i64::MIN, 10).await.expect("peeks").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_dies_between_claim_and_commit_loses_and_doubles_nothing() {
    let server = Server::start().await;
    let node = Node::start(&server, "dies").await;
    assert!(node.outbox.lease().await.expect("asks"));
    let user = Uuid::now_v7();
    let mut expect = Vec::new();
    for number in 0..60 {
        node.database.emit(vec![push(&[user], &number.to_string()), event(&number.to_string())]).await.expect("emits");
        expect.push(number.to_string());
        // Broken off after so many steps: before the claim, in the midst of each statement, during the commit.
        let mut relaying = Box::pin(node.outbox.relay());
        for _ in 0..number {
            if (&mut relaying).now_or_never().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(relaying);
    }
    node.relay_all().await;
    assert_eq!(node.read(user).await, expect);
    assert_eq!(node.events().await.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), expect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_lease_has_run_out_moves_nothing_whatever_it_believes() {
    let server = Server::start().await;
    let (one, other) = (Node::start(&server, "fence").await, Node::start(&server, "fence").await);
    let user = Uuid::now_v7();
    assert!(one.outbox.lease().await.expect("asks"));
    assert!(!other.outbox.lease().await.expect("asks"), "two have it");
    assert!(one.outbox.lease().await.expect("asks"), "it may be asked for again");
    one.database.emit(vec![push(&[user], "1"), event("1")]).await.expect("emits");
    one.relay_all().await;
    // Stopped for longer than the lease.
    operator(&server, "fence")
        .await
        .execute("UPDATE echo.relay_shard SET until = clock_timestamp() - interval '1 ms'")
        .await
        .expect("updates");
    one.database.emit(vec![push(&[user], "2"), event("2")]).await.expect("emits");
    assert!(other.outbox.lease().await.expect("asks"), "nobody has it");
    // It goes on where it was.
    assert!(one.outbox.relay().await.expect("answers").is_none(), "it moved effects without the lease");
    assert!(one.outbox.release().await.expect("answers").is_none());
    other.relay_all().await;
    assert!(!one.outbox.lease().await.expect("asks"));
    other.database.emit(vec![push(&[user], "3"), event("3")]).await.expect("emits");
    other.relay_all().await;
    assert_eq!(one.read(user).await, ["1", "2", "3"]);
    assert_eq!(one.events().await.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), ["1", "2", "3"]);
    // Given back it is the next one's at once.
    other.outbox.surrender().await.expect("gives it back");
    assert!(one.outbox.lease().await.expect("asks"));
    assert!(other.outbox.relay().await.expect("answers").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_killed_goes_on_with_its_own_lease_at_once() {
    let server = Server::start().await;
    let killed = Node::start_as(&server, "one", "killed").await;
    let user = Uuid::now_v7();
    assert!(killed.outbox.lease().await.expect("asks"));
    killed.database.emit(vec![push(&[user], "1")]).await.expect("emits");
    let again = Node::start_as(&server, "one", "killed").await;
    assert!(again.outbox.lease().await.expect("asks"), "it waits for itself");
    again.relay_all().await;
    assert_eq!(again.read(user).await, ["1"]);
    // Were it alive after all, it would move nothing.
    killed.database.emit(vec![push(&[user], "2")]).await.expect("emits");
    assert!(killed.outbox.relay().await.expect("answers").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_waits_goes_over_to_the_next_host() {
    let server = Server::start().await;
    let (one, other) = (Node::start(&server, "states").await, Node::start(&server, "states").await);
    let user = Uuid::now_v7();
    let state = |number: u32| {
        let Effect::Push(push) = push(&[user], &number.to_string()) else { panic!("a push") };
        Effect::Push(Push { state: Some("k".to_owned()), ..push })
    };
    assert!(one.outbox.lease().await.expect("asks"));
    one.database.emit((0..5).map(state).collect()).await.expect("emits");
    assert!(one.relay_all().await[0].has_states);
    one.outbox.surrender().await.expect("gives it back");
    assert!(other.outbox.lease().await.expect("asks"));
    let released = other.outbox.release().await.expect("releases").expect("it has the lease");
    assert_eq!(released.iter().map(|entry| entry.payload.to_string()).collect::<Vec<_>>(), ["4"]);
    assert_eq!(other.read(user).await, ["0", "4"]);
    assert!(other.outbox.release().await.expect("releases").expect("it has the lease").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_number_for_the_same_users_at_once_leave_no_gap_and_no_deadlock() {
    let server = Server::start().await;
    let nodes = [Node::start(&server, "users").await, Node::start(&server, "users").await];
    let users: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
    // Each source in its own order of the users.
    let batches = (0..40_usize).map(|number| {
        let (node, mut users) = (&nodes[number % 2], users.clone());
        users.rotate_left(number % 20);
        async move {
            let Effect::Push(push) = push(&users, &number.to_string()) else { panic!("a push") };
            node.feed.apply(&format!("s{number}:1"), &[(1, FeedChange::Push(push))]).await.expect("applies")
        }
    });
    futures_util::future::join_all(batches).await;
    for user in &users {
        assert_eq!(nodes[0].read(*user).await.len(), 40);
    }
}

/// How often the database was asked for anything.
async fn statements(connection: &mut PgConnection) -> i64 {
    let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM public.pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
        WHERE d.datname = current_database() AND s.query NOT LIKE '%pg_stat_statements%'";
    connection.fetch_one(sqlx::query(sql)).await.expect("counts").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_takes_as_many_statements_for_a_thousand_users_as_for_two() {
    let server = Server::start().await;
    let node = Node::start(&server, "group").await;
    assert!(node.outbox.lease().await.expect("asks"));
    let mut watcher = operator(&server, "group").await;
    let mut counts = BTreeMap::new();
    for members in [2_usize, 1_000, 2, 1_000] {
        let users: Vec<Uuid> = (0..members).map(|_| Uuid::now_v7()).collect();
        let before = statements(&mut watcher).await;
        let mut transaction = node.database.begin().await.expect("begins");
        transaction.emit(push(&users, "to all")).await.expect("emits");
        transaction.emit(event("sent")).await.expect("emits");
        transaction.commit().await.expect("commits");
        let relayed = node.outbox.relay().await.expect("relays").expect("it has the lease");
        assert_eq!(relayed.entries.len(), members);
        counts.insert(members, statements(&mut watcher).await - before);
    }
    assert!(counts[&1_000] == counts[&2] && counts[&2] <= 20, "{counts:?}");
    drop(node.backend);
}

/// The statements that OPERATE.md gives for after a restore to a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_statements_of_a_restore_feeds_continue_above_what_devices_saw() {
    let page = include_str!("../../../../../docs/OPERATE.md");
    let statements = page.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("one block of SQL");
    let server = Server::start().await;
    let node = Node::start(&server, "restored").await;
    assert!(node.outbox.lease().await.expect("asks"));
    let user = Uuid::now_v7();
    for number in 0..5 {
        node.database.emit(vec![push(&[user], &number.to_string())]).await.expect("emits");
    }
    node.relay_all().await;
    let phone = |seq| Acknowledgement { user, device: "phone".to_owned(), above: 0, seq };
    node.feed.acknowledge(&[phone(3)]).await.expect("acknowledges");

    operator(&server, "restored").await.execute(statements).await.expect("PostgreSQL takes them");
    let read = node.feed.read(user, 5, 500).await.expect("reads");
    assert!(read.entries.is_empty() && read.oldest == read.head + 1 && read.head > 1_000_000_000_000, "{read:?}");
    node.database.emit(vec![push(&[user], "new")]).await.expect("emits");
    node.relay_all().await;
    let new = node.feed.read(user, read.head, 500).await.expect("reads");
    assert_eq!(new.entries.iter().map(|entry| (entry.seq, &*entry.payload)).collect::<Vec<_>>(), [(read.head + 1, "new")]);
    node.feed.acknowledge(&[Acknowledgement { above: read.head, ..phone(read.head + 1) }]).await.expect("acknowledges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_handed_on_from_memory_only_while_all_of_them_are_there() {
    let server = Server::start().await;
    let (one, two) = (Node::start(&server, "memory").await, Node::start(&server, "memory").await);
    let mut operator = operator(&server, "memory").await;
    let append = async |node: &Node, text: &str| {
        node.database.emit(vec![event(text)]).await.expect("emits");
        node.relay_all().await;
    };
    let texts = async |node: &Node, after: i64| {
        let events = node.outbox.events().peek(after, 10_000).await.expect("peeks");
        events.into_iter().map(|(position, effect)| (position, text_of(effect))).collect::<Vec<_>>()
    };
    assert!(one.outbox.lease().await.expect("asks"));
    append(&one, "first").await;
    assert_eq!(texts(&one, i64::MIN).await, [(1, "first".to_owned())], "from the table");
    append(&one, "second").await;
    operator.execute("UPDATE echo.event_log SET effect = 'unreadable'").await.expect("updates");
    assert_eq!(texts(&one, 1).await, [(2, "second".to_owned())], "from memory");
    operator.execute("DELETE FROM echo.event_log").await.expect("deletes");

    // Another host appends one in between.
    one.outbox.surrender().await.expect("gives it back");
    assert!(two.outbox.lease().await.expect("asks"));
    append(&two, "third").await;
    two.outbox.surrender().await.expect("gives it back");
    assert!(one.outbox.lease().await.expect("asks"));
    append(&one, "fourth").await;
    let all = [(3, "third".to_owned()), (4, "fourth".to_owned())];
    assert_eq!(texts(&one, 2).await, all);

    // A relay that dies anywhere on its way: its events are there, once, whether or not its commit took place.
    let mut expect = all.to_vec();
    for steps in 0..40 {
        let (position, text) = (expect.last().expect("one").0 + 1, format!("after {steps} steps"));
        one.database.emit(vec![event(&text)]).await.expect("emits");
        let mut relaying = Box::pin(one.outbox.relay());
        for _ in 0..steps {
            if (&mut relaying).now_or_never().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(relaying);
        texts(&one, position - 1).await;
        one.relay_all().await;
        expect.push((position, text));
        assert_eq!(texts(&one, position - 1).await, expect[expect.len() - 1..], "after {steps} steps");
    }
    assert_eq!(texts(&one, 2).await, expect);
}
