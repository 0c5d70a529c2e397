//! The help of every verb, word for word: it is what people read first, so that a change of it has to be seen.
//!
//! `SERIN_UPDATE_HELP=1 cargo test --release -p serin --test help` writes the texts anew.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// Every verb. The last ones are hidden from the short list, and documented all the same.
const VERBS: [&str; 27] = [
    "",
    "up",
    "down",
    "apply",
    "get",
    "describe",
    "delete",
    "rollout",
    "rollout status",
    "rollout promote",
    "rollout pause",
    "rollout resume",
    "rollout abort",
    "rollout retry",
    "rollout undo",
    "rollout history",
    "explain",
    "simulate",
    "infer",
    "outcome",
    "demo",
    "completion",
    "version",
    "control",
    "gateway",
    "run-replica",
    "model-server",
];

fn serin(args: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    let output = command.env_clear().args(args.split_whitespace()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_help_text_is_the_one_on_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let mut other = Vec::new();
    for verb in VERBS {
        let (code, text, err) = serin(&format!("{verb} --help"));
        assert_eq!((code, err.as_str()), (0, ""), "{verb}");
        let file =
            folder.join(format!("{}.txt", if verb.is_empty() { "serin".into() } else { verb.replace(' ', "-") }));
        if std::env::var_os("SERIN_UPDATE_HELP").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &text).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != text {
            other.push(format!("{}:\n{text}", file.display()));
        }
    }
    assert!(other.is_empty(), "these texts changed; SERIN_UPDATE_HELP=1 accepts them\n{}", other.join("\n"));
}

#[test]
fn every_help_text_has_examples_and_fits_the_screen() {
    for verb in VERBS {
        let (_, text, _) = serin(&format!("{verb} --help"));
        assert!(text.contains("Examples:\n  serin ") || verb == "rollout", "{verb}:\n{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{verb}: {line}");
        }
    }
}

#[test]
fn every_verb_of_the_command_line_is_known_here_and_has_a_section_in_the_manual() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    for verb in VERBS.iter().filter(|verb| !verb.is_empty()) {
        let heading = format!("### `serin {verb}");
        assert!(manual.lines().any(|line| line.starts_with(&heading)), "docs/cli.md has no section {heading}`");
    }
    for parent in ["", "rollout"] {
        let (_, text, _) = serin(&format!("{parent} --help"));
        let list = text.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        for name in list.lines().filter_map(|line| line.strip_prefix("  ")).filter_map(|line| line.split(' ').next()) {
            let verb = if parent.is_empty() { name.to_owned() } else { format!("{parent} {name}") };
            assert!(name.is_empty() || name == "help" || VERBS.contains(&verb.as_str()), "{verb} is not in this test");
        }
    }
}

#[test]
fn a_wrong_command_line_is_code_2_and_says_what_is_possible() {
    let rows = [
        ("frobnicate", "unrecognized subcommand"),
        ("aply -f x", "a similar subcommand exists: 'apply'"),
        ("get", "required arguments were not provided"),
        ("get endpoints -o xml", "[possible values: json, yaml, wide, name]"),
        ("apply", "--filename <FILE|DIR|->"),
        ("delete endpoint x --timeout 5", "write numbers with units h, m, s or ms"),
        ("rollout status x --timeout 5s", "--watch"),
        ("up --gateway-port 70000", "70000"),
        ("simulate -f x --errors 0.1", "want CONTROL:CANDIDATE"),
        ("completion tcsh", "tcsh"),
        ("gateway --listen 0.0.0.0:0", "can be reached by others than this machine; add --expose"),
        ("model-server --artifact x --listen 0.0.0.0:0", "can be reached by others than this machine; add --expose"),
    ];
    for (args, want) in rows {
        let (code, out, err) = serin(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args}: {err}");
        assert!(err.contains(want), "{args}: {err}");
    }
}

#[test]
fn completion_knows_the_verbs_in_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = serin(&format!("completion {shell}"));
        assert!(code == 0 && text.contains("rollout") && text.contains("simulate"), "{shell}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let (_, text, _) = serin("version");
    assert_eq!(text, format!("serin {}\n", env!("CARGO_PKG_VERSION")));
    let (_, json, _) = serin("version -o json");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&value["version"], &value["apiVersion"]),
        (&env!("CARGO_PKG_VERSION").into(), &"serin.dev/v1alpha1".into())
    );
}

#[test]
fn nothing_is_coloured_when_nobody_looks() {
    let (_, out, err) = serin("get endpoints --kubeconfig /does/not/exist");
    assert_eq!(out, "");
    assert!(err.starts_with("error: cannot use kubeconfig /does/not/exist") && !err.contains('\u{1b}'), "{err}");
    assert!(err.contains("\nhint: "), "{err}");
}
