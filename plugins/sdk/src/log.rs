//! Lines in the host's log. Never passwords, codes, tokens or message bodies.

use std::fmt::Display;

use crate::wit::log::{Level, write};

/// `log::info("a session was ended", &[("session", &id)])`.
pub fn info(message: &str, fields: &[(&str, &dyn Display)]) {
    line(Level::Info, message, fields);
}

pub fn debug(message: &str, fields: &[(&str, &dyn Display)]) {
    line(Level::Debug, message, fields);
}

pub fn warn(message: &str, fields: &[(&str, &dyn Display)]) {
    line(Level::Warn, message, fields);
}

pub fn error(message: &str, fields: &[(&str, &dyn Display)]) {
    line(Level::Error, message, fields);
}

fn line(level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
    let fields: Vec<(String, String)> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    write(level, message, &fields);
}
