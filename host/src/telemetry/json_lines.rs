//! The log as JSON, a line per event: time, level, the event's own fields side by side, and where it was logged. Spans are left out.
//!
//! Every request logs a line. tracing-subscriber's general JSON formatter took a sixth of a cheap request's instructions.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::lines::LogLines;
use echo_base::json_text::write_string;
use echo_base::limits;

pub struct JsonLines {
    lines: LogLines,
}

impl JsonLines {
    pub fn new(lines: LogLines) -> Self {
        Self { lines }
    }
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(limits::LOG_LINE_BYTES_KEPT));
        }
        // Taken, so that a value which logs while it is written does no harm; a thread that is ending has none to give.
        let mut line = Line { bytes: BYTES.try_with(RefCell::take).unwrap_or_default(), target: None };
        line.bytes.extend_from_slice(b"{\"timestamp\":\"");
        push_time(&mut line.bytes, SystemTime::now());
        line.bytes.extend_from_slice(b"\",\"level\":\"");
        line.bytes.extend_from_slice(event.metadata().level().as_str().as_bytes());
        line.bytes.push(b'"');
        event.record(&mut line);
        let target = line.target.take();
        line.put_text("target", target.as_deref().unwrap_or(event.metadata().target()));
        line.bytes.extend_from_slice(b"}\n");
        self.lines.send(&line.bytes);
        line.bytes.clear();
        line.bytes.shrink_to(limits::LOG_LINE_BYTES_KEPT);
        let _ = BYTES.try_with(|kept| kept.replace(line.bytes));
    }
}

/// RFC 3339 in UTC, with microseconds.
fn push_time(bytes: &mut Vec<u8>, now: SystemTime) {
    const TO_THE_SECOND: usize = "2026-11-26T02:20:35".len();
    thread_local! {
        static LAST: Cell<(u64, [u8; TO_THE_SECOND])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
    }
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = LAST.get();
    if second != since_1970.as_secs() {
        second = since_1970.as_secs();
        // Out of the calendar's range: the clock is of no use, but the line may be.
        let time = Timestamp::from_second(second as i64).unwrap_or_default();
        let mut text_left = text.as_mut_slice();
        write!(text_left, "{}", time.strftime("%Y-%m-%dT%H:%M:%S")).expect("a year has four digits");
        LAST.set((second, text));
    }
    bytes.extend_from_slice(&text);
    let mut fraction = *b".000000Z";
    let mut micros = since_1970.subsec_micros();
    for digit in fraction[1..7].iter_mut().rev() {
        *digit += (micros % 10) as u8;
        micros /= 10;
    }
    bytes.extend_from_slice(&fraction);
}

/// One that is being written.
struct Line {
    bytes: Vec<u8>,
    /// Of an event that came through the `log` crate.
    target: Option<String>,
}

impl Line {
    fn put_name(&mut self, name: &str) {
        self.bytes.push(b',');
        write_string(&mut self.bytes, name.strip_prefix("r#").unwrap_or(name));
        self.bytes.push(b':');
    }

    fn put_text(&mut self, name: &str, text: &str) {
        self.put_name(name);
        write_string(&mut self.bytes, text);
    }

    fn put_plain(&mut self, field: &Field, value: impl Serialize) {
        // The `log` crate's line numbers.
        if field.name().starts_with("log.") {
            return;
        }
        self.put_name(field.name());
        let before = self.bytes.len();
        if serde_json::to_writer(&mut self.bytes, &value).is_err() {
            self.bytes.truncate(before);
            self.bytes.extend_from_slice(b"null");
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // How the `log` crate's events say where they come from.
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            name => self.put_text(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::with_capacity(64);
        // A `Debug` that fails has written what it could.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put_plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put_plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put_plain(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::lines::tests::Written;
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt;

    fn logged(log: impl FnOnce()) -> Vec<serde_json::Value> {
        let written = Written::default();
        let (lines, guard) = LogLines::start(written.clone(), 10_000).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(JsonLines::new(lines)), log);
        drop(guard);
        written.text().lines().map(|line| serde_json::from_str(line).expect("one JSON document a line")).collect()
    }

    #[test]
    fn every_kind_of_field_is_what_it_is() {
        let [line] = &*logged(|| {
            let name = "a \"quoted\"\nline \u{1}";
            tracing::warn!(name, count = 7_u64, below = -7_i64, ratio = 0.25, nothing = f64::NAN, yes = true, shown = %1.5, "odd \"name\"" = 1, dotted.name = 2, told = ?Some("x"), r#type = "t", "it {}", "was");
        }) else {
            panic!("one event, one line")
        };
        let mut line = line.as_object().unwrap().clone();
        let time: Timestamp = line.remove("timestamp").unwrap().as_str().unwrap().parse().unwrap();
        assert!(Timestamp::now().duration_since(time).as_secs() < 60);
        let expect = serde_json::json!({
            "level": "WARN", "message": "it was", "target": module_path!(),
            "name": "a \"quoted\"\nline \u{1}", "count": 7, "below": -7, "ratio": 0.25, "nothing": null, "yes": true,
            "shown": "1.5", "odd \"name\"": 1, "dotted.name": 2, "told": "Some(\"x\")", "type": "t",
        });
        assert_eq!(serde_json::Value::Object(line), expect);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let check = |seconds: u64, micros: u32, expect: &str| {
            let mut bytes = Vec::new();
            push_time(&mut bytes, UNIX_EPOCH + Duration::new(seconds, micros * 1_000));
            assert_eq!(String::from_utf8(bytes).unwrap(), expect);
        };
        check(0, 1, "1970-01-01T00:00:00.000001Z");
        check(1_795_659_635, 194_889, "2026-11-26T02:20:35.194889Z");
        check(1_795_659_635, 999_999, "2026-11-26T02:20:35.999999Z");
        check(951_782_400, 0, "2000-02-29T00:00:00.000000Z");
        // No clock shows this; the line is written all the same.
        check(u64::from(u32::MAX) << 20, 0, "1970-01-01T00:00:00.000000Z");
    }
}
