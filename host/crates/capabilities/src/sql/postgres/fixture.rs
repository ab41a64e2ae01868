//! A real server for tests, and databases of their own on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{PoolSettings, PostgresBackend};
use crate::sql::SqlBackend;

/// The server of this process's tests (`echo_engines::postgres`).
pub struct Server {
    /// By the name that a test calls it by, a database's own.
    databases: Mutex<HashMap<String, String>>,
}

impl Server {
    pub async fn start() -> Self {
        tokio::task::spawn_blocking(|| echo_engines::postgres::of_this_process("postgres")).await.expect("no panic").expect("a server");
        Self { databases: Mutex::default() }
    }

    /// The address of the database of this name: the same name, the same data.
    pub async fn url(&self, name: &str) -> String {
        let mut databases = self.databases.lock().await;
        if let Some(url) = databases.get(name) {
            return url.clone();
        }
        let database = format!("t{}", &Uuid::new_v4().simple().to_string()[..12]);
        let mut operator = PgConnection::connect(&address("postgres")).await.expect("the server answers");
        operator.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}")))).await.expect("a database");
        let url = address(&database);
        databases.insert(name.to_owned(), url.clone());
        url
    }

    pub async fn backend(&self, name: &str) -> Arc<dyn SqlBackend> {
        Arc::new(self.backend_with(name, settings(8)).await)
    }

    pub async fn backend_with(&self, name: &str, settings: PoolSettings) -> PostgresBackend {
        self.backend_of(&Uuid::new_v4().simple().to_string(), name, settings).await
    }

    /// The host of this name.
    pub async fn backend_of(&self, node: &str, name: &str, settings: PoolSettings) -> PostgresBackend {
        PostgresBackend::connect(&self.url(name).await, node, settings).await.expect("connects")
    }
}

pub fn address(database: &str) -> String {
    echo_engines::postgres::of_this_process(database).expect("a server")
}

pub fn settings(open_max: usize) -> PoolSettings {
    PoolSettings { open_max, idle_max: open_max, lifetime: Duration::from_secs(300), idle_time: Duration::from_secs(600) }
}
