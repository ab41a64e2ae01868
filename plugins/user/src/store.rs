//! All SQL of the user service, one function per question.

use echo_sdk::sql::{Database, FromRow, Row, Sql, SqlError, Transaction, Value, placeholders, row_placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bounds::{LIST_PARAMS_MAX, NUMBERS_TRIMMED};

mod accounts;
mod exports;

pub use {accounts::*, exports::*};

/// A whole profile with its owner's privacy.
#[derive(Clone, Debug)]
pub struct Profile {
    pub id: String,
    pub phone: Option<String>,
    pub display_name: String,
    pub bio: Option<String>,
    pub avatar_url: Option<String>,
    pub status: Option<String>,
    pub status_text: Option<String>,
    pub locale: Option<String>,
    pub timezone: Option<String>,
    pub country: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub phone_visible: String,
    pub profile_visible: String,
}

from_row!(Profile {
    id,
    phone,
    display_name,
    bio,
    avatar_url,
    status,
    status_text,
    locale,
    timezone,
    country,
    created_at,
    updated_at,
    phone_visible,
    profile_visible,
});

/// A profile and what its owner has to do with whoever looks.
#[derive(Clone, Debug)]
pub struct Seen {
    pub profile: Profile,
    /// The owner has the viewer among the contacts.
    pub viewer_is_contact: bool,
    /// The owner blocks the viewer.
    pub viewer_is_blocked: bool,
}

impl FromRow for Seen {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self { profile: Profile::from_row(row)?, viewer_is_contact: row.take()?, viewer_is_blocked: row.take()? })
    }
}

pub struct Found {
    /// The part of the name that matched.
    pub part: String,
    pub seen: Seen,
}

impl FromRow for Found {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self { part: row.take()?, seen: Seen::from_row(row)? })
    }
}

pub struct Contact {
    pub alias: Option<String>,
    pub created_at: Timestamp,
    pub seen: Seen,
}

impl FromRow for Contact {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self { alias: row.take()?, created_at: row.take()?, seen: Seen::from_row(row)? })
    }
}

pub struct Privacy {
    pub phone_visible: String,
    pub profile_visible: String,
    pub last_seen_visible: String,
    pub presence_visible: String,
    pub read_receipts: String,
    pub added_by: String,
}

from_row!(Privacy { phone_visible, profile_visible, last_seen_visible, presence_visible, read_receipts, added_by });

pub struct Block {
    pub user_id: String,
    pub created_at: Timestamp,
}

from_row!(Block { user_id, created_at });

/// Whether there is a user behind the profile `p` for whoever looks as `$viewer`: not while the account is deleted, but for its owner.
macro_rules! there_is {
    ($viewer:literal) => {
        concat!("(p.deleted_at IS NULL OR p.id = ", $viewer, ")")
    };
}

/// The columns of a `Seen`, of the profile `p` as `$1` looks at it.
macro_rules! seen {
    () => {
        "p.id, p.phone, p.display_name, p.bio, p.avatar_url, p.status, p.status_text, p.locale, p.timezone, p.country, \
         p.created_at, p.updated_at, p.phone_visible, p.profile_visible, \
         EXISTS (SELECT 1 FROM contacts c WHERE c.owner_id = p.id AND c.user_id = $1), \
         EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = p.id AND b.blocked_user_id = $1 AND b.active = TRUE)"
    };
}

use seen;

// --- Profiles ----------------------------------------------------------------------------------------------------------------------

pub fn profile_seen_by(viewer: &str, id: &str) -> Result<Option<Seen>, SqlError> {
    Database.row(concat!("SELECT ", seen!(), " FROM profiles p WHERE p.id = $2 AND ", there_is!("$1")), params![uuid(viewer), uuid(id)])
}

pub fn profiles_seen_by(viewer: &str, ids: &[String]) -> Result<Vec<Seen>, SqlError> {
    let mut profiles = Vec::with_capacity(ids.len());
    for ids in ids.chunks(LIST_PARAMS_MAX) {
        let sql =
            format!(concat!("SELECT ", seen!(), " FROM profiles p WHERE p.id IN ({}) AND ", there_is!("$1")), placeholders(2, ids.len()));
        profiles.extend(Database.rows::<Seen>(&sql, with_list(params![uuid(viewer)], ids, |id| uuid(id)))?);
    }
    Ok(profiles)
}

pub fn which_exist(ids: &[String]) -> Result<Vec<String>, SqlError> {
    let mut known = Vec::with_capacity(ids.len());
    for ids in ids.chunks(LIST_PARAMS_MAX) {
        let sql = format!("SELECT id FROM profiles WHERE id IN ({}) AND deleted_at IS NULL", placeholders(1, ids.len()));
        known.extend(Database.rows::<(String,)>(&sql, with_list(Vec::new(), ids, |id| uuid(id)))?.into_iter().map(|(id,)| id));
    }
    Ok(known)
}

pub struct NewProfile<'a> {
    pub id: &'a str,
    pub phone: &'a str,
    pub display_name: &'a str,
    pub country: Option<&'a str>,
    pub timezone: Option<&'a str>,
    pub at: Timestamp,
}

/// Whether it is new; one that is there already stays as it is. A number that comes with a new user is taken from an older one.
pub fn insert_profile(tx: &Transaction, new: &NewProfile<'_>) -> Result<bool, SqlError> {
    tx.execute(
        "UPDATE profiles SET phone = NULL WHERE phone = $1 AND id <> $2 AND NOT EXISTS (SELECT 1 FROM profiles q WHERE q.id = $2)",
        params![new.phone, uuid(new.id)],
    )?;
    let inserted = tx.execute(
        "INSERT INTO profiles (id, phone, display_name, country, timezone, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING",
        params![uuid(new.id), new.phone, new.display_name, new.country, new.timezone, timestamp(new.at)],
    )?;
    Ok(inserted == 1)
}

pub fn replace_name_parts(tx: &Transaction, user_id: &str, parts: &[String]) -> Result<(), SqlError> {
    tx.execute("DELETE FROM name_parts WHERE user_id = $1", params![uuid(user_id)])?;
    if !parts.is_empty() {
        let sql = format!("INSERT INTO name_parts (part, user_id) VALUES {}", row_placeholders(parts.len(), 2));
        let values = parts.iter().flat_map(|part| [Value::from(part), uuid(user_id)]).collect();
        tx.execute(&sql, values)?;
    }
    Ok(())
}

/// What is none stays; an empty text removes.
pub struct ProfileChange<'a> {
    pub display_name: Option<&'a str>,
    pub bio: Option<&'a str>,
    pub avatar_url: Option<&'a str>,
    pub status: Option<&'a str>,
    pub status_text: Option<&'a str>,
    pub locale: Option<&'a str>,
    pub timezone: Option<&'a str>,
}

pub fn update_profile(tx: &Transaction, id: &str, change: &ProfileChange<'_>, at: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE profiles SET display_name = COALESCE($2, display_name), bio = NULLIF(COALESCE($3, bio), ''), \
         avatar_url = NULLIF(COALESCE($4, avatar_url), ''), status = NULLIF(COALESCE($5, status), ''), \
         status_text = NULLIF(COALESCE($6, status_text), ''), locale = NULLIF(COALESCE($7, locale), ''), \
         timezone = NULLIF(COALESCE($8, timezone), ''), updated_at = $9 WHERE id = $1",
        params![
            uuid(id),
            change.display_name,
            change.bio,
            change.avatar_url,
            change.status,
            change.status_text,
            change.locale,
            change.timezone,
            timestamp(at)
        ],
    )?;
    Ok(())
}

// --- Search ------------------------------------------------------------------------------------------------------------------------

/// Who lets the viewer find them by a name in this range, in order of the matching part and the id, after the key.
pub fn found_by_name(viewer: &str, range: &(String, String), after: &(String, String), limit: i64) -> Result<Vec<Found>, SqlError> {
    Database.rows(
        concat!(
            "SELECT n.part, ",
            seen!(),
            " FROM (SELECT user_id, MIN(part) AS part FROM name_parts WHERE part >= $2 AND part < $3 GROUP BY user_id) n \
             JOIN profiles p ON p.id = n.user_id \
             WHERE p.id <> $1 AND p.deleted_at IS NULL AND (n.part, n.user_id) > ($4, $5) \
             AND (p.profile_visible = 'everyone' OR (p.profile_visible = 'contacts' \
             AND EXISTS (SELECT 1 FROM contacts k WHERE k.owner_id = p.id AND k.user_id = $1))) \
             AND NOT EXISTS (SELECT 1 FROM blocks x WHERE x.user_id = p.id AND x.blocked_user_id = $1 AND x.active = TRUE) \
             ORDER BY n.part, n.user_id LIMIT $6"
        ),
        params![uuid(viewer), &range.0, &range.1, &after.0, uuid(&after.1), limit],
    )
}

/// Who lets the viewer find them by these numbers: everybody, or only who is among the owner's contacts or in the owner's address book.
pub fn found_by_phone(viewer: &str, viewer_number: Option<&str>, phones: &[String]) -> Result<Vec<Seen>, SqlError> {
    let mut found = Vec::new();
    for phones in phones.chunks(LIST_PARAMS_MAX) {
        let sql = format!(
            concat!(
                "SELECT ",
                seen!(),
                " FROM profiles p WHERE p.phone IN ({}) AND ",
                there_is!("$1"),
                " AND (p.id = $1 OR p.phone_visible = 'everyone' OR (p.phone_visible = 'contacts' \
                 AND (EXISTS (SELECT 1 FROM contacts k WHERE k.owner_id = p.id AND k.user_id = $1) \
                 OR EXISTS (SELECT 1 FROM tested_numbers n WHERE n.owner_id = p.id AND n.fingerprint = $2 AND n.in_book = TRUE)))) \
                 AND NOT EXISTS (SELECT 1 FROM blocks x WHERE x.user_id = p.id AND x.blocked_user_id = $1 AND x.active = TRUE)"
            ),
            placeholders(3, phones.len())
        );
        let values = params![uuid(viewer), viewer_number.unwrap_or_default()];
        found.extend(Database.rows::<Seen>(&sql, with_list(values, phones, |phone| Value::from(phone)))?);
    }
    Ok(found)
}

// --- Tested numbers, as keyed hashes ---------------------------------------------------------------------------------------------------

/// How many of them this person never tested before.
pub fn note_numbers(tx: &Transaction, owner: &str, fingerprints: &[String], at: Timestamp) -> Result<u64, SqlError> {
    let mut new = 0;
    for fingerprints in fingerprints.chunks(LIST_PARAMS_MAX) {
        let rows: Vec<String> = (3..3 + fingerprints.len()).map(|number| format!("($1, ${number}, $2, FALSE)")).collect();
        let sql = format!(
            "INSERT INTO tested_numbers (owner_id, fingerprint, tested_at, in_book) VALUES {} ON CONFLICT (owner_id, fingerprint) DO NOTHING",
            rows.join(", ")
        );
        new += tx.execute(&sql, with_list(params![uuid(owner), timestamp(at)], fingerprints, |fingerprint| Value::from(fingerprint)))?;
    }
    Ok(new)
}

/// Counts new ones unless the day's number would be exceeded; whether they were counted.
pub fn count_numbers(
    tx: &Transaction,
    owner: &str,
    new: u64,
    now: Timestamp,
    day_since: Timestamp,
    per_day: u64,
) -> Result<bool, SqlError> {
    let counted = tx.execute(
        "INSERT INTO number_quotas (owner_id, day_started_at, tested) SELECT $1, $2, CAST($3 AS BIGINT) WHERE CAST($3 AS BIGINT) <= $5 ON CONFLICT (owner_id) DO UPDATE SET \
         tested = CASE WHEN number_quotas.day_started_at <= $4 THEN excluded.tested ELSE number_quotas.tested + excluded.tested END, \
         day_started_at = CASE WHEN number_quotas.day_started_at <= $4 THEN excluded.day_started_at ELSE number_quotas.day_started_at END \
         WHERE number_quotas.day_started_at <= $4 OR number_quotas.tested + excluded.tested <= $5",
        params![uuid(owner), timestamp(now), new, timestamp(day_since), per_day],
    )?;
    Ok(counted == 1)
}

/// When the day began in which they are counted.
pub fn numbers_day(tx: &Transaction, owner: &str) -> Result<Option<Timestamp>, SqlError> {
    let day: Option<(Timestamp,)> = tx.row("SELECT day_started_at FROM number_quotas WHERE owner_id = $1", params![uuid(owner)])?;
    Ok(day.map(|(day,)| day))
}

/// Keeps the newest ones.
pub fn trim_numbers(tx: &Transaction, owner: &str, keep: u64) -> Result<(), SqlError> {
    tx.execute(
        "DELETE FROM tested_numbers WHERE owner_id = $1 AND fingerprint IN \
         (SELECT fingerprint FROM tested_numbers WHERE owner_id = $1 ORDER BY tested_at DESC, fingerprint LIMIT $2 OFFSET $3)",
        params![uuid(owner), NUMBERS_TRIMMED, keep],
    )?;
    Ok(())
}

pub fn put_numbers_in(tx: &Transaction, owner: &str, fingerprints: &[String]) -> Result<(), SqlError> {
    for fingerprints in fingerprints.chunks(LIST_PARAMS_MAX) {
        let sql = format!(
            "UPDATE tested_numbers SET in_book = TRUE WHERE owner_id = $1 AND in_book = FALSE AND fingerprint IN ({})",
            placeholders(2, fingerprints.len())
        );
        tx.execute(&sql, with_list(params![uuid(owner)], fingerprints, |fingerprint| Value::from(fingerprint)))?;
    }
    Ok(())
}

pub fn take_number_out(owner: &str, fingerprint: &str) -> Result<(), SqlError> {
    let sql = "UPDATE tested_numbers SET in_book = FALSE WHERE owner_id = $1 AND fingerprint = $2";
    Database.execute(sql, params![uuid(owner), fingerprint])?;
    Ok(())
}

// --- Privacy -----------------------------------------------------------------------------------------------------------------------

pub fn privacy_of(id: &str) -> Result<Option<Privacy>, SqlError> {
    Database.row(
        "SELECT phone_visible, profile_visible, last_seen_visible, presence_visible, read_receipts, added_by FROM profiles WHERE id = $1",
        params![uuid(id)],
    )
}

/// What is none stays.
pub struct PrivacyChange {
    pub phone_visible: Option<&'static str>,
    pub profile_visible: Option<&'static str>,
    pub last_seen_visible: Option<&'static str>,
    pub presence_visible: Option<&'static str>,
    pub read_receipts: Option<&'static str>,
    pub added_by: Option<&'static str>,
}

pub fn update_privacy(tx: &Transaction, id: &str, change: &PrivacyChange, at: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE profiles SET phone_visible = COALESCE($2, phone_visible), profile_visible = COALESCE($3, profile_visible), \
         last_seen_visible = COALESCE($4, last_seen_visible), presence_visible = COALESCE($5, presence_visible), \
         read_receipts = COALESCE($6, read_receipts), added_by = COALESCE($7, added_by), updated_at = $8 WHERE id = $1",
        params![
            uuid(id),
            change.phone_visible,
            change.profile_visible,
            change.last_seen_visible,
            change.presence_visible,
            change.read_receipts,
            change.added_by,
            timestamp(at)
        ],
    )?;
    Ok(())
}

/// Who lets whom add them to groups, and what they have to do with whoever asks.
pub struct Owner {
    pub id: String,
    pub added_by: String,
    pub viewer_is_contact: bool,
    pub viewer_is_blocked: bool,
}

from_row!(Owner { id, added_by, viewer_is_contact, viewer_is_blocked });

pub fn owners_seen_by(viewer: &str, ids: &[String]) -> Result<Vec<Owner>, SqlError> {
    let mut owners = Vec::with_capacity(ids.len());
    for ids in ids.chunks(LIST_PARAMS_MAX) {
        let sql = format!(
            "SELECT p.id, p.added_by, EXISTS (SELECT 1 FROM contacts c WHERE c.owner_id = p.id AND c.user_id = $1), \
             EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = p.id AND b.blocked_user_id = $1 AND b.active = TRUE) \
             FROM profiles p WHERE p.id IN ({}) AND p.deleted_at IS NULL",
            placeholders(2, ids.len())
        );
        owners.extend(Database.rows::<Owner>(&sql, with_list(params![uuid(viewer)], ids, |id| uuid(id)))?);
    }
    Ok(owners)
}

pub struct ReadReceipts {
    pub audience: String,
    pub blocks_anybody: bool,
}

from_row!(ReadReceipts { audience, blocks_anybody });

pub fn read_receipts_of(id: &str) -> Result<Option<ReadReceipts>, SqlError> {
    Database.row(
        "SELECT p.read_receipts, EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = p.id AND b.active = TRUE) FROM profiles p WHERE p.id = $1",
        params![uuid(id)],
    )
}

// --- Contacts ----------------------------------------------------------------------------------------------------------------------

/// Newest first, before the key.
pub fn contacts_of(owner: &str, before: &(u64, String), limit: i64) -> Result<Vec<Contact>, SqlError> {
    Database.rows(
        concat!(
            "SELECT o.alias, o.created_at, ",
            seen!(),
            " FROM contacts o JOIN profiles p ON p.id = o.user_id \
             WHERE o.owner_id = $1 AND p.deleted_at IS NULL AND (o.created_at, o.user_id) < ($2, $3) ORDER BY o.created_at DESC, o.user_id DESC LIMIT $4"
        ),
        params![uuid(owner), timestamp(before.0), uuid(&before.1), limit],
    )
}

pub fn contact_of(owner: &str, user_id: &str) -> Result<Option<Contact>, SqlError> {
    Database.row(
        concat!(
            "SELECT o.alias, o.created_at, ",
            seen!(),
            " FROM contacts o JOIN profiles p ON p.id = o.user_id WHERE o.owner_id = $1 AND o.user_id = $2 AND p.deleted_at IS NULL"
        ),
        params![uuid(owner), uuid(user_id)],
    )
}

/// Whom of these the owner has among the contacts.
pub fn contacts_among(owner: &str, ids: &[String]) -> Result<Vec<String>, SqlError> {
    among("SELECT user_id FROM contacts WHERE owner_id = $1 AND user_id", owner, ids)
}

pub fn contact_count_of(owner: &str) -> Result<i64, SqlError> {
    Database.one("SELECT COUNT(*) FROM contacts WHERE owner_id = $1", params![uuid(owner)]).map(|(count,)| count)
}

/// Adds the contact; of one that is there the alias changes, where one is given.
pub fn put_contact(owner: &str, user_id: &str, alias: Option<&str>, at: Timestamp) -> Result<(), SqlError> {
    Database.execute(
        "INSERT INTO contacts (owner_id, user_id, alias, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (owner_id, user_id) DO UPDATE SET alias = COALESCE(excluded.alias, contacts.alias)",
        params![uuid(owner), uuid(user_id), alias, timestamp(at)],
    )?;
    Ok(())
}

/// Whether there is such a contact.
pub fn set_alias(owner: &str, user_id: &str, alias: Option<&str>) -> Result<bool, SqlError> {
    let changed = Database
        .execute("UPDATE contacts SET alias = $3 WHERE owner_id = $1 AND user_id = $2", params![uuid(owner), uuid(user_id), alias])?;
    Ok(changed == 1)
}

/// Whether there was such a contact.
pub fn delete_contact(tx: &Transaction, owner: &str, user_id: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM contacts WHERE owner_id = $1 AND user_id = $2";
    Ok(tx.execute(sql, params![uuid(owner), uuid(user_id)])? == 1)
}

// --- Blocks ------------------------------------------------------------------------------------------------------------------------

/// Newest first, before the key.
pub fn blocks_of(user_id: &str, before: &(u64, String), limit: i64) -> Result<Vec<Block>, SqlError> {
    Database.rows(
        "SELECT blocked_user_id, created_at FROM blocks \
         WHERE user_id = $1 AND active = TRUE AND (created_at, blocked_user_id) < ($2, $3) \
         ORDER BY created_at DESC, blocked_user_id DESC LIMIT $4",
        params![uuid(user_id), timestamp(before.0), uuid(&before.1), limit],
    )
}

pub fn block_of(user_id: &str, blocked: &str) -> Result<Option<Block>, SqlError> {
    let sql = "SELECT blocked_user_id, created_at FROM blocks WHERE user_id = $1 AND blocked_user_id = $2 AND active = TRUE";
    Database.row(sql, params![uuid(user_id), uuid(blocked)])
}

/// Whom of these the user blocks.
pub fn blocked_among(user_id: &str, ids: &[String]) -> Result<Vec<String>, SqlError> {
    among("SELECT blocked_user_id FROM blocks WHERE user_id = $1 AND active = TRUE AND blocked_user_id", user_id, ids)
}

pub fn block_count_of(user_id: &str) -> Result<i64, SqlError> {
    Database.one("SELECT COUNT(*) FROM blocks WHERE user_id = $1", params![uuid(user_id)]).map(|(count,)| count)
}

/// The revision of the change; none where they were blocked already.
pub fn block(tx: &Transaction, user_id: &str, blocked: &str, at: Timestamp) -> Result<Option<u64>, SqlError> {
    let revision: Option<(u64,)> = tx.row(
        "INSERT INTO blocks (user_id, blocked_user_id, active, revision, created_at) VALUES ($1, $2, TRUE, 1, $3) \
         ON CONFLICT (user_id, blocked_user_id) DO UPDATE \
         SET active = TRUE, revision = blocks.revision + 1, created_at = excluded.created_at WHERE blocks.active = FALSE \
         RETURNING revision",
        params![uuid(user_id), uuid(blocked), timestamp(at)],
    )?;
    Ok(revision.map(|(revision,)| revision))
}

/// The revision of the change; none where they were not blocked.
pub fn unblock(tx: &Transaction, user_id: &str, blocked: &str) -> Result<Option<u64>, SqlError> {
    let revision: Option<(u64,)> = tx.row(
        "UPDATE blocks SET active = FALSE, revision = revision + 1 \
         WHERE user_id = $1 AND blocked_user_id = $2 AND active = TRUE RETURNING revision",
        params![uuid(user_id), uuid(blocked)],
    )?;
    Ok(revision.map(|(revision,)| revision))
}

// --- Reports -----------------------------------------------------------------------------------------------------------------------

pub struct NewReport<'a> {
    pub id: &'a str,
    pub reporter: &'a str,
    pub user_id: &'a str,
    pub message_id: Option<&'a str>,
    pub reason: &'a str,
    pub at: Timestamp,
}

/// The id and time of the report: of this one, or of the one that this person made before of the same message or user, which gets the new reason.
pub fn put_report(tx: &Transaction, new: &NewReport<'_>) -> Result<(String, Timestamp), SqlError> {
    let subject = new.message_id.unwrap_or(new.user_id);
    tx.one(
        "INSERT INTO reports (id, reporter_id, subject_id, user_id, message_id, reason, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (reporter_id, subject_id) DO UPDATE SET reason = excluded.reason RETURNING id, created_at",
        params![
            uuid(new.id),
            uuid(new.reporter),
            uuid(subject),
            uuid(new.user_id),
            new.message_id.map(uuid),
            new.reason,
            timestamp(new.at)
        ],
    )
}

/// Keeps the newest ones.
pub fn trim_reports(tx: &Transaction, reporter: &str, keep: u64) -> Result<(), SqlError> {
    tx.execute(
        "DELETE FROM reports WHERE reporter_id = $1 AND subject_id IN \
         (SELECT subject_id FROM reports WHERE reporter_id = $1 ORDER BY created_at DESC, subject_id LIMIT $3 OFFSET $2)",
        params![uuid(reporter), keep, LIST_PARAMS_MAX as u64],
    )?;
    Ok(())
}

// --- Presence -----------------------------------------------------------------------------------------------------------------------

/// What somebody's presence has to do with somebody who wants to see it.
pub struct Sight {
    pub user_id: String,
    pub viewer_id: String,
    pub presence_visible: String,
    pub last_seen_visible: String,
    pub viewer_is_contact: bool,
    pub viewer_is_blocked: bool,
}

from_row!(Sight { user_id, viewer_id, presence_visible, last_seen_visible, viewer_is_contact, viewer_is_blocked });

/// Of each pair of a user and a viewer; none where there is no such user.
pub fn sights_of(pairs: &[(&str, &str)]) -> Result<Vec<Sight>, SqlError> {
    let mut sights = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(LIST_PARAMS_MAX / 2) {
        let sql = format!(
            concat!(
                "WITH pair (user_id, viewer_id) AS (VALUES {}) \
                 SELECT p.id, pair.viewer_id, p.presence_visible, p.last_seen_visible, \
                 EXISTS (SELECT 1 FROM contacts c WHERE c.owner_id = p.id AND c.user_id = pair.viewer_id), \
                 EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = p.id AND b.blocked_user_id = pair.viewer_id AND b.active = TRUE) \
                 FROM pair CROSS JOIN profiles p WHERE p.id = pair.user_id AND ",
                there_is!("pair.viewer_id")
            ),
            row_placeholders(pairs.len(), 2)
        );
        let values = pairs.iter().flat_map(|(user, viewer)| [uuid(*user), uuid(*viewer)]).collect();
        sights.extend(Database.rows::<Sight>(&sql, values)?);
    }
    Ok(sights)
}

/// What the question gives of the ids; it ends before their list and takes the owner as `$1`.
fn among(question: &str, owner: &str, ids: &[String]) -> Result<Vec<String>, SqlError> {
    let mut found = Vec::new();
    for ids in ids.chunks(LIST_PARAMS_MAX) {
        let sql = format!("{question} IN ({})", placeholders(2, ids.len()));
        let rows = Database.rows::<(String,)>(&sql, with_list(params![uuid(owner)], ids, |id| uuid(id)))?;
        found.extend(rows.into_iter().map(|(id,)| id));
    }
    Ok(found)
}

fn with_list(mut params: Vec<Value>, list: &[String], value: impl Fn(&String) -> Value) -> Vec<Value> {
    params.extend(list.iter().map(value));
    params
}

#[cfg(test)]
mod tests;
