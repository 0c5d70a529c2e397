//! Under load: killed replicas, swapped tables, a gateway that ends. Nothing of it may reach a caller.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serin_api::units::Weight;
use serin_api::wire::routes::{Address, RouteMessage, RouteTable};

use crate::harness::*;

/// Clients that send one request after the other on a connection each.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Result<usize, String>>>,
}

impl Load {
    fn start(address: std::net::SocketAddr, clients: usize, pause: Duration) -> Load {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients)
            .map(|_| {
                let (stop, sent) = (stop.clone(), sent.clone());
                std::thread::spawn(move || {
                    let mut client = Client::connect(address);
                    let mut answered = 0;
                    while !stop.load(SeqCst) {
                        client.write(infer(""));
                        let reply = client.reply().ok_or_else(|| format!("reset after {answered} answers"))?;
                        if reply.status != 200 {
                            return Err(format!("{}: {}", reply.status, reply.text()));
                        }
                        answered += 1;
                        sent.fetch_add(1, SeqCst);
                        std::thread::sleep(pause);
                    }
                    Ok(answered)
                })
            })
            .collect();
        Load { stop, sent, clients }
    }

    fn wait_for_more(&self, requests: usize) {
        let goal = self.sent.load(SeqCst) + requests;
        until("more requests", || {
            self.sent.load(SeqCst) >= goal || self.clients.iter().any(std::thread::JoinHandle::is_finished)
        });
    }

    /// Ends the load; every request must have been answered with 200.
    fn end(self) -> usize {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().map(|client| client.join().unwrap().unwrap()).sum()
    }
}

/// A model server as a process: this test binary, asked to run [`model_server_process`].
struct Process {
    child: Child,
    socket: PathBuf,
}

const SOCKET: &str = "SERIN_TEST_MODEL_SERVER_SOCKET";

impl Process {
    fn start(socket: &Path) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["load::model_server_process", "--exact", "--nocapture"])
            .env(SOCKET, socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process { child, socket: socket.to_owned() };
        until("the process listens", || UnixStream::connect(&process.socket).is_ok());
        process
    }

    fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_9();
    }
}

/// Not a test by itself: what [`Process`] runs.
#[test]
fn model_server_process() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            while read_request(&mut stream, &mut waiting).is_some() {
                // Long enough that kills meet requests under way.
                std::thread::sleep(Duration::from_millis(5));
                if stream.write_all(&answer(200, "", "ok")).is_err() {
                    return;
                }
            }
        });
    }
}

#[test]
fn a_replica_killed_twenty_times_is_not_noticed_by_callers() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = [dir.path().join("a.sock"), dir.path().join("b.sock")];
    let mut processes: Vec<Process> = sockets.iter().map(|socket| Process::start(socket)).collect();
    let addresses: Vec<_> = sockets.iter().map(|s| Address::Unix(s.to_str().unwrap().into())).collect();
    let gateway = TestGateway::serving(table(route(&addresses, &[], 0.0)));
    // 64 connections, one request each 5 ms + 50 ms: some 1,000 requests/s.
    let load = Load::start(gateway.data, 64, Duration::from_millis(50));
    let started = Instant::now();
    for kill in 0..20 {
        load.wait_for_more(200);
        let socket = sockets[kill % 2].clone();
        processes[kill % 2].kill_9();
        load.wait_for_more(100);
        processes[kill % 2] = Process::start(&socket);
        until("the replica is back in the choice", || gateway.metric("serin_gateway_replicas_aside", &[]) == 0.0);
    }
    let elapsed = started.elapsed();
    let answered = load.end();
    let rate = answered as f64 / elapsed.as_secs_f64();
    println!("{answered} requests, {rate:.0}/s, {} replayed", gateway.metric("serin_gateway_replays_total", &[]));
    assert!(rate >= 500.0, "{rate:.0} requests/s are too few to say anything");
    gateway.metric_is("serin_answers_total", &[("code", "2xx")], answered as f64, "");
    gateway.metric_is("serin_answers_total", &[], answered as f64, "");
    gateway.metric_is("serin_in_flight_requests", &[], 0.0, "");
}

/// A control that only sends tables; enough for swaps.
struct Tables {
    messages: std::sync::mpsc::Sender<RouteMessage>,
    acked: Arc<AtomicUsize>,
}

impl Tables {
    fn start(socket: &Path, first: RouteTable) -> Tables {
        let listener = UnixListener::bind(socket).unwrap();
        let (messages, coming) = std::sync::mpsc::channel::<RouteMessage>();
        let acked = Arc::new(AtomicUsize::new(0));
        let acks = acked.clone();
        let streams: Arc<std::sync::Mutex<(RouteTable, Vec<UnixStream>)>> = Arc::new((first, vec![]).into());
        let following = streams.clone();
        std::thread::spawn(move || {
            loop {
                let message = match coming.recv_timeout(Duration::from_secs(1)) {
                    Ok(message) => message,
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => RouteMessage::Alive,
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                };
                let (table, streams) = &mut *following.lock().unwrap();
                if let RouteMessage::Upsert { generation, key, route } = &message {
                    table.generation = *generation;
                    table.endpoints.insert(key.clone(), (**route).clone());
                }
                streams.retain_mut(|stream| send_line(stream, &message).is_ok());
            }
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, acks, streams) = (stream.unwrap(), acks.clone(), streams.clone());
                std::thread::spawn(move || {
                    let mut waiting = Vec::new();
                    while let Some(request) = read_request(&mut stream, &mut waiting) {
                        if request.line.starts_with("GET /v1/routes?") {
                            let (table, streams) = &mut *streams.lock().unwrap();
                            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
                            send_line(&mut stream, &RouteMessage::Snapshot(table.clone())).unwrap();
                            streams.push(stream.try_clone().unwrap());
                            continue;
                        }
                        if request.line.contains("/v1/routes/ack") {
                            let ack: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
                            acks.store(ack["generation"].as_u64().unwrap() as usize, SeqCst);
                        }
                        if stream.write_all(&answer(204, "", "")).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Tables { messages, acked }
    }

    fn send(&self, message: RouteMessage) {
        self.messages.send(message).unwrap();
    }

    fn wait_for(&self, generation: u64) {
        until("the table is acknowledged", || self.acked.load(SeqCst) as u64 == generation);
    }
}

/// Nanoseconds at a percentile, of switches that were recorded.
fn percentile(mut values: Vec<u64>, p: f64) -> u64 {
    values.sort_unstable();
    values[((values.len() - 1) as f64 * p).round() as usize]
}

#[test]
fn fifty_switches_each_way_under_load_lose_no_request() {
    let (blue, green) = (Upstream::start(named("blue")), Upstream::start(named("green")));
    let at_weight = |generation: u64| {
        let mut route = route(&at(&[&blue]), &at(&[&green]), 0.0);
        (route.generation, route.epoch) = (generation, generation);
        route.strata[0] = if generation.is_multiple_of(2) { Weight::FULL } else { Weight::ZERO };
        route
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let control = Tables::start(&socket, table(at_weight(1)));
    let gateway = TestGateway::following(&socket, dir);
    control.wait_for(1);
    let load = Load::start(gateway.data, 16, Duration::ZERO);
    for generation in 2..=101 {
        load.wait_for_more(20);
        let key = "default/m".into();
        control.send(RouteMessage::Upsert { generation, key, route: Box::new(at_weight(generation)) });
        control.wait_for(generation);
        let before = if generation.is_multiple_of(2) { &blue } else { &green };
        // Acknowledged means in force: what comes to the old version now was under way.
        std::thread::sleep(Duration::from_millis(5));
        let seen = before.count();
        load.wait_for_more(20);
        assert_eq!(before.count(), seen, "generation {generation}: a request came to the old version");
    }
    let answered = load.end();
    let mut switches = Vec::new();
    until("all switches are settled", || {
        switches = serde_json::from_str::<Vec<serde_json::Value>>(&gateway.admin("/v1/switches").text()).unwrap();
        switches.len() == 100
    });
    let of = |field: &str| -> Vec<u64> { switches.iter().map(|switch| switch[field].as_u64().unwrap()).collect() };
    let (dispatched, completed) = (percentile(of("lastDispatchedNs"), 0.99), percentile(of("lastCompletedNs"), 0.99));
    println!(
        "{answered} requests over 100 switches; p99 last dispatched {dispatched} ns, last completed {completed} ns"
    );
    // The goal is 1 ms on a quiet machine; tests share theirs.
    assert!(dispatched < 50_000_000, "{dispatched} ns");
    gateway.metric_is("serin_answers_total", &[("code", "2xx")], answered as f64, "");
}

#[test]
fn a_replica_that_leaves_the_table_finishes_what_it_has() {
    let leaving = Upstream::start(|_| Act::SaySlowly(vec![vec![], answer(200, "", "old")], Duration::from_millis(700)));
    let staying = Upstream::start(named("new"));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let control = Tables::start(&socket, table(route(&at(&[&leaving]), &[], 0.0)));
    let gateway = TestGateway::following(&socket, dir);
    control.wait_for(1);
    assert_eq!(gateway.infer("").text(), "old");
    until("its connection is kept", || gateway.metric("serin_gateway_upstream_idle_connections", &[]) == 1.0);
    let mut under_way = Client::connect(gateway.data);
    under_way.write(infer(""));
    until("it is under way", || leaving.seen().len() == 2);
    let mut changed = route(&at(&[&staying]), &[], 0.0);
    changed.generation = 2;
    changed.arms[0].replicas[0].id = "other".into();
    control.send(RouteMessage::Upsert { generation: 2, key: "default/m".into(), route: Box::new(changed) });
    control.wait_for(2);
    gateway.metric_is("serin_gateway_upstream_idle_connections", &[], 0.0, "idle connections are closed");
    assert_eq!(gateway.infer("").text(), "new");
    assert_eq!(under_way.reply().unwrap().text(), "old");
    until("nothing of it is kept", || gateway.metric("serin_gateway_upstream_idle_connections", &[]) == 1.0);
}

#[test]
fn a_replica_that_does_not_finish_is_cut_and_its_request_goes_elsewhere() {
    let leaving = Upstream::start(|_| Act::Hang(Duration::from_secs(30)));
    let staying = Upstream::start(named("new"));
    let mut first = route(&at(&[&staying]), &at(&[&leaving]), 100.0);
    first.limits.timeout_ms = 60_000;
    first.limits.drain_ms = 500;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let control = Tables::start(&socket, table(first.clone()));
    let gateway = TestGateway::following(&socket, dir);
    control.wait_for(1);
    let mut under_way = Client::connect(gateway.data);
    under_way.write(infer(""));
    until("it is under way", || leaving.seen().len() == 1);
    let started = Instant::now();
    first.generation = 2;
    first.epoch = 2;
    first.strata[0] = Weight::ZERO;
    first.arms.truncate(1);
    control.send(RouteMessage::Upsert { generation: 2, key: "default/m".into(), route: Box::new(first) });
    let reply = under_way.reply().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "new"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    gateway.metric_is("serin_requests_total", &[("class", "cancelled"), ("role", "candidate")], 1.0, "");
}

#[test]
fn a_gateway_that_is_told_to_end_answers_what_it_has_and_says_goodbye() {
    let upstream = Upstream::start(|_| Act::SaySlowly(vec![vec![], answer(200, "", "ok")], Duration::from_millis(300)));
    let mut gateway = TestGateway::serving(table(route(&at(&[&upstream]), &[], 0.0)));
    let mut busy = Client::connect(gateway.data);
    let mut idle = Client::connect(gateway.data);
    assert_eq!(idle.send(infer("")).status, 200);
    busy.write(infer(""));
    until("it is under way", || upstream.seen().len() == 2);
    let started = Instant::now();
    gateway.tell_to_end();
    let reply = busy.reply().unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(busy.reply().is_none());
    // An idle connection may still bring a request for a moment.
    let reply = idle.send(infer(""));
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(idle.reply().is_none());
    until("nobody listens", || std::net::TcpStream::connect(gateway.data).is_err());
    let _dir = gateway.end();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
