//! Why a push was sent for a message or not.

use echo_sdk::wit::hub;
use echo_sdk::{Error, Timestamp, caller};

use crate::bindings::exports::echo::notification::api::{Decision, TraceLine, Traces};
use crate::decisions::{everybody, users};
use crate::store::{self, Awaited};

/// The caller's own line, or every recipient's for the sender, who learns nothing of mutes and blocks. To others the message does not exist.
pub fn trace(message_id: &str) -> Result<Traces, Error> {
    let me = caller()?.user_id;
    let awaited = store::awaited(message_id)?.ok_or_else(no_trace)?;
    let by_sender = awaited.sender_id == me;
    let mut recipients: Vec<String> = if by_sender {
        everybody(&awaited).map(str::to_owned).collect()
    } else {
        users(&awaited.recipient_ids).filter(|user| *user == me).map(str::to_owned).collect()
    };
    // By id: the place in the list says nothing either.
    recipients.sort_unstable();
    if recipients.is_empty() {
        return Err(no_trace());
    }
    // To the sender the line is as any other's.
    let reason = if by_sender { None } else { store::reason_of(message_id, &me)? };
    let mut lines = Lines { known: store::traces_of(message_id)?, awaited, by_sender, reason };
    let open: Vec<String> = recipients.iter().filter(|user| lines.line(user).is_none()).cloned().collect();
    // Decided by its deletion, where that came first.
    let ended_at = store::deleted_at(message_id)?.filter(|at| lines.awaited.decided_at == Some(*at));
    if let (false, Some(at)) = (open.is_empty(), ended_at) {
        lines.known.extend(open.into_iter().map(|user| (user, DELETED.to_owned(), at)));
    } else if !open.is_empty() {
        // They had no push device when it was due, so nobody asked then whether it reached them.
        let missed = hub::unacknowledged(message_id, &open)?;
        lines.add(open, &missed);
    }
    let items = recipients.iter().filter_map(|user| lines.line(user)).collect();
    Ok(Traces { items, next_cursor: None })
}

/// The message was deleted before anybody asked whether it reached them.
const DELETED: &str = "message-deleted";

fn no_trace() -> Error {
    Error::not_found("there is no such message, or it is too long ago")
}

/// What is known of one message.
struct Lines {
    awaited: Awaited,
    known: Vec<(String, String, Timestamp)>,
    /// Whether the sender asks.
    by_sender: bool,
    /// Why the caller, a recipient, got no push.
    reason: Option<String>,
}

impl Lines {
    /// None: decided, and without a device when it was.
    fn line(&self, user_id: &str) -> Option<TraceLine> {
        let line = |decision, at| Some(TraceLine { user_id: user_id.to_owned(), decision, at });
        if !self.by_sender && users(&self.awaited.muted_ids).any(|muted| muted == user_id) {
            return line(Decision::Muted, self.awaited.sent_at);
        }
        if self.awaited.decided_at.is_none() {
            return line(Decision::Waiting, self.awaited.sent_at);
        }
        let (_, decision, at) = self.known.iter().find(|(user, _, _)| user == user_id)?;
        match self.reason.as_deref() {
            Some("quiet") => line(Decision::Quiet, *at),
            Some(_) => line(Decision::Unwanted, *at),
            None => line(decision_of(decision), *at),
        }
    }

    fn add(&mut self, users: Vec<String>, missed: &[String]) {
        let at = self.awaited.decided_at.unwrap_or(self.awaited.due_at);
        self.known.extend(users.into_iter().map(|user| {
            let decision = if missed.contains(&user) { "no-device" } else { "acknowledged" };
            (user, decision.to_owned(), at)
        }));
    }
}

fn decision_of(name: &str) -> Decision {
    match name {
        "pushed" => Decision::Pushed,
        "acknowledged" => Decision::Acknowledged,
        DELETED => Decision::MessageDeleted,
        _ => Decision::NoDevice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(decided_at: Option<Timestamp>, by_sender: bool) -> Lines {
        let awaited = Awaited {
            message_id: "m".into(),
            conversation_id: "c".into(),
            sender_id: "s".into(),
            recipient_ids: "a b c d".into(),
            muted_ids: "b".into(),
            withheld_ids: "e".into(),
            mentioned_ids: String::new(),
            sent_at: 1,
            due_at: 6,
            decided_at,
            changes: 0,
        };
        Lines { awaited, known: vec![("a".into(), "pushed".into(), 7), ("b".into(), "pushed".into(), 7)], by_sender, reason: None }
    }

    fn decision(lines: &Lines, user: &str) -> Option<(Decision, Timestamp)> {
        lines.line(user).map(|line| (line.decision, line.at))
    }

    #[test]
    fn before_it_is_due_all_wait_but_the_muted() {
        let own = lines(None, false);
        assert_eq!(decision(&own, "a"), Some((Decision::Waiting, 1)));
        assert_eq!(decision(&own, "b"), Some((Decision::Muted, 1)));
    }

    #[test]
    fn a_sender_learns_of_no_mute() {
        assert_eq!(decision(&lines(None, true), "b"), Some((Decision::Waiting, 1)));
        assert_eq!(decision(&lines(Some(7), true), "b"), Some((Decision::Pushed, 7)));
    }

    #[test]
    fn a_recipient_learns_why_there_was_no_push() {
        for (reason, expect) in [("quiet", Decision::Quiet), ("unwanted", Decision::Unwanted)] {
            let lines = Lines { reason: Some(reason.to_owned()), ..lines(Some(7), false) };
            assert_eq!(decision(&lines, "a"), Some((expect, 7)));
        }
    }

    #[test]
    fn afterwards_each_has_a_reason() {
        let mut lines = lines(Some(7), false);
        assert_eq!(decision(&lines, "a"), Some((Decision::Pushed, 7)));
        assert_eq!(decision(&lines, "b"), Some((Decision::Muted, 1)));
        assert_eq!(decision(&lines, "c"), None);
        lines.add(vec!["c".into(), "d".into()], &["d".to_owned()]);
        assert_eq!(decision(&lines, "c"), Some((Decision::Acknowledged, 7)));
        assert_eq!(decision(&lines, "d"), Some((Decision::NoDevice, 7)));
    }
}
