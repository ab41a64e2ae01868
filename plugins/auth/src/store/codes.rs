//! SQL of registrations, of requests for a new password, and of the codes of both.

use echo_sdk::sql::{FromRow, Row, Sql, SqlError, timestamp};
use echo_sdk::{from_row, params};

use crate::numbers::Place;
use crate::otp::{Code, KeptCode};

// --- Registrations -------------------------------------------------------------------------------------------------------------------

pub struct NewRegistration<'a> {
    /// Of the secret that the client holds.
    pub fingerprint: &'a str,
    pub phone: &'a str,
    pub password_hash: &'a str,
    pub name: Option<&'a str>,
    pub place: &'a Place,
    pub address: Option<&'a str>,
    pub code: &'a Code,
    pub code_expires_at: u64,
    pub expires_at: u64,
}

/// An open one, with the tries at its code.
pub struct Registration {
    pub password_hash: String,
    pub name: Option<String>,
    pub country: Option<String>,
    pub region: Option<String>,
    pub timezone: Option<String>,
    pub code: KeptCode,
}

impl FromRow for Registration {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self {
            password_hash: row.take()?,
            name: row.take()?,
            country: row.take()?,
            region: row.take()?,
            timezone: row.take()?,
            code: KeptCode { fingerprint: row.take()?, tries: row.take()?, expires_at: row.take()? },
        })
    }
}

pub fn add_registration(db: &impl Sql, new: &NewRegistration, now_us: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO registrations (fingerprint, phone, password_hash, name, country, region, timezone, address, \
            code_fingerprint, code_expires_at, opened_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let params = params![
        new.fingerprint,
        new.phone,
        new.password_hash,
        new.name,
        new.place.country.as_deref(),
        new.place.region.as_deref(),
        new.place.timezone.as_deref(),
        new.address,
        &new.code.fingerprint,
        timestamp(new.code_expires_at),
        timestamp(now_us),
        timestamp(new.expires_at),
    ];
    db.execute(sql, params)?;
    Ok(())
}

/// How many of a number are open, and when the first of them ends.
pub fn open_registrations(db: &impl Sql, phone: &str, now_us: u64) -> Result<(u64, Option<u64>), SqlError> {
    let sql = "SELECT COUNT(*), MIN(expires_at) FROM registrations WHERE phone = $1 AND expires_at > $2";
    db.one(sql, params![phone, timestamp(now_us)])
}

/// Counts a try at the registration's code and gives it: in one statement, so that tries made at once are all counted.
pub fn try_registration(db: &impl Sql, fingerprint: &str, phone: &str, now_us: u64) -> Result<Option<Registration>, SqlError> {
    let sql = "UPDATE registrations SET tries = tries + 1 WHERE fingerprint = $1 AND phone = $2 AND expires_at > $3 \
        RETURNING password_hash, name, country, region, timezone, code_fingerprint, tries, code_expires_at";
    db.row(sql, params![fingerprint, phone, timestamp(now_us)])
}

/// Gives an open registration another code; false where there is none.
pub fn renew_code(db: &impl Sql, fingerprint: &str, phone: &str, code: &Code, code_expires_at: u64, now_us: u64) -> Result<bool, SqlError> {
    let sql = "UPDATE registrations SET code_fingerprint = $3, code_expires_at = $4, tries = 0 \
        WHERE fingerprint = $1 AND phone = $2 AND expires_at > $5";
    let params = params![fingerprint, phone, &code.fingerprint, timestamp(code_expires_at), timestamp(now_us)];
    Ok(db.execute(sql, params)? == 1)
}

/// The password of an open registration of this number: one made from this address, else the newest.
pub fn password_of_registration(db: &impl Sql, phone: &str, address: Option<&str>, now_us: u64) -> Result<Option<String>, SqlError> {
    let sql = "SELECT password_hash FROM registrations WHERE phone = $1 AND expires_at > $3 \
        ORDER BY CASE WHEN address = $2 THEN 0 ELSE 1 END, opened_at DESC LIMIT 1";
    Ok(db.row::<(String,)>(sql, params![phone, address.unwrap_or_default(), timestamp(now_us)])?.map(|(hash,)| hash))
}

/// All of a number, when one of them was confirmed.
pub fn end_registrations(db: &impl Sql, phone: &str) -> Result<(), SqlError> {
    db.execute("DELETE FROM registrations WHERE phone = $1", params![phone])?;
    Ok(())
}

pub fn forget_registrations(db: &impl Sql, now_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM registrations WHERE fingerprint IN \
        (SELECT fingerprint FROM registrations WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    db.execute(sql, params![timestamp(now_us), rows_max])?;
    Ok(())
}

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

pub fn forget_resets(db: &impl Sql, expired_before_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM resets WHERE fingerprint IN (SELECT fingerprint FROM resets WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)";
    db.execute(sql, params![timestamp(expired_before_us), rows_max])?;
    Ok(())
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

pub fn forget_code_counts(db: &impl Sql, sent_before_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM code_counts WHERE key IN (SELECT key FROM code_counts WHERE sent_at < $1 ORDER BY sent_at LIMIT $2)";
    db.execute(sql, params![timestamp(sent_before_us), rows_max])?;
    Ok(())
}

#[cfg(test)]
mod tests;
