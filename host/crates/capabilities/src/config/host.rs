//! `echo:config/config` for a guest: reads its own service's settings, nothing else.

use wasmtime::component::{HasSelf, Linker};

use crate::guest::Guest;
use bindings::echo::config::config::Host;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:config/config@0.1.0; }",
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::config::config::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

impl Host for Guest {
    fn get(&mut self, key: String) -> Option<String> {
        self.capabilities.settings.values.get(&key).cloned()
    }

    fn dev_mode(&mut self) -> bool {
        self.capabilities.settings.dev_mode
    }
}
