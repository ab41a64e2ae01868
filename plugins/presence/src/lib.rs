//! The presence service: who is there, on which devices, shown to whom. Here only the bindings and which function is implemented where; the rules
//! are in the topic files, what is kept in the cache in `store.rs`. Knows no tables, no profiles and no conversations.

mod bounds;
mod changes;
mod others;
mod own;
mod platform;
mod settings;
mod state;
mod store;
#[cfg(test)]
mod tests;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/presence",
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:cache/cache@0.1.0": echo_sdk::wit::cache,
            "echo:hub/hub@0.1.0": echo_sdk::wit::hub,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
        },
        generate_all,
    });
}

use bindings::echo::account_export::events as export_answers;
use bindings::exports::echo::account_export::events as export_events;
use bindings::exports::echo::hub::events as hub_events;
use bindings::exports::echo::presence::api;
use bindings::exports::echo::user::events as user_events;
use echo_sdk::{Error, caller};
use platform::{Live, Platform};
use settings::Settings;

struct Service;

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(Service with_types_in bindings);

impl api::Guest for Service {
    fn list_presence(request: api::PresenceRequest) -> Result<api::Presences, Error> {
        others::list(&Live, &Settings::load(), &caller()?.user_id, request.user_ids)
    }

    fn set_status(request: api::SetStatusRequest) -> Result<api::Presence, Error> {
        let caller = caller()?;
        own::set_status(&Live, &Settings::load(), &caller.user_id, &caller.device_id, request)
    }

    fn heartbeat() -> Result<api::Alive, Error> {
        let caller = caller()?;
        own::heartbeat(&Live, &Settings::load(), &caller.user_id, &caller.device_id)
    }

    fn list_devices() -> Result<api::Devices, Error> {
        let caller = caller()?;
        own::devices(&Live, &Settings::load(), &caller.user_id, &caller.device_id)
    }

    fn export_data(_request: api::ExportPageRequest) -> Result<api::ExportedData, Error> {
        let caller = caller()?;
        own::exported(&Live, &Settings::load(), &caller.user_id, &caller.device_id)
    }

    fn publish_changes() -> Result<(), Error> {
        changes::publish(&Live, &Settings::load())
    }
}

impl export_events::Guest for Service {
    /// There is nothing to note: what is known here is the person's to see at any time.
    fn requested(key: String, event: export_events::Request) -> Result<(), Error> {
        let export_events::Request { user_id, export_id, .. } = event;
        let name = "presence".to_owned();
        export_answers::prepared(&key, &export_answers::PreparedPart { user_id, export_id, name, at: Live.now_us() })
    }

    /// Not subscribed to.
    fn prepared(_key: String, _event: export_events::PreparedPart) -> Result<(), Error> {
        Ok(())
    }
}

impl hub_events::Guest for Service {
    fn connected(_key: String, event: hub_events::Connection) -> Result<(), Error> {
        own::connected(&Live, &Settings::load(), &event.user_id, &event.device_id, &event.connection_id)
    }

    fn disconnected(_key: String, event: hub_events::Connection) -> Result<(), Error> {
        own::disconnected(&Live, &Settings::load(), &event.user_id, &event.device_id, &event.connection_id)
    }

    /// Not subscribed to.
    fn acknowledged(_key: String, _event: hub_events::Acknowledgements) -> Result<(), Error> {
        Ok(())
    }
}

impl user_events::Guest for Service {
    /// The blocked person sees the other go offline.
    fn blocked(_key: String, event: user_events::BlockChange) -> Result<(), Error> {
        changes::audience_changed(&Live, &Settings::load(), &event.user_id)
    }

    fn audience_changed(_key: String, event: user_events::AudienceChange) -> Result<(), Error> {
        changes::audience_changed(&Live, &Settings::load(), &event.user_id)
    }

    /// Their sessions ended before, so they were seen to leave; now nothing is known of them.
    fn deleted(_key: String, event: user_events::Deletion) -> Result<(), Error> {
        store::forget(&Live, &event.user_id)
    }

    /// Not subscribed to: `user` says of deleted accounts that their audience has changed.
    fn state_changed(_key: String, _event: user_events::StateChange) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to: clients ask again.
    fn unblocked(_key: String, _event: user_events::BlockChange) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to.
    fn registered(_key: String, _event: user_events::Registration) -> Result<(), Error> {
        Ok(())
    }
}
