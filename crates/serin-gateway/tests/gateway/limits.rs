//! What a client may not do.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::harness::*;

fn gateway(change: impl FnOnce(&mut serin_gateway::GatewayConfig)) -> (Upstream, TestGateway) {
    let upstream = Upstream::start(named("ok"));
    let mut route = route(&at(&[&upstream]), &[], 0.0);
    route.limits.max_body_bytes = 1000;
    route.limits.timeout_ms = 1500;
    let gateway = TestGateway::with(change, table(route));
    (upstream, gateway)
}

#[test]
fn a_body_over_the_limit_is_a_413_declared_or_not() {
    let (upstream, gateway) = gateway(|_| {});
    let head = "POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n";
    let reply = gateway.send(&format!("{head}content-length: 1000\r\n\r\n{}", "x".repeat(1000)));
    assert_eq!(reply.status, 200);
    let reply = gateway.send(&format!("{head}content-length: 1001\r\n\r\n"));
    assert_eq!(reply.status, 413);
    assert!(reply.text().contains("larger than 1000 bytes"), "{}", reply.text());
    assert_eq!(reply.header("connection"), Some("close"));
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let reply = gateway.send(&format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}"));
    assert_eq!(reply.status, 413);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_head_over_the_limits_is_a_431() {
    let (upstream, gateway) = gateway(|config| config.limits.header_bytes_max = 8 << 10);
    let reply = gateway.infer(&format!("x-big: {}\r\n", "x".repeat(9000)));
    assert_eq!(reply.status, 431);
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    assert_eq!(gateway.infer(&many).status, 431);
    assert_eq!(gateway.infer(&format!("x-big: {}\r\n", "x".repeat(7000))).status, 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_cut() {
    let (_upstream, gateway) = gateway(|config| config.limits.header_read_timeout = Duration::from_secs(1));
    let mut slow = Client::connect(gateway.data);
    let started = Instant::now();
    slow.write("POST /v2/models/m/infer HTTP/1.1\r\n");
    // A line now and then does not help.
    let mut lines = 0;
    while started.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(200));
        slow.write(format!("x-{lines}: 1\r\n"));
        lines += 1;
    }
    assert!(slow.reply().is_none());
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    gateway.metric_is("serin_gateway_connections_cut_total", &[], 1.0, "");
}

#[test]
fn a_body_that_does_not_come_is_a_408() {
    let (upstream, gateway) = gateway(|_| {});
    let mut slow = Client::connect(gateway.data);
    slow.write("POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
    let reply = slow.reply().unwrap();
    assert_eq!(reply.status, 408, "{}", reply.text());
    assert!(slow.reply().is_none());
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let upstream = Upstream::start(|_| Act::SaySlowly(vec![vec![], answer(200, "", "late")], Duration::from_secs(4)));
    let route = route(&at(&[&upstream]), &[], 0.0);
    let gateway = TestGateway::with(|config| config.limits.idle_timeout = Duration::from_secs(1), table(route));
    let mut idle = Client::connect(gateway.data);
    let mut busy = Client::connect(gateway.data);
    busy.write(infer(""));
    let started = Instant::now();
    assert!(idle.reply().is_none());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(busy.reply().unwrap().text(), "late");
}

#[test]
fn connections_over_the_limit_get_a_503() {
    let (_upstream, gateway) = gateway(|config| config.limits.connections_max = 2);
    let mut first = Client::connect(gateway.data);
    let mut second = Client::connect(gateway.data);
    assert_eq!((first.send(infer("")).status, second.send(infer("")).status), (200, 200));
    let mut third = Client::connect(gateway.data);
    let reply = third.reply().unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(first.send(infer("")).status, 200, "the others go on");
    drop(second);
    until("there is room again", || gateway.metric("serin_gateway_connections", &[]) == 1.0);
    assert_eq!(gateway.infer("").status, 200);
}

#[test]
fn bodies_share_a_memory() {
    let upstream = Upstream::start(|_| Act::SaySlowly(vec![vec![], answer(200, "", "ok")], Duration::from_millis(800)));
    let route = route(&at(&[&upstream]), &[], 0.0);
    let gateway = TestGateway::with(
        |config| {
            config.limits.body_bytes_max = 1 << 20;
            config.limits.buffered_bytes_max = 1 << 20;
        },
        table(route),
    );
    let request = |size: usize| {
        format!("POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n{}", "x".repeat(size))
    };
    let mut first = Client::connect(gateway.data);
    first.write(request(700 << 10));
    until("the first is in memory", || gateway.metric("serin_gateway_buffered_bytes", &[]) >= f64::from(700 << 10));
    let second = gateway.send("POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 716800\r\n\r\n");
    assert_eq!(second.status, 503, "{}", second.text());
    assert_eq!(first.reply().unwrap().status, 200);
    until("it is given back", || gateway.metric("serin_gateway_buffered_bytes", &[]) == 0.0);
    assert_eq!(gateway.send(&request(700 << 10)).status, 200);
}

#[test]
fn the_admin_port_serves_what_it_lists_and_hides_the_keys() {
    let (_upstream, gateway) = gateway(|_| {});
    for path in ["/healthz", "/readyz", "/metrics", "/v1/switches"] {
        assert_eq!(gateway.admin(path).status, 200, "{path}");
    }
    let routes = gateway.admin("/v1/routes").text();
    assert!(routes.contains("\"default/m\"") && !routes.contains(&key().secret), "{routes}");
    assert_eq!(gateway.admin("/v1/secrets").status, 404);
    let posted = Client::connect(gateway.admin).send("POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(posted.status, 405);
}

#[test]
fn an_http_2_client_that_does_not_read_an_answer_does_not_keep_its_replica() {
    use http_body_util::{BodyExt as _, Full};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = serin_api::wire::routes::Address::Tcp(listener.local_addr().unwrap().to_string());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let Some(request) = read_request(&mut stream, &mut Vec::new()) else { return };
                if request.line.contains("/small") {
                    return stream.write_all(&answer(200, "", "ok")).unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").unwrap();
                while stream.write_all(&[b'x'; 64 << 10]).is_ok() {}
                tell.send(()).unwrap();
            });
        }
    });
    let mut route = route(&[address], &[], 0.0);
    route.limits.timeout_ms = 600_000;
    let gateway = TestGateway::with(|config| config.limits.idle_timeout = Duration::from_secs(3), table(route));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.data).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let request = |path: &str| {
            let body = Full::new(bytes::Bytes::from_static(b"{}"));
            http::Request::post(format!("http://{}/v2/models/m/infer?{path}", gateway.data)).body(body).unwrap()
        };
        let large = sender.send_request(request("/large")).await.unwrap();
        assert_eq!(large.status(), 200);
        gateway.metric_is("serin_in_flight_requests", &[("version", "v1")], 1.0, "");
        let left = tokio::task::spawn_blocking(move || told.recv_timeout(Duration::from_secs(15))).await.unwrap();
        assert_eq!(left, Ok(()), "the replica's connection is held");
        // The connection is cut a moment before the request is counted as over.
        until("nothing is in flight", || gateway.metric("serin_in_flight_requests", &[("version", "v1")]) == 0.0);
        // Only the stream ends, not the connection with what others may do on it.
        let small = sender.send_request(request("/small")).await.unwrap();
        assert_eq!(small.into_body().collect().await.unwrap().to_bytes(), "ok");
        assert!(large.into_body().collect().await.is_err(), "it is not taken for complete");
    });
}
