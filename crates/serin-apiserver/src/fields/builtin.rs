//! The shapes of the built-in kinds.

use std::sync::LazyLock;

use super::shape::{ShapeId, Shapes};
use crate::types;

static BUILTIN: LazyLock<Shapes> = LazyLock::new(|| {
    let mut shapes = Shapes::new();
    shapes.object_meta();
    shapes.add_definitions(types::schemas());
    shapes
});

impl Shapes {
    /// The shapes of all built-in kinds.
    #[must_use]
    pub fn all_builtin() -> &'static Self {
        &BUILTIN
    }

    /// The shape of a built-in kind by the name of its definition, like `io.k8s.api.core.v1.ConfigMap`.
    #[must_use]
    pub fn builtin(definition: &str) -> Option<(&'static Self, ShapeId)> {
        BUILTIN.definition(definition).map(|id| (&*BUILTIN, id))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::{Value, json};

    use super::super::{Duplicates, Typed};
    use super::*;

    #[test]
    fn lists_of_built_in_kinds_merge_by_their_keys() {
        let (shapes, shape) = Shapes::builtin("io.k8s.api.core.v1.Service").unwrap();
        let service = |ports: Value| json!({"metadata": {"name": "x"}, "spec": {"ports": ports}});
        let typed = |ports| Typed::new(Cow::Owned(service(ports)), shapes, shape, Duplicates::Refused).unwrap();
        let (a, b) = (typed(json!([{"port": 80, "name": "a"}])), typed(json!([{"port": 80, "protocol": "TCP"}])));
        let merged = a.merge(&b).unwrap();
        assert_eq!(merged.value["spec"]["ports"], json!([{"port": 80, "name": "a", "protocol": "TCP"}]));
        let paths: Vec<String> = b.to_set().unwrap().paths().iter().map(ToString::to_string).collect();
        let item = ".spec.ports[port=80,protocol=\"TCP\"]";
        assert_eq!(
            paths,
            [".metadata.name".to_owned(), item.to_owned(), format!("{item}.port"), format!("{item}.protocol")]
        );
    }
}
