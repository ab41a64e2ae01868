//! The media service: files that people keep and send. Here only the bindings and which function is answered where; the rules are in the topic files,
//! SQL in `store.rs`. Knows no HTTP and no messages.

mod bounds;
mod deletion;
mod exports;
mod probe;
mod reading;
mod signed;
mod sniff;
mod store;
mod strip;
mod thumbnails;
mod uploads;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/media",
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:passwords/passwords@0.1.0": echo_sdk::wit::passwords,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
            "wasi:random/random@0.2.6": echo_sdk::wit::random,
        },
        generate_all,
    });
}

use bindings::exports::echo::account_export::events as export_events;
use bindings::exports::echo::media::api;
use bindings::exports::echo::message::events as message_events;
use bindings::exports::echo::user::events as user_events;
use echo_sdk::Error;

struct Service;

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(Service with_types_in bindings);

impl api::Guest for Service {
    fn upload(request: api::UploadRequest) -> Result<api::Media, Error> {
        uploads::whole(request)
    }

    fn begin_upload(request: api::BeginRequest) -> Result<api::Media, Error> {
        uploads::begin(request)
    }

    fn append_upload(request: api::AppendRequest) -> Result<api::Media, Error> {
        uploads::append(&request)
    }

    fn check_own(request: api::OwnRequest) -> Result<api::Media, Error> {
        reading::whole_of(&request.id, &request.owner_id)
    }

    fn get_media(request: api::MediaRequest) -> Result<api::Media, Error> {
        reading::get(&request.id)
    }

    fn open_content(request: api::ContentRequest) -> Result<api::Content, Error> {
        reading::content(&request)
    }

    fn open_thumbnail(request: api::ThumbnailRequest) -> Result<api::Content, Error> {
        thumbnails::open(&request)
    }

    fn delete_media(request: api::MediaRequest) -> Result<(), Error> {
        uploads::delete(&request.id)
    }

    fn get_usage() -> Result<api::Usage, Error> {
        reading::usage()
    }

    fn export_data(request: api::ExportPageRequest) -> Result<api::ExportedData, Error> {
        exports::data(&request)
    }

    fn sweep() -> Result<(), Error> {
        uploads::sweep()
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
    fn deleted(_key: String, event: message_events::ChangedMessages) -> Result<(), Error> {
        deletion::of_messages(event.items.iter().filter_map(|message| message.media_id.as_deref()))
    }

    /// Not subscribed to.
    fn sent(_key: String, _event: message_events::SentMessages) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to.
    fn edited(_key: String, _event: message_events::ChangedMessages) -> Result<(), Error> {
        Ok(())
    }
}

impl user_events::Guest for Service {
    fn deleted(_key: String, event: user_events::Deletion) -> Result<(), Error> {
        deletion::of_person(&event.user_id)
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
