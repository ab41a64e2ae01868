//! SQL scripts: one or more statements that run one after another, with what is known of each since it was first prepared.

use std::sync::{Arc, OnceLock};

use rusqlite::Statement;

use super::values::Params;
use crate::sql::SqlError;

/// Statements that run one after another. All get the same parameters, and each uses those that it names (`$1`, `$2` …).
#[derive(Clone)]
pub struct Script {
    pub statements: Arc<[ScriptStatement]>,
    /// Keep its statements prepared in the connection's cache.
    pub keep: bool,
}

/// One statement of a script.
pub struct ScriptStatement {
    pub sql: Arc<str>,
    /// See `order_of`; set when it is first prepared.
    order: OnceLock<Box<[usize]>>,
}

impl ScriptStatement {
    fn new(sql: impl Into<Arc<str>>) -> Self {
        Self { sql: sql.into(), order: OnceLock::new() }
    }

    /// Binds the parameters that it names to its prepared statement.
    pub fn bind(&self, params: &Params, statement: &mut Statement<'_>) -> Result<(), SqlError> {
        params.bind(statement, self.order.get_or_init(|| order_of(statement)))
    }
}

impl Script {
    pub fn new(sql: impl Into<Arc<str>>) -> Self {
        Self { statements: [ScriptStatement::new(sql)].into(), keep: true }
    }

    pub fn all<'a>(statements: impl IntoIterator<Item = &'a str>) -> Self {
        Self { statements: statements.into_iter().map(ScriptStatement::new).collect(), keep: true }
    }

    /// Not kept prepared: for a text that is long, or runs once.
    pub fn once(self) -> Self {
        Self { keep: false, ..self }
    }
}

/// The numbers of a statement's parameters, in the order that SQLite gives them (that of their first mention); 0 for what is no number.
fn order_of(statement: &Statement<'_>) -> Box<[usize]> {
    let number = |index| statement.parameter_name(index)?.get(1..)?.parse().ok();
    (1..=statement.parameter_count()).map(|index| number(index).unwrap_or(0)).collect()
}
