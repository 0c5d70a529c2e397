//! Framing, in both directions: what is ambiguous is refused, what is unusual is understood.

use std::time::{Duration, Instant};

use crate::harness::*;

const HEAD: &str = "POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n";

#[test]
fn requests_that_two_parties_could_read_differently_are_refused() {
    let upstream = Upstream::start(named("ok"));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    //  why                            head lines                                        body      status
    let rows = [
        ("both framings", "content-length: 2\r\ntransfer-encoding: chunked\r\n", chunked, 400),
        ("the other way round", "transfer-encoding: chunked\r\ncontent-length: 2\r\n", chunked, 400),
        ("in other letters", "Content-LENGTH: 2\r\nTRANSFER-encoding: Chunked\r\n", chunked, 400),
        ("two lengths", "content-length: 2\r\ncontent-length: 3\r\n", "{}", 400),
        ("a list of lengths", "content-length: 2, 3\r\n", "{}", 400),
        ("a signed length", "content-length: +2\r\n", "{}", 400),
        ("a negative length", "content-length: -2\r\n", "{}", 400),
        ("a folded header", "content-length: 2\r\nx-a: 1\r\n 2\r\n", "{}", 400),
        ("a blank before the colon", "content-length : 2\r\n", "{}", 400),
        ("a coding that is not chunked", "transfer-encoding: gzip\r\n", "{}", 400),
        ("chunked not last", "transfer-encoding: chunked, gzip\r\n", chunked, 400),
        ("a null in a header", "content-length: 2\r\nx-a: \0\r\n", "{}", 400),
        ("a chunk size that is no number", "transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n", 400),
        ("an empty coding", "transfer-encoding:\r\n", "{}", 400),
        ("a chunk longer than it says", "transfer-encoding: chunked\r\n", "1\r\n{}\r\n0\r\n\r\n", 400),
        ("a chunk size beyond all", "transfer-encoding: chunked\r\n", "fffffffffffffffff\r\n{}", 400),
        ("no length", "", "", 411),
        ("one length twice", "content-length: 2\r\ncontent-length: 2\r\n", "{}", 200),
        ("chunked", "transfer-encoding: chunked\r\n", chunked, 200),
        ("chunked with an extension", "transfer-encoding: chunked\r\n", "2;a=b\r\n{}\r\n0\r\n\r\n", 200),
        ("chunked with a trailer", "transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\nx: y\r\n\r\n", 200),
        ("an empty body", "content-length: 0\r\n", "", 200),
        ("two hosts", "host: b\r\ncontent-length: 2\r\n", "{}", 400),
        ("a bare LF in the head", "x-a: 1\ncontent-length: 2\r\n", "{}", 400),
        ("a bare LF in chunks", "transfer-encoding: chunked\r\n", "2\n{}\r\n0\r\n\r\n", 400),
    ];
    for (why, head, body, status) in rows {
        let before = upstream.seen().len();
        let mut client = Client::connect(gateway.data);
        client.write(format!("{HEAD}{head}\r\n{body}"));
        let reply = client.reply().unwrap_or_else(|| panic!("{why}: no answer"));
        assert_eq!(reply.status, status, "{why}: {}", String::from_utf8_lossy(&reply.body));
        let seen = upstream.seen();
        if status == 200 {
            let want = if why == "an empty body" { "" } else { "{}" };
            assert_eq!(String::from_utf8_lossy(&seen.last().unwrap().body), want, "{why}");
            assert!(!seen.last().unwrap().headers.contains_key("transfer-encoding"), "{why}");
        } else {
            assert_eq!(seen.len(), before, "{why}: it reached the model");
        }
    }
}

#[test]
fn a_smuggled_request_is_not_taken_for_one() {
    let upstream = Upstream::start(named("ok"));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let inner = "POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\nx-smuggled: 1\r\ncontent-length: 0\r\n\r\n";
    let mut client = Client::connect(gateway.data);
    client.write(format!("{HEAD}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}"));
    assert_eq!(client.reply().unwrap().status, 400);
    assert!(client.reply().is_none(), "the connection is not used on");
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn chunked_and_other_requests_may_alternate_on_one_connection() {
    let upstream = Upstream::start(|seen: &Seen| Act::Say(answer(200, "", &String::from_utf8_lossy(&seen.body))));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    for round in 0..20 {
        let reply = client.send(format!("{HEAD}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
        assert_eq!((reply.status, reply.text().as_str()), (200, "abcde"), "round {round}");
        let reply = client.send(format!("{HEAD}content-length: 20\r\n\r\n\r\ncontent-length: 9\n"));
        assert_eq!((reply.status, reply.body.len()), (200, 20), "round {round}");
        // One byte at a time: a head that comes in pieces is still seen as a whole.
        for byte in format!("{HEAD}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n").into_bytes() {
            client.write([byte]);
            std::thread::sleep(Duration::from_micros(50));
        }
        assert_eq!(client.reply().unwrap().text(), "x", "round {round}");
        let reply = client.send("GET /v2/models/m HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(reply.status, 200, "round {round}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|seen: &Seen| Act::Say(answer(200, "", &seen.headers["x-n"])));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    let requests: String = (0..20).map(|n| infer(&format!("x-n: {n}\r\n"))).collect();
    client.write(requests);
    for n in 0..20 {
        assert_eq!(client.reply().unwrap().text(), n.to_string());
    }
}

#[test]
fn answers_of_every_framing_reach_the_caller_whole() {
    let chunked = |pieces: &[&str]| -> Vec<u8> {
        let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        pieces.iter().for_each(|piece| text += &format!("{:x}\r\n{piece}\r\n", piece.len()));
        (text + "0\r\n\r\n").into_bytes()
    };
    let big = "b".repeat(3 << 20);
    let ms = Duration::from_millis(20);
    let slow = move |bytes: &[u8], size: usize| Act::SaySlowly(bytes.chunks(size).map(<[u8]>::to_vec).collect(), ms);
    type Make = Box<dyn Fn() -> Act + Send + Sync>;
    let rows: Vec<(&str, String, Make)> = vec![
        ("length", "abc".into(), Box::new(|| Act::Say(answer(200, "", "abc")))),
        ("no body", String::new(), Box::new(|| Act::Say(answer(200, "", "")))),
        ("204", String::new(), Box::new(|| Act::Say(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()))),
        ("length, in pieces", "abcdef".into(), Box::new(move || slow(&answer(200, "", "abcdef"), 7))),
        ("chunked", "abcdef".into(), Box::new(move || Act::Say(chunked(&["abc", "def"])))),
        ("chunked, in pieces", "abcdef".into(), Box::new(move || slow(&chunked(&["abc", "def"]), 9))),
        (
            "chunked, with a trailer",
            "abc".into(),
            Box::new(|| {
                Act::Say(
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nx: y\r\n\r\n".to_vec(),
                )
            }),
        ),
        ("until the end", "abc".into(), Box::new(|| Act::SayAndClose(b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec()))),
        (
            "HTTP/1.0",
            "abc".into(),
            Box::new(|| Act::SayAndClose(b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc".to_vec())),
        ),
        ("close", "abc".into(), Box::new(|| Act::SayAndClose(answer(200, "connection: close\r\n", "abc")))),
        (
            "interim answers",
            "abc".into(),
            Box::new(|| {
                let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".to_vec();
                Act::Say([interim, answer(200, "", "abc")].concat())
            }),
        ),
        ("larger than the buffer", big.clone(), Box::new(move || Act::Say(answer(200, "", &big)))),
    ];
    for (why, want, make) in rows {
        let upstream = Upstream::start(move |_| make());
        let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
        let mut client = Client::connect(gateway.data);
        for _ in 0..3 {
            let reply = client.send(infer(""));
            assert!(reply.status < 300, "{why}: {} {}", reply.status, reply.text());
            assert!(reply.text() == want, "{why}: {} bytes instead of {}", reply.body.len(), want.len());
            assert!(reply.header("serin-receipt").is_some(), "{why}");
        }
        until("all are counted", || gateway.metric("serin_requests_total", &[("class", "ok")]) == 3.0);
        gateway.metric_is("serin_requests_total", &[], 3.0, why);
    }
}

#[test]
fn answers_that_are_not_http_are_a_502() {
    let rows: [&[u8]; 12] = [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
    ];
    for bytes in rows {
        let upstream = Upstream::start(move |_| Act::SayAndClose(bytes.to_vec()));
        let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
        let reply = gateway.infer("");
        assert_eq!(reply.status, 502, "{:?}", String::from_utf8_lossy(bytes));
        gateway.metric_is("serin_requests_total", &[("class", "transport")], 1.0, "");
    }
}

#[test]
fn a_stream_that_breaks_off_is_not_taken_for_complete() {
    let chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec();
    let upstream = Upstream::start(move |_| Act::Say(chunk.clone()));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    client.write(infer(""));
    std::thread::sleep(Duration::from_millis(200));
    upstream.close_connections();
    let bytes = client.rest();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("abc") && !text.ends_with("0\r\n\r\n"), "{text}");
    until("it is counted", || gateway.metric("serin_requests_total", &[("class", "transport")]) == 1.0);
}

#[test]
fn a_stream_reaches_the_caller_as_it_comes() {
    let upstream = Upstream::start(|_| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        Act::SaySlowly(vec![head, b"3\r\nabc\r\n".to_vec(), b"0\r\n\r\n".to_vec()], Duration::from_millis(400))
    });
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    let started = Instant::now();
    client.write(infer(""));
    let reply = client.reply().unwrap();
    assert_eq!(reply.text(), "abc");
    assert!(started.elapsed() > Duration::from_millis(700), "the upstream takes 800 ms");
    // The latency is that of the whole answer.
    assert!(gateway.metric("serin_request_duration_seconds_sum", &[]) > 0.7);
}

#[test]
fn a_body_of_unknown_length_is_held_back_only_as_long_as_it_may_soon_be_whole() {
    let ms = Duration::from_millis;
    let small = || b"3\r\nabc\r\n".to_vec();
    let large = || format!("{:x}\r\n{}\r\n", 70 << 10, "l".repeat(70 << 10)).into_bytes();
    //  why                      content-type                 pieces                                 pause     framing that the caller sees
    let rows = [
        ("it comes soon", "application/json", vec![small(), small()], ms(15), "content-length: 6\r\n"),
        ("it falls silent", "application/json", vec![small(), small()], ms(1500), "transfer-encoding: chunked"),
        ("it says nothing", "application/json", vec![vec![], small()], ms(1500), "transfer-encoding: chunked"),
        ("it never ends", "application/json", vec![small(); 100], ms(15), "transfer-encoding: chunked"),
        ("it is large", "application/json", vec![large(), small()], ms(1500), "transfer-encoding: chunked"),
        ("events", "Text/Event-Stream; charset=utf-8", vec![small(), small()], ms(15), "transfer-encoding: chunked"),
        ("lines", "application/x-ndjson", vec![small(), small()], ms(15), "transfer-encoding: chunked"),
    ];
    for (why, content_type, pieces, pause, framing) in rows {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n");
        let body: usize =
            pieces.iter().map(|p| if p.len() > 1000 { 70 << 10 } else { p.len().saturating_sub(5) }).sum();
        let said = [vec![head.into_bytes()], pieces, vec![b"0\r\n\r\n".to_vec()]].concat();
        let said = if pause > ms(100) { [vec![said[..2].concat()], said[2..].to_vec()].concat() } else { said };
        let upstream = Upstream::start(move |_| Act::SaySlowly(said.clone(), pause));
        let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
        // A busy machine may make an upstream fall silent that does not mean to, so one of a few tries counts.
        for attempt in 1..=5 {
            let mut client = Client::connect(gateway.data);
            let started = Instant::now();
            client.write(infer(""));
            let begun = client.beginning();
            let waited = started.elapsed();
            assert_eq!(client.reply().unwrap().body.len(), body, "{why}");
            if waited < ms(1200) && begun.contains(framing) {
                break;
            }
            assert!(attempt < 5, "{why}: after {waited:?} came {begun}");
        }
    }
}

#[test]
fn head_requests_have_no_body() {
    let upstream = Upstream::start(|_| Act::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_vec()));
    let mut with_path = route(&at(&[&upstream]), &[], 0.0);
    with_path.path = Some("/".into());
    let gateway = TestGateway::serving(table(with_path));
    let mut client = Client::connect(gateway.data);
    client.write(
        "HEAD /x HTTP/1.1\r\nhost: a\r\n\r\nGET /v2/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    );
    let text = String::from_utf8(client.rest()).unwrap();
    assert!(text.contains("content-length: 7\r\n") && text.ends_with("{\"live\":true}"), "{text}");

    // A length that the replica does not declare is not known.
    upstream.behave(|_| Act::Say(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
    let mut client = Client::connect(gateway.data);
    client.write("HEAD /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let text = String::from_utf8(client.rest()).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{text}");
}

#[test]
fn a_body_in_many_pieces_arrives_as_it_was() {
    let upstream = Upstream::start(|seen: &Seen| {
        let sum: u64 = seen.body.iter().enumerate().map(|(i, b)| (i as u64 + 1).wrapping_mul(u64::from(*b))).sum();
        Act::Say(answer(200, "", &format!("{} {sum}", seen.body.len())))
    });
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    for size in [1, 400, 16 << 10, (16 << 10) + 1, 5 << 20] {
        let body: Vec<u8> = (0..size).map(|i: usize| (i * 7 + i / 251) as u8).collect();
        let sum: u64 = body.iter().enumerate().map(|(i, b)| (i as u64 + 1).wrapping_mul(u64::from(*b))).sum();
        client.write(format!("{HEAD}content-length: {size}\r\n\r\n"));
        for piece in body.chunks(70_000) {
            client.write(piece);
        }
        assert_eq!(client.reply().unwrap().text(), format!("{size} {sum}"));
    }
}

#[test]
fn a_replica_that_refuses_a_body_early_is_heard() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = serin_api::wire::routes::Address::Tcp(listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut some = [0; 1000];
            let _ = stream.read(&mut some);
            let _ = stream.write_all(&answer(413, "connection: close\r\n", "too much"));
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let gateway = TestGateway::serving(table(route(&[address], &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    client.write(format!("{HEAD}content-length: {}\r\n\r\n", 8 << 20));
    client.write(vec![b'x'; 8 << 20]);
    let reply = client.reply().unwrap();
    // The answer is lost where the reset overtakes it; then it is a broken connection and nothing else.
    assert!(matches!(reply.status, 413 | 502), "{} {}", reply.status, reply.text());
}

#[test]
fn expect_continue_is_answered_before_the_body() {
    let upstream = Upstream::start(named("ok"));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    client.write(format!("{HEAD}content-length: 2\r\nexpect: 100-continue\r\n\r\n"));
    assert_eq!(client.reply().unwrap().status, 100);
    client.write("{}");
    assert_eq!(client.reply().unwrap().status, 200);
    assert!(!upstream.seen()[0].headers.contains_key("expect"));
}
