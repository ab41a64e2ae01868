//! `[[push]]`: how the functions of a `pushes` interface send their frames.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use echo_base::limits;

/// A function of the imported `pushes` interface and the frames that it sends to devices.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushFrame {
    /// The function, kebab-case: `func(users: list<uuid>, push: record)`; without `users` where it replaces.
    pub call: String,
    /// The frame's `type`, snake_case; the function's name where it is missing.
    #[serde(default)]
    pub event: Option<String>,
    /// `durable`: kept in the feed, numbered and replayed; `ephemeral`: to devices that are connected now. Of a function with `users` alone.
    #[serde(default)]
    pub class: Option<PushClass>,
    /// The field under whose value the service learns that the frame has arrived (`hub.acknowledged`).
    #[serde(default)]
    pub receipt: Option<String>,
    /// The field that says what the frame is about: a function with `replaces` finds it by the same value.
    #[serde(default)]
    pub subject: Option<String>,
    /// Fields that together are a key: a frame says how something is now, and of those of one key that follow each other closely each user gets the
    /// last.
    #[serde(default)]
    pub state: Vec<String>,
    /// Of a function without `users`: every durable frame of this service whose subject is this field's value says this from now on; where `event`
    /// is missing it keeps its type.
    #[serde(default)]
    pub replaces: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PushClass {
    Durable,
    Ephemeral,
}

impl PushFrame {
    /// The type of the frames that it sends; none where they keep theirs.
    pub fn event(&self) -> Option<String> {
        match &self.event {
            None if self.replaces.is_some() => None,
            None => Some(self.call.replace('-', "_")),
            Some(event) => Some(event.clone()),
        }
    }

    pub fn check(&self) -> Result<(), String> {
        let is_event = |event: &str| {
            event.len() <= limits::PUSH_EVENT_BYTES_MAX && event.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if let Some(event) = self.event().filter(|event| !is_event(event)) {
            return Err(format!("event {event:?} is no snake_case name"));
        }
        let keeps = self.receipt.is_some() || self.subject.is_some() || !self.state.is_empty();
        match (self.class, &self.replaces) {
            (None, None) => Err("class is missing: durable or ephemeral".to_owned()),
            (Some(_), Some(_)) => Err("what replaces has no class of its own".to_owned()),
            (None, Some(_)) if keeps => Err("what replaces has no receipt, subject or state".to_owned()),
            (Some(PushClass::Ephemeral), None) if keeps => Err("an ephemeral frame is not kept: no receipt, subject or state".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;

    #[test]
    fn mistakes_in_a_push_are_named() {
        for (push, reason) in [
            ("", "class is missing"),
            ("class = \"lasting\"", "lasting"),
            ("class = \"durable\"\nevent = \"A\"", "no snake_case name"),
            ("class = \"durable\"\nreplaces = \"id\"", "no class of its own"),
            ("replaces = \"id\"\nreceipt = \"id\"", "no receipt"),
            ("class = \"ephemeral\"\nstate = [\"id\"]", "is not kept"),
        ] {
            let text = format!("name = \"a\"\nversion = \"0.1.0\"\n[[push]]\ncall = \"told\"\n{push}\n");
            let refused = Manifest::parse(&text).expect_err(push).to_string();
            assert!(refused.contains(reason), "{push}: {refused}");
        }
    }
}
