//! Moves tables from a SQLite file to PostgreSQL: a first copy of a file that may be behind, then what has changed since, then a comparison of both
//! sides. Knows columns and keys; not what is in them.
//!
//! Of the first copy a digest of every row is kept in memory, under its key: so the second pass reads the file once, and the server is told only what is
//! different. Rows are compared as PostgreSQL's binary format has them, whatever the engines' types are.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::postgres::import::{Encoder, Import};
use super::sqlite::export::{SqliteFile, quoted};
use super::{ErrorClass, SqlError, Value};

/// Rows that are read from the file at once.
const ROWS: usize = 1_000;

/// What becomes the rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// For people: `message.messages`, `feeds.feed_entry`.
    pub name: String,
    /// A SELECT of SQLite's, its columns in the order of `columns`.
    pub from: String,
    /// A table of PostgreSQL's, with its schema, quoted.
    pub to: String,
    pub columns: Vec<String>,
    /// Which columns are the key, by their places. Without one the rows are copied once, at the end.
    pub key: Vec<usize>,
}

/// How many rows there are, and the sum of their digests, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    pub rows: u64,
    sum: u128,
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows, checksum {:032x}", self.rows, self.sum)
    }
}

impl Checksum {
    fn add(&mut self, digest: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(digest);
    }
}

/// The rows of a part that are on the server: by their keys, their digests.
#[derive(Default)]
pub struct Copied(HashMap<Box<[u8]>, u128>);

/// A part whose columns' types the server has told.
pub struct Transfer {
    part: Part,
    encoder: Encoder,
    copied: Copied,
}

/// What the second pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaughtUp {
    pub checksum: Checksum,
    /// Rows that were added, and such that were removed or replaced.
    pub added: u64,
    pub removed: u64,
}

/// A row as the server has it.
struct Encoded {
    bytes: Vec<u8>,
    key: Box<[u8]>,
    digest: u128,
}

impl Transfer {
    /// Errors: the table has not all of these columns.
    pub async fn open(part: Part, server: &mut Import) -> Result<Self, SqlError> {
        let known: HashMap<String, u32> = server.columns(&part.to).await?.into_iter().collect();
        let mut types = Vec::new();
        for column in &part.columns {
            let Some(oid) = known.get(column) else {
                let reason = format!("{}: the table has no column {column} in PostgreSQL; the twins of its migrations differ", part.name);
                return Err(SqlError::new(ErrorClass::Other, reason));
            };
            types.push(*oid);
        }
        Ok(Self { part, encoder: Encoder::new(types), copied: Copied::default() })
    }

    pub fn name(&self) -> &str {
        &self.part.name
    }

    /// The first copy, into an empty table. How many rows.
    pub async fn copy(&mut self, file: &SqliteFile, server: &mut Import) -> Result<u64, SqlError> {
        if self.part.key.is_empty() {
            return Ok(0);
        }
        Ok(self.copy_all(file, server, true).await?.rows)
    }

    /// Brings the table to what the file has now.
    pub async fn catch_up(&mut self, file: &SqliteFile, server: &mut Import) -> Result<CaughtUp, SqlError> {
        if self.copied.0.is_empty() {
            let checksum = self.copy_all(file, server, false).await?;
            return Ok(CaughtUp { checksum, added: checksum.rows, removed: 0 });
        }
        let mut copied = std::mem::take(&mut self.copied.0);
        let (mut checksum, mut fresh, mut gone) = (Checksum::default(), Vec::new(), Vec::new());
        file.each(&self.part.from, ROWS, async |rows| {
            for row in rows {
                let Encoded { bytes, key, digest } = self.encode(&row)?;
                checksum.add(digest);
                match copied.remove(&key) {
                    Some(before) if before == digest => {}
                    before => {
                        fresh.push(bytes);
                        gone.extend(before.map(|_| key));
                    }
                }
            }
            Ok(())
        })
        .await?;
        gone.extend(copied.into_keys());
        let caught_up = CaughtUp { checksum, added: fresh.len() as u64, removed: gone.len() as u64 };
        // First what makes room for other rows with the same unique values.
        self.remove(server, gone).await?;
        if !fresh.is_empty() {
            let mut copy = server.copy_in(&self.part.to, &self.columns()).await?;
            for row in fresh {
                copy.send(&row).await?;
            }
            copy.finish().await?;
        }
        Ok(caught_up)
    }

    /// What the server has.
    pub async fn checksum(&self, server: &mut Import) -> Result<Checksum, SqlError> {
        let mut checksum = Checksum::default();
        server.copy_out(&self.part.to, &self.columns(), |row| checksum.add(self.digest(row))).await?;
        Ok(checksum)
    }

    async fn copy_all(&mut self, file: &SqliteFile, server: &mut Import, remember: bool) -> Result<Checksum, SqlError> {
        let (mut checksum, mut copied) = (Checksum::default(), HashMap::new());
        let mut copy = server.copy_in(&self.part.to, &self.columns()).await?;
        file.each(&self.part.from, ROWS, async |rows| {
            for row in rows {
                let encoded = self.encode(&row)?;
                checksum.add(encoded.digest);
                copy.send(&encoded.bytes).await?;
                if remember {
                    copied.insert(encoded.key, encoded.digest);
                }
            }
            Ok(())
        })
        .await?;
        copy.finish().await?;
        self.copied = Copied(copied);
        Ok(checksum)
    }

    async fn remove(&self, server: &mut Import, keys: Vec<Box<[u8]>>) -> Result<(), SqlError> {
        if keys.is_empty() {
            return Ok(());
        }
        let Part { to, columns, key, .. } = &self.part;
        let names: Vec<String> = key.iter().map(|place| quoted(&columns[*place])).collect();
        let list = names.join(", ");
        server.run(&format!("CREATE TEMPORARY TABLE gone AS SELECT {list} FROM {to} WITH NO DATA")).await?;
        let mut copy = server.copy_in("gone", &list).await?;
        for key in keys {
            copy.send(&(names.len() as i16).to_be_bytes()).await?;
            copy.send(&key).await?;
        }
        copy.finish().await?;
        let same: Vec<String> = names.iter().map(|name| format!("kept.{name} = gone.{name}")).collect();
        server.run(&format!("DELETE FROM {to} AS kept USING gone WHERE {}; DROP TABLE gone", same.join(" AND "))).await
    }

    fn encode(&self, row: &[Value]) -> Result<Encoded, SqlError> {
        let mut bytes = Vec::new();
        let begins = self.encoder.row(row, &mut bytes).map_err(|(place, reason)| {
            let column = self.part.columns.get(place).map_or("", String::as_str);
            SqlError::new(ErrorClass::Other, format!("{}: a value of {column} cannot be moved: {reason}", self.part.name))
        })?;
        let key = self.part.key.iter().flat_map(|place| &bytes[begins[*place]..begins[*place + 1]]).copied().collect();
        let digest = self.digest(&bytes);
        Ok(Encoded { bytes, key, digest })
    }

    fn digest(&self, row: &[u8]) -> u128 {
        let mut digest = Sha256::new();
        self.encoder.canonical(row, |bytes| digest.update(bytes));
        let digest = digest.finalize();
        u128::from_be_bytes(digest[..16].try_into().expect("sixteen of thirty-two"))
    }

    fn columns(&self) -> String {
        self.part.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
    }
}
