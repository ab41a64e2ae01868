//! Sends the pushes that are due, side by side, and notes what became of each: gone, to be tried again, or the end of its token.
//!
//! A push is claimed before it is sent, so that of two runs one sends it; a claim whose run ended without a note is over after a while, and the push is
//! sent again: at least once.

use std::collections::BTreeMap;

use echo_sdk::sql::transaction;
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::{context, http};
use echo_sdk::{Error, Timestamp, config, log, time};

use crate::bounds::{CLAIM_US, PUSH_TRIES_MAX, PUSHES_AT_ONCE, SENDING_TIME_LEFT_MS, SENDINGS_PER_RUN};
use crate::providers::{Outcome, Providers, Push, back_off_ms, outcome};
use crate::store::sending::{self as store, DuePush};

/// Where the setting is missing.
const PUSH_TTL_S: u64 = 24 * 60 * 60;

/// One run of the schedule. What it does not manage, the next run does.
pub fn send_due() -> Result<(), Error> {
    for _ in 0..SENDINGS_PER_RUN {
        let now = time::now_us();
        let due = store::due_pushes(now)?;
        if due.is_empty() || context::remaining_ms() < SENDING_TIME_LEFT_MS {
            break;
        }
        send(&due, now)?;
        if due.len() < PUSHES_AT_ONCE as usize {
            break;
        }
    }
    Ok(())
}

fn send(due: &[DuePush], now: Timestamp) -> Result<(), Error> {
    let claimed = transaction(|tx| {
        let mut claimed = Vec::new();
        for push in due {
            if store::claim_push(tx, push, now + CLAIM_US)? {
                claimed.push(push.clone());
            }
        }
        Ok::<_, Error>(claimed)
    })?;
    let providers = Providers::configured();
    let ttl_us = config::number("push_ttl_s", PUSH_TTL_S).saturating_mul(SECOND_US);
    let (mut sent, mut requests, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
    for push in claimed {
        let expires_at = push.at.saturating_add(ttl_us);
        let request = (expires_at > now).then(|| providers.request(&as_push(&push, expires_at), now));
        match request {
            Some(Some(request)) => {
                requests.push(request);
                sent.push(push);
            }
            // Of a provider that was configured when it was decided on: it waits for it, as long as it is of use.
            Some(None) if !providers.sends(&push.provider) => outcomes.push((push, Outcome::Retry(None))),
            Some(None) => outcomes.push((push, Outcome::Dead)),
            None => outcomes.push((push, Outcome::GivenUp)),
        }
    }
    let answers = if requests.is_empty() { Vec::new() } else { http::send(&requests) };
    outcomes.extend(sent.into_iter().zip(&answers).map(|(push, answer)| {
        let outcome = outcome(&push.provider, answer, time::now_us());
        (push, outcome)
    }));
    note(&outcomes)
}

fn as_push(push: &DuePush, expires_at: u64) -> Push<'_> {
    Push {
        provider: &push.provider,
        token: &push.token,
        title: push.title.as_deref().unwrap_or_default(),
        body: &push.body,
        shows_text: push.shows_text,
        message_id: &push.message_id,
        conversation_id: &push.conversation_id,
        expires_at,
    }
}

fn note(outcomes: &[(DuePush, Outcome)]) -> Result<(), Error> {
    let (now, keeps) = (time::now_us(), config::dev_mode());
    transaction(|tx| {
        for (push, outcome) in outcomes {
            match outcome {
                // For whoever tries Echo out it stays to be looked at.
                Outcome::Sent if keeps => store::set_sent(tx, &push.id)?,
                Outcome::Sent => store::delete_push(tx, &push.id)?,
                Outcome::Dead => {
                    store::delete_push(tx, &push.id)?;
                    store::forget_token(tx, &push.token_hash, push.at)?;
                }
                Outcome::Retry(said_ms) if push.tries < PUSH_TRIES_MAX => {
                    store::set_send_at(tx, &push.id, now + back_off_ms(push.tries, *said_ms) * 1_000)?;
                }
                Outcome::Retry(_) | Outcome::GivenUp => store::delete_push(tx, &push.id)?,
            }
        }
        Ok::<_, Error>(())
    })?;
    let mut lost: BTreeMap<&str, [u32; 2]> = BTreeMap::new();
    for (push, outcome) in outcomes {
        let [dead, given_up] = lost.entry(&push.provider).or_default();
        match outcome {
            Outcome::Dead => *dead += 1,
            Outcome::GivenUp => *given_up += 1,
            Outcome::Retry(_) if push.tries >= PUSH_TRIES_MAX => *given_up += 1,
            Outcome::Sent | Outcome::Retry(_) => {}
        }
    }
    for (provider, [dead, given_up]) in lost {
        if dead > 0 {
            log::info("push tokens are no more and were forgotten", &[("provider", &provider), ("count", &dead)]);
        }
        if given_up > 0 {
            log::warn("pushes were given up", &[("provider", &provider), ("count", &given_up)]);
        }
    }
    Ok(())
}
