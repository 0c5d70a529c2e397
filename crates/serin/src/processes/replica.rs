//! `serin run-replica` and `serin model-server`: one model.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use serin_node::run_replica;
use serin_runtime::{Listen, ListenError, ModelServerConfig, ServeError, WarmUp, serve_model};

use super::{log_to_stderr, loopback, runtime, until_signal};
use crate::error::{Error, Result};
use crate::target::TargetArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Started by `serin up`, which writes the slot's spec. A slot with a command becomes that command. Exit codes: 75 when another \
process holds the slot, 78 when the spec cannot be run.

Examples:
  serin run-replica default.income-1f0a93c2d4-0 --home ~/.serin")]
pub struct ReplicaArgs {
    /// Name of the slot
    pub slot: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Serves one ONNX model by the Open Inference Protocol, without a gateway or an API.

Examples:
  serin model-server --name income --artifact examples/adult/v2.onnx
  serin model-server --artifact v2.onnx --listen unix:/tmp/income.sock --parameter decisionThreshold=0.4
  curl http://127.0.0.1:7380/v2/models/income")]
pub struct ModelServerArgs {
    /// The ONNX file
    #[arg(long, value_name = "FILE")]
    pub artifact: String,
    /// Name of the model in the protocol's paths
    #[arg(long, value_name = "NAME", default_value = "model")]
    pub name: String,
    /// Version in the protocol's paths
    #[arg(long, value_name = "VERSION", default_value = "1")]
    pub version: String,
    /// Digest that the file must have: sha256: and 64 hex digits
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// HOST:PORT, or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7380")]
    pub listen: String,
    /// Allow an address that is not loopback
    #[arg(long)]
    pub expose: bool,
    /// A parameter of the runtime; may be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Threads that read requests
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
}

/// A slot with a command becomes that command here, before there is any other thread, and does not come back.
pub fn replica(args: &ReplicaArgs, target: &TargetArgs) -> Result<()> {
    let replica = run_replica(&target.layout(), &args.slot)?;
    log_to_stderr();
    let listen = Listen::Unix(replica.socket.clone());
    let config = ModelServerConfig {
        digest: replica.digest.clone(),
        parameters: replica.parameters.clone(),
        warm_up: WarmUp {
            requests: replica.warmup_requests,
            latency_max: replica.warmup_max_latency_ms.map(Duration::from_millis),
            timeout: Duration::from_millis(replica.warmup_timeout_ms),
            ..WarmUp::default()
        },
        ..ModelServerConfig::new(&replica.model, &replica.version, &replica.artifact, listen)
    };
    // One thread: replicas are how a model gets more cores, and a hand-over between threads costs more than an inference.
    serve(config, 1)
}

pub fn model_server(args: &ModelServerArgs) -> Result<()> {
    log_to_stderr();
    let listen: Listen = args.listen.parse().map_err(ServeError::Listen)?;
    if let Listen::Tcp(address) = &listen {
        // A name may stand for several addresses.
        let failed = |error| ServeError::Listen(ListenError::Io { address: address.clone(), error });
        for address in address.to_socket_addrs().map_err(failed)? {
            loopback("--listen", address, args.expose)?;
        }
    }
    let mut config = ModelServerConfig::new(&args.name, &args.version, &args.artifact, listen);
    config.digest.clone_from(&args.digest);
    for parameter in &args.parameters {
        let wrong = || Error::Argument { flag: "--parameter", got: parameter.clone(), want: "NAME=VALUE" };
        let (name, value) = parameter.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        config.parameters.insert(name.to_owned(), value.to_owned());
    }
    serve(config, usize::from(args.threads))
}

fn serve(config: ModelServerConfig, threads: usize) -> Result<()> {
    let runtime = runtime(threads)?;
    let served = runtime.block_on(async { Ok(serve_model(config, until_signal()?).await?) });
    // A model that is still being loaded is not waited for.
    runtime.shutdown_background();
    served
}
