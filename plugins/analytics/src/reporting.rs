//! What clients report: names, times and numbers. Checked here, published, and counted when it comes back, many reports together.

use echo_sdk::checks::Checks;
use echo_sdk::{Error, Timestamp, caller, time};

use crate::bindings::echo::analytics::events::{self, ReportedEvent, ReportedEvents};
use crate::bindings::exports::echo::analytics::api::{Accepted, ClientEventsRequest};
use crate::bounds::{CLOCK_AHEAD_MAX_US, EVENT_AGE_MAX_US};

pub fn report(request: ClientEventsRequest) -> Result<Accepted, Error> {
    let user_id = caller()?.user_id;
    let now = time::now_us();
    check(&request, now)?;
    let accepted = request.events.len() as u32;
    // A clock that is ahead makes nothing happen later than now.
    let items = request.events.into_iter().map(|event| ReportedEvent {
        at: event.at.unwrap_or(now).min(now),
        name: event.name,
        value: event.value,
    });
    events::events(&user_id, &ReportedEvents { user_id: user_id.clone(), items: items.collect() })?;
    Ok(Accepted { accepted })
}

/// What the contract cannot say: times are compared with now.
fn check(request: &ClientEventsRequest, now: Timestamp) -> Result<(), Error> {
    let mut checks = Checks::new();
    for (number, event) in request.events.iter().enumerate() {
        let is_in_time = event.at.is_none_or(|at| (now.saturating_sub(EVENT_AGE_MAX_US)..=now + CLOCK_AHEAD_MAX_US).contains(&at));
        checks.require(is_in_time, &format!("events[{number}].at"), "out_of_range", "within the last day");
    }
    checks.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::echo::analytics::api::ClientEvent;

    #[test]
    fn only_events_of_the_last_day_are_taken() {
        let now = 1_700_000_000_000_000;
        let checked = |at| {
            let events = vec![
                ClientEvent { name: "fine".to_owned(), at: None, value: Some(1) },
                ClientEvent { name: "fine".to_owned(), at, value: None },
            ];
            check(&ClientEventsRequest { events }, now).map_err(|error| error.fields[0].field.clone())
        };
        for at in [None, Some(now), Some(now - EVENT_AGE_MAX_US), Some(now + CLOCK_AHEAD_MAX_US)] {
            assert_eq!(checked(at), Ok(()));
        }
        for at in [now - EVENT_AGE_MAX_US - 1, now + CLOCK_AHEAD_MAX_US + 1, u64::MAX] {
            assert_eq!(checked(Some(at)), Err("events[1].at".to_owned()));
        }
    }
}
