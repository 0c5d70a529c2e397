//! The Python client, over TLS with the kubeconfig of the first run.

mod common;

use std::process::Command;

use common::outside::{Outside, cache};
use common::{client, finch};
use kube::Api;
use kube::api::PostParams;

const SCRIPT: &str = include_str!("data/client.py");

#[test]
fn the_python_client_lists_watches_and_changes_a_custom_resource() {
    let outside = Outside::start();
    outside.runtime.block_on(async {
        let finches: Api<common::Finch> = Api::default_namespaced(client(&outside.server));
        finches.create(&PostParams::default(), &finch("first", "v1")).await.expect("create");
    });
    let python = cache().join("venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make setup`", python.display());
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .env("KUBECONFIG", outside.kubeconfig())
        .env("HOME", outside.folder.path())
        .output()
        .expect("Python starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let want = "\
LISTED ['first']
ADDED py 1 None
MODIFIED py 4 None
MODIFIED py 4 Sings
MODIFIED py 5 Sings
DELETED py 5 Sings
REFUSED 422 True
REFUSED 400
DYNAMIC v1
SECRET [{'a': 'Yg=='}]
";
    assert_eq!(stdout, want, "{stderr}");
}
