//! What a client is told: the durable events of its user's feed, what only those see who are connected, and what the library itself has to say.
//! Knows the frames' JSON, and no sockets.

use std::borrow::Cow;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error::Problem;
use crate::types::{
    ConnectionAck, ConversationChange, DeletedMessage, DraftState, Message, PollState, PresenceChange, ReactionChange, StatusChange,
    Timestamp, TypingState, UnreadMark,
};

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Each once and in order.
    Feed(FeedEvent),
    /// Lost for who is not connected.
    Ephemeral(Ephemeral),
    /// What was missed has been read.
    CaughtUp {
        cursor: u64,
    },
    /// The server no longer has all that was missed: load the state anew. Events go on after the cursor.
    ResyncRequired {
        cursor: u64,
    },
    Connection(ConnectionState),
    /// A message of the outbox was taken.
    Sent {
        client_message_id: String,
        message: Box<Message>,
    },
    /// A message of the outbox was refused for good: it waits for `retry` or `discard`.
    Refused {
        client_message_id: String,
        problem: Box<Problem>,
    },
    SignedIn {
        user_id: Uuid,
        device_id: String,
    },
    /// By the client or by the server; the reason is the problem's code, or `signed_out`.
    SignedOut {
        reason: String,
    },
}

/// Where the one socket of this device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// None: nobody is signed in, or nobody has asked for a connection.
    Offline {
        retry_at: Option<Instant>,
    },
    Connecting,
    Online,
}

/// A durable event.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedEvent {
    /// One above the last one's.
    pub seq: u64,
    pub at: Timestamp,
    pub payload: FeedPayload,
}

/// Serialised it is the payload as it came.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FeedPayload {
    Message(Box<Message>),
    MessageEdited(Box<Message>),
    MessageDeleted(DeletedMessage),
    MessageStatus(StatusChange),
    Reaction(ReactionChange),
    Conversation(ConversationChange),
    Poll(PollState),
    Unread(UnreadMark),
    /// Of a service that this library has no words for, or of a newer host.
    Other {
        kind: String,
        payload: Value,
    },
}

/// Serialised it is the payload as it came.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Ephemeral {
    Typing(TypingState),
    Presence(PresenceChange),
    Draft(DraftState),
    /// Of a service that this library has no words for, or of a newer host.
    Other {
        kind: String,
        payload: Value,
    },
}

impl FeedPayload {
    /// Of a frame, or of an item of `GET /api/v1/sync`. What does not have the expected shape is `Other`: it has its number, and nothing is lost.
    pub fn read(kind: &str, payload: &RawValue) -> Self {
        let read = match kind {
            "message" => json(payload).map(Self::Message),
            "message_edited" => json(payload).map(Self::MessageEdited),
            "message_deleted" => json(payload).map(Self::MessageDeleted),
            "message_status" => json(payload).map(Self::MessageStatus),
            "reaction" => json(payload).map(Self::Reaction),
            "conversation" => json(payload).map(Self::Conversation),
            "poll" => json(payload).map(Self::Poll),
            "unread" => json(payload).map(Self::Unread),
            _ => None,
        };
        read.unwrap_or_else(|| Self::Other { kind: kind.to_owned(), payload: json(payload).unwrap_or_default() })
    }
}

impl Ephemeral {
    /// Of a frame without a `seq`.
    pub fn read(kind: &str, payload: &RawValue) -> Self {
        let read = match kind {
            "typing" => json(payload).map(Self::Typing),
            "presence" => json(payload).map(Self::Presence),
            "draft" => json(payload).map(Self::Draft),
            _ => None,
        };
        read.unwrap_or_else(|| Self::Other { kind: kind.to_owned(), payload: json(payload).unwrap_or_default() })
    }
}

fn null<'a>() -> &'a RawValue {
    serde_json::from_str("null").expect("it is JSON")
}

fn json<T: DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// A frame from the server.
#[derive(Debug)]
pub(crate) enum ServerFrame {
    Ack(ConnectionAck),
    Feed(FeedEvent),
    Ephemeral(Ephemeral),
    CaughtUp {
        cursor: u64,
    },
    ResyncRequired {
        cursor: u64,
    },
    Reply {
        id: u64,
        payload: Box<RawValue>,
    },
    /// With the number of the frame that it answers, where it answers one.
    Refusal {
        id: Option<u64>,
        problem: Box<Problem>,
    },
    Goodbye {
        retry_after_ms: u64,
    },
    Pong,
}

impl ServerFrame {
    /// None for what cannot be understood.
    pub fn read(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            seq: Option<u64>,
            #[serde(borrow)]
            at: Option<Cow<'a, str>>,
            /// As it stands: a function without a reply is answered with null.
            #[serde(borrow, default = "null")]
            payload: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct Cursor {
            cursor: u64,
        }
        #[derive(Deserialize)]
        struct Goodbye {
            retry_after_ms: u64,
        }

        let raw: Raw<'_> = serde_json::from_str(text).ok()?;
        let id = raw.id.and_then(json);
        let payload = raw.payload;
        if let Some(seq) = raw.seq {
            let at = raw.at.unwrap_or_default().into_owned();
            return Some(Self::Feed(FeedEvent { seq, at, payload: FeedPayload::read(&raw.kind, payload) }));
        }
        match &*raw.kind {
            "connection_ack" => json(payload).map(Self::Ack),
            "caught_up" => json(payload).map(|Cursor { cursor }| Self::CaughtUp { cursor }),
            "resync_required" => json(payload).map(|Cursor { cursor }| Self::ResyncRequired { cursor }),
            "reply" => Some(Self::Reply { id: id?, payload: payload.to_owned() }),
            "error" => json(payload).map(|problem| Self::Refusal { id, problem }),
            "goodbye" => json(payload).map(|Goodbye { retry_after_ms }| Self::Goodbye { retry_after_ms }),
            "pong" => Some(Self::Pong),
            kind => Some(Self::Ephemeral(Ephemeral::read(kind, payload))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_a_newer_host_is_passed_on_under_its_number() {
        let Some(ServerFrame::Feed(event)) = ServerFrame::read(r#"{"type":"call","seq":7,"at":"2026","payload":{"a":1}}"#) else {
            panic!("a feed event");
        };
        assert_eq!((event.seq, event.at.as_str()), (7, "2026"));
        assert!(matches!(event.payload, FeedPayload::Other { kind, .. } if kind == "call"));
        let strange = ServerFrame::read(r#"{"type":"message","seq":8,"payload":{"new":true}}"#);
        assert!(matches!(strange, Some(ServerFrame::Feed(FeedEvent { payload: FeedPayload::Other { .. }, .. }))), "{strange:?}");
        assert!(ServerFrame::read("{").is_none() && ServerFrame::read("[]").is_none());
    }

    #[test]
    fn enumerations_take_what_a_newer_host_says() {
        let status: crate::types::MessageStatus = serde_json::from_str(r#""shredded""#).expect("unknown");
        assert_eq!(status, crate::types::MessageStatus::Unknown);
    }

    #[test]
    fn answers_have_the_number_of_their_question() {
        let reply = ServerFrame::read(r#"{"type":"reply","id":12,"payload":{"ok":true}}"#);
        assert!(matches!(reply, Some(ServerFrame::Reply { id: 12, .. })), "{reply:?}");
        let nothing = ServerFrame::read(r#"{"type":"reply","id":13,"payload":null}"#);
        assert!(matches!(nothing, Some(ServerFrame::Reply { id: 13, .. })), "{nothing:?}");
        assert!(matches!(ServerFrame::read(r#"{"type":"pong"}"#), Some(ServerFrame::Pong)));
        let refusal = r#"{"type":"error","payload":{"type":"t","title":"T","status":429,"code":"rate_limited","retry_after_ms":5}}"#;
        let Some(ServerFrame::Refusal { id: None, problem }) = ServerFrame::read(refusal) else { panic!("an error") };
        assert_eq!((problem.code.as_str(), problem.retry_after_ms), ("rate_limited", Some(5)));
    }
}
