//! A model server over real sockets.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use serin_runtime::{Limits, Listen, ModelServer, ModelServerConfig, Prediction, ServeError, WarmUp, serve_model};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

fn model(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(path).to_str().unwrap().to_owned()
}

/// Three classes, one input of 4 features: `label`, `probabilities`.
fn iris() -> ModelServerConfig {
    ModelServerConfig::new("iris", "7", &model("examples/iris/iris.onnx"), Listen::Tcp("127.0.0.1:0".into()))
}

/// Two classes, one input of 14 features.
fn adult() -> ModelServerConfig {
    ModelServerConfig::new("adult", "1", &model("examples/adult/lr.onnx"), Listen::Tcp("127.0.0.1:0".into()))
}

struct Server {
    address: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(config: ModelServerConfig) -> Server {
        let server = ModelServer::prepare(config).await.unwrap().bind().await.unwrap();
        let address = server.address().to_string();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Server { address, stop, running }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut stream = self.connect().await;
        send(&mut stream, method, path, "", body).await;
        receive(&mut stream).await.unwrap()
    }

    async fn infer(&self, name: &str, body: &str) -> Reply {
        self.ask("POST", &format!("/v2/models/{name}/infer"), body).await
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        timeout(LIMIT, self.running).await.unwrap().unwrap();
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> String {
        let json = self.json();
        let fields = json.as_object().unwrap();
        assert_eq!(fields.len(), 1, "{}", self.body);
        fields["error"].as_str().unwrap().to_owned()
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), method: &str, path: &str, headers: &str, body: &str) {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads one answer, which must have a length.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<Reply> {
    timeout(LIMIT, async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) if head.is_empty() => return None,
                Err(error) => panic!("cut off: {error}"),
            }
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).unwrap())
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        Some(Reply { status, headers, body: String::from_utf8(body).unwrap() })
    })
    .await
    .expect("no answer in time")
}

const ROW: &str = "5.1,3.5,1.4,0.2";

fn iris_request(extra: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"input","shape":[1,4],"datatype":"FP32","data":[{ROW}]}}]{extra}}}"#)
}

#[tokio::test]
async fn every_path_answers_as_the_protocol_says() {
    let server = Server::start(iris()).await;
    let rows = [
        ("GET", "/v2/health/live", 200, r#"{"live":true}"#),
        ("GET", "/v2/health/ready", 200, r#"{"ready":true}"#),
        ("GET", "/v2", 200, r#""name":"serin""#),
        ("GET", "/v2/models/iris", 200, r#""platform":"serin_onnx""#),
        ("GET", "/v2/models/iris/versions/7", 200, r#""versions":["7"]"#),
        ("GET", "/v2/models/iris/ready", 200, r#"{"name":"iris","ready":true}"#),
        ("GET", "/v2/models/iris/versions/7/ready", 200, r#""ready":true"#),
        ("GET", "/metrics", 200, "serin_model_requests_total{model=\"iris\",version=\"7\",code=\"200\"} 0"),
        ("GET", "/v2/models/rose", 404, r#"{"error":"no such model here; this server has iris, version 7"}"#),
        ("GET", "/v2/models/iris/versions/8/ready", 404, "no such model here"),
        ("POST", "/v2/models/iris/versions/8/infer", 404, "no such model here"),
        ("POST", "/v2/models/rose/infer", 404, "no such model here"),
        ("GET", "/", 404, "no such path"),
        ("GET", "/v2/models/iris/explain", 404, "no such path"),
        ("GET", "/v2/models/iris/infer", 405, "method `GET` is not allowed here; want POST"),
        ("POST", "/v2/health/live", 405, "want GET"),
        ("DELETE", "/v2/models/iris", 405, "want GET"),
    ];
    for (method, path, status, body) in rows {
        let reply = server.ask(method, path, "").await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
        assert!(reply.body.contains(body), "{method} {path}: {}", reply.body);
        assert!(!reply.headers.contains_key("transfer-encoding"));
        if path != "/metrics" {
            assert_eq!(reply.headers["content-type"], "application/json");
        }
        if status == 405 {
            assert!(["GET", "POST"].contains(&reply.headers["allow"].as_str()));
        }
    }
    let metadata = server.ask("GET", "/v2/models/iris", "").await.json();
    assert_eq!(metadata["inputs"], json!([{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]));
    assert_eq!(metadata["outputs"][1]["shape"], json!([-1, 3]));
    assert_eq!(metadata["outputs"][0]["parameters"]["classes"], json!([0, 1, 2]));
    server.stop().await;
}

#[tokio::test]
async fn an_inference_is_answered_with_outputs_and_prediction() {
    let server = Server::start(iris()).await;
    let reply = server.infer("iris", &iris_request(r#","id":"a\"b""#)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let json = reply.json();
    assert_eq!(
        (&json["model_name"], &json["model_version"], &json["id"]),
        (&"iris".into(), &"7".into(), &"a\"b".into())
    );
    assert_eq!(json["outputs"].as_array().unwrap().len(), 2);
    assert_eq!(json["outputs"][0]["datatype"], "INT64");
    assert_eq!(json["outputs"][0]["shape"], json!([1]));
    assert_eq!(json["outputs"][0]["data"], json!([0]));
    assert_eq!(json["outputs"][1]["shape"], json!([1, 3]));
    let largest = json["outputs"][1]["data"][0].as_f64().unwrap();
    let prediction = Prediction::from_header(&reply.headers["serin-prediction"]).unwrap();
    assert_eq!(prediction, Prediction { class: Some("0".into()), score: Some(largest), rows: 1 });
    server.stop().await;
}

#[tokio::test]
async fn all_ways_to_write_a_request_give_one_answer() {
    let server = Server::start(iris()).await;
    let rows = [
        ("flat", r#"{"inputs":[{"name":"input","shape":[2,4],"datatype":"FP32","data":[1,2,3,4,5,6,7,8]}]}"#),
        ("nested", r#"{"inputs":[{"name":"input","shape":[2,4],"datatype":"FP32","data":[[1,2,3,4],[5,6,7,8]]}]}"#),
        ("data first", r#"{"inputs":[{"data":[1,2,3,4,5,6,7,8],"shape":[2,4],"datatype":"FP32","name":"input"}]}"#),
        (
            "inputs last",
            r#"{"parameters":{"a":1},"x":[{}],"inputs":[{"name":"input","shape":[2,4],"datatype":"FP32","data":[1,2,3,4,5,6,7,8]}]}"#,
        ),
        (
            "spaces",
            " { \"inputs\" : [ {\n\"name\" : \"input\" , \"shape\":[ 2 , 4 ], \"datatype\":\"FP32\", \"data\": [ 1 , 2.0, 3e0 ,4,\t5,6,7,0.8e1 ] } ] } ",
        ),
        (
            "escapes",
            r#"{"inputs":[{"n\u0061me":"inp\u0075t","shape":[2,4],"datatype":"FP\u00332","data":[1,2,3,4,5,6,7,8]}]}"#,
        ),
        (
            "parameters",
            r#"{"inputs":[{"name":"input","parameters":{"content_type":"np","binary_data":false},"shape":[2,4],"datatype":"FP32","data":[1,2,3,4,5,6,7,8]}],"parameters":null}"#,
        ),
    ];
    let want = server.infer("iris", rows[0].1).await;
    assert_eq!(want.status, 200, "{}", want.body);
    for (why, body) in rows {
        let got = server.infer("iris", body).await;
        assert_eq!((got.status, &got.body), (200, &want.body), "{why}");
    }
    server.stop().await;
}

#[tokio::test]
async fn only_the_outputs_asked_for_are_sent_in_their_order() {
    let server = Server::start(iris()).await;
    let names = |reply: &Reply| -> Vec<String> {
        let outputs = reply.json()["outputs"].as_array().unwrap().clone();
        outputs.iter().map(|output| output["name"].as_str().unwrap().to_owned()).collect()
    };
    let reply = server.infer("iris", &iris_request(r#","outputs":[{"name":"probabilities"}]"#)).await;
    assert_eq!(names(&reply), ["probabilities"]);
    // The prediction is told all the same.
    assert!(reply.headers["serin-prediction"].starts_with("class=0;score=0.9"), "{:?}", reply.headers);
    let reply = server
        .infer(
            "iris",
            &iris_request(
                r#","outputs":[{"name":"probabilities","parameters":{"binary_data":false}},{"name":"label"}]"#,
            ),
        )
        .await;
    assert_eq!(names(&reply), ["probabilities", "label"]);
    assert_eq!(names(&server.infer("iris", &iris_request(r#","outputs":[]"#)).await), ["label", "probabilities"]);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_request_is_told_what_is_wrong_with_it() {
    let server = Server::start(iris()).await;
    let input = |text: &str| format!(r#"{{"inputs":[{{{text}}}]}}"#);
    let rows: Vec<(String, &str)> = vec![
        ("".into(), "the request cannot be read: byte 0: got the end, want a JSON object with `inputs`"),
        ("[]".into(), "the request cannot be read: byte 0: got a list, want a JSON object with `inputs`"),
        ("{".into(), "the request cannot be read: byte 1: got the end, want a key"),
        ("{}".into(), "the request has no `inputs`"),
        (r#"{"inputs":[]}"#.into(), "input `input` is missing; want FP32 [-1, 4]"),
        (r#"{"inputs":{}}"#.into(), "the request cannot be read: byte 10: got an object, want a list of inputs"),
        (r#"{"inputs":[3]}"#.into(), "inputs[0]: byte 11: got a number, want an object"),
        (format!("{} x", iris_request("")), "the request cannot be read: byte 87: got 'x', want the end"),
        (iris_request(r#","inputs":[]"#), "`inputs` is given twice"),
        (iris_request(r#","id":7"#), "`id`: byte 91: got a number, want a text"),
        (iris_request(r#","parameters":7"#), "`parameters` of the request: byte 99: got a number, want an object"),
        (
            iris_request(r#","outputs":[{"name":"x"}]"#),
            "`x` is not an output of the model; want `label`, `probabilities`",
        ),
        (iris_request(r#","outputs":[{}]"#), "outputs[0] has no `name`"),
        (iris_request(r#","outputs":[{"name":"label"},{"name":"label"}]"#), "output `label` is given twice"),
        (
            iris_request(r#","outputs":[{"name":"label","parameters":{"binary_data":true}}]"#),
            "outputs[0] asks for binary tensor data, which is not supported; send and ask for JSON data (binary_data: false)",
        ),
        (
            iris_request(r#","parameters":{"binary_data_output":true}"#),
            "the request asks for binary tensor data, which is not supported; send and ask for JSON data (binary_data: false)",
        ),
        (input(r#""shape":[1,4],"datatype":"FP32","data":[1,2,3,4]"#), "inputs[0] has no `name`"),
        (input(r#""name":"input","datatype":"FP32","data":[1,2,3,4]"#), "inputs[0] has no `shape`"),
        (input(r#""name":"input","shape":[1,4],"data":[1,2,3,4]"#), "inputs[0] has no `datatype`"),
        (input(r#""name":"input","shape":[1,4],"datatype":"FP32""#), "inputs[0] has no `data`"),
        (
            input(r#""name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]"#),
            "`x` is not an input of the model; want `input`",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP64","data":[1,2,3,4]"#),
            "input `input`: datatype is FP64, want FP32",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FLOAT","data":[1,2,3,4]"#),
            "input `input`: datatype is `FLOAT`, want FP32",
        ),
        (
            input(r#""name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]"#),
            "input `input`: shape is [1, 3], want [-1, 4]",
        ),
        (
            input(r#""name":"input","shape":[4],"datatype":"FP32","data":[1,2,3,4]"#),
            "input `input`: shape is [4], want [-1, 4]",
        ),
        (
            input(r#""name":"input","shape":[0,4],"datatype":"FP32","data":[]"#),
            "input `input`: shape is [0, 4], want [-1, 4]",
        ),
        (
            input(r#""name":"input","shape":[-1,4],"datatype":"FP32","data":[1,2,3,4]"#),
            "inputs[0].shape: byte 36: got a number, want a number from 0",
        ),
        (
            input(r#""name":"input","shape":"x","datatype":"FP32","data":[1,2,3,4]"#),
            "inputs[0].shape: byte 35: got a text, want a list of whole numbers",
        ),
        (
            input(r#""name":"input","shape":[1,1,1,1,1,1,1,1,1],"datatype":"FP32","data":[1]"#),
            "inputs[0].shape: byte 52: the number does not fit a shape of at most 8 extents",
        ),
        (
            input(r#""name":"input","shape":[2,4],"datatype":"FP32","data":[1,2,3,4,5]"#),
            "input `input`: data has 5 values, shape [2, 4] wants 8",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,4,5]"#),
            "input `input`: data has more than 4 values, shape [1, 4] wants 4",
        ),
        (
            input(r#""name":"input","shape":[1000000,4],"datatype":"FP32","data":[1,2]"#),
            "input `input`: data has at most 8 values, shape [1000000, 4] wants 4000000",
        ),
        (
            input(r#""name":"input","shape":[2,4],"datatype":"FP32","data":[[1,2,3],[4,5,6,7,8]]"#),
            "input `input`: the nested lists of data do not have the shape [2, 4]; nest them so, or give a flat list",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP32","data":[[1,2,3,4],[5]]"#),
            "input `input`: the nested lists of data do not have the shape [1, 4]; nest them so, or give a flat list",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP32","data":[1,"2",3,4]"#),
            "input `input`: data[1] is a text, want a number (FP32)",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,true,4]"#),
            "input `input`: data[2] is a truth value, want a number (FP32)",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,1e999]"#),
            "input `input`: data[3] is a number out of range, want a number (FP32)",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP32","data":7"#),
            "input `input`: `data`: byte 66: got a number, want a list",
        ),
        (
            input(r#""name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,4"#),
            "the request cannot be read: byte 74: got '}', want `,` or `]`",
        ),
        (
            format!(
                r#"{{"inputs":[{0},{0}]}}"#,
                r#"{"name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}"#
            ),
            "input `input` is given twice",
        ),
    ];
    let mut failures = String::new();
    for (body, want) in rows {
        let reply = server.infer("iris", &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
        assert!(!reply.headers.contains_key("serin-prediction"));
        if reply.error() != want {
            failures += &format!("{body}\n  got  {}\n  want {want}\n", reply.error());
        }
    }
    assert!(failures.is_empty(), "{failures}");
    server.stop().await;
}

#[tokio::test]
async fn texts_columns_and_missing_numbers_go_through_a_whole_pipeline() {
    let path = model("tests/fixtures/onnx/models/adult-pipeline-logistic/model.onnx");
    let server = Server::start(ModelServerConfig::new("p", "1", &path, Listen::Tcp("127.0.0.1:0".into()))).await;
    let metadata = server.ask("GET", "/v2/models/p", "").await.json();
    let inputs = metadata["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 14);
    let request = |rows: usize, break_workclass: bool| {
        let inputs: Vec<Value> = inputs
            .iter()
            .map(|input| {
                let text = input["datatype"] == "BYTES";
                let rows = if break_workclass && input["name"] == "workclass" { rows + 1 } else { rows };
                let value = if text { json!("Private") } else { json!(null) };
                json!({"name": input["name"], "datatype": input["datatype"], "shape": [rows, 1], "data": vec![value; rows]})
            })
            .collect();
        json!({ "inputs": inputs }).to_string()
    };
    let reply = server.infer("p", &request(3, false)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let label = reply.json()["outputs"][0].clone();
    assert_eq!((&label["datatype"], &label["shape"]), (&json!("BYTES"), &json!([3])));
    assert!(reply.headers["serin-prediction"].ends_with(";rows=3"));
    let reply = server.infer("p", &request(2, true)).await;
    assert_eq!(reply.error(), "input `workclass`: shape has 3 rows, the inputs before it have 2");
    server.stop().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests_also_sent_at_once() {
    let server = Server::start(iris()).await;
    let mut stream = server.connect().await;
    for _ in 0..5 {
        send(&mut stream, "POST", "/v2/models/iris/infer", "", &iris_request("")).await;
        assert_eq!(receive(&mut stream).await.unwrap().status, 200);
        // A refused request does not cost the connection.
        send(&mut stream, "POST", "/v2/models/iris/infer", "", "{").await;
        assert_eq!(receive(&mut stream).await.unwrap().status, 400);
        send(&mut stream, "GET", "/nowhere", "", "").await;
        assert_eq!(receive(&mut stream).await.unwrap().status, 404);
    }
    for _ in 0..3 {
        send(&mut stream, "POST", "/v2/models/iris/infer", "", &iris_request("")).await;
    }
    for _ in 0..3 {
        assert_eq!(receive(&mut stream).await.unwrap().status, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn large_and_chunked_bodies_are_read_up_to_the_limit() {
    let mut config = iris();
    config.limits = Limits { body_bytes_max: 100_000, inline_bytes_max: 10_000, ..Limits::default() };
    let server = Server::start(config).await;
    let body = |rows: usize| {
        let data = vec![ROW; rows].join(",");
        format!(r#"{{"inputs":[{{"name":"input","shape":[{rows},4],"datatype":"FP32","data":[{data}]}}]}}"#)
    };
    // Above `inline_bytes_max`, so answered by a blocking thread.
    let reply = server.infer("iris", &body(3000)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.json()["outputs"][0]["shape"], json!([3000]));

    let too_large = "the body has more than 100000 bytes; send fewer rows";
    let reply = server.infer("iris", &body(7000)).await;
    assert_eq!((reply.status, reply.error().as_str()), (413, too_large));

    let chunked = |body: &str| {
        let mut out = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        for chunk in body.as_bytes().chunks(777) {
            out += &format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap());
        }
        out + "0\r\n\r\n"
    };
    let mut stream = server.connect().await;
    stream.write_all(chunked(&body(200)).as_bytes()).await.unwrap();
    assert_eq!(receive(&mut stream).await.unwrap().json()["outputs"][0]["shape"], json!([200]));
    let mut stream = server.connect().await;
    let body = chunked(&body(7000));
    let (_, reply) = tokio::join!(stream.write_all(body.as_bytes()), async {
        let mut stream = server.connect().await;
        send(&mut stream, "GET", "/v2", "", "").await;
        receive(&mut stream).await
    });
    assert_eq!(reply.unwrap().status, 200);
    let reply = receive(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.error().as_str()), (413, too_large));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_spoken_is_said_so() {
    let server = Server::start(iris()).await;
    let rows = [
        ("content-encoding: gzip\r\n", 415, "content-encoding \"gzip\" is not supported; send the body as it is"),
        (
            "inference-header-content-length: 10\r\n",
            400,
            "binary tensor data (inference-header-content-length) is not supported; send JSON data",
        ),
    ];
    for (header, status, message) in rows {
        let mut stream = server.connect().await;
        send(&mut stream, "POST", "/v2/models/iris/infer", header, &iris_request("")).await;
        let reply = receive(&mut stream).await.unwrap();
        assert_eq!((reply.status, reply.error().as_str()), (status, message));
    }
    // More header fields than allowed: hyper answers 431 itself.
    let many: String = (0..150).map(|index| format!("x-{index}: 1\r\n")).collect();
    let mut stream = server.connect().await;
    send(&mut stream, "GET", "/v2", &many, "").await;
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn http2_without_tls_is_spoken_on_the_same_port() {
    let server = Server::start(iris()).await;
    let stream = server.connect().await;
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = http::Request::post("http://h/v2/models/iris/infer").body(iris_request("")).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().contains_key("serin-prediction"));
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        assert!(body.starts_with(b"{\"model_name\":\"iris\""));
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_appears_when_the_model_is_ready_and_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    std::fs::write(&path, "a stale file").unwrap();
    let mut config = iris();
    config.listen = Listen::Unix(path.clone());
    let prepared = ModelServer::prepare(config).await.unwrap();
    assert!(UnixStream::connect(&path).await.is_err());
    let server = prepared.bind().await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    send(&mut stream, "POST", "/v2/models/iris/infer", "", &iris_request("")).await;
    assert_eq!(receive(&mut stream).await.unwrap().status, 200);
    stop.send(()).unwrap();
    timeout(LIMIT, running).await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_server_ends() {
    let mut config = iris();
    config.parameters.insert("fault.latencyMs".into(), "300".into());
    let server = Server::start(config).await;
    let mut busy = server.connect().await;
    let mut idle = server.connect().await;
    send(&mut idle, "GET", "/v2", "", "").await;
    receive(&mut idle).await.unwrap();
    send(&mut busy, "POST", "/v2/models/iris/infer", "", &iris_request("")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = server.address.clone();
    let (stopped, reply) = tokio::join!(server.stop(), receive(&mut busy));
    let () = stopped;
    let reply = reply.unwrap();
    assert_eq!(reply.status, 200);
    // A connection that is to go says so.
    assert_eq!(reply.headers.get("connection").map(String::as_str), Some("close"));
    assert!(receive(&mut idle).await.is_none(), "the idle connection was closed without an answer");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_off_at_the_deadline() {
    let mut config = iris();
    config.parameters.insert("fault.latencyMs".into(), "60000".into());
    config.limits.drain = Duration::from_millis(200);
    let server = Server::start(config).await;
    let mut busy = server.connect().await;
    send(&mut busy, "POST", "/v2/models/iris/infer", "", &iris_request("")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = std::time::Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(receive(&mut busy).await.is_none());
}

#[tokio::test]
async fn slow_heads_slow_bodies_and_idle_connections_are_closed() {
    let mut config = iris();
    config.limits = Limits {
        head_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(400),
        ..Limits::default()
    };
    let server = Server::start(config).await;
    let mut slow_head = server.connect().await;
    slow_head.write_all(b"GET /v2 HTTP/1.1\r\nhost:").await.unwrap();
    let mut slow_body = server.connect().await;
    let head = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{";
    slow_body.write_all(head.as_bytes()).await.unwrap();
    let mut idle = server.connect().await;
    send(&mut idle, "GET", "/v2", "", "").await;
    assert_eq!(receive(&mut idle).await.unwrap().status, 200);

    let reply = receive(&mut slow_body).await.unwrap();
    assert_eq!(reply.status, 408);
    assert!(receive(&mut slow_head).await.is_none());
    assert!(receive(&mut idle).await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_its_answer_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    let mut config = iris();
    // The buffers of a unix socket do not grow, so the answer does not fit into them.
    config.listen = Listen::Unix(path.clone());
    config.limits = Limits {
        head_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::start(config).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let (rows, data) = (50_000, vec![ROW; 50_000].join(","));
    let body = format!(r#"{{"inputs":[{{"name":"input","shape":[{rows},4],"datatype":"FP32","data":[{data}]}}]}}"#);
    send(&mut stream, "POST", "/v2/models/iris/infer", "", &body).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut got = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut got)).await.unwrap().unwrap();
    let head = String::from_utf8_lossy(&got[..1000]).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    let promised: usize = length.parse().unwrap();
    assert!(promised > 1 << 20 && got.len() < promised, "{} of {promised} bytes", got.len());
    server.stop().await;
}

#[tokio::test]
async fn faults_on_purpose_fail_their_share_and_are_counted() {
    let mut config = iris();
    config.parameters.insert("fault.errorRate".into(), "0.5".into());
    let server = Server::start(config).await;
    let mut stream = server.connect().await;
    let mut failed = 0;
    for _ in 0..200 {
        send(&mut stream, "POST", "/v2/models/iris/infer", "", &iris_request("")).await;
        let reply = receive(&mut stream).await.unwrap();
        match reply.status {
            200 => {}
            500 => {
                failed += 1;
                assert_eq!(reply.error(), "injected fault (parameter fault.errorRate)");
            }
            other => panic!("{other}"),
        }
    }
    assert!((60..140).contains(&failed), "{failed}");
    let metrics = server.ask("GET", "/metrics", "").await.body;
    assert!(metrics.contains(&format!("code=\"500\"}} {failed}\n")), "{metrics}");
    assert!(metrics.contains(&format!("code=\"200\"}} {}\n", 200 - failed)), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn a_decision_threshold_moves_the_label_and_not_the_score() {
    let request =
        r#"{"inputs":[{"name":"input","shape":[1,14],"datatype":"FP32","data":[38,0,89814,3,9,0,9,2,0,1,0,0,50,0]}]}"#;
    let mut answers = Vec::new();
    for threshold in [None, Some("0.0"), Some("1.0")] {
        let mut config = adult();
        if let Some(threshold) = threshold {
            config.parameters.insert("decisionThreshold".into(), threshold.into());
        }
        let server = Server::start(config).await;
        let reply = server.infer("adult", request).await;
        let prediction = Prediction::from_header(&reply.headers["serin-prediction"]).unwrap();
        let json = reply.json();
        assert_eq!(prediction.class.unwrap(), json["outputs"][0]["data"][0].to_string());
        answers.push((json["outputs"][0]["data"][0].clone(), json["outputs"][1]["data"].clone(), prediction.score));
        server.stop().await;
    }
    assert_eq!((&answers[1].0, &answers[2].0), (&json!(1), &json!(0)));
    assert!(answers.iter().all(|answer| answer.1 == answers[0].1 && answer.2 == answers[0].2));
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let broken = model("tests/fixtures/onnx/hostile/unknown-operator.onnx");
    let mlp = model("tests/fixtures/onnx/models/linear-two-targets/model.onnx");
    let slow = WarmUp { latency_max: Some(Duration::ZERO), ..WarmUp::default() };
    let sample = WarmUp { sample: Some("/nowhere.json".into()), ..WarmUp::default() };
    type Change = Box<dyn FnOnce(&mut ModelServerConfig)>;
    let parameter = |name: &'static str, value: &'static str| -> Change {
        Box::new(move |config| {
            config.parameters.insert(name.into(), value.into());
        })
    };
    let rows: Vec<(Change, &str)> = vec![
        (
            Box::new(|config| config.artifact = "/nowhere.onnx".into()),
            "artifact /nowhere.onnx cannot be read: No such file",
        ),
        (Box::new(|config| config.artifact = "s3://b/m.onnx".into()), "want a path or a file:// URI"),
        (Box::new(move |config| config.digest = Some(digest.into())), "want sha256:0000"),
        (Box::new(|config| config.digest = Some("abc".into())), "want `sha256:` and 64 hexadecimal digits"),
        (Box::new(move |config| config.artifact = broken), "operator `Conv` (domain ai.onnx) of node"),
        (parameter("decisionThreshold", "2"), "parameter decisionThreshold is \"2\", want a number from 0 to 1"),
        (parameter("decisionThreshold", "0.5"), "this model has another number of classes"),
        (parameter("fault.errorRate", "2"), "parameter fault.errorRate is \"2\", want a share from 0 to 1"),
        (
            Box::new(move |config| {
                config.artifact = mlp;
                config.parameters.insert("decisionThreshold".into(), "0.5".into());
            }),
            "this model has no label output",
        ),
        (Box::new(move |config| config.warm_up = slow), "µs, want at most 0 µs"),
        (Box::new(move |config| config.warm_up = sample), "warm-up sample /nowhere.json cannot be read"),
        (Box::new(|config| config.listen = Listen::Tcp("127.0.0.1:1:2".into())), "cannot listen on 127.0.0.1:1:2"),
    ];
    for (change, want) in rows {
        let mut config = iris();
        change(&mut config);
        let started = async { Ok::<_, ServeError>(ModelServer::prepare(config).await?.bind().await?) };
        let error = started.await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(want), "got {error:?}, want {want:?}");
    }
}

#[tokio::test]
async fn a_warm_up_sample_must_be_answered_with_finite_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        (iris_request(""), None),
        (
            iris_request("").replace("5.1", "null"),
            Some("warm-up request 1: output `probabilities`, element 0 is NaN, want a finite number"),
        ),
        (
            iris_request("").replace("[1,4]", "[1,5]"),
            Some("warm-up request 1 failed: input `input`: shape is [1, 5], want [-1, 4]"),
        ),
    ];
    for (body, want) in rows {
        let path = folder.path().join("sample.json");
        std::fs::write(&path, body).unwrap();
        let mut config = iris();
        config.warm_up.sample = Some(path);
        let got = ModelServer::prepare(config).await.err().map(|error| error.to_string());
        assert_eq!(got.as_deref(), want);
    }
}

#[tokio::test]
async fn the_right_digest_is_accepted_from_a_folder_and_a_uri() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(model("examples/iris/iris.onnx")).unwrap();
    std::fs::write(folder.path().join("model.onnx"), &bytes).unwrap();
    let mut config = iris();
    config.artifact = format!("file://{}", folder.path().display());
    config.digest = Some(serin_runtime::digest_of(&bytes));
    let server = Server::start(config).await;
    assert_eq!(server.infer("iris", &iris_request("")).await.status, 200);
    server.stop().await;
}

#[test]
fn a_server_that_is_told_to_end_while_it_loads_ends_and_never_listens() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s.sock");
    let endless = WarmUp { requests: u32::MAX, timeout: Duration::from_secs(30), ..WarmUp::default() };
    let config = ModelServerConfig { listen: Listen::Unix(socket.clone()), warm_up: endless, ..iris() };
    // Not tokio's test runtime, which would wait for the load.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served = runtime
        .block_on(async { timeout(LIMIT, serve_model(config, tokio::time::sleep(Duration::from_millis(200)))).await });
    runtime.shutdown_background();
    served.unwrap().unwrap();
    assert!(!socket.exists());
}
