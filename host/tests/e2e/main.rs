//! End to end: hosts as an operator starts them, used from outside. Wants the packed services (`cargo xtask plugins --guests`).

mod app;
mod candidate;
mod gate;
mod hostile;
mod load;
mod swap;
