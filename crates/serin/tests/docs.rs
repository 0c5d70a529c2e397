//! Every command in the documentation runs, and prints what the page says.
//!
//! A page is a Markdown file. Its code blocks are read in order:
//!
//! - `console`: lines that begin with `$ ` are commands (`\` at the end, or a next line that begins with `> `, continues one), other
//!   lines are what they print. `...` stands for anything: alone for any lines, within a line for any text. A command must end
//!   with code 0, or with the one that `# exit N` at the end of it names.
//! - a block whose line before ends with `` `name`: `` is written to that file.
//! - `text` and `json` are for reading. Every other block is an error: nothing is left unrun without being called so.
//!
//! All commands of a page run in one bash, in an empty home with the repository's `docs` and `examples` linked in, so `~/.serin` is
//! the page's own. Ports are free ones, but the page reads and writes Serin's default ones. `serin down` has to end all that the
//! page starts.
//!
//! `SERIN_DOCS=gates cargo test -p serin --test docs` runs the pages whose names have `gates` in them, and prints how long each
//! command took.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time for one command.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// How long what a page started may take to be gone after `serin down`.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Pages that run at the same time.
const LANES: usize = 2;
/// Serin's default ports: gateway, admin, API.
const DEFAULT_PORTS: [u16; 3] = [7300, 7301, 7343];

/// Commands that `sh` blocks may hold, which are not run here, and who runs them.
const RUN_ELSEWHERE: [(&str, &str); 3] = [
    ("make demo", "minutes long; `make verify` runs every scenario"),
    ("make test", "it runs this test"),
    ("make verify", "hours long; it runs this test"),
];

#[test]
fn every_command_in_the_documentation_runs_and_prints_what_it_says() {
    let filter = std::env::var("SERIN_DOCS").ok();
    let mut pages = pages();
    if let Some(filter) = &filter {
        pages.retain(|page| page.to_string_lossy().contains(filter.as_str()));
        assert!(!pages.is_empty(), "no page has {filter:?} in its name");
    }
    let waiting = Mutex::new(pages.into_iter().rev().collect::<Vec<_>>());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let Some(page) = waiting.lock().unwrap().pop() else { return };
                    let started = Instant::now();
                    let name = page.strip_prefix(root()).unwrap().display().to_string();
                    let result = run(&page, &name, filter.is_some());
                    println!("{:5.1} s  {name}", started.elapsed().as_secs_f64());
                    if let Err(why) = result {
                        failures.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} page(s) are wrong\n\n{}", failures.len(), failures.join("\n\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// README.md, and every page directly in `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// Runs one page, or says what is wrong with it.
fn run(path: &Path, name: &str, is_timed: bool) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let actions = parse(&text).map_err(|why| format!("{name}:{why}"))?;
    if actions.is_empty() {
        return Ok(());
    }
    let mut session = Session::start();
    let mut result = Ok(());
    for action in &actions {
        let started = Instant::now();
        result = match action {
            Action::File { name, text } => session.write(name, text),
            Action::Run(command) => session.check(command, name),
        };
        if let (Action::Run(command), true) = (action, is_timed) {
            println!("{:7.2} s  {name}:{}: {}", started.elapsed().as_secs_f64(), command.line, command.text);
        }
        if result.is_err() {
            break;
        }
    }
    let ended = session.end().map_err(|why| format!("{name}: {why}"));
    result.and(ended)
}

// ---- Reading a page.

#[derive(Debug, PartialEq)]
enum Action {
    /// A block that is a file.
    File {
        name: String,
        text: String,
    },
    Run(Step),
}

/// A command and what it should do.
#[derive(Debug, PartialEq)]
struct Step {
    /// Line in the page, from 1.
    line: usize,
    text: String,
    code: i32,
    prints: Vec<String>,
}

/// Everything that a page does, in order; an error begins with its line.
fn parse(page: &str) -> Result<Vec<Action>, String> {
    let mut actions = Vec::new();
    let mut lines = page.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
    let mut before = "";
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                before = line.trim();
            }
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let mut block = Vec::new();
        loop {
            let Some((number, line)) = lines.next() else { return Err(format!("{number}: this block has no end")) };
            if line.trim() == "```" {
                break;
            }
            block.push((number, line.get(indent..).unwrap_or_default()));
        }
        if let Some(name) = file_name(before) {
            let text = block.iter().fold(String::new(), |text, (_, line)| text + line + "\n");
            actions.push(Action::File { name: name.to_owned(), text });
        } else {
            match info {
                "console" => actions.extend(console(number, &block)?.into_iter().map(Action::Run)),
                "sh" => elsewhere(&block)?,
                "text" | "json" => {}
                other => {
                    return Err(format!(
                        "{number}: a {other:?} block is neither run nor written to a file; make it `console`, end the line \
                         before it with the file's name as in `endpoint.yaml`:, or call it `text`"
                    ));
                }
            }
        }
        before = "";
    }
    Ok(actions)
}

/// The file that the line before a block names.
fn file_name(before: &str) -> Option<&str> {
    let (_, name) = before.strip_suffix("`:")?.rsplit_once('`')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!name.is_empty() && name.chars().all(is_plain) && name.contains('.')).then_some(name)
}

fn elsewhere(block: &[(usize, &str)]) -> Result<(), String> {
    for (number, line) in block {
        if !RUN_ELSEWHERE.iter().any(|(command, _)| command == line) {
            return Err(format!("{number}: {line:?} is run by no test; make the block `console`"));
        }
    }
    Ok(())
}

fn console(number: usize, block: &[(usize, &str)]) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_open = false;
    for (line, text) in block {
        if let (true, Some(step)) = (is_open, steps.last_mut()) {
            step.text.push('\n');
            step.text.push_str(text.strip_prefix("> ").unwrap_or(text));
        } else if let Some(command) = text.strip_prefix("$ ") {
            steps.push(Step { line: *line, text: command.to_owned(), code: 0, prints: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            match text.strip_prefix("> ") {
                Some(more) if step.prints.is_empty() => {
                    step.text.push('\n');
                    step.text.push_str(more);
                }
                _ => step.prints.push((*text).to_owned()),
            }
        } else {
            return Err(format!("{line}: a console block begins with a command: $ ..."));
        }
        is_open = steps.last().is_some_and(|step| step.prints.is_empty() && step.text.ends_with('\\'));
    }
    if steps.is_empty() {
        return Err(format!("{number}: a console block without a command"));
    }
    for step in &mut steps {
        if let Some((_, code)) = step.text.rsplit_once("# exit ") {
            step.code = code.trim().parse().map_err(|_| format!("{}: `# exit N` wants a number", step.line))?;
        }
    }
    Ok(steps)
}

// ---- What a command printed, against what the page says.

/// Whether the lines are as wanted; `...` stands for anything.
fn matches(want: &[&str], got: &[&str]) -> bool {
    differences(want, got)[0][0] == 0
}

/// `[i][j]`: the least number of lines that are missing or not wanted where `want[i..]` should be `got[j..]`.
fn differences(want: &[&str], got: &[&str]) -> Vec<Vec<usize>> {
    let mut least = vec![vec![0; got.len() + 1]; want.len() + 1];
    for i in (0..=want.len()).rev() {
        for j in (0..=got.len()).rev() {
            let is_open = want.get(i).is_some_and(|line| line.trim() == "...");
            let mut ways = Vec::new();
            if i < want.len() {
                ways.push(least[i + 1][j] + usize::from(!is_open));
            }
            if j < got.len() {
                ways.push(least[i][j + 1] + usize::from(!is_open));
            }
            if i < want.len() && j < got.len() && line_matches(want[i], got[j]) {
                ways.push(least[i + 1][j + 1]);
            }
            least[i][j] = ways.into_iter().min().unwrap_or(0);
        }
    }
    least
}

fn line_matches(want: &str, got: &str) -> bool {
    let (want, got) = (want.trim_end(), got.trim_end());
    let mut parts = want.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = got.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Both, line by line: `-` is missing, `+` is not wanted.
fn diff(want: &[&str], got: &[&str]) -> String {
    let least = differences(want, got);
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < want.len() || j < got.len() {
        let (has_want, has_got) = (i < want.len(), j < got.len());
        let now = least[i][j];
        let (sign, line) = if has_want && want[i].trim() == "..." {
            if !has_got || least[i][j + 1] != now {
                i += 1;
                continue;
            }
            j += 1;
            (' ', got[j - 1])
        } else if has_want && has_got && line_matches(want[i], got[j]) && least[i + 1][j + 1] == now {
            (i, j) = (i + 1, j + 1);
            (' ', got[j - 1])
        } else if has_want && least[i + 1][j] + 1 == now {
            i += 1;
            ('-', want[i - 1])
        } else {
            j += 1;
            ('+', got[j - 1])
        };
        let _ = writeln!(text, "  {sign} {line}");
    }
    text
}

// ---- A bash of the page's own.

struct Session {
    folder: tempfile::TempDir,
    bash: Child,
    input: ChildStdin,
    /// Exit codes of commands.
    codes: Receiver<i32>,
    /// Commands run so far.
    count: usize,
    /// The page's port in each place of [`DEFAULT_PORTS`].
    ports: [u16; 3],
}

impl Session {
    fn start() -> Session {
        // Short: sockets lie below it.
        let folder = tempfile::Builder::new().prefix("serin-docs-").tempdir().unwrap();
        let home = folder.path().join("home");
        let bin = folder.path().join("bin");
        for new in [&home, &bin, &folder.path().join("io")] {
            fs::create_dir(new).unwrap();
        }
        for part in ["docs", "examples"] {
            symlink(root().join(part), home.join(part)).unwrap();
        }
        let ports = free_ports();
        wrap_serin(&bin.join("serin"), ports);

        let cache = match std::env::var_os("SERIN_CACHE") {
            Some(cache) => PathBuf::from(cache),
            None => Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/serin"),
        };
        let path = std::env::var("PATH").expect("PATH is set");
        let path = [
            bin.display().to_string(),
            cache.join("kubectl-current").display().to_string(),
            cache.join("venv/bin").display().to_string(),
            path,
        ];
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).env_clear().current_dir(&home);
        command
            .envs([("HOME", home.as_os_str())])
            .env("PATH", path.join(":"))
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb");
        // Everything that the page starts inherits this, and is found by it.
        command.env("SERIN_DOCS_FOLDER", folder.path());
        // A process group of its own, to be ended as one.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut bash = command.spawn().expect("bash is needed: apt-get install bash");
        let input = bash.stdin.take().unwrap();
        let output = BufReader::new(bash.stdout.take().unwrap());
        let (send, codes) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = send.send(line.parse().unwrap_or(-1));
            }
        });
        Session { folder, bash, input, codes, count: 0, ports }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.path().join("home").join(name);
        fs::write(&path, self.to_session(text)).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Runs a command, and says what is wrong with what it did.
    fn check(&mut self, step: &Step, page: &str) -> Result<(), String> {
        let place = format!("{page}:{}: $ {}", step.line, step.text.replace('\n', "\n    "));
        let (code, printed) = self.execute(&step.text).map_err(|why| format!("{place}\n{why}"))?;
        let want: Vec<&str> = step.prints.iter().map(String::as_str).collect();
        let got: Vec<&str> = printed.lines().collect();
        if code == step.code && matches(&want, &got) {
            return Ok(());
        }
        let mut why = place;
        if code == 127 && step.code != 127 {
            why.push_str(
                "\na program is missing; `make setup` installs kubectl and the Python client, Debian has the rest",
            );
        }
        if code != step.code {
            let _ = write!(why, "\nended with code {code}, the page says {}", step.code);
        }
        let _ = write!(why, "\n- the page says, + was printed:\n{}", diff(&want, &got));
        Err(why)
    }

    /// Runs a command in the bash; gives its code, and what it printed to both outputs.
    fn execute(&mut self, text: &str) -> Result<(i32, String), String> {
        self.count += 1;
        let io = self.folder.path().join("io");
        let (script, printed) = (io.join(format!("{}.sh", self.count)), io.join(format!("{}.out", self.count)));
        fs::write(&script, self.to_session(text) + "\n").map_err(|error| error.to_string())?;
        // Sourced, so that variables, `cd` and jobs stay; into a file, so that jobs of earlier commands do not get in between.
        let line = format!(". {} >{} 2>&1 </dev/null; echo $?\n", script.display(), printed.display());
        let sent = self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush());
        let code = match sent
            .map_err(|_| RecvTimeoutError::Disconnected)
            .and_then(|()| self.codes.recv_timeout(COMMAND_MAX))
        {
            Ok(code) => code,
            Err(RecvTimeoutError::Timeout) => {
                let so_far = self.to_page(&fs::read_to_string(&printed).unwrap_or_default());
                return Err(format!("did not end within {} s; printed so far:\n{so_far}", COMMAND_MAX.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => return Err("the shell ended with it".to_owned()),
        };
        let printed = fs::read(&printed).map_err(|error| error.to_string())?;
        Ok((code, self.to_page(&String::from_utf8_lossy(&printed))))
    }

    /// The page's text with the ports of this session.
    fn to_session(&self, text: &str) -> String {
        DEFAULT_PORTS.iter().zip(self.ports).fold(text.to_owned(), |text, (default, own)| {
            text.replace(&format!("127.0.0.1:{default}"), &format!("127.0.0.1:{own}"))
        })
    }

    /// This session's text with the ports that pages name.
    fn to_page(&self, text: &str) -> String {
        DEFAULT_PORTS.iter().zip(self.ports).fold(text.to_owned(), |text, (default, own)| {
            text.replace(&format!("127.0.0.1:{own}"), &format!("127.0.0.1:{default}"))
        })
    }

    /// Ends everything, and says what did not end.
    fn end(mut self) -> Result<(), String> {
        let group = rustix::process::Pid::from_child(&self.bash);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.bash.wait();
        let down = Command::new(env!("CARGO_BIN_EXE_serin"))
            .arg("down")
            .env("HOME", self.folder.path().join("home"))
            .env_remove("SERIN_HOME")
            .output()
            .map_err(|error| error.to_string())?;
        let mut why = String::new();
        if !down.status.success() {
            let _ = write!(why, "`serin down` failed: {}", String::from_utf8_lossy(&down.stderr));
        }
        let since = Instant::now();
        let mut left = self.left();
        while !left.is_empty() && since.elapsed() < GONE_WITHIN {
            thread::sleep(Duration::from_millis(50));
            left = self.left();
        }
        for (pid, command) in &left {
            let _ = write!(why, "\nstill runs after `serin down`: {command}");
            if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if why.is_empty() { Ok(()) } else { Err(why) }
    }

    /// Processes that the page started, other than dead ones: pid and command line.
    fn left(&self) -> BTreeMap<i32, String> {
        let folder = self.folder.path().to_str().unwrap();
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: i32| {
            let of = |file: &str| {
                String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).ok()?).replace('\0', " ").into()
            };
            let (command, environment): (Option<String>, Option<String>) = (of("cmdline"), of("environ"));
            let command = command.filter(|command| !command.is_empty())?;
            (command.contains(folder) || environment?.contains(folder)).then_some((pid, command))
        };
        pids.filter_map(ours).collect()
    }
}

/// Three ports of loopback that are free now, below those that the kernel gives to outgoing connections.
fn free_ports() -> [u16; 3] {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    if *next == 0 {
        *next = 21_000 + (std::process::id() % 9_000) as u16;
    }
    std::array::from_fn(|_| {
        loop {
            *next = if *next < 31_000 { *next + 1 } else { 21_000 };
            if TcpListener::bind(("127.0.0.1", *next)).is_ok() {
                return *next;
            }
        }
    })
}

/// The built `serin`; its `up` listens on these ports instead of the default ones.
fn wrap_serin(path: &Path, ports: [u16; 3]) {
    let serin = env!("CARGO_BIN_EXE_serin");
    let [gateway, admin, api] = ports;
    let script = format!(
        "#!/bin/sh\ncase \"$1 $*\" in\n  up*-port*) exec {serin} \"$@\" ;;\n  'up '*) exec {serin} \"$@\" --gateway-port {gateway} \
         --admin-port {admin} --api-port {api} ;;\n  *) exec {serin} \"$@\" ;;\nesac\n"
    );
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

// ---- Names of fields.

#[test]
fn every_field_that_the_documentation_names_exists() {
    let mut fields = Vec::new();
    for crd in serin_api::resources::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        collect_fields(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &mut fields);
    }
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in text.lines().enumerate() {
            // What stands between backticks.
            for name in line.split('`').skip(1).step_by(2).filter(|name| is_field_name(name)) {
                if !fields.iter().any(|field| field == name || field.ends_with(&format!(".{name}"))) {
                    wrong.push(format!("{}:{}: no kind has the field {name}", page.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `spec.rollout.bake`, `status.attempt`, `minRequests`: whether this can only be a field.
fn is_field_name(text: &str) -> bool {
    // A parameter of the built-in runtime, which is free text in the schema.
    if text == "decisionThreshold" {
        return false;
    }
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
    let is_path = ["spec.", "status.", "rollout.", "gates.", "bake.", "missing.", "labels.", "command."]
        .iter()
        .any(|start| text.starts_with(start))
        && text.split('.').all(is_word);
    let is_camel = is_word(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    is_path || (is_camel && text.contains(|c: char| c.is_ascii_uppercase()))
}

fn collect_fields(schema: &serde_json::Value, path: &str, fields: &mut Vec<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect_fields(inner, &path, fields);
        collect_fields(&inner["items"], &path, fields);
        fields.push(path);
    }
}

// ---- The runner itself.

#[test]
fn dots_stand_for_any_text_and_all_else_is_exact() {
    let is =
        [("a", "a"), ("a  ", "a"), ("a ... c", "a b c"), ("...", "x"), ("x...", "x"), ("...x...", "axa"), ("", "")];
    for (want, got) in is {
        assert!(line_matches(want, got), "{want:?} {got:?}");
    }
    for (want, got) in [("a", "ab"), ("a", ""), ("a...c", "a b"), ("ab...bc", "abc"), ("...x", "xy"), (" a", "a")] {
        assert!(!line_matches(want, got), "{want:?} {got:?}");
    }
    assert!(matches(&["a", "...", "c"], &["a", "b", "b", "c"]));
    assert!(matches(&["...", "c"], &["c"]) && matches(&["..."], &[]) && matches(&[], &[]));
    assert!(!matches(&["a", "...", "c"], &["a", "c", "d"]) && !matches(&[], &["a"]) && !matches(&["a"], &[]));
    assert_eq!(diff(&["a", "b ...", "c"], &["a", "b 1", "d"]), "    a\n    b 1\n  - c\n  + d\n");
    assert_eq!(diff(&["...", "c", "...", "e"], &["a", "b", "d", "e"]), "    a\n    b\n    d\n  - c\n    e\n");
}

#[test]
fn a_page_is_files_and_commands_in_order() {
    let page = "x `e.yaml`:\n\n```yaml\na: 1\n```\n\n```console\n$ a \\\n  b\nout\n$ c  # exit 3\n$ d <<E\n> e\n> E\n```\n```text\n$ no\n```\n";
    let step = |line, text: &str, code, prints: &[&str]| {
        Action::Run(Step {
            line,
            text: text.to_owned(),
            code,
            prints: prints.iter().map(|s| (*s).to_owned()).collect(),
        })
    };
    let want = [
        Action::File { name: "e.yaml".to_owned(), text: "a: 1\n".to_owned() },
        step(8, "a \\\n  b", 0, &["out"]),
        step(11, "c  # exit 3", 3, &[]),
        step(12, "d <<E\ne\nE", 0, &[]),
    ];
    assert_eq!(parse(page).unwrap(), want);
}

#[test]
fn a_block_that_nothing_runs_is_an_error() {
    let wrong = [
        ("```yaml\na: 1\n```\n", "1: a \"yaml\" block"),
        ("```\n$ a\n```\n", "1: a \"\" block"),
        ("```sh\nmake test\nserin up\n```\n", "3: \"serin up\" is run by no test"),
        ("```console\nout\n```\n", "2: a console block begins with a command"),
        ("```console\n```\n", "1: a console block without"),
        ("\n```text\n", "2: this block has no end"),
    ];
    for (page, why) in wrong {
        let error = parse(page).unwrap_err();
        assert!(error.starts_with(why), "{page}: {error}");
    }
}

#[test]
fn a_page_that_is_wrong_fails_with_its_line_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let try_page = |text: &str| {
        let path = folder.path().join("page.md");
        fs::write(&path, text).unwrap();
        run(&path, "page.md", false)
    };
    assert_eq!(try_page("```console\n$ sleep 1000 &\n$ serin version\nserin ...\n```\n"), Ok(()));
    let why = try_page("```console\n$ echo 127.0.0.1:7300; false\n127.0.0.1:7301\n```\n").unwrap_err();
    for part in ["page.md:2: $ echo", "code 1, the page says 0", "  - 127.0.0.1:7301\n", "  + 127.0.0.1:7300\n"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let why = try_page("```console\n$ setsid sh -c 'touch on; exec sleep 1000' & until [ -e on ]; do :; done\n```\n")
        .unwrap_err();
    assert!(why.contains("still runs after `serin down`: sleep 1000"), "{why}");
    let why = try_page("```console\n$ exit 4\n```\n").unwrap_err();
    assert!(why.contains("the shell ended"), "{why}");
}
