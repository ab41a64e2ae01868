//! The notification service: push devices, whether a message needs a push, text messages. Here only the bindings and which function is
//! answered where; the rules are in the topic files, SQL in `store.rs`. Knows no conversations and no profiles.

mod bounds;
mod decisions;
mod devices;
mod encryption;
mod exports;
mod list;
mod outbox;
mod preferences;
mod providers;
mod sending;
mod store;
mod traces;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/notification",
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:http/http@0.1.0": echo_sdk::wit::http,
            "echo:hub/hub@0.1.0": echo_sdk::wit::hub,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
            "wasi:random/random@0.2.6": echo_sdk::wit::random,
        },
        generate_all,
    });
}

use bindings::exports::echo::account_export::events as export_events;
use bindings::exports::echo::auth::events as auth_events;
use bindings::exports::echo::message::events as message_events;
use bindings::exports::echo::notification::{api, events};
use bindings::exports::echo::user::events as user_events;
use echo_sdk::Error;

struct Notification;

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(Notification with_types_in bindings);

impl api::Guest for Notification {
    fn list_devices() -> Result<api::PushDevices, Error> {
        devices::list()
    }

    fn add_device(request: api::AddDeviceRequest) -> Result<api::PushDevice, Error> {
        devices::add(request)
    }

    fn remove_device(request: api::RemoveDeviceRequest) -> Result<(), Error> {
        devices::remove(&request.token)
    }

    fn get_preferences() -> Result<api::Preferences, Error> {
        preferences::get()
    }

    fn set_preferences(request: api::Preferences) -> Result<api::Preferences, Error> {
        preferences::set(request)
    }

    fn list_notifications(request: api::ListRequest) -> Result<api::InAppList, Error> {
        list::list(&request)
    }

    fn mark_read(request: api::ReadRequest) -> Result<(), Error> {
        list::mark_read(&request.up_to)
    }

    fn trace(request: api::TraceRequest) -> Result<api::Traces, Error> {
        traces::trace(&request.message_id)
    }

    fn export_data(request: api::ListRequest) -> Result<api::ExportedData, Error> {
        exports::data(&request)
    }

    fn dev_outbox() -> Result<api::Outbox, Error> {
        outbox::shown()
    }

    fn decide_due() -> Result<(), Error> {
        decisions::decide_due()
    }

    fn send_due() -> Result<(), Error> {
        sending::send_due()
    }

    fn clear_away() -> Result<(), Error> {
        decisions::clear_away()
    }
}

impl export_events::Guest for Notification {
    fn requested(_key: String, event: export_events::Request) -> Result<(), Error> {
        exports::requested(event)
    }

    /// Not subscribed to.
    fn prepared(_key: String, _event: export_events::PreparedPart) -> Result<(), Error> {
        Ok(())
    }
}

impl message_events::Guest for Notification {
    fn sent(_key: String, event: message_events::SentMessages) -> Result<(), Error> {
        list::mentioned(&event.items)?;
        decisions::awaited(&event.items)
    }

    fn edited(_key: String, event: message_events::ChangedMessages) -> Result<(), Error> {
        decisions::edited(&event.items)
    }

    fn deleted(_key: String, event: message_events::ChangedMessages) -> Result<(), Error> {
        decisions::deleted(&event.items)
    }
}

impl events::Guest for Notification {
    fn sms_requested(_key: String, event: events::TextMessage) -> Result<(), Error> {
        outbox::text_message(&event.to, &event.body, event.code.as_deref(), event.at)
    }
}

impl user_events::Guest for Notification {
    fn deleted(_key: String, event: user_events::Deletion) -> Result<(), Error> {
        Ok(echo_sdk::transaction(|tx| store::erase_person(tx, &event.user_id, &event.phone))?)
    }

    /// Not subscribed to.
    fn registered(_key: String, _event: user_events::Registration) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to.
    fn blocked(_key: String, _event: user_events::BlockChange) -> Result<(), Error> {
        Ok(())
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

impl auth_events::Guest for Notification {
    fn session_ended(_key: String, event: auth_events::SessionEnd) -> Result<(), Error> {
        devices::sessions_ended(&event)
    }

    fn password_changed(_key: String, event: auth_events::PasswordChange) -> Result<(), Error> {
        list::password_changed(&event)?;
        outbox::text_message(&event.phone, "Your password was changed. If this was not you, reset it now.", None, event.at)
    }
}
