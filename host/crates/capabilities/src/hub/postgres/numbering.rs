//! Pushes and replacements become rows: the database gives out the numbers, a batch takes the same few statements for one user as for a thousand.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use sqlx::Row;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use crate::hub::states::{Rows, States, Waiting};
use crate::hub::{FeedChange, FeedEntry, Push, Replacement, service_of, subject_of};
use crate::sql::SqlError;
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::rows::{add, signed, unreadable, unreadable_because, unsigned};

/// Changes that have no numbers yet.
#[derive(Default)]
pub struct Numbered {
    payloads: Vec<Payload>,
    /// By subject, the last of the batch.
    replacements: BTreeMap<String, (Option<String>, String)>,
    waiting: Rows,
    at_us: u64,
}

struct Payload {
    users: Vec<Uuid>,
    event: String,
    body: Arc<str>,
    receipt: Option<String>,
    subject: Option<String>,
}

impl Numbered {
    pub fn of(states: &mut States, source: &str, changes: &[&FeedChange], at_us: u64) -> Self {
        let mut numbered = Self { at_us, ..Self::default() };
        let (service, now) = (service_of(source), Instant::now());
        for change in changes {
            match change {
                FeedChange::Push(push) => {
                    let waits = |state: &String| !states.admit(source, state, push, now, &mut numbered.waiting);
                    if !push.state.as_ref().is_some_and(waits) {
                        numbered.push(service, push);
                    }
                }
                FeedChange::Replace(replacement) => numbered.replace(service, replacement),
            }
        }
        numbered
    }

    pub fn of_released(source: &str, released: &[Waiting], at_us: u64) -> Self {
        let mut numbered = Self { at_us, ..Self::default() };
        for waiting in released {
            numbered.push(service_of(source), &waiting.push);
        }
        numbered
    }

    fn push(&mut self, service: &str, push: &Push) {
        let mut seen = HashSet::with_capacity(push.users.len());
        self.payloads.push(Payload {
            users: push.users.iter().copied().filter(|user| seen.insert(*user)).collect(),
            event: push.event.clone(),
            body: push.payload.as_str().into(),
            receipt: push.receipt.clone(),
            subject: push.subject.as_deref().map(|subject| subject_of(service, subject)),
        });
    }

    /// What came earlier in this batch is replaced here, what is in the database there, and what comes later not at all.
    fn replace(&mut self, service: &str, replacement: &Replacement) {
        let subject = subject_of(service, &replacement.subject);
        let body: Arc<str> = replacement.payload.as_str().into();
        for payload in self.payloads.iter_mut().filter(|payload| payload.subject.as_ref() == Some(&subject)) {
            payload.body = body.clone();
            if let Some(event) = &replacement.event {
                payload.event.clone_from(event);
            }
        }
        let known = self.replacements.entry(subject).or_default();
        known.1.clone_from(&replacement.payload);
        if replacement.event.is_some() {
            known.0.clone_from(&replacement.event);
        }
    }

    /// Within the transaction that is open; the entries with their numbers.
    pub async fn write(self, connection: &mut Pooled, source: &str) -> Result<Vec<FeedEntry>, SqlError> {
        self.put_replacements(connection).await?;
        self.put_waiting(connection, source).await?;
        if self.payloads.is_empty() {
            return Ok(Vec::new());
        }
        let (mut next, ids) = self.take_numbers(connection).await?;
        let mut entries = Vec::new();
        let mut rows: (Vec<String>, Vec<i64>, Vec<i64>) = Default::default();
        // What each payload's users and their numbers are, where it has a receipt.
        let mut members = Vec::with_capacity(self.payloads.len());
        for (payload, id) in self.payloads.iter().zip(&ids) {
            let mut seqs = Vec::with_capacity(payload.users.len());
            for user in &payload.users {
                let number = next.get_mut(user).ok_or_else(unreadable)?;
                *number += 1;
                let seq = *number;
                seqs.push(seq.to_string());
                rows.0.push(user.to_string());
                rows.1.push(signed(seq));
                rows.2.push(*id);
                entries.push(FeedEntry {
                    user: *user,
                    seq,
                    event: payload.event.clone(),
                    payload: payload.body.clone(),
                    at_us: self.at_us,
                });
            }
            let users: Vec<String> = payload.users.iter().map(Uuid::to_string).collect();
            let array = |items: &[String]| payload.receipt.as_ref().map(|_| format!("{{{}}}", items.join(",")));
            members.push((array(&users), array(&seqs)));
        }
        self.put_payloads(connection, ids, members).await?;
        let put = "INSERT INTO feed_entry (user_id, seq, payload)
            SELECT given.user_id::uuid, given.seq, given.payload FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS given(user_id, seq, payload)";
        let mut given = PgArguments::default();
        add(&mut given, rows.0)?;
        add(&mut given, rows.1)?;
        add(&mut given, rows.2)?;
        connection.rows_with(put, given).await?;
        Ok(entries)
    }

    /// Raises the heads of all users, in the order of their ids; each user's number before the first of these, and an id for each payload.
    async fn take_numbers(&self, connection: &mut Pooled) -> Result<(BTreeMap<Uuid, u64>, Vec<i64>), SqlError> {
        let mut counts: BTreeMap<Uuid, u64> = BTreeMap::new();
        for user in self.payloads.iter().flat_map(|payload| &payload.users) {
            *counts.entry(*user).or_default() += 1;
        }
        let take = "WITH heads AS (INSERT INTO feed_user AS person (id, head)
                SELECT given.id::uuid, given.count FROM unnest($1::text[], $2::bigint[]) AS given(id, count) ORDER BY 1
                ON CONFLICT (id) DO UPDATE SET head = person.head + excluded.head RETURNING id, head),
            ids AS MATERIALIZED (SELECT nextval('feed_payload_id') AS id FROM generate_series(1, $3))
            SELECT id::text, head FROM heads UNION ALL SELECT NULL, id FROM ids";
        let mut given = PgArguments::default();
        add(&mut given, counts.keys().map(Uuid::to_string).collect::<Vec<_>>())?;
        add(&mut given, counts.values().map(|count| signed(*count)).collect::<Vec<_>>())?;
        add(&mut given, self.payloads.len() as i64)?;
        let (mut next, mut ids) = (BTreeMap::new(), Vec::with_capacity(self.payloads.len()));
        for row in connection.rows_with(take, given).await? {
            let number = unsigned(&row, 1)?;
            match row.try_get::<Option<String>, _>(0).map_err(unreadable_because)? {
                Some(user) => {
                    let user: Uuid = user.parse().map_err(unreadable_because)?;
                    let count = counts.get(&user).copied().ok_or_else(unreadable)?;
                    next.insert(user, number.checked_sub(count).ok_or_else(unreadable)?);
                }
                None => ids.push(signed(number)),
            }
        }
        // In the order of the payloads.
        ids.sort_unstable();
        Ok((next, ids))
    }

    async fn put_payloads(
        &self,
        connection: &mut Pooled,
        ids: Vec<i64>,
        members: Vec<(Option<String>, Option<String>)>,
    ) -> Result<(), SqlError> {
        let put = "INSERT INTO feed_payload (id, event, body, receipt, users, seqs, subject, at_us)
            SELECT given.id, given.event, given.body, given.receipt, given.users::uuid[], given.seqs::bigint[], given.subject, $8
                FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
                    AS given(id, event, body, receipt, users, seqs, subject)";
        let (users, seqs): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        let mut given = PgArguments::default();
        add(&mut given, ids)?;
        add(&mut given, self.payloads.iter().map(|payload| payload.event.clone()).collect::<Vec<_>>())?;
        add(&mut given, self.payloads.iter().map(|payload| payload.body.to_string()).collect::<Vec<_>>())?;
        add(&mut given, self.payloads.iter().map(|payload| payload.receipt.clone()).collect::<Vec<_>>())?;
        add(&mut given, users)?;
        add(&mut given, seqs)?;
        add(&mut given, self.payloads.iter().map(|payload| payload.subject.clone()).collect::<Vec<_>>())?;
        add(&mut given, signed(self.at_us))?;
        connection.rows_with(put, given).await.map(drop)
    }

    async fn put_replacements(&self, connection: &mut Pooled) -> Result<(), SqlError> {
        if self.replacements.is_empty() {
            return Ok(());
        }
        let replace = "UPDATE feed_payload AS payload SET event = coalesce(given.event, payload.event), body = given.body
            FROM unnest($1::text[], $2::text[], $3::text[]) AS given(subject, event, body) WHERE payload.subject = given.subject";
        let mut given = PgArguments::default();
        add(&mut given, self.replacements.keys().cloned().collect::<Vec<_>>())?;
        add(&mut given, self.replacements.values().map(|(event, _)| event.clone()).collect::<Vec<_>>())?;
        add(&mut given, self.replacements.values().map(|(_, body)| body.clone()).collect::<Vec<_>>())?;
        connection.rows_with(replace, given).await.map(drop)
    }

    async fn put_waiting(&self, connection: &mut Pooled, source: &str) -> Result<(), SqlError> {
        let gone: Vec<i64> = self.waiting.iter().filter(|(_, push)| push.is_none()).map(|(id, _)| *id).collect();
        if !gone.is_empty() {
            let mut given = PgArguments::default();
            add(&mut given, source)?;
            add(&mut given, gone)?;
            connection.rows_with("DELETE FROM feed_waiting WHERE source = $1 AND id = ANY($2)", given).await?;
        }
        let put: Vec<(i64, String)> = self
            .waiting
            .iter()
            .filter_map(|(id, push)| Some((*id, serde_json::to_string(push.as_ref()?).expect("strings and lists of them always encode"))))
            .collect();
        if put.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO feed_waiting (source, id, push) SELECT $1, given.id, given.push FROM unnest($2::bigint[], $3::text[]) AS given(id, push)
            ON CONFLICT (source, id) DO UPDATE SET push = excluded.push";
        let (ids, pushes): (Vec<_>, Vec<_>) = put.into_iter().unzip();
        let mut given = PgArguments::default();
        add(&mut given, source)?;
        add(&mut given, ids)?;
        add(&mut given, pushes)?;
        connection.rows_with(sql, given).await.map(drop)
    }
}
