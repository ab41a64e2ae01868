//! Reads a database file of the host's own that no host has open, row by row, for a move to another engine. Blocks on the disk.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::{errors, values};
use crate::sql::{SqlError, Value};

/// A service's table, as it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<String>,
    /// Columns of the primary key, by their place among `columns`; none where it has no key.
    pub key: Vec<usize>,
}

pub struct SqliteFile(Connection);

impl SqliteFile {
    /// What a killed host left in the write-ahead log is taken into account.
    pub fn open(path: &Path) -> Result<Self, SqlError> {
        let sqlite = Connection::open(path).map_err(errors::from_rusqlite)?;
        // All that is read is of one moment, should somebody start a host on it after all.
        sqlite.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(errors::from_rusqlite)?;
        Ok(Self(sqlite))
    }

    pub fn has(&self, table: &str) -> Result<bool, SqlError> {
        let found = self.0.query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1", [table], |_| Ok(()));
        Ok(found.optional().map_err(errors::from_rusqlite)?.is_some())
    }

    /// The service's own tables, without the host's.
    pub fn tables(&self) -> Result<Vec<Table>, SqlError> {
        let mut tables = Vec::new();
        let own = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_echo\\_%' ESCAPE '\\'
            AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
        for row in self.rows(own)? {
            let [Value::Text(name)] = row.as_slice() else { continue };
            let (mut columns, mut key) = (Vec::new(), Vec::new());
            // `pk`: the column's place in the primary key, from 1.
            let described = format!("SELECT name, pk FROM pragma_table_info({}) ORDER BY cid", literal(name));
            for (place, row) in self.rows(&described)?.into_iter().enumerate() {
                if let [Value::Text(column), Value::S64(pk)] = row.as_slice() {
                    columns.push(column.clone());
                    key.extend((*pk > 0).then_some(place));
                }
            }
            tables.push(Table { name: name.clone(), columns, key });
        }
        Ok(tables)
    }

    /// The highest number that each of the tables with AUTOINCREMENT has given out.
    pub fn sequences(&self) -> Result<Vec<(String, i64)>, SqlError> {
        if !self.has_object("sqlite_sequence")? {
            return Ok(Vec::new());
        }
        let rows = self.rows("SELECT name, seq FROM sqlite_sequence")?;
        let sequences = rows.into_iter().filter_map(|row| match row.as_slice() {
            [Value::Text(name), Value::S64(seq)] => Some((name.clone(), *seq)),
            _ => None,
        });
        Ok(sequences.collect())
    }

    fn has_object(&self, name: &str) -> Result<bool, SqlError> {
        let found = self.0.query_row("SELECT 1 FROM sqlite_schema WHERE name = $1", [name], |_| Ok(()));
        Ok(found.optional().map_err(errors::from_rusqlite)?.is_some())
    }

    /// Of few rows.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Value>>, SqlError> {
        let mut rows = Vec::new();
        let mut reading = self.0.prepare(sql).map_err(errors::from_rusqlite)?;
        let mut cursor = reading.query([]).map_err(errors::from_rusqlite)?;
        while let Some(row) = cursor.next().map_err(errors::from_rusqlite)? {
            rows.push(values::row(row)?.0);
        }
        Ok(rows)
    }

    /// Row by row, some at a time: `take` is given up to `count` of them, until there are no more.
    pub async fn each(
        &self,
        sql: &str,
        count: usize,
        mut take: impl AsyncFnMut(Vec<Vec<Value>>) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let mut reading = self.0.prepare(sql).map_err(errors::from_rusqlite)?;
        let mut cursor = reading.query([]).map_err(errors::from_rusqlite)?;
        loop {
            let mut some = Vec::with_capacity(count);
            while some.len() < count
                && let Some(row) = cursor.next().map_err(errors::from_rusqlite)?
            {
                some.push(values::row(row)?.0);
            }
            let is_last = some.len() < count;
            if !some.is_empty() {
                take(some).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A name as SQLite reads it, whatever is in it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
