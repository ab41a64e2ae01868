//! What every Echo service is written with: the bindings of the capabilities, made once, and small helpers over them.
//! Knows no service and no domain rule. Start with `README.md` beside this crate.

pub mod caller;
pub mod checks;
pub mod config;
pub mod errors;
pub mod exports;
pub mod ids;
pub mod log;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod once;
pub mod page;
// In the component alone: a native test keeps its own hook.
#[cfg(target_arch = "wasm32")]
mod panic_log;
pub mod sql;
pub mod text;
pub mod time;
pub mod value;

/// The raw bindings of every capability, as `wit/deps` describes them. A service maps them with `with` in its own `generate!`, so that
/// all crates share one set of types. Only what is really called becomes an import of the component.
pub mod wit {
    wit_bindgen::generate!({
        inline: "
            package echo:sdk;
            world capabilities {
                import echo:types/types@0.1.0;
                import echo:context/context@0.1.0;
                import echo:sql/sql@0.1.0;
                import echo:cache/cache@0.1.0;
                import echo:http/http@0.1.0;
                import echo:hub/hub@0.1.0;
                import echo:passwords/passwords@0.1.0;
                import echo:tokens/tokens@0.1.0;
                import echo:config/config@0.1.0;
                import echo:log/log@0.1.0;
                import wasi:clocks/wall-clock@0.2.6;
                import wasi:random/random@0.2.6;
            }
        ",
        path: "wit",
        world: "echo:sdk/capabilities",
        additional_derives: [PartialEq],
        generate_all,
    });

    pub use echo::cache::cache;
    pub use echo::config::config;
    pub use echo::context::context;
    pub use echo::http::http;
    pub use echo::hub::hub;
    pub use echo::log::log;
    pub use echo::passwords::passwords;
    pub use echo::tokens::tokens;
    pub use echo::types::types;

    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::native::{random, sql, wall_clock};
    #[cfg(target_arch = "wasm32")]
    pub use {echo::sql::sql, wasi::clocks::wall_clock, wasi::random::random};
}

/// For `generate!` with `runtime_path: "echo_sdk::wit_bindgen::rt"`: a service has one dependency.
pub use wit_bindgen;

pub use caller::caller;
pub use once::{once, once_each};
pub use page::{Id, Page};
pub use sql::{Sql, Transaction, transaction};
pub use wit::types::{Cursor, Error, ErrorKind, FieldError, Json, Phone, Timestamp, Uuid};
