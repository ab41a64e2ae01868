//! What is made for a service: a schema, whose tables are the host's, and a login role that may read and write their rows and do nothing else. Made by the role
//! of `sql.url`, which owns the database and may make roles; it need not be a superuser.
//!
//! A role's password is derived (HMAC-SHA-256, RFC 2104) from the password in `sql.url` and a salt that is kept in the database, so that every host knows it
//! and none stores it. PostgreSQL is given its SCRAM verifier (RFC 5802) alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::pool::Pooled;
use crate::sql::{ErrorClass, SqlError, Value};
use echo_base::names::ServiceName;

type HmacSha256 = Hmac<Sha256>;

/// The schema of the host's own tables, and the prefix of the services' schemas.
pub const HOST_SCHEMA: &str = "echo";
/// PostgreSQL cuts longer names off.
const NAME_BYTES_MAX: usize = 63;
const SCRAM_ITERATIONS: u32 = 4_096;

/// `echo_message`
pub fn schema_of(service: &ServiceName) -> String {
    format!("{HOST_SCHEMA}_{service}")
}

/// Roles are the whole server's: that of a service has the database's name before its own. Errors: the name is too long.
pub fn role_of(database: &str, service: &ServiceName) -> Result<String, SqlError> {
    let role = format!("{database}_{service}");
    if role.len() > NAME_BYTES_MAX {
        let message = format!("the name of the role {role} is longer than {NAME_BYTES_MAX} bytes: give the database a shorter name");
        return Err(SqlError::new(ErrorClass::Other, message));
    }
    Ok(role)
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What passwords of roles are derived from.
#[derive(Clone)]
pub struct RoleKey(Vec<u8>);

impl RoleKey {
    pub fn new(url_password: &str, salt: &[u8]) -> Self {
        Self(mac(url_password.as_bytes(), &[b"echo role key", salt]))
    }

    pub fn password_of(&self, role: &str) -> String {
        mac(&self.0, &[role.as_bytes()]).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = HmacSha256::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// `SCRAM-SHA-256$4096:salt$stored:server`
fn verifier(password: &str) -> String {
    let salt: [u8; 16] = rand::random();
    let mut block = mac(password.as_bytes(), &[&salt, &1_u32.to_be_bytes()]);
    let mut salted = block.clone();
    for _ in 1..SCRAM_ITERATIONS {
        block = mac(password.as_bytes(), &[&block]);
        salted.iter_mut().zip(&block).for_each(|(sum, byte)| *sum ^= byte);
    }
    let stored = Sha256::digest(mac(&salted, &[b"Client Key"]));
    let server = mac(&salted, &[b"Server Key"]);
    format!("SCRAM-SHA-256${SCRAM_ITERATIONS}:{}${}:{}", STANDARD.encode(salt), STANDARD.encode(stored), STANDARD.encode(server))
}

/// Makes what is missing of a service's schema, role and the host's tables in it, within the transaction that is open.
pub async fn make(host: &mut Pooled, service: &ServiceName, role: &str, password: &str) -> Result<(), SqlError> {
    let schema = quoted(&schema_of(service));
    let quoted_role = quoted(role);
    if host.rows("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", vec![Value::Text(role.to_owned())]).await?.is_empty() {
        let role = format!(
            "CREATE ROLE {quoted_role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS PASSWORD '{}'",
            verifier(password)
        );
        host.raw(role).await?;
    }
    host.raw(format!(
        "CREATE SCHEMA IF NOT EXISTS {schema};
         REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;
         CREATE TABLE IF NOT EXISTS {schema}._echo_outbox (position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, effect TEXT NOT NULL);
         CREATE TABLE IF NOT EXISTS {schema}._echo_turn ();
         CREATE TABLE IF NOT EXISTS {schema}._echo_migrations
            (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now(), undo TEXT);
         CREATE TABLE IF NOT EXISTS {schema}._echo_backfills (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, began_us BIGINT NOT NULL,
            position TEXT, rows BIGINT NOT NULL, done_us BIGINT);
         GRANT USAGE ON SCHEMA {schema} TO {quoted_role};
         GRANT INSERT (effect) ON {schema}._echo_outbox TO {quoted_role};
         GRANT UPDATE ON {schema}._echo_turn TO {quoted_role}"
    ))
    .await
}

/// After the password in `sql.url` has changed.
pub async fn renew_password(host: &mut Pooled, role: &str, password: &str) -> Result<(), SqlError> {
    host.raw(format!("ALTER ROLE {} PASSWORD '{}'", quoted(role), verifier(password))).await
}

/// A service works with the rows of its tables; their shape is the host's.
pub async fn grant_tables(host: &mut Pooled, service: &ServiceName, role: &str) -> Result<(), SqlError> {
    let schema = schema_of(service);
    let tables = host
        .rows(
            "SELECT c.relname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND c.relname NOT LIKE '\\_echo\\_%'",
            vec![Value::Text(schema.clone())],
        )
        .await?;
    let tables: Vec<String> = tables
        .into_iter()
        .filter_map(|row| match row.into_iter().next() {
            Some(Value::Text(table)) => Some(format!("{}.{}", quoted(&schema), quoted(&table))),
            _ => None,
        })
        .collect();
    if tables.is_empty() {
        return Ok(());
    }
    host.raw(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}", tables.join(", "), quoted(role))).await
}
