//! A loaded model: read, checked, compiled, warmed, and asked.

mod artifact;
mod verdict;
mod warm_up;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

pub use self::artifact::{ArtifactError, digest_of};
use self::verdict::Verdict;
pub use self::warm_up::{WarmUp, WarmUpError, WarmUpReport};
use crate::oip::{AnswerWriter, Request, RequestError, model_metadata, read_request};
use crate::onnx::{Budget, EvalError, Fault, ModelError, Plan, RunOptions, Scratch};
use crate::prediction::Prediction;

/// Largest model file that is read, by default: 512 MiB.
pub const MODEL_BYTES_MAX: u64 = 512 << 20;

/// Which model to load.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// The name in the protocol's paths.
    pub name: String,
    /// The version in the protocol's paths.
    pub version: String,
    /// A path or a `file://` URI, of a file or of a folder that holds `model.onnx`.
    pub artifact: String,
    /// The digest that the file must have, `sha256:` and 64 hexadecimal digits. Checked before anything is parsed.
    pub digest: Option<String>,
    /// Largest file that is read.
    pub bytes_max: u64,
    /// Free parameters. `decisionThreshold` (0 to 1, models with two classes): the label is the second class where its
    /// probability is at least this, whatever the model itself says. Others are kept and mean nothing here.
    pub parameters: BTreeMap<String, String>,
}

impl ModelSource {
    /// A source without digest and parameters.
    pub fn new(name: &str, version: &str, artifact: &str) -> ModelSource {
        ModelSource {
            name: name.to_owned(),
            version: version.to_owned(),
            artifact: artifact.to_owned(),
            digest: None,
            bytes_max: MODEL_BYTES_MAX,
            parameters: BTreeMap::new(),
        }
    }
}

/// Why a model was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file could not be read, or is another than it should be.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The file is not a model that can be served.
    #[error("model {artifact}: {error}")]
    Model {
        /// The file.
        artifact: String,
        /// What is wrong.
        error: Box<ModelError>,
    },
    /// A parameter with an impossible value.
    #[error("parameter {name} is {got:?}, want {wanted}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        got: String,
        /// The accepted values.
        wanted: &'static str,
    },
    /// A decision threshold for a model without two known classes.
    #[error(
        "parameter decisionThreshold needs a classifier with two classes, a label output and a score per class; this model has {0}"
    )]
    NotBinary(&'static str),
}

/// Why a request got no answer.
#[derive(Debug, Error, PartialEq)]
pub enum InferError {
    /// The request is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The model could not be evaluated on it.
    #[error("the model cannot be evaluated on this request: {0}")]
    Eval(#[from] EvalError),
}

impl InferError {
    /// The HTTP status that says whose fault it is: 413 for a request that needs too much memory, else 400, since a
    /// loaded model fails on its input only.
    pub fn status(&self) -> u16 {
        match self {
            InferError::Request(RequestError::TooLarge(_)) => 413,
            InferError::Eval(EvalError { fault: Fault::OverBudget { .. } | Fault::Huge, .. }) => 413,
            _ => 400,
        }
    }
}

/// A model that can be asked. Immutable; share it between threads, with one [`Session`] per request under way.
#[derive(Debug)]
pub struct Model {
    name: String,
    version: String,
    digest: String,
    id: u64,
    plan: Plan,
    verdict: Verdict,
    answers: AnswerWriter,
    metadata: Vec<u8>,
    options: RunOptions,
}

/// The state of one request, kept for the next one: after a few requests, asking a model allocates only its answer.
#[derive(Default)]
pub struct Session {
    model: u64,
    scratch: Scratch,
    request: Request,
}

/// Memory that a session keeps between requests. A larger one, left by a large batch, is given back.
const SESSION_BYTES_KEPT: usize = 4 << 20;

impl Model {
    /// Reads the file, checks its digest, and compiles it. Blocks; takes about 20 ms per MB of a forest.
    ///
    /// # Errors
    /// [`LoadError`], which names the file and what is wrong.
    pub fn load(source: &ModelSource) -> Result<Model, LoadError> {
        let (path, bytes) = artifact::read(&source.artifact, source.bytes_max)?;
        let digest = digest_of(&bytes);
        artifact::check_digest(&path, &digest, source.digest.as_deref())?;
        Model::from_bytes(source, &path.display().to_string(), digest, &bytes)
    }

    fn from_bytes(source: &ModelSource, artifact: &str, digest: String, bytes: &[u8]) -> Result<Model, LoadError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let plan = Plan::compile(bytes)
            .map_err(|error| LoadError::Model { artifact: artifact.to_owned(), error: Box::new(error) })?;
        let verdict = Verdict::new(&plan, threshold(&source.parameters)?)?;
        Ok(Model {
            answers: AnswerWriter::new(&source.name, &source.version, plan.outputs()),
            metadata: model_metadata(&source.name, &source.version, &plan),
            name: source.name.clone(),
            version: source.version.clone(),
            digest,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            plan,
            verdict,
            options: RunOptions::default(),
        })
    }

    /// The name in the protocol's paths.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version in the protocol's paths.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The digest of the file, `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The compiled graph.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The answer to `GET /v2/models/{name}`.
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// Answers an inference request: reads the body, evaluates, and appends the answer's body to `out`.
    ///
    /// # Errors
    /// [`InferError`]; its message goes to the caller, its [`InferError::status`] too. `out` is then unchanged.
    pub fn infer(&self, body: &[u8], session: &mut Session, out: &mut Vec<u8>) -> Result<Prediction, InferError> {
        let result = self.infer_with(body, session, out, self.options);
        if session.scratch.capacity_bytes() > SESSION_BYTES_KEPT {
            *session = Session::default();
        }
        result
    }

    fn infer_with(
        &self,
        body: &[u8],
        session: &mut Session,
        out: &mut Vec<u8>,
        options: RunOptions,
    ) -> Result<Prediction, InferError> {
        if session.model != self.id {
            *session = Session { model: self.id, scratch: self.plan.scratch(), request: Request::default() };
        }
        let Session { scratch, request, .. } = session;
        let mut budget = Budget::new(options.memory_bytes_max);
        let (inputs, outputs) = (self.plan.inputs(), self.plan.outputs());
        read_request(body, inputs, outputs, scratch.inputs_mut(&self.plan), &mut budget, request)?;
        self.plan.run(scratch, options)?;
        self.verdict.decide(&self.plan, scratch)?;
        self.answers.write(out, request.id.as_deref(), &request.outputs, |index| self.plan.output(scratch, index));
        Ok(self.verdict.prediction(&self.plan, scratch, request.rows))
    }
}

fn threshold(parameters: &BTreeMap<String, String>) -> Result<Option<f64>, LoadError> {
    let Some(text) = parameters.get("decisionThreshold") else { return Ok(None) };
    match text.trim().parse::<f64>() {
        Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(Some(threshold)),
        _ => Err(LoadError::Parameter { name: "decisionThreshold", got: text.clone(), wanted: "a number from 0 to 1" }),
    }
}
