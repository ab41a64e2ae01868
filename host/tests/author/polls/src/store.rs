//! All SQL of the service.

use echo_sdk::sql::{Sql, SqlError, timestamp, uuid};
use echo_sdk::{from_row, params};

use crate::bindings::exports::echo::polls::api::{Choice, Poll};

from_row!(Choice { text, votes });

pub fn insert(db: &impl Sql, poll: &Poll) -> Result<(), SqlError> {
    let sql = "INSERT INTO polls (id, owner_id, question, created_at) VALUES ($1, $2, $3, $4)";
    db.execute(sql, params![uuid(&poll.id), uuid(&poll.owner_id), &poll.question, timestamp(poll.created_at)])?;
    for (place, option) in poll.options.iter().enumerate() {
        let sql = "INSERT INTO choices (poll_id, place, text) VALUES ($1, $2, $3)";
        db.execute(sql, params![uuid(&poll.id), place as u64, &option.text])?;
    }
    Ok(())
}

pub fn poll(db: &impl Sql, id: &str) -> Result<Option<Poll>, SqlError> {
    let sql = "SELECT owner_id, question, created_at FROM polls WHERE id = $1";
    let Some((owner_id, question, created_at)) = db.row::<(String, String, u64)>(sql, params![uuid(id)])? else { return Ok(None) };
    let options = db.rows("SELECT text, votes FROM choices WHERE poll_id = $1 ORDER BY place", params![uuid(id)])?;
    Ok(Some(Poll { id: id.to_owned(), owner_id, question, options, created_at }))
}

pub fn vote(db: &impl Sql, poll: &str, user: &str, option: u32) -> Result<(), SqlError> {
    let sql = "INSERT INTO votes (poll_id, user_id, place) VALUES ($1, $2, $3)";
    db.execute(sql, params![uuid(poll), uuid(user), u64::from(option)])?;
    Ok(())
}

pub fn count(db: &impl Sql, poll: &str, option: u32) -> Result<(), SqlError> {
    let sql = "UPDATE choices SET votes = votes + 1 WHERE poll_id = $1 AND place = $2";
    db.execute(sql, params![uuid(poll), u64::from(option)])?;
    Ok(())
}
