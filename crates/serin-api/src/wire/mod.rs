//! The values on the wire between control, gateways and the node. Each stream is JSON lines; each message names its version.

pub mod observations;
pub mod processes;
pub mod routes;

pub use observations::{Observation, ObservationBatch, OutcomeClass};
pub use processes::{ProcessSet, SlotSpec, SlotStatus};
pub use routes::{EndpointRoute, RouteMessage, RouteTable};

/// Version of the wire protocol. It is part of every path on control's socket.
pub const WIRE_VERSION: &str = "v1";
