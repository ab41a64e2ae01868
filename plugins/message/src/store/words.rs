//! Which words stand in which messages. Folded words in a table, the same on both engines: FTS5 is a virtual table and PostgreSQL's text search a type of its own,
//! so there is no statement for both; and FTS5 looks through everybody's messages where a person has only some conversations.

use echo_sdk::sql::{Database, Sql, SqlError, Transaction, Value, uuid};
use echo_sdk::{from_row, params};

use crate::bounds::WORD_ROWS_MAX;
use crate::words::beginning_with;

/// A conversation with messages that are not in the index yet.
pub struct Unindexed {
    pub id: String,
    pub indexed_seq: u64,
    pub last_seq: u64,
}

from_row!(Unindexed { id, indexed_seq, last_seq });

pub fn unindexed(limit: i64) -> Result<Vec<Unindexed>, SqlError> {
    Database.rows("SELECT id, indexed_seq, last_seq FROM conversations WHERE indexed_seq < last_seq LIMIT $1", params![limit])
}

/// The contents between the two seqs, the upper one included, locked until the transaction ends: `(id, seq, content)` by seq.
pub fn lock_contents(tx: &Transaction, conversation_id: &str, above: u64, up_to: u64) -> Result<Vec<(String, u64, String)>, SqlError> {
    let mut contents: Vec<(String, u64, String)> = tx.rows(
        "UPDATE messages SET edit_count = edit_count WHERE conversation_id = $1 AND seq > $2 AND seq <= $3 \
         AND deleted_at IS NULL AND content IS NOT NULL RETURNING id, seq, content",
        params![uuid(conversation_id), above, up_to],
    )?;
    contents.sort_unstable_by_key(|(_, seq, _)| *seq);
    Ok(contents)
}

pub fn insert(tx: &Transaction, conversation_id: &str, message_id: &str, words: &[String]) -> Result<(), SqlError> {
    for words in words.chunks(WORD_ROWS_MAX) {
        let rows: Vec<String> = (3..3 + words.len()).map(|word| format!("($1, ${word}, $2)")).collect();
        let sql =
            format!("INSERT INTO message_words (conversation_id, word, message_id) VALUES {} ON CONFLICT DO NOTHING", rows.join(", "));
        let mut values = params![uuid(conversation_id), uuid(message_id)];
        values.extend(words.iter().map(Value::from));
        tx.execute(&sql, values)?;
    }
    Ok(())
}

pub fn delete(tx: &Transaction, message_id: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM message_words WHERE message_id = $1", params![uuid(message_id)])?;
    Ok(())
}

/// Moves on from where it was seen.
pub fn set_indexed(tx: &Transaction, conversation_id: &str, from: u64, to: u64) -> Result<(), SqlError> {
    tx.execute("UPDATE conversations SET indexed_seq = $3 WHERE id = $1 AND indexed_seq = $2", params![uuid(conversation_id), from, to])?;
    Ok(())
}

/// Messages of the user's conversations, or of one of them, that have for each of these a word that begins with it; the newest first, before the id.
/// Whether the user sees them is another question.
pub fn candidates(
    user_id: &str,
    conversation_id: Option<&str>,
    words: &[String],
    before_id: &str,
    limit: i64,
) -> Result<Vec<String>, SqlError> {
    let Some((first, further)) = words.split_first() else { return Ok(Vec::new()) };
    let (from, below) = beginning_with(first);
    let mut values = params![uuid(user_id), from, below, uuid(before_id), limit];
    let mut sql = "SELECT DISTINCT w.message_id FROM participants me JOIN message_words w ON w.conversation_id = me.conversation_id \
        WHERE me.user_id = $1 AND w.word >= $2 AND w.word < $3 AND w.message_id < $4"
        .to_owned();
    if let Some(conversation_id) = conversation_id {
        values.push(uuid(conversation_id));
        sql.push_str(" AND me.conversation_id = $6");
    }
    for word in further {
        let (from, below) = beginning_with(word);
        let number = values.len();
        values.extend(params![from, below]);
        sql.push_str(&format!(
            " AND EXISTS (SELECT 1 FROM message_words x WHERE x.message_id = w.message_id AND x.word >= ${} AND x.word < ${})",
            number + 1,
            number + 2
        ));
    }
    sql.push_str(" ORDER BY w.message_id DESC LIMIT $5");
    let ids: Vec<(String,)> = Database.rows(&sql, values)?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

#[cfg(test)]
mod tests;
