//! Shared by every crate of the host: all bounds (`limits`), and small modules that know no other.

pub mod backoff;
pub mod clock;
pub mod deadline;
pub mod json_text;
pub mod limits;
pub mod names;
pub mod priority;
pub mod private_file;
