//! `serin gateway`: the data plane.

use std::net::SocketAddr;

use serin_gateway::GatewayConfig;
use serin_node::{GATEWAY_SLOT, hold_slot};

use super::{log_to_stderr, loopback, runtime, until_signal};
use crate::error::Result;
use crate::target::TargetArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Started by `serin up`. It takes its routes from control's socket under the home, and serves the last ones while control is away. \
Exit code 75: another one has this home.

Examples:
  serin gateway --home ~/.serin --listen 127.0.0.1:7300 --admin 127.0.0.1:7301")]
pub struct GatewayProcessArgs {
    /// Address for requests to models
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7300")]
    pub listen: SocketAddr,
    /// Address for /metrics, /healthz, /readyz and /v1/routes
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7301")]
    pub admin: SocketAddr,
    /// Allow addresses that are not loopback
    #[arg(long)]
    pub expose: bool,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub workers: usize,
    /// The gateway's name in metrics and evidence; keep it over restarts
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub id: String,
}

pub fn gateway(args: &GatewayProcessArgs, target: &TargetArgs) -> Result<()> {
    let layout = target.layout();
    let config = GatewayConfig {
        listen: loopback("--listen", args.listen, args.expose)?,
        admin: loopback("--admin", args.admin, args.expose)?,
        workers: args.workers,
        control_socket: Some(layout.control_socket()),
        ..GatewayConfig::new(&args.id, layout.gateway())
    };
    let _slot = hold_slot(&layout, GATEWAY_SLOT)?;
    log_to_stderr();
    // The workers have event loops of their own; this one has the admin port and the streams from and to control.
    runtime(1)?.block_on(async { Ok(serin_gateway::run(config, until_signal()?).await?) })
}
