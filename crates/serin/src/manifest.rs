//! Manifests: YAML (several documents) or JSON, from files, folders or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// Largest manifest file; a ModelEndpoint has a few kilobytes.
const FILE_MAX: usize = 16 << 20;

/// One object and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// File, and the document's number where there are several.
    pub origin: String,
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// The object.
    pub object: Value,
}

/// Reads all objects of the files and folders (`-` is standard input). Nothing is returned unless all of them are well-formed.
///
/// # Errors
/// The first file or document that is not, by name.
pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = read_limited(std::io::stdin().lock(), Path::new("-"))?;
            manifests.extend(parse(&text, "standard input")?);
        } else if path.is_dir() {
            for file in files_of(path)? {
                manifests.extend(read_file(&file)?);
            }
        } else {
            manifests.extend(read_file(path)?);
        }
    }
    Ok(manifests)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let wrap = |source| Error::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrap)? {
        let path = entry.map_err(wrap)?.path();
        let manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(Error::EmptyFolder(folder.to_owned())) } else { Ok(files) }
}

fn read_file(path: &Path) -> Result<Vec<Manifest>> {
    let file = std::fs::File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&read_limited(file, path)?, &path.display().to_string())
}

/// Reads text of at most [`FILE_MAX`] bytes.
pub fn read_limited(reader: impl Read, path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = reader.take(FILE_MAX as u64 + 1).read_to_string(&mut text);
    read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    if text.len() > FILE_MAX {
        return Err(Error::TooLarge { origin: path.display().to_string(), limit: FILE_MAX });
    }
    Ok(text)
}

/// Parses the documents of one text; a `List` counts as its items.
pub fn parse(text: &str, origin: &str) -> Result<Vec<Manifest>> {
    let documents: Vec<Value> = if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter();
        stream
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| Error::Json { origin: origin.to_owned(), why: error.to_string() })?
    } else {
        serde_saphyr::from_multiple(text)
            .map_err(|error| Error::Yaml { origin: origin.to_owned(), why: error.to_string() })?
    };
    let documents: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    let many = documents.len() > 1;
    let mut manifests = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let origin = if many { format!("{origin}, document {}", index + 1) } else { origin.to_owned() };
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match document.get("items").and_then(Value::as_array).filter(|_| is_list) {
            Some(items) => {
                for (index, item) in items.iter().enumerate() {
                    manifests.push(manifest(item.clone(), format!("{origin}, item {}", index + 1))?);
                }
            }
            None => manifests.push(manifest(document, origin)?),
        }
    }
    if manifests.is_empty() { Err(Error::NoDocument { origin: origin.to_owned() }) } else { Ok(manifests) }
}

fn manifest(object: Value, origin: String) -> Result<Manifest> {
    let field = |pointer: &str, field, want| match object.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        other => {
            let got = other.map_or_else(|| "not there".to_owned(), Value::to_string);
            Err(Error::Manifest { origin: origin.clone(), field, got, want })
        }
    };
    if !object.is_object() {
        let got = object.to_string().chars().take(60).collect();
        return Err(Error::Manifest { origin, field: "the document", got, want: "an object with apiVersion and kind" });
    }
    let api_version = field("/apiVersion", "apiVersion", "a text such as serin.dev/v1alpha1")?;
    let kind = field("/kind", "kind", "a text such as ModelEndpoint")?;
    let name = field("/metadata/name", "metadata.name", "a text: the object's name")?;
    let namespace = match object.pointer("/metadata/namespace") {
        None | Some(Value::Null) => None,
        Some(_) => Some(field("/metadata/namespace", "metadata.namespace", "a text")?),
    };
    Ok(Manifest { origin, api_version, kind, name, namespace, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_documents_json_streams_and_lists_give_their_objects() {
        let object = "apiVersion: v1\nkind: Secret\nmetadata: {name: NAME}\n";
        let json = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"NAME"}}"#;
        let rows = [
            (
                format!(
                    "---\n{}---\n# only a comment\n---\n{}",
                    object.replace("NAME", "a"),
                    object.replace("NAME", "b")
                ),
                2,
            ),
            (format!("{} {}", json.replace("NAME", "a"), json.replace("NAME", "b")), 2),
            (
                format!(
                    r#"{{"apiVersion":"v1","kind":"List","items":[{},{}]}}"#,
                    json.replace("NAME", "a"),
                    json.replace("NAME", "b")
                ),
                2,
            ),
            (object.replace("NAME", "a"), 1),
        ];
        for (text, count) in rows {
            let manifests = parse(&text, "f").unwrap();
            let names: Vec<_> = manifests.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(names, ["a", "b"][..count], "{text}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_its_place() {
        let rows = [
            ("", "f has no document"),
            ("# nothing\n", "f has no document"),
            ("a: [", "f is not YAML"),
            ("{\"a\":", "f is not JSON"),
            ("[1, 2]", "the document"),
            ("just text", "the document"),
            ("kind: X\nmetadata: {name: a}", "apiVersion is not there"),
            ("apiVersion: 1\nkind: X\nmetadata: {name: a}", "apiVersion is 1"),
            ("apiVersion: v1\nmetadata: {name: a}", "kind is not there"),
            ("apiVersion: v1\nkind: X", "metadata.name is not there"),
            ("apiVersion: v1\nkind: X\nmetadata: {name: 5}", "metadata.name is 5"),
            ("apiVersion: v1\nkind: X\nmetadata: {name: a, namespace: 7}", "metadata.namespace is 7"),
            ("apiVersion: v1\nkind: X\nmetadata: {name: a}\n---\nkind: Y", "f, document 2: apiVersion"),
            ("apiVersion: v1\nkind: X\nkind: Y\nmetadata: {name: a}", "f is not YAML"),
        ];
        for (text, want) in rows {
            let error = parse(text, "f").unwrap_err().to_string();
            assert!(error.contains(want), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(matches!(parse(&text, "f"), Err(Error::Yaml { .. })));
    }
}
