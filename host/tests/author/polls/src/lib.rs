//! Polls: questions with options to vote for. A vote is counted by the event that announces it; the owner is told of each on his devices.

mod store;

#[allow(clippy::all)]
pub mod bindings {
    echo_sdk::wit_bindgen::generate!({
        path: "wit",
        world: "local:services/polls",
        generate_all,
        runtime_path: "echo_sdk::wit_bindgen::rt",
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:hub/hub@0.1.0": echo_sdk::wit::hub,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
            "wasi:random/random@0.2.6": echo_sdk::wit::random,
        },
    });
}

use bindings::echo::polls::{events as announced, pushes};
use bindings::exports::echo::polls::api::{Choice, CreateRequest, Guest, Poll, PollRequest, VoteRequest};
use bindings::exports::echo::polls::events::{Guest as Events, Vote};
use echo_sdk::checks::Checks;
use echo_sdk::sql::Database;
use echo_sdk::{Error, caller, ids, once, time, transaction};

struct Service;

impl Guest for Service {
    fn create(request: CreateRequest) -> Result<Poll, Error> {
        let owner_id = caller()?.user_id;
        let options = request.options.into_iter().map(|text| Choice { text, votes: 0 }).collect();
        let poll = Poll { id: ids::uuid_v7(), owner_id, question: request.question, options, created_at: time::now_us() };
        transaction(|tx| Ok::<_, Error>(store::insert(tx, &poll)?))?;
        Ok(poll)
    }

    fn get(request: PollRequest) -> Result<Poll, Error> {
        caller()?;
        store::poll(&Database, &request.id)?.ok_or_else(no_such_poll)
    }

    fn vote(request: VoteRequest) -> Result<(), Error> {
        let user_id = caller()?.user_id;
        let poll = store::poll(&Database, &request.id)?.ok_or_else(no_such_poll)?;
        Checks::new().require((request.place as usize) < poll.options.len(), "place", "no_such_option", "no option has this place").finish()?;
        let event = announced::Vote { poll_id: poll.id.clone(), user_id, place: request.place, at: time::now_us() };
        // Vote, event and push leave together or not at all.
        transaction(|tx| {
            match store::vote(tx, &event.poll_id, &event.user_id, event.place) {
                Err(error) if error.is_unique_violation() => return Err(Error::conflict("voted_before", "one vote each")),
                other => other?,
            }
            announced::voted(&event.poll_id, &event)?;
            let vote = pushes::Vote { poll_id: event.poll_id.clone(), place: event.place };
            pushes::poll_voted(&[poll.owner_id.clone()], &vote)
        })
    }
}

impl Events for Service {
    fn voted(_key: String, vote: Vote) -> Result<(), Error> {
        let event_id = once::event_id()?;
        transaction(|tx| {
            if once(tx, &event_id)? {
                store::count(tx, &vote.poll_id, vote.place)?;
            }
            Ok(())
        })
    }
}

fn no_such_poll() -> Error {
    Error::not_found("no such poll")
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Service with_types_in bindings);
