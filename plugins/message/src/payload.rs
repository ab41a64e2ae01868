//! What is pushed to devices, in the form that the replies have.

use echo_sdk::Timestamp;

use crate::bindings::echo::message::pushes::{
    DeletedMessage, DraftState, LeftConversation, MessageView, StatusChange, TypingState, UnreadMark,
};
use crate::bindings::exports::echo::message::api::{Draft, Message, MessageStatus};
use crate::store::messages::Emptied;

/// As GET /{id} gives it to who did not send it.
pub fn message(message: &Message) -> MessageView {
    MessageView { status: MessageStatus::Sent, ..message.clone() }
}

pub fn deleted(message: &Emptied, at: Timestamp) -> DeletedMessage {
    DeletedMessage { message_id: message.id.clone(), conversation_id: message.conversation_id.clone(), seq: message.seq, deleted_at: at }
}

/// `up_to_seq`: this message and all of the same sender before it; none where it is this one alone.
pub fn status(
    conversation_id: &str,
    message_id: &str,
    user_id: &str,
    status: MessageStatus,
    up_to_seq: Option<u64>,
    at: Timestamp,
) -> StatusChange {
    let (message_id, conversation_id, user_id) = (message_id.to_owned(), conversation_id.to_owned(), user_id.to_owned());
    StatusChange { message_id, conversation_id, user_id, status, up_to_seq, at }
}

pub fn typing(conversation_id: &str, user_id: &str, is_typing: bool) -> TypingState {
    TypingState { conversation_id: conversation_id.to_owned(), user_id: user_id.to_owned(), is_typing }
}

pub fn unread(conversation_id: &str, unread: bool) -> UnreadMark {
    UnreadMark { conversation_id: conversation_id.to_owned(), unread }
}

pub fn draft(draft: &Draft) -> DraftState {
    let Draft { conversation_id, content, reply_to, updated_at } = draft.clone();
    DraftState { conversation_id, content: Some(content), reply_to, updated_at }
}

pub fn no_draft(conversation_id: &str, at: Timestamp) -> DraftState {
    DraftState { conversation_id: conversation_id.to_owned(), content: None, reply_to: None, updated_at: at }
}

/// To who takes no part any more.
pub fn conversation_left(id: &str) -> LeftConversation {
    LeftConversation { id: id.to_owned(), member: false }
}
