//! What built-in kinds fill in and want, a file each.

pub(crate) mod autoscaler;
mod check;
pub(crate) mod config;
pub(crate) mod endpoint_slice;
pub(crate) mod event;
pub(crate) mod lease;
pub(crate) mod secret;
pub(crate) mod service;
mod service_addresses;
mod service_rules;
