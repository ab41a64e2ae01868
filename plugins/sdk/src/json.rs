//! Writing the JSON of a push. Requests and replies need none of this: there the host does it.

use crate::time;

/// One JSON object being written: `json::Object::new().text("id", &id).number("seq", 3).finish()`.
pub struct Object(String);

impl Object {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self("{".to_owned())
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    /// Null where there is none.
    pub fn optional_text(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    pub fn number(self, name: &str, value: impl Into<i128>) -> Self {
        let value: i128 = value.into();
        self.raw(name, &value.to_string())
    }

    pub fn flag(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    /// RFC 3339.
    pub fn timestamp(self, name: &str, at_us: u64) -> Self {
        self.text(name, &time::rfc3339(at_us))
    }

    /// Null where there is none.
    pub fn optional_timestamp(self, name: &str, at_us: Option<u64>) -> Self {
        match at_us {
            Some(at_us) => self.timestamp(name, at_us),
            None => self.raw(name, "null"),
        }
    }

    pub fn texts<T: AsRef<str>>(self, name: &str, values: &[T]) -> Self {
        let values: Vec<String> = values.iter().map(|value| quoted(value.as_ref())).collect();
        self.raw(name, &format!("[{}]", values.join(",")))
    }

    /// A value that is JSON already.
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A JSON string (RFC 8259 §7).
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", control as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written() {
        let text = Object::new()
            .text("a", "q\"\\\n\u{1}é")
            .number("n", 3_u64)
            .flag("f", false)
            .optional_text("none", None)
            .timestamp("at", 0)
            .texts("list", &["x", "y"])
            .raw("raw", "[1]")
            .finish();
        let expect = r#"{"a":"q\"\\\n\u0001é","n":3,"f":false,"none":null,"at":"1970-01-01T00:00:00.000000Z","list":["x","y"],"raw":[1]}"#;
        assert_eq!(text, expect);
        assert_eq!(Object::new().finish(), "{}");
    }
}
