//! What is repeated, where, and what it counts as.

use std::time::Duration;

use serin_api::receipt::{Signer, verify};
use serin_api::wire::routes::RouteLimits;

use crate::harness::*;

/// How an upstream fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Status(u16),
    ChunkedStatus(u16),
    CloseFresh,
    HalfAnswer,
    OneChunk,
    Garbage,
    Hang,
    Refuse,
}

fn act(fault: Fault, name: &'static str) -> impl Fn(&Seen) -> Act + Send + Sync {
    move |_| match fault {
        Fault::None | Fault::Refuse => Act::Say(answer(200, "", name)),
        Fault::Status(status) => Act::Say(answer(status, "", name)),
        Fault::ChunkedStatus(status) => {
            let text = format!("HTTP/1.1 {status} x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{name}\r\n");
            Act::SayAndClose(text.into_bytes())
        }
        Fault::CloseFresh => Act::Close,
        Fault::HalfAnswer => Act::SayAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()),
        Fault::OneChunk => {
            Act::SayAndClose(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec())
        }
        Fault::Garbage => Act::SayAndClose(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        Fault::Hang => Act::Hang(Duration::from_secs(3)),
    }
}

#[test]
fn a_failed_candidate_is_replaced_by_active_and_counts_as_what_it_was() {
    //  candidate's fault             idempotent  status  served  class counted    retried
    let rows = [
        (Fault::None, true, 200, "v2", "ok", false),
        (Fault::Status(404), true, 404, "v2", "client_error", false),
        (Fault::Status(400), true, 400, "v2", "rejected", false),
        (Fault::Status(429), true, 429, "v2", "client_error", false),
        (Fault::Status(500), true, 200, "v1", "server_error", true),
        (Fault::Status(503), true, 200, "v1", "server_error", true),
        (Fault::ChunkedStatus(500), true, 200, "v1", "server_error", true),
        (Fault::CloseFresh, true, 200, "v1", "transport", true),
        (Fault::HalfAnswer, true, 200, "v1", "transport", true),
        (Fault::OneChunk, true, 200, "v1", "transport", true),
        (Fault::Garbage, true, 200, "v1", "transport", true),
        (Fault::Hang, true, 200, "v1", "timeout", true),
        (Fault::Refuse, true, 200, "v1", "transport", true),
        (Fault::Status(500), false, 500, "v2", "server_error", false),
        (Fault::CloseFresh, false, 502, "", "transport", false),
        (Fault::OneChunk, false, 502, "", "transport", false),
        (Fault::Hang, false, 504, "", "timeout", false),
        (Fault::Refuse, false, 200, "v1", "transport", true),
    ];
    let keys = [Signer::new(&key()).unwrap()];
    for (fault, idempotent, status, served, class, retried) in rows {
        let why = format!("{fault:?}, idempotent: {idempotent}");
        let v1 = Upstream::start(named("v1"));
        let v2 = Upstream::start(act(fault, "v2"));
        let candidate = if matches!(fault, Fault::Refuse) { vec![nobody()] } else { at(&[&v2]) };
        let mut route = route(&at(&[&v1]), &candidate, 100.0);
        route.limits = RouteLimits { timeout_ms: 1000, idempotent, ..RouteLimits::default() };
        let gateway = TestGateway::serving(table(route));
        let reply = gateway.infer("");
        assert_eq!(reply.status, status, "{why}");
        if served.is_empty() {
            assert!(reply.text().contains("endpoint default/m did not answer"), "{why}: {}", reply.text());
        } else {
            assert_eq!(reply.header("serin-version"), Some(served), "{why}");
            let receipt = verify(reply.header("serin-receipt").unwrap(), &keys).unwrap();
            let got = (receipt.assigned_candidate, receipt.served_candidate, receipt.retried);
            assert_eq!(got, (true, served == "v2", retried), "{why}");
            assert_eq!(receipt.revision, format!("m-{served}"), "{why}");
        }
        let counted =
            |class: &str, role: &str| gateway.metric("serin_requests_total", &[("class", class), ("role", role)]);
        assert_eq!(counted(class, "candidate"), 1.0, "{why}");
        gateway.metric_is("serin_requests_total", &[], 1.0, &format!("{why}: one event per request"));
        assert_eq!(
            gateway.metric("serin_retries_total", &[("role", "candidate")]),
            f64::from(u8::from(retried)),
            "{why}"
        );
        let code = format!("{}xx", status / 100);
        gateway.metric_is("serin_answers_total", &[("code", &code)], 1.0, &why);
    }
}

#[test]
fn a_failed_active_attempt_goes_to_another_replica_where_that_can_help() {
    //  first replica's fault          replicas  status  class counted   retried
    let rows = [
        (Fault::Status(503), 2, 200, "server_error", true),
        (Fault::Status(500), 2, 500, "server_error", false),
        (Fault::CloseFresh, 2, 200, "transport", true),
        (Fault::HalfAnswer, 2, 200, "transport", true),
        (Fault::OneChunk, 2, 200, "transport", true),
        (Fault::Garbage, 2, 200, "transport", true),
        (Fault::Hang, 2, 504, "timeout", false),
        // Nothing was sent, so this is only the choice of a replica.
        (Fault::Refuse, 2, 200, "ok", false),
        (Fault::Status(503), 1, 503, "server_error", false),
        (Fault::CloseFresh, 1, 502, "transport", false),
        (Fault::Refuse, 1, 502, "transport", false),
    ];
    for (fault, replicas, status, class, retried) in rows {
        let why = format!("{fault:?} of {replicas}");
        let bad = Upstream::start(act(fault, "bad"));
        let good = Upstream::start(named("good"));
        let mut addresses = vec![if matches!(fault, Fault::Refuse) { nobody() } else { at(&[&bad])[0].clone() }];
        if replicas == 2 {
            addresses.extend(at(&[&good]));
        }
        // Which replica comes first is chance: try until the bad one had a request.
        for attempt in 0..50 {
            let mut route = route(&addresses, &[], 0.0);
            route.limits = RouteLimits { timeout_ms: 700, ..RouteLimits::default() };
            let gateway = TestGateway::serving(table(route));
            let before = bad.seen().len();
            let reply = gateway.infer("");
            let met = bad.seen().len() > before || gateway.metric("serin_gateway_replicas_aside", &[]) > 0.0;
            if replicas == 2 && !met {
                assert_eq!(reply.status, 200);
                assert!(attempt < 49, "{why}: the bad replica was never chosen");
                continue;
            }
            assert_eq!(reply.status, status, "{why}: {}", reply.text());
            gateway.metric_is("serin_requests_total", &[("class", class)], 1.0, &why);
            gateway.metric_is("serin_requests_total", &[], 1.0, &why);
            gateway.metric_is("serin_retries_total", &[], f64::from(u8::from(retried)), &why);
            break;
        }
    }
}

#[test]
fn an_arm_without_replicas_is_a_503_or_active_serves() {
    let v1 = Upstream::start(named("v1"));
    let empty = TestGateway::serving(table(route(&[], &[], 0.0)));
    let reply = empty.infer("");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(reply.text().contains("default/m has no replica that is ready"));
    let mut route = route(&at(&[&v1]), &at(&[&v1]), 100.0);
    route.arms[1].replicas.clear();
    let gateway = TestGateway::serving(table(route));
    assert_eq!(gateway.infer("").header("serin-version"), Some("v1"));
    gateway.metric_is("serin_requests_total", &[("class", "no_replica"), ("role", "candidate")], 1.0, "");
    gateway.metric_is("serin_request_duration_seconds_count", &[], 0.0, "nothing was sent, nothing measured");
}

#[test]
fn a_kept_connection_that_was_closed_costs_nobody_anything() {
    // Answers three requests per connection, then closes without a word, as servers do that limit keep-alive.
    let upstream = Upstream::start(|seen: &Seen| match seen.on_connection {
        2 => Act::SayAndClose(answer(200, "", "third")),
        _ => Act::Say(answer(200, "", "ok")),
    });
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    for _ in 0..100 {
        assert_eq!(client.send(infer("")).status, 200);
    }
    gateway.metric_is("serin_requests_total", &[("class", "ok")], 100.0, "");
    gateway.metric_is("serin_requests_total", &[], 100.0, "");

    // Closes on the second request of each connection instead of answering it: only that replay can help.
    upstream.behave(|seen: &Seen| match seen.on_connection {
        0 => Act::Say(answer(200, "", "ok")),
        _ => Act::Close,
    });
    upstream.close_connections();
    for _ in 0..20 {
        assert_eq!(client.send(infer("")).status, 200);
    }
    gateway.metric_is("serin_requests_total", &[("class", "ok")], 120.0, "");
    assert!(gateway.metric("serin_gateway_replays_total", &[]) >= 10.0);
    gateway.metric_is("serin_retries_total", &[], 0.0, "a replay is no retry");
}

#[test]
fn a_replay_of_what_is_not_idempotent_never_happens() {
    let upstream = Upstream::start(|seen: &Seen| match seen.on_connection {
        0 => Act::Say(answer(200, "", "ok")),
        _ => Act::Close,
    });
    let mut route = route(&at(&[&upstream]), &[], 0.0);
    route.limits.idempotent = false;
    let gateway = TestGateway::with(|config| config.workers = 1, table(route));
    assert_eq!(gateway.infer("").status, 200);
    assert_eq!(gateway.infer("").status, 502);
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_replica_that_refuses_is_set_aside_and_comes_back() {
    let (one, two) = (Upstream::start(named("one")), Upstream::start(named("two")));
    let gateway = TestGateway::serving(table(route(&at(&[&one, &two]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    let mut served_by = |name: &str| (0..200).any(|_| client.send(infer("")).text() == name);
    assert!(served_by("one") && served_by("two"));
    one.end();
    assert!(served_by("two"));
    until("one is set aside", || {
        let _ = served_by("one");
        gateway.metric("serin_gateway_replicas_aside", &[]) == 1.0
    });
    one.begin_again();
    until("one is back", || served_by("one"));
    gateway.metric_is("serin_gateway_replicas_aside", &[], 0.0, "");
    gateway.metric_is("serin_answers_total", &[("code", "5xx")], 0.0, "");
}

#[test]
fn a_slow_active_counts_as_a_timeout_where_a_candidate_would_but_its_caller_gets_the_answer() {
    let v1 = Upstream::start(|_| Act::SaySlowly(vec![vec![], answer(200, "", "v1")], Duration::from_millis(600)));
    let v2 = Upstream::start(named("v2"));
    let mut route = route(&at(&[&v1]), &at(&[&v2]), 0.0);
    route.limits.timeout_ms = 1000;
    let gateway = TestGateway::serving(table(route));
    assert_eq!(gateway.infer("").text(), "v1");
    gateway.metric_is("serin_requests_total", &[("class", "timeout"), ("role", "active")], 1.0, "");
}

#[test]
fn a_candidates_stream_has_the_whole_time_and_is_judged_by_half_of_it() {
    //  pause in the stream in ms   whole   class counted
    for (pause, whole, class) in [(100, true, "ok"), (1300, true, "timeout"), (2600, false, "timeout")] {
        let v1 = Upstream::start(named("v1"));
        let v2 = Upstream::start(move |_| {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec();
            Act::SaySlowly(vec![head, b"3\r\ndef\r\n0\r\n\r\n".to_vec()], Duration::from_millis(pause))
        });
        let mut route = route(&at(&[&v1]), &at(&[&v2]), 100.0);
        route.limits.timeout_ms = 2000;
        let gateway = TestGateway::serving(table(route));
        let mut client = Client::connect(gateway.data);
        client.write(infer("connection: close\r\n"));
        let bytes = client.rest();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("abc") && text.contains("serin-version: v2"), "{pause}: {text}");
        assert_eq!((text.contains("def"), text.ends_with("0\r\n\r\n")), (whole, whole), "{pause}: {text}");
        let counted = || gateway.metric("serin_requests_total", &[("class", class), ("role", "candidate")]);
        until("it is counted", || counted() == 1.0);
        gateway.metric_is("serin_retries_total", &[], 0.0, &format!("{pause}"));
    }
}

#[test]
fn a_caller_that_goes_away_is_no_evidence() {
    let upstream = Upstream::start(|_| Act::Hang(Duration::from_secs(5)));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    client.write(infer(""));
    until("the request is under way", || gateway.metric("serin_in_flight_requests", &[]) == 1.0);
    drop(client);
    until("it counts as cancelled", || gateway.metric("serin_requests_total", &[("class", "cancelled")]) == 1.0);
    gateway.metric_is("serin_in_flight_requests", &[], 0.0, "");
}
