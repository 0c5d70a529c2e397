//! Paths, assignment, headers, receipts, health.

use std::collections::HashMap;

use serin_api::receipt::{Signer, verify};
use serin_api::resources::endpoint::RuleTarget;
use serin_api::units::Weight;
use serin_api::wire::routes::RouteRule;
use serin_decide::route::bucket_v1;

use crate::harness::*;

#[test]
fn paths_lead_to_endpoints_or_say_what_is_there() {
    let (one, other) = (Upstream::start(named("one")), Upstream::start(named("other")));
    let mut table = table(route(&at(&[&one]), &[], 0.0));
    let mut elsewhere = route(&at(&[&other]), &[], 0.0);
    elsewhere.namespace = "team-a".into();
    elsewhere.path = Some("/predict/now".into());
    table.endpoints.insert("team-a/m".into(), elsewhere);
    let gateway = TestGateway::serving(table);
    //  method, path                                  status  body or part of it      path that the upstream sees
    let rows = [
        ("POST", "/v2/models/m/infer", 200, "one", "/v2/models/m/infer"),
        ("POST", "/v2/models/m/versions/1/infer?x=1", 200, "one", "/v2/models/m/versions/1/infer?x=1"),
        ("GET", "/v2/models/m", 200, "one", "/v2/models/m"),
        ("GET", "/v2/models/m/ready", 200, "one", "/v2/models/m/ready"),
        ("POST", "/n/default/v2/models/m/infer", 200, "one", "/v2/models/m/infer"),
        ("POST", "/n/team-a/v2/models/m/infer?a=b", 200, "other", "/v2/models/m/infer?a=b"),
        ("POST", "/predict/now", 200, "other", "/predict/now"),
        ("GET", "/predict/now/and/then?q", 200, "other", "/predict/now/and/then?q"),
        ("POST", "/predict/nowadays", 404, "nothing is served at", ""),
        ("POST", "/predict", 404, "nothing is served at", ""),
        ("POST", "/v2/models/n/infer", 404, "no endpoint \\\"n\\\" in namespace \\\"default\\\"; served there: m", ""),
        ("POST", "/n/team-b/v2/models/m/infer", 404, "namespace \\\"team-b\\\"; nothing is served there", ""),
        ("POST", "/n/team-a", 404, "nothing is served at", ""),
        ("POST", "/v2/models/", 404, "nothing is served at", ""),
        ("POST", "/serin/v1/unknown", 404, "nothing is served at", ""),
        ("POST", "/", 404, "nothing is served at", ""),
        ("GET", "/v2/health/live", 200, "live", ""),
        ("GET", "/v2/health/ready", 200, "ready", ""),
        ("GET", "/v2", 200, "\"name\":\"serin\"", ""),
        ("POST", "/v2/health/live", 405, "want GET", ""),
        ("GET", "/serin/v1/outcomes", 405, "want POST", ""),
    ];
    for (method, path, status, text, seen) in rows {
        let reply = gateway.send(&format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}"));
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.text().contains(text), "{method} {path}: {}", reply.text());
        if !seen.is_empty() {
            let upstream = if text == "one" { &one } else { &other };
            assert_eq!(upstream.seen().last().unwrap().line, format!("{method} {seen} HTTP/1.1"), "{path}");
        }
    }
}

#[test]
fn rules_come_before_units_and_units_before_chance() {
    let (v1, v2) = (Upstream::start(named("v1")), Upstream::start(named("v2")));
    let mut route = route(&at(&[&v1]), &at(&[&v2]), 30.0);
    let rule = |name: &str, value: &str, to| RouteRule { headers: vec![(name.into(), value.into())], to };
    route.rules = vec![rule("x-canary", "yes", RuleTarget::Candidate), rule("x-canary", "no", RuleTarget::Active)];
    route.rules.push(RouteRule {
        headers: vec![("x-a".into(), "1".into()), ("x-b".into(), "2".into())],
        to: RuleTarget::Candidate,
    });
    route.bucketing.unit_header = Some("x-user".into());
    // Their buckets are contract; see the vectors in serin-decide.
    let bucket = |unit: &str| bucket_v1("seed", unit.as_bytes());
    let inside = (0..).map(|i| format!("user-{i}")).find(|unit| bucket(unit) < 30_000).unwrap();
    let outside = (0..).map(|i| format!("user-{i}")).find(|unit| bucket(unit) >= 30_000).unwrap();
    let gateway = TestGateway::serving(table(route));
    let rows = [
        (format!("x-canary: yes\r\nx-user: {outside}\r\n"), "v2"),
        (format!("x-canary: no\r\nx-user: {inside}\r\n"), "v1"),
        (format!("x-canary: maybe\r\nx-user: {inside}\r\n"), "v2"),
        (format!("x-a: 1\r\nx-user: {outside}\r\n"), "v1"),
        (format!("x-a: 1\r\nx-b: 2\r\nx-user: {outside}\r\n"), "v2"),
        (format!("X-USER: {inside}\r\n"), "v2"),
        (format!("x-user: {outside}\r\n"), "v1"),
    ];
    for (headers, version) in rows {
        for _ in 0..5 {
            assert_eq!(gateway.infer(&headers).text(), version, "{headers}");
        }
    }
}

#[test]
fn chance_follows_the_weight() {
    let (v1, v2) = (Upstream::start(named("v1")), Upstream::start(named("v2")));
    let gateway = TestGateway::serving(table(route(&at(&[&v1]), &at(&[&v2]), 20.0)));
    let mut client = Client::connect(gateway.data);
    let candidate = (0..4000).filter(|_| client.send(infer("")).text() == "v2").count();
    // Five standard deviations of a binomial: 5 * sqrt(4000 * 0.2 * 0.8) = 126.
    assert!((674..=926).contains(&candidate), "{candidate} of 4000 at 20 %");
}

#[test]
fn raising_the_weight_only_adds_units() {
    let (v1, v2) = (Upstream::start(named("v1")), Upstream::start(named("v2")));
    let served = |percent: f64| -> HashMap<String, bool> {
        let mut route = route(&at(&[&v1]), &at(&[&v2]), percent);
        route.bucketing.unit_header = Some("x-user".into());
        let gateway = TestGateway::serving(table(route));
        let mut client = Client::connect(gateway.data);
        (0..200)
            .map(|i| format!("user-{i}"))
            .map(|unit| {
                let by_candidate = client.send(infer(&format!("x-user: {unit}\r\n"))).text() == "v2";
                (unit, by_candidate)
            })
            .collect()
    };
    let (low, high) = (served(10.0), served(50.0));
    assert!(low.iter().all(|(unit, candidate)| !candidate || high[unit]), "a unit left the candidate");
    for (percent, served) in [(10_000, &low), (50_000, &high)] {
        for (unit, candidate) in served {
            assert_eq!(*candidate, bucket_v1("seed", unit.as_bytes()) < percent, "{unit} at {percent}");
        }
    }
}

#[test]
fn answers_name_their_version_and_carry_a_receipt_that_verifies() {
    let (v1, v2) = (Upstream::start(named("v1")), Upstream::start(named("v2")));
    v2.behave(|_| Act::Say(answer(200, "serin-prediction: class=%3E50K;score=0.75;rows=1\r\n", "v2")));
    let mut route = route(&at(&[&v1]), &at(&[&v2]), 30.0);
    route.bucketing.unit_header = Some("x-user".into());
    let gateway = TestGateway::serving(table(route));
    let keys = [Signer::new(&key()).unwrap()];
    let mut ids = std::collections::HashSet::new();
    for i in 0..40 {
        let reply = gateway.infer(&format!("x-user: user-{i}\r\n"));
        let bucket = bucket_v1("seed", format!("user-{i}").as_bytes());
        let candidate = bucket < 30_000;
        let version = if candidate { "v2" } else { "v1" };
        assert_eq!(reply.header("serin-version"), Some(version));
        assert_eq!(reply.header("serin-digest"), Some(&*format!("sha256:{version}")));
        assert_eq!(reply.header("serin-prediction"), None, "it is for the gateway");
        let receipt = verify(reply.header("serin-receipt").unwrap(), &keys).unwrap();
        assert_eq!((receipt.endpoint.as_str(), receipt.revision), ("default/m", format!("m-{version}")));
        assert_eq!((receipt.bucket, receipt.epoch, receipt.stratum), (Some(bucket), 1, 0));
        assert_eq!(
            (receipt.assigned_candidate, receipt.served_candidate, receipt.retried),
            (candidate, candidate, false)
        );
        assert_eq!(receipt.class.as_deref(), candidate.then_some(">50K"));
        assert_eq!(receipt.score, candidate.then_some(0.75));
        let hex: String = receipt.id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(reply.header("x-request-id"), Some(&*hex));
        assert!(ids.insert(receipt.id), "an id came twice");
    }
    let reply = gateway.infer("x-request-id: mine\r\n");
    assert_eq!(reply.header("x-request-id"), Some("mine"));
    assert_eq!(v1.seen().iter().chain(&v2.seen()).filter(|seen| seen.headers["x-request-id"] == "mine").count(), 1);
}

#[test]
fn what_is_no_inference_is_routed_but_is_no_evidence() {
    let (v1, v2) = (Upstream::start(named("v1")), Upstream::start(named("v2")));
    let mut route = route(&at(&[&v1]), &at(&[&v2]), 100.0);
    route.rules = vec![RouteRule { headers: vec![("x-canary".into(), "yes".into())], to: RuleTarget::Candidate }];
    route.strata[0] = Weight::from_percent(50.0).unwrap();
    let gateway = TestGateway::serving(table(route));
    for (headers, version) in [("", "v1"), ("x-canary: yes\r\n", "v2")] {
        for _ in 0..5 {
            let reply = gateway.send(&format!("GET /v2/models/m HTTP/1.1\r\nhost: a\r\n{headers}\r\n"));
            assert_eq!((reply.text().as_str(), reply.header("serin-receipt")), (version, None));
        }
    }
    gateway.metric_is("serin_requests_total", &[], 0.0, "");
    gateway.infer("");
    gateway.metric_is("serin_requests_total", &[("class", "ok")], 1.0, "");
}

#[test]
fn hop_by_hop_headers_end_here_in_both_directions() {
    let upstream = Upstream::start(|_| {
        let headers = "connection: x-private\r\nx-private: 1\r\nkeep-alive: timeout=5\r\nupgrade: h2c\r\nx-kept: 2\r\n\
                       serin-version: forged\r\nserin-receipt: forged\r\nx-request-id: forged\r\n";
        Act::Say(answer(200, headers, "ok"))
    });
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let headers = "connection: x-mine\r\nx-mine: 1\r\nproxy-connection: keep-alive\r\nte: trailers\r\nx-end: 2\r\n\
                   x-forwarded-for: 1.2.3.4\r\nx-request-id: r\r\n";
    let reply = gateway.infer(headers);
    let seen = &upstream.seen()[0].headers;
    assert_eq!((seen.get("x-end"), seen.get("x-mine"), seen.get("te")), (Some(&"2".into()), None, None));
    assert_eq!((seen.get("proxy-connection"), seen.get("connection")), (None, None));
    assert_eq!(seen["x-forwarded-for"], "1.2.3.4, 127.0.0.1");
    assert_eq!((reply.header("x-kept"), reply.header("x-private"), reply.header("upgrade")), (Some("2"), None, None));
    assert_eq!((reply.header("serin-version"), reply.header("x-request-id")), (Some("v1"), Some("r")));
    assert_ne!(reply.header("serin-receipt"), Some("forged"));
}

#[test]
fn unix_sockets_are_upstreams_too() {
    use serin_api::wire::routes::Address;
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut waiting = Vec::new();
                while read_request(&mut stream, &mut waiting).is_some() {
                    stream.write_all(&answer(200, "", "unix")).unwrap();
                }
            });
        }
    });
    let address = Address::Unix(path.to_str().unwrap().into());
    let gateway = TestGateway::serving(table(route(&[address], &[], 0.0)));
    let mut client = Client::connect(gateway.data);
    for _ in 0..3 {
        assert_eq!(client.send(infer("")).text(), "unix");
    }
}

#[test]
fn http_2_is_spoken_on_the_same_port() {
    let upstream =
        Upstream::start(|seen: &Seen| Act::Say(answer(200, "", &format!("{} {}", seen.line, seen.headers["host"]))));
    let gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use http_body_util::{BodyExt as _, Full};
        let stream = tokio::net::TcpStream::connect(gateway.data).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let request = http::Request::post(format!("http://{}/v2/models/m/infer", gateway.data))
                .body(Full::new(bytes::Bytes::from_static(b"{}")))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
            assert!(response.headers().contains_key("serin-receipt"));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, format!("POST /v2/models/m/infer HTTP/1.1 {}", gateway.data));
        }
        // An answer to HEAD that carries bytes is an error, for which the client resets the stream.
        upstream.behave(|_| Act::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_vec()));
        let rows = [
            ("/v2/health/live", 200, Some("13")),
            ("/v2/models/m", 200, Some("7")),
            ("/nowhere", 404, None),
            ("/serin/v1/outcomes", 405, None),
        ];
        for (path, status, length) in rows {
            let request = http::Request::head(format!("http://{}{path}", gateway.data)).body(Full::default()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
            let declared = response.headers().get("content-length").and_then(|value| value.to_str().ok());
            assert!(declared.is_some_and(|declared| length.is_none_or(|length| length == declared)), "{path}");
            let body = response.into_body().collect().await.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(body.to_bytes(), "", "{path}");
        }
    });
}

#[test]
fn what_changes_no_assignment_does_not_cost_an_endpoint_its_route() {
    use serin_api::wire::routes::{Address, Replica};
    let (v1, v2) = (Upstream::start(named("v1")), Upstream::start(named("v2")));
    let mut route = route(&at(&[&v1]), &at(&[&v2]), 0.0);
    let rule =
        |name: &str, value: &str| RouteRule { headers: vec![(name.into(), value.into())], to: RuleTarget::Candidate };
    route.rules = vec![
        rule("x-city", "two\r\nlines"),
        rule("no header", "x"),
        rule("x-city", "Z\u{fc}rich"),
        rule("x-city", "bell\u{7}"),
        rule("x-city", "Bern"),
    ];
    for arm in &mut route.arms {
        arm.replicas.push(Replica { id: "bad".into(), address: Address::Tcp("nowhere".into()) });
    }
    for path in ["/v2/mine", "/serin", "no-slash", "/gr\u{fc}n", "/a?b"] {
        route.path = Some(path.into());
        let gateway = TestGateway::serving(table(route.clone()));
        //  header line               version
        let rows = [
            ("", "v1"),
            ("x-city: Z\u{fc}rich\r\n", "v2"),
            ("x-city: Bern\r\n", "v2"),
            ("x-city: two\r\n", "v1"),
            ("x: x\r\n", "v1"),
        ];
        for (header, version) in rows {
            for _ in 0..3 {
                assert_eq!(gateway.infer(header).text(), version, "{path} {header:?}");
            }
        }
        assert_eq!(gateway.send("GET /v2/mine HTTP/1.1\r\nhost: a\r\n\r\n").status, 404, "{path}");
        gateway.metric_is("serin_gateway_bad_routes_total", &[], 0.0, path);
    }
}
