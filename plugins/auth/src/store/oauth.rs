//! SQL of the identities that are linked to accounts, and of ID Tokens that were used.

use echo_sdk::sql::{Sql, SqlError, timestamp, uuid};
use echo_sdk::{from_row, params};

use super::Account;
use crate::bindings::exports::echo::auth::api::Identity;

from_row!(Identity { provider, email, linked_at, last_used_at });

pub struct NewIdentity<'a> {
    pub provider: &'a str,
    pub issuer: &'a str,
    pub subject: &'a str,
    pub email: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Linked {
    /// Now or before.
    Done,
    /// The identity is another account's.
    OfAnother,
    /// The account has another identity of this provider.
    Occupied,
}

pub fn link_identity(db: &impl Sql, account: &str, new: &NewIdentity, now_us: u64) -> Result<Linked, SqlError> {
    let sql = "INSERT INTO identities (account_id, provider, issuer, subject, email, linked_at) VALUES ($1, $2, $3, $4, $5, $6) \
        ON CONFLICT DO NOTHING";
    if db.execute(sql, params![uuid(account), new.provider, new.issuer, new.subject, new.email, timestamp(now_us)])? == 1 {
        return Ok(Linked::Done);
    }
    let sql = "SELECT account_id FROM identities WHERE issuer = $1 AND subject = $2";
    Ok(match db.row::<(String,)>(sql, params![new.issuer, new.subject])? {
        Some((owner,)) if owner == account => Linked::Done,
        Some(_) => Linked::OfAnother,
        None => Linked::Occupied,
    })
}

pub fn account_of_identity(db: &impl Sql, issuer: &str, subject: &str) -> Result<Option<Account>, SqlError> {
    let sql = "SELECT id, phone, name, password_hash, verified, country, region, timezone, created_at FROM accounts \
        WHERE id = (SELECT account_id FROM identities WHERE issuer = $1 AND subject = $2)";
    db.row(sql, params![issuer, subject])
}

/// False where it is not linked to the account.
pub fn use_identity(db: &impl Sql, account: &str, issuer: &str, subject: &str, now_us: u64) -> Result<bool, SqlError> {
    let sql = "UPDATE identities SET last_used_at = $4 WHERE issuer = $2 AND subject = $3 AND account_id = $1";
    Ok(db.execute(sql, params![uuid(account), issuer, subject, timestamp(now_us)])? == 1)
}

/// By provider.
pub fn identities_of(db: &impl Sql, account: &str) -> Result<Vec<Identity>, SqlError> {
    let sql = "SELECT provider, email, linked_at, last_used_at FROM identities WHERE account_id = $1 ORDER BY provider";
    db.rows(sql, params![uuid(account)])
}

/// Whether there was one.
pub fn unlink_identity(db: &impl Sql, account: &str, provider: &str) -> Result<bool, SqlError> {
    Ok(db.execute("DELETE FROM identities WHERE account_id = $1 AND provider = $2", params![uuid(account), provider])? == 1)
}

/// Uses it up; false where that was done before.
pub fn take_id_token(db: &impl Sql, fingerprint: &str, refused_from_us: u64) -> Result<bool, SqlError> {
    let sql = "INSERT INTO used_id_tokens (fingerprint, refused_from) VALUES ($1, $2) ON CONFLICT (fingerprint) DO NOTHING";
    Ok(db.execute(sql, params![fingerprint, timestamp(refused_from_us)])? == 1)
}

/// Those that are refused for their age at this time.
pub fn forget_id_tokens(db: &impl Sql, now_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM used_id_tokens WHERE fingerprint IN \
        (SELECT fingerprint FROM used_id_tokens WHERE refused_from <= $1 ORDER BY refused_from LIMIT $2)";
    db.execute(sql, params![timestamp(now_us), rows_max])?;
    Ok(())
}

#[cfg(test)]
mod tests;
