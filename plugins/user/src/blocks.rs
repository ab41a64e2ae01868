//! Who blocks whom. Every change is announced with a revision that rises per pair, in the transaction that makes it.

use echo_sdk::sql::transaction;
use echo_sdk::{Error, Id, Page, caller, time};

use crate::bindings::echo::user::events::{self, BlockChange};
use crate::bindings::exports::echo::user::api::{Block, Blocks, PageRequest};
use crate::bounds::BLOCKS_MAX;
use crate::contacts::LAST_KEY;
use crate::{profiles, store};

pub fn list(request: PageRequest) -> Result<Blocks, Error> {
    let me = caller()?.user_id;
    let page = Page::<(u64, Id)>::new(request.limit, request.cursor.as_deref())?;
    let before = page.after.clone().map_or_else(|| (LAST_KEY.0, LAST_KEY.1.to_owned()), |(at, Id(id))| (at, id));
    let rows = store::blocks_of(&me, &before, page.fetch())?;
    let (rows, next_cursor) = page.finish(rows, |row| (row.created_at, Id(row.user_id.clone())));
    let items = rows.into_iter().map(|row| Block { user_id: row.user_id, created_at: row.created_at }).collect();
    Ok(Blocks { items, next_cursor })
}

pub fn get(user_id: &str) -> Result<Block, Error> {
    let row = store::block_of(&caller()?.user_id, user_id)?.ok_or_else(|| Error::not_found("there is no such block"))?;
    Ok(Block { user_id: row.user_id, created_at: row.created_at })
}

pub fn block(user_id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    if user_id == me {
        return Err(Error::invalid_field("user_id", "own_user", "nobody can block themselves"));
    }
    profiles::seen_by(&me, user_id)?;
    if store::block_count_of(&me)? >= BLOCKS_MAX {
        return Err(Error::conflict("too_many_blocks", format!("at most {BLOCKS_MAX} blocks")));
    }
    transaction(|tx| match store::block(tx, &me, user_id, time::now_us())? {
        Some(revision) => events::blocked(&me, &change(&me, user_id, revision)),
        None => Ok(()),
    })
}

pub fn unblock(user_id: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    transaction(|tx| match store::unblock(tx, &me, user_id)? {
        Some(revision) => events::unblocked(&me, &change(&me, user_id, revision)),
        None => Ok(()),
    })
}

fn change(user_id: &str, blocked_user_id: &str, revision: u64) -> BlockChange {
    BlockChange { user_id: user_id.to_owned(), blocked_user_id: blocked_user_id.to_owned(), revision }
}
