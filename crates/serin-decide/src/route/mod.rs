//! Who gets what: cohorts, and the route that gateways obey.

mod bucket;
mod table;

pub use bucket::{Assigned, BUCKETS, Bucketer, assign, bucket_v1, random_bucket};
pub use table::{RolloutRoute, RouteInput, RouteVersion, build_route, strata_weights};
