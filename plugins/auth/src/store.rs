//! All SQL of the auth service, one function per question, in the dialect common to SQLite and PostgreSQL: here of accounts, sessions and sign-ins.

mod codes;
mod erasure;
mod exports;
mod factors;
mod guesses;
mod oauth;

use echo_sdk::sql::{FromRow, Row, Sql, SqlError, timestamp, uuid};
use echo_sdk::{Id, Page, from_row, params};

use crate::bindings::exports::echo::auth::api::{Device, LoginAttempt, LoginOutcome, Session};

pub use codes::*;
pub use erasure::*;
pub use exports::*;
pub use factors::*;
pub use guesses::*;
pub use oauth::*;

/// Later than anything here: where a list begins whose newest comes first (2100-01-01).
const FAR_FUTURE_US: u64 = 4_102_444_800_000_000;
/// Above every id.
pub const LAST_ID: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

// --- Accounts ------------------------------------------------------------------------------------------------------------------------

pub struct Account {
    pub id: String,
    pub phone: String,
    pub name: Option<String>,
    pub password_hash: String,
    pub verified: bool,
    pub country: Option<String>,
    pub region: Option<String>,
    pub timezone: Option<String>,
    pub created_at: u64,
}
from_row!(Account { id, phone, name, password_hash, verified, country, region, timezone, created_at });

/// A confirmed one.
pub fn account_by_phone(db: &impl Sql, phone: &str) -> Result<Option<Account>, SqlError> {
    let sql = "SELECT id, phone, name, password_hash, verified, country, region, timezone, created_at FROM accounts \
        WHERE phone = $1 AND verified = TRUE";
    db.row(sql, params![phone])
}

pub fn account_by_id(db: &impl Sql, id: &str) -> Result<Option<Account>, SqlError> {
    let sql = "SELECT id, phone, name, password_hash, verified, country, region, timezone, created_at FROM accounts WHERE id = $1";
    db.row(sql, params![uuid(id)])
}

/// The account that a confirmed registration makes: a new one, or an unconfirmed one of before. None where a confirmed one has the number.
pub fn open_account(db: &impl Sql, id: &str, phone: &str, confirmed: &Registration, now_us: u64) -> Result<Option<Account>, SqlError> {
    let sql = "INSERT INTO accounts (id, phone, name, password_hash, country, region, timezone, created_at, verified, verified_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, TRUE, $8) \
        ON CONFLICT (phone) DO UPDATE SET name = excluded.name, password_hash = excluded.password_hash, \
            country = excluded.country, region = excluded.region, timezone = excluded.timezone, verified = TRUE, verified_at = excluded.verified_at \
        WHERE accounts.verified = FALSE \
        RETURNING id, phone, name, password_hash, verified, country, region, timezone, created_at";
    let params = params![
        uuid(id),
        phone,
        confirmed.name.as_deref(),
        &confirmed.password_hash,
        confirmed.country.as_deref(),
        confirmed.region.as_deref(),
        confirmed.timezone.as_deref(),
        timestamp(now_us),
    ];
    db.row(sql, params)
}

/// Accounts that were opened by a registration before registrations were kept by themselves, and never confirmed.
pub fn forget_unverified_accounts(db: &impl Sql, opened_before_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let params = || params![timestamp(opened_before_us), rows_max];
    let sql = "DELETE FROM password_history WHERE account_id IN \
        (SELECT id FROM accounts WHERE verified = FALSE AND created_at < $1 ORDER BY created_at, id LIMIT $2)";
    db.execute(sql, params())?;
    let sql = "DELETE FROM login_attempts WHERE account_id IN \
        (SELECT id FROM accounts WHERE verified = FALSE AND created_at < $1 ORDER BY created_at, id LIMIT $2)";
    db.execute(sql, params())?;
    let sql = "DELETE FROM accounts WHERE id IN \
        (SELECT id FROM accounts WHERE verified = FALSE AND created_at < $1 ORDER BY created_at, id LIMIT $2)";
    db.execute(sql, params())?;
    Ok(())
}

/// Tables of before, which nothing is written to: `codes`, `code_quotas`, `login_failures`.
pub fn forget_what_is_counted_no_more(db: &impl Sql, before_us: u64) -> Result<(), SqlError> {
    db.execute("DELETE FROM codes WHERE expires_at < $1", params![timestamp(before_us)])?;
    db.execute("DELETE FROM code_quotas WHERE sent_at < $1", params![timestamp(before_us)])?;
    db.execute("DELETE FROM login_failures WHERE failed_at < $1", params![timestamp(before_us)])?;
    Ok(())
}

// --- Passwords -----------------------------------------------------------------------------------------------------------------------

/// Puts another hash of the same password in the old one's place; false if the old one is no longer there.
pub fn swap_password(db: &impl Sql, account: &str, old_hash: &str, new_hash: &str) -> Result<bool, SqlError> {
    if old_hash != new_hash {
        let sql = "UPDATE password_history SET password_hash = $3 WHERE account_id = $1 AND password_hash = $2";
        db.execute(sql, params![uuid(account), old_hash, new_hash])?;
    }
    set_password(db, account, old_hash, new_hash)
}

/// False if the old one is no longer there.
pub fn set_password(db: &impl Sql, account: &str, old_hash: &str, new_hash: &str) -> Result<bool, SqlError> {
    let sql = "UPDATE accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    Ok(db.execute(sql, params![uuid(account), old_hash, new_hash])? == 1)
}

/// Hashes of the newest passwords, the current one first.
pub fn passwords_of(db: &impl Sql, account: &str, count: u64) -> Result<Vec<String>, SqlError> {
    let sql = "SELECT password_hash FROM password_history WHERE account_id = $1 ORDER BY set_at DESC, id DESC LIMIT $2";
    Ok(db.rows::<(String,)>(sql, params![uuid(account), count])?.into_iter().map(|(hash,)| hash).collect())
}

pub fn remember_password(db: &impl Sql, account: &str, hash: &str, now_us: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO password_history (id, account_id, password_hash, set_at) VALUES ($1, $2, $3, $4)";
    db.execute(sql, params![uuid(echo_sdk::ids::uuid_v7()), uuid(account), hash, timestamp(now_us)])?;
    Ok(())
}

/// Keeps the newest ones.
pub fn trim_passwords(db: &impl Sql, account: &str, count: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM password_history WHERE account_id = $1 AND id NOT IN \
        (SELECT id FROM password_history WHERE account_id = $1 ORDER BY set_at DESC, id DESC LIMIT $2)";
    db.execute(sql, params![uuid(account), count])?;
    Ok(())
}

// --- Sessions ----------------------------------------------------------------------------------------------------------------------------

impl FromRow for Session {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self {
            id: row.take()?,
            device: Device {
                id: row.take()?,
                name: row.take()?,
                platform: row.take()?,
                model: row.take()?,
                os: row.take()?,
                app_version: row.take()?,
            },
            place: row.take()?,
            address: row.take()?,
            created_at: row.take()?,
            last_used_at: row.take()?,
            current: false,
        })
    }
}

pub fn add_session(db: &impl Sql, account: &str, session: &Session, expires_at: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO sessions (id, account_id, device_id, device_name, device_platform, device_model, device_os, app_version, \
            place, address, created_at, last_used_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let device = &session.device;
    let params = params![
        uuid(&session.id),
        uuid(account),
        &device.id,
        device.name.as_deref(),
        device.platform.as_deref(),
        device.model.as_deref(),
        device.os.as_deref(),
        device.app_version.as_deref(),
        session.place.as_deref(),
        session.address.as_deref(),
        timestamp(session.created_at),
        timestamp(session.last_used_at),
        timestamp(expires_at),
    ];
    db.execute(sql, params)?;
    Ok(())
}

/// Live ones, last used first.
pub fn sessions_of(db: &impl Sql, account: &str, now_us: u64) -> Result<Vec<Session>, SqlError> {
    let sql = "SELECT id, device_id, device_name, device_platform, device_model, device_os, app_version, place, address, created_at, last_used_at \
        FROM sessions WHERE account_id = $1 AND expires_at > $2 ORDER BY last_used_at DESC, id DESC";
    db.rows(sql, params![uuid(account), timestamp(now_us)])
}

/// A refresh: the only thing, with a sign-in and a linked identity, that counts as use. False where there is no such session.
pub fn touch_session(db: &impl Sql, session: &str, address: Option<String>, now_us: u64, expires_at: u64) -> Result<bool, SqlError> {
    let sql = "UPDATE sessions SET last_used_at = $2, expires_at = $3, address = COALESCE($4, address) WHERE id = $1";
    Ok(db.execute(sql, params![uuid(session), timestamp(now_us), timestamp(expires_at), address])? == 1)
}

/// Which sessions of an account end.
pub enum Ending<'a> {
    One(&'a str),
    AllBut(&'a str),
    All,
    OfDevice(&'a str),
    /// Those whose time is over at this one.
    Expired(u64),
    /// All but so many, the most recently used ones.
    AllButNewest(u64),
}

/// For `sessions::close` alone, which announces it; which ones ended.
pub fn end_sessions(db: &impl Sql, account: &str, which: &Ending) -> Result<Vec<String>, SqlError> {
    let (sql, param) = match which {
        Ending::One(session) => ("DELETE FROM sessions WHERE account_id = $1 AND id = $2 RETURNING id", Some(uuid(*session))),
        Ending::AllBut(session) => ("DELETE FROM sessions WHERE account_id = $1 AND id <> $2 RETURNING id", Some(uuid(*session))),
        Ending::All => ("DELETE FROM sessions WHERE account_id = $1 RETURNING id", None),
        Ending::OfDevice(device) => ("DELETE FROM sessions WHERE account_id = $1 AND device_id = $2 RETURNING id", Some((*device).into())),
        Ending::Expired(now_us) => {
            ("DELETE FROM sessions WHERE account_id = $1 AND expires_at <= $2 RETURNING id", Some(timestamp(*now_us)))
        }
        Ending::AllButNewest(keep) => (
            "DELETE FROM sessions WHERE account_id = $1 AND id NOT IN \
            (SELECT id FROM sessions WHERE account_id = $1 ORDER BY last_used_at DESC, id DESC LIMIT $2) RETURNING id",
            Some((*keep).into()),
        ),
    };
    let mut params = params![uuid(account)];
    params.extend(param);
    Ok(db.rows::<(String,)>(sql, params)?.into_iter().map(|(id,)| id).collect())
}

/// Accounts with sessions whose time is over, the longest over first.
pub fn accounts_with_expired_sessions(db: &impl Sql, now_us: u64, limit: u64) -> Result<Vec<String>, SqlError> {
    let sql = "SELECT account_id FROM (SELECT account_id, expires_at FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) e \
        GROUP BY account_id ORDER BY MIN(expires_at), account_id";
    Ok(db.rows::<(String,)>(sql, params![timestamp(now_us), limit])?.into_iter().map(|(id,)| id).collect())
}

// --- Refresh tokens ------------------------------------------------------------------------------------------------------------------------

/// A refresh token with its session.
pub struct KeptRefreshToken {
    pub session_id: String,
    pub account_id: String,
    pub device_id: String,
    pub expires_at: u64,
}
from_row!(KeptRefreshToken { session_id, account_id, device_id, expires_at });

pub fn refresh_token(db: &impl Sql, fingerprint: &str) -> Result<Option<KeptRefreshToken>, SqlError> {
    let sql = "SELECT sessions.id, sessions.account_id, sessions.device_id, refresh_tokens.expires_at \
        FROM refresh_tokens JOIN sessions ON sessions.id = refresh_tokens.session_id \
        WHERE refresh_tokens.fingerprint = $1";
    db.row(sql, params![fingerprint])
}

/// False if it was used before.
pub fn use_refresh_token(db: &impl Sql, fingerprint: &str, now_us: u64) -> Result<bool, SqlError> {
    let sql = "UPDATE refresh_tokens SET used_at = $2 WHERE fingerprint = $1 AND used_at IS NULL";
    Ok(db.execute(sql, params![fingerprint, timestamp(now_us)])? == 1)
}

pub fn refresh_token_used_at(db: &impl Sql, fingerprint: &str) -> Result<Option<u64>, SqlError> {
    let sql = "SELECT used_at FROM refresh_tokens WHERE fingerprint = $1 AND used_at IS NOT NULL";
    Ok(db.row::<(u64,)>(sql, params![fingerprint])?.map(|(at,)| at))
}

/// Whether there was one that nobody has used.
pub fn end_unused_successor(db: &impl Sql, fingerprint: &str) -> Result<bool, SqlError> {
    Ok(db.execute("DELETE FROM refresh_tokens WHERE predecessor = $1 AND used_at IS NULL", params![fingerprint])? > 0)
}

pub fn add_refresh_token(
    db: &impl Sql,
    fingerprint: &str,
    session: &str,
    predecessor: Option<&str>,
    expires_at: u64,
) -> Result<(), SqlError> {
    let sql = "INSERT INTO refresh_tokens (fingerprint, session_id, predecessor, expires_at) VALUES ($1, $2, $3, $4)";
    db.execute(sql, params![fingerprint, uuid(session), predecessor, timestamp(expires_at)])?;
    Ok(())
}

/// Expired ones of a session.
pub fn forget_refresh_tokens(db: &impl Sql, session: &str, now_us: u64) -> Result<(), SqlError> {
    db.execute("DELETE FROM refresh_tokens WHERE session_id = $1 AND expires_at <= $2", params![uuid(session), timestamp(now_us)])?;
    Ok(())
}

// --- History of sign-ins -------------------------------------------------------------------------------------------------------------------

impl FromRow for LoginAttempt {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self {
            at: row.take()?,
            outcome: outcome_of(&row.take::<String>()?, row.take::<Option<String>>()?.as_deref()),
            device_id: row.take()?,
            address: row.take()?,
            user_agent: row.take()?,
            provider: row.take()?,
        })
    }
}

struct Entry(String, LoginAttempt);

impl FromRow for Entry {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self(row.take()?, LoginAttempt::from_row(row)?))
    }
}

pub fn add_attempt(db: &impl Sql, id: &str, account: &str, attempt: &LoginAttempt) -> Result<(), SqlError> {
    let sql = "INSERT INTO login_attempts (id, account_id, at, outcome, second_factor, device_id, address, user_agent, provider) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let params = params![
        uuid(id),
        uuid(account),
        timestamp(attempt.at),
        outcome_name(attempt.outcome),
        second_factor_name(attempt.outcome),
        &attempt.device_id,
        attempt.address.as_deref(),
        attempt.user_agent.as_deref(),
        attempt.provider.as_deref(),
    ];
    db.execute(sql, params)?;
    Ok(())
}

/// Newest first, each with its id.
pub fn attempts_of(db: &impl Sql, account: &str, page: &Page<(u64, Id)>) -> Result<Vec<(String, LoginAttempt)>, SqlError> {
    let sql = "SELECT id, at, outcome, second_factor, device_id, address, user_agent, provider FROM login_attempts \
        WHERE account_id = $1 AND (at, id) < ($2, $3) ORDER BY at DESC, id DESC LIMIT $4";
    let (at, Id(id)) = page.after.clone().unwrap_or_else(|| (FAR_FUTURE_US, Id(LAST_ID.to_owned())));
    let found = db.rows::<Entry>(sql, params![uuid(account), timestamp(at), uuid(id), page.fetch()])?;
    Ok(found.into_iter().map(|Entry(id, attempt)| (id, attempt)).collect())
}

/// How it turned out.
pub fn settle_attempt(db: &impl Sql, id: &str, outcome: LoginOutcome) -> Result<(), SqlError> {
    let sql = "UPDATE login_attempts SET outcome = $2, second_factor = $3 WHERE id = $1";
    db.execute(sql, params![uuid(id), outcome_name(outcome), second_factor_name(outcome)])?;
    Ok(())
}

pub fn forget_attempt(db: &impl Sql, id: &str) -> Result<(), SqlError> {
    db.execute("DELETE FROM login_attempts WHERE id = $1", params![uuid(id)])?;
    Ok(())
}

pub fn locked_attempts_since(db: &impl Sql, account: &str, since_us: u64) -> Result<u64, SqlError> {
    let sql = "SELECT COUNT(*) FROM login_attempts WHERE account_id = $1 AND at > $2 AND outcome = 'locked'";
    Ok(db.one::<(u64,)>(sql, params![uuid(account), timestamp(since_us)])?.0)
}

/// Those of an account that are too old, and those beyond the newest that succeeded and the newest that did not.
pub fn forget_attempts(db: &impl Sql, account: &str, before_us: u64, keep: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM login_attempts WHERE account_id = $1 AND (at < $2 \
        OR (outcome = 'succeeded' AND (at, id) <= (SELECT at, id FROM login_attempts WHERE account_id = $1 AND outcome = 'succeeded' \
            ORDER BY at DESC, id DESC LIMIT 1 OFFSET $3)) \
        OR (outcome <> 'succeeded' AND (at, id) <= (SELECT at, id FROM login_attempts WHERE account_id = $1 AND outcome <> 'succeeded' \
            ORDER BY at DESC, id DESC LIMIT 1 OFFSET $3)))";
    db.execute(sql, params![uuid(account), timestamp(before_us), keep])?;
    Ok(())
}

/// Of all accounts.
pub fn forget_old_attempts(db: &impl Sql, before_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM login_attempts WHERE id IN (SELECT id FROM login_attempts WHERE at < $1 ORDER BY at LIMIT $2)";
    db.execute(sql, params![timestamp(before_us), rows_max])?;
    Ok(())
}

/// The column is older than the second factor and its CHECK names the first four alone; `second_factor` says the rest.
fn outcome_name(outcome: LoginOutcome) -> &'static str {
    match outcome {
        LoginOutcome::Succeeded => "succeeded",
        LoginOutcome::WrongPassword => "wrong_password",
        LoginOutcome::Locked => "locked",
        LoginOutcome::Unverified | LoginOutcome::TotpRequired | LoginOutcome::WrongTotp => "unverified",
    }
}

fn second_factor_name(outcome: LoginOutcome) -> Option<&'static str> {
    match outcome {
        LoginOutcome::TotpRequired => Some("missing"),
        LoginOutcome::WrongTotp => Some("wrong"),
        LoginOutcome::Succeeded | LoginOutcome::WrongPassword | LoginOutcome::Locked | LoginOutcome::Unverified => None,
    }
}

/// The column's CHECK leaves no other.
fn outcome_of(name: &str, second_factor: Option<&str>) -> LoginOutcome {
    match (name, second_factor) {
        ("succeeded", _) => LoginOutcome::Succeeded,
        ("locked", _) => LoginOutcome::Locked,
        ("unverified", Some("missing")) => LoginOutcome::TotpRequired,
        ("unverified", Some(_)) => LoginOutcome::WrongTotp,
        ("unverified", None) => LoginOutcome::Unverified,
        _ => LoginOutcome::WrongPassword,
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
