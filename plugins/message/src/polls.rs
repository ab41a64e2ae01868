//! Polls: voting and closing. They are sent as messages are.

use std::collections::BTreeSet;

use echo_sdk::checks::Checks;
use echo_sdk::sql::{Database, Transaction, transaction};
use echo_sdk::{Error, Timestamp, caller, time};

use crate::bindings::echo::message::pushes::{self, PollState};
use crate::bindings::exports::echo::message::api::{Message, Poll, VoteRequest};
use crate::history::seen_by;
use crate::store::conversations::membership;
use crate::store::{messages, polls};
use crate::{changes, rules};

pub fn vote(request: &VoteRequest) -> Result<Message, Error> {
    let me = caller()?.user_id;
    let message = seen_by(&me, &request.id)?;
    let numbers = chosen(poll_of(&message)?, &request.options)?;
    let blockers = changes::blockers_of(&me, &message.conversation_id)?;
    let now = time::now_us();
    transaction(|tx| {
        // Locked, so that no vote comes after the poll was closed.
        if !polls::lock(tx, &message.id, now)?.ok_or_else(changes::deleted)? {
            return Err(Error::conflict("poll_closed", "the poll is closed"));
        }
        if polls::set_votes(tx, &message.id, &me, &numbers)? {
            announce(tx, &me, &message, &blockers, now)?;
        }
        Ok(())
    })?;
    seen_by(&me, &message.id)
}

pub fn close(id: &str) -> Result<Message, Error> {
    let me = caller()?.user_id;
    let message = seen_by(&me, id)?;
    poll_of(&message)?;
    let place = membership(&Database, &message.conversation_id, &me)?.ok_or_else(rules::no_message)?;
    rules::may_close_poll(place.kind, place.role, message.sender_id == me)?;
    let blockers = changes::blockers_of(&me, &message.conversation_id)?;
    let now = time::now_us();
    transaction(|tx| {
        polls::lock(tx, &message.id, now)?.ok_or_else(changes::deleted)?;
        if polls::close(tx, &message.id, now)? {
            announce(tx, &me, &message, &blockers, now)?;
        }
        Ok::<_, Error>(())
    })?;
    seen_by(&me, &message.id)
}

fn poll_of(message: &Message) -> Result<&Poll, Error> {
    if message.deleted_at.is_some() {
        return Err(changes::deleted());
    }
    message.poll.as_ref().ok_or_else(|| Error::conflict("not_a_poll", "the message is no poll"))
}

/// The places, each once and in order.
fn chosen(poll: &Poll, options: &[u32]) -> Result<Vec<u32>, Error> {
    let mut checks = Checks::new();
    for (at, option) in options.iter().enumerate() {
        checks.require((*option as usize) < poll.options.len(), &format!("options[{at}]"), "out_of_range", "there is no such option");
    }
    let numbers: BTreeSet<u32> = options.iter().copied().collect();
    checks.require(poll.multiple || numbers.len() <= 1, "options", "too_many", "one may be chosen");
    checks.finish()?;
    Ok(numbers.into_iter().collect())
}

/// Whoever blocks the caller is not disturbed, and sees it when they ask.
fn announce(tx: &Transaction, me: &str, message: &Message, blockers: &[String], now: Timestamp) -> Result<(), Error> {
    let Some(poll) = polls::polls_among(tx, me, std::slice::from_ref(&message.id), now)?.remove(&message.id) else { return Ok(()) };
    let mut users = messages::audience_of(tx, &message.conversation_id, message.seq)?;
    users.retain(|user| !blockers.contains(user));
    let state = PollState {
        message_id: message.id.clone(),
        conversation_id: message.conversation_id.clone(),
        seq: message.seq,
        votes: poll.options.iter().map(|option| option.votes).collect(),
        voters: poll.voters,
        closed: poll.closed,
        at: now,
    };
    pushes::poll(&users, &state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::echo::message::model::PollOption;

    #[test]
    fn one_or_several_options_that_there_are_may_be_chosen() {
        let options = ["a", "b", "c"].map(|text| PollOption { text: text.to_owned(), votes: 0 }).into();
        let one = Poll { question: "?".into(), options, multiple: false, closes_at: None, closed: false, voters: 0, own_votes: vec![] };
        let several = Poll { multiple: true, ..one.clone() };
        let chosen = |poll: &Poll, options: &[u32]| chosen(poll, options).map_err(|error| (error.fields[0].field.clone(), error.code));
        for (poll, options, expect) in
            [(&one, &[][..], &[][..]), (&one, &[2], &[2]), (&one, &[1, 1], &[1]), (&several, &[2, 0, 2], &[0, 2])]
        {
            assert_eq!(chosen(poll, options), Ok(expect.to_vec()));
        }
        assert_eq!(chosen(&one, &[0, 1]), Err(("options".to_owned(), "too_many".to_owned())));
        assert_eq!(chosen(&several, &[0, 3]), Err(("options[1]".to_owned(), "out_of_range".to_owned())));
    }
}
