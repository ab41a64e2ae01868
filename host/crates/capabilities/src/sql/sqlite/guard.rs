//! What a service may say to its database: one statement of five kinds, its own tables, numbered parameters. Everything that could
//! reach beyond (ATTACH, PRAGMA, VACUUM, transaction control, the host's tables) is refused before SQLite sees it.
//!
//! It reads tokens as SQLite's own tokenizer does (<https://www.sqlite.org/lang_keywords.html>, `tokenize.c`), so that no quoting or comment
//! hides a name. The kinds are a list of what is allowed, so that a new statement of SQLite is refused by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::functions;
use super::script::Script;
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// A statement that was found harmless.
pub struct Checked {
    sql: Arc<str>,
    /// Short enough to be kept prepared.
    keep: bool,
    pub script: Script,
    /// May run on a connection that only reads.
    pub reads: bool,
    /// Changes rows, so that their count means something.
    pub changes: bool,
    /// Names RECURSIVE: it may run for long on no data at all.
    pub is_recursive: bool,
    /// Names a function whose work grows with its values.
    pub is_linear: bool,
    pub params: usize,
    pub haste: Haste,
}

/// What a run took. Work is counted by the checks of the time, which come with the steps. `took` is the time of the processor on a thread of the
/// service's own, where it may wait long for its turn, and else the clock's.
#[derive(Clone, Copy)]
pub struct Effort {
    pub checks: u64,
    pub took: Duration,
}

/// Whether a statement has been quick so far.
pub struct Haste {
    /// Runs until it is trusted again; one at first.
    mistrusted_runs: AtomicU32,
}

impl Haste {
    pub fn is_quick(&self) -> bool {
        self.mistrusted_runs.load(Ordering::Relaxed) == 0
    }

    pub fn note(&self, effort: Effort) {
        // Two at once may count as one, which decides nothing.
        let runs = if effort.checks > limits::SQLITE_QUICK_CHECKS || effort.took > Duration::from_micros(limits::SQLITE_QUICK_US) {
            limits::SQLITE_MISTRUSTED_RUNS
        } else {
            self.mistrusted_runs.load(Ordering::Relaxed).saturating_sub(1)
        };
        self.mistrusted_runs.store(runs, Ordering::Relaxed);
    }
}

/// Remembers the verdicts, as the same few texts come again and again.
#[derive(Default)]
pub struct Guard {
    known: Mutex<HashMap<Arc<str>, Arc<Checked>>>,
}

impl Guard {
    pub fn check(&self, sql: &str) -> Result<Arc<Checked>, SqlError> {
        if let Some(checked) = self.known.lock().get(sql) {
            return Ok(checked.clone());
        }
        let checked = Arc::new(check(sql).map_err(|reason| SqlError {
            class: ErrorClass::Other,
            constraint: None,
            sqlstate: Some("42000".to_owned()),
            message: format!("refused: {reason}"),
        })?);
        if checked.keep {
            let mut known = self.known.lock();
            // Full: begin anew. A service has some dozens of texts; who makes thousands gains nothing from this anyway.
            if known.len() >= limits::SQLITE_STATEMENTS_KEPT {
                known.clear();
            }
            known.insert(checked.sql.clone(), checked.clone());
        }
        Ok(checked)
    }
}

fn check(sql: &str) -> Result<Checked, String> {
    if sql.len() > limits::SQL_STATEMENT_BYTES_MAX {
        return Err(format!("a statement is at most {} bytes long", limits::SQL_STATEMENT_BYTES_MAX));
    }
    let tokens = tokens(sql)?;
    let end = tokens.iter().position(|token| *token == Token::Semicolon).unwrap_or(tokens.len());
    if tokens[end..].iter().any(|token| *token != Token::Semicolon) {
        return Err("one statement at a time".to_owned());
    }
    let Some(Token::Word(first)) = tokens.first() else { return Err("no statement".to_owned()) };
    let changes = is_any(first, &["INSERT", "UPDATE", "DELETE"]);
    let with = is_any(first, &["WITH"]);
    if !changes && !with && !is_any(first, &["SELECT", "VALUES"]) {
        return Err(format!("{} is not for services; SELECT, VALUES, WITH, INSERT, UPDATE and DELETE are", first.to_uppercase()));
    }
    // A common table expression may stand before a change.
    let changes = changes
        || with
            && tokens.iter().any(|token| matches!(token, Token::Word(word) if is_any(word, &["INSERT", "UPDATE", "DELETE", "REPLACE"])));
    let mut params = 0;
    for token in &tokens {
        refuse_reserved(token)?;
        if let Token::Parameter(number) = token {
            params = params.max(*number);
        }
    }
    if params > limits::SQL_PARAMS_MAX {
        return Err(format!("at most {} parameters", limits::SQL_PARAMS_MAX));
    }
    let names = |wanted: &dyn Fn(&str) -> bool| {
        // A quoted name may be a function's too.
        tokens.iter().any(|token| matches!(token, Token::Word(word) | Token::Quoted(word) if wanted(word)))
    };
    let is_recursive = names(&|word| is_any(word, &["RECURSIVE"]));
    let is_linear = names(&functions::is_linear);
    let keep = sql.len() <= limits::SQLITE_STATEMENT_KEPT_BYTES_MAX;
    let sql: Arc<str> = sql.into();
    let script = Script::new(sql.clone());
    let script = if keep { script } else { script.once() };
    Ok(Checked {
        sql,
        keep,
        script,
        reads: !changes,
        changes,
        is_recursive,
        is_linear,
        params,
        haste: Haste { mistrusted_runs: AtomicU32::new(1) },
    })
}

fn is_any(word: &str, keywords: &[&str]) -> bool {
    keywords.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Names of the host (`_echo_…`), of SQLite's own tables (`sqlite_sequence` holds the outbox's positions) and of pragmas as functions.
fn refuse_reserved(token: &Token<'_>) -> Result<(), String> {
    // SQLite reads 'name' as an identifier where it expects one, so texts count as names too.
    let (Token::Word(name) | Token::Quoted(name)) = token else { return Ok(()) };
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if starts("_echo_") || starts("sqlite_") || starts("pragma_") || is_any(name, &["load_extension", "fts3_tokenizer"]) {
        return Err(format!("the name {name} is the host's"));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A keyword or a bare name.
    Word(&'a str),
    /// Between quotes or brackets, as written; a doubled quote inside stays doubled.
    Quoted(&'a str),
    Number(&'a str),
    /// `$1` and so on.
    Parameter(usize),
    Semicolon,
    Other(char),
}

fn tokens(sql: &str) -> Result<Vec<Token<'_>>, String> {
    // To SQLite a byte order mark before a name is a blank, inside it is a letter.
    if sql.contains('\u{feff}') {
        return Err("a byte order mark inside a statement".to_owned());
    }
    let bytes = sql.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let in_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80;
    let mut tokens = Vec::with_capacity(32);
    let mut index = 0;
    while index < bytes.len() {
        let start = index;
        let byte = bytes[index];
        index += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => {}
            b'-' if at(index) == b'-' => {
                while index < bytes.len() && bytes[index] != b'\n' {
                    index += 1;
                }
            }
            b'/' if at(index) == b'*' => {
                let end = sql.get(index + 1..).and_then(|rest| rest.find("*/")).ok_or("a comment without its end")?;
                index += 1 + end + 2;
            }
            b'\'' | b'"' | b'`' | b'[' => {
                let quote = if byte == b'[' { b']' } else { byte };
                loop {
                    if index >= bytes.len() {
                        return Err("a quote without its end".to_owned());
                    }
                    index += 1;
                    if bytes[index - 1] == quote {
                        if quote != b']' && at(index) == quote {
                            index += 1;
                        } else {
                            break;
                        }
                    }
                }
                tokens.push(Token::Quoted(&sql[start + 1..index - 1]));
            }
            b'$' => {
                while in_word(at(index)) {
                    index += 1;
                }
                let number = sql[start + 1..index].parse::<usize>().ok().filter(|number| *number > 0 && at(start + 1) != b'0');
                match number {
                    // SQLite would read `$1::text` and `$1(…)` as one long name.
                    Some(number) if at(index) != b':' && at(index) != b'(' => tokens.push(Token::Parameter(number)),
                    _ => return Err("parameters are written $1, $2, …".to_owned()),
                }
            }
            b'?' | b':' | b'@' | b'#' => return Err("parameters are written $1, $2, …".to_owned()),
            0 => return Err("a NUL inside a statement".to_owned()),
            b'0'..=b'9' => {
                while in_word(at(index)) || at(index) == b'.' {
                    index += 1;
                }
                tokens.push(Token::Number(&sql[start..index]));
            }
            b';' => tokens.push(Token::Semicolon),
            _ if in_word(byte) => {
                while in_word(at(index)) {
                    index += 1;
                }
                tokens.push(Token::Word(&sql[start..index]));
            }
            _ => tokens.push(Token::Other(char::from(byte))),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sql: &str, expect: &str) {
        let reason = check(sql).err().unwrap_or_else(|| panic!("{sql:?} was let through"));
        assert!(reason.contains(expect), "{sql:?}: {reason:?} does not say {expect:?}");
    }

    #[test]
    fn what_services_write_is_let_through() {
        for (sql, reads, params) in [
            ("SELECT a, 'it''s; -- $9' FROM t WHERE b = $1 AND c IN ($2, $10)", true, 10),
            ("select 1 -- and no more; DELETE\n;", true, 0),
            ("INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING a;", false, 1),
            ("WITH x AS (SELECT 1) SELECT * FROM x", true, 0),
            ("WITH x AS (SELECT 1) DELETE FROM t WHERE a IN x", false, 0),
            ("/* one */ UPDATE \"t\" SET a = 1.5e3 WHERE b = X'00'", false, 0),
        ] {
            let checked = check(sql).unwrap_or_else(|reason| panic!("{sql:?}: {reason}"));
            assert_eq!((checked.reads, checked.params), (reads, params), "{sql:?}");
        }
    }

    #[test]
    fn what_reaches_beyond_is_refused() {
        for sql in [
            "ATTACH 'other.sqlite' AS o",
            "DETACH o",
            "PRAGMA query_only = 0",
            "VACUUM INTO 'x'",
            "BEGIN",
            "COMMIT",
            "end",
            "ROLLBACK",
            "SAVEPOINT a",
            "RELEASE a",
            "EXPLAIN SELECT 1",
            "CREATE TABLE t (a)",
            "DROP TABLE t",
            "REINDEX",
            "ANALYZE",
        ] {
            refused(sql, "not for services");
            refused(&format!("/**/ {sql}"), "not for services");
            refused(&format!("SELECT 1; {sql}"), "one statement");
        }
        for sql in [
            "SELECT * FROM _echo_outbox",
            "SELECT * FROM \"_Echo_outbox\"",
            "SELECT * FROM [_ECHO_meta]",
            "SELECT * FROM `_echo_meta`",
            "SELECT * FROM main.'_echo_meta'",
            "SELECT * FROM/**/_echo_meta",
            "UPDATE sqlite_sequence SET seq = 0",
            "SELECT * FROM pragma_table_info('t')",
            "SELECT load_extension('x')",
            "SELECT \"load_extension\"('x')",
        ] {
            refused(sql, "the host's");
        }
        for sql in [
            "SELECT ?",
            "SELECT ?1",
            "SELECT :a",
            "SELECT @a",
            "SELECT $a",
            "SELECT $0",
            "SELECT $1::text",
            "SELECT $1a",
            "SELECT $01",
            "SELECT $1('), * FROM _echo_outbox --')",
        ] {
            refused(sql, "$1");
        }
        refused("", "no statement");
        refused(" ; ", "no statement");
        refused("-- nothing", "no statement");
        refused("SELECT 'a", "without its end");
        refused("SELECT 1 /* a", "without its end");
        refused("SELECT * FROM \u{feff}_echo_outbox", "byte order");
        refused("SELECT 1\0; DROP TABLE t", "NUL");
        refused(&format!("SELECT ${}", limits::SQL_PARAMS_MAX + 1), "parameters");
        refused(&format!("SELECT '{}'", "a".repeat(limits::SQL_STATEMENT_BYTES_MAX)), "bytes long");
    }
}
