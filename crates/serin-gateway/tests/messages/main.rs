//! Messages of HTTP/1 as any peer may send them: each is read in one way only, whoever reads it.

#![allow(clippy::unwrap_used)]

mod properties;

use properties::hold;
use proptest::prelude::*;

/// Sizes in which every message below comes too.
const SIZES: [&[usize]; 4] = [&[1], &[2, 3], &[7, 1, 1, 40], &[100]];

#[test]
fn messages_that_others_were_smuggled_by_are_read_as_one_thing_or_refused() {
    let post = "POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n";
    let next = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let requests = [
        format!("{post}content-length: 5\r\n\r\nhello{next}"),
        format!("{post}content-length: 5\r\ncontent-length: 5\r\n\r\nhello{next}"),
        format!("{post}content-length: 5\r\ncontent-length: 6\r\n\r\nhello{next}"),
        format!("{post}content-length: 5, 5\r\n\r\nhello{next}"),
        format!("{post}content-length: 005\r\n\r\nhello{next}"),
        format!("{post}{chunked}content-length: 4\r\n\r\n0\r\n\r\n{next}"),
        format!("{post}content-length: 4\r\n{chunked}\r\n0\r\n\r\n{next}"),
        format!("{post}transfer-encoding:\tchunked \r\n\r\n3\r\nabc\r\n0\r\n\r\n{next}"),
        format!("{post}transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("{post}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{next}"),
        format!("{post}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("{post}x: a\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("{post}x: a\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("{post}x: a\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("{post}{chunked}\r\n3;a=\"b;\";c\r\nabc\r\n0;d\r\nt: u\r\n\r\n{next}"),
        format!("{post}{chunked}\r\n3 \r\nabc\r\n0\r\n\r\n{next}"),
        format!("{post}{chunked}\r\n3\nabc\r\n0\r\n\r\n{next}"),
        format!("{post}{chunked}\r\n3\r\nabcd\r\n0\r\n\r\n{next}"),
        format!("{post}{chunked}\r\n0x3\r\nabc\r\n0\r\n\r\n{next}"),
        format!("{post}{chunked}\r\nffffffffffffffff\r\nabc{next}"),
        format!("{post}{chunked}\r\nfffffffffffffff\r\nabc{next}"),
        format!("{post}{chunked}\r\n100000000000000003\r\nabc\r\n0\r\n\r\n{next}"),
        format!("{post}connection: content-length, x\r\nx: 1\r\ncontent-length: 5\r\n\r\nhello{next}"),
        format!("{post}connection: host, transfer-encoding\r\n{chunked}\r\n0\r\n\r\n{next}"),
        format!("\r\n\r\n{post}content-length: 0\r\n\r\n{next}"),
        format!("POST http://b/p HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx{next}"),
        "POST /p HTTP/1.0\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "POST /p HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nxPOST /q HTTP/1.0\r\n\r\n".to_owned(),
        "GET /a` HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET http://h?a HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(3000)),
    ];
    let answers = [
        format!("{ok}content-length: 5\r\n\r\nhelloHTTP/1.1 500 x\r\n\r\n"),
        format!("{ok}content-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
        format!("{ok}content-length: 5\r\n{chunked}\r\n2\r\nab\r\n0\r\n\r\n"),
        format!("{ok}{chunked}content-length: 99\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        format!("{ok}transfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        format!("{ok}\r\nuntil the end"),
        "HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
        format!("HTTP/1.1 304 No\r\n{chunked}\r\n0\r\n\r\n"),
        format!("HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hint\r\nlink: x\r\n\r\n{ok}content-length: 1\r\n\r\nx"),
        "HTTP/1.1 100 Go\r\n\r\n".repeat(20),
        format!("HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n{ok}content-length: 0\r\n\r\n"),
        format!("HTTP/1.0 200 OK\r\n{chunked}\r\n0\r\n\r\n"),
        format!("{ok}x: a\nb: c\ncontent-length: 1\n\nx"),
        format!("{ok}x : a\r\ncontent-length: 0\r\n\r\n"),
        format!("{ok}date: a\r\ndate: b\r\nconnection: date\r\ncontent-length: 0\r\n\r\n"),
        format!("{ok}x: {}\r\n\r\n", "y".repeat(70_000)),
    ];
    for message in requests.iter().chain(&answers) {
        for sizes in SIZES {
            hold(message.as_bytes(), sizes);
        }
    }
}

/// Lines and other pieces of messages, sound and not.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.1",
        "POST http://h:1/b HTTP/1.1",
        "POST /c HTTP/1.0",
        "HTTP/1.1 200 OK",
        "HTTP/1.0 404 x",
        "HTTP/1.1 100 x",
        "HTTP/1.1 204 x",
        "HTTP/1.1 304",
        "host: a",
        "Host:\tb ",
        "content-length: 3",
        "content-length: 0",
        "Content-Length: 03",
        "content-length: 3, 3",
        "content-length: +3",
        "content-length : 3",
        "transfer-encoding: chunked",
        "Transfer-Encoding: Chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding:",
        "connection: close",
        "connection: keep-alive, x",
        "connection: content-length",
        "expect: 100-continue",
        "x: y",
        "x: é",
        " folded",
        "\tfolded",
        "3",
        "3;e=f",
        "3 ; e",
        "0",
        "00",
        "abc",
        "ffffffffffffffffff",
        "fffffffffffffff",
        "",
        "",
    ]);
    let ends = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("")];
    let noise = prop::collection::vec(any::<u8>(), 0..8);
    prop_oneof![
        30 => (lines, ends).prop_map(|(line, end)| [line.as_bytes(), end.as_bytes()].concat()),
        1 => noise,
    ]
}

/// A message that is sound but for, perhaps, one byte.
fn nearly_sound() -> impl Strategy<Value = Vec<u8>> {
    let head = prop::sample::select(vec!["POST /a HTTP/1.1\r\nhost: a\r\n", "HTTP/1.1 200 OK\r\n"]);
    let pieces = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5);
    (head, pieces, any::<bool>(), prop::option::of((any::<prop::sample::Index>(), any::<u8>()))).prop_map(
        |(head, pieces, chunked, change)| {
            let mut message = head.as_bytes().to_vec();
            if chunked {
                message.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for piece in &pieces {
                    message.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    message.extend_from_slice(piece);
                    message.extend_from_slice(b"\r\n");
                }
                message.extend_from_slice(b"0\r\n\r\n");
            } else {
                let body = pieces.concat();
                message.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                message.extend_from_slice(&body);
            }
            if let Some((at, byte)) = change {
                let at = at.index(message.len());
                message[at] = byte;
            }
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parts_of_messages_in_any_order_are_read_in_one_way(
        parts in prop::collection::vec(part(), 0..24),
        sizes in prop::collection::vec(1..40usize, 1..10),
    ) {
        hold(&parts.concat(), &sizes);
    }

    #[test]
    fn messages_with_a_wrong_byte_are_read_in_one_way(
        messages in prop::collection::vec(nearly_sound(), 1..4),
        sizes in prop::collection::vec(1..40usize, 1..10),
    ) {
        hold(&messages.concat(), &sizes);
    }
}

/// What the API takes, the gateway can route: every value that the CRD's patterns allow, and no reserved path.
#[test]
fn what_the_crd_allows_can_be_routed() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;
    let crds = serin_api::resources::crds();
    let crd = crds.iter().find(|crd| crd.spec.names.plural == "modelendpoints").unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let traffic = &spec["properties"]["traffic"]["properties"];
    let values = |schema: &serde_json::Value| {
        let pattern = schema["pattern"].as_str().expect("a pattern");
        let pattern = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).expect("of the whole value");
        let strategy = proptest::string::string_regex(pattern).unwrap();
        let mut runner = TestRunner::deterministic();
        (0..2000).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect::<Vec<String>>()
    };
    for path in values(&traffic["path"]) {
        assert!(serin_gateway::table::paths::is_routable_prefix(&path), "{path:?}");
    }
    let rule = spec["x-kubernetes-validations"].to_string();
    assert!(rule.contains("!self.traffic.path.matches('^/(v2|serin)(/|$)')"), "{rule}");
    for value in values(&traffic["rules"]["items"]["properties"]["headers"]["items"]["properties"]["value"]) {
        assert!(http::HeaderValue::from_bytes(value.as_bytes()).is_ok(), "{value:?}");
    }
}
