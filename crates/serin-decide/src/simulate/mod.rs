//! The same engine on a virtual clock: what a rollout would do, before anyone runs it.
//!
//! Traffic is drawn request by request and reaches the engine as counts every 100 ms, as gateways send them. Requests are
//! independent of each other, arrive at a constant mean rate, and are assigned with exactly the weight's probability.

mod model;
mod rng;
mod run;
mod scenario;
mod sentinel;
mod table;

pub use run::{Drive, End, Kill, RunOutcome, drive, run};
pub use scenario::{
    Fault, FaultKind, LabelModel, LatencyModel, Scenario, ScenarioError, ScoreModel, TimedVerb, Verb, VersionModel,
};
pub use table::Table;
