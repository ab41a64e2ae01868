//! What a client wants to send: whether it makes sense by itself, and its fingerprint.

use echo_sdk::checks::Checks;
use echo_sdk::{Error, text};
use sha2::{Digest, Sha256};

use crate::bindings::exports::echo::message::api::{MessageType, SendRequest};
use crate::bounds::PREVIEW_CHARS_MAX;
use crate::names;

/// What a message of this type must have.
pub fn check(draft: &SendRequest) -> Result<(), Error> {
    let (wanted, given) = match draft.type_ {
        MessageType::Text => ("content", draft.content.as_deref().is_some_and(|content| !content.trim().is_empty())),
        MessageType::Image | MessageType::Video | MessageType::Audio | MessageType::Document => ("media_id", draft.media_id.is_some()),
        MessageType::Location => ("location", draft.location.is_some()),
        MessageType::Contact => ("contact", draft.contact.is_some()),
        MessageType::Poll => ("poll", draft.poll.is_some()),
    };
    let is_poll = draft.type_ == MessageType::Poll;
    let mut checks = Checks::new();
    checks
        .require(given, wanted, "required", "wanted for a message of this type")
        .require(is_poll || draft.poll.is_none(), "poll", "not_for_type", "not for a message of this type")
        .require(!is_poll || draft.content.is_none(), "content", "not_for_type", "a poll has its question instead");
    for (at, option) in draft.poll.iter().flat_map(|poll| poll.options.iter().enumerate()) {
        let is_another = draft.poll.iter().all(|poll| !poll.options[..at].contains(option));
        checks.require(is_another, &format!("poll.options[{at}]"), "repeated", "each option is another");
    }
    checks.finish()
}

/// What an edit puts in place of the content.
pub fn check_content(content: &str) -> Result<(), Error> {
    Checks::new().require(!content.trim().is_empty(), "content", "required", "an edit leaves something to read").finish()
}

/// SHA-256 (FIPS 180-4) of everything that makes the message: the same content under the same client id is the same message. Each part goes
/// with its length, so that no two drafts run together into the same bytes.
pub fn fingerprint(draft: &SendRequest) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut part = |text: Option<&str>| match text {
        None => hash.update([0]),
        Some(text) => {
            hash.update([1]);
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
    };
    let place = draft.location.as_ref();
    let card = draft.contact.as_ref();
    let number = |value: Option<f64>| value.map(|value| format!("{:x}", value.to_bits()));
    part(Some(&draft.conversation_id));
    part(Some(names::of_message(draft.type_)));
    part(draft.content.as_deref());
    part(draft.media_id.as_deref());
    part(number(place.map(|place| place.latitude)).as_deref());
    part(number(place.map(|place| place.longitude)).as_deref());
    part(place.and_then(|place| place.name.as_deref()));
    part(place.and_then(|place| place.address.as_deref()));
    part(card.map(|card| card.name.as_str()));
    part(card.map(|card| card.phones.join("\n")).as_deref());
    part(card.and_then(|card| card.user_id.as_deref()));
    part(draft.reply_to.as_deref());
    part(draft.thread_id.as_deref());
    part(draft.mentions.as_deref().map(|mentions| mentions.join(" ")).filter(|mentions| !mentions.is_empty()).as_deref());
    part(draft.metadata.as_deref());
    // Only where there is one: what was sent before there were polls keeps its fingerprint.
    if let Some(poll) = &draft.poll {
        part(Some(&poll.question));
        part(Some(if poll.multiple == Some(true) { "several" } else { "one" }));
        part(poll.closes_at.map(|at| at.to_string()).as_deref());
        poll.options.iter().for_each(|option| part(Some(option)));
    }
    hash.finalize().to_vec()
}

/// The beginning of the content, for a notification: whole graphemes.
pub fn preview(content: Option<&str>) -> Option<String> {
    content.map(|content| text::beginning(content, PREVIEW_CHARS_MAX)).filter(|preview| !preview.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::echo::message::api::{NewPoll, Place};

    fn draft() -> SendRequest {
        SendRequest {
            conversation_id: "c".into(),
            client_message_id: "1".into(),
            type_: MessageType::Text,
            content: Some("hello".into()),
            media_id: None,
            location: None,
            contact: None,
            poll: None,
            reply_to: None,
            thread_id: None,
            mentions: None,
            metadata: None,
        }
    }

    fn wrong(change: impl FnOnce(&mut SendRequest)) -> Vec<(String, String)> {
        let mut draft = draft();
        change(&mut draft);
        let fields = check(&draft).err().map_or_else(Vec::new, |error| error.fields);
        fields.into_iter().map(|field| (field.field, field.code)).collect()
    }

    fn check_wrong(change: impl FnOnce(&mut SendRequest), field: &str, code: &str) {
        assert_eq!(wrong(change), [(field.to_owned(), code.to_owned())]);
    }

    #[test]
    fn a_text_has_something_to_read() {
        check_wrong(|draft| draft.content = Some(" \n".into()), "content", "required");
        check_wrong(|draft| draft.content = None, "content", "required");
        assert_eq!(check_content("").expect_err("empty").fields[0].code, "required");
    }

    #[test]
    fn every_type_brings_its_own() {
        check_wrong(|draft| draft.type_ = MessageType::Image, "media_id", "required");
        check_wrong(|draft| draft.type_ = MessageType::Location, "location", "required");
        check_wrong(|draft| draft.type_ = MessageType::Contact, "contact", "required");
        let place = Place { latitude: 90.0, longitude: 0.0, name: None, address: None };
        assert!(wrong(|draft| (draft.type_, draft.location) = (MessageType::Location, Some(place))).is_empty());
    }

    fn poll(options: &[&str]) -> NewPoll {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        NewPoll { question: "Where?".into(), options, multiple: None, closes_at: None }
    }

    #[test]
    fn a_poll_has_options_and_no_content() {
        let of_poll = |draft: &mut SendRequest, options: &[&str]| {
            (draft.type_, draft.content, draft.poll) = (MessageType::Poll, None, Some(poll(options)));
        };
        assert!(wrong(|draft| of_poll(draft, &["a", "b"])).is_empty());
        check_wrong(|draft| of_poll(draft, &["a", "b", "a"]), "poll.options[2]", "repeated");
        check_wrong(|draft| draft.poll = Some(poll(&["a", "b"])), "poll", "not_for_type");
        let with_content = |draft: &mut SendRequest| {
            of_poll(draft, &["a", "b"]);
            draft.content = Some("hello".into());
        };
        check_wrong(with_content, "content", "not_for_type");
        check_wrong(|draft| (draft.type_, draft.content) = (MessageType::Poll, None), "poll", "required");
    }

    #[test]
    fn the_same_content_has_the_same_fingerprint() {
        let first = fingerprint(&draft());
        assert_eq!(first.len(), 32);
        // No mentions and an empty list of them are the same message.
        assert_eq!(first, fingerprint(&SendRequest { mentions: Some(vec![]), ..draft() }));
        assert_eq!(first, fingerprint(&SendRequest { client_message_id: "2".into(), ..draft() }));
        for other in [
            SendRequest { content: Some("hello!".into()), ..draft() },
            SendRequest { conversation_id: "d".into(), ..draft() },
            SendRequest { content: None, media_id: Some("hello".into()), ..draft() },
            SendRequest { reply_to: Some("r".into()), ..draft() },
            SendRequest { thread_id: Some("r".into()), ..draft() },
            SendRequest { mentions: Some(vec!["u".into()]), ..draft() },
            SendRequest { metadata: Some("{}".into()), ..draft() },
            SendRequest { poll: Some(poll(&["a", "b"])), ..draft() },
            SendRequest { poll: Some(poll(&["ab"])), ..draft() },
        ] {
            assert_ne!(first, fingerprint(&other));
        }
    }

    #[test]
    fn a_preview_is_short() {
        assert_eq!(preview(Some(&"é".repeat(200))).map(|text| text.chars().count()), Some(100));
        assert_eq!(preview(Some(&"👨\u{200D}👩\u{200D}👧\u{200D}👦".repeat(60))), Some("👨\u{200D}👩\u{200D}👧\u{200D}👦".repeat(14)));
        assert_eq!(preview(Some("")), None);
        assert_eq!(preview(None), None);
    }
}
