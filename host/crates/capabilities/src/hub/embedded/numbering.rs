//! Pushes and replacements become rows of the feed's file and entries to deliver: numbers are given out in memory alone. No I/O.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::{Memory, User, encode, integer};
use crate::hub::states::Rows;
use crate::hub::{FeedChange, FeedEntry, Push, Replacement};
use crate::hub::{service_of, subject_of};
use crate::sql::sqlite::values::{self, Params};
use crate::sql::{SqlError, Value};

/// Changes with their numbers, as rows to write and as entries to deliver.
#[derive(Default)]
pub(super) struct Numbered {
    pub(super) users: Vec<Params>,
    pub(super) payloads: Vec<Payload>,
    pub(super) entries: Vec<Params>,
    pub(super) replacements: Vec<Params>,
    pub(super) waiting: Rows,
    /// Whose entry has which number and which of the payloads.
    pub(super) given: Vec<(Uuid, u64, usize)>,
}

pub(super) struct Payload {
    id: i64,
    event: String,
    body: Arc<str>,
    receipt: Option<String>,
    users: Value,
    subject: Option<String>,
    at_us: u64,
}

impl Payload {
    pub(super) fn row(&self) -> Result<Params, SqlError> {
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
        values::bind([
            self.id.into(),
            self.event.as_str().into(),
            self.body.as_ref().into(),
            text(&self.receipt),
            self.users.clone(),
            Value::Timestamp(self.at_us),
            text(&self.subject),
        ])
    }
}

impl Numbered {
    /// Gives out the numbers, in memory alone.
    pub(super) fn of(memory: &mut Memory, source: &str, changes: &[&FeedChange], at_us: u64) -> Result<Self, SqlError> {
        let (mut numbered, service, now) = (Self::default(), service_of(source), Instant::now());
        for change in changes {
            match change {
                FeedChange::Push(push) => {
                    let waits = |state: &String| !memory.states.admit(source, state, push, now, &mut numbered.waiting);
                    if !push.state.as_ref().is_some_and(waits) {
                        numbered.push(memory, service, push, at_us)?;
                    }
                }
                FeedChange::Replace(replacement) => numbered.replace(service, replacement)?,
            }
        }
        Ok(numbered)
    }

    pub(super) fn push(&mut self, memory: &mut Memory, service: &str, push: &Push, at_us: u64) -> Result<(), SqlError> {
        let id = memory.next_payload;
        memory.next_payload += 1;
        let mut ids = Vec::with_capacity(push.users.len());
        let mut seen = HashSet::with_capacity(push.users.len());
        for &user in push.users.iter().filter(|user| seen.insert(**user)) {
            let next_user = &mut memory.next_user;
            let state = memory.users.entry(user).or_insert_with(|| {
                *next_user += 1;
                User::new(*next_user - 1)
            });
            if state.head == 0 {
                self.users.push(values::bind([state.id.into(), Value::Uuid(user)])?);
            }
            state.head += 1;
            ids.push(state.id);
            self.entries.push(values::bind([state.id.into(), integer(state.head), id.into()])?);
            self.given.push((user, state.head, self.payloads.len()));
        }
        self.payloads.push(Payload {
            id,
            event: push.event.clone(),
            body: push.payload.as_str().into(),
            users: if push.receipt.is_some() { encode(&ids) } else { Value::Null },
            receipt: push.receipt.clone(),
            subject: push.subject.as_deref().map(|subject| subject_of(service, subject)),
            at_us,
        });
        Ok(())
    }

    fn replace(&mut self, service: &str, replacement: &Replacement) -> Result<(), SqlError> {
        let subject = subject_of(service, &replacement.subject);
        let body: Arc<str> = replacement.payload.as_str().into();
        for payload in self.payloads.iter_mut().filter(|payload| payload.subject.as_ref() == Some(&subject)) {
            payload.body = body.clone();
            if let Some(event) = &replacement.event {
                payload.event.clone_from(event);
            }
        }
        let event = replacement.event.as_deref().map_or(Value::Null, Value::from);
        self.replacements.push(values::bind([subject.into(), event, replacement.payload.as_str().into()])?);
        Ok(())
    }

    pub(super) fn delivered(&self) -> Vec<FeedEntry> {
        let entry = |&(user, seq, payload): &(Uuid, u64, usize)| {
            let Payload { event, body, at_us, .. } = &self.payloads[payload];
            FeedEntry { user, seq, event: event.clone(), payload: body.clone(), at_us: *at_us }
        };
        self.given.iter().map(entry).collect()
    }
}

/// Those to put and those to drop.
pub(super) fn waiting_rows(source: &str, rows: &Rows) -> Result<(Vec<Params>, Vec<Params>), SqlError> {
    let (mut put, mut drop) = (Vec::new(), Vec::new());
    for (id, push) in rows {
        match push {
            Some(push) => put.push(values::bind([(*id).into(), source.into(), encode(push)])?),
            None => drop.push(values::bind([(*id).into()])?),
        }
    }
    Ok((put, drop))
}
