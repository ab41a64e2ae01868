//! In the host's own schema, for all hosts of the database.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{AuditEntry, OperatorToken, Operators, OperatorsError, Scope};
use crate::sql::postgres::{PostgresBackend, Shared};
use crate::sql::{SqlError, Value};
use echo_base::limits;

const READ_COMMITTED: &str = "READ COMMITTED";
/// As that of `sql::postgres`. Also held while a token is made, as they are counted.
const LOCK: i64 = 0x4563_686f_0007;
/// Times in microseconds since 1970, 0 for none.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS operator_token (id UUID PRIMARY KEY, name TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE,
        created_by TEXT NOT NULL, created_at_us BIGINT NOT NULL, expires_at_us BIGINT NOT NULL, used_at_us BIGINT NOT NULL DEFAULT 0);
    CREATE TABLE IF NOT EXISTS operator_audit (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_us BIGINT NOT NULL, operator TEXT NOT NULL,
        node TEXT NOT NULL, request TEXT NOT NULL, status BIGINT NOT NULL, detail TEXT NOT NULL)";
const NOW_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const COLUMNS: &str = "id, name, scopes, sha256, created_by, created_at_us, expires_at_us, used_at_us";

pub struct PostgresOperators {
    shared: Arc<Shared>,
}

impl PostgresOperators {
    /// Makes the tables where they are missing.
    pub async fn open(backend: &PostgresBackend) -> Result<Self, OperatorsError> {
        let shared = backend.shared();
        let mut connection = shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![LOCK.into()]).await?;
        connection.raw(TABLES).await?;
        connection.commit().await?;
        Ok(Self { shared })
    }

    async fn rows(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Vec<Value>>, OperatorsError> {
        Ok(self.shared.host.take().await?.rows(sql, values).await?)
    }
}

fn time(at_us: Option<u64>) -> Value {
    Value::S64(i64::try_from(at_us.unwrap_or(0)).unwrap_or(i64::MAX))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn token(row: &[Value]) -> Result<OperatorToken, OperatorsError> {
    let [
        Value::Uuid(id),
        Value::Text(name),
        Value::Text(scopes),
        Value::Text(sha256),
        Value::Text(created_by),
        Value::S64(created_at_us),
        Value::S64(expires_at_us),
        Value::S64(used_at_us),
    ] = row
    else {
        return Err(OperatorsError::Unavailable("their table holds what was never written there".to_owned()));
    };
    Ok(OperatorToken {
        id: *id,
        name: name.clone(),
        // One of a later version's that this one does not know opens nothing here.
        scopes: scopes.split(',').filter_map(Scope::parse).collect(),
        sha256: sha256.clone(),
        created_by: created_by.clone(),
        created_at_us: unsigned(*created_at_us),
        expires_at_us: Some(unsigned(*expires_at_us)).filter(|at_us| *at_us > 0),
        used_at_us: Some(unsigned(*used_at_us)).filter(|at_us| *at_us > 0),
    })
}

#[async_trait]
impl Operators for PostgresOperators {
    async fn create(&self, token: OperatorToken) -> Result<(), OperatorsError> {
        let mut connection = self.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![LOCK.into()]).await?;
        // Expired ones of this name, and all of them where there is no room.
        let expired = format!(
            "DELETE FROM operator_token WHERE expires_at_us > 0 AND expires_at_us <= {NOW_US}
                AND (name = $1 OR (SELECT count(*) FROM operator_token) >= $2)"
        );
        connection.rows(&expired, vec![token.name.as_str().into(), Value::S64(limits::OPERATOR_TOKENS_MAX as i64)]).await?;
        let count = connection.rows("SELECT count(*) FROM operator_token", vec![]).await?;
        if let Some([Value::S64(count)]) = count.first().map(Vec::as_slice)
            && unsigned(*count) >= limits::OPERATOR_TOKENS_MAX as u64
        {
            return Err(OperatorsError::Full(limits::OPERATOR_TOKENS_MAX));
        }
        let sql = "INSERT INTO operator_token (id, name, scopes, sha256, created_by, created_at_us, expires_at_us)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING RETURNING id";
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        let values = vec![
            Value::Uuid(token.id),
            token.name.as_str().into(),
            scopes.join(",").into(),
            token.sha256.into(),
            token.created_by.into(),
            time(Some(token.created_at_us)),
            time(token.expires_at_us),
        ];
        if connection.rows(sql, values).await?.is_empty() {
            return Err(OperatorsError::NameTaken(token.name));
        }
        Ok(connection.commit().await?)
    }

    async fn end(&self, id: Uuid) -> Result<OperatorToken, OperatorsError> {
        let sql = format!("DELETE FROM operator_token WHERE id = $1 RETURNING {COLUMNS}");
        let rows = self.rows(&sql, vec![Value::Uuid(id)]).await?;
        rows.first().map_or(Err(OperatorsError::NoSuchToken(id)), |row| token(row))
    }

    async fn list(&self) -> Result<Vec<OperatorToken>, OperatorsError> {
        let sql = format!("SELECT {COLUMNS} FROM operator_token ORDER BY name COLLATE \"C\"");
        self.rows(&sql, vec![]).await?.iter().map(|row| token(row)).collect()
    }

    async fn find(&self, sha256: &str) -> Result<Option<OperatorToken>, OperatorsError> {
        let sql = format!("SELECT {COLUMNS} FROM operator_token WHERE sha256 = $1 AND (expires_at_us = 0 OR expires_at_us > {NOW_US})");
        let found = self.rows(&sql, vec![sha256.into()]).await?.first().map(|row| token(row)).transpose()?;
        let Some(token) = found.filter(|token| !token.scopes.is_empty()) else { return Ok(None) };
        let sql = format!("UPDATE operator_token SET used_at_us = {NOW_US} WHERE id = $1 AND used_at_us < {NOW_US} - $2");
        let pause_us = Value::S64(i64::try_from(limits::OPERATOR_TOKEN_USE_S).unwrap_or(0) * 1_000_000);
        self.rows(&sql, vec![Value::Uuid(token.id), pause_us]).await?;
        Ok(Some(token))
    }

    async fn note(&self, entry: AuditEntry) -> Result<(), OperatorsError> {
        let sql = "INSERT INTO operator_audit (at_us, operator, node, request, status, detail) VALUES ($1, $2, $3, $4, $5, $6)";
        let AuditEntry { id: _, at_us, operator, node, request, status, detail } = entry;
        let values = vec![time(Some(at_us)), operator.into(), node.into(), request.into(), Value::S64(i64::from(status)), detail.into()];
        self.rows(sql, values).await?;
        let surplus = "DELETE FROM operator_audit WHERE id <= (SELECT max(id) FROM operator_audit) - $1";
        self.rows(surplus, vec![Value::S64(limits::OPERATOR_AUDIT_MAX as i64)]).await?;
        Ok(())
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, OperatorsError> {
        let sql = "SELECT id, at_us, operator, node, request, status, detail FROM operator_audit WHERE id < $1 ORDER BY id DESC LIMIT $2";
        let signed = |number: u64| Value::S64(i64::try_from(number).unwrap_or(i64::MAX));
        let rows = self.rows(sql, vec![signed(before.unwrap_or(u64::MAX)), signed(limit as u64)]).await?;
        let entry = |row: &Vec<Value>| match row.as_slice() {
            [
                Value::S64(id),
                Value::S64(at_us),
                Value::Text(operator),
                Value::Text(node),
                Value::Text(request),
                Value::S64(status),
                Value::Text(detail),
            ] => Ok(AuditEntry {
                id: unsigned(*id),
                at_us: unsigned(*at_us),
                operator: operator.clone(),
                node: node.clone(),
                request: request.clone(),
                status: u16::try_from(*status).unwrap_or(0),
                detail: detail.clone(),
            }),
            _ => Err(OperatorsError::Unavailable("their table holds what was never written there".to_owned())),
        };
        rows.iter().map(entry).collect()
    }
}

impl From<SqlError> for OperatorsError {
    fn from(error: SqlError) -> Self {
        OperatorsError::Unavailable(error.to_string())
    }
}
