//! Field ownership: sets of fields, merging by schema, and who owns what. What server-side apply rests on.
//!
//! It answers as `sigs.k8s.io/structured-merge-diff/v6` and `k8s.io/apimachinery/pkg/util/managedfields` do in Kubernetes
//! 1.36, in every version conversion, leftover and message. Nothing here reads a clock or does I/O.
//!
//! The way in is [`FieldManager`], one for a version and subresource of a resource. Objects go in and come out in that
//! version.
//!
//! * Create: [`FieldManager::update_no_errors`] from the empty object, before `uid` and the like are filled in.
//! * Update and patches: the same, from the stored object, after the patch and before what the server keeps is put back.
//! * Apply: [`FieldManager::apply`] on the stored object, or on the empty one, which then is created. What it gives is to be
//!   defaulted, pruned and validated as that of any other write.
//! * Update, patch and apply: [`keep_times`] once the object is as it will be stored, so that one that has not changed is not
//!   written.
//! * Scale: [`entries_of_scale`] before, [`entries_after_scale`] after.
//!
//! Shapes come from [`Shapes::builtin`] for built-in kinds, and from [`Shapes::add_custom_resource`] for custom resources.

mod builtin;
mod compare;
mod conflict;
mod entries;
mod fields_v1;
pub(crate) mod gotext;
mod manager;
mod merge;
mod openapi;
mod path;
mod reconcile;
mod remove;
mod scale;
mod set;
mod shape;
mod time;
mod typed;
mod updater;
mod value;

#[cfg(test)]
mod maker;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod play;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use compare::Comparison;
pub use conflict::{CAUSE, Conflict, Conflicts};
pub use entries::{Entry, EntryError, Managed, ManagerId, is_reset, read_entries};
pub use fields_v1::FieldsError;
pub use manager::{
    FieldManager, FieldManagerError, LAST_APPLIED, ManagerNameError, ResetFields, UPDATE_MANAGERS_MAX, check_manager,
    keep_times, manager_of_user_agent, reset_on_main, reset_on_status,
};
pub use path::{Path, PathElement, PathElementError};
pub use scale::{ReplicasPaths, entries_after_scale, entries_of_scale};
pub use set::Set;
pub use shape::{Atom, FieldShape, ListKind, ListShape, MapShape, Scalar, ShapeId, Shapes};
pub use time::Seconds;
pub use typed::{Duplicates, Typed, ValidationError, ValidationErrors};
pub use updater::{ConvertError, Managers, PruneError, UpdateError, VersionedSet, Versions, rename_version};
pub(crate) use value::to_integers;
