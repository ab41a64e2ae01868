//! The whitelist for a service's statements, on any engine: one statement of five kinds, its own tables, numbered parameters. What could reach further (other
//! databases, settings, transaction control, other roles, the host's tables) is refused before the engine sees it.
//!
//! It reads tokens as the engine's own tokenizer does (<https://www.sqlite.org/lang_keywords.html> and `tokenize.c`;
//! <https://www.postgresql.org/docs/15/sql-syntax-lexical.html>), so that no quoting or comment hides a name. The kinds are a list of what is allowed, so
//! that a new statement of an engine is refused by itself. What each engine has beyond: `functions` for SQLite's, `postgres::statement_check`.

use echo_base::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// A statement whose tokens passed the whitelist.
pub struct Statement<'a> {
    pub tokens: Vec<Token<'a>>,
    /// Changes rows; false for one that only reads.
    pub changes: bool,
    pub params: usize,
}

impl Statement<'_> {
    /// Whether any name or keyword is one of these. A quoted name may be a function's too.
    pub fn names(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.tokens.iter().any(|token| matches!(token, Token::Word(word) | Token::Quoted(word) if wanted(word)))
    }
}

/// Checks the text of one statement. Errors: why it is refused.
pub fn check(sql: &str, dialect: Dialect) -> Result<Statement<'_>, String> {
    if sql.len() > limits::SQL_STATEMENT_BYTES_MAX {
        return Err(format!("a statement is at most {} bytes long", limits::SQL_STATEMENT_BYTES_MAX));
    }
    let tokens = tokens(sql, dialect)?;
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
    // A common table expression may stand before a change, and on PostgreSQL be one.
    let changes = changes
        || with
            && tokens.iter().any(|token| matches!(token, Token::Word(word) if is_any(word, &["INSERT", "UPDATE", "DELETE", "REPLACE"])));
    let mut params = 0;
    for token in &tokens {
        refuse_reserved(token, dialect)?;
        if let Token::Parameter(number) = token {
            params = params.max(*number);
        }
    }
    if params > limits::SQL_PARAMS_MAX {
        return Err(format!("at most {} parameters", limits::SQL_PARAMS_MAX));
    }
    Ok(Statement { tokens, changes, params })
}

pub fn is_any(word: &str, keywords: &[&str]) -> bool {
    keywords.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Names of the host (`_echo_…`) and of the engine's own tables and functions.
fn refuse_reserved(token: &Token<'_>, dialect: Dialect) -> Result<(), String> {
    // SQLite reads 'name' as an identifier where it expects one, so texts count as names too.
    let (Token::Word(name) | Token::Quoted(name)) = token else { return Ok(()) };
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let is_reserved = match dialect {
        // `sqlite_sequence` held the outbox's positions; pragmas are functions too.
        Dialect::Sqlite => starts("sqlite_") || starts("pragma_") || is_any(name, &["load_extension", "fts3_tokenizer"]),
        // `pg_sleep`, `pg_authid`, `pg_read_file`; large objects; types whose values name what is in the catalogue.
        Dialect::Postgres => {
            starts("pg_") || starts("lo_") || starts("dblink") || is_any(name, &CATALOGUE_TYPES) || is_any(name, &SESSION_NAMES)
        }
    };
    if starts("_echo_") || is_reserved {
        return Err(format!("the name {name} is the host's"));
    }
    Ok(())
}

/// <https://www.postgresql.org/docs/15/datatype-oid.html>
const CATALOGUE_TYPES: [&str; 11] = [
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];
/// Functions that read or change the connection or the server.
const SESSION_NAMES: [&str; 8] = [
    "current_catalog",
    "current_role",
    "current_schema",
    "current_setting",
    "current_user",
    "information_schema",
    "session_user",
    "set_config",
];

/// Those that both dialects have. `sqlite::functions` says which of them SQLite has beyond these.
const SHARED_FUNCTIONS: [&str; 36] = [
    "abs",
    "avg",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "length",
    "lower",
    "ltrim",
    "max",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "upper",
];

/// Whether services and their migrations may use the function on PostgreSQL; for SQLite's see `sqlite::functions`.
pub fn is_postgres_function(name: &str) -> bool {
    is_any(name, &SHARED_FUNCTIONS) || name.eq_ignore_ascii_case("trim")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword or a bare name.
    Word(&'a str),
    /// Between quotes or brackets, as written; a doubled quote inside stays doubled. On PostgreSQL an identifier.
    Quoted(&'a str),
    /// On PostgreSQL: a text, which is never a name.
    Text,
    Number(&'a str),
    /// `$1` and so on.
    Parameter(usize),
    Semicolon,
    Other(char),
}

fn tokens(sql: &str, dialect: Dialect) -> Result<Vec<Token<'_>>, String> {
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
                // PostgreSQL's comments nest, SQLite's do not: a comment with different meanings is refused.
                if sql[index + 1..index + 1 + end].contains("/*") {
                    return Err("a comment in a comment".to_owned());
                }
                index += 1 + end + 2;
            }
            // An array's subscript, and no quote of PostgreSQL's.
            b'`' | b'[' if dialect == Dialect::Postgres => return Err("brackets and backquotes are not for services".to_owned()),
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
                let is_text = dialect == Dialect::Postgres && byte == b'\'';
                tokens.push(if is_text { Token::Text } else { Token::Quoted(&sql[start + 1..index - 1]) });
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
                // PostgreSQL: E'…' has escapes, U&"…" spells names, B'…', X'…' and N'…' are of other types, as is any type's name before a text.
                if dialect == Dialect::Postgres
                    && (matches!(at(index), b'\'' | b'"') || at(index) == b'&' && matches!(at(index + 1), b'\'' | b'"'))
                {
                    return Err("a prefix before a quote".to_owned());
                }
                tokens.push(Token::Word(&sql[start..index]));
            }
            _ => tokens.push(Token::Other(char::from(byte))),
        }
    }
    Ok(tokens)
}
