//! What a client wants to send: whether it makes sense by itself, and its fingerprint.

use echo_sdk::checks::Checks;
use echo_sdk::{Error, text};
use sha2::{Digest, Sha256};

use crate::bindings::exports::echo::message::api::{ContactCard, MessageType, Place, SendRequest};
use crate::bounds::{
    CLIENT_MESSAGE_ID_CHARS_MAX, CONTACT_NAME_CHARS_MAX, CONTACT_PHONE_CHARS_MAX, CONTACT_PHONES_MAX, CONTENT_CHARS_MAX, MENTIONS_MAX,
    METADATA_BYTES_MAX, PLACE_TEXT_CHARS_MAX, PREVIEW_CHARS_MAX,
};
use crate::names;

/// All wrong fields at once.
pub fn check(draft: &SendRequest) -> Result<(), Error> {
    let mut checks = Checks::new();
    checks.name("client_message_id", draft.client_message_id.as_str(), 1..=CLIENT_MESSAGE_ID_CHARS_MAX);
    checks.content("content", draft.content.as_deref(), 0..=CONTENT_CHARS_MAX);
    let wanted = match draft.type_ {
        MessageType::Text => ("content", draft.content.as_deref().is_some_and(|content| !content.trim().is_empty())),
        MessageType::Image | MessageType::Video | MessageType::Audio | MessageType::Document => ("media_id", draft.media_id.is_some()),
        MessageType::Location => ("location", draft.location.is_some()),
        MessageType::Contact => ("contact", draft.contact.is_some()),
    };
    checks.require(wanted.1, wanted.0, "required", "wanted for a message of this type");
    if let Some(place) = &draft.location {
        check_place(&mut checks, place);
    }
    if let Some(card) = &draft.contact {
        check_contact(&mut checks, card);
    }
    let metadata_bytes = draft.metadata.as_ref().map_or(0, String::len);
    checks.require(metadata_bytes <= METADATA_BYTES_MAX, "metadata", "too_long", "at most 8 KiB of JSON");
    checks.count("mentions", draft.mentions.as_ref().map_or(0, Vec::len), 0..=MENTIONS_MAX).finish()
}

/// What an edit puts in place of the content.
pub fn check_content(content: &str) -> Result<(), Error> {
    let mut checks = Checks::new();
    checks.content("content", content, 0..=CONTENT_CHARS_MAX);
    checks.require(!content.trim().is_empty(), "content", "required", "an edit leaves something to read");
    checks.finish()
}

fn check_place(checks: &mut Checks, place: &Place) {
    checks.require((-90.0..=90.0).contains(&place.latitude), "location.latitude", "out_of_range", "-90 to 90 degrees");
    checks.require((-180.0..=180.0).contains(&place.longitude), "location.longitude", "out_of_range", "-180 to 180 degrees");
    checks.name("location.name", place.name.as_deref(), 0..=PLACE_TEXT_CHARS_MAX);
    checks.prose("location.address", place.address.as_deref(), 0..=PLACE_TEXT_CHARS_MAX);
}

fn check_contact(checks: &mut Checks, card: &ContactCard) {
    checks.name("contact.name", card.name.as_str(), 1..=CONTACT_NAME_CHARS_MAX);
    checks.count("contact.phones", card.phones.len(), 0..=CONTACT_PHONES_MAX);
    for (at, phone) in card.phones.iter().enumerate() {
        checks.name(&format!("contact.phones[{at}]"), phone.as_str(), 1..=CONTACT_PHONE_CHARS_MAX);
    }
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
    hash.finalize().to_vec()
}

/// The beginning of the content, for a notification: whole graphemes.
pub fn preview(content: Option<&str>) -> Option<String> {
    content.map(|content| text::beginning(content, PREVIEW_CHARS_MAX)).filter(|preview| !preview.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> SendRequest {
        SendRequest {
            conversation_id: "c".into(),
            client_message_id: "1".into(),
            type_: MessageType::Text,
            content: Some("hello".into()),
            media_id: None,
            location: None,
            contact: None,
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
    fn content_is_bounded_in_characters() {
        assert!(wrong(|draft| draft.content = Some("é".repeat(10_000))).is_empty());
        check_wrong(|draft| draft.content = Some("é".repeat(10_001)), "content", "too_long");
        check_wrong(|draft| draft.content = Some(" \n".into()), "content", "required");
        check_wrong(|draft| draft.content = None, "content", "required");
        check_wrong(|draft| draft.content = Some("a\0".into()), "content", "unreadable_text");
        assert_eq!(check_content("").expect_err("empty").fields[0].code, "required");
    }

    #[test]
    fn every_type_brings_its_own() {
        check_wrong(|draft| draft.type_ = MessageType::Image, "media_id", "required");
        check_wrong(|draft| draft.type_ = MessageType::Location, "location", "required");
        check_wrong(|draft| draft.type_ = MessageType::Contact, "contact", "required");
        let place = |latitude| Place { latitude, longitude: 0.0, name: None, address: None };
        check_wrong(|draft| draft.location = Some(place(90.1)), "location.latitude", "out_of_range");
        check_wrong(|draft| draft.location = Some(place(f64::NAN)), "location.latitude", "out_of_range");
        let card = ContactCard { name: "A".into(), phones: vec!["+1".into(), "a\nb".into()], user_id: None };
        check_wrong(|draft| draft.contact = Some(card), "contact.phones[1]", "unreadable_text");
    }

    #[test]
    fn ids_mentions_and_metadata_are_bounded() {
        check_wrong(|draft| draft.client_message_id = String::new(), "client_message_id", "too_short");
        check_wrong(|draft| draft.client_message_id = "x".repeat(129), "client_message_id", "too_long");
        check_wrong(|draft| draft.mentions = Some(vec!["u".into(); 101]), "mentions", "too_many");
        check_wrong(|draft| draft.metadata = Some("x".repeat(8 * 1024 + 1)), "metadata", "too_long");
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
