//! The API page, line by line, over real connections.
