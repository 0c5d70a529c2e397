//! `serin up` and `serin down`: everything on one machine.

use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serin_api::layout::Layout;
use serin_node::{Supervisor, SupervisorConfig, Up};

use crate::console;
use crate::error::{Error, Result};
use crate::target::{TargetArgs, short, user_home};

/// After this long without being ready it is said where to look.
const SLOW: Duration = Duration::from_secs(10);
/// How long `--detach` waits until everything is ready.
const DETACH_MAX: Duration = Duration::from_secs(120);
/// Bytes of the log that are shown when a start failed.
const TAIL: usize = 2_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs the control plane (with its own Kubernetes-style API), the gateway and every model replica as processes of this machine, \
on loopback only. Ctrl-C or `serin down` ends all. What is still running after a sudden death of `serin up` is taken over by \
the next one, without a failed request.

Port 0 means a free port, chosen once and kept for this home.

Examples:
  serin up
  serin up --detach
  serin up --home /srv/serin --gateway-port 8000
  serin up --home /tmp/try --gateway-port 0 --admin-port 0 --api-port 0")]
pub struct UpArgs {
    /// Port of the gateway: where models are called
    #[arg(long, value_name = "PORT", default_value_t = 7300)]
    pub gateway_port: u16,
    /// Port for metrics and health of the gateway
    #[arg(long, value_name = "PORT", default_value_t = 7301)]
    pub admin_port: u16,
    /// Port of the API: what kubectl speaks to
    #[arg(long, value_name = "PORT", default_value_t = 7343)]
    pub api_port: u16,
    /// Go to the background once everything is ready
    #[arg(long)]
    pub detach: bool,
}

pub async fn up(args: &UpArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let layout = target.layout();
    if args.detach {
        return detach(args, &layout, out).await;
    }
    // A person reads this terminal: only what is wrong.
    super::log_at("warn");
    let config = SupervisorConfig {
        gateway_port: args.gateway_port,
        admin_port: args.admin_port,
        api_port: args.api_port,
        ..SupervisorConfig::new(layout.clone())?
    };
    let supervisor = Supervisor::open(config)?;
    console::note(&format!("starting under {} ...", short(layout.home())));
    let signal = serin_node::until_signal()?;
    let shutdown = async {
        signal.await;
        console::note("ending: the gateway first, then the replicas, then control ...");
    };
    let ready = AtomicBool::new(false);
    let mut printed = Ok(());
    let on_ready = |up: &Up| {
        ready.store(true, Ordering::Relaxed);
        printed = greet(up, &layout, out);
    };
    let slow = async {
        loop {
            tokio::time::sleep(SLOW).await;
            if ready.load(Ordering::Relaxed) {
                return std::future::pending::<()>().await;
            }
            console::note(&format!("still starting; {} says how far it is", short(&layout.logs())));
        }
    };
    tokio::select! {
        ended = supervisor.run(shutdown, on_ready) => ended?,
        () = slow => {}
    }
    // A reader that went away is no reason to end; it is only reported in the end.
    printed
}

/// Starts `serin up` in the background and waits until it is ready.
async fn detach(args: &UpArgs, layout: &Layout, out: &mut dyn Write) -> Result<()> {
    if let Some(pid) = serin_node::supervisor_pid(layout)? {
        return Err(serin_node::NodeError::AlreadyUp { home: layout.home().to_owned(), pid }.into());
    }
    serin_node::prepare(layout)?;
    let log_path = layout.home().join("up.log");
    let log = std::fs::File::create(&log_path).map_err(|source| Error::Write { path: log_path.clone(), source })?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--home").arg(layout.home());
    for (flag, port) in
        [("--gateway-port", args.gateway_port), ("--admin-port", args.admin_port), ("--api-port", args.api_port)]
    {
        command.arg(flag).arg(port.to_string());
    }
    // A process group of its own: Ctrl-C in this terminal is not meant for it.
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Err(Error::DetachedEnded { status: status.to_string(), log: tail(&log_path) });
        }
        if let Some(up) = Up::read(layout)?.filter(|up| up.pid == pid) {
            return greet(&up, layout, out);
        }
        if started.elapsed() > DETACH_MAX {
            return Err(Error::DetachedSlow { pid, log: log_path });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let from = text.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&text[from..]).trim().to_owned()
}

/// Where everything is, and what to type next.
fn greet(up: &Up, layout: &Layout, out: &mut dyn Write) -> Result<()> {
    let kubeconfig = short(&layout.kubeconfig());
    writeln!(out, "Serin runs under {} (pid {})", short(layout.home()), up.pid)?;
    writeln!(out, "  gateway  http://{}   call models at /v2/models/NAME/infer", up.gateway)?;
    writeln!(out, "  admin    http://{}   /metrics /healthz /readyz", up.admin)?;
    writeln!(out, "  API      https://{}  for kubectl --kubeconfig {kubeconfig}", up.api)?;
    writeln!(out, "  logs     {}", short(&layout.logs()))?;
    writeln!(out, "\nNext, in another terminal:")?;
    if layout.home() != user_home().join(".serin") {
        writeln!(out, "  export SERIN_HOME={}", layout.home().display())?;
    }
    writeln!(out, "  serin apply -f endpoint.yaml")?;
    writeln!(out, "  serin get endpoint -w")?;
    writeln!(out, "  serin rollout status NAME --watch")?;
    writeln!(out, "  serin down")?;
    out.flush()?;
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Objects, evidence and outcomes stay on disk; the next `serin up` goes on with them.

Examples:
  serin down
  serin down --home /srv/serin")]
pub struct DownArgs {}

pub async fn down(target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let layout = target.layout();
    let home = short(layout.home());
    let report = serin_node::down(&layout).await?;
    if report.supervisor.is_none() && report.ended.is_empty() {
        console::note(&format!("nothing runs under {home}"));
        return Ok(());
    }
    let supervisor = report.supervisor.map(|pid| format!("serin up ({pid})"));
    let slots = report.ended.iter().map(|(slot, pid)| format!("{slot} ({pid})"));
    let ended: Vec<String> = supervisor.into_iter().chain(slots).collect();
    writeln!(out, "serin up {home}: ended {}", ended.join(", "))?;
    Ok(())
}
