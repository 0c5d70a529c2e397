//! Generated files: `cargo run -p xtask -- gen` writes them, `-- check` says which are stale.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serin_api::resources::crds;

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let done = match wanted.as_str() {
        "gen" => write(&root),
        "check" => check(&root),
        other => Err(format!("{other:?} is no task; want gen or check")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("xtask: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Every generated file, by its path from the root.
fn generated() -> Result<Vec<(PathBuf, String)>, String> {
    let mut files = Vec::new();
    for crd in crds() {
        let text = serde_saphyr::to_string(&crd).map_err(|e| e.to_string())?;
        let path = Path::new("deploy/crds").join(format!("{}.yaml", crd.spec.names.plural));
        files.push((path, format!("# Generated from the Rust types by `make gen`. Do not edit.\n{text}")));
    }
    Ok(files)
}

fn write(root: &Path) -> Result<(), String> {
    for (path, text) in generated()? {
        let path = root.join(path);
        let folder = path.parent().unwrap_or(root);
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
        written.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn check(root: &Path) -> Result<(), String> {
    let is_stale =
        |(path, text): &(PathBuf, String)| std::fs::read_to_string(root.join(path)).ok().as_ref() != Some(text);
    let stale: Vec<String> =
        generated()?.iter().filter(|f| is_stale(f)).map(|(p, _)| p.display().to_string()).collect();
    if stale.is_empty() { Ok(()) } else { Err(format!("stale: {}; run `make gen`", stale.join(", "))) }
}
