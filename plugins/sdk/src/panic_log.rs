//! A panic's text and place in the host's log, before the call ends as a trap. Installed by the component's constructors, which the bindings run
//! before its first export; a service writes no line for it. Its world imports `echo:log/log`.

use std::panic::{self, PanicHookInfo};

use crate::log;

#[used]
#[unsafe(link_section = ".init_array")]
static INSTALL: extern "C" fn() = install;

extern "C" fn install() {
    panic::set_hook(Box::new(write));
}

fn write(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    log::error("the service panicked", &[("reason", &panic.payload_as_str().unwrap_or("no text")), ("place", &place)]);
}
