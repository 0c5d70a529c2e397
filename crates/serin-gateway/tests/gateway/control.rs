//! The wire to control: tables, acknowledgements, observations, outcomes, and life without it.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin_api::resources::rollout::Bucketing;
use serin_api::wire::observations::{Observation, ObservationBatch, OutcomeClass};
use serin_api::wire::routes::{EndpointRoute, PredictionBins, RouteAck, RouteMessage, RouteTable};

use crate::harness::*;

/// A control that a test plays.
struct Control {
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Sent to each new stream.
    table: Mutex<RouteTable>,
    streams: Mutex<Vec<UnixStream>>,
    queries: Mutex<Vec<String>>,
    acks: Mutex<Vec<RouteAck>>,
    batches: Mutex<Vec<ObservationBatch>>,
    outcomes: Mutex<Vec<String>>,
    /// Answers to messages with this status, when it is not 0.
    refuses_with: Mutex<u16>,
    open: Mutex<Vec<UnixStream>>,
}

impl Control {
    fn start(dir: &Path, table: RouteTable) -> Control {
        let socket = dir.join("control.sock");
        let control = Control { socket, state: Arc::default() };
        *control.state.table.lock().unwrap() = table;
        control.listen();
        control
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let state = self.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                state.open.lock().unwrap().push(stream.try_clone().unwrap());
                let state = state.clone();
                std::thread::spawn(move || converse(stream, &state));
            }
        });
    }

    /// Ends as a killed process does: no listener, no connections.
    fn kill(&self) {
        std::fs::remove_file(&self.socket).unwrap();
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        self.state.streams.lock().unwrap().clear();
    }

    fn say(&self, message: &RouteMessage) {
        for stream in self.state.streams.lock().unwrap().iter_mut() {
            let _ = send_line(stream, message);
        }
    }

    fn acked(&self) -> u64 {
        self.state.acks.lock().unwrap().last().map_or(0, |ack| ack.generation)
    }

    fn batches(&self) -> Vec<ObservationBatch> {
        self.state.batches.lock().unwrap().clone()
    }

    /// The newest observation of each (epoch, stratum, revision), as control would keep it.
    fn latest(&self) -> Vec<Observation> {
        let mut latest: Vec<Observation> = Vec::new();
        for observation in self.batches().into_iter().flat_map(|batch| batch.observations) {
            let same = |o: &&mut Observation| {
                (o.epoch, o.stratum, &o.revision) == (observation.epoch, observation.stratum, &observation.revision)
            };
            match latest.iter_mut().find(same) {
                Some(slot) => *slot = observation,
                None => latest.push(observation),
            }
        }
        latest
    }
}

fn converse(mut stream: UnixStream, state: &Arc<State>) {
    let mut waiting = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut waiting) {
        let path = request.line.split(' ').nth(1).unwrap().to_owned();
        if path.starts_with("/v1/routes?") {
            state.queries.lock().unwrap().push(path);
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
            send_line(&mut stream, &RouteMessage::Snapshot(state.table.lock().unwrap().clone())).unwrap();
            state.streams.lock().unwrap().push(stream.try_clone().unwrap());
            continue;
        }
        let refuses_with = *state.refuses_with.lock().unwrap();
        if refuses_with != 0 {
            stream.write_all(&answer(refuses_with, "", "{\"error\":\"no\"}")).unwrap();
            continue;
        }
        let reply = match path.as_str() {
            "/v1/routes/ack" => {
                state.acks.lock().unwrap().push(serde_json::from_slice(&request.body).unwrap());
                answer(204, "", "")
            }
            "/v1/observations" => {
                state.batches.lock().unwrap().push(serde_json::from_slice(&request.body).unwrap());
                answer(204, "", "")
            }
            "/v1/outcomes" => {
                state.outcomes.lock().unwrap().push(String::from_utf8(request.body).unwrap());
                answer(200, "content-type: application/json\r\n", "{\"status\":\"recorded\"}")
            }
            _ => answer(404, "", ""),
        };
        stream.write_all(&reply).unwrap();
    }
}

#[test]
fn a_table_is_applied_acknowledged_and_kept_for_the_next_start() {
    let upstream = Upstream::start(named("one"));
    let other = Upstream::start(named("other"));
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path(), table(route(&at(&[&upstream]), &[], 0.0)));
    let gateway = TestGateway::following(&control.socket, dir);
    until("the snapshot is acknowledged", || control.acked() == 1);
    let query = control.state.queries.lock().unwrap()[0].clone();
    let boot = query.strip_prefix("/v1/routes?gateway=gateway-0&boot=").unwrap().to_owned();
    assert_eq!(boot.len(), 32);
    assert_eq!(gateway.infer("").text(), "one");

    let mut changed = route(&at(&[&other]), &[], 0.0);
    changed.generation = 2;
    control.say(&RouteMessage::Upsert { generation: 2, key: "default/m".into(), route: Box::new(changed) });
    until("the change is acknowledged", || control.acked() == 2);
    assert_eq!(gateway.infer("").text(), "other", "acknowledged means in force");
    let ack = control.state.acks.lock().unwrap().last().unwrap().clone();
    assert_eq!((ack.gateway.as_str(), ack.boot), ("gateway-0", boot.clone()));

    control.say(&RouteMessage::Delete { generation: 3, key: "default/m".into() });
    until("the deletion is acknowledged", || control.acked() == 3);
    assert_eq!(gateway.infer("").status, 404);

    let mut back = route(&at(&[&upstream]), &[], 0.0);
    back.generation = 4;
    control.say(&RouteMessage::Upsert { generation: 4, key: "default/m".into(), route: Box::new(back) });
    until("it is back", || control.acked() == 4);
    control.kill();
    assert_eq!(gateway.infer("").text(), "one", "control is not asked");
    let dir = gateway.end();

    // Without control, from disk.
    let gateway = TestGateway::following(&control.socket, dir);
    assert_eq!(gateway.admin("/readyz").status, 200);
    let reply = gateway.infer("");
    assert_eq!((reply.text().as_str(), reply.header("serin-receipt").is_some()), ("one", true));
    gateway.metric_is("serin_gateway_table_generation", &[], 4.0, "");
}

#[test]
fn a_gateway_without_a_table_is_alive_but_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let gateway = TestGateway::following(&socket, dir);
    assert_eq!((gateway.admin("/healthz").status, gateway.admin("/readyz").status), (200, 503));
    assert_eq!(gateway.send("GET /v2/health/ready HTTP/1.1\r\nhost: a\r\n\r\n").status, 503);
    assert_eq!(gateway.infer("").status, 404);
    let control_dir = gateway.dir.path().to_owned();
    let _control = Control::start(&control_dir, RouteTable::default());
    until("an empty table is a table", || gateway.admin("/readyz").status == 200);
}

#[test]
fn a_wrong_route_leaves_the_one_before_in_force_and_nothing_is_acknowledged_until_it_is_right() {
    let upstream = Upstream::start(named("good"));
    let dir = tempfile::tempdir().unwrap();
    let good = || Box::new(route(&at(&[&upstream]), &[], 0.0));
    let keyed = |header: &str| Bucketing { unit_header: Some(header.into()), ..Bucketing::default() };
    let wrong = || Box::new(EndpointRoute { bucketing: keyed("not a header"), ..*good() });
    let named = |name: &str| Box::new(EndpointRoute { name: name.into(), ..*good() });
    let upsert = |generation, key: &str, route| RouteMessage::Upsert { generation, key: key.into(), route };
    let control = Control::start(dir.path(), table(*good()));
    let gateway = TestGateway::following(&control.socket, dir);
    let in_force = |generation: u64| {
        until("a table is in force", || gateway.metric("serin_gateway_table_generation", &[]) == generation as f64);
    };
    let bad_routes = || gateway.metric("serin_gateway_bad_routes_total", &[]);
    // What control believes, by acknowledgements and by two batches that were drafted from now on.
    let believed = || {
        let before = control.batches().len();
        until("two more batches", || control.batches().len() >= before + 2);
        (control.acked(), control.batches().last().unwrap().generation)
    };
    until("the snapshot is acknowledged", || control.acked() == 1);
    control.say(&upsert(2, "default/m", wrong()));
    in_force(2);
    assert_eq!((gateway.infer("").text().as_str(), bad_routes()), ("good", 1.0));
    assert_eq!(believed(), (1, 1));

    // Others go on, but what is acknowledged would be said of all.
    control.say(&upsert(3, "default/n", named("n")));
    in_force(3);
    assert_eq!(gateway.send("GET /v2/models/n HTTP/1.1\r\nhost: a\r\n\r\n").text(), "good");
    assert_eq!(believed(), (1, 1));
    let kept: RouteTable = serde_json::from_str(&gateway.admin("/v1/routes").text()).unwrap();
    assert_eq!((kept.generation, kept.endpoints.len()), (1, 2), "after a restart it says no more than before");

    // The route that is in force already heals it, and so does the endpoint's end.
    control.say(&upsert(4, "default/m", good()));
    until("it is acknowledged again", || control.acked() == 4);
    control.say(&upsert(5, "default/n", Box::new(EndpointRoute { bucketing: keyed("\u{e4}"), ..*named("n") })));
    in_force(5);
    assert_eq!(believed(), (4, 4));
    control.say(&RouteMessage::Delete { generation: 6, key: "default/n".into() });
    until("it is acknowledged again", || control.acked() == 6);

    // What cannot be read may have been a route; only a snapshot tells.
    for stream in control.state.streams.lock().unwrap().iter_mut() {
        stream.write_all(b"8\r\n{\"a\":1}\n\r\n").unwrap();
    }
    control.say(&upsert(7, "default/n", named("n")));
    in_force(7);
    assert_eq!((believed(), bad_routes()), ((6, 6), 3.0));
    control.say(&RouteMessage::Snapshot(RouteTable { generation: 8, ..table(*good()) }));
    until("the snapshot is acknowledged", || control.acked() == 8);

    // A snapshot that is not taken whole: nothing is said at all, whatever was complete before.
    let partly = [("default/m".to_owned(), *wrong()), ("default/n".to_owned(), *named("n"))];
    control.say(&RouteMessage::Snapshot(RouteTable {
        generation: 5,
        endpoints: partly.into(),
        receipt_keys: vec![key()],
    }));
    in_force(5);
    assert_eq!(believed(), (8, 0));
    assert_eq!(gateway.infer("").text(), "good", "the last good one stays in force");
    control.say(&upsert(9, "default/m", good()));
    until("it is acknowledged again", || control.acked() == 9);
    assert_eq!(believed(), (9, 9));
}

#[test]
fn observations_are_cumulative_and_only_what_changed_is_sent() {
    let v1 = Upstream::start(named("v1"));
    let v2 = Upstream::start(|seen: &Seen| match seen.index % 2 {
        0 => Act::Say(answer(500, "", "")),
        _ => Act::Say(answer(200, "serin-prediction: class=a;score=0.7;rows=1\r\n", "v2")),
    });
    let mut route = route(&at(&[&v1]), &at(&[&v2]), 100.0);
    route.bucketing.unit_header = Some("x-user".into());
    route.prediction_bins = Some(PredictionBins::Scores(vec![0.5, 0.9]));
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path(), table(route));
    let gateway = TestGateway::following(&control.socket, dir);
    until("the snapshot is acknowledged", || control.acked() == 1);
    for i in 0..6 {
        assert_eq!(gateway.infer(&format!("x-user: user-{}\r\n", i / 2)).status, 200);
    }
    let counted = |control: &Control| control.latest().first().map_or(0, |o| o.outcomes.iter().sum::<u64>());
    until("all six are counted", || counted(&control) == 6);
    let seen = control.latest().remove(0);
    assert_eq!((seen.endpoint.as_str(), seen.epoch, seen.stratum, seen.revision.as_str()), ("default/m", 1, 0, "m-v2"));
    assert_eq!((seen.outcomes[OutcomeClass::Ok as usize], seen.outcomes[OutcomeClass::ServerError as usize]), (3, 3));
    assert_eq!((seen.retried, seen.keyed, seen.in_flight), (3, true, 0));
    assert_eq!(seen.latency.iter().map(|(_, count)| count).sum::<u64>(), 6);
    assert_eq!(seen.predictions, [(1, 3)], "of three answers with a score of 0.7");
    assert_eq!(seen.failing_units.len(), 3, "each user failed once");

    // Nothing happens: signs of life without entries.
    let before = control.batches().len();
    until("signs of life", || control.batches().len() >= before + 3);
    let batches = control.batches();
    assert!(batches[before + 1..].iter().all(|batch| batch.observations.is_empty()));
    assert!(batches.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1), "sequences rise by one");
    assert!(batches.iter().all(|batch| batch.generation <= 1 && batch.boot == batches[0].boot));

    // A control that does not take them gets the sum later.
    *control.state.refuses_with.lock().unwrap() = 503;
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..4 {
        assert_eq!(gateway.infer("").status, 200);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&control), 6);
    *control.state.refuses_with.lock().unwrap() = 0;
    until("all ten are counted", || counted(&control) == 10);
    let seen = control.latest().remove(0);
    assert_eq!(seen.failing_units.len(), 5, "requests without a unit count as a unit each");

    // A control that was killed knows nothing, and is told everything.
    control.kill();
    assert_eq!(gateway.infer("").status, 200);
    control.state.batches.lock().unwrap().clear();
    control.listen();
    until("all eleven are counted", || counted(&control) == 11);
}

#[test]
fn counts_survive_a_swap_and_a_new_epoch_begins_at_zero() {
    let v1 = Upstream::start(named("v1"));
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path(), table(route(&at(&[&v1]), &[], 0.0)));
    let gateway = TestGateway::following(&control.socket, dir);
    until("the snapshot is acknowledged", || control.acked() == 1);
    let swap = |generation, epoch| {
        let mut changed = route(&at(&[&v1]), &[], 0.0);
        (changed.generation, changed.epoch) = (generation, epoch);
        control.say(&RouteMessage::Upsert { generation, key: "default/m".into(), route: Box::new(changed) });
        until("the swap is acknowledged", || control.acked() == generation);
    };
    gateway.infer("");
    swap(2, 1);
    gateway.infer("");
    swap(3, 2);
    gateway.infer("");
    let counts = || -> Vec<(u64, u64)> {
        let mut counts: Vec<_> = control.latest().iter().map(|o| (o.epoch, o.outcomes[0])).collect();
        counts.sort_unstable();
        counts
    };
    until("both epochs are counted", || counts() == [(1, 2), (2, 1)]);
    gateway.metric_is("serin_requests_total", &[("class", "ok")], 3.0, "metrics know no epochs");
}

#[test]
fn outcomes_go_to_control_and_are_refused_while_it_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path(), RouteTable::default());
    let gateway = TestGateway::following(&control.socket, dir);
    let outcome = "{\"receipt\":\"v1.a.b\",\"label\":1}";
    let request =
        format!("POST /serin/v1/outcomes HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{outcome}", outcome.len());
    for _ in 0..3 {
        let reply = gateway.send(&request);
        assert_eq!((reply.status, reply.text().as_str()), (200, "{\"status\":\"recorded\"}"));
    }
    assert_eq!(*control.state.outcomes.lock().unwrap(), [outcome, outcome, outcome]);
    *control.state.refuses_with.lock().unwrap() = 400;
    assert_eq!(gateway.send(&request).status, 400, "what control says of a bad outcome is passed on");
    control.kill();
    let reply = gateway.send(&request);
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    *control.state.refuses_with.lock().unwrap() = 0;
    control.listen();
    assert_eq!(gateway.send(&request).status, 200);
    let large = format!("POST /serin/v1/outcomes HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", (1 << 20) + 1);
    assert_eq!(gateway.send(&large).status, 413);
}

#[test]
fn a_silent_control_is_noticed_and_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path(), RouteTable::default());
    let _gateway = TestGateway::following(&control.socket, dir);
    // It never says that it lives.
    until("a second stream is opened", || control.state.queries.lock().unwrap().len() >= 2);
}
