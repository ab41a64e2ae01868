//! Every bound of this service that no contract states, with its unit. The windows for editing and deleting are settings (`plugin.toml`).

/// Participants of one conversation: who opened it, and so many others as one request may name.
pub const PARTICIPANTS_MAX: u64 = 1_001;
/// Participants named in a conversation's own record.
pub const PARTICIPANTS_SHOWN: u32 = 100;
/// Rows of one INSERT of participants: their parameters stay within the host's bound.
pub const PARTICIPANT_ROWS_MAX: usize = 500;
/// Versions kept of one message beside the present one.
pub const EDITS_MAX: u64 = 100;
/// The longest emoji, in bytes: the families of four with their joiners have some 40, and it stands in the key of a push with two ids.
pub const EMOJI_BYTES_MAX: usize = 48;
/// Different reactions of one person under one message.
pub const REACTIONS_OF_ONE_MAX: u64 = 20;
/// Pinned messages of one conversation.
pub const PINS_MAX: u64 = 20;
/// Starred messages of one person.
pub const STARRED_MAX: u64 = 10_000;
/// Unread messages are counted up to here: a page of the list counts those of a hundred conversations.
pub const UNREAD_COUNT_MAX: i64 = 1_000;
/// Characters of a message that a notification may show.
pub const PREVIEW_CHARS_MAX: usize = 100;
/// Senders told of one reading; further ones see it when they ask.
pub const SENDERS_TOLD_MAX: i64 = 256;
/// Tries of a step whose ground moved meanwhile; then the client is asked to come back.
pub const TRIES_MAX: u32 = 5;
/// Frames about one person typing in one conversation that leave in a while, in milliseconds; of those beyond nobody is told.
pub const TYPING_BURST_MAX: i64 = 10;
pub const TYPING_BURST_MS: u64 = 10_000;
/// Receipts of devices that are worked off in one transaction.
pub const RECEIPTS_AT_ONCE: usize = 64;
/// Disappearing messages that are emptied in one transaction, and the time that must be left to begin another, in milliseconds.
pub const EXPIRED_AT_ONCE: i64 = 50;
pub const EXPIRING_TIME_LEFT_MS: u64 = 5_000;
/// Messages of one person that wait to be sent, and how far ahead, in seconds.
pub const SCHEDULED_MAX: u64 = 100;
pub const SCHEDULED_AHEAD_MAX_S: u64 = 366 * 24 * 60 * 60;
/// Scheduled messages that one run of the schedule sends.
pub const SCHEDULED_PER_RUN: i64 = 64;
/// Open links to one conversation.
pub const INVITES_MAX: u64 = 50;
/// Random bytes of a link's code.
pub const INVITE_CODE_BYTES: usize = 16;
/// Messages of one conversation that are indexed in one transaction, and about how many bytes of their contents.
pub const INDEXED_AT_ONCE: u64 = 64;
pub const INDEXED_BYTES_AT_ONCE: usize = 32 * 1024;
/// About how many bytes of contents one run of the schedule indexes, and for how many conversations it looks at once.
pub const INDEXED_BYTES_PER_RUN: usize = 256 * 1024;
pub const CONVERSATIONS_INDEXED_AT_ONCE: i64 = 64;
/// Different words of one message that it is found by, and the bytes of a word that stand in the index.
pub const WORDS_MAX: usize = 1_000;
pub const WORD_BYTES_MAX: usize = 64;
/// Words of one INSERT.
pub const WORD_ROWS_MAX: usize = 500;
/// Words of what is searched for that are looked up in the index; the others are looked for in the messages found.
pub const WORDS_LOOKED_UP_MAX: usize = 6;
/// Messages that one search looks at in a step, and its steps: beyond them the page ends where it is.
pub const CANDIDATES_AT_ONCE: i64 = 100;
pub const CANDIDATE_STEPS_MAX: usize = 5;
/// Messages of an erased person that are given up in one transaction.
pub const ERASED_AT_ONCE: u64 = 500;
/// Marks of receipts that one run of the schedule clears away.
pub const MARKS_CLEARED_PER_RUN: i64 = 5_000;
/// Expired exports that one run of the schedule forgets.
pub const EXPORTS_CLEARED_PER_RUN: u64 = 500;
