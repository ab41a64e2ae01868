//! Lists of the operator API as tables of text. Knows which members of a list are shown, and no more of the API.

use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// A column's heading and the member it shows (a JSON pointer, RFC 6901).
pub type Column = (&'static str, &'static str);

pub(super) const LIST_COLUMNS: [Column; 13] = [
    ("SERVICE", "/name"),
    ("VERSION", "/active"),
    ("STATE", "/state"),
    ("GENERATION", "/generation"),
    ("CALLS", "/traffic/calls"),
    ("ERRORS", "/traffic/errors"),
    ("TRAPS", "/traffic/traps"),
    ("P50_US", "/traffic/p50_us"),
    ("P99_US", "/traffic/p99_us"),
    ("INSTANCES", "/instances"),
    ("BREAKER", "/breaker"),
    ("BAD", "/bad_versions"),
    ("LAST_CHANGE", "/last_change/action"),
];

pub(super) const TOKEN_COLUMNS: [Column; 6] = [
    ("NAME", "/name"),
    ("SCOPES", "/scopes"),
    ("CREATED_BY", "/created_by"),
    ("CREATED_AT", "/created_at"),
    ("EXPIRES_AT", "/expires_at"),
    ("USED_AT", "/used_at"),
];

pub(super) const AUDIT_COLUMNS: [Column; 6] =
    [("AT", "/at"), ("OPERATOR", "/operator"), ("NODE", "/node"), ("REQUEST", "/request"), ("STATUS", "/status"), ("DETAIL", "/detail")];

pub(super) const HISTORY_COLUMNS: [Column; 9] = [
    ("AT", "/at"),
    ("ACTION", "/action"),
    ("OPERATOR", "/operator"),
    ("NODE", "/node"),
    ("VERSION", "/version"),
    ("SHA256", "/sha256"),
    ("GRANTED", "/granted"),
    ("FORCED", "/forced"),
    ("REASON", "/reason"),
];

/// The list's items, one line each, with the columns that any of them has; none for an empty list.
pub fn table(columns: &[Column], list: &Value) -> Option<String> {
    let items = list["items"].as_array().or(list.as_array())?;
    if items.is_empty() {
        return None;
    }
    let columns: Vec<_> = columns.iter().filter(|(_, member)| items.iter().any(|item| !member_of(item, member).is_null())).collect();
    let heading = columns.iter().map(|(heading, _)| heading.to_string()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|(_, member)| cell(member_of(item, member))).collect());
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |(number, row): (usize, &Vec<String>)| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| painted(number == 0, cell, *width)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    Some(rows.iter().enumerate().map(line).collect::<Vec<_>>().join("\n"))
}

/// Headings, and states that are good or bad, in colours. Whoever prints it leaves them out where it is no terminal.
fn painted(is_heading: bool, cell: &str, width: usize) -> String {
    let style = match cell {
        _ if is_heading => Style::new().bold(),
        "live" => AnsiColor::Green.on_default(),
        "failing" | "open" | "off" => AnsiColor::Red.on_default(),
        _ => return format!("{cell:width$}"),
    };
    let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
    format!("{style}{cell}{style:#}{padding}")
}

fn member_of<'a>(item: &'a Value, pointer: &str) -> &'a Value {
    item.pointer(pointer).unwrap_or(&Value::Null)
}

pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
