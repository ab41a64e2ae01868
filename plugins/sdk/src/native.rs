//! What takes the host's place where a service is built natively, which only its tests are: the imports of a component have nobody to answer there.
//! The database is whatever a test gives its thread, the clock is the machine's, and random numbers are a sequence that each thread begins alike.

use std::cell::RefCell;
use std::rc::Rc;

use sql::{Rows, SqlError, Statement, Value};

/// One service's database, as `echo:sql/sql` has it.
pub trait TestDatabase {
    fn query(&self, sql: &str, params: &[Value]) -> Result<Rows, SqlError>;
    fn query_one(&self, sql: &str, params: &[Value]) -> Result<Option<Vec<Value>>, SqlError>;
    fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, SqlError>;
    fn batch(&self, statements: &[Statement]) -> Result<Vec<u64>, SqlError>;
    fn begin(&self) -> Result<Box<dyn TestTransaction>, SqlError>;
}

/// Dropping it rolls back.
pub trait TestTransaction {
    fn query(&self, sql: &str, params: &[Value]) -> Result<Rows, SqlError>;
    fn query_one(&self, sql: &str, params: &[Value]) -> Result<Option<Vec<Value>>, SqlError>;
    fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, SqlError>;
    fn commit(self: Box<Self>) -> Result<(), SqlError>;
    fn rollback(self: Box<Self>) -> Result<(), SqlError>;
}

thread_local! {
    static DATABASE: RefCell<Option<Rc<dyn TestDatabase>>> = const { RefCell::new(None) };
}

/// From now on statements of this thread go to this database, or to none.
pub fn set_database(database: Option<Rc<dyn TestDatabase>>) {
    DATABASE.set(database);
}

fn database() -> Rc<dyn TestDatabase> {
    DATABASE.with_borrow(Clone::clone).expect("a test that asks the database opens one first")
}

/// In the place of the bindings of `echo:sql/sql`, whose types it keeps.
pub mod sql {
    pub use crate::wit::echo::sql::sql::{ErrorClass, Rows, SqlError, Statement, Value};

    pub fn query(sql: &str, params: &[Value]) -> Result<Rows, SqlError> {
        super::database().query(sql, params)
    }

    pub fn query_one(sql: &str, params: &[Value]) -> Result<Option<Vec<Value>>, SqlError> {
        super::database().query_one(sql, params)
    }

    pub fn execute(sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        super::database().execute(sql, params)
    }

    pub fn batch(statements: &[Statement]) -> Result<Vec<u64>, SqlError> {
        super::database().batch(statements)
    }

    pub struct Transaction(Box<dyn super::TestTransaction>);

    impl Transaction {
        pub fn begin() -> Result<Self, SqlError> {
            super::database().begin().map(Self)
        }

        pub fn query(&self, sql: &str, params: &[Value]) -> Result<Rows, SqlError> {
            self.0.query(sql, params)
        }

        pub fn query_one(&self, sql: &str, params: &[Value]) -> Result<Option<Vec<Value>>, SqlError> {
            self.0.query_one(sql, params)
        }

        pub fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
            self.0.execute(sql, params)
        }

        pub fn commit(this: Self) -> Result<(), SqlError> {
            this.0.commit()
        }

        pub fn rollback(this: Self) -> Result<(), SqlError> {
            this.0.rollback()
        }
    }
}

/// In the place of the bindings of `wasi:clocks/wall-clock`.
pub mod wall_clock {
    use std::time::{SystemTime, UNIX_EPOCH};

    pub use crate::wit::wasi::clocks::wall_clock::Datetime;

    pub fn now() -> Datetime {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970");
        Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() }
    }
}

/// In the place of the bindings of `wasi:random/random`. Not for secrets.
pub mod random {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    pub fn get_random_u64() -> u64 {
        let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn get_random_bytes(count: u64) -> Vec<u8> {
        (0..count).map(|_| get_random_u64().to_le_bytes()[0]).collect()
    }
}
