//! End to end: hosts as an operator starts them, and people who use them as the API page says.
//! Wants the packed services (`cargo xtask plugins --guests`).

mod analytics;
mod app;
mod attacks;
mod author;
mod backup;
mod bad_input;
mod candidate;
mod cursors;
mod deleted;
mod edge;
mod feeds;
mod foreign;
mod gate;
mod hostile;
mod kill;
mod load;
mod marks;
mod media;
mod operator;
mod power;
mod presence;
mod process;
mod protocol;
mod rates;
mod schedules;
mod search;
mod socket;
mod story;
mod swap;
mod texts;
mod threads;
mod watch;
