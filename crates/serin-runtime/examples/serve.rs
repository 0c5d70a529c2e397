//! Serves a model: `serve MODEL.onnx LISTEN [THREADS]`, LISTEN being `host:port` or `unix:/path`.
//!
//! The shortest way to a server for measurements; the product is `serin model-server`. With one thread (the default)
//! everything runs on one, as suits a replica with one core.

use serin_runtime::{Listen, ModelServer, ModelServerConfig};

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, listen, rest @ ..] = &args[..] else {
        return Err("usage: serve MODEL.onnx LISTEN [THREADS]".into());
    };
    let threads: usize = rest.first().map_or(Ok(1), |threads| threads.parse())?;
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build()?;
    let config = ModelServerConfig::new("model", "1", model, listen.parse::<Listen>()?);
    runtime.block_on(async {
        let server = ModelServer::prepare(config).await?.bind().await?;
        println!("http://{}/v2/models/model/infer", server.address());
        server.run(std::future::pending()).await;
        Ok(())
    })
}
