//! What built-in kinds fill in and want, a file each.

pub(crate) mod config;
pub(crate) mod event;
pub(crate) mod lease;
pub(crate) mod secret;
