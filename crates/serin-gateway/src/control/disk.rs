//! The last table on disk, so that a gateway serves before control answers, and without it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serin_api::wire::RouteTable;

/// Name of the file.
pub const FILE: &str = "routes.json";
/// Largest file that is read: a table of 10,000 endpoints has some 20 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why the table on disk was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be read.
    #[error("cannot read the last route table")]
    Read(#[source] io::Error),
    /// It is not one.
    #[error("the last route table is damaged")]
    Damaged(#[source] serde_json::Error),
    /// It is too large.
    #[error("the last route table has {0} bytes, want at most {FILE_BYTES_MAX}")]
    TooLarge(u64),
}

/// Reads the last table; `None` if there is none.
///
/// # Errors
/// [`DiskError`].
pub fn load(dir: &Path) -> Result<Option<RouteTable>, DiskError> {
    let path = dir.join(FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::Read(error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(DiskError::TooLarge(metadata.len())),
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(DiskError::Read)?;
    serde_json::from_slice(&bytes).map(Some).map_err(DiskError::Damaged)
}

/// Replaces the last table: readable by its owner only (it holds the receipt keys), and either the old or the new one whatever
/// happens in between.
///
/// # Errors
/// The system's.
pub fn store(dir: &Path, table: &RouteTable) -> io::Result<()> {
    let bytes = serde_json::to_vec(table)?;
    let draft = dir.join(format!("{FILE}.new"));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_stored_is_loaded_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        for generation in [1, 2] {
            let table = RouteTable { generation, ..RouteTable::default() };
            store(dir.path(), &table).unwrap();
            assert_eq!(load(dir.path()).unwrap(), Some(table));
        }
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_draft_left_by_a_crash_is_replaced_and_a_damaged_table_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("routes.json.new"), "half").unwrap();
        store(dir.path(), &RouteTable::default()).unwrap();
        assert!(load(dir.path()).unwrap().is_some());
        fs::write(dir.path().join(FILE), "{\"generation\":").unwrap();
        assert!(matches!(load(dir.path()), Err(DiskError::Damaged(_))));
    }
}
