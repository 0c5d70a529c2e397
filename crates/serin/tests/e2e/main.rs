//! The whole binary, with real processes, real models and real traffic.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

mod clients;
mod kills;
mod load;
mod missing;
mod platform;
mod switches;
mod verbs;
