//! Finding, reading and checking a model file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why a model file was not accepted.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// A URI of another scheme.
    #[error("artifact {uri} cannot be read here; want a path or a file:// URI (fetch it to a local file first)")]
    Scheme {
        /// The URI.
        uri: String,
    },
    /// The file could not be opened or read.
    #[error("artifact {path} cannot be read: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// Larger than is read.
    #[error("artifact {path} has more than {limit} bytes; raise the limit, or serve it with a command runtime")]
    TooLarge {
        /// The file.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// A digest that is not written as one.
    #[error("digest is {got:?}, want `sha256:` and 64 hexadecimal digits")]
    DigestForm {
        /// What was given.
        got: String,
    },
    /// Another file than the one meant.
    #[error("artifact {path} has digest {got}, want {wanted}; the file is not the one this revision was made from")]
    Digest {
        /// The file.
        path: String,
        /// The digest of its bytes.
        got: String,
        /// The digest wanted.
        wanted: String,
    },
}

/// Reads the file that a path or `file://` URI names. Of a folder, the file `model.onnx` in it.
pub(super) fn read(artifact: &str, bytes_max: u64) -> Result<(PathBuf, Vec<u8>), ArtifactError> {
    let mut path = locate(artifact)?;
    if path.is_dir() {
        path.push("model.onnx");
    }
    let shown = path.display().to_string();
    let failed = |error| ArtifactError::Io { path: shown.clone(), error };
    let file = File::open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > bytes_max {
        return Err(ArtifactError::TooLarge { path: shown, limit: bytes_max });
    }
    // The length is only a hint (the file may grow, or be a device); the limit holds for what is read.
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(ArtifactError::TooLarge { path: shown, limit: bytes_max });
    }
    Ok((path, bytes))
}

fn locate(artifact: &str) -> Result<PathBuf, ArtifactError> {
    let scheme = || ArtifactError::Scheme { uri: artifact.to_owned() };
    let Some((name, rest)) = artifact.split_once("://") else { return Ok(PathBuf::from(artifact)) };
    if name != "file" {
        return Err(scheme());
    }
    // An authority other than this machine would be a network share.
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(scheme());
    }
    Ok(PathBuf::from(path))
}

/// The digest of a file's bytes: `sha256:` and 64 lower-case hexadecimal digits.
pub fn digest_of(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(71);
    out.push_str("sha256:");
    for byte in Sha256::digest(bytes) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

pub(super) fn check_digest(path: &Path, got: &str, wanted: Option<&str>) -> Result<(), ArtifactError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let digits = wanted.strip_prefix("sha256:").filter(|digits| digits.len() == 64);
    if !digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
        return Err(ArtifactError::DigestForm { got: wanted.to_owned() });
    }
    match got.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(ArtifactError::Digest {
            path: path.display().to_string(),
            got: got.to_owned(),
            wanted: wanted.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_files_are_read() {
        let rows = [
            ("/models/a.onnx", Some("/models/a.onnx")),
            ("models/a.onnx", Some("models/a.onnx")),
            ("file:///models/a.onnx", Some("/models/a.onnx")),
            ("file://localhost/models/a.onnx", Some("/models/a.onnx")),
            ("file://server/models/a.onnx", None),
            ("file://localhost.evil/models/a.onnx", None),
            ("s3://bucket/a.onnx", None),
            ("https://host/a.onnx", None),
        ];
        for (artifact, want) in rows {
            assert_eq!(locate(artifact).ok(), want.map(PathBuf::from), "{artifact}");
        }
    }

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.onnx"), b"12345").unwrap();
        let artifact = folder.path().to_str().unwrap();
        assert_eq!(read(artifact, 5).unwrap().1, b"12345");
        assert!(matches!(read(artifact, 4), Err(ArtifactError::TooLarge { limit: 4, .. })));
        assert!(matches!(read("/dev/zero", 1000), Err(ArtifactError::TooLarge { .. })));
        assert!(matches!(read("/nowhere/a.onnx", 5), Err(ArtifactError::Io { .. })));
    }

    #[test]
    fn the_digest_must_be_the_files() {
        let digest = digest_of(b"abc");
        assert_eq!(digest, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let check = |wanted: &str| check_digest(Path::new("m"), &digest, Some(wanted));
        assert!(check(&digest).is_ok());
        assert!(check(&digest.to_uppercase().replace("SHA256", "sha256")).is_ok());
        assert!(matches!(check(&digest.replace("ba", "ab")), Err(ArtifactError::Digest { .. })));
        for wrong in ["", "sha256:", "md5:ba78", &digest[7..], &format!("{digest}0")] {
            assert!(matches!(check(wrong), Err(ArtifactError::DigestForm { .. })), "{wrong}");
        }
    }
}
