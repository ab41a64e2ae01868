//! A database that is filled from elsewhere: empty at first, refused by every host until all is in it, and emptied again where that was cut off. Rows go in
//! and come out by `COPY` in PostgreSQL's binary format (<https://www.postgresql.org/docs/15/sql-copy.html>).

use futures_util::StreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgCopyIn};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use super::migrate::digest;
use super::outbox::Pending;
use super::{HOST_SCHEMA, PostgresBackend, READ_COMMITTED, errors, options_of, quoted, schema_of, text, values};
use crate::sql::{Effect, ErrorClass, Migration, SqlError, Value};
use echo_base::names::ServiceName;

/// The key of an advisory lock of the session: one import at a time.
const LOCK: i64 = 0x4563_686f_0020;
/// In `setting`: where the rows come from. As long as it is there, no host starts on the database.
pub const UNFINISHED: &str = "import_unfinished";
const FINISHED: &str = "import_finished";
/// `PGCOPY\n\377\r\n\0`, no flags, no extension.
const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const SEND_BYTES: usize = 256 * 1024;

/// How the import before ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// There was none, or it was cut off and what it left is gone.
    Nothing { was_cut_off: bool },
    /// It came to its end; nothing was changed now.
    Finished { from: String },
}

/// The connection that fills the database.
pub struct Import {
    connection: PgConnection,
    from: String,
}

/// What a column is called and its type's number in `pg_type`.
pub type Columns = Vec<(String, u32)>;

/// A foreign key that is taken away while rows come in any order.
pub struct ForeignKey {
    table: String,
    name: String,
    definition: String,
}

/// The names of some tables and the like that are there, but those of PostgreSQL and its extensions.
const OTHERS: &str = "SELECT coalesce(string_agg(name, ', '), '') FROM (
        SELECT format('%I.%I', space.nspname, class.relname) AS name
        FROM pg_class class JOIN pg_namespace space ON space.oid = class.relnamespace
        WHERE class.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND left(space.nspname, 3) <> 'pg_' AND space.nspname <> 'information_schema'
            AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = class.oid AND deptype = 'e')
        ORDER BY 1 LIMIT 5) AS found WHERE $1 <> 0";

impl Import {
    /// Marks the database, so that no host starts on it. `from`: where the rows come from, in words.
    /// Errors: `Other` where it has data, or another import is under way.
    pub async fn begin(url: &str, from: &str) -> Result<(Self, Before), SqlError> {
        let other = |reason: String| SqlError::new(ErrorClass::Other, reason);
        let options: PgConnectOptions = options_of(url)?;
        let options = options.application_name("echod migrate").options([
            ("statement_timeout", "0"),
            ("client_min_messages", "warning"),
            ("timezone", "UTC"),
            ("maintenance_work_mem", "128MB"),
        ]);
        let connection = PgConnection::connect_with(&options).await;
        let connection = connection.map_err(|error| SqlError { class: ErrorClass::Unavailable, ..errors::from_sqlx(error) })?;
        let mut this = Self { connection, from: from.to_owned() };
        if this.text("SELECT pg_try_advisory_lock($1)::text", LOCK).await?.as_deref() != Some("true") {
            return Err(other("another `echod migrate` fills this database just now".to_owned()));
        }
        let is_there = this.text("SELECT (to_regclass('echo.setting') IS NOT NULL AND $1 <> 0)::text", 1).await?;
        let mut was_cut_off = false;
        if is_there.as_deref() == Some("true") {
            if let Some(from) = this.setting(FINISHED).await? {
                return Ok((this, Before::Finished { from }));
            }
            was_cut_off = this.setting(UNFINISHED).await?.is_some();
            if was_cut_off {
                this.empty().await?;
            } else {
                return Err(other(format!(
                    "it has a schema {HOST_SCHEMA} already, of hosts that have started on it: name an empty database, or drop that one and make it anew"
                )));
            }
        }
        let found = this.text(OTHERS, 1).await?.unwrap_or_default();
        if !was_cut_off && !found.is_empty() {
            return Err(other(format!("it is not empty: there are {found}. Name an empty database, which hosts alone will use")));
        }
        let mark = format!(
            "BEGIN; CREATE SCHEMA IF NOT EXISTS {HOST_SCHEMA};
             CREATE TABLE IF NOT EXISTS {HOST_SCHEMA}.setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
             INSERT INTO {HOST_SCHEMA}.setting (name, value) VALUES ('{UNFINISHED}', {}); COMMIT",
            literal(from)
        );
        this.run(&mark).await?;
        Ok((this, Before::Nothing { was_cut_off }))
    }

    /// Drops what an import that was cut off has left.
    async fn empty(&mut self) -> Result<(), SqlError> {
        let is_there = self.text("SELECT (to_regclass('echo.source') IS NOT NULL AND $1 <> 0)::text", 1).await?;
        if is_there.as_deref() == Some("true") {
            let services =
                self.connection.fetch_all("SELECT service FROM echo.source WHERE service <> 'hub'").await.map_err(errors::from_sqlx)?;
            for row in services {
                let service: String = row.try_get(0).map_err(errors::from_sqlx)?;
                self.run(&format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(&format!("{HOST_SCHEMA}_{service}")))).await?;
            }
        }
        self.run(&format!("DROP SCHEMA {HOST_SCHEMA} CASCADE")).await
    }

    /// From here on hosts may start. All is on the disk when it returns.
    pub async fn finish(mut self) -> Result<(), SqlError> {
        self.run("ANALYZE").await?;
        let finish = format!(
            "BEGIN; DELETE FROM {HOST_SCHEMA}.setting WHERE name = '{UNFINISHED}';
             INSERT INTO {HOST_SCHEMA}.setting (name, value) VALUES ('{FINISHED}', {}); COMMIT",
            literal(&self.from)
        );
        self.run(&finish).await
    }

    async fn setting(&mut self, name: &str) -> Result<Option<String>, SqlError> {
        let found = sqlx::query_scalar("SELECT value FROM echo.setting WHERE name = $1").bind(name);
        found.fetch_optional(&mut self.connection).await.map_err(errors::from_sqlx)
    }

    async fn text(&mut self, sql: &'static str, number: i64) -> Result<Option<String>, SqlError> {
        sqlx::query_scalar(sql).bind(number).fetch_optional(&mut self.connection).await.map_err(errors::from_sqlx)
    }

    /// Statements of our own.
    pub async fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        self.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.map(drop).map_err(errors::from_sqlx)
    }

    /// `table` with its schema, quoted.
    pub async fn columns(&mut self, table: &str) -> Result<Columns, SqlError> {
        let sql = "SELECT attname::text, atttypid::bigint FROM pg_catalog.pg_attribute
            WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let rows = sqlx::query(sql).bind(table).fetch_all(&mut self.connection).await.map_err(errors::from_sqlx)?;
        let columns = rows.iter().map(|row| {
            let (name, oid) = (row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?);
            Ok((name, u32::try_from(oid).unwrap_or_default()))
        });
        columns.collect::<Result<_, sqlx::Error>>().map_err(errors::from_sqlx)
    }

    /// Takes the foreign keys of a schema away, so that rows may come in any order.
    pub async fn take_foreign_keys(&mut self, schema: &str) -> Result<Vec<ForeignKey>, SqlError> {
        let sql = "SELECT k.conrelid::regclass::text, k.conname::text, pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint AS k
            JOIN pg_catalog.pg_namespace AS n ON n.oid = k.connamespace WHERE n.nspname = $1 AND k.contype = 'f' ORDER BY k.oid";
        let rows = sqlx::query(sql).bind(schema).fetch_all(&mut self.connection).await.map_err(errors::from_sqlx)?;
        let mut keys = Vec::new();
        for row in rows {
            let get = |index: usize| row.try_get::<String, _>(index).map_err(errors::from_sqlx);
            keys.push(ForeignKey { table: get(0)?, name: get(1)?, definition: get(2)? });
        }
        for ForeignKey { table, name, .. } in &keys {
            self.run(&format!("ALTER TABLE {table} DROP CONSTRAINT {}", quoted(name))).await?;
        }
        Ok(keys)
    }

    /// Puts them back, which checks all rows. Errors: `ForeignKey`.
    pub async fn put_foreign_keys(&mut self, keys: Vec<ForeignKey>) -> Result<(), SqlError> {
        for ForeignKey { table, name, definition } in keys {
            self.run(&format!("ALTER TABLE {table} ADD CONSTRAINT {} {definition}", quoted(&name))).await?;
        }
        Ok(())
    }

    /// Numbers that the table's identity columns give out are above those that are there, and above this one.
    pub async fn continue_sequences(&mut self, table: &str, above: i64) -> Result<(), SqlError> {
        let sql = "SELECT attname::text, pg_get_serial_sequence($1::text, attname::text) FROM pg_catalog.pg_attribute
            WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND pg_get_serial_sequence($1::text, attname::text) IS NOT NULL";
        let rows = sqlx::query(sql).bind(table).fetch_all(&mut self.connection).await.map_err(errors::from_sqlx)?;
        for row in rows {
            let get = |index: usize| row.try_get::<String, _>(index).map_err(errors::from_sqlx);
            let (column, sequence) = (quoted(&get(0)?), literal(&get(1)?));
            let next = format!("SELECT setval({sequence}, greatest((SELECT coalesce(max({column}), 0) FROM {table}), {above}) + 1, false)");
            self.run(&next).await?;
        }
        Ok(())
    }

    /// To add rows.
    pub async fn copy_in(&mut self, table: &str, columns: &str) -> Result<CopyIn<'_>, SqlError> {
        let sql = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
        let copy = self.connection.copy_in_raw(&sql).await.map_err(errors::from_sqlx)?;
        Ok(CopyIn { copy, waiting: HEADER.to_vec() })
    }

    /// The table's rows, each as `Encoder` writes it.
    pub async fn copy_out(&mut self, table: &str, columns: &str, mut take: impl FnMut(&[u8])) -> Result<(), SqlError> {
        let cut_off = || SqlError::new(ErrorClass::Other, "the server's copy is cut off");
        let sql = format!("COPY (SELECT {columns} FROM {table}) TO STDOUT (FORMAT binary)");
        let mut copy = self.connection.copy_out_raw(&sql).await.map_err(errors::from_sqlx)?;
        let (mut waiting, mut has_header) = (Vec::new(), false);
        while let Some(some) = copy.next().await {
            waiting.extend(some.map_err(errors::from_sqlx)?);
            let mut rest = waiting.as_slice();
            if !has_header {
                let Some(after) = rest.get(HEADER.len()..) else { continue };
                (rest, has_header) = (after, true);
            }
            while let Some(row) = values::row_length(rest) {
                take(&rest[..row]);
                rest = &rest[row..];
            }
            waiting = rest.to_vec();
        }
        // What is left is the mark of the end.
        if waiting == (-1_i16).to_be_bytes() { Ok(()) } else { Err(cut_off()) }
    }
}

/// The migrations that are applied to a service's schema and final; none where there is no such schema. Changes nothing.
pub async fn applied(url: &str, service: &ServiceName) -> Result<Vec<String>, SqlError> {
    let connection = PgConnection::connect_with(&options_of(url)?).await;
    let mut connection = connection.map_err(|error| SqlError { class: ErrorClass::Unavailable, ..errors::from_sqlx(error) })?;
    let table = format!("{}._echo_migrations", quoted(&schema_of(service)));
    let is_there = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&table).fetch_one(&mut connection).await;
    if !is_there.map_err(errors::from_sqlx)? {
        return Ok(Vec::new());
    }
    let names = AssertSqlSafe(format!("SELECT name FROM {table} WHERE undo IS NULL ORDER BY name"));
    sqlx::query_scalar(names).fetch_all(&mut connection).await.map_err(errors::from_sqlx)
}

impl PostgresBackend {
    /// What all hosts of a database must have in common: keeps `value` under the name where there is none yet. Whether it is what is kept.
    pub async fn agrees(&self, name: &str, value: &str) -> Result<bool, SqlError> {
        let put = "INSERT INTO setting AS known (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = known.value RETURNING value";
        let kept = text(self.shared.host.take().await?.rows(put, vec![name.into(), value.into()]).await?)?;
        Ok(kept == value)
    }

    /// For `echod migrate`: the outbox of a service, or of the feeds (`hub`), goes on under the name that it had; to be called before the service is opened.
    pub async fn continue_source(&self, service: &str, name: &str) -> Result<(), SqlError> {
        let put = "INSERT INTO source (service, name) VALUES ($1, $2) ON CONFLICT (service) DO UPDATE SET name = excluded.name";
        self.shared.host.take().await?.rows(put, vec![service.into(), name.into()]).await.map(drop)
    }

    /// For `echod migrate`: effects that are committed and have not left. `service`: none for the feeds' own.
    pub async fn put_effects(&self, service: Option<&ServiceName>, effects: Vec<Effect>) -> Result<(), SqlError> {
        let schema = service.map_or_else(|| HOST_SCHEMA.to_owned(), schema_of);
        let mut connection = self.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        connection.raw(format!("SET LOCAL search_path = {}, pg_temp", quoted(&schema))).await?;
        let mut pending = Pending::default();
        for effect in effects {
            pending.push(effect)?;
            if pending.is_full() {
                pending.write(&mut connection).await?;
            }
        }
        if !pending.is_empty() {
            pending.write(&mut connection).await?;
        }
        connection.commit().await
    }

    /// For `echod migrate`: a back-fill that was done before the rows came here.
    pub async fn note_backfill(&self, service: &ServiceName, backfill: &Migration, began_us: i64, rows: i64) -> Result<(), SqlError> {
        let table = format!("{}._echo_backfills", quoted(&schema_of(service)));
        let put = format!("INSERT INTO {table} (name, sha256, began_us, rows, done_us) VALUES ($1, $2, $3, $4, $3)");
        let values = vec![backfill.name.as_str().into(), digest(&backfill.sql).into(), began_us.into(), rows.into()];
        self.shared.host.take().await?.rows(&put, values).await.map(drop)
    }
}

/// Rows on their way to a table. None of them is there before `finish`.
pub struct CopyIn<'a> {
    copy: PgCopyIn<&'a mut PgConnection>,
    waiting: Vec<u8>,
}

impl CopyIn<'_> {
    /// Rows that `Encoder` has written, one after the other.
    pub async fn send(&mut self, rows: &[u8]) -> Result<(), SqlError> {
        self.waiting.extend(rows);
        if self.waiting.len() >= SEND_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SqlError> {
        self.copy.send(std::mem::take(&mut self.waiting)).await.map(drop).map_err(errors::from_sqlx)
    }

    pub async fn finish(mut self) -> Result<(), SqlError> {
        // The end of the rows.
        self.waiting.extend((-1_i16).to_be_bytes());
        self.flush().await?;
        self.copy.finish().await.map(drop).map_err(errors::from_sqlx)
    }
}

/// Writes rows as `COPY` reads them.
pub struct Encoder {
    types: Vec<u32>,
}

impl Encoder {
    pub fn new(types: Vec<u32>) -> Self {
        Self { types }
    }

    /// The row, and where each of its values begins. Errors: which value is none of its column's type.
    pub fn row(&self, row: &[Value], out: &mut Vec<u8>) -> Result<Vec<usize>, (usize, String)> {
        let mut begins = Vec::with_capacity(row.len() + 1);
        out.extend((row.len() as i16).to_be_bytes());
        for (place, (value, wanted)) in row.iter().zip(&self.types).enumerate() {
            begins.push(out.len());
            values::write(value, *wanted, out).map_err(|reason| (place, reason))?;
        }
        begins.push(out.len());
        Ok(begins)
    }

    /// The same for all ways in which PostgreSQL may write the same value.
    pub fn canonical(&self, row: &[u8], mut take: impl FnMut(&[u8])) {
        let mut rest = &row[2..];
        for wanted in &self.types {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { return };
            let length = i32::from_be_bytes(*length);
            take(&length.signum().to_be_bytes());
            let Ok(length) = usize::try_from(length) else {
                rest = after;
                continue;
            };
            let (value, after) = after.split_at(length.min(after.len()));
            let value = values::canonical(value, *wanted);
            take(&(value.len() as u64).to_be_bytes());
            take(&value);
            rest = after;
        }
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
