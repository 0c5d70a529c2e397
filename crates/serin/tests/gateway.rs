//! infer and outcome against a gateway that notes what it is asked.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use common::{Ran, World};
use serde_json::{Value, json};

type Asked = Arc<Mutex<Vec<(String, HeaderMap, Value)>>>;

fn gateway(world: &World) -> (String, Asked) {
    let asked = Asked::default();
    let note = asked.clone();
    let handler = move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        note.lock().unwrap().push((format!("{} {path}", parts.method), parts.headers, body));
        answer(&path)
    };
    (world.serve(axum::Router::new().fallback(handler)), asked)
}

fn answer(path: &str) -> Response {
    let headers =
        [("serin-version", "v2"), ("serin-digest", "sha256:aa"), ("x-request-id", "r1"), ("serin-receipt", "v1.a.b")];
    match path {
        "/v2/models/income" | "/n/fraud/v2/models/income" => {
            axum::Json(json!({"name": "income", "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}]}))
                .into_response()
        }
        "/v2/models/income/infer" | "/n/fraud/v2/models/income/infer" => {
            (headers, axum::Json(json!({"model_name": "income", "outputs": []}))).into_response()
        }
        "/v2/models/cold/infer" => {
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({"error": "no replica of v2 is ready"}))).into_response()
        }
        "/serin/v1/outcomes" => axum::Json(json!({"status": "recorded"})).into_response(),
        _ => (StatusCode::NOT_FOUND, "no such endpoint").into_response(),
    }
}

#[test]
fn infer_sends_rows_and_requests_and_says_who_answered() {
    let world = World::new();
    let (url, asked) = gateway(&world);
    let run = |args: &str| {
        Ran::from(world.command(args.split_whitespace()).env("SERIN_GATEWAY", &url).output().unwrap(), args)
    };

    let ran = run("infer income --row 1,2.5 --row -3,4 --header x-user=anna -v");
    assert_eq!((ran.code, ran.out.as_str()), (0, "{\"model_name\":\"income\",\"outputs\":[]}\n"), "{}", ran.err);
    assert_eq!(ran.err, "version: v2\ndigest: sha256:aa\nrequest id: r1\nreceipt: v1.a.b\n");
    {
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0].0, "GET /v2/models/income");
        let (path, headers, body) = &asked[1];
        assert_eq!((path.as_str(), headers["x-user"].as_bytes()), ("POST /v2/models/income/infer", &b"anna"[..]));
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(
            body["inputs"][0],
            json!({"name": "input", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.5, -3.0, 4.0]})
        );
    }

    world.write("request.json", "{\"inputs\": []}");
    assert_eq!(run("infer income --file request.json -n fraud").code, 0);
    assert_eq!(asked.lock().unwrap().last().unwrap().0, "POST /n/fraud/v2/models/income/infer");
    // The context's namespace counts here as for every other verb.
    assert_eq!(run("infer income --data {} --context fraud").code, 0);
    assert_eq!(asked.lock().unwrap().last().unwrap().0, "POST /n/fraud/v2/models/income/infer");

    let rows = [
        ("infer cold --data {}", 1, "answered 503: no replica of v2 is ready"),
        ("infer nope --data {}", 1, "answered 404: no such endpoint"),
        ("infer income --row 1,2,3", 1, "row 1 has 3 values, and income takes 2"),
        ("infer income --row 1,x", 1, "value 2 is \"x\""),
        ("infer income --data {} --header x", 2, "want NAME=VALUE"),
        ("infer income --data {} --gateway localhost:1", 2, "not a URL of a gateway"),
        (
            "infer income --data {} --gateway http://127.0.0.1:1",
            1,
            "cannot reach http://127.0.0.1:1: client error (Connect)",
        ),
        ("infer income --data {} --row 1", 2, "cannot be used with"),
    ];
    for (args, code, want) in rows {
        let ran = run(args);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args}: {}", ran.err);
        assert!(ran.err.contains(want), "{args}: {}", ran.err);
    }
}

#[test]
fn infer_reads_standard_input() {
    let world = World::new();
    let (url, asked) = gateway(&world);
    let file = world.write("request.json", "{\"inputs\": [1]}");
    let mut command = world.command(["infer", "income", "--gateway", &url]);
    let output = command.stdin(std::fs::File::open(file).unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(asked.lock().unwrap()[0].2, json!({"inputs": [1]}));
}

#[test]
fn an_outcome_is_json_where_it_can_be_and_text_where_not() {
    let world = World::new();
    let (url, asked) = gateway(&world);
    for (label, want) in
        [("1", json!(1)), (">50K", json!(">50K")), ("\"1\"", json!("1")), ("-2.5", json!(-2.5)), ("true", json!(true))]
    {
        let output = world.command(["outcome", "v1.a.b", label, "--gateway", &url]).output().unwrap();
        let ran = Ran::from(output, "outcome");
        assert_eq!((ran.code, ran.out), (0, format!("recorded (gateway {url})\n")), "{label}: {}", ran.err);
        assert_eq!(asked.lock().unwrap().last().unwrap().2, json!({"receipt": "v1.a.b", "label": want}));
    }
}

#[test]
fn a_caller_without_the_token_or_the_authority_is_turned_away() {
    let world = World::new();
    let good = std::fs::read_to_string(world.path("kubeconfig")).unwrap();
    let config: Value = serde_json::from_str(&good).unwrap();
    let mut token = config.clone();
    token["users"][0]["user"]["token"] = json!("wrong");
    let mut authority = config.clone();
    authority["clusters"][0]["cluster"]["certificate-authority-data"].take();
    for (config, want) in [(token, "Unauthorized"), (authority, "cannot reach https://127.0.0.1:")] {
        world.write("kubeconfig", &config.to_string());
        let ran = world.run("get endpoints");
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert!(ran.err.contains(want) && ran.err.contains("hint: "), "{}", ran.err);
    }
}

#[test]
fn the_running_serin_is_found_by_its_home() {
    let world = World::new();
    let (url, _) = gateway(&world);
    let up = json!({"pid": std::process::id(), "gateway": url.trim_start_matches("http://"), "admin": "127.0.0.1:1",
        "api": world.url.trim_start_matches("https://"), "home": world.path("home"), "startedAt": 0});
    world.write("home/up.json", &up.to_string());
    std::fs::copy(world.path("kubeconfig"), world.path("home/kubeconfig")).unwrap();
    let run = |args: &str, home: bool| {
        let mut command = world.bare(args.split_whitespace());
        if home {
            command.env("SERIN_HOME", world.path("home"));
        }
        Ran::from(command.output().unwrap(), args)
    };
    assert_eq!(run("infer income --data {}", true).code, 0);
    world.write("e.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: ml}\n");
    let applied = run("apply -f e.yaml", true);
    assert!(applied.code == 0 && applied.err.contains("at serin up ~/home"), "{}", applied.err);
    let flag = run("get ns ml -o name --home home", false);
    assert_eq!((flag.code, flag.out.as_str()), (0, "namespace/ml\n"), "{}", flag.err);

    // A home on the command line is a choice: nothing else is taken when nothing runs there.
    let nothing = run("get ns --home elsewhere", true);
    assert!(nothing.code == 1 && nothing.err.contains("nothing runs under"), "{}", nothing.err);
    let none = run("get ns", false);
    assert!(
        none.code == 1
            && none.err.contains("no Serin is running and no kubeconfig was found")
            && none.err.contains("serin up"),
        "{}",
        none.err
    );
    let gateway = run("infer income --data {}", false);
    assert!(gateway.code == 1 && gateway.err.contains("no gateway is known"), "{}", gateway.err);
}
