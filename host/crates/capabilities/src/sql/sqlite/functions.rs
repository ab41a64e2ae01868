//! SQL functions for services: those that both dialects have and whose work is bounded by the length of a value. SQLite cannot be
//! interrupted inside a function, so one that could run for long (`instr` and `replace` compare at every place, LIKE tries every split) is refused or replaced here.
//!
//! The list says what is allowed. SQLite's authorizer asks for it while a statement is prepared (<https://www.sqlite.org/c3ref/set_authorizer.html>):
//! a new function of SQLite is refused by itself, and no spelling hides a name.

use std::sync::Arc;

use memchr::memmem::Finder;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};

use super::progress::{Progress, StatementOwner};
use echo_base::limits;

/// Their work does not grow with the values.
const CONSTANT_TIME: [&str; 29] = [
    "abs",
    "avg",
    "coalesce",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "dense_rank",
    "first_value",
    "ifnull",
    "iif",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "percent_rank",
    "rank",
    "round",
    "row_number",
    "sign",
    "sum",
    "total",
    "typeof",
    "if",
];

/// Their work grows with the length of their arguments: a statement that calls one never runs on a serving thread.
const LINEAR_TIME: [&str; 14] = [
    "concat",
    "concat_ws",
    "group_concat",
    "length",
    "like",
    "lower",
    "ltrim",
    "octet_length",
    "replace",
    "rtrim",
    "string_agg",
    "substr",
    "substring",
    "upper",
];
const TRIM: &str = "trim";

fn is_any(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether services and their migrations may use the function.
pub fn is_allowed(name: &str) -> bool {
    is_any(name, &CONSTANT_TIME) || is_linear(name)
}

/// Whether the word names a function whose work grows with its values.
pub fn is_linear(word: &str) -> bool {
    is_any(word, &LINEAR_TIME) || word.eq_ignore_ascii_case(TRIM)
}

/// Installs the authorizer, and replaces the functions that could run for long.
pub fn install(connection: &Connection, progress: &Arc<Progress>) -> rusqlite::Result<()> {
    let asked = progress.clone();
    connection.authorizer(Some(move |context: AuthContext<'_>| authorize(asked.owner(), &context.action)))?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for (count, clock) in [(2, progress.clone()), (3, progress.clone())] {
        connection.create_scalar_function("like", count, flags, move |context| like(context, &clock))?;
    }
    let clock = progress.clone();
    connection.create_scalar_function("replace", 3, flags, move |context| replace(context, &clock))?;
    for (name, start, end) in [("trim", true, true), ("ltrim", true, false), ("rtrim", false, true)] {
        connection.create_scalar_function(name, 2, flags, move |context| trim(context, start, end))?;
    }
    Ok(())
}

/// A second check behind that of the statements' texts (`statement_check`), and the only one for functions.
fn authorize(owner: StatementOwner, action: &AuthAction<'_>) -> Authorization {
    let allowed = match (owner, action) {
        (StatementOwner::Host, _) => true,
        // `sql::migration` has checked the text; this is SQLite's own account of it, in case the two parse it differently. What SQLite does internally
        // (changing `sqlite_master`, checking rows by its own functions) is allowed.
        (StatementOwner::Migration, action) => match action {
            AuthAction::CreateTable { .. }
            | AuthAction::CreateIndex { .. }
            | AuthAction::AlterTable { .. }
            | AuthAction::Reindex { .. }
            | AuthAction::Select
            | AuthAction::Read { .. }
            | AuthAction::Insert { .. }
            | AuthAction::Function { .. }
            | AuthAction::Pragma { pragma_name: "quick_check", .. } => true,
            AuthAction::Update { table_name, .. } | AuthAction::Delete { table_name } => table_name.starts_with("sqlite_"),
            _ => false,
        },
        // Row by row: the truncate optimisation is one step, which cannot be interrupted.
        (_, AuthAction::Delete { table_name }) if !is_hosts(table_name) => return Authorization::Ignore,
        (_, AuthAction::Select) => true,
        (owner, AuthAction::Recursive) => owner == StatementOwner::RecursiveService,
        (_, AuthAction::Function { function_name }) => is_allowed(function_name),
        (_, AuthAction::Read { table_name, .. } | AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. }) => {
            !is_hosts(table_name)
        }
        _ => false,
    };
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

/// Table-valued functions, which are there without CREATE TABLE.
const EPONYMOUS_TABLES: [&str; 6] = ["dbstat", "fts3tokenize", "json_each", "json_tree", "jsonb_each", "jsonb_tree"];

fn is_hosts(table: &str) -> bool {
    let starts = |prefix: &str| table.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts("_echo_") || starts("sqlite_") || starts("pragma_") || is_any(table, &EPONYMOUS_TABLES)
}

/// A text as SQLite sees it; none for NULL.
fn text(context: &Context<'_>, index: usize) -> rusqlite::Result<Option<Vec<u8>>> {
    Ok(match context.get_raw(index) {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value.to_string().into_bytes()),
        ValueRef::Real(value) => Some(value.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    })
}

fn too_big() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None)
}

/// To be called after a piece of work. Errors: the statement must end.
fn in_time(progress: &Progress) -> rusqlite::Result<()> {
    if progress.must_end() { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None)) } else { Ok(()) }
}

fn as_text(bytes: Vec<u8>) -> rusqlite::Result<String> {
    String::from_utf8(bytes).map_err(|error| rusqlite::Error::Utf8Error(0, error.utf8_error()))
}

/// `replace(X, Y, Z)`: every Y in X becomes Z. In linear time, where SQLite's own compares Y at every place.
fn replace(context: &Context<'_>, progress: &Progress) -> rusqlite::Result<Option<String>> {
    let (Some(whole), Some(old), Some(new)) = (text(context, 0)?, text(context, 1)?, text(context, 2)?) else { return Ok(None) };
    if old.is_empty() {
        return as_text(whole).map(Some);
    }
    let finder = Finder::new(&old);
    let mut replaced = Vec::with_capacity(whole.len());
    let mut from = 0;
    while let Some(at) = finder.find(&whole[from..]) {
        replaced.extend_from_slice(&whole[from..from + at]);
        replaced.extend_from_slice(&new);
        from += at + old.len();
        if replaced.len() > limits::SQL_VALUE_BYTES_MAX {
            return Err(too_big());
        }
    }
    replaced.extend_from_slice(&whole[from..]);
    in_time(progress)?;
    as_text(replaced).map(Some)
}

/// `trim(X, Y)`: without the characters of Y at its ends. Each character is looked for in Y, so Y is bounded.
fn trim(context: &Context<'_>, start: bool, end: bool) -> rusqlite::Result<Option<String>> {
    let (Some(whole), Some(set)) = (text(context, 0)?, text(context, 1)?) else { return Ok(None) };
    let (whole, set) = (as_text(whole)?, as_text(set)?);
    if set.len() > limits::SQL_TRIM_SET_BYTES_MAX {
        return Err(too_big());
    }
    let is_in_set = |character: char| set.contains(character);
    let mut trimmed = whole.as_str();
    if start {
        trimmed = trimmed.trim_start_matches(is_in_set);
    }
    if end {
        trimmed = trimmed.trim_end_matches(is_in_set);
    }
    Ok(Some(trimmed.to_owned()))
}

/// `like(pattern, text[, escape])`, which is `text LIKE pattern`: `%` any text, `_` any character, ASCII letters in any case.
fn like(context: &Context<'_>, progress: &Progress) -> rusqlite::Result<Option<bool>> {
    let (Some(pattern), Some(whole)) = (text(context, 0)?, text(context, 1)?) else { return Ok(None) };
    if pattern.len() > limits::SQL_LIKE_PATTERN_BYTES_MAX {
        return Err(too_big());
    }
    let escape = if context.len() == 3 {
        let Some(escape) = text(context, 2)? else { return Ok(None) };
        let escape = as_text(escape)?;
        let mut characters = escape.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Some(character),
            _ => return Err(rusqlite::Error::UserFunctionError("ESCAPE expression must be a single character".into())),
        }
    } else {
        None
    };
    let pattern = parse_like(&String::from_utf8_lossy(&pattern), escape);
    let Some(pattern) = pattern else { return Ok(Some(false)) };
    matches(&pattern, &String::from_utf8_lossy(&whole), progress).map(Some)
}

#[derive(Clone, Copy, PartialEq)]
enum Like {
    /// In lower case.
    Character(char),
    AnyCharacter,
    AnyText,
}

/// None where the pattern ends in its escape: it matches nothing.
fn parse_like(pattern: &str, escape: Option<char>) -> Option<Vec<Like>> {
    let mut parsed = Vec::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parsed.push(if Some(character) == escape {
            Like::Character(characters.next()?.to_ascii_lowercase())
        } else if character == '%' {
            Like::AnyText
        } else if character == '_' {
            Like::AnyCharacter
        } else {
            Like::Character(character.to_ascii_lowercase())
        });
    }
    Some(parsed)
}

/// Greedy: only the last `%` is ever tried again, so the work is at most the product of the lengths; the time is checked meanwhile.
fn matches(pattern: &[Like], text: &str, progress: &Progress) -> rusqlite::Result<bool> {
    let (mut at, mut rest) = (0, text.chars());
    // Where the last `%` was, and from where the text after it is tried.
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    let mut steps = 0usize;
    loop {
        steps += 1;
        if steps.is_multiple_of(limits::SQL_FUNCTION_STEPS_PER_CHECK) {
            in_time(progress)?;
        }
        let mut next = rest.clone();
        let matched = match (pattern.get(at), next.next()) {
            (Some(Like::AnyText), _) => {
                retry = Some((at + 1, rest.clone()));
                at += 1;
                continue;
            }
            (None, None) => return Ok(true),
            (Some(Like::AnyCharacter), Some(_)) => true,
            (Some(Like::Character(wanted)), Some(found)) => *wanted == found.to_ascii_lowercase(),
            // Nothing of the text is left: no other place for the last `%` helps.
            (Some(_), None) => return Ok(false),
            (None, Some(_)) => false,
        };
        if matched {
            at += 1;
            rest = next;
            continue;
        }
        let Some((after, from)) = &mut retry else { return Ok(false) };
        from.next();
        (at, rest) = (*after, from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().expect("opens");
        install(&connection, &Arc::new(Progress::default())).expect("installs");
        connection
    }

    fn ask<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> T {
        connection.query_row(sql, (), |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// With SQLite's own functions.
    fn original<T: rusqlite::types::FromSql>(sql: &str) -> T {
        ask(&Connection::open_in_memory().expect("opens"), sql)
    }

    #[test]
    fn replaced_functions_answer_as_sqlites_own() {
        let connection = connection();
        for (text, pattern) in [
            ("", ""),
            ("", "%"),
            ("a", ""),
            ("abc", "abc"),
            ("ABC", "abc"),
            ("abc", "a%"),
            ("abc", "%c"),
            ("abc", "%b%"),
            ("abc", "_b_"),
            ("abc", "_"),
            ("abcabd", "%abd"),
            ("aaaab", "%aab"),
            ("äöü", "ä_ü"),
            ("Ä", "ä"),
            ("a%c", "a\\%c"),
            ("abc", "a\\%c"),
            ("a_c", "a\\_c"),
            ("abc", "%%%_%%"),
            ("abc", "abc\\"),
            ("mississippi", "m%is%p_"),
            ("mississippi", "m%is%x_"),
            ("12", "1%"),
        ] {
            for escape in ["", " ESCAPE '\\'"] {
                let sql = format!("SELECT '{text}' LIKE '{pattern}'{escape}");
                assert_eq!(ask::<bool>(&connection, &sql), original::<bool>(&sql), "{sql}");
            }
        }
        for sql in [
            "SELECT replace('aXbXc', 'X', '--')",
            "SELECT replace('aaa', 'aa', 'b')",
            "SELECT replace('abc', '', 'x')",
            "SELECT replace('abc', 'abc', '')",
            "SELECT replace(121, 1, 'x')",
            "SELECT trim('xxaxyx', 'xy')",
            "SELECT ltrim('xxax', 'x')",
            "SELECT rtrim('xxaxäx', 'xä')",
            "SELECT trim('  a ')",
        ] {
            assert_eq!(ask::<String>(&connection, sql), original::<String>(sql), "{sql}");
        }
        for sql in [
            "SELECT NULL LIKE 'a'",
            "SELECT 'a' LIKE NULL",
            "SELECT replace(NULL, 'a', 'b')",
            "SELECT replace('a', 'a', NULL)",
            "SELECT trim('a', NULL)",
        ] {
            assert_eq!(ask::<Option<String>>(&connection, sql), None, "{sql}");
        }
    }

    #[test]
    fn a_replaced_text_is_no_longer_than_a_value() {
        let sql = "SELECT length(replace($1, 'a', $1))";
        let many = "a".repeat(limits::SQL_VALUE_BYTES_MAX / 2);
        let error = connection().query_row(sql, [many], |row| row.get::<_, i64>(0)).expect_err("too long");
        assert_eq!(error.sqlite_error().expect("of SQLite").extended_code, ffi::SQLITE_TOOBIG);
    }
}
