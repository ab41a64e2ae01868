//! What a PostgreSQL server says of itself, for an operator who sets a host up. Changes nothing there.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};

use super::{VERSION_MIN, options_of};
use crate::certificates;
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// The settings as the server writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub version: String,
    pub is_new_enough: bool,
    pub fsync: String,
    pub full_page_writes: String,
    pub connections_max: i64,
    pub connections_open: i64,
    /// The role may make the services' roles.
    pub may_make_roles: bool,
    pub owns_database: bool,
    /// Milliseconds since 1970, by its clock.
    pub now_ms: i64,
}

const QUESTION: &str = "SELECT current_setting('server_version'), current_setting('server_version_num')::bigint, current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('max_connections')::bigint,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user),
    (SELECT pg_has_role(current_user, datdba, 'MEMBER') FROM pg_database WHERE datname = current_database()),
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Errors: it cannot be reached within `DOCTOR_ANSWER_MS`, or not with these credentials.
pub async fn inspect(url: &str) -> Result<Inspection, SqlError> {
    let options = options_of(url)?;
    let failed = |error: sqlx::Error| {
        let text = error.to_string();
        SqlError::new(ErrorClass::Unavailable, certificates::of_text(&text).unwrap_or(text))
    };
    let work = async {
        let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
        let row = sqlx::query(QUESTION).fetch_one(&mut connection).await.map_err(failed)?;
        let inspection = Inspection {
            version: row.try_get(0).map_err(failed)?,
            is_new_enough: row.try_get::<i64, _>(1).map_err(failed)? >= i64::from(VERSION_MIN),
            fsync: row.try_get(2).map_err(failed)?,
            full_page_writes: row.try_get(3).map_err(failed)?,
            connections_max: row.try_get(4).map_err(failed)?,
            connections_open: row.try_get(5).map_err(failed)?,
            may_make_roles: row.try_get(6).map_err(failed)?,
            owns_database: row.try_get(7).map_err(failed)?,
            now_ms: row.try_get(8).map_err(failed)?,
        };
        connection.close().await.map_err(failed)?;
        Ok(inspection)
    };
    let late = SqlError::new(ErrorClass::Unavailable, format!("no answer within {} ms", limits::DOCTOR_ANSWER_MS));
    tokio::time::timeout(Duration::from_millis(limits::DOCTOR_ANSWER_MS), work).await.unwrap_or(Err(late))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::postgres::fixture::Server;

    #[tokio::test]
    async fn a_server_says_what_a_host_needs_to_know() {
        let server = Server::start().await;
        let found = inspect(&server.url("inspected").await).await.expect("answers");
        assert!(found.is_new_enough && found.may_make_roles && found.connections_max > found.connections_open, "{found:?}");
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!((found.now_ms - now_ms).abs() < 60_000, "{found:?}");
        assert!(inspect("postgres://nobody:wrong@127.0.0.1:1/none").await.is_err());
        assert!(inspect("http://127.0.0.1").await.is_err());
    }
}
