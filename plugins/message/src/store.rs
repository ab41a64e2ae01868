//! All SQL of the message service, one function per question, by what it is about. Written once, in the dialect that SQLite and PostgreSQL
//! share.

use echo_sdk::params;
use echo_sdk::sql::{Database, Sql, SqlError, uuid};

pub mod conversations;
pub mod messages;
pub mod receipts;

/// Keeps the newest revision of what one user has to do with another.
pub fn record_block(user_id: &str, blocked: &str, active: bool, revision: u64) -> Result<(), SqlError> {
    Database.execute(
        "INSERT INTO blocks (user_id, blocked_user_id, active, revision) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id, blocked_user_id) DO UPDATE SET active = excluded.active, revision = excluded.revision \
         WHERE blocks.revision < excluded.revision",
        params![uuid(user_id), uuid(blocked), active, revision],
    )?;
    Ok(())
}
