//! All SQL of analytics, one function per question.

use echo_sdk::sql::{Database, Sql, SqlError, Transaction, placeholders, row_placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bindings::exports::echo::analytics::api::{Metric, Step};
use crate::bounds::{INSERT_ROWS_MAX, LIST_PARAMS_MAX, TOTAL_MAX};
use crate::metrics::{self, Additions, Key, Sum};
use crate::steps;

// --- Counting ------------------------------------------------------------------------------------------------------------------------

/// A total stops at `TOTAL_MAX`: the values are the clients' own.
pub fn add(tx: &Transaction, additions: &Additions) -> Result<(), SqlError> {
    let rows: Vec<_> = additions.rows().collect();
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let sql = format!(
            "INSERT INTO rollups (step, metric, at, label, events, total) VALUES {values} \
             ON CONFLICT (step, metric, at, label) DO UPDATE SET events = rollups.events + excluded.events, \
             total = CASE WHEN rollups.total + excluded.total < {most} THEN rollups.total + excluded.total ELSE {most} END",
            values = row_placeholders(rows.len(), 6),
            most = placeholders(6 * rows.len() + 1, 1),
        );
        let row =
            |(key, sum): &(&Key, &Sum)| params![key.step, key.metric, timestamp(key.at), &key.label, sum.events, sum.total.min(TOTAL_MAX)];
        let values = rows.iter().flat_map(row).chain(params![TOTAL_MAX]).collect();
        tx.execute(&sql, values)?;
    }
    Ok(())
}

pub fn labels_of_day(tx: &Transaction, metric: Metric, day: Timestamp, labels_max: u64) -> Result<Vec<String>, SqlError> {
    let sql = "SELECT label FROM rollups WHERE step = 'day' AND metric = $1 AND at = $2 ORDER BY label LIMIT $3";
    let labels: Vec<(String,)> = tx.rows(sql, params![metrics::name(metric), timestamp(day), labels_max])?;
    Ok(labels.into_iter().map(|(label,)| label).collect())
}

// --- People --------------------------------------------------------------------------------------------------------------------------

pub struct Person {
    pub user_id: String,
    pub registered_on: Option<Timestamp>,
    pub active_at: Timestamp,
}

from_row!(Person { user_id, registered_on, active_at });

pub fn people(tx: &Transaction, ids: &[String]) -> Result<Vec<Person>, SqlError> {
    let mut people = Vec::with_capacity(ids.len());
    for ids in ids.chunks(LIST_PARAMS_MAX) {
        let sql = format!("SELECT user_id, registered_on, active_at FROM people WHERE user_id IN ({})", placeholders(1, ids.len()));
        people.extend(tx.rows::<Person>(&sql, ids.iter().map(uuid).collect())?);
    }
    Ok(people)
}

pub fn forget_person(tx: &Transaction, user_id: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM people WHERE user_id = $1", params![uuid(user_id)])?;
    Ok(())
}

/// Later ones only.
pub fn set_active(tx: &Transaction, people: &[(&str, Timestamp)]) -> Result<(), SqlError> {
    for people in people.chunks(INSERT_ROWS_MAX) {
        let sql = format!(
            "INSERT INTO people (user_id, active_at) VALUES {} ON CONFLICT (user_id) DO UPDATE SET active_at = excluded.active_at \
             WHERE people.active_at < excluded.active_at",
            row_placeholders(people.len(), 2)
        );
        tx.execute(&sql, people.iter().flat_map(|(id, at)| [uuid(*id), timestamp(*at)]).collect())?;
    }
    Ok(())
}

/// Whether it was not known before.
pub fn set_registered(tx: &Transaction, id: &str, day: Timestamp) -> Result<bool, SqlError> {
    let sql = "INSERT INTO people (user_id, registered_on, active_at) VALUES ($1, $2, $2) \
        ON CONFLICT (user_id) DO UPDATE SET registered_on = excluded.registered_on WHERE people.registered_on IS NULL";
    Ok(tx.execute(sql, params![uuid(id), timestamp(day)])? == 1)
}

/// One more of those who registered on that day was active so many days later.
pub fn add_to_cohort(tx: &Transaction, registered_on: Timestamp, day: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO cohorts (registered_on, day, people) VALUES ($1, $2, 1) \
        ON CONFLICT (registered_on, day) DO UPDATE SET people = cohorts.people + 1";
    tx.execute(sql, params![timestamp(registered_on), day])?;
    Ok(())
}

pub fn active_since(at: Timestamp) -> Result<u64, SqlError> {
    Database.one("SELECT COUNT(*) FROM people WHERE active_at >= $1", params![timestamp(at)]).map(|(count,)| count)
}

/// Of those who registered on these days: how many, and how many of them were active so many days later.
pub fn retained(from: Timestamp, to: Timestamp, day: u32) -> Result<(u64, u64), SqlError> {
    Database.one(
        "SELECT COALESCE(SUM(CASE WHEN day = 0 THEN people ELSE 0 END), 0), COALESCE(SUM(CASE WHEN day = $3 THEN people ELSE 0 END), 0) \
         FROM cohorts WHERE registered_on >= $1 AND registered_on < $2",
        params![timestamp(from), timestamp(to), u64::from(day)],
    )
}

// --- Reports ---------------------------------------------------------------------------------------------------------------------------

pub struct Counted {
    pub metric: String,
    pub label: String,
    pub events: u64,
    pub total: u64,
}

from_row!(Counted { metric, label, events, total });

/// Of all metrics but client events, which may have many labels.
pub fn sums(step: Step, from: Timestamp, to: Timestamp) -> Result<Vec<Counted>, SqlError> {
    Database.rows(
        "SELECT metric, label, CAST(SUM(events) AS BIGINT), CAST(SUM(total) AS BIGINT) FROM rollups \
         WHERE step = $1 AND at >= $2 AND at < $3 AND metric <> 'client_events' GROUP BY metric, label",
        params![steps::name(step), timestamp(from), timestamp(to)],
    )
}

pub fn count_of(metric: Metric, step: Step, from: Timestamp, to: Timestamp) -> Result<u64, SqlError> {
    let sql = "SELECT CAST(COALESCE(SUM(events), 0) AS BIGINT) FROM rollups WHERE step = $1 AND metric = $2 AND at >= $3 AND at < $4";
    Database.one(sql, params![steps::name(step), metrics::name(metric), timestamp(from), timestamp(to)]).map(|(count,)| count)
}

pub fn most_of(metric: Metric, step: Step, from: Timestamp, to: Timestamp) -> Result<u64, SqlError> {
    let sql = "SELECT COALESCE(MAX(events), 0) FROM rollups WHERE step = $1 AND metric = $2 AND at >= $3 AND at < $4";
    Database.one(sql, params![steps::name(step), metrics::name(metric), timestamp(from), timestamp(to)]).map(|(count,)| count)
}

/// In order of time: of one label, or of all together where none is given.
pub fn series(
    metric: Metric,
    step: Step,
    from: Timestamp,
    to: Timestamp,
    label: Option<&str>,
) -> Result<Vec<(Timestamp, u64, u64)>, SqlError> {
    Database.rows(
        "SELECT at, CAST(SUM(events) AS BIGINT), CAST(SUM(total) AS BIGINT) FROM rollups \
         WHERE step = $1 AND metric = $2 AND at >= $3 AND at < $4 AND ($6 = FALSE OR label = $5) GROUP BY at ORDER BY at",
        params![steps::name(step), metrics::name(metric), timestamp(from), timestamp(to), label.unwrap_or_default(), label.is_some()],
    )
}

/// The same with the labels apart. Errors: `too-large` where there are more rows than the host gives.
pub fn labelled_series(metric: Metric, step: Step, from: Timestamp, to: Timestamp) -> Result<Vec<(Timestamp, String, u64, u64)>, SqlError> {
    Database.rows(
        "SELECT at, label, events, total FROM rollups WHERE step = $1 AND metric = $2 AND at >= $3 AND at < $4 ORDER BY at, label",
        params![steps::name(step), metrics::name(metric), timestamp(from), timestamp(to)],
    )
}

/// The most frequent first.
pub fn top(metric: Metric, step: Step, from: Timestamp, to: Timestamp, limit: u32) -> Result<Vec<(String, u64, u64)>, SqlError> {
    Database.rows(
        "SELECT label, CAST(SUM(events) AS BIGINT), CAST(SUM(total) AS BIGINT) FROM rollups \
         WHERE step = $1 AND metric = $2 AND at >= $3 AND at < $4 GROUP BY label ORDER BY 2 DESC, label LIMIT $5",
        params![steps::name(step), metrics::name(metric), timestamp(from), timestamp(to), limit],
    )
}

// --- Clearing away -----------------------------------------------------------------------------------------------------------------------

pub fn forget_rollups(step: Step, before: Timestamp, rows_max: u32) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM rollups WHERE (step, metric, at, label) IN \
         (SELECT step, metric, at, label FROM rollups WHERE step = $1 AND at < $2 ORDER BY at LIMIT $3)",
        params![steps::name(step), timestamp(before), rows_max],
    )?;
    Ok(())
}

pub fn forget_people(before: Timestamp, rows_max: u32) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM people WHERE user_id IN (SELECT user_id FROM people WHERE active_at < $1 ORDER BY active_at LIMIT $2)",
        params![timestamp(before), rows_max],
    )?;
    Ok(())
}

pub fn forget_cohorts(before: Timestamp) -> Result<(), SqlError> {
    Database.execute("DELETE FROM cohorts WHERE registered_on < $1", params![timestamp(before)])?;
    Ok(())
}

pub fn forget_handled(before: Timestamp, rows_max: u32) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM handled_events WHERE event_id IN (SELECT event_id FROM handled_events WHERE handled_at < $1 ORDER BY handled_at LIMIT $2)",
        params![timestamp(before), rows_max],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
