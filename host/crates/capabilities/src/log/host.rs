//! `echo:log/log` for a guest: one event of the host's log per line, the request's ids attached, bounded in length and number.

use std::cmp::Ordering;

use wasmtime::component::{HasSelf, Linker};

use super::readable;
use crate::guest::Guest;
use bindings::echo::log::log::{Host, Level};
use echo_base::limits;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:log/log@0.1.0; }",
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::log::log::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

/// The lines' target, for the level filter: `info,service=debug`.
pub const TARGET: &str = "service";

impl Host for Guest {
    fn write(&mut self, level: Level, message: String, fields: Vec<(String, String)>) {
        self.log_lines_count = self.log_lines_count.saturating_add(1);
        match self.log_lines_count.cmp(&(limits::LOG_LINES_PER_CALL_MAX + 1)) {
            Ordering::Less => self.write_line(level, &message, &fields),
            Ordering::Equal => {
                self.count_dropped();
                let service = self.service.as_str();
                let request_id = &*self.context().request_id;
                tracing::warn!(target: TARGET, service, request_id, "more log lines than one call may write; the rest is dropped");
            }
            Ordering::Greater => self.count_dropped(),
        }
    }
}

impl Guest {
    fn write_line(&self, level: Level, message: &str, fields: &[(String, String)]) {
        // The level has to be known at compile time, hence one arm each.
        macro_rules! line {
            ($level:ident) => {
                if tracing::enabled!(target: TARGET, tracing::Level::$level) {
                    let message = readable(message, limits::LOG_MESSAGE_BYTES_MAX);
                    let fields = rendered(fields);
                    tracing::event!(
                        target: TARGET,
                        tracing::Level::$level,
                        service = self.service.as_str(),
                        request_id = &*self.context().request_id,
                        correlation_id = &*self.context().correlation_id,
                        fields = fields.as_deref(),
                        "{message}"
                    )
                }
            };
        }
        match level {
            Level::Trace => line!(TRACE),
            Level::Debug => line!(DEBUG),
            Level::Info => line!(INFO),
            Level::Warn => line!(WARN),
            Level::Error => line!(ERROR),
        }
    }

    fn count_dropped(&self) {
        metrics::counter!("echo_service_log_lines_dropped_total", "service" => self.service.to_string()).increment(1);
    }
}

/// `name=value name=value`, or none without fields.
fn rendered(fields: &[(String, String)]) -> Option<String> {
    let mut text = String::new();
    for (name, value) in fields.iter().take(limits::LOG_FIELDS_MAX) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&readable(name, limits::LOG_FIELD_NAME_BYTES_MAX));
        text.push('=');
        text.push_str(&readable(value, limits::LOG_FIELD_VALUE_BYTES_MAX));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_start_a_line_of_its_own() {
        assert_eq!(readable("fine\n2026 INFO all is well\u{1b}[2K", 100), "fine\\n2026 INFO all is well\\u{1b}[2K");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(readable("äöü", 3), "ä");
        let many: Vec<_> = (0..40).map(|n| (format!("name{n}"), "v".repeat(10_000))).collect();
        let text = rendered(&many).expect("there are fields");
        assert_eq!(text.split(' ').count(), limits::LOG_FIELDS_MAX);
        assert!(text.len() <= limits::LOG_FIELDS_MAX * (limits::LOG_FIELD_NAME_BYTES_MAX + limits::LOG_FIELD_VALUE_BYTES_MAX + 2));
        assert_eq!(rendered(&[]), None);
    }
}
