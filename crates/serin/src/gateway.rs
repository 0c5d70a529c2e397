//! `serin infer` and `serin outcome`: the gateway as its callers see it.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::{Value, json};
use serin_api::wire::observations::Outcome;
use serin_node::Up;

use crate::api::encode;
use crate::console;
use crate::error::{Error, Result};
use crate::manifest::read_limited;
use crate::rows;
use crate::target::{self, TargetArgs};

/// Largest answer that is read.
const ANSWER_MAX: usize = 256 << 20;

#[derive(Debug, clap::Args)]
pub struct GatewayArgs {
    /// URL of the gateway [env: SERIN_GATEWAY] [default: that of the running `serin up`]
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
--row reads the model's inputs first, and fits the values to them: one matrix row, or one value for each named input. \
Without --data, --file or --row the request is read from standard input.

Examples:
  serin infer income --row 39,6,13,4,1,1,4,1,2174,0,40,39,77516,9
  serin infer income --file request.json -v
  serin infer income --data \"$(cat request.json)\"
  serin infer income --row 1,2 --header x-user=anna -n fraud")]
pub struct InferArgs {
    /// The endpoint
    pub endpoint: String,
    /// The request, as JSON of the Open Inference Protocol
    #[arg(long, value_name = "JSON", conflicts_with_all = ["file", "row"])]
    pub data: Option<String>,
    /// File with the request; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "row")]
    pub file: Option<PathBuf>,
    /// One row of values with commas; may be repeated
    #[arg(long, value_name = "VALUES", allow_hyphen_values = true)]
    pub row: Vec<String>,
    /// A header to send; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub header: Vec<String>,
    /// Say (on standard error) which version answered, and print the receipt and the request id
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The receipt is the serin-receipt header of the answer that the outcome is about; `serin infer -v` prints it. Posting the same \
outcome twice is harmless.

Examples:
  serin outcome \"$RECEIPT\" 1
  serin outcome \"$RECEIPT\" '\">50K\"'
  serin outcome \"$RECEIPT\" 12.5")]
pub struct OutcomeArgs {
    /// The receipt that came with the answer
    pub receipt: String,
    /// What turned out to be true: a class or a value, as JSON; other text counts as text
    #[arg(allow_hyphen_values = true)]
    pub label: String,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

pub async fn infer(args: &InferArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let headers = headers(&args.header)?;
    let gateway = Gateway::find(&args.gateway, target)?;
    let namespace = target::namespace(target).await?;
    let root = if namespace == "default" { String::new() } else { format!("/n/{}", encode(&namespace)) };
    let model = format!("{root}/v2/models/{}", encode(&args.endpoint));
    let body = if args.row.is_empty() {
        request_text(args)?
    } else {
        let metadata = gateway.exchange(Request::get(&model), &headers, Vec::new()).await?;
        let metadata = parse(&metadata.body, &gateway.url)?;
        rows::request(&metadata, &args.row, &args.endpoint)?.to_string()
    };
    let request = Request::post(format!("{model}/infer")).header(http::header::CONTENT_TYPE, "application/json");
    let answer = gateway.exchange(request, &headers, body.into_bytes()).await?;
    out.write_all(&answer.body)?;
    if !answer.body.ends_with(b"\n") {
        writeln!(out)?;
    }
    out.flush()?;
    if args.verbose {
        for (label, name) in [
            ("version", "serin-version"),
            ("digest", "serin-digest"),
            ("request id", "x-request-id"),
            ("receipt", "serin-receipt"),
        ] {
            let value = answer.headers.get(name).map_or("-".into(), |value| String::from_utf8_lossy(value.as_bytes()));
            console::note(&format!("{label}: {value}"));
        }
    }
    Ok(())
}

pub async fn outcome(args: &OutcomeArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let gateway = Gateway::find(&args.gateway, target)?;
    let label = serde_json::from_str(&args.label).unwrap_or_else(|_| Value::from(args.label.as_str()));
    let outcome = Outcome { receipt: args.receipt.trim().to_owned(), label };
    let request = Request::post("/serin/v1/outcomes").header(http::header::CONTENT_TYPE, "application/json");
    let answer = gateway.exchange(request, &HeaderMap::new(), json!(outcome).to_string().into_bytes()).await?;
    let answer = parse(&answer.body, &gateway.url)?;
    writeln!(out, "{} (gateway {})", console::clean(answer["status"].as_str().unwrap_or("recorded")), gateway.url)?;
    Ok(())
}

fn request_text(args: &InferArgs) -> Result<String> {
    if let Some(data) = &args.data {
        return Ok(data.clone());
    }
    match &args.file {
        Some(path) if path.as_os_str() != "-" => {
            let file = std::fs::File::open(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            read_limited(file, path)
        }
        _ => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                console::note("reading the request from standard input; --row or --file give it otherwise");
            }
            read_limited(stdin.lock(), std::path::Path::new("-"))
        }
    }
}

fn headers(pairs: &[String]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in pairs {
        let wrong = || Error::Argument {
            flag: "--header",
            got: pair.clone(),
            want: "NAME=VALUE with a header's name and value",
        };
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(headers)
}

fn parse(body: &[u8], url: &str) -> Result<Value> {
    serde_json::from_slice(body).map_err(|error| Error::NotJson { url: url.to_owned(), why: error.to_string() })
}

/// A gateway's data port.
struct Gateway {
    client: kube::Client,
    url: String,
}

struct Answer {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Gateway {
    fn find(args: &GatewayArgs, target: &TargetArgs) -> Result<Gateway> {
        let from_environment = || std::env::var("SERIN_GATEWAY").ok().filter(|url| !url.is_empty());
        let url = match args.gateway.clone().or_else(from_environment) {
            Some(url) => url,
            None => {
                let up = Up::read(&target.layout())?.ok_or_else(|| Error::NoGateway(target.home_dir()))?;
                format!("http://{}", up.gateway)
            }
        };
        Gateway::new(&url)
    }

    fn new(url: &str) -> Result<Gateway> {
        let wrong = || Error::GatewayUrl(url.to_owned());
        let uri: http::Uri = url.trim_end_matches('/').parse().map_err(|_| wrong())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(wrong());
        }
        let mut config = kube::Config::new(uri);
        config.connect_timeout = Some(Duration::from_secs(10));
        // What a caller sees is what is shown: no second attempt behind the scenes.
        config.default_retry = false;
        let client = kube::Client::try_from(config)
            .map_err(|source| Error::Client { url: url.to_owned(), source: Box::new(source) })?;
        Ok(Gateway { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// One request; an answer that is not 2xx is an error.
    async fn exchange(&self, request: http::request::Builder, headers: &HeaderMap, body: Vec<u8>) -> Result<Answer> {
        let unreachable = |error| Error::unreachable(&self.url, error);
        let mut request = request.body(Body::from(body)).map_err(|error| unreachable(kube::Error::HttpError(error)))?;
        for (name, value) in headers {
            request.headers_mut().append(name, value.clone());
        }
        let response = self.client.send(request).await.map_err(unreachable)?;
        let (parts, body) = response.into_parts();
        let broken = |source| Error::BrokenAnswer { url: self.url.clone(), source };
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(broken)?.to_bytes().to_vec();
        if parts.status.is_success() {
            return Ok(Answer { headers: parts.headers, body });
        }
        Err(self.refused(parts.status, &body))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        let said = serde_json::from_slice::<Value>(body).ok().and_then(|v| v["error"].as_str().map(str::to_owned));
        let message = said.unwrap_or_else(|| {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(500).collect();
            if text.is_empty() { status.canonical_reason().unwrap_or_default().to_owned() } else { text }
        });
        Error::Gateway { url: self.url.clone(), status: status.as_u16(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_name_and_value() {
        let map = headers(&["x-user=anna".to_owned(), "x-a=b=c".to_owned()]).unwrap();
        assert_eq!((map["x-user"].as_bytes(), map["x-a"].as_bytes()), (&b"anna"[..], &b"b=c"[..]));
        for wrong in ["x-user", "bad name=1", "x=\n"] {
            assert!(headers(&[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_gateway_has_a_scheme_and_no_query() {
        for wrong in ["127.0.0.1:7300", "ftp://h", "http://", "http://h/?a=b", ""] {
            assert!(matches!(Gateway::new(wrong), Err(Error::GatewayUrl(_))), "{wrong:?}");
        }
        assert!(Gateway::new("http://127.0.0.1:7300/").is_ok());
    }
}
