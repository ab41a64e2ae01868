//! The feeds as the other engine keeps them, for a move there (`sql::transfer`): the SELECTs that give its rows from this file. Users are known by their ids
//! there, what is kept in a row here and derived there is derived, and what is in rows of its own here is in arrays there.

use super::{ACKED, HEAD, reached};
use crate::sql::transfer::Part;

/// Everything but the outbox. A member of a payload whose entry has left the feed has no number any more: it is kept as number 0, which counts as acknowledged,
/// where it was, and left out where it was not.
pub fn parts() -> Vec<Part> {
    let reached = reached();
    // No index leads from a payload to its entries: so both sides are read once, and what is on one of them alone is found by sorting.
    let members = format!(
        "SELECT entry.payload AS payload, person.uuid AS uuid, entry.seq AS seq FROM feed_entry AS entry
            JOIN feed_payload AS payload ON payload.id = entry.payload JOIN feed_user AS person ON person.id = entry.user
            WHERE payload.receipt IS NOT NULL
         UNION ALL SELECT payload.id, person.uuid, 0 FROM (
                SELECT payload.id AS id, member.value AS user FROM feed_payload AS payload JOIN json_each(payload.users) AS member
                    WHERE payload.receipt IS NOT NULL
                EXCEPT SELECT payload, user FROM feed_entry) AS payload
            JOIN feed_user AS person ON person.id = payload.user
            WHERE payload.id <= {reached} AND NOT EXISTS (SELECT 1 FROM feed_gap AS gap
                WHERE gap.user = person.id AND payload.id > gap.above_payload AND payload.id <= gap.up_to_payload)"
    );
    let part = |table: &str, from: String, columns: &[&str], key: usize| Part {
        name: format!("feeds.{table}"),
        from,
        to: format!("echo.{table}"),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        key: (0..key).collect(),
    };
    vec![
        part(
            "feed_user",
            format!(
                "SELECT person.uuid, {HEAD}, {ACKED}, coalesce((SELECT json_group_array(bound) FROM (
                        SELECT above AS bound, above AS place, 0 AS is_end FROM feed_gap WHERE user = person.id
                        UNION ALL SELECT up_to, above, 1 FROM feed_gap WHERE user = person.id ORDER BY place, is_end)), '[]')
                    FROM feed_user AS person"
            ),
            &["id", "head", "acked", "gaps"],
            1,
        ),
        part(
            "feed_payload",
            format!(
                "WITH member AS ({members}), listed AS (
                    SELECT payload, json_group_array(uuid) AS users, json_group_array(seq) AS seqs FROM member GROUP BY payload)
                 SELECT payload.id, payload.event, payload.body, payload.receipt,
                    CASE WHEN payload.receipt IS NOT NULL THEN coalesce(listed.users, '[]') END,
                    CASE WHEN payload.receipt IS NOT NULL THEN coalesce(listed.seqs, '[]') END, payload.subject, payload.at_us
                    FROM feed_payload AS payload LEFT JOIN listed ON listed.payload = payload.id"
            ),
            &["id", "event", "body", "receipt", "users", "seqs", "subject", "at_us"],
            1,
        ),
        part(
            "feed_entry",
            "SELECT person.uuid, entry.seq, entry.payload FROM feed_entry AS entry JOIN feed_user AS person ON person.id = entry.user"
                .to_owned(),
            &["user_id", "seq", "payload"],
            2,
        ),
        part(
            "feed_cursor",
            "SELECT person.uuid, noted.device, noted.seq, noted.above, noted.at_us
                FROM feed_cursor AS noted JOIN feed_user AS person ON person.id = noted.user"
                .to_owned(),
            &["user_id", "device", "seq", "above", "at_us"],
            2,
        ),
        part("feed_waiting", "SELECT source, id, push FROM feed_waiting".to_owned(), &["source", "id", "push"], 2),
    ]
}
