//! Decisions as pure functions: routing, analysis, rollout, simulation. No clock, no I/O, no tokio.
//!
//! Everything here is a function of values that come in as arguments: the spec, the observations, the state so far and the time.
//! What goes out is a value as well: the next state, why, and when to look again. Production, the simulator and the tests call
//! the same functions, and a decision can be replayed from the inputs that were stored with it.
//!
//! - [`route`]: who gets what. Cohorts, and the route table that gateways obey.
//! - [`evidence`]: counts from many gateways as one body of evidence.
//! - [`analysis`]: what the evidence says. E-processes, references, verdicts.
//! - [`rollout`]: what to do about it. The state machine of one change of versions.
//! - [`simulate`]: the same on a virtual clock.

pub mod analysis;
pub mod evidence;
pub mod rollout;
pub mod route;
pub mod simulate;
