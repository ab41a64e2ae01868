//! The service's database: typed rows, parameters, and transactions that end as their closure does.

pub use crate::value::{FromValue, decimal, json, timestamp, uuid};
pub use crate::wit::sql::{ErrorClass, SqlError, Statement, Value};

use std::cell::Cell;

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
pub struct Transaction {
    raw: raw::Transaction,
    /// A statement of it collided with another transaction: all of it may be tried again.
    has_collided: Cell<bool>,
}

impl Transaction {
    fn noted<T>(&self, outcome: Result<T, SqlError>) -> Result<T, SqlError> {
        if outcome.as_ref().is_err_and(collided) {
            self.has_collided.set(true);
        }
        outcome
    }
}

impl Sql for Transaction {
    fn rows<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Vec<T>, SqlError> {
        read_all(self.noted(self.raw.query(sql, &params))?)
    }

    fn row<T: FromRow>(&self, sql: &str, params: Vec<Value>) -> Result<Option<T>, SqlError> {
        self.noted(self.raw.query_one(sql, &params))?.map(read).transpose()
    }

    fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError> {
        self.noted(self.raw.execute(sql, &params))
    }
}

/// How often a transaction is tried that collides with others.
pub const TRANSACTION_ATTEMPTS_MAX: u32 = 5;

/// Runs the work in a transaction: `Ok` commits, `Err` rolls back. One at a time per call; never hash a password or call another service
/// in it. To commit and still decline, give `Ok(Err(error))` and write `transaction(…)??`.
///
/// A transaction that collides with another (`serialization`: a conflict, a deadlock, a shared commit that failed) has changed nothing; the work
/// runs again from its beginning, at most `TRANSACTION_ATTEMPTS_MAX` times in all. So it changes nothing outside of the transaction but what the
/// next attempt overwrites.
pub fn transaction<T, E: From<SqlError>>(mut work: impl FnMut(&Transaction) -> Result<T, E>) -> Result<T, E> {
    for _ in 1..TRANSACTION_ATTEMPTS_MAX {
        if let Attempt::Ended(result) = attempt(&mut work) {
            return result;
        }
    }
    match attempt(&mut work) {
        Attempt::Ended(result) => result,
        Attempt::Collided(error) => Err(error),
    }
}

enum Attempt<T, E> {
    Ended(Result<T, E>),
    /// Nothing was changed.
    Collided(E),
}

fn attempt<T, E: From<SqlError>>(work: &mut impl FnMut(&Transaction) -> Result<T, E>) -> Attempt<T, E> {
    let failed = |error: SqlError| if collided(&error) { Attempt::Collided(error.into()) } else { Attempt::Ended(Err(error.into())) };
    let tx = match raw::Transaction::begin() {
        Ok(raw) => Transaction { raw, has_collided: Cell::new(false) },
        Err(error) => return failed(error),
    };
    match work(&tx) {
        Ok(value) => match raw::Transaction::commit(tx.raw) {
            Ok(()) => Attempt::Ended(Ok(value)),
            Err(error) => failed(error),
        },
        Err(error) => match raw::Transaction::rollback(tx.raw) {
            // What it has read was never committed: the error may follow from what is not there.
            Err(rollback) if collided(&rollback) => Attempt::Collided(error),
            _ if tx.has_collided.get() => Attempt::Collided(error),
            // The work's own error says more than a failed rollback would; the host rolls back anyway.
            _ => Attempt::Ended(Err(error)),
        },
    }
}

fn collided(error: &SqlError) -> bool {
    error.class == ErrorClass::Serialization
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

    use std::rc::Rc;

    use crate::native;

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

    /// Where a transaction collides with another one.
    #[derive(Clone, Copy, PartialEq)]
    enum Step {
        Begin,
        Statement,
        Commit,
        Rollback,
    }

    /// Every transaction collides at this step, until it has done so a number of times.
    #[derive(Clone)]
    struct Colliding {
        at: Step,
        times_left: Rc<Cell<u32>>,
        begun: Rc<Cell<u32>>,
    }

    impl Colliding {
        fn step(&self, step: Step) -> Result<(), SqlError> {
            if step != self.at || self.times_left.get() == 0 {
                return Ok(());
            }
            self.times_left.set(self.times_left.get() - 1);
            Err(SqlError { class: ErrorClass::Serialization, constraint: None, sqlstate: None, message: "try again".to_owned() })
        }
    }

    impl native::TestDatabase for Colliding {
        fn query(&self, _: &str, _: &[Value]) -> Result<raw::Rows, SqlError> {
            unreachable!("only transactions are tried")
        }

        fn query_one(&self, _: &str, _: &[Value]) -> Result<Option<Vec<Value>>, SqlError> {
            unreachable!("only transactions are tried")
        }

        fn execute(&self, _: &str, _: &[Value]) -> Result<u64, SqlError> {
            unreachable!("only transactions are tried")
        }

        fn batch(&self, _: &[Statement]) -> Result<Vec<u64>, SqlError> {
            unreachable!("only transactions are tried")
        }

        fn begin(&self) -> Result<Box<dyn native::TestTransaction>, SqlError> {
            self.begun.set(self.begun.get() + 1);
            self.step(Step::Begin)?;
            Ok(Box::new(self.clone()))
        }
    }

    impl native::TestTransaction for Colliding {
        fn query(&self, _: &str, _: &[Value]) -> Result<raw::Rows, SqlError> {
            self.step(Step::Statement).map(|()| raw::Rows { columns: Vec::new(), rows: Vec::new() })
        }

        fn query_one(&self, _: &str, _: &[Value]) -> Result<Option<Vec<Value>>, SqlError> {
            self.step(Step::Statement).map(|()| None)
        }

        fn execute(&self, _: &str, _: &[Value]) -> Result<u64, SqlError> {
            self.step(Step::Statement).map(|()| 1)
        }

        fn commit(self: Box<Self>) -> Result<(), SqlError> {
            self.step(Step::Commit)
        }

        fn rollback(self: Box<Self>) -> Result<(), SqlError> {
            self.step(Step::Rollback)
        }
    }

    /// How often the work ran, how many transactions were begun, and what came of it.
    fn colliding(at: Step, times: u32, declines: bool) -> (u32, u32, Result<(), SqlError>) {
        let database = Colliding { at, times_left: Rc::new(Cell::new(times)), begun: Rc::default() };
        native::set_database(Some(Rc::new(database.clone())));
        let mut ran = 0;
        let result = transaction(|tx| {
            ran += 1;
            tx.execute("UPDATE a SET b = 1", Vec::new())?;
            if declines { Err(SqlError::shape("declined".to_owned())) } else { Ok(()) }
        });
        native::set_database(None);
        (ran, database.begun.get(), result)
    }

    #[test]
    fn a_transaction_that_collides_runs_again_from_its_beginning() {
        for (at, ran) in [(Step::Begin, 1), (Step::Statement, 3), (Step::Commit, 3)] {
            assert!(matches!(colliding(at, 2, false), (times, 3, Ok(())) if times == ran));
        }
        // Declined over what it had read of a commit that failed: asked again.
        let (ran, begun, result) = colliding(Step::Rollback, 1, true);
        assert_eq!((ran, begun, result.unwrap_err().class), (2, 2, ErrorClass::Other));
        let (ran, begun, result) = colliding(Step::Commit, 0, true);
        assert_eq!((ran, begun, result.unwrap_err().class), (1, 1, ErrorClass::Other), "what the work declines is not tried again");
    }

    #[test]
    fn a_transaction_that_goes_on_colliding_is_given_up() {
        for at in [Step::Begin, Step::Statement, Step::Commit] {
            let (_, begun, result) = colliding(at, u32::MAX, false);
            assert_eq!((begun, result.unwrap_err().class), (TRANSACTION_ATTEMPTS_MAX, ErrorClass::Serialization));
        }
    }
}
