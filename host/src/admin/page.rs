//! Which part of a list is asked for: `limit`, and what else the list takes.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use super::AdminError;
use echo_base::limits;
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
}
