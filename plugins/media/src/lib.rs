//! The media service: files that people keep and send. Here only the bindings and which function is answered where; the rules are in the topic files,
//! SQL in `store.rs`. Knows no HTTP and no messages.

mod bounds;
mod reading;
mod signed;
mod sniff;
mod store;
mod strip;
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

use bindings::exports::echo::media::api;
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

    fn get_media(request: api::MediaRequest) -> Result<api::Media, Error> {
        reading::get(&request.id)
    }

    fn open_content(request: api::ContentRequest) -> Result<api::Content, Error> {
        reading::content(&request)
    }

    fn delete_media(request: api::MediaRequest) -> Result<(), Error> {
        uploads::delete(&request.id)
    }

    fn get_usage() -> Result<api::Usage, Error> {
        reading::usage()
    }

    fn sweep() -> Result<(), Error> {
        uploads::sweep()
    }
}
