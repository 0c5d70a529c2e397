//! Digests of artifacts, remembered for as long as a file looks unchanged.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serin_api::ModelTemplate;
use serin_api::hash::hex;
use sha2::{Digest as _, Sha256};

/// Remembers digests by path, length and time of the last change.
#[derive(Clone, Debug, Default)]
pub struct Digests {
    known: Arc<Mutex<HashMap<PathBuf, Known>>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    len: u64,
    modified: SystemTime,
    digest: String,
}

impl Digests {
    /// The template with its artifact's digest filled in.
    ///
    /// # Errors
    /// A text for people: the artifact cannot be read, or has another digest than the spec says.
    pub async fn resolve(&self, model: &ModelTemplate) -> Result<ModelTemplate, String> {
        let Some(path) = model.artifact_path().map(PathBuf::from) else { return Ok(model.clone()) };
        let this = self.clone();
        let found = tokio::task::spawn_blocking(move || this.digest(&path)).await.map_err(|e| e.to_string())??;
        match &model.digest {
            Some(wanted) if *wanted != found => Err(format!(
                "spec.model.digest is {wanted}, but the artifact at {} has {found}; correct the digest or the artifact",
                model.storage_uri.as_deref().unwrap_or_default(),
            )),
            _ => Ok(ModelTemplate { digest: Some(found), ..model.clone() }),
        }
    }

    fn digest(&self, path: &Path) -> Result<String, String> {
        let problem = |e: std::io::Error| {
            format!(
                "spec.model.storageUri {} cannot be read: {e}; put the artifact there or correct the path",
                path.display()
            )
        };
        let mut file = File::open(path).map_err(problem)?;
        let meta = file.metadata().map_err(problem)?;
        if !meta.is_file() {
            return Err(format!(
                "spec.model.storageUri {} is no file; give the path of the artifact itself",
                path.display()
            ));
        }
        let modified = meta.modified().map_err(problem)?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(known) = known.filter(|k| k.len == meta.len() && k.modified == modified) {
            return Ok(known.digest);
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut buffer).map_err(problem)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        let digest = format!("sha256:{}", hex(&hash.finalize()));
        let known = Known { len: meta.len(), modified, digest: digest.clone() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), known);
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(path: &Path, digest: Option<&str>) -> ModelTemplate {
        serde_json::from_value(serde_json::json!({
            "version": "v1", "storageUri": format!("file://{}", path.display()), "digest": digest,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn digests_are_filled_in_checked_and_follow_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let digests = Digests::default();
        let missing = digests.resolve(&template(&path, None)).await.unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");

        std::fs::write(&path, "abc").unwrap();
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests.resolve(&template(&path, None)).await.unwrap().digest.as_deref(), Some(abc));
        assert!(digests.resolve(&template(&path, Some(abc))).await.is_ok());

        std::fs::write(&path, "abcd").unwrap();
        let mismatch = digests.resolve(&template(&path, Some(abc))).await.unwrap_err();
        assert!(mismatch.contains("spec.model.digest is") && mismatch.contains("correct the digest"), "{mismatch}");
    }
}
