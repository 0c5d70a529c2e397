//! What the evidence says: e-processes, frozen references, and the verdicts of the gates.
//!
//! Properties, before the method:
//!
//! 1. The probability that a candidate which is no worse than the declared tolerances is rolled back is at most alpha over the
//!    whole rollout, however often and whenever one looks.
//! 2. It stays so when the split changes, when traffic changes, and when an incident hits both versions alike.
//! 3. Missing data is never a pass.
//!
//! Method: condition on the assignment. Of the events (failing requests, slow requests, predictions in one bin, wrong
//! predictions) that happen while the candidate has probability w, each is the candidate's with probability w δ / (w δ + 1 - w),
//! where δ is how many times as often the candidate has them. That gives a likelihood per event that knows neither the
//! rate of events nor the traffic, and so an e-process against "δ is at most the tolerance" ([`eprocess`]).

pub mod eprocess;
pub mod freeze;
pub mod judge;
pub mod labels;
pub mod onesample;
pub mod psi;
pub mod special;
pub mod split;
