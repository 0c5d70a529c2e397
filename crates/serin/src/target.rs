//! Which API a command speaks to: what the flags say, else `KUBECONFIG`, else the running `serin up`, else the default kubeconfig.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serin_api::layout::Layout;
use serin_node::Up;

use crate::api::Api;
use crate::error::{Error, Result};

/// Flags that every verb takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TargetArgs {
    /// Kubeconfig file of the API to speak to
    #[arg(long, global = true, value_name = "FILE", help_heading = "Target")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", help_heading = "Target")]
    pub context: Option<String>,
    /// Namespace [default: the context's, else "default"]
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Target")]
    pub namespace: Option<String>,
    /// Folder of a Serin on this machine [env: SERIN_HOME] [default: ~/.serin]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Target")]
    pub home: Option<PathBuf>,
}

impl TargetArgs {
    /// The folder that holds everything Serin keeps on this machine.
    pub fn home_dir(&self) -> PathBuf {
        let path = self.home.clone().or_else(|| env_path("SERIN_HOME")).unwrap_or_else(|| user_home().join(".serin"));
        std::path::absolute(&path).unwrap_or(path)
    }

    /// Paths under [`TargetArgs::home_dir`].
    pub fn layout(&self) -> Layout {
        Layout::new(&self.home_dir(), rustix::process::getuid().as_raw())
    }
}

/// Whether the supervisor of a home lives, or the API without it: after its sudden death everything else runs on.
fn is_running(layout: &Layout) -> Result<bool> {
    if serin_node::supervisor_pid(layout)?.is_some() {
        return Ok(true);
    }
    Ok(Up::read(layout)?.is_some_and(|up| listens(&up.api)))
}

fn listens(address: &str) -> bool {
    let Ok(address) = address.parse::<SocketAddr>() else { return false };
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// An API, a namespace, and how to call the two.
#[derive(Clone)]
pub struct Target {
    /// The API.
    pub api: Api,
    /// Namespace for objects that do not say theirs.
    pub namespace: String,
    /// Whether the namespace was given on the command line.
    pub namespace_given: bool,
    /// Where writes go, for people: `serin up ~/.serin` or `context NAME (URL)`.
    pub place: String,
}

impl Target {
    /// Finds the API that the flags and the environment mean, and makes a client for it. Nothing is sent yet.
    pub async fn find(args: &TargetArgs) -> Result<Target> {
        let (config, place) = config(args).await?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let place = place.unwrap_or_else(|| url.clone());
        let client = kube::Client::try_from(config)
            .map_err(|source| Error::Client { url: url.clone(), source: Box::new(source) })?;
        Ok(Target { api: Api::new(client, url), namespace, namespace_given: args.namespace.is_some(), place })
    }

    /// `namespace NAME, at PLACE`, for lines that say what was written where.
    pub fn at(&self) -> String {
        format!("namespace {}, at {}", self.namespace, self.place)
    }
}

/// Namespace that the flags and the target's context mean, without a connection.
pub async fn namespace(args: &TargetArgs) -> Result<String> {
    if let Some(namespace) = &args.namespace {
        return Ok(namespace.clone());
    }
    match config(args).await {
        Ok((config, _)) => Ok(config.default_namespace),
        Err(Error::NoTarget) => Ok("default".to_owned()),
        Err(error) => Err(error),
    }
}

/// Where a kubeconfig comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// One file.
    File(PathBuf),
    /// The files that `KUBECONFIG` lists.
    Environment,
    /// The file of a `serin up`, under this home.
    Up(PathBuf),
    /// The user's default file.
    Default(PathBuf),
    /// The service account of the pod we run in.
    Pod,
}

/// What [`choose`] needs to know about the machine.
struct Surroundings {
    /// `KUBECONFIG` names at least one file.
    environment: bool,
    /// A Serin runs under the home.
    up: bool,
    /// The user's default kubeconfig, where it exists.
    default_file: Option<PathBuf>,
    /// We run in a pod.
    pod: bool,
}

fn choose(args: &TargetArgs, home: &Path, around: &Surroundings) -> Result<Source> {
    if let Some(file) = &args.kubeconfig {
        return Ok(Source::File(file.clone()));
    }
    // A home on the command line is a choice like a kubeconfig: never go elsewhere instead.
    if args.home.is_some() {
        return if around.up { Ok(Source::Up(home.to_owned())) } else { Err(Error::HomeNotRunning(home.to_owned())) };
    }
    if around.environment {
        return Ok(Source::Environment);
    }
    // A context is a name in a kubeconfig that people manage, not in ours.
    if around.up && args.context.is_none() {
        return Ok(Source::Up(home.to_owned()));
    }
    match &around.default_file {
        Some(file) => Ok(Source::Default(file.clone())),
        None if around.pod && args.context.is_none() => Ok(Source::Pod),
        None => Err(Error::NoTarget),
    }
}

async fn config(args: &TargetArgs) -> Result<(kube::Config, Option<String>)> {
    let home = args.home_dir();
    let layout = args.layout();
    let up = is_running(&layout)?;
    let environment = std::env::var_os("KUBECONFIG")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|path| !path.as_os_str().is_empty()));
    let default_file = Some(user_home().join(".kube/config")).filter(|file| file.exists());
    let pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let source = choose(args, &home, &Surroundings { environment, up, default_file, pod })?;

    let wrap = |origin: String| move |source: KubeconfigError| Error::Kubeconfig { origin, source: Box::new(source) };
    let (kubeconfig, origin) = match &source {
        Source::File(file) | Source::Default(file) => (Kubeconfig::read_from(file), short(file)),
        Source::Up(_) => (Kubeconfig::read_from(layout.kubeconfig()), short(&layout.kubeconfig())),
        Source::Environment => (Kubeconfig::from_env().map(Option::unwrap_or_default), "of KUBECONFIG".to_owned()),
        Source::Pod => {
            let mut config = kube::Config::incluster().map_err(|_| Error::NoTarget)?;
            tune(&mut config);
            return Ok((config, Some("this pod's cluster".to_owned())));
        }
    };
    let kubeconfig = kubeconfig.map_err(wrap(origin.clone()))?;
    let context = args.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
    let options = KubeConfigOptions { context: args.context.clone(), cluster: None, user: None };
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrap(origin))?;
    tune(&mut config);
    let place = match source {
        Source::Up(home) => format!("serin up {}", short(&home)),
        _ => format!("context {context} ({})", config.cluster_url.to_string().trim_end_matches('/')),
    };
    Ok((config, Some(place)))
}

fn tune(config: &mut kube::Config) {
    // A person waits: 10 s without a connection is a failure to report, not to sit out.
    config.connect_timeout = Some(Duration::from_secs(10));
}

/// A path with the user's home as `~`.
pub fn short(path: &Path) -> String {
    match path.strip_prefix(user_home()) {
        Ok(rest) if !rest.as_os_str().is_empty() => format!("~/{}", rest.display()),
        _ => path.display().to_string(),
    }
}

/// The user's home folder.
pub fn user_home() -> PathBuf {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("/"))
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_the_flags_then_kubeconfig_then_the_running_serin_then_the_default_file() {
        let home = Path::new("/h/.serin");
        let file = || Some(PathBuf::from("/h/.kube/config"));
        let up = || Source::Up(home.to_owned());
        let default = || Source::Default(PathBuf::from("/h/.kube/config"));
        // why, --kubeconfig, --context, --home, KUBECONFIG, serin runs, default file, in a pod -> source
        type Row = (&'static str, bool, bool, bool, bool, bool, bool, bool, Option<Source>);
        let rows: Vec<Row> = vec![
            ("a file wins over all", true, true, true, true, true, true, true, Some(Source::File("/k".into()))),
            ("a home on the command line", false, false, true, true, true, true, true, Some(up())),
            ("a home where nothing runs is an error", false, false, true, true, false, true, true, None),
            ("KUBECONFIG", false, false, false, true, true, true, true, Some(Source::Environment)),
            ("the running serin", false, false, false, false, true, true, true, Some(up())),
            ("a context is not looked up in ours", false, true, false, false, true, true, false, Some(default())),
            ("the default file", false, false, false, false, false, true, true, Some(default())),
            ("a pod", false, false, false, false, false, false, true, Some(Source::Pod)),
            ("a context means nothing in a pod", false, true, false, false, false, false, true, None),
            ("nothing", false, false, false, false, false, false, false, None),
        ];
        for (why, kubeconfig, context, home_flag, environment, running, default_file, pod, want) in rows {
            let args = TargetArgs {
                kubeconfig: kubeconfig.then(|| "/k".into()),
                context: context.then(|| "c".to_owned()),
                namespace: None,
                home: home_flag.then(|| home.to_owned()),
            };
            let around =
                Surroundings { environment, up: running, default_file: default_file.then(file).flatten(), pod };
            assert_eq!(choose(&args, home, &around).ok(), want, "{why}");
        }
    }

    #[test]
    fn a_home_without_a_supervisor_runs_while_its_api_listens() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), 0);
        assert!(!is_running(&layout).unwrap());
        let write = |api: &str| {
            let up = serde_json::json!({"pid": 1, "gateway": "", "admin": "", "api": api, "home": dir.path(), "startedAt": 0});
            std::fs::write(layout.up_file(), up.to_string()).unwrap();
        };
        // Nobody listens on port 1 of loopback.
        write("127.0.0.1:1");
        assert!(!is_running(&layout).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        write(&listener.local_addr().unwrap().to_string());
        assert!(is_running(&layout).unwrap());
    }
}
