//! SQL of account exports: what a person keeps here, in the order of ids, from after an id on.

use echo_sdk::sql::{Database, Sql, SqlError, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use super::{Block, Contact, seen};

/// Those that the owner added until then and who have accounts.
pub fn contacts_after(owner: &str, after_id: &str, until: Timestamp, limit: i64) -> Result<Vec<Contact>, SqlError> {
    Database.rows(
        concat!(
            "SELECT o.alias, o.created_at, ",
            seen!(),
            " FROM contacts o JOIN profiles p ON p.id = o.user_id \
             WHERE o.owner_id = $1 AND o.user_id > $2 AND o.created_at <= $3 AND p.deleted_at IS NULL ORDER BY o.user_id LIMIT $4"
        ),
        params![uuid(owner), uuid(after_id), timestamp(until), limit],
    )
}

pub fn blocks_after(user_id: &str, after_id: &str, until: Timestamp, limit: i64) -> Result<Vec<Block>, SqlError> {
    Database.rows(
        "SELECT blocked_user_id, created_at FROM blocks WHERE user_id = $1 AND blocked_user_id > $2 AND active = TRUE AND created_at <= $3 \
         ORDER BY blocked_user_id LIMIT $4",
        params![uuid(user_id), uuid(after_id), timestamp(until), limit],
    )
}

pub struct Report {
    pub id: String,
    pub user_id: String,
    pub message_id: Option<String>,
    pub reason: String,
    pub created_at: Timestamp,
}

from_row!(Report { id, user_id, message_id, reason, created_at });

impl Report {
    /// The message, or the user where none is named.
    pub fn subject_id(&self) -> &str {
        self.message_id.as_deref().unwrap_or(&self.user_id)
    }
}

/// That the person made until then, by their subjects.
pub fn reports_after(reporter: &str, after_subject: &str, until: Timestamp, limit: i64) -> Result<Vec<Report>, SqlError> {
    Database.rows(
        "SELECT id, user_id, message_id, reason, created_at FROM reports WHERE reporter_id = $1 AND subject_id > $2 AND created_at <= $3 \
         ORDER BY subject_id LIMIT $4",
        params![uuid(reporter), uuid(after_subject), timestamp(until), limit],
    )
}

#[cfg(test)]
mod tests;
