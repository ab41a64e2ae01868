//! Conversations: opening (one per pair for ever), listing, changing, ending, and each participant's own settings.

use std::collections::HashMap;

use echo_sdk::checks::Checks;
use echo_sdk::sql::{Database, SqlError, Transaction, transaction};
use echo_sdk::{Error, FieldError, Id, Page, Timestamp, caller, ids, time};

use crate::bindings::echo::message::pushes::{self, ConversationState};
use crate::bindings::echo::user::api as users;
use crate::bindings::exports::echo::message::api::{
    Conversation, ConversationType, Conversations, Message, NotAdded, NotAddedReason, OpenConversationRequest, OpenedConversation,
    PageRequest, Role, UpdateConversationRequest, UpdateSettingsRequest,
};
use crate::bounds::PARTICIPANTS_SHOWN;
use crate::payload;
use crate::store::conversations::{self as store, Listed, NewConversation, Roster, SettingsChange};
use crate::store::{marks, messages};
use crate::{names, rules};

/// Sorts after everything that has a time and an id: the beginning of a list of the newest first.
const LAST_KEY: (u64, &str) = (253_402_300_799_000_000, "ffffffff-ffff-ffff-ffff-ffffffffffff");

// --- Opening -----------------------------------------------------------------------------------------------------------------------------

pub fn open(request: OpenConversationRequest) -> Result<OpenedConversation, Error> {
    let me = caller()?.user_id;
    let others = check_opening(&request, &me)?;
    let pair_key = match (request.type_, others.as_slice()) {
        (ConversationType::Direct, [other]) => Some(rules::pair_key(&me, other)),
        _ => None,
    };
    if let Some(id) = pair_key.as_deref().map(store::direct_of).transpose()?.flatten() {
        return reopened(&me, &id);
    }
    let (others, not_added) = if request.type_ == ConversationType::Direct {
        check_known("participant_ids", &request.participant_ids, &others)?;
        (others, Vec::new())
    } else {
        addable("participant_ids", &request.participant_ids, others)?
    };
    let id = ids::uuid_v7();
    let new = NewConversation {
        id: &id,
        kind: request.type_,
        pair_key: pair_key.as_deref(),
        title: given(request.title.as_deref()),
        description: given(request.description.as_deref()),
        created_by: &me,
        at: time::now_us(),
    };
    match (transaction(|tx| create(tx, &new, &others))?, &pair_key) {
        (true, _) => opened(&me, &id, true, not_added),
        // Both opened it at once; the other was first.
        (false, Some(pair_key)) => match store::direct_of(pair_key)? {
            Some(id) => reopened(&me, &id),
            None => Err(Error::unavailable("the conversation was being opened")),
        },
        (false, None) => Err(Error::internal("a group without a pair met another's")),
    }
}

/// False where the pair has a conversation already.
fn create(tx: &Transaction, new: &NewConversation<'_>, others: &[String]) -> Result<bool, Error> {
    if !store::insert(tx, new)? {
        return Ok(false);
    }
    let own_role = if new.kind == ConversationType::Direct { Role::Member } else { Role::Owner };
    store::insert_participants(tx, new.id, &[new.created_by.to_owned()], own_role, 0, new.at)?;
    store::insert_participants(tx, new.id, others, Role::Member, 0, new.at)?;
    let roster = roster(tx, new.id, new.created_by)?;
    if new.kind == ConversationType::Direct {
        // Who blocks the caller is not to see that they were called upon.
        for member in roster.members.iter().filter(|member| member.blocks) {
            store::hide(tx, new.id, &member.user_id, 0)?;
        }
    }
    announce(tx, new.id, &roster)?;
    Ok(true)
}

fn reopened(me: &str, id: &str) -> Result<OpenedConversation, Error> {
    store::unhide(id, me)?;
    opened(me, id, false, Vec::new())
}

fn opened(me: &str, id: &str, created: bool, not_added: Vec<NotAdded>) -> Result<OpenedConversation, Error> {
    let conversation = view(me, id)?;
    Ok(OpenedConversation {
        id: conversation.id,
        type_: conversation.type_,
        title: conversation.title,
        description: conversation.description,
        participant_ids: conversation.participant_ids,
        participant_count: conversation.participant_count,
        created_by: conversation.created_by,
        created_at: conversation.created_at,
        updated_at: conversation.updated_at,
        last_message: conversation.last_message,
        last_seq: conversation.last_seq,
        read_seq: conversation.read_seq,
        unread_count: conversation.unread_count,
        muted_until: conversation.muted_until,
        archived: conversation.archived,
        pinned: conversation.pinned,
        marked_unread: conversation.marked_unread,
        pinned_message_ids: conversation.pinned_message_ids,
        disappearing_after: conversation.disappearing_after,
        role: conversation.role,
        created,
        not_added,
    })
}

/// The others, each once.
fn check_opening(request: &OpenConversationRequest, me: &str) -> Result<Vec<String>, Error> {
    let direct = request.type_ == ConversationType::Direct;
    let mut others = request.participant_ids.clone();
    others.sort_unstable();
    others.dedup();
    others.retain(|id| id != me);
    let mut checks = Checks::new();
    if direct {
        if request.participant_ids.iter().any(|id| id == me) {
            checks.require(false, "participant_ids", "own_user", "a direct conversation is with another");
        } else {
            checks.count("participant_ids", others.len(), 1..=1);
        }
        checks.require(request.title.is_none(), "title", "not_for_direct", "a direct conversation has no title");
        checks.require(request.description.is_none(), "description", "not_for_direct", "a direct conversation has no description");
    }
    checks.finish()?;
    Ok(others)
}

/// Those of them whom the caller may add, and who they may not: a block and a choice of privacy look alike. Errors: 422 for who is no user.
pub fn addable(field: &str, named: &[String], wanted: Vec<String>) -> Result<(Vec<String>, Vec<NotAdded>), Error> {
    if wanted.is_empty() {
        return Ok((wanted, Vec::new()));
    }
    let found = users::who_may_be_added(&users::KnownRequest { ids: wanted.clone() })?;
    refuse_unknown(field, named, &wanted, &found.known)?;
    let (addable, kept_out): (Vec<String>, Vec<String>) = wanted.into_iter().partition(|id| found.ids.contains(id));
    let not_added = kept_out.into_iter().map(|user_id| NotAdded { user_id, reason: NotAddedReason::Privacy });
    Ok((addable, not_added.collect()))
}

/// That all of them are users; the field's path names who is not, by the place in the request.
pub fn check_known(field: &str, named: &[String], wanted: &[String]) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    refuse_unknown(field, named, wanted, &users::known(&users::KnownRequest { ids: wanted.to_vec() })?.ids)
}

fn refuse_unknown(field: &str, named: &[String], wanted: &[String], known: &[String]) -> Result<(), Error> {
    let fields = unknown(field, named, wanted, known);
    if fields.is_empty() {
        return Ok(());
    }
    let mut error = Error::invalid("unknown_participant", "not all of them are users");
    error.fields = fields;
    Err(error)
}

fn unknown(field: &str, named: &[String], wanted: &[String], known: &[String]) -> Vec<FieldError> {
    let wrong = named.iter().enumerate().filter(|(_, id)| wanted.contains(id) && !known.contains(id));
    let wrong = wrong.map(|(at, _)| FieldError {
        field: format!("{field}[{at}]"),
        code: "unknown_participant".to_owned(),
        detail: "there is no such user".to_owned(),
    });
    wrong.collect()
}

// --- Seeing ------------------------------------------------------------------------------------------------------------------------------

pub fn get(id: &str) -> Result<Conversation, Error> {
    view(&caller()?.user_id, id)
}

pub fn view(me: &str, id: &str) -> Result<Conversation, Error> {
    let now = time::now_us();
    let listed = store::one_for(me, id, now)?.ok_or_else(rules::no_conversation)?;
    views(me, vec![listed], now)?.pop().ok_or_else(rules::no_conversation)
}

pub fn list(request: &PageRequest) -> Result<Conversations, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    let before = page.after.clone().map_or_else(|| (LAST_KEY.0, LAST_KEY.1.to_owned()), |(at, Id(id))| (at, id));
    let now = time::now_us();
    let listed = store::listed_for(&me, &before, page.fetch(), now)?;
    let (listed, next_cursor) = page.finish(listed, |listed| (listed.active_at, Id(listed.id.clone())));
    Ok(Conversations { items: views(&me, listed, now)?, next_cursor })
}

/// With their participants, pins and last messages, in three questions for all.
fn views(me: &str, listed: Vec<Listed>, now: Timestamp) -> Result<Vec<Conversation>, SqlError> {
    let ids: Vec<String> = listed.iter().map(|listed| listed.id.clone()).collect();
    let mut participants: HashMap<String, Vec<String>> = HashMap::new();
    for (conversation, user) in store::first_participants(&ids)? {
        participants.entry(conversation).or_default().push(user);
    }
    let mut pinned: HashMap<String, Vec<String>> = HashMap::new();
    for (conversation, message) in marks::pins_seen_by(me, &ids, now)? {
        pinned.entry(conversation).or_default().push(message);
    }
    let mut last: HashMap<String, Message> = HashMap::new();
    for message in messages::last_of_each(me, &ids, now)? {
        last.insert(message.conversation_id.clone(), message);
    }
    let views = listed.into_iter().map(|listed| Conversation {
        participant_ids: participants.remove(&listed.id).unwrap_or_default(),
        last_message: last.remove(&listed.id),
        pinned_message_ids: pinned.remove(&listed.id).unwrap_or_default(),
        type_: names::conversation(&listed.kind),
        role: names::role(&listed.role),
        muted_until: listed.muted_until.filter(|until| *until > now),
        id: listed.id,
        title: listed.title,
        description: listed.description,
        participant_count: listed.participant_count,
        created_by: listed.created_by,
        created_at: listed.created_at,
        updated_at: listed.updated_at,
        last_seq: listed.last_seq,
        read_seq: listed.read_seq,
        unread_count: listed.unread_count,
        archived: listed.archived,
        pinned: listed.pinned,
        marked_unread: listed.marked_unread,
        disappearing_after: listed.disappearing_after,
    });
    Ok(views.collect())
}

// --- Changing ----------------------------------------------------------------------------------------------------------------------------

pub fn update(request: &UpdateConversationRequest) -> Result<Conversation, Error> {
    let me = caller()?.user_id;
    let place = store::membership(&Database, &request.id, &me)?.ok_or_else(rules::no_conversation)?;
    rules::may_manage(place.kind, place.role)?;
    transaction(|tx| {
        store::update_texts(tx, &request.id, request.title.as_deref(), request.description.as_deref(), time::now_us())?;
        announce(tx, &request.id, &roster(tx, &request.id, &me)?)
    })?;
    view(&me, &request.id)
}

/// Ends a group or channel for all; takes a direct one off the caller's list.
pub fn delete(id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    let place = store::membership(&Database, id, &me)?.ok_or_else(rules::no_conversation)?;
    if place.kind == ConversationType::Direct {
        return Ok(store::hide(&Database, id, &me, place.last_seq)?);
    }
    rules::may_end(place.role)?;
    transaction(|tx| {
        let roster = roster(tx, id, &me)?;
        store::end(tx, id, time::now_us())?;
        let everybody: Vec<String> = roster.members.into_iter().map(|member| member.user_id).collect();
        pushes::conversation_left(&everybody, &payload::conversation_left(id))
    })
}

pub fn update_settings(request: &UpdateSettingsRequest) -> Result<Conversation, Error> {
    let me = caller()?.user_id;
    let seconds = request.disappearing_after;
    let place = store::membership(&Database, &request.id, &me)?.ok_or_else(rules::no_conversation)?;
    if seconds.is_some() {
        rules::may_set_disappearing(place.kind, place.role)?;
    }
    let now = time::now_us();
    let change = SettingsChange {
        muted_until: request.muted_until.map(|until| Some(until).filter(|until| *until > now)),
        archived: request.archived,
        pinned: request.pinned,
    };
    transaction(|tx| {
        store::update_settings(tx, &request.id, &me, &change)?;
        if let Some(seconds) = seconds {
            store::set_disappearing(tx, &request.id, seconds, now)?;
            announce(tx, &request.id, &roster(tx, &request.id, &me)?)?;
        }
        Ok::<_, Error>(())
    })?;
    view(&me, &request.id)
}

pub fn roster(tx: &Transaction, id: &str, me: &str) -> Result<Roster, Error> {
    store::roster_for(tx, id, me)?.ok_or_else(rules::no_conversation)
}

/// Tells the participants what the conversation is now, but for those who block the caller: nothing that somebody does whom they block
/// disturbs them, and they see it when they ask.
pub fn announce(tx: &Transaction, id: &str, roster: &Roster) -> Result<(), Error> {
    let head = store::head(tx, id)?;
    let all = roster.members.iter();
    let told = all.clone().filter(|member| !member.blocks);
    let told: Vec<String> = told.map(|member| member.user_id.clone()).collect();
    let shown: Vec<String> = all.take(PARTICIPANTS_SHOWN as usize).map(|member| member.user_id.clone()).collect();
    let state = ConversationState {
        id: id.to_owned(),
        type_: names::conversation(&head.kind),
        title: head.title,
        description: head.description,
        participant_ids: shown,
        participant_count: roster.members.len() as u64,
        created_by: head.created_by,
        created_at: head.created_at,
        updated_at: head.updated_at,
        last_seq: head.last_seq,
        disappearing_after: head.disappearing_after,
        pinned_message_ids: marks::pins_of(tx, id)?,
        member: true,
    };
    pushes::conversation(&told, &state)
}

/// An empty text is none.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(type_: ConversationType, ids: &[&str], title: Option<&str>) -> Result<Vec<String>, String> {
        let participant_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let request = OpenConversationRequest { type_, participant_ids, title: title.map(str::to_owned), description: None };
        check_opening(&request, "me").map_err(|error| format!("{} {}", error.fields[0].field, error.fields[0].code))
    }

    #[test]
    fn a_direct_conversation_is_with_one_other() {
        use crate::bindings::echo::message::model::ConversationType::{Direct, Group};
        assert_eq!(check(Direct, &["a"], None).unwrap(), ["a"]);
        assert_eq!(check(Direct, &["a", "a"], None).unwrap(), ["a"]);
        assert_eq!(check(Direct, &["a", "b"], None).unwrap_err(), "participant_ids too_many");
        assert_eq!(check(Direct, &[], None).unwrap_err(), "participant_ids too_few");
        assert_eq!(check(Direct, &["me"], None).unwrap_err(), "participant_ids own_user");
        assert_eq!(check(Direct, &["a"], Some("x")).unwrap_err(), "title not_for_direct");
        assert_eq!(check(Group, &["b", "me", "a", "b"], Some("x")).unwrap(), ["a", "b"]);
    }

    #[test]
    fn who_is_unknown_is_named_by_place() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let fields = unknown("participant_ids", &ids(&["me", "a", "x", "x"]), &ids(&["a", "x"]), &ids(&["a"]));
        assert_eq!(fields.into_iter().map(|field| field.field).collect::<Vec<_>>(), ["participant_ids[2]", "participant_ids[3]"]);
    }
}
