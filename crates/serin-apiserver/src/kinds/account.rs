//! ServiceAccounts of the core group.
//! Source: `k8s.io/kubernetes/pkg/registry/core/serviceaccount/strategy.go`.

use serde_json::{Value, json};

use super::values::items_mut;
use crate::builtin::PLAIN;
use crate::resource::{Hooks, Printer};

pub(crate) const HOOKS: Hooks = Hooks { prepare, shows_deleted: true, printer: Some(&PRINTER), ..PLAIN };

static PRINTER: Printer = Printer {
    columns: &[("Age", "string", 0, CREATED)],
    cells: |account, age| vec![age(&account["metadata"]["creationTimestamp"]).into()],
};

/// What Kubernetes says of an object's age.
pub(super) const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
    guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is \
    represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Of the secrets only their names are kept.
fn prepare(account: &mut Value, _old: Option<&Value>) {
    for secret in items_mut(account, "secrets") {
        *secret = match secret.get("name") {
            Some(name) => json!({"name": name}),
            None => json!({}),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_kept_by_name() {
        let mut account = json!({"secrets": [{"name": "a", "namespace": "x", "kind": "Secret"}, {"uid": "u"}]});
        prepare(&mut account, None);
        assert_eq!(account, json!({"secrets": [{"name": "a"}, {}]}));
    }
}
