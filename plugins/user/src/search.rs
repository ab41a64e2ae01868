//! Finding people: by the beginning of a name or of a word in it, or by a whole number where its owner lets the viewer find it.

use echo_sdk::text::fold;
use echo_sdk::{Error, Id, Page, caller};

use crate::bindings::exports::echo::user::api::{Profiles, SearchRequest};
use crate::fold::prefix_range;
use crate::numbers::{self, Purpose};
use crate::privacy::shown;
use crate::store;

/// Sorts before every user's id.
const FIRST_ID: &str = "00000000-0000-0000-0000-000000000000";

pub fn search(request: SearchRequest) -> Result<Profiles, Error> {
    let viewer = caller()?.user_id;
    let query = request.q.trim();
    // White space around the query was counted with it.
    if query.chars().nth(1).is_none() {
        return Ok(Profiles { items: Vec::new(), next_cursor: None });
    }
    let page = Page::<(String, Id)>::new(request.limit, request.cursor.as_deref())?;
    if let Some(phone) = as_phone(query) {
        let found = numbers::find(&viewer, &[phone], Purpose::Search)?;
        return Ok(Profiles { items: found.into_iter().map(|seen| shown(seen, &viewer)).collect(), next_cursor: None });
    }
    let range = prefix_range(&fold(query));
    let after = page.after.clone().map_or_else(|| (String::new(), FIRST_ID.to_owned()), |(part, Id(id))| (part, id));
    let found = store::found_by_name(&viewer, &range, &after, page.fetch())?;
    let (found, next_cursor) = page.finish(found, |found| (found.part.clone(), Id(found.seen.profile.id.clone())));
    Ok(Profiles { items: found.into_iter().map(|found| shown(found.seen, &viewer)).collect(), next_cursor })
}

/// The number in E.164 form where the query is meant as one: a plus sign, then digits with the usual signs between them. In a query string
/// an unescaped plus arrives as a space and is trimmed away, so digits alone count too.
fn as_phone(query: &str) -> Option<String> {
    let digits: String = query.trim_start_matches('+').chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.')).collect();
    let whole = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    whole.then(|| format!("+{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_names() {
        for (query, expect) in [
            ("+1 (202) 555-0100", Some("+12025550100")),
            ("+919876543210", Some("+919876543210")),
            ("919876543210", Some("+919876543210")),
            ("+1202", None),
            ("ada", None),
            ("1984", None),
            ("+0123456789", None),
        ] {
            assert_eq!(as_phone(query).as_deref(), expect, "{query}");
        }
    }
}
