//! The gateway over real sockets, with servers that behave as each test wants.

#![allow(clippy::unwrap_used)]

mod bytes_on_the_wire;
mod control;
mod harness;
mod limits;
mod load;
mod retry;
mod routing;
