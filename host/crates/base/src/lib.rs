//! What every crate of the host keeps to: the bounds of the whole host, and small things without a domain of their own.

pub mod deadline;
pub mod json_text;
pub mod limits;
pub mod names;
pub mod priority;
pub mod private_file;
