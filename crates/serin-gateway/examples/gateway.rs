//! A gateway by itself, for benchmarks and experiments: serves the table in `DIR/routes.json`.
//!
//! `gateway --dir DIR [--listen ADDR] [--admin ADDR] [--workers N] [--control SOCKET]`

use std::path::PathBuf;

use serin_gateway::{Gateway, GatewayConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let mut config = GatewayConfig::new("gateway-0", PathBuf::new());
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--dir" => config.dir = value.into(),
            "--listen" => config.listen = value.parse()?,
            "--admin" => config.admin = value.parse()?,
            "--workers" => config.workers = value.parse()?,
            "--control" => config.control_socket = Some(value.into()),
            _ => {
                return Err(
                    format!("{flag} is not a flag; there is --dir, --listen, --admin, --workers, --control").into()
                );
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let gateway = Gateway::bind(config).await?;
        tracing::info!(data = %gateway.data_addr(), admin = %gateway.admin_addr(), "listening");
        let ended = async {
            // An error here means that there is no signal to wait for, so that the gateway runs until it is killed.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        gateway.run(ended).await?;
        Ok(())
    })
}
