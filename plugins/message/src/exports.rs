//! This service's part of an account export: what a person has here and what they wrote, page by page as it is when it is read. So what is deleted for
//! everyone, has disappeared or was said in a conversation that has ended is in none, whenever the export was asked for.

use echo_sdk::exports::{self, Pages, RowKey, key};
use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, Id, caller, time};

use crate::bindings::echo::account_export::events::{self, PreparedPart};
use crate::bindings::exports::echo::account_export::events::Request;
use crate::bindings::exports::echo::message::api::{ExportedData, PageRequest};
use crate::store::{exports as store, scheduled};

/// This service's part.
const NAME: &str = "message";
/// Sorts before every id.
const FIRST_ID: &str = "00000000-0000-0000-0000-000000000000";

pub fn requested(event: Request) -> Result<(), Error> {
    let Request { user_id, export_id, requested_at, expires_at } = event;
    let at = time::now_us();
    transaction(|tx| {
        exports::open(tx, &user_id, requested_at, expires_at)?;
        let part = PreparedPart { user_id: user_id.clone(), export_id: export_id.clone(), name: NAME.to_owned(), at };
        events::prepared(&user_id, &part)
    })
}

pub fn data(request: &PageRequest) -> Result<ExportedData, Error> {
    let me = caller()?.user_id;
    let now = time::now_us();
    let until = exports::requested_at(&Database, &me, now)?;
    let mut pages = Pages::new(request.limit, request.cursor.as_deref())?;

    let conversations =
        pages.section(|after, limit| store::conversations_of(&me, id_of(after), until, limit), |conversation| key(&conversation.id))?;
    // All that the person ever sent: those that are not there any more are left out afterwards, so that one page looks at so many and no more.
    let sent = pages.section(|after, limit| store::sent_by(&me, id_of(after), limit), |id| key(id))?;
    let mut messages = store::own_among(&me, &sent, until, now)?;
    messages.sort_by_key(|message| sent.iter().position(|id| *id == message.id));
    let waiting = pages.section(|after, limit| store::scheduled_by(&me, id_of(after), until, limit), |id| key(id))?;
    let mut scheduled = Vec::with_capacity(waiting.len());
    for id in &waiting {
        scheduled.extend(scheduled::one_of(&Database, &me, id)?.map(crate::scheduled::view));
    }
    let drafts = pages.section(|after, limit| store::drafts_of(&me, id_of(after), limit), |draft| key(&draft.conversation_id))?;
    let starred = pages.section(|after, limit| store::stars_of(&me, id_of(after), until, limit), |star| key(&star.message_id))?;
    let reactions = pages.section(
        |after, limit| store::reactions_of(&me, (id_of(after), after.1.as_str()), until, limit),
        |row| (Id(row.reaction.message_id.clone()), row.canonical.clone()),
    )?;
    let votes = pages.section(
        |after, limit| store::votes_of(&me, id_of(after), after.1.parse().unwrap_or(-1), limit),
        |vote| (Id(vote.message_id.clone()), vote.choice.to_string()),
    )?;
    let invites = pages
        .section(|after, limit| store::invites_by(&me, &after.1, until, limit), |invite| (Id(FIRST_ID.to_owned()), invite.code.clone()))?;
    let reactions = reactions.into_iter().map(|row| row.reaction).collect();
    Ok(ExportedData { conversations, messages, scheduled, drafts, starred, reactions, votes, invites, next_cursor: pages.next_cursor() })
}

fn id_of(after: &RowKey) -> &str {
    &after.0.0
}
