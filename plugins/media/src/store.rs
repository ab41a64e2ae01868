//! All SQL of the media service, one function per question.

use echo_sdk::sql::{Database, Sql, SqlError, Transaction, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

/// A file; its bytes are there when it has a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub owner_id: String,
    pub blob: Option<String>,
    pub content_type: String,
    pub kind: String,
    pub file_name: Option<String>,
    pub size: u64,
    /// How many bytes came, once all had.
    pub uploaded: Option<u64>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub duration_ms: Option<u64>,
    pub created_at: Timestamp,
}

from_row!(Row { id, owner_id, blob, content_type, kind, file_name, size, uploaded, width, height, duration_ms, created_at });

pub fn media(id: &str) -> Result<Option<Row>, SqlError> {
    Database.row(
        "SELECT id, owner_id, blob, content_type, kind, file_name, size, uploaded, width, height, duration_ms, created_at FROM media WHERE id = $1",
        params![uuid(id)],
    )
}

/// Some of a person's files, each with its blob.
pub fn some_of(owner_id: &str, limit: u32) -> Result<Vec<(String, Option<String>)>, SqlError> {
    Database.rows("SELECT id, blob FROM media WHERE owner_id = $1 LIMIT $2", params![uuid(owner_id), limit])
}

/// A person's files of until then, in the order of their ids, from after an id on.
pub fn files_after(owner_id: &str, after_id: &str, until: Timestamp, limit: i64) -> Result<Vec<Row>, SqlError> {
    Database.rows(
        "SELECT id, owner_id, blob, content_type, kind, file_name, size, uploaded, width, height, duration_ms, created_at FROM media \
         WHERE owner_id = $1 AND id > $2 AND created_at <= $3 ORDER BY id LIMIT $4",
        params![uuid(owner_id), uuid(after_id), timestamp(until), limit],
    )
}

/// Files, and their bytes together.
pub fn usage_of(sql: &impl Sql, owner_id: &str) -> Result<(u64, u64), SqlError> {
    sql.one("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM media WHERE owner_id = $1", params![uuid(owner_id)])
}

/// One whose bytes are still to come.
pub fn insert(tx: &Transaction, row: &Row) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO media (id, owner_id, state, content_type, kind, file_name, size, created_at) VALUES ($1, $2, 'uploading', $3, $4, $5, $6, $7)",
        params![
            uuid(&row.id),
            uuid(&row.owner_id),
            &row.content_type,
            &row.kind,
            row.file_name.as_deref(),
            row.size,
            timestamp(row.created_at)
        ],
    )?;
    Ok(())
}

/// What it is and where its bytes are. False where it is gone.
pub fn set_ready(row: &Row) -> Result<bool, SqlError> {
    let changed = Database.execute(
        "UPDATE media SET state = 'ready', blob = $2, content_type = $3, kind = $4, size = $5, uploaded = $6, width = $7, \
         height = $8, duration_ms = $9 WHERE id = $1",
        params![
            uuid(&row.id),
            row.blob.as_deref(),
            &row.content_type,
            &row.kind,
            row.size,
            row.uploaded,
            row.width,
            row.height,
            row.duration_ms
        ],
    )?;
    Ok(changed == 1)
}

/// Takes one of the tries that there are to decode a picture, or the one more that there is when the last was before this time. False where there is none.
pub fn take_thumbnail_try(id: &str, now: Timestamp, tries_max: u32, forgotten_before: Timestamp) -> Result<bool, SqlError> {
    let changed = Database.execute(
        "UPDATE media SET thumbnail_tries = thumbnail_tries + 1, thumbnail_tried_at = $2 \
         WHERE id = $1 AND (thumbnail_tries < $3 OR thumbnail_tried_at < $4)",
        params![uuid(id), timestamp(now), tries_max, timestamp(forgotten_before)],
    )?;
    Ok(changed == 1)
}

/// When the picture was last decoded for a thumbnail and that did not work, or does not yet.
pub fn thumbnail_tried_at(id: &str) -> Result<Option<Timestamp>, SqlError> {
    let found: Option<(Option<Timestamp>,)> = Database.row("SELECT thumbnail_tried_at FROM media WHERE id = $1", params![uuid(id)])?;
    Ok(found.and_then(|(at,)| at))
}

/// A thumbnail was made: the tries count from none again.
pub fn forget_thumbnail_tries(id: &str) -> Result<(), SqlError> {
    Database.execute("UPDATE media SET thumbnail_tries = 0, thumbnail_tried_at = NULL WHERE id = $1", params![uuid(id)])?;
    Ok(())
}

pub fn delete(id: &str) -> Result<(), SqlError> {
    Database.execute("DELETE FROM media WHERE id = $1", params![uuid(id)])?;
    Ok(())
}

/// Uploads that were begun before this time and are not whole, the oldest first.
pub fn unfinished_since(sql: &impl Sql, before: Timestamp, limit: u32) -> Result<Vec<String>, SqlError> {
    let rows: Vec<(String,)> = sql.rows(
        "SELECT id FROM media WHERE state = 'uploading' AND created_at < $1 ORDER BY created_at LIMIT $2",
        params![timestamp(before), limit],
    )?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

#[cfg(test)]
mod tests;
