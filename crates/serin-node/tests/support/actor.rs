//! Plays `serin` in the supervisor's tests: `up`, `down`, `control`, `gateway`, `run-replica`, and a command that serves HTTP.
//!
//! Files under `HOME/test` steer it: `set.json` is the process set that control hands out, `status.json` is what it was last told
//! (`statuses`: all of it), `control-fails` makes it exit at once, `code` is the status that commands answer their probes with.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use serin_api::layout::Layout;
use serin_node::{CONTROL_SLOT, GATEWAY_SLOT, Supervisor, SupervisorConfig};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].clone());
    let layout = Layout::new(Path::new(&option("--home").unwrap()), rustix::process::getuid().as_raw());
    match args[1].as_str() {
        "up" => up(layout, &option),
        "down" => down(&layout),
        "control" => control(&layout, &option("--api-listen").unwrap()),
        "gateway" => gateway(&layout, &option("--listen").unwrap(), &option("--admin").unwrap()),
        "run-replica" => replica(&layout, &args[2]),
        "serve" => serve(&layout, args.iter().any(|arg| arg == "--fork")),
        role => panic!("no role {role}"),
    }
}

#[tokio::main]
async fn up(layout: Layout, option: &dyn Fn(&str) -> Option<String>) -> ExitCode {
    let port = |name: &str| option(name).map_or(0, |port| port.parse().unwrap());
    let (gateway_port, admin_port, api_port) = (port("--gateway"), port("--admin"), port("--api"));
    let config = SupervisorConfig { gateway_port, admin_port, api_port, ..SupervisorConfig::new(layout).unwrap() };
    let shutdown = serin_node::until_signal().unwrap();
    let supervisor = match Supervisor::open(config) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match supervisor.run(shutdown, |up| println!("{}", up.gateway)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn down(layout: &Layout) -> ExitCode {
    let report = serin_node::down(layout).await.unwrap();
    println!("{:?} {:?}", report.supervisor, report.ended);
    ExitCode::SUCCESS
}

fn control(layout: &Layout, api: &str) -> ExitCode {
    let test = layout.home().join("test");
    if test.join("control-fails").exists() {
        return ExitCode::FAILURE;
    }
    let _guard = match serin_node::hold_slot(layout, CONTROL_SLOT) {
        Ok(guard) => guard,
        Err(error) => return ExitCode::from(error.exit_code()),
    };
    let _api = TcpListener::bind(api).unwrap();
    let socket = layout.control_socket();
    let _ = fs::remove_file(&socket);
    for stream in UnixListener::bind(&socket).unwrap().incoming() {
        let (stream, test) = (stream.unwrap(), test.clone());
        thread::spawn(move || answer(&mut BufReader::new(stream.try_clone().unwrap()), stream, &test));
    }
    ExitCode::SUCCESS
}

/// Speaks just enough HTTP: the stream ends with its connection.
fn answer(requests: &mut impl BufRead, mut answers: impl Write, test: &Path) -> Option<()> {
    loop {
        let (first, length) = request(requests)?;
        if first.starts_with("GET /v1/processes?node=local ") {
            answers.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n").ok()?;
            let mut last = Vec::new();
            for tick in 0.. {
                let set = fs::read(test.join("set.json")).unwrap_or_default();
                if !set.is_empty() && set != last {
                    answers.write_all(format!("{{\"set\":{}}}\n", String::from_utf8_lossy(&set)).as_bytes()).ok()?;
                    last = set;
                } else if tick % 50 == 0 {
                    answers.write_all(b"\"alive\"\n").ok()?;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        assert!(first.starts_with("POST /v1/processes/status "), "{first}");
        let mut body = vec![0; length];
        requests.read_exact(&mut body).ok()?;
        replace(&test.join("status.json"), &body);
        body.push(b'\n');
        fs::File::options().append(true).create(true).open(test.join("statuses")).unwrap().write_all(&body).unwrap();
        answers.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
    }
}

fn request(requests: &mut impl BufRead) -> Option<(String, usize)> {
    let mut first = String::new();
    requests.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        requests.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            return Some((first, length));
        }
    }
}

fn replace(path: &Path, content: &[u8]) {
    let next = PathBuf::from(format!("{}.{:?}", path.display(), thread::current().id()));
    fs::write(&next, content).unwrap();
    fs::rename(&next, path).unwrap();
}

fn gateway(layout: &Layout, listen: &str, admin: &str) -> ExitCode {
    let _guard = match serin_node::hold_slot(layout, GATEWAY_SLOT) {
        Ok(guard) => guard,
        Err(error) => return ExitCode::from(error.exit_code()),
    };
    let _data = TcpListener::bind(listen).unwrap();
    serve_http(&TcpListener::bind(admin).unwrap(), &|| 200)
}

fn serve_http(listener: &TcpListener, code: &dyn Fn() -> u16) -> ExitCode {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        if request(&mut BufReader::new(stream.try_clone().unwrap())).is_some() {
            let _ = stream.write_all(
                format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", code()).as_bytes(),
            );
        }
    }
    ExitCode::SUCCESS
}

fn replica(layout: &Layout, slot: &str) -> ExitCode {
    let run = match serin_node::run_replica(layout, slot) {
        Ok(run) => run,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_code());
        }
    };
    assert_eq!(run.slot, slot);
    eprintln!("token {}", std::env::var("TOKEN").unwrap_or_default());
    std::io::stderr().write_all(b"bytes \xff\xfe\n").unwrap();
    if let Some(code) = run.parameters.get("exit") {
        return ExitCode::from(code.parse::<u8>().unwrap());
    }
    thread::sleep(Duration::from_millis(run.warmup_timeout_ms));
    let _ = fs::remove_file(&run.socket);
    for stream in UnixListener::bind(&run.socket).unwrap().incoming() {
        drop(stream);
    }
    ExitCode::SUCCESS
}

fn serve(layout: &Layout, fork: bool) -> ExitCode {
    let test = layout.home().join("test");
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let (port, seen) = (env("PORT"), format!("{} {} {}", env("PORT"), env("MODEL_PATH"), env("TOKEN")));
    replace(&test.join("seen"), seen.as_bytes());
    if fork {
        // A child without the lock's descriptor, and one with it, as `subprocess` and `multiprocessing` make them.
        for redirect in ["exec sleep 1000 7<&- 6<&- 5<&- 4<&- 3<&-", "exec sleep 1000"] {
            #[expect(clippy::zombie_processes, reason = "to be left behind is what it is for")]
            Command::new("sh").args(["-c", redirect, layout.home().to_str().unwrap()]).spawn().unwrap();
        }
    }
    let code = || fs::read_to_string(test.join("code")).map_or(200, |code| code.trim().parse().unwrap());
    serve_http(&TcpListener::bind(format!("127.0.0.1:{port}")).unwrap(), &code)
}
