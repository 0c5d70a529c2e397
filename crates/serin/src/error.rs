//! Everything that can go wrong in a command, with what to do about it and the exit code.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use serin_api::Span;

use crate::refusal::ApiStatus;

/// Exit codes that scripts may rely on; `docs/cli.md` lists them.
pub mod code {
    /// The command did what it was asked.
    pub const OK: u8 = 0;
    /// It failed.
    pub const ERROR: u8 = 1;
    /// The command line was wrong. (clap uses the same number.)
    pub const USAGE: u8 = 2;
    /// The watched rollout went back to the old version.
    pub const ROLLED_BACK: u8 = 3;
    /// The watched rollout is held: a deadline passed without a pass.
    pub const HELD: u8 = 4;
    /// The time that `--timeout` gave was over first.
    pub const TIMEOUT: u8 = 5;
    /// The watched rollout was aborted by a person, or replaced by a newer one.
    pub const ABANDONED: u8 = 6;
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// One thing that went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // Files and manifests.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no manifest; a manifest's name ends in .yaml, .yml or .json", .0.display())]
    EmptyFolder(PathBuf),
    #[error("{origin} is larger than {limit} bytes; split it into several files")]
    TooLarge { origin: String, limit: usize },
    #[error("{origin} is not YAML: {why}")]
    Yaml { origin: String, why: String },
    #[error("{origin} is not JSON: {why}")]
    Json { origin: String, why: String },
    #[error("{origin} has no document in it; write at least one object with apiVersion and kind")]
    NoDocument { origin: String },
    #[error("{origin}: {field} is {got}, want {want}")]
    Manifest { origin: String, field: &'static str, got: String, want: &'static str },
    #[error(
        "{origin}: metadata.namespace is {manifest:?}, and --namespace says {flag:?}; make them the same, or leave one out"
    )]
    NamespaceConflict { origin: String, manifest: String, flag: String },
    #[error("{origin} holds no ModelEndpoint")]
    NoEndpoint { origin: String },
    #[error("{origin}: {field}: {why}")]
    Plan { origin: String, field: String, why: String },
    #[error("{0}")]
    Simulation(String),
    #[error("{failed} of {total} objects failed")]
    SomeFailed { failed: usize, total: usize },

    // Where to go.
    #[error("cannot use kubeconfig {origin}")]
    Kubeconfig { origin: String, source: Box<kube::config::KubeconfigError> },
    #[error("no Serin is running and no kubeconfig was found")]
    NoTarget,
    #[error("nothing runs under {}", .0.display())]
    HomeNotRunning(PathBuf),
    #[error("cannot make a client for {url}")]
    Client { url: String, source: Box<kube::Error> },
    #[error("{0:?} is not a URL of a gateway; write it like http://127.0.0.1:7300")]
    GatewayUrl(String),
    #[error("no gateway is known: no Serin is running under {}", .0.display())]
    NoGateway(PathBuf),

    // Serin's own processes.
    #[error(transparent)]
    Node(#[from] serin_node::NodeError),
    #[error(transparent)]
    Hold(#[from] serin_node::HoldError),
    #[error(transparent)]
    Replica(#[from] serin_node::ReplicaError),
    #[error("control ended")]
    Control(#[from] serin_control::ControlError),
    #[error("the gateway ended")]
    GatewayProcess(#[from] serin_gateway::GatewayError),
    #[error("the model server ended")]
    ModelServer(#[from] serin_runtime::ServeError),
    #[error("cannot set up access to the API")]
    Access(#[from] serin_apiserver::AccessError),
    #[error("cannot open the API's store")]
    Store(#[from] serin_apiserver::StoreError),
    #[error("cannot start the API")]
    ApiStart(#[from] serin_apiserver::StartError),
    #[error("cannot serve the API")]
    ApiServe(#[from] serin_apiserver::ServeError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{flag} {address} can be reached by others than this machine; add --expose if that is meant")]
    NotLoopback { flag: &'static str, address: SocketAddr },
    #[error("serin up ended at once ({status}):\n{log}")]
    DetachedEnded { status: String, log: String },
    #[error("serin up (pid {pid}) is not ready yet; it goes on in the background and logs to {}", log.display())]
    DetachedSlow { pid: i32, log: PathBuf },

    // Answers.
    #[error("cannot reach {url}")]
    Unreachable { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} broke off its answer")]
    BrokenAnswer { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} answered with something that is not JSON: {why}")]
    NotJson { url: String, why: String },
    #[error("{what}: {status}")]
    Refused { what: String, status: Box<ApiStatus> },
    #[error("{url} answered {status}: {message}")]
    Gateway { url: String, status: u16, message: String },

    // Names.
    #[error("{kind:?} is not a kind that this API serves")]
    UnknownKind { kind: String, known: Vec<String> },
    #[error("{kind} of {api_version} is not served by this API")]
    UnknownApiVersion { kind: String, api_version: String },
    #[error("{kind} {name:?} is not in namespace {namespace:?}")]
    NotFound { kind: String, name: String, namespace: String },
    #[error("give names with one kind, or use KIND/NAME: {0:?} mixes both")]
    MixedNames(String),
    #[error("no name was given for {0}")]
    NameMissing(String),
    #[error("--all-namespaces and a name do not go together: a name is one object in one namespace")]
    NameInAllNamespaces,

    // Rollouts.
    #[error("endpoint {endpoint:?} has no rollout yet")]
    NoRollout { endpoint: String },
    #[error("rollout {rollout} belongs to endpoint {owner:?}, not to {endpoint:?}")]
    OtherEndpoint { rollout: String, owner: String, endpoint: String },
    #[error("rollout {rollout} is over ({phase}), so that it cannot be {verb}")]
    RolloutOver { rollout: String, phase: String, verb: &'static str, hint: &'static str },
    #[error("rollout {rollout} is {phase}; only one that was rolled back can be retried")]
    NotRetryable { rollout: String, phase: String },
    #[error("rollout {rollout} moved on while this was decided: {was} then, {is} now; nothing was changed")]
    MovedOn { rollout: String, was: String, is: String },
    #[error("rollout {rollout} of endpoint {endpoint} is still under way ({phase})")]
    RolloutUnderWay { rollout: String, endpoint: String, phase: String },
    #[error("endpoint {endpoint:?} has no promoted rollout to undo")]
    NothingToUndo { endpoint: String },
    #[error("endpoint {endpoint:?} already has the model of {revision}")]
    AlreadyThere { endpoint: String, revision: String },
    #[error("revision {revision} belongs to endpoint {owner:?}, not to {endpoint:?}")]
    OtherEndpointsRevision { revision: String, owner: String, endpoint: String },
    #[error("the manifest was not accepted: {0}")]
    NotAccepted(String),
    #[error("{what} after {after}")]
    TimedOut { what: String, after: Span },

    // Input on the command line.
    #[error("{flag} is {got:?}, want {want}")]
    Argument { flag: &'static str, got: String, want: &'static str },
    #[error("row {row} has {got} values, and {model} takes {want}")]
    RowWidth { row: usize, got: usize, want: usize, model: String },
    #[error("row {row}, value {column} is {got:?}, and input {input} takes {datatype}")]
    RowValue { row: usize, column: usize, got: String, input: String, datatype: String },
    #[error("{model} has an input of shape {shape}; --row can fill one row of a table only")]
    RowShape { model: String, shape: String },

    // The demo.
    #[error("demo: {0}")]
    Demo(String),

    // Output.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
    #[error("cannot write the object as YAML: {0}")]
    YamlOut(String),
    /// The command said what it had to say on its own; only the exit code is left.
    #[error("ended with code {0}")]
    Exit(u8),
}

impl Error {
    /// `url` could not be reached.
    pub fn unreachable(url: &str, error: kube::Error) -> Error {
        // The client's own wrapper says nothing that a person wants to know.
        let source = match error {
            kube::Error::Service(inner) => inner,
            other => Box::new(other),
        };
        Error::Unreachable { url: url.to_owned(), source }
    }

    /// Exit code of a command that ends with this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Exit(code) => *code,
            Error::Hold(error) => error.exit_code(),
            Error::Replica(error) => error.exit_code(),
            Error::TimedOut { .. } => code::TIMEOUT,
            Error::Argument { .. }
            | Error::MixedNames(_)
            | Error::NameMissing(_)
            | Error::NameInAllNamespaces
            | Error::NotLoopback { .. }
            | Error::GatewayUrl(_) => code::USAGE,
            _ => code::ERROR,
        }
    }

    /// Whether the reader of standard output went away, which is no error of ours.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Output(source) if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Whether an API answered that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Refused { status, .. } if status.code == 404)
    }

    /// Whether an API answered with this status code.
    pub fn has_code(&self, code: u16) -> bool {
        matches!(self, Error::Refused { status, .. } if status.code == code)
    }

    /// The error and its causes in one text, each cause once.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some libraries print their cause and chain it too.
            if !text.contains(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            source = cause.source();
        }
        text
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::NoTarget => "start Serin with `serin up`, or name a cluster with --kubeconfig or --context".into(),
            Error::HomeNotRunning(home) => {
                format!("start it with `serin up --home {}`, or leave --home out", home.display())
            }
            Error::NoGateway(_) => "start Serin with `serin up`, or name a gateway with --gateway http://HOST:PORT".into(),
            Error::Unreachable { .. } => {
                "is it running? `serin up` starts everything on this machine; --kubeconfig and --context name another API, --gateway another gateway".into()
            }
            Error::Kubeconfig { .. } => "check --kubeconfig, --context and the KUBECONFIG variable".into(),
            Error::UnknownKind { known, .. } if known.is_empty() => {
                "`serin get modelendpoints` lists endpoints".into()
            }
            Error::UnknownKind { known, .. } => format!("did you mean {}?", known.join(" or ")),
            Error::UnknownApiVersion { api_version, .. } if api_version.starts_with("serin.dev/") => {
                "Serin's kinds are not installed in this cluster; apply the CRDs first".into()
            }
            Error::UnknownApiVersion { .. } => "check apiVersion and kind, and that its CRD is installed".into(),
            Error::NotFound { kind, namespace, .. } => {
                format!("`serin get {kind} -A` lists those of all namespaces; you are in {namespace:?} (-n changes it)")
            }
            Error::NoRollout { endpoint } => {
                format!("a rollout starts when spec.model changes; `serin describe endpoint {endpoint}` shows what runs")
            }
            Error::OtherEndpoint { owner, .. } => format!("`serin rollout history {owner}` lists the rollouts of {owner}"),
            Error::RolloutOver { hint, .. } => (*hint).to_owned(),
            Error::NotRetryable { .. } => "wait until it ends; `serin rollout status ENDPOINT --watch` does".into(),
            Error::MovedOn { .. } => "look again with `serin rollout status`, then repeat the command if you still want it".into(),
            Error::RolloutUnderWay { endpoint, .. } => {
                format!("`serin rollout abort {endpoint}` goes back to the old version")
            }
            Error::NothingToUndo { endpoint } => {
                format!("`serin rollout history {endpoint}` lists the rollouts; --to-revision names a version yourself")
            }
            Error::NameMissing(what) => format!("write {what} NAME or {what}/NAME"),
            Error::TimedOut { .. } => "a longer --timeout waits longer; nothing was stopped".into(),
            Error::Refused { status, .. } => return status.hint().map(str::to_owned),
            Error::Gateway { status: 404, .. } => {
                "`serin get modelendpoints -A` lists the endpoints; -n changes the namespace".into()
            }
            Error::Gateway { status: 503, .. } => "`serin describe endpoint NAME` shows why no replica is ready".into(),
            _ => return None,
        };
        Some(hint)
    }
}
