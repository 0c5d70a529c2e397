//! A gateway in a thread, upstreams that do as they are told, and a client that sees every byte.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serin_api::resources::rollout::Bucketing;
use serin_api::units::Weight;
use serin_api::wire::routes::{
    Address, Arm, EndpointRoute, ReceiptKey, Replica, Role, RouteLimits, RouteMessage, RouteTable,
};
use serin_gateway::{Gateway, GatewayConfig};
use tokio::sync::oneshot;

/// Key of all receipts in tests.
pub fn key() -> ReceiptKey {
    ReceiptKey { id: "0a0b0c0d".into(), secret: "11".repeat(32) }
}

/// A running gateway. It ends when it is dropped.
pub struct TestGateway {
    pub data: SocketAddr,
    pub admin: SocketAddr,
    pub dir: tempfile::TempDir,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestGateway {
    /// Serves a table without control.
    pub fn serving(table: RouteTable) -> TestGateway {
        TestGateway::start(|_| {}, Some(table), tempfile::tempdir().unwrap())
    }

    /// Serves a table without control, with other limits.
    pub fn with(change: impl FnOnce(&mut GatewayConfig), table: RouteTable) -> TestGateway {
        TestGateway::start(change, Some(table), tempfile::tempdir().unwrap())
    }

    /// Follows a control.
    pub fn following(socket: &Path, dir: tempfile::TempDir) -> TestGateway {
        TestGateway::start(|config| config.control_socket = Some(socket.to_owned()), None, dir)
    }

    fn start(
        change: impl FnOnce(&mut GatewayConfig),
        table: Option<RouteTable>,
        dir: tempfile::TempDir,
    ) -> TestGateway {
        let mut config = GatewayConfig::new("gateway-0", dir.path().join("gateway"));
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin = SocketAddr::from(([127, 0, 0, 1], 0));
        config.workers = 2;
        change(&mut config);
        let (end, ended) = oneshot::channel();
        let (bound, addresses) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let gateway = Gateway::bind(config).await.unwrap();
                if let Some(table) = table {
                    gateway.set_table(table);
                }
                bound.send((gateway.data_addr(), gateway.admin_addr())).unwrap();
                gateway.run(async { drop(ended.await) }).await.unwrap();
            });
        });
        let (data, admin) = addresses.recv().unwrap();
        TestGateway { data, admin, dir, end: Some(end), thread: Some(thread) }
    }

    /// Asks it to end, without waiting.
    pub fn tell_to_end(&mut self) {
        drop(self.end.take());
    }

    /// Ends it and gives its folder back.
    pub fn end(mut self) -> tempfile::TempDir {
        self.stop();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    fn stop(&mut self) {
        self.tell_to_end();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Sends one request on a connection of its own.
    pub fn send(&self, request: &str) -> Reply {
        Client::connect(self.data).send(request)
    }

    /// Posts `{}` to `/v2/models/m/infer` with extra header lines.
    pub fn infer(&self, headers: &str) -> Reply {
        self.send(&infer(headers))
    }

    /// An answer of the admin port.
    pub fn admin(&self, path: &str) -> Reply {
        Client::connect(self.admin).send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
    }

    /// Waits until a metric has a value. A request is counted when its answer is sent already.
    #[track_caller]
    pub fn metric_is(&self, name: &str, labels: &[(&str, &str)], want: f64, why: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.metric(name, labels) != want && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.metric(name, labels), want, "{why}");
    }

    /// Value of a metric with exactly these labels in this order; 0 if it is not there.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.admin("/metrics").text();
        let has = |line: &str| labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")));
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && has(line));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An inference of `{}` with extra header lines.
pub fn infer(headers: &str) -> String {
    format!("POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n{headers}content-length: 2\r\n\r\n{{}}")
}

/// A client's connection.
pub struct Client {
    stream: TcpStream,
    waiting: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, waiting: Vec::new() }
    }

    /// Sends a request and reads its answer.
    pub fn send(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.write(request);
        self.reply().expect("an answer")
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads an answer; `None` if the connection ends before it.
    pub fn reply(&mut self) -> Option<Reply> {
        let (head_len, mut reply) = loop {
            if let Some(found) = parse_head(&self.waiting) {
                break found;
            }
            if !self.fill() {
                assert!(self.waiting.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.waiting));
                return None;
            }
        };
        self.waiting.drain(..head_len);
        if let Some(length) = reply.header("content-length").map(|text| text.parse::<usize>().unwrap()) {
            while self.waiting.len() < length {
                assert!(self.fill(), "the body broke off after {} of {length} bytes", self.waiting.len());
            }
            reply.body = self.waiting.drain(..length).collect();
        } else if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = self.chunks();
        }
        Some(reply)
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = self.waiting.windows(2).position(|pair| pair == b"\r\n") {
                    break at;
                }
                assert!(self.fill(), "chunks broke off after {} bytes", body.len());
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.waiting[..line_end]).unwrap(), 16).unwrap();
            while self.waiting.len() < line_end + 2 + size + 2 {
                assert!(self.fill(), "chunks broke off after {} bytes", body.len());
            }
            body.extend_from_slice(&self.waiting[line_end + 2..line_end + 2 + size]);
            self.waiting.drain(..line_end + 2 + size + 2);
            if size == 0 {
                return body;
            }
        }
    }

    /// Waits for an answer's head and returns what has come by then; [`Client::reply`] reads it again.
    pub fn beginning(&mut self) -> String {
        while parse_head(&self.waiting).is_none() {
            assert!(self.fill(), "the connection ended before a head");
        }
        String::from_utf8_lossy(&self.waiting).into_owned()
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.waiting)
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.waiting.extend_from_slice(&buffer[..read]);
                read > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn parse_head(bytes: &[u8]) -> Option<(usize, Reply)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(len) = parsed.parse(bytes).unwrap() else { return None };
    let field = |field: &httparse::Header<'_>| {
        (field.name.to_ascii_lowercase(), String::from_utf8(field.value.to_vec()).unwrap())
    };
    let headers = parsed.headers.iter().map(field).collect();
    Some((len, Reply { status: parsed.code.unwrap(), headers, body: Vec::new() }))
}

/// A request as an upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Index among all requests of the upstream, from 0.
    pub index: usize,
    /// Index on its connection, from 0.
    pub on_connection: usize,
    /// Request line.
    pub line: String,
    /// Headers by lower-case name.
    pub headers: HashMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

/// What an upstream does with a request.
pub enum Act {
    /// These bytes.
    Say(Vec<u8>),
    /// These bytes, then the end of the connection.
    SayAndClose(Vec<u8>),
    /// These, a pause, those, and so on; then the connection goes on.
    SaySlowly(Vec<Vec<u8>>, Duration),
    /// Nothing, and the end of the connection.
    Close,
    /// Nothing for so long, then the end of the connection.
    Hang(Duration),
}

type Behave = dyn Fn(&Seen) -> Act + Send + Sync;

/// An answer with a status, header lines and a body.
pub fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Whatever\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// A 200 that says who speaks.
pub fn named(name: &'static str) -> impl Fn(&Seen) -> Act + Send + Sync {
    move |_| Act::Say(answer(200, "", name))
}

/// Requests that an upstream remembers.
const SEEN_MAX: usize = 5000;

/// A server that behaves as the test wants.
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    behave: Mutex<Arc<Behave>>,
    /// The first [`SEEN_MAX`].
    seen: Mutex<Vec<Seen>>,
    count: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl Upstream {
    pub fn start(behave: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behave: Mutex::new(Arc::new(behave)),
            seen: Mutex::default(),
            count: AtomicUsize::new(0),
            open: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if accepting.ended.load(SeqCst) {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                accepting.open.lock().unwrap().push(stream.try_clone().unwrap());
                let state = accepting.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Upstream { address, state }
    }

    /// Changes what it does.
    pub fn behave(&self, behave: impl Fn(&Seen) -> Act + Send + Sync + 'static) {
        *self.state.behave.lock().unwrap() = Arc::new(behave);
    }

    /// The first requests.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap();
        assert!(seen.len() < SEEN_MAX, "the upstream saw more than it remembers; use count()");
        seen.clone()
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.state.count.load(SeqCst)
    }

    /// Closes the connections that are open.
    pub fn close_connections(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Ends: connects are refused from now on, connections are closed.
    pub fn end(&self) {
        self.state.ended.store(true, SeqCst);
        // Wakes the acceptor, which drops the listener.
        let _ = TcpStream::connect(self.address);
        self.close_connections();
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(self.address).is_ok() {
            assert!(Instant::now() < deadline, "the listener stays");
        }
    }

    /// Begins again at the same address.
    pub fn begin_again(&self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.state.ended.store(false, SeqCst);
        let state = self.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let state = state.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.ended.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, state: &State) {
    let mut waiting = Vec::new();
    let mut on_connection = 0;
    while let Some(mut request) = read_request(&mut stream, &mut waiting) {
        request.on_connection = on_connection;
        on_connection += 1;
        request.index = state.count.fetch_add(1, SeqCst);
        {
            let mut seen = state.seen.lock().unwrap();
            if seen.len() < SEEN_MAX {
                seen.push(request.clone());
            }
        }
        let behave = state.behave.lock().unwrap().clone();
        match behave(&request) {
            Act::Say(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::SayAndClose(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Act::SaySlowly(pieces, pause) => {
                for piece in pieces {
                    if stream.write_all(&piece).is_err() {
                        return;
                    }
                    std::thread::sleep(pause);
                }
            }
            Act::Close => {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Act::Hang(time) => {
                std::thread::sleep(time);
                return;
            }
        }
    }
}

/// Reads a request with a `content-length`; `None` at the end.
pub fn read_request(stream: &mut impl Read, waiting: &mut Vec<u8>) -> Option<Seen> {
    let (head_len, line, headers) = loop {
        if let Some(at) = waiting.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(waiting[..at].to_vec()).unwrap();
            let mut lines = head.split("\r\n");
            let line = lines.next().unwrap().to_owned();
            let headers: HashMap<String, String> = lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            break (at + 4, line, headers);
        }
        read_some(stream, waiting)?;
    };
    let length: usize = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    while waiting.len() < head_len + length {
        read_some(stream, waiting)?;
    }
    let body = waiting[head_len..head_len + length].to_vec();
    waiting.drain(..head_len + length);
    Some(Seen { index: 0, on_connection: 0, line, headers, body })
}

fn read_some(stream: &mut impl Read, waiting: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 64 << 10];
    let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
    waiting.extend_from_slice(&buffer[..read]);
    Some(())
}

/// A table with the one endpoint `default/m`.
pub fn table(route: EndpointRoute) -> RouteTable {
    let key_name = format!("{}/{}", route.namespace, route.name);
    RouteTable { generation: route.generation, endpoints: [(key_name, route)].into(), receipt_keys: vec![key()] }
}

/// Route of `default/m`: active v1, candidate v2 with a share in percent. Empty candidates: none.
pub fn route(active: &[Address], candidate: &[Address], percent: f64) -> EndpointRoute {
    let arm = |role, version: &str, addresses: &[Address]| Arm {
        role,
        revision: format!("m-{version}"),
        version: version.into(),
        digest: format!("sha256:{version}"),
        replicas: addresses
            .iter()
            .enumerate()
            .map(|(index, address)| Replica { id: format!("m-{version}-{index}"), address: address.clone() })
            .collect(),
    };
    let mut arms = vec![arm(Role::Active, "v1", active)];
    if !candidate.is_empty() {
        arms.push(arm(Role::Candidate, "v2", candidate));
    }
    EndpointRoute {
        namespace: "default".into(),
        name: "m".into(),
        generation: 1,
        epoch: 1,
        rollout: "m-1".into(),
        path: None,
        arms,
        strata: vec![Weight::from_percent(percent).unwrap(), Weight::ZERO, Weight::FULL],
        rules: vec![],
        bucketing: Bucketing { seed: "seed".into(), ..Bucketing::default() },
        prediction_bins: None,
        limits: RouteLimits { timeout_ms: 10_000, ..RouteLimits::default() },
    }
}

/// Addresses of upstreams.
pub fn at(upstreams: &[&Upstream]) -> Vec<Address> {
    upstreams.iter().map(|upstream| Address::Tcp(upstream.address.to_string())).collect()
}

/// An address where nobody listens.
pub fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Address::Tcp(listener.local_addr().unwrap().to_string())
}

/// Waits until something is so.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a message of control as a chunk of a stream.
pub fn send_line(stream: &mut impl Write, message: &RouteMessage) -> std::io::Result<()> {
    let line = serde_json::to_string(message).unwrap() + "\n";
    stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
}
