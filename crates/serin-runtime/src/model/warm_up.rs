//! Asking a model before it takes traffic: it must answer, with numbers, in time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::{InferError, Model, Session};
use crate::oip::{datatype, write_text};
use crate::onnx::{DType, Data, RunOptions, shown};

/// How a model is warmed, and when that counts as passed.
#[derive(Debug, Clone)]
pub struct WarmUp {
    /// Requests to make; at least 1 is made.
    pub requests: u32,
    /// A file with an inference request as JSON, used instead of made-up rows. Its rows must be accepted as they are.
    pub sample: Option<PathBuf>,
    /// Longest median time of a request, reading and writing included. `None`: any.
    pub latency_max: Option<Duration>,
    /// Longest time for all requests together; the warm-up fails when it is over.
    pub timeout: Duration,
}

impl Default for WarmUp {
    /// 32 requests of one row within 10 seconds: enough to fill caches and buffers, and a few milliseconds at most for
    /// the models this runtime is made for.
    fn default() -> WarmUp {
        WarmUp { requests: 32, sample: None, latency_max: None, timeout: Duration::from_secs(10) }
    }
}

/// Why a warm-up did not pass.
#[derive(Debug, Error)]
pub enum WarmUpError {
    /// The sample file could not be read.
    #[error("warm-up sample {path} cannot be read: {error}")]
    Sample {
        /// The file.
        path: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// A request was not answered.
    #[error("warm-up request {request} failed: {error}{hint}")]
    Infer {
        /// Which request, from 1.
        request: u32,
        /// Why.
        error: InferError,
        /// What to do.
        hint: &'static str,
    },
    /// An output holds a number that is not finite.
    #[error("warm-up request {request}: output {output}, element {index} is {value}, want a finite number{hint}")]
    NotFinite {
        /// Which request, from 1.
        request: u32,
        /// The output.
        output: String,
        /// Position of the element.
        index: usize,
        /// Its value.
        value: f64,
        /// What to do.
        hint: &'static str,
    },
    /// An output does not have one entry per row.
    #[error("warm-up request {request}: output {output} has shape {got:?}, want {rows} rows")]
    Rows {
        /// Which request, from 1.
        request: u32,
        /// The output.
        output: String,
        /// Its shape.
        got: Vec<usize>,
        /// Rows of the request.
        rows: usize,
    },
    /// Too slow.
    #[error("warm-up: the median request took {got_us} µs, want at most {max_us} µs")]
    TooSlow {
        /// The median.
        got_us: u128,
        /// The most allowed.
        max_us: u128,
    },
    /// Not done in time.
    #[error("warm-up: {done} of {requests} requests were done when the time of {timeout_ms} ms was over")]
    Timeout {
        /// Requests done.
        done: u32,
        /// Requests wanted.
        requests: u32,
        /// The time.
        timeout_ms: u128,
    },
}

/// What a warm-up saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUpReport {
    /// Requests made.
    pub requests: u32,
    /// Median time of a request, reading and writing included.
    pub median: Duration,
}

const USE_A_SAMPLE: &str = "; if made-up rows do not suit this model, give a warm-up sample with real ones";

impl Model {
    /// Makes the warm-up's requests, one after the other. Blocks.
    ///
    /// Passed means: every request was answered, every output has one entry per row, every number is finite, the median
    /// time is within `latency_max`, and all was done within `timeout`. Made-up rows have numbers between 0 and 1 and
    /// empty texts; an encoder that would refuse an unknown text takes them as "none of the categories".
    ///
    /// # Errors
    /// [`WarmUpError`].
    pub fn warm_up(&self, warm_up: &WarmUp) -> Result<WarmUpReport, WarmUpError> {
        let sample = warm_up.sample.as_deref().map(read_sample).transpose()?;
        let made_up = sample.is_none();
        let hint = if made_up { USE_A_SAMPLE } else { "" };
        let options = RunOptions { lenient_categories: made_up, ..self.options };
        let mut session = Session::default();
        let mut out = Vec::new();
        let mut times = Vec::new();
        let requests = warm_up.requests.max(1);
        let started = Instant::now();
        for request in 1..=requests {
            let body = match &sample {
                Some(body) => body,
                None => &self.made_up_request(request),
            };
            out.clear();
            let start = Instant::now();
            self.infer_with(body, &mut session, &mut out, options).map_err(|error| WarmUpError::Infer {
                request,
                error,
                hint,
            })?;
            times.push(start.elapsed());
            self.check_outputs(&session, request, hint)?;
            if started.elapsed() > warm_up.timeout && request < requests {
                let timeout_ms = warm_up.timeout.as_millis();
                return Err(WarmUpError::Timeout { done: request, requests, timeout_ms });
            }
        }
        times.sort();
        let median = times[times.len() / 2];
        match warm_up.latency_max {
            Some(max) if median > max => {
                Err(WarmUpError::TooSlow { got_us: median.as_micros(), max_us: max.as_micros() })
            }
            _ => Ok(WarmUpReport { requests, median }),
        }
    }

    fn check_outputs(&self, session: &Session, request: u32, hint: &'static str) -> Result<(), WarmUpError> {
        let rows = session.request.rows;
        for (index, port) in self.plan.outputs().iter().enumerate() {
            let tensor = self.plan.output(&session.scratch, index);
            let output = || shown(&port.name);
            if tensor.dims().first().is_none_or(|got| *got != rows) {
                return Err(WarmUpError::Rows { request, output: output(), got: tensor.dims().to_vec(), rows });
            }
            let bad = match tensor.data() {
                Data::F32(values) => {
                    let found = values.iter().enumerate().find(|(_, value)| !value.is_finite());
                    found.map(|(index, value)| (index, f64::from(*value)))
                }
                Data::F64(values) => values
                    .iter()
                    .enumerate()
                    .find(|(_, value)| !value.is_finite())
                    .map(|(index, value)| (index, *value)),
                _ => None,
            };
            if let Some((index, value)) = bad {
                return Err(WarmUpError::NotFinite { request, output: output(), index, value, hint });
            }
        }
        Ok(())
    }

    /// One row of made-up values, another for each `seed`.
    fn made_up_request(&self, seed: u32) -> Vec<u8> {
        let mut out = b"{\"inputs\":[".to_vec();
        for (place, port) in self.plan.inputs().iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            // Unknown extents are 1. An input of unknown rank gets a matrix of one value.
            let dims: Vec<usize> = match &port.dims {
                Some(dims) => dims.iter().map(|dim| dim.unwrap_or(1)).collect(),
                None => vec![1, 1],
            };
            let count: usize = dims.iter().fold(1usize, |count, dim| count.saturating_mul(*dim)).min(VALUES_MAX);
            out.extend_from_slice(b"{\"name\":");
            write_text(&mut out, &port.name);
            let shape = dims.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            let head = format!(",\"datatype\":\"{}\",\"shape\":[{shape}],\"data\":[", datatype(port.dtype));
            out.extend_from_slice(head.as_bytes());
            for index in 0..count {
                if index > 0 {
                    out.push(b',');
                }
                let step = (index as u32).wrapping_mul(37).wrapping_add(seed.wrapping_mul(61)) % 64;
                match port.dtype {
                    DType::F32 | DType::F64 => {
                        out.extend_from_slice((f64::from(step + 1) / 64.0).to_string().as_bytes())
                    }
                    DType::I64 | DType::I32 => out.extend_from_slice((step % 2).to_string().as_bytes()),
                    DType::Bool => out.extend_from_slice(if step.is_multiple_of(2) { b"true" } else { b"false" }),
                    DType::Str => out.extend_from_slice(b"\"\""),
                }
            }
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// Most values made up for one input. A model that declares a larger fixed shape needs a sample.
const VALUES_MAX: usize = 1 << 20;

fn read_sample(path: &Path) -> Result<Vec<u8>, WarmUpError> {
    std::fs::read(path).map_err(|error| WarmUpError::Sample { path: path.display().to_string(), error })
}
