//! The service's database: typed rows, parameters, and transactions that end as their closure does.

pub use crate::value::{FromValue, decimal, json, timestamp, uuid};
pub use crate::wit::sql::{ErrorClass, SqlError, Statement, Value};

use crate::wit::sql as raw;

/// Parameters, each by `Into<Value>`: `params![uuid(&id), "text", 5, timestamp(now)]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$($crate::wit::sql::Value::from($value)),*] };
}

/// Reads a struct from a row, columns in the order of the fields named here:
/// `from_row!(Account { id, phone, created_at });`
#[macro_export]
macro_rules! from_row {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::sql::FromRow for $name {
            fn from_row(row: &mut $crate::sql::Row) -> Result<Self, $crate::sql::SqlError> {
                Ok(Self { $($field: row.take()?),* })
            }
        }
    };
}

/// What can be asked of the database, with or without a transaction; write store functions over `&impl Sql`.
pub trait Sql {
    /// All rows, at most 10,000.
    fn rows<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Vec<T>, SqlError>;
    /// The first row, or none.
    fn row<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Option<T>, SqlError>;
    /// How many rows were changed.
    fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError>;

    /// The one row of a statement that always gives one, e.g. a count.
    fn one<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<T, SqlError> {
        self.row(sql, params)?.ok_or_else(|| SqlError::shape("no row where one is certain".to_owned()))
    }
}

/// Each statement by itself, outside any transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Database;

impl Sql for Database {
    fn rows<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Vec<T>, SqlError> {
        read_all(raw::query(sql, &params)?)
    }

    fn row<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Option<T>, SqlError> {
        raw::query_one(sql, &params)?.map(read).transpose()
    }

    fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError> {
        raw::execute(sql, &params)
    }
}

/// An open transaction. Events emitted and durable pushes made meanwhile are part of it.
pub struct Transaction(raw::Transaction);

impl Sql for Transaction {
    fn rows<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Vec<T>, SqlError> {
        read_all(self.0.query(sql, &params)?)
    }

    fn row<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Option<T>, SqlError> {
        self.0.query_one(sql, &params)?.map(read).transpose()
    }

    fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError> {
        self.0.execute(sql, &params)
    }
}

/// Runs the work in a transaction: `Ok` commits, `Err` rolls back. One at a time per call; never hash a password or call another service
/// in it. To commit and still decline, give `Ok(Err(error))` and write `transaction(…)??`.
pub fn transaction<T, E: From<SqlError>>(work: impl FnOnce(&Transaction) -> Result<T, E>) -> Result<T, E> {
    let tx = Transaction(raw::Transaction::begin()?);
    match work(&tx) {
        Ok(value) => {
            raw::Transaction::commit(tx.0)?;
            Ok(value)
        }
        Err(error) => {
            // The work's own error says more than a failed rollback would; dropping it rolls back anyway.
            let _ = raw::Transaction::rollback(tx.0);
            Err(error)
        }
    }
}

/// All statements or none, in one trip; the changed rows of each.
pub fn batch(statements: Vec<(&str, Vec<Value>)>) -> Result<Vec<u64>, SqlError> {
    let statements: Vec<Statement> = statements.into_iter().map(|(sql, params)| Statement { sql: sql.to_owned(), params }).collect();
    raw::batch(&statements)
}

/// `$first, $first+1, …` for a list of known length: `WHERE id IN ({})`. The list must not be empty.
pub fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

/// `($1, $2), ($3, $4), …` for an INSERT of `rows` rows of `columns` columns.
pub fn row_placeholders(rows: usize, columns: usize) -> String {
    (0..rows).map(|row| format!("({})", placeholders(row * columns + 1, columns))).collect::<Vec<_>>().join(", ")
}

/// Whether a text that goes after LIKE needs this: `%`, `_` and `\` stand for themselves with `ESCAPE '\'`.
pub fn escape_like(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 4);
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A row, read from the left.
pub struct Row(std::vec::IntoIter<Value>);

impl Row {
    /// The next column.
    pub fn take<T: FromValue>(&mut self) -> Result<T, SqlError> {
        T::from_value(self.0.next().ok_or_else(|| SqlError::shape("the row has fewer columns than are read".to_owned()))?)
    }
}

/// What a row can be read as: tuples of up to 12 columns, and structs by `from_row!`. A single column is read as `(T,)`.
pub trait FromRow: Sized {
    fn from_row(row: &mut Row) -> Result<Self, SqlError>;
}

macro_rules! tuples {
    ($($($name:ident)+;)+) => {
        $(impl<$($name: FromValue),+> FromRow for ($($name,)+) {
            fn from_row(row: &mut Row) -> Result<Self, SqlError> {
                Ok(($(row.take::<$name>()?,)+))
            }
        })+
    };
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
}

fn read<T: FromRow>(values: Vec<Value>) -> Result<T, SqlError> {
    let mut row = Row(values.into_iter());
    let value = T::from_row(&mut row)?;
    match row.0.next() {
        None => Ok(value),
        Some(_) => Err(SqlError::shape("the row has more columns than are read".to_owned())),
    }
}

fn read_all<T: FromRow>(rows: raw::Rows) -> Result<Vec<T>, SqlError> {
    rows.rows.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Account {
        id: String,
        name: Option<String>,
        verified: bool,
    }
    from_row!(Account { id, name, verified });

    #[test]
    fn rows_become_structs_and_tuples() {
        let account: Account = read(vec![Value::Uuid("a".into()), Value::Null, Value::S64(1)]).unwrap();
        assert_eq!((account.id.as_str(), account.name, account.verified), ("a", None, true));
        let pair: (i64, String) = read(vec![Value::S64(3), Value::Text("x".into())]).unwrap();
        assert_eq!(pair, (3, "x".to_owned()));
    }

    #[test]
    fn a_row_of_another_width_is_an_error() {
        assert!(read::<(i64, i64)>(vec![Value::S64(1)]).is_err());
        assert!(read::<(i64,)>(vec![Value::S64(1), Value::S64(2)]).is_err());
    }

    #[test]
    fn parameters_say_their_kind() {
        let name: Option<&str> = None;
        assert_eq!(
            params![uuid("u"), "t", 5, true, timestamp(7), name, Some(3_u64)],
            [
                Value::Uuid("u".into()),
                Value::Text("t".into()),
                Value::S64(5),
                Value::Boolean(true),
                Value::Timestamp(7),
                Value::Null,
                Value::S64(3)
            ]
        );
    }

    #[test]
    fn lists_get_their_numbers() {
        assert_eq!(placeholders(2, 3), "$2, $3, $4");
        assert_eq!(row_placeholders(2, 2), "($1, $2), ($3, $4)");
        assert_eq!(escape_like("50%_a\\"), "50\\%\\_a\\\\");
    }
}
