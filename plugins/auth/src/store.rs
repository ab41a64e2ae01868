//! All SQL of the auth service, one function per question, in the dialect common to SQLite and PostgreSQL.

use echo_sdk::sql::{FromRow, Row, Sql, SqlError, timestamp, uuid};
use echo_sdk::{Id, Page, from_row, params};

use crate::accounts::Place;
use crate::bindings::exports::echo::auth::api::{Device, LoginAttempt, LoginOutcome, Session};
use crate::otp::{Code, KeptCode, Purpose};

/// Later than anything here: where a list begins whose newest comes first (2100-01-01).
const FAR_FUTURE_US: u64 = 4_102_444_800_000_000;
/// Above every id.
const LAST_ID: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

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

pub fn forget_registrations(db: &impl Sql, now_us: u64) -> Result<(), SqlError> {
    db.execute("DELETE FROM registrations WHERE expires_at <= $1", params![timestamp(now_us)])?;
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

// --- One-time codes --------------------------------------------------------------------------------------------------------------------

from_row!(KeptCode { fingerprint, tries, expires_at });

/// In place of the one before.
pub fn put_code(db: &impl Sql, purpose: Purpose, phone: &str, code: &Code, expires_at: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO codes (phone, purpose, fingerprint, tries, expires_at) VALUES ($1, $2, $3, 0, $4) \
        ON CONFLICT (phone, purpose) DO UPDATE SET fingerprint = excluded.fingerprint, tries = 0, expires_at = excluded.expires_at";
    db.execute(sql, params![phone, purpose.as_str(), &code.fingerprint, timestamp(expires_at)])?;
    Ok(())
}

/// Counts a try and gives the code with it: in one statement, so that tries made at once are all counted.
pub fn try_code(db: &impl Sql, purpose: Purpose, phone: &str) -> Result<Option<KeptCode>, SqlError> {
    let sql = "UPDATE codes SET tries = tries + 1 WHERE phone = $1 AND purpose = $2 RETURNING fingerprint, tries, expires_at";
    db.row(sql, params![phone, purpose.as_str()])
}

/// Whether this code was still there.
pub fn drop_code(db: &impl Sql, purpose: Purpose, phone: &str, code: &Code) -> Result<bool, SqlError> {
    let sql = "DELETE FROM codes WHERE phone = $1 AND purpose = $2 AND fingerprint = $3";
    Ok(db.execute(sql, params![phone, purpose.as_str(), &code.fingerprint])? == 1)
}

pub fn forget_codes(db: &impl Sql, expired_before_us: u64) -> Result<(), SqlError> {
    db.execute("DELETE FROM codes WHERE expires_at < $1", params![timestamp(expired_before_us)])?;
    Ok(())
}

/// When the last code was sent, and when the day began in which codes are counted.
#[derive(Default)]
pub struct CodeQuota {
    pub sent_at: u64,
    pub day_started_at: u64,
    pub sent_count: u64,
}
from_row!(CodeQuota { sent_at, day_started_at, sent_count });

pub fn code_quota(db: &impl Sql, phone: &str) -> Result<Option<CodeQuota>, SqlError> {
    db.row("SELECT sent_at, day_started_at, sent_count FROM code_quotas WHERE phone = $1", params![phone])
}

/// Counts a code unless the last one is too recent or the day's number is reached; whether it was counted.
pub fn count_code(db: &impl Sql, phone: &str, now_us: u64, pause_us: u64, per_day: u64) -> Result<bool, SqlError> {
    let sql = "INSERT INTO code_quotas (phone, sent_at, day_started_at, sent_count) VALUES ($1, $2, $2, 1) \
        ON CONFLICT (phone) DO UPDATE SET sent_at = excluded.sent_at, \
            sent_count = CASE WHEN code_quotas.day_started_at <= $4 THEN 1 ELSE code_quotas.sent_count + 1 END, \
            day_started_at = CASE WHEN code_quotas.day_started_at <= $4 THEN excluded.day_started_at ELSE code_quotas.day_started_at END \
        WHERE code_quotas.sent_at <= $3 AND (code_quotas.day_started_at <= $4 OR code_quotas.sent_count < $5)";
    let pause_since = now_us.saturating_sub(pause_us);
    let day_since = now_us.saturating_sub(echo_sdk::time::DAY_US);
    Ok(db.execute(sql, params![phone, timestamp(now_us), timestamp(pause_since), timestamp(day_since), per_day])? == 1)
}

pub fn forget_code_quotas(db: &impl Sql, sent_before_us: u64) -> Result<(), SqlError> {
    db.execute("DELETE FROM code_quotas WHERE sent_at < $1", params![timestamp(sent_before_us)])?;
    Ok(())
}

// --- Wrong passwords in a row ----------------------------------------------------------------------------------------------------------

/// Until when the number is locked, if it is now.
pub fn locked_until(db: &impl Sql, phone: &str, now_us: u64) -> Result<Option<u64>, SqlError> {
    let sql = "SELECT locked_until FROM login_failures WHERE phone = $1 AND locked_until > $2";
    Ok(db.row::<(u64,)>(sql, params![phone, timestamp(now_us)])?.map(|(until,)| until))
}

/// How many there are now. A lock that is over counts from the beginning.
pub fn count_failure(db: &impl Sql, phone: &str, now_us: u64) -> Result<u64, SqlError> {
    let sql = "INSERT INTO login_failures (phone, failures, failed_at) VALUES ($1, 1, $2) \
        ON CONFLICT (phone) DO UPDATE SET failed_at = excluded.failed_at, \
            failures = CASE WHEN login_failures.locked_until <= $2 THEN 1 ELSE login_failures.failures + 1 END, \
            locked_until = CASE WHEN login_failures.locked_until <= $2 THEN NULL ELSE login_failures.locked_until END \
        RETURNING failures";
    Ok(db.one::<(u64,)>(sql, params![phone, timestamp(now_us)])?.0)
}

pub fn lock(db: &impl Sql, phone: &str, until_us: u64) -> Result<(), SqlError> {
    db.execute("UPDATE login_failures SET locked_until = $2 WHERE phone = $1", params![phone, timestamp(until_us)])?;
    Ok(())
}

pub fn forget_failures_of(db: &impl Sql, phone: &str) -> Result<(), SqlError> {
    db.execute("DELETE FROM login_failures WHERE phone = $1", params![phone])?;
    Ok(())
}

/// Old ones that lock nothing.
pub fn forget_failures(db: &impl Sql, failed_before_us: u64, now_us: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM login_failures WHERE failed_at < $1 AND (locked_until IS NULL OR locked_until <= $2)";
    db.execute(sql, params![timestamp(failed_before_us), timestamp(now_us)])?;
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

/// A refresh: the only thing, with a sign-in, that counts as use.
pub fn touch_session(db: &impl Sql, session: &str, address: Option<String>, now_us: u64, expires_at: u64) -> Result<(), SqlError> {
    let sql = "UPDATE sessions SET last_used_at = $2, expires_at = $3, address = COALESCE($4, address) WHERE id = $1";
    db.execute(sql, params![uuid(session), timestamp(now_us), timestamp(expires_at), address])?;
    Ok(())
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
    let sql = "SELECT DISTINCT account_id FROM (SELECT account_id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) e";
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

pub fn add_refresh_token(db: &impl Sql, fingerprint: &str, session: &str, expires_at: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO refresh_tokens (fingerprint, session_id, expires_at) VALUES ($1, $2, $3)";
    db.execute(sql, params![fingerprint, uuid(session), timestamp(expires_at)])?;
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
            outcome: outcome_of(&row.take::<String>()?),
            device_id: row.take()?,
            address: row.take()?,
            user_agent: row.take()?,
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
    let sql =
        "INSERT INTO login_attempts (id, account_id, at, outcome, device_id, address, user_agent) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let params = params![
        uuid(id),
        uuid(account),
        timestamp(attempt.at),
        outcome_name(attempt.outcome),
        &attempt.device_id,
        attempt.address.as_deref(),
        attempt.user_agent.as_deref(),
    ];
    db.execute(sql, params)?;
    Ok(())
}

/// Newest first, each with its id.
pub fn attempts_of(db: &impl Sql, account: &str, page: &Page<(u64, Id)>) -> Result<Vec<(String, LoginAttempt)>, SqlError> {
    let sql = "SELECT id, at, outcome, device_id, address, user_agent FROM login_attempts \
        WHERE account_id = $1 AND (at, id) < ($2, $3) ORDER BY at DESC, id DESC LIMIT $4";
    let (at, Id(id)) = page.after.clone().unwrap_or_else(|| (FAR_FUTURE_US, Id(LAST_ID.to_owned())));
    let found = db.rows::<Entry>(sql, params![uuid(account), timestamp(at), uuid(id), page.fetch()])?;
    Ok(found.into_iter().map(|Entry(id, attempt)| (id, attempt)).collect())
}

/// Those that are too old, and those beyond the newest ones.
pub fn forget_attempts(db: &impl Sql, account: &str, before_us: u64, keep: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM login_attempts WHERE account_id = $1 AND (at < $2 OR at < \
        (SELECT at FROM login_attempts WHERE account_id = $1 ORDER BY at DESC, id DESC LIMIT 1 OFFSET $3))";
    db.execute(sql, params![uuid(account), timestamp(before_us), keep])?;
    Ok(())
}

fn outcome_name(outcome: LoginOutcome) -> &'static str {
    match outcome {
        LoginOutcome::Succeeded => "succeeded",
        LoginOutcome::WrongPassword => "wrong_password",
        LoginOutcome::Locked => "locked",
        LoginOutcome::Unverified => "unverified",
    }
}

/// The column's CHECK leaves no other.
fn outcome_of(name: &str) -> LoginOutcome {
    match name {
        "succeeded" => LoginOutcome::Succeeded,
        "locked" => LoginOutcome::Locked,
        "unverified" => LoginOutcome::Unverified,
        _ => LoginOutcome::WrongPassword,
    }
}
