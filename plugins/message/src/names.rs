//! The enums of the contract as they stand in the database.

use crate::bindings::exports::echo::message::api::{ConversationType, MessageType, Role};

pub fn of_conversation(kind: ConversationType) -> &'static str {
    match kind {
        ConversationType::Direct => "direct",
        ConversationType::Group => "group",
        ConversationType::Channel => "channel",
    }
}

/// What the table's CHECK lets in.
pub fn conversation(name: &str) -> ConversationType {
    match name {
        "direct" => ConversationType::Direct,
        "channel" => ConversationType::Channel,
        _ => ConversationType::Group,
    }
}

pub fn of_role(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

/// What the table's CHECK lets in; anything else may do the least.
pub fn role(name: &str) -> Role {
    match name {
        "owner" => Role::Owner,
        "admin" => Role::Admin,
        _ => Role::Member,
    }
}

pub fn of_message(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Text => "text",
        MessageType::Image => "image",
        MessageType::Video => "video",
        MessageType::Audio => "audio",
        MessageType::Document => "document",
        MessageType::Location => "location",
        MessageType::Contact => "contact",
        MessageType::Poll => "poll",
    }
}

/// As the columns `kind`, whose CHECK knows the types of the first version, and `other_kind` hold it.
pub fn columns_of(kind: MessageType) -> (&'static str, Option<&'static str>) {
    match kind {
        MessageType::Poll => (of_message(MessageType::Text), Some(of_message(kind))),
        known => (of_message(known), None),
    }
}

/// What the table's CHECK lets in.
pub fn message(name: &str) -> MessageType {
    match name {
        "image" => MessageType::Image,
        "video" => MessageType::Video,
        "audio" => MessageType::Audio,
        "document" => MessageType::Document,
        "location" => MessageType::Location,
        "contact" => MessageType::Contact,
        "poll" => MessageType::Poll,
        _ => MessageType::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for kind in [ConversationType::Direct, ConversationType::Group, ConversationType::Channel] {
            assert_eq!(conversation(of_conversation(kind)), kind);
        }
        for own in [Role::Owner, Role::Admin, Role::Member] {
            assert_eq!(role(of_role(own)), own);
        }
        use crate::bindings::echo::message::model::MessageType::*;
        for kind in [Text, Image, Video, Audio, Document, Location, Contact, Poll] {
            assert_eq!(message(of_message(kind)), kind);
        }
    }
}
