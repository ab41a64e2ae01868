//! SQL of guesses at passwords and codes, and of the devices that are known.

use echo_sdk::params;
use echo_sdk::sql::{Sql, SqlError, timestamp, uuid};

use crate::lockout::Counter;
