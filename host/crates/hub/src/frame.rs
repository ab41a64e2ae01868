//! The frames' JSON: `{"type","id"?,"payload"}` from a client; events, replies and errors to it. Knows no sockets.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use echo_base::limits;
use echo_capabilities::hub::FeedEntry;
use echo_edge::problem::Problem;
use echo_runtime::FieldError;

/// A frame as a client sent it. `id` and `payload` are the JSON as it stands.
#[derive(Debug)]
pub(super) struct ClientFrame<'a> {
    pub kind: Cow<'a, str>,
    pub id: Option<&'a str>,
    pub payload: &'a str,
}

/// Why a frame is not taken, and the `id` to answer, where it could be read.
#[derive(Debug)]
pub(super) struct Unreadable<'a> {
    pub id: Option<&'a str>,
    pub detail: String,
}

/// Reads a frame. The payload is only known to be JSON; what it means is for who takes it.
pub(super) fn parse(text: &str) -> Result<ClientFrame<'_>, Unreadable<'_>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw<'a> {
        #[serde(borrow, default)]
        r#type: Option<&'a RawValue>,
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        payload: Option<&'a RawValue>,
    }

    let raw: Raw<'_> = serde_json::from_str(text).map_err(|error| Unreadable { id: None, detail: error.to_string() })?;
    let id = raw.id.map(RawValue::get);
    if !id.is_none_or(is_acceptable_id) {
        let detail = format!("`id` is a string or a number of at most {} bytes", limits::FRAME_ID_BYTES_MAX);
        return Err(Unreadable { id: None, detail });
    }
    let kind = raw.r#type.and_then(|kind| serde_json::from_str::<Text<'_>>(kind.get()).ok());
    let Some(Text(kind)) = kind else {
        return Err(Unreadable { id, detail: "`type` is missing or no string".to_owned() });
    };
    Ok(ClientFrame { kind, id, payload: raw.payload.map_or("{}", RawValue::get) })
}

/// What the payload of one of the hub's own frames has in its only field. Errors: 422 with every wrong field named.
pub(super) fn only_field<T>(payload: &str, name: &str, read: fn(&str) -> Result<T, (&'static str, &'static str)>) -> Result<T, Problem> {
    let Ok(Fields(fields)) = serde_json::from_str(payload) else {
        return Err(Problem::invalid("payload", "wrong_type", format!("an object with `{name}` is wanted")));
    };
    let mut errors = Vec::new();
    let mut wrong = |field: &str, code: &str, detail: &str| {
        errors.push(FieldError { field: field.to_owned(), code: code.to_owned(), detail: detail.to_owned() });
    };
    let mut found = None;
    for (field, value) in &fields {
        if field != name {
            let shown: String = field.chars().take(FIELD_CHARS_SHOWN_MAX).collect();
            wrong(&shown, "unknown_field", &format!("the only field is `{name}`"));
        } else if found.is_some() {
            wrong(name, "duplicate_field", "it is there twice");
        } else {
            found = Some(read(value.get()));
        }
    }
    match found {
        Some(Ok(value)) if errors.is_empty() => return Ok(value),
        Some(Ok(_)) => {}
        Some(Err((code, detail))) => errors.push(FieldError { field: name.to_owned(), code: code.to_owned(), detail: detail.to_owned() }),
        None => errors.push(FieldError { field: name.to_owned(), code: "required".to_owned(), detail: "it is missing".to_owned() }),
    }
    errors.truncate(limits::FIELD_ERRORS_MAX);
    let mut problem = Problem::invalid(name, "", "");
    problem.errors = errors;
    Err(problem)
}

/// An integer from 0 on.
pub(super) fn integer(value: &str) -> Result<u64, (&'static str, &'static str)> {
    let value = &*without_fraction(value);
    match value.parse() {
        Ok(integer) => Ok(integer),
        Err(_) if value.strip_prefix('-').unwrap_or(value).bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(("out_of_range", "an integer from 0 to 18446744073709551615 is wanted"))
        }
        Err(_) => Err(("wrong_type", "an integer is wanted")),
    }
}

/// 5.0 and 5e0 are integers too, in JSON Schema and in what some languages write; services are given them as such. Beyond what a double holds, the digits as
/// they are written.
fn without_fraction(value: &str) -> Cow<'_, str> {
    const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;
    match value.contains(['.', 'e', 'E']).then(|| value.parse::<f64>()) {
        Some(Ok(real)) if real.fract() == 0.0 && real.abs() <= WHOLE_MAX => Cow::Owned(format!("{:.0}", real + 0.0)),
        Some(_) => match value.split_once('.') {
            Some((digits, zeros)) if zeros.bytes().all(|digit| digit == b'0') => Cow::Borrowed(digits),
            _ => Cow::Borrowed(value),
        },
        None => Cow::Borrowed(value),
    }
}

pub(super) fn string(value: &str) -> Result<String, (&'static str, &'static str)> {
    serde_json::from_str(value).map_err(|_| ("wrong_type", "a string is wanted"))
}

/// So much of a field's name that nobody knows stands in the answer, in characters.
const FIELD_CHARS_SHOWN_MAX: usize = 64;

/// An object's fields as they stand, also those that are there twice.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(field), value)) = map.next_entry()? {
                    fields.push((field, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn is_acceptable_id(id: &str) -> bool {
    id.len() <= limits::FRAME_ID_BYTES_MAX && id.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

/// `{"type":…,"payload":…}`; the payload is JSON already.
pub(super) fn event(kind: &str, payload: &str) -> String {
    let mut frame = String::with_capacity(kind.len() + payload.len() + 24);
    frame.push_str(r#"{"type":"#);
    push_json_string(&mut frame, kind);
    frame.push_str(r#","payload":"#);
    frame.push_str(payload);
    frame.push('}');
    frame
}

pub(super) fn reply(id: &str, payload: &str) -> String {
    format!(r#"{{"type":"reply","id":{id},"payload":{payload}}}"#)
}

pub(super) fn error(id: Option<&str>, problem: &str) -> String {
    match id {
        Some(id) => format!(r#"{{"type":"error","id":{id},"payload":{problem}}}"#),
        None => format!(r#"{{"type":"error","payload":{problem}}}"#),
    }
}

/// A durable event, encoded once for all users of a push: only `seq` differs between them.
pub(super) struct DurableBody {
    /// `{"type":"message","seq":` and, from `split` on, `,"at":"…","payload":…}`.
    text: Box<str>,
    split: usize,
}

impl DurableBody {
    pub fn of(entry: &FeedEntry) -> Arc<Self> {
        let mut text = String::with_capacity(entry.event.len() + entry.payload.len() + 80);
        text.push_str(r#"{"type":"#);
        push_json_string(&mut text, &entry.event);
        text.push_str(r#","seq":"#);
        let split = text.len();
        text.push_str(r#","at":""#);
        text.push_str(&rfc3339(entry.at_us));
        text.push_str(r#"","payload":"#);
        text.push_str(&entry.payload);
        text.push('}');
        Arc::new(Self { text: text.into_boxed_str(), split })
    }

    pub fn with_seq(&self, seq: u64) -> String {
        let (before, after) = self.text.split_at(self.split);
        let mut frame = String::with_capacity(self.text.len() + 20);
        frame.push_str(before);
        frame.push_str(&seq.to_string());
        frame.push_str(after);
        frame
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }
}

/// UTC with microseconds; a time that no calendar has comes out as the beginning of 1970.
pub(super) fn rfc3339(at_us: u64) -> String {
    let at = i64::try_from(at_us).ok().and_then(|at| jiff::Timestamp::from_microsecond(at).ok()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.6}")
}

fn push_json_string(text: &mut String, value: &str) {
    text.push_str(&serde_json::to_string(value).expect("a string is always JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_stands() {
        let frame = parse(r#" {"payload": {"a":[1, 2]}, "id": "x\n1", "type": "typing"} "#).expect("a good frame");
        assert_eq!((frame.kind.as_ref(), frame.id, frame.payload), ("typing", Some(r#""x\n1""#), r#"{"a":[1, 2]}"#));
        let frame = parse(r#"{"type":"ping","id":null}"#).expect("without id and payload");
        assert_eq!((frame.id, frame.payload), (None, "{}"));
        assert_eq!(parse(r#"{"type":"ty\u0070ing"}"#).expect("escapes").kind, "typing");
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let long = format!(r#"{{"type":"a","id":"{}"}}"#, "x".repeat(limits::FRAME_ID_BYTES_MAX));
        let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
        for text in ["", "{", "[]", "1", r#""a""#, r#"{"type":1}"#, r#"{"type":"a","extra":1}"#, r#"{"type":"a","id":{}}"#, &long, &deep] {
            assert!(parse(text).is_err_and(|unreadable| unreadable.id.is_none()), "{text}");
        }
        assert_eq!(parse(r#"{"id":7}"#).expect_err("no type").id, Some("7"));
    }

    #[test]
    fn an_integer_is_one_however_it_is_written() {
        for (written, number) in
            [("5", 5), ("5.0", 5), ("5e2", 500), ("-0.0", 0), ("18446744073709551615", u64::MAX), ("18446744073709551615.0", u64::MAX)]
        {
            assert_eq!(integer(written), Ok(number), "{written}");
        }
        for (written, code) in [
            ("-1", "out_of_range"),
            ("-1.0", "out_of_range"),
            ("18446744073709551616", "out_of_range"),
            ("1.5", "wrong_type"),
            ("1e400", "wrong_type"),
            (r#""1""#, "wrong_type"),
            ("null", "wrong_type"),
        ] {
            assert_eq!(integer(written).map_err(|(code, _)| code), Err(code), "{written}");
        }
    }

    #[test]
    fn a_durable_event_is_written_once_for_all() {
        let entry = FeedEntry { user: uuid::Uuid::nil(), seq: 1, event: "message".into(), payload: r#"{"a":1}"#.into(), at_us: 1_500_001 };
        let body = DurableBody::of(&entry);
        assert_eq!(body.with_seq(7), r#"{"type":"message","seq":7,"at":"1970-01-01T00:00:01.500001Z","payload":{"a":1}}"#);
        assert!(body.with_seq(u64::MAX).contains(r#""seq":18446744073709551615,"#));
    }
}
