//! The analytics service: what happens on the platform, in numbers. Here only the bindings and which function is implemented where; the rules are in
//! the topic files, SQL in `store.rs`. Knows no text, no number and no name of anybody's.

mod bounds;
mod counting;
mod deliveries;
mod exports;
mod latency;
mod metrics;
mod reporting;
mod reports;
mod settings;
mod steps;
mod store;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/analytics",
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:cache/cache@0.1.0": echo_sdk::wit::cache,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
        },
        generate_all,
        additional_derives: [PartialEq],
    });
}

use bindings::exports::echo::account_export::events as export_events;
use bindings::exports::echo::analytics::{api, events};
use bindings::exports::echo::auth::events as auth_events;
use bindings::exports::echo::hub::events as hub_events;
use bindings::exports::echo::message::events as message_events;
use bindings::exports::echo::presence::events as presence_events;
use bindings::exports::echo::user::events as user_events;
use echo_sdk::Error;

struct Service;

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(Service with_types_in bindings);

impl api::Guest for Service {
    fn report_events(request: api::ClientEventsRequest) -> Result<api::Accepted, Error> {
        reporting::report(request)
    }

    fn get_summary(request: api::SummaryRequest) -> Result<api::Summary, Error> {
        reports::summary(&request)
    }

    fn get_timeseries(request: api::TimeseriesRequest) -> Result<api::Timeseries, Error> {
        reports::timeseries(&request)
    }

    fn get_top(request: api::TopRequest) -> Result<api::Top, Error> {
        reports::top(&request)
    }

    fn export_data(_request: api::ExportPageRequest) -> Result<api::ExportedData, Error> {
        exports::data()
    }

    fn count_late() -> Result<(), Error> {
        deliveries::count_late()
    }

    fn clear_away() -> Result<(), Error> {
        settings::clear_away()
    }
}

impl events::Guest for Service {
    fn events(_key: String, event: events::ReportedEvents) -> Result<(), Error> {
        counting::reported(&event)
    }
}

impl export_events::Guest for Service {
    fn requested(_key: String, event: export_events::Request) -> Result<(), Error> {
        exports::requested(event)
    }

    /// Not subscribed to.
    fn prepared(_key: String, _event: export_events::PreparedPart) -> Result<(), Error> {
        Ok(())
    }
}

impl message_events::Guest for Service {
    fn sent(_key: String, event: message_events::SentMessages) -> Result<(), Error> {
        counting::sent(&event.items)
    }

    fn edited(_key: String, event: message_events::ChangedMessages) -> Result<(), Error> {
        counting::edited(&event.items)
    }

    fn deleted(_key: String, event: message_events::ChangedMessages) -> Result<(), Error> {
        counting::deleted(&event.items)
    }
}

impl user_events::Guest for Service {
    fn registered(_key: String, event: user_events::Registration) -> Result<(), Error> {
        counting::registered(&event)
    }

    fn deleted(_key: String, event: user_events::Deletion) -> Result<(), Error> {
        counting::erased(&event.user_id)
    }

    fn blocked(_key: String, _event: user_events::BlockChange) -> Result<(), Error> {
        counting::happened(api::Metric::Blocks, 1)
    }

    /// Not subscribed to.
    fn unblocked(_key: String, _event: user_events::BlockChange) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to.
    fn state_changed(_key: String, _event: user_events::StateChange) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to.
    fn audience_changed(_key: String, _event: user_events::AudienceChange) -> Result<(), Error> {
        Ok(())
    }
}

impl hub_events::Guest for Service {
    fn connected(_key: String, event: hub_events::Connection) -> Result<(), Error> {
        counting::connected(&event.user_id)
    }

    /// Not subscribed to.
    fn disconnected(_key: String, _event: hub_events::Connection) -> Result<(), Error> {
        Ok(())
    }

    fn acknowledged(_key: String, event: hub_events::Acknowledgements) -> Result<(), Error> {
        deliveries::acknowledged(&event)
    }
}

impl presence_events::Guest for Service {
    fn updated(_key: String, event: presence_events::Update) -> Result<(), Error> {
        // For people without a socket; whoever leaves did nothing.
        if event.status == presence_events::NewStatus::Offline { Ok(()) } else { counting::seen(&event.user_id, event.at) }
    }
}

impl auth_events::Guest for Service {
    fn session_ended(_key: String, event: auth_events::SessionEnd) -> Result<(), Error> {
        counting::happened(api::Metric::SessionsEnded, event.session_ids.len() as u64)
    }

    fn password_changed(_key: String, _event: auth_events::PasswordChange) -> Result<(), Error> {
        counting::happened(api::Metric::PasswordChanges, 1)
    }
}
