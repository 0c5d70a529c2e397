//! Kubernetes' own kinds that need more than their type: what is filled in, refused and printed, as Kubernetes 1.36 does. Those
//! that nothing reconciles here are served so that manifests, kubectl and Helm work.

pub(crate) mod account;
mod affinity;
pub(crate) mod autoscaler;
mod check;
pub(crate) mod config;
mod container;
pub(crate) mod deployment;
pub(crate) mod endpoint_slice;
pub(crate) mod event;
mod handler;
pub(crate) mod labels;
pub(crate) mod lease;
pub(crate) mod pod;
mod pod_defaults;
mod pod_spec;
mod pod_table;
mod rules;
pub(crate) mod secret;
pub(crate) mod service;
mod service_addresses;
mod service_rules;
mod values;
mod volume;
