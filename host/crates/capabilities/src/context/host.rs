//! `echo:context/context` for a guest: what the edge attached to the root request, read only.

use std::time::Instant;

use wasmtime::component::{HasSelf, Linker};

use crate::guest::Guest;
use bindings::echo::context::context::{Host, Identity};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:context/context@0.1.0; }",
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::context::context::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

impl Host for Guest {
    fn caller(&mut self) -> Option<Identity> {
        self.context().caller.as_deref().map(|caller| Identity {
            user_id: caller.user_id.to_string(),
            device_id: caller.device_id.clone(),
            session_id: caller.session_id.to_string(),
            roles: caller.roles.clone(),
            issued_at: caller.issued_at_us,
            expires_at: caller.expires_at_us,
        })
    }

    fn request_id(&mut self) -> String {
        self.context().request_id.to_string()
    }

    fn correlation_id(&mut self) -> String {
        self.context().correlation_id.to_string()
    }

    fn client_address(&mut self) -> Option<String> {
        self.context().client_address.map(|address| address.to_string())
    }

    fn user_agent(&mut self) -> Option<String> {
        self.context().user_agent.as_deref().map(str::to_owned)
    }

    fn remaining_ms(&mut self) -> u64 {
        let left = self.context().deadline.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    fn idempotency_key(&mut self) -> Option<String> {
        self.context().idempotency_key.as_deref().map(str::to_owned)
    }

    fn event_id(&mut self) -> Option<String> {
        self.context().event_id.as_deref().map(str::to_owned)
    }
}
