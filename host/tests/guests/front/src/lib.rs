//! A service that asks another one: two hops for every request.

#[allow(clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:guests/front",
        generate_all,
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
        },
    });
}

use bindings::echo::hostile::api as hostile;
use bindings::echo::location::api;
use bindings::exports::echo::front::api::Guest;
use echo_sdk::Error;

struct Front;

impl Guest for Front {
    fn lookup(request: api::LookupRequest) -> Result<api::Location, Error> {
        api::lookup(&request)
    }

    fn work(request: hostile::Amount) -> Result<hostile::Answer, Error> {
        let mut sum = 0u64;
        for step in 0..u64::from(request.count) * 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(step));
        }
        Ok(hostile::Answer { text: sum.to_string() })
    }

    fn hold_then_label(request: hostile::Amount) -> Result<hostile::Answer, Error> {
        hostile::hold(request)?;
        hostile::label()
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Front with_types_in bindings);
