//! What a service does to take part in account exports: it notes that there is one, in a table of its own (see README.md), and hands its part over by
//! pages. Nothing of the part is kept: each page is read when it is asked for, so what is deleted by then is in none.

use crate::sql::{Sql, SqlError, timestamp, uuid};
use crate::{Cursor, Error, Id, Page, Timestamp, params};

/// Sorts before every id.
const FIRST_ID: &str = "00000000-0000-0000-0000-000000000000";

/// A person's export may be read from now on. The same again changes nothing, and an older one does not take a newer one's place.
pub fn open(db: &impl Sql, user_id: &str, requested_at: Timestamp, expires_at: Timestamp) -> Result<(), SqlError> {
    let sql = "INSERT INTO open_exports (user_id, requested_at, expires_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO UPDATE SET \
        requested_at = excluded.requested_at, expires_at = excluded.expires_at WHERE open_exports.requested_at < excluded.requested_at";
    db.execute(sql, params![uuid(user_id), timestamp(requested_at), timestamp(expires_at)])?;
    Ok(())
}

/// When the export was asked for that the person may read: what came later is not in it. Errors: 404 where there is none, or none any more.
pub fn requested_at(db: &impl Sql, user_id: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let sql = "SELECT requested_at FROM open_exports WHERE user_id = $1 AND expires_at > $2";
    let found: Option<(Timestamp,)> = db.row(sql, params![uuid(user_id), timestamp(now)])?;
    found.map(|(at,)| at).ok_or_else(|| Error::not_found("no export was asked for, or it has expired"))
}

/// Forgets those that have expired, some of them. Call it from a schedule.
pub fn close_expired(db: &impl Sql, now: Timestamp, rows_max: u64) -> Result<(), SqlError> {
    let sql =
        "DELETE FROM open_exports WHERE user_id IN (SELECT user_id FROM open_exports WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    db.execute(sql, params![timestamp(now), rows_max])?;
    Ok(())
}

/// Of a person who was erased.
pub fn close(db: &impl Sql, user_id: &str) -> Result<(), SqlError> {
    db.execute("DELETE FROM open_exports WHERE user_id = $1", params![uuid(user_id)])?;
    Ok(())
}

/// Where in a section a page goes on: after a row of this id, and of this text where an id alone does not tell rows apart.
pub type RowKey = (Id, String);

/// A page of several lists that follow each other, the sections. It is filled with one after the other until it is full:
///
/// ```rust,ignore
/// let mut pages = Pages::new(request.limit, request.cursor.as_deref())?;
/// let contacts = pages.section(|after, limit| store::contacts_after(&me, after, limit), |contact| key(&contact.user_id))?;
/// let blocked = pages.section(|after, limit| store::blocks_after(&me, after, limit), |block| key(&block.user_id))?;
/// Ok(ExportedData { contacts, blocked, next_cursor: pages.next_cursor() })
/// ```
pub struct Pages {
    page: Page<(u64, RowKey)>,
    /// The section that the page begins with, and the last row of it that is on the page before.
    first: (u64, RowKey),
    /// The section that is read next.
    section: u64,
    left: u32,
    next: Option<(u64, RowKey)>,
}

impl Pages {
    /// Errors: 422 on a `cursor` that is none of this list's.
    pub fn new(limit: Option<u32>, cursor: Option<&str>) -> Result<Self, Error> {
        let page = Page::<(u64, RowKey)>::new(limit, cursor)?;
        let first = page.after.clone().unwrap_or_else(|| (0, before_all()));
        Ok(Self { left: page.limit, first, section: 0, next: None, page })
    }

    /// Whether nothing comes before this page.
    pub fn is_first(&self) -> bool {
        self.page.after.is_none()
    }

    /// The rows of the next section that are on this page. `read` gives so many rows after a key, in the order of their keys.
    pub fn section<T, E: Into<Error>>(
        &mut self,
        read: impl FnOnce(&RowKey, i64) -> Result<Vec<T>, E>,
        key_of: impl Fn(&T) -> RowKey,
    ) -> Result<Vec<T>, Error> {
        let section = self.section;
        self.section += 1;
        if section < self.first.0 || self.next.is_some() {
            return Ok(Vec::new());
        }
        let after = if section == self.first.0 { self.first.1.clone() } else { before_all() };
        if self.left == 0 {
            self.next = Some((section, after));
            return Ok(Vec::new());
        }
        let mut rows = read(&after, i64::from(self.left) + 1).map_err(Into::into)?;
        if rows.len() > self.left as usize {
            rows.truncate(self.left as usize);
            self.next = rows.last().map(|last| (section, key_of(last)));
        }
        self.left = self.left.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        Ok(rows)
    }

    /// None: all has been read.
    pub fn next_cursor(&self) -> Option<Cursor> {
        self.next.as_ref().map(|next| self.page.cursor(next))
    }
}

/// Of rows that their id tells apart.
pub fn key(id: &str) -> RowKey {
    (Id(id.to_owned()), String::new())
}

fn before_all() -> RowKey {
    key(FIRST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> String {
        format!("01890000-0000-7000-8000-{number:012}")
    }

    /// All pages of so many rows of sections of these lengths, each row as its section and number.
    fn pages_of(lengths: &[usize], limit: u32) -> Vec<Vec<(usize, usize)>> {
        let (mut cursor, mut all) = (None::<String>, Vec::new());
        loop {
            let mut pages = Pages::new(Some(limit), cursor.as_deref()).unwrap();
            assert_eq!(pages.is_first(), all.is_empty());
            let mut rows = Vec::new();
            for (section, length) in lengths.iter().enumerate() {
                let read = |after: &RowKey, limit: i64| {
                    let after = after.0.0.clone();
                    Ok::<_, Error>((1..=*length).map(id).filter(|id| **id > *after).take(limit as usize).collect::<Vec<_>>())
                };
                let found = pages.section(read, |id| key(id)).unwrap();
                rows.extend(found.iter().map(|id| (section, id[24..].parse().unwrap())));
            }
            all.push(rows);
            cursor = pages.next_cursor();
            if cursor.is_none() {
                return all;
            }
        }
    }

    #[test]
    fn every_row_of_every_section_is_on_one_page_and_no_page_has_more_than_asked_for() {
        for lengths in [&[][..], &[0], &[3, 0, 5], &[0, 0, 1], &[2, 2, 2], &[7, 1]] {
            let expect: Vec<(usize, usize)> =
                lengths.iter().enumerate().flat_map(|(section, length)| (1..=*length).map(move |number| (section, number))).collect();
            for limit in [1, 2, 3, 100] {
                let pages = pages_of(lengths, limit);
                assert!(pages.iter().all(|rows| rows.len() <= limit as usize), "{lengths:?} {limit}");
                assert_eq!(pages.concat(), expect, "{lengths:?} {limit}");
            }
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let of_another = Page::<u64>::new(None, None).unwrap().cursor(&7);
        let error = Pages::new(None, Some(&of_another)).err().expect("refused");
        assert_eq!(error.code, crate::page::CURSOR_INVALID);
    }
}
