//! Statements as texts: what is run again and again, and what is known of it since its first run.

use std::sync::{Arc, OnceLock};

use rusqlite::Statement;

use super::values::Params;
use crate::sql::SqlError;

/// Statements to be run one after another, each with the parameters that it names.
#[derive(Clone)]
pub struct Script {
    pub statements: Arc<[Text]>,
    /// Worth keeping prepared.
    pub keep: bool,
}

/// One of them.
pub struct Text {
    pub sql: Arc<str>,
    /// See `order_of`; known once it was prepared.
    order: OnceLock<Box<[usize]>>,
}

impl Text {
    fn new(sql: impl Into<Arc<str>>) -> Self {
        Self { sql: sql.into(), order: OnceLock::new() }
    }

    /// Gives the statement that was prepared of it those of the parameters that it names.
    pub fn bind(&self, params: &Params, statement: &mut Statement<'_>) -> Result<(), SqlError> {
        params.bind(statement, self.order.get_or_init(|| order_of(statement)))
    }
}

impl Script {
    pub fn new(sql: impl Into<Arc<str>>) -> Self {
        Self { statements: [Text::new(sql)].into(), keep: true }
    }

    pub fn all<'a>(statements: impl IntoIterator<Item = &'a str>) -> Self {
        Self { statements: statements.into_iter().map(Text::new).collect(), keep: true }
    }

    /// Not kept prepared: it is too long, or comes once.
    pub fn once(self) -> Self {
        Self { keep: false, ..self }
    }
}

/// The numbers of a statement's parameters, in the order that SQLite gives them (that of their first mention); 0 for what is no number.
fn order_of(statement: &Statement<'_>) -> Box<[usize]> {
    let number = |index| statement.parameter_name(index)?.get(1..)?.parse().ok();
    (1..=statement.parameter_count()).map(|index| number(index).unwrap_or(0)).collect()
}
