//! The shapes of the core's requests, replies and events. An end-to-end test holds them to what a host states in `/openapi.json` and `/asyncapi.json`.
//! Ids are UUIDs; times are RFC 3339 in UTC; unknown fields are passed over, so that a newer host can say more.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// RFC 3339 in UTC, with microseconds.
pub type Timestamp = String;

// --- Who is signed in ------------------------------------------------------------------------------------------------------------------

/// The answer to `register`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// The client's secret, for `verify`.
    pub registration_id: String,
    /// Seconds for which the code is good.
    pub otp_expires_in: u64,
    /// Seconds until another code may be asked for.
    pub resend_after: u64,
    pub country: Option<String>,
    pub region: Option<String>,
    pub timezone: Option<String>,
}

/// What this device is called. Its id is the client's own affair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInput {
    /// Kept for as long as the client's folder is; drawn at random where it is empty.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds.
    pub expires_in: u64,
    /// Seconds.
    pub refresh_expires_in: u64,
    pub user_id: Uuid,
    pub session_id: Uuid,
    pub device_id: String,
}

/// Without the tokens: what is logged is read by others.
impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user_id, session_id, device_id, expires_in, .. } = self;
        write!(f, "Tokens {{ user_id: {user_id}, session_id: {session_id}, device_id: {device_id:?}, expires_in: {expires_in}, .. }}")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub id: Uuid,
    pub display_name: String,
    pub bio: Option<String>,
    pub avatar_url: Option<String>,
    /// The phone number, where its owner lets the caller see it.
    pub phone: Option<String>,
    pub status: Option<String>,
    pub status_text: Option<String>,
    pub locale: Option<String>,
    pub timezone: Option<String>,
    pub country: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

// --- Conversations ---------------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationType {
    Direct,
    Group,
    Channel,
    /// Of a newer host.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Owner,
    Admin,
    Member,
    /// Of a newer host.
    #[serde(other)]
    Unknown,
}

/// Opens a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewConversation {
    #[serde(rename = "type")]
    pub kind: ConversationType,
    /// The others; exactly one for `Direct`.
    pub participant_ids: Vec<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Who was named and is not in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotAdded {
    pub user_id: Uuid,
    pub reason: String,
}

/// As the caller sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: ConversationType,
    pub title: Option<String>,
    pub description: Option<String>,
    pub created_by: Uuid,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub participant_count: u64,
    /// The first 100.
    pub participant_ids: Vec<Uuid>,
    pub role: Role,
    pub last_message: Option<Message>,
    pub last_seq: u64,
    pub read_seq: u64,
    pub unread_count: u64,
    pub marked_unread: bool,
    pub muted_until: Option<Timestamp>,
    pub archived: bool,
    pub pinned: bool,
    pub pinned_message_ids: Vec<Uuid>,
    /// Seconds after which messages disappear.
    pub disappearing_after: Option<u64>,
    /// In the answer to opening it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_added: Vec<NotAdded>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadState {
    pub conversation_id: Uuid,
    pub read_seq: u64,
    pub unread_count: u64,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// For `?cursor=` of the next page; none on the last one.
    pub next_cursor: Option<String>,
}

// --- Messages --------------------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageType {
    Text,
    Image,
    Video,
    Audio,
    Document,
    Location,
    Contact,
    Poll,
    /// Of a newer host.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    Sent,
    Delivered,
    Read,
    /// Of a newer host.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Degrees.
    pub latitude: f64,
    /// Degrees.
    pub longitude: f64,
    pub name: Option<String>,
    pub address: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContactCard {
    pub name: String,
    pub phones: Vec<String>,
    pub user_id: Option<Uuid>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    pub question: String,
    pub options: Vec<PollOption>,
    pub multiple: bool,
    pub closes_at: Option<Timestamp>,
    pub closed: bool,
    pub voters: u64,
    /// What the caller has chosen; nothing in events, which are the same for all.
    pub own_votes: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollOption {
    pub text: String,
    pub votes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewPoll {
    pub question: String,
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiple: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: Uuid,
    pub conversation_id: Uuid,
    /// Gapless within the conversation, from 1.
    pub seq: u64,
    pub sender_id: Uuid,
    pub client_message_id: String,
    #[serde(rename = "type")]
    pub kind: MessageType,
    pub content: Option<String>,
    pub media_id: Option<Uuid>,
    pub location: Option<Place>,
    pub contact: Option<ContactCard>,
    pub poll: Option<Poll>,
    pub reply_to: Option<Uuid>,
    pub thread_id: Option<Uuid>,
    pub mentions: Vec<Uuid>,
    pub metadata: Option<Value>,
    /// As the sender sees it: the least of the recipients' status. Others see `Sent`.
    pub status: MessageStatus,
    pub created_at: Timestamp,
    pub edited_at: Option<Timestamp>,
    /// Deleted for everyone: the content is gone, the place in the sequence stays.
    pub deleted_at: Option<Timestamp>,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    pub conversation_id: Uuid,
    /// Unique for this sender for ever: the server answers a second sending with the first one's message.
    pub client_message_id: String,
    #[serde(rename = "type")]
    pub kind: MessageType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<ContactCard>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<NewPoll>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<Vec<Uuid>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl NewMessage {
    /// A text, under a client id of its own.
    pub fn text(conversation_id: Uuid, content: impl Into<String>) -> Self {
        Self { content: Some(content.into()), ..Self::new(conversation_id, MessageType::Text) }
    }

    /// Without content, under a client id of its own.
    pub fn new(conversation_id: Uuid, kind: MessageType) -> Self {
        Self {
            conversation_id,
            client_message_id: Uuid::now_v7().to_string(),
            kind,
            content: None,
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
}

// --- What events say -------------------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeletedMessage {
    pub conversation_id: Uuid,
    pub message_id: Uuid,
    pub seq: u64,
    pub deleted_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusChange {
    pub conversation_id: Uuid,
    pub message_id: Uuid,
    /// Who has received or read it.
    pub user_id: Uuid,
    pub status: MessageStatus,
    /// This message and all of the same sender before it; none where it is this one alone.
    pub up_to_seq: Option<u64>,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReactionChange {
    pub conversation_id: Uuid,
    pub message_id: Uuid,
    /// The message's.
    pub seq: u64,
    pub user_id: Uuid,
    /// As it was written.
    pub emoji: String,
    /// The same for all spellings of the emoji.
    pub canonical: String,
    /// False when it was taken away.
    pub present: bool,
    pub at: Timestamp,
}

/// What a conversation is to all its participants alike, or that this user is in it no more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConversationChange {
    State(Box<ConversationState>),
    Left(LeftConversation),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationState {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: ConversationType,
    pub title: Option<String>,
    pub description: Option<String>,
    pub created_by: Uuid,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Always true.
    pub member: bool,
    pub participant_count: u64,
    /// The first 100.
    pub participant_ids: Vec<Uuid>,
    pub last_seq: u64,
    pub pinned_message_ids: Vec<Uuid>,
    /// Seconds after which messages disappear.
    pub disappearing_after: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftConversation {
    pub id: Uuid,
    /// Always false.
    pub member: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollState {
    pub conversation_id: Uuid,
    pub message_id: Uuid,
    /// The message's.
    pub seq: u64,
    pub closed: bool,
    pub voters: u64,
    /// How many have chosen each option, in their order.
    pub votes: Vec<u64>,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadMark {
    pub conversation_id: Uuid,
    pub unread: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DraftState {
    pub conversation_id: Uuid,
    /// None where there is no draft any more.
    pub content: Option<String>,
    pub reply_to: Option<Uuid>,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypingState {
    pub conversation_id: Uuid,
    pub user_id: Uuid,
    pub is_typing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceStatus {
    Online,
    Away,
    Busy,
    Offline,
    /// Of a newer host.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PresenceChange {
    pub user_id: Uuid,
    pub status: PresenceStatus,
    pub activity: Option<String>,
    pub last_seen: Option<Timestamp>,
}

/// The first frame on a socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionAck {
    pub connection_id: Uuid,
    pub user_id: Uuid,
    pub device_id: String,
    /// Seconds between two pings.
    pub heartbeat_interval: u64,
    /// Seconds of silence after which the connection counts as lost.
    pub idle_timeout: u64,
    /// What comes next follows this.
    pub cursor: u64,
}
