//! Generated files and tidy checks.
use serin_api::resources::crds;

/// Prints the CRDs for a look.
fn main() {
    #[allow(clippy::print_stdout)]
    for crd in crds() {
        println!("{}", serde_json::to_string_pretty(&crd).unwrap_or_default());
    }
}
