//! SQL of registrations, of requests for a new password, and of the codes of both.

use echo_sdk::sql::{FromRow, Row, Sql, SqlError, timestamp};
use echo_sdk::{from_row, params};

use crate::numbers::Place;
use crate::otp::{Code, KeptCode};

// --- One-time codes --------------------------------------------------------------------------------------------------------------------

from_row!(KeptCode { fingerprint, tries, expires_at });

/// Without a code where none is sent.
pub fn add_reset(db: &impl Sql, fingerprint: &str, phone: &str, code: Option<&Code>, expires_at: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO resets (fingerprint, phone, code_fingerprint, expires_at) VALUES ($1, $2, $3, $4)";
    db.execute(sql, params![fingerprint, phone, code.map(|code| code.fingerprint.as_str()), timestamp(expires_at)])?;
    Ok(())
}

/// Counts a try at the code of this request and gives it: in one statement, so that tries made at once are all counted.
pub fn try_reset(db: &impl Sql, fingerprint: &str, phone: &str) -> Result<Option<KeptCode>, SqlError> {
    let sql = "UPDATE resets SET tries = tries + 1 WHERE fingerprint = $1 AND phone = $2 RETURNING COALESCE(code_fingerprint, ''), tries, expires_at";
    db.row(sql, params![fingerprint, phone])
}

/// This code, if it was sent to the number; its tries are counted elsewhere.
pub fn reset_code(db: &impl Sql, phone: &str, code: &Code) -> Result<Option<KeptCode>, SqlError> {
    let sql =
        "SELECT code_fingerprint, 0, expires_at FROM resets WHERE phone = $1 AND code_fingerprint = $2 ORDER BY expires_at DESC LIMIT 1";
    db.row(sql, params![phone, &code.fingerprint])
}

/// All of the number, if this code was still there.
pub fn end_resets(db: &impl Sql, phone: &str, code: &Code) -> Result<bool, SqlError> {
    if db.execute("DELETE FROM resets WHERE phone = $1 AND code_fingerprint = $2", params![phone, &code.fingerprint])? == 0 {
        return Ok(false);
    }
    db.execute("DELETE FROM resets WHERE phone = $1", params![phone])?;
    Ok(true)
}

/// When the last code was sent, and when the day began in which codes are counted.
pub struct CodeCount {
    pub sent_at: u64,
    pub day_started_at: u64,
    pub sent_count: u64,
}
from_row!(CodeCount { sent_at, day_started_at, sent_count });

pub fn code_count(db: &impl Sql, key: &str) -> Result<Option<CodeCount>, SqlError> {
    db.row("SELECT sent_at, day_started_at, sent_count FROM code_counts WHERE key = $1", params![key])
}

/// One more. A day that began by then is over.
pub fn count_code(db: &impl Sql, key: &str, now_us: u64, day_since_us: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO code_counts (key, sent_at, day_started_at, sent_count) VALUES ($1, $2, $2, 1) \
        ON CONFLICT (key) DO UPDATE SET sent_at = excluded.sent_at, \
            sent_count = CASE WHEN code_counts.day_started_at <= $3 THEN 1 ELSE code_counts.sent_count + 1 END, \
            day_started_at = CASE WHEN code_counts.day_started_at <= $3 THEN excluded.day_started_at ELSE code_counts.day_started_at END";
    db.execute(sql, params![key, timestamp(now_us), timestamp(day_since_us)])?;
    Ok(())
}

pub fn forget_code_counts(db: &impl Sql, sent_before_us: u64) -> Result<(), SqlError> {
    db.execute("DELETE FROM code_counts WHERE sent_at < $1", params![timestamp(sent_before_us)])?;
    Ok(())
}
