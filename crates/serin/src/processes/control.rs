//! `serin control`: the controllers, and the embedded API that they work on.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use axum::extract::Request;
use axum::middleware::map_request;
use http::HeaderValue;
use http::header::USER_AGENT;
use serde_json::json;
use serin_api::SYSTEM_NAMESPACE;
use serin_api::layout::Layout;
use serin_apiserver::{ApiOptions, ApiServer, Store, StoreOptions};
use serin_control::ControlConfig;
use serin_node::{CONTROL_SLOT, hold_slot};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{log_to_stderr, loopback, runtime, until_signal};
use crate::error::{Error, Result};
use crate::target::{Target, TargetArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Started by `serin up`. Without --api-listen it serves no API of its own and works on the one that the target flags name, such \
as a cluster's. Models run where a supervisor connects to its socket. Exit code 75: another one has this home.

Examples:
  serin control --home ~/.serin --api-listen 127.0.0.1:7343
  serin control --kubeconfig ~/.kube/config")]
pub struct ControlArgs {
    /// Serve the embedded API here, over TLS, to callers with the token in the home
    #[arg(long, value_name = "HOST:PORT")]
    pub api_listen: Option<SocketAddr>,
    /// Allow an address that is not loopback
    #[arg(long)]
    pub expose: bool,
}

pub fn control(args: &ControlArgs, target: &TargetArgs) -> Result<()> {
    let layout = target.layout();
    let address = args.api_listen.map(|address| loopback("--api-listen", address, args.expose)).transpose()?;
    // Two controls on one home would decide twice.
    let _slot = hold_slot(&layout, CONTROL_SLOT)?;
    log_to_stderr();
    make_folder(&layout.control())?;
    let config = ControlConfig {
        folder: layout.control(),
        socket: layout.control_socket(),
        outcomes_kept: ControlConfig::OUTCOMES_KEPT,
    };
    runtime(0)?.block_on(async {
        match address {
            Some(address) => with_api(address, &layout, config).await,
            None => {
                let client = Target::find(target).await?.api.client();
                Ok(serin_control::run(client, config, until_signal()?).await?)
            }
        }
    })
}

/// Says who writes: fields that the controllers set belong to them.
async fn named(mut request: Request) -> Request {
    request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static("serin"));
    request
}

/// The controllers on the embedded API, which they reach without a network.
async fn with_api(address: SocketAddr, layout: &Layout, config: ControlConfig) -> Result<()> {
    let access = serin_apiserver::bootstrap(&layout.api())?;
    let store = Store::open(layout.api().join("store.redb"), StoreOptions::default())?;
    let definitions = serin_api::resources::crds().iter().map(|crd| json!(crd)).collect();
    let namespaces = vec!["default".to_owned(), SYSTEM_NAMESPACE.to_owned()];
    let api = ApiServer::start(store, ApiOptions { definitions, namespaces, ..ApiOptions::default() }).await?;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    access.write_kubeconfig(&layout.kubeconfig(), listener.local_addr()?)?;

    // Control ends first, then the API under it.
    let (stop, mut stopped) = watch::channel(false);
    let client = kube::Client::new(api.router().layer(map_request(named)), "default");
    let signal = until_signal()?;
    let controllers = async {
        let ended = serin_control::run(client, config, signal).await;
        api.end_watches();
        stop.send_replace(true);
        ended.map_err(Error::from)
    };
    let end = async move {
        // An error means that the sender is gone, which is the end as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let serving = async { serin_apiserver::serve_tls(listener, api.router(), &access, end).await.map_err(Error::from) };
    tokio::try_join!(controllers, serving)?;
    Ok(())
}

fn make_folder(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Write { path: path.to_owned(), source })
}
