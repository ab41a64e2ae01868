//! Who may do what, and what a status is. Pure: no database, no clock.

use echo_sdk::time::SECOND_US;
use echo_sdk::{Error, Timestamp};

use crate::bindings::exports::echo::message::api::{ConversationType, MessageStatus, Role};

/// To somebody who is no participant a conversation does not exist.
pub fn no_conversation() -> Error {
    Error::not_found("there is no such conversation")
}

pub fn no_message() -> Error {
    Error::not_found("there is no such message")
}

fn not_allowed(message: &str) -> Error {
    Error::forbidden("not_allowed", message)
}

pub fn may_send(kind: ConversationType, role: Role) -> Result<(), Error> {
    match (kind, role) {
        (ConversationType::Channel, Role::Member) => Err(not_allowed("only the owner and admins write in a channel")),
        _ => Ok(()),
    }
}

/// Title, description, participants, disappearing messages of groups and channels.
pub fn may_manage(kind: ConversationType, role: Role) -> Result<(), Error> {
    match (kind, role) {
        (ConversationType::Direct, _) => Err(Error::conflict("direct_conversation", "a direct conversation stays as it is")),
        (_, Role::Member) => Err(not_allowed("only the owner and admins may do this")),
        _ => Ok(()),
    }
}

/// In a direct conversation either of the two decides.
pub fn may_set_disappearing(kind: ConversationType, role: Role) -> Result<(), Error> {
    if kind == ConversationType::Direct { Ok(()) } else { may_manage(kind, role) }
}

/// In a direct conversation either of the two pins.
pub fn may_pin(kind: ConversationType, role: Role) -> Result<(), Error> {
    if kind == ConversationType::Direct { Ok(()) } else { may_manage(kind, role) }
}

/// The sender, and the owner and admins of a group or channel.
pub fn may_close_poll(kind: ConversationType, role: Role, own: bool) -> Result<(), Error> {
    if own || may_manage(kind, role).is_ok() { Ok(()) } else { Err(not_allowed("only the sender and admins close a poll")) }
}

pub fn may_end(role: Role) -> Result<(), Error> {
    if role == Role::Owner { Ok(()) } else { Err(not_allowed("only the owner may end the conversation")) }
}

/// What a change of roles makes of the caller and of the other: the caller's new role where it changes.
pub fn may_change_role(kind: ConversationType, caller: Role, own: bool, to: Role) -> Result<Option<Role>, Error> {
    if kind == ConversationType::Direct {
        return Err(Error::conflict("direct_conversation", "a direct conversation has no roles"));
    }
    match (caller, own, to) {
        (Role::Owner, true, Role::Owner) => Ok(None),
        (Role::Owner, true, _) => Err(Error::conflict("owner_needed", "make another the owner first")),
        (Role::Owner, false, Role::Owner) => Ok(Some(Role::Admin)),
        (Role::Owner, false, _) => Ok(None),
        _ => Err(not_allowed("only the owner changes roles")),
    }
}

pub fn may_remove(kind: ConversationType, caller: Role, own: bool, other: Role) -> Result<(), Error> {
    if kind == ConversationType::Direct {
        return Err(Error::conflict("direct_conversation", "nobody leaves a direct conversation; block or hide it instead"));
    }
    match (caller, other) {
        _ if own => Ok(()),
        (Role::Owner, _) | (Role::Admin, Role::Member) => Ok(()),
        _ => Err(not_allowed("only somebody of a higher role may remove a participant")),
    }
}

pub fn may_edit(own: bool, sent_at: Timestamp, now: Timestamp, window_s: u64) -> Result<(), Error> {
    if !own {
        return Err(not_allowed("only the sender edits a message"));
    }
    within(sent_at, now, window_s).then_some(()).ok_or_else(|| Error::forbidden("edit_window_over", "it is too late to edit this message"))
}

/// From everyone: the sender for a while, the owner and admins of a group or channel always.
pub fn may_delete_for_everyone(
    kind: ConversationType,
    role: Role,
    own: bool,
    sent_at: Timestamp,
    now: Timestamp,
    window_s: u64,
) -> Result<(), Error> {
    if may_manage(kind, role).is_ok() {
        return Ok(());
    }
    if !own {
        return Err(not_allowed("only the sender and admins delete a message for everyone"));
    }
    within(sent_at, now, window_s)
        .then_some(())
        .ok_or_else(|| Error::forbidden("delete_window_over", "it is too late to delete this message for everyone"))
}

fn within(sent_at: Timestamp, now: Timestamp, window_s: u64) -> bool {
    now.saturating_sub(sent_at) <= window_s.saturating_mul(SECOND_US)
}

/// One recipient's status of the message `seq` by their watermarks. What was kept from them stays `sent` for ever.
pub fn status(seq: u64, delivered_seq: u64, read_seq: u64, kept_back: bool) -> MessageStatus {
    if kept_back {
        MessageStatus::Sent
    } else if read_seq >= seq {
        MessageStatus::Read
    } else if delivered_seq >= seq {
        MessageStatus::Delivered
    } else {
        MessageStatus::Sent
    }
}

/// What a reading makes of the watermark that others see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It goes where the reader's own is.
    Whole,
    /// It stays where it is; who may know has a watermark of their own.
    KeptBack,
    /// Nothing of others was read: if it was kept back it still is.
    Unchanged,
}

/// `everyone`: the reader keeps their readings from nobody.
pub fn shown(read_of_others: bool, everyone: bool) -> Shown {
    match (read_of_others, everyone) {
        (false, _) => Shown::Unchanged,
        (true, true) => Shown::Whole,
        (true, false) => Shown::KeptBack,
    }
}

/// What a sender is told of a reading, by their newest message in it. Who may not know of it learns that it arrived, unless they know.
pub fn told(may_know: bool, seq: u64, delivered_seq: u64) -> Option<MessageStatus> {
    match (may_know, seq > delivered_seq) {
        (true, _) => Some(MessageStatus::Read),
        (false, true) => Some(MessageStatus::Delivered),
        (false, false) => None,
    }
}

/// The two users of a direct conversation, sorted, as the key that there is only one of.
pub fn pair_key(one: &str, other: &str) -> String {
    if one < other { format!("{one}:{other}") } else { format!("{other}:{one}") }
}

/// Who becomes owner when the owner leaves: the longest admin, else the longest member. `(user, role)` in the order they joined.
pub fn successor(others: &[(String, Role)]) -> Option<&str> {
    let longest = |wanted: Role| others.iter().find(|(_, role)| *role == wanted);
    longest(Role::Admin).or_else(|| longest(Role::Member)).map(|(user, _)| user.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::echo::message::model::ConversationType::{Channel, Direct, Group};
    use crate::bindings::echo::message::model::Role::{Admin, Member, Owner};

    fn code(result: Result<impl Sized, Error>) -> String {
        result.err().map_or_else(String::new, |error| error.code)
    }

    #[test]
    fn in_channels_only_the_heads_write() {
        for (kind, role, expect) in
            [(Direct, Member, ""), (Group, Member, ""), (Channel, Owner, ""), (Channel, Admin, ""), (Channel, Member, "not_allowed")]
        {
            assert_eq!(code(may_send(kind, role)), expect, "{kind:?} {role:?}");
        }
    }

    #[test]
    fn managing_is_for_heads_of_groups() {
        for (kind, role, expect) in [
            (Direct, Member, "direct_conversation"),
            (Group, Member, "not_allowed"),
            (Group, Admin, ""),
            (Channel, Owner, ""),
            (Channel, Member, "not_allowed"),
        ] {
            assert_eq!(code(may_manage(kind, role)), expect, "{kind:?} {role:?}");
        }
        assert_eq!(code(may_set_disappearing(Direct, Member)), "");
        assert_eq!(code(may_set_disappearing(Group, Member)), "not_allowed");
        assert_eq!(code(may_pin(Direct, Member)), "");
        for (kind, role, own, expect) in [
            (Direct, Member, true, ""),
            (Direct, Member, false, "not_allowed"),
            (Group, Admin, false, ""),
            (Group, Member, false, "not_allowed"),
        ] {
            assert_eq!(code(may_close_poll(kind, role, own)), expect, "{kind:?} {role:?} {own}");
        }
        assert_eq!([code(may_pin(Group, Member)), code(may_pin(Channel, Admin))], ["not_allowed", ""]);
        assert_eq!(code(may_end(Admin)), "not_allowed");
    }

    #[test]
    fn roles_change_by_the_owner_alone() {
        assert_eq!(may_change_role(Group, Owner, false, Admin).unwrap(), None);
        assert_eq!(may_change_role(Group, Owner, false, Owner).unwrap(), Some(Admin));
        assert_eq!(code(may_change_role(Group, Owner, true, Member)), "owner_needed");
        assert_eq!(code(may_change_role(Group, Admin, false, Admin)), "not_allowed");
        assert_eq!(code(may_change_role(Direct, Member, false, Admin)), "direct_conversation");
    }

    #[test]
    fn removal_goes_downwards() {
        for (caller, own, other, expect) in [
            (Owner, false, Admin, ""),
            (Admin, false, Member, ""),
            (Admin, false, Admin, "not_allowed"),
            (Admin, false, Owner, "not_allowed"),
            (Member, false, Member, "not_allowed"),
            (Member, true, Member, ""),
            (Owner, true, Owner, ""),
        ] {
            assert_eq!(code(may_remove(Group, caller, own, other)), expect, "{caller:?} {own} {other:?}");
        }
        assert_eq!(code(may_remove(Direct, Member, true, Member)), "direct_conversation");
    }

    #[test]
    fn windows_close() {
        assert_eq!(code(may_edit(true, 0, 900 * SECOND_US, 900)), "");
        assert_eq!(code(may_edit(true, 0, 900 * SECOND_US + 1, 900)), "edit_window_over");
        assert_eq!(code(may_edit(false, 0, 0, 900)), "not_allowed");
        // A clock that runs behind the sender's makes nothing late.
        assert_eq!(code(may_edit(true, 9, 0, 0)), "");
        assert_eq!(code(may_delete_for_everyone(Direct, Member, true, 0, 11 * SECOND_US, 10)), "delete_window_over");
        assert_eq!(code(may_delete_for_everyone(Direct, Member, false, 0, 0, 10)), "not_allowed");
        assert_eq!(code(may_delete_for_everyone(Group, Admin, false, 0, 11 * SECOND_US, 10)), "");
        assert_eq!(code(may_delete_for_everyone(Group, Member, true, 0, 10 * SECOND_US, 10)), "");
    }

    #[test]
    fn status_follows_the_watermarks() {
        use crate::bindings::echo::message::model::MessageStatus::{Delivered, Read, Sent};
        for (delivered, read, kept_back, expect) in [
            (0, 0, false, Sent),
            (4, 0, false, Sent),
            (5, 0, false, Delivered),
            (5, 5, false, Read),
            (9, 7, false, Read),
            (9, 9, true, Sent),
        ] {
            assert_eq!(status(5, delivered, read, kept_back), expect, "{delivered} {read} {kept_back}");
        }
    }

    #[test]
    fn a_reading_is_shown_to_who_may_know() {
        for (read_of_others, everyone, expect) in
            [(true, true, Shown::Whole), (true, false, Shown::KeptBack), (false, true, Shown::Unchanged), (false, false, Shown::Unchanged)]
        {
            assert_eq!(shown(read_of_others, everyone), expect);
        }
        for (may_know, seq, expect) in [
            (true, 5, Some(MessageStatus::Read)),
            (true, 4, Some(MessageStatus::Read)),
            (false, 5, Some(MessageStatus::Delivered)),
            (false, 4, None),
        ] {
            assert_eq!(told(may_know, seq, 4), expect, "{may_know} {seq}");
        }
    }

    #[test]
    fn a_pair_has_one_key() {
        assert_eq!(pair_key("b", "a"), pair_key("a", "b"));
        assert_ne!(pair_key("a", "b"), pair_key("a", "c"));
    }

    #[test]
    fn somebody_follows_the_owner() {
        let others = |roles: &[Role]| roles.iter().enumerate().map(|(at, role)| (at.to_string(), *role)).collect::<Vec<_>>();
        assert_eq!(successor(&others(&[Member, Admin, Admin])), Some("1"));
        assert_eq!(successor(&others(&[Member, Member])), Some("0"));
        assert_eq!(successor(&[]), None);
    }
}
