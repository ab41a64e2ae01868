//! Which part of a list is asked for: `limit`, `cursor` where there are further pages, and what else the list takes.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use super::AdminError;
use echo_base::limits;
use echo_contract::codec::CursorScope;
use echo_edge::problem::Problem;

pub(super) struct Page<'a> {
    /// 1 to `OPERATOR_PAGE_MAX`.
    pub limit: usize,
    pub others: BTreeMap<&'a str, &'a str>,
}

impl<'a> Page<'a> {
    /// `known`: what the list takes besides `limit`. Errors: 400 `unknown_option`, so that a misspelt one is no other page; 422 for a limit out of its range.
    pub(super) fn read(query: &'a [(String, String)], known: &[&str]) -> Result<Self, AdminError> {
        let mut page = Self { limit: limits::PAGE_DEFAULT, others: BTreeMap::new() };
        for (name, value) in query {
            match name.as_str() {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=limits::OPERATOR_PAGE_MAX).contains(limit));
                    page.limit = limit.ok_or_else(|| {
                        AdminError(Problem::invalid("limit", "out_of_range", format!("1 to {}", limits::OPERATOR_PAGE_MAX)))
                    })?;
                }
                name if known.contains(&name) => drop(page.others.insert(name, value)),
                _ => {
                    let options = ["limit"].iter().chain(known).copied().collect::<Vec<_>>().join(" and ");
                    let detail = format!("{name}={value} is no option of this list; there are {options}.");
                    return Err(AdminError(Problem::new(StatusCode::BAD_REQUEST, "unknown_option", detail)));
                }
            }
        }
        Ok(page)
    }

    /// What the list sealed as the cursor of this page; none for the first. Errors: 422 `cursor_invalid` for any other text.
    pub(super) fn cursor<T: std::str::FromStr>(&self, scope: &CursorScope) -> Result<Option<T>, AdminError> {
        let open = |sealed: &&str| {
            let opened = scope.open(sealed).and_then(|cursor| cursor.parse().ok());
            opened.ok_or_else(|| {
                AdminError(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "cursor_invalid", "It is no next_cursor of this list."))
            })
        };
        self.others.get("cursor").map(open).transpose()
    }
}
