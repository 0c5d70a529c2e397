//! The place of server-side apply.
//!
//! It will need three things that already have their seams: a patch kind (`application/apply-patch+yaml` in
//! [`crate::patch::Patch::parse`], which refuses it with 415 today), ownership by field kept in
//! `metadata.managedFields` (which [`crate::metadata::normalize`] drops from what callers send), and the list types of a
//! [`crate::schema::Schema`], which say how lists merge.
