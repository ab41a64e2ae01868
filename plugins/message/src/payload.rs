//! The JSON of what is pushed to devices, in the form that the REST answers have.

use echo_sdk::Timestamp;
use echo_sdk::json::{Object, quoted};

use crate::bindings::exports::echo::message::api::{ContactCard, ConversationType, Message, MessageStatus, Place};
use crate::names;
use crate::store::messages::Emptied;

/// As GET /{id} gives it to who did not send it.
pub fn message(message: &Message) -> String {
    Object::new()
        .text("id", &message.id)
        .text("conversation_id", &message.conversation_id)
        .number("seq", message.seq)
        .text("sender_id", &message.sender_id)
        .text("client_message_id", &message.client_message_id)
        .text("type", names::of_message(message.type_))
        .optional_text("content", message.content.as_deref())
        .optional_text("media_id", message.media_id.as_deref())
        .raw("location", &or_null(message.location.as_ref().map(place)))
        .raw("contact", &or_null(message.contact.as_ref().map(contact)))
        .optional_text("reply_to", message.reply_to.as_deref())
        .optional_text("thread_id", message.thread_id.as_deref())
        .texts("mentions", &message.mentions)
        .raw("metadata", message.metadata.as_deref().unwrap_or("null"))
        .text("status", names::of_status(MessageStatus::Sent))
        .timestamp("created_at", message.created_at)
        .optional_timestamp("edited_at", message.edited_at)
        .optional_timestamp("deleted_at", message.deleted_at)
        .finish()
}

pub fn deleted(message: &Emptied, at: Timestamp) -> String {
    Object::new()
        .text("message_id", &message.id)
        .text("conversation_id", &message.conversation_id)
        .number("seq", message.seq)
        .timestamp("deleted_at", at)
        .finish()
}

/// `up_to_seq`: this message and all of the same sender before it; none where it is this one alone.
pub fn status(
    conversation_id: &str,
    message_id: &str,
    user_id: &str,
    status: MessageStatus,
    up_to_seq: Option<u64>,
    at: Timestamp,
) -> String {
    Object::new()
        .text("message_id", message_id)
        .text("conversation_id", conversation_id)
        .text("user_id", user_id)
        .text("status", names::of_status(status))
        .raw("up_to_seq", &or_null(up_to_seq.map(|seq| seq.to_string())))
        .timestamp("at", at)
        .finish()
}

pub fn typing(conversation_id: &str, user_id: &str, is_typing: bool) -> String {
    Object::new().text("conversation_id", conversation_id).text("user_id", user_id).flag("is_typing", is_typing).finish()
}

/// What a conversation is to all its participants alike.
pub struct Shared<'a> {
    pub id: &'a str,
    pub kind: ConversationType,
    pub title: Option<&'a str>,
    pub description: Option<&'a str>,
    /// The first of them.
    pub participant_ids: &'a [String],
    pub participant_count: u64,
    pub created_by: &'a str,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub last_seq: u64,
    pub disappearing_after: Option<u32>,
}

pub fn conversation(shared: &Shared<'_>) -> String {
    let seconds = shared.disappearing_after.map(|seconds| seconds.to_string());
    Object::new()
        .text("id", shared.id)
        .text("type", names::of_conversation(shared.kind))
        .optional_text("title", shared.title)
        .optional_text("description", shared.description)
        .texts("participant_ids", shared.participant_ids)
        .number("participant_count", shared.participant_count)
        .text("created_by", shared.created_by)
        .timestamp("created_at", shared.created_at)
        .timestamp("updated_at", shared.updated_at)
        .number("last_seq", shared.last_seq)
        .raw("disappearing_after", seconds.as_deref().unwrap_or("null"))
        .flag("member", true)
        .finish()
}

/// To who takes no part any more.
pub fn conversation_left(id: &str) -> String {
    Object::new().text("id", id).flag("member", false).finish()
}

fn place(place: &Place) -> String {
    Object::new()
        .raw("latitude", &place.latitude.to_string())
        .raw("longitude", &place.longitude.to_string())
        .optional_text("name", place.name.as_deref())
        .optional_text("address", place.address.as_deref())
        .finish()
}

fn contact(card: &ContactCard) -> String {
    Object::new()
        .text("name", &card.name)
        .texts("phones", &card.phones)
        .raw("user_id", &or_null(card.user_id.as_deref().map(quoted)))
        .finish()
}

fn or_null(json: Option<String>) -> String {
    json.unwrap_or_else(|| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::echo::message::api::MessageType;

    #[test]
    fn a_message_is_written_whole() {
        let given = Message {
            id: "m".into(),
            conversation_id: "c".into(),
            seq: 7,
            sender_id: "s".into(),
            client_message_id: "1\"".into(),
            type_: MessageType::Location,
            content: None,
            media_id: None,
            location: Some(Place { latitude: -1.5, longitude: 2.0, name: Some("home".into()), address: None }),
            contact: Some(ContactCard { name: "Ada".into(), phones: vec!["+12025550100".into()], user_id: None }),
            reply_to: None,
            thread_id: None,
            mentions: vec!["u".into()],
            metadata: Some("{\"a\":1}".into()),
            status: MessageStatus::Read,
            created_at: 0,
            edited_at: None,
            deleted_at: None,
        };
        assert_eq!(
            message(&given),
            concat!(
                r#"{"id":"m","conversation_id":"c","seq":7,"sender_id":"s","client_message_id":"1\"","type":"location","content":null,"#,
                r#""media_id":null,"location":{"latitude":-1.5,"longitude":2,"name":"home","address":null},"#,
                r#""contact":{"name":"Ada","phones":["+12025550100"],"user_id":null},"reply_to":null,"thread_id":null,"mentions":["u"],"#,
                r#""metadata":{"a":1},"status":"sent","created_at":"1970-01-01T00:00:00.000000Z","edited_at":null,"deleted_at":null}"#
            )
        );
    }
}
