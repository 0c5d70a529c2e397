//! The route table, compiled: everything a request needs, resolved before any request comes.

pub mod assign;
pub mod paths;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serin_api::receipt::{ReceiptTemplate, Signer};
use serin_api::units::Weight;
use serin_api::wire::routes::{self, EndpointRoute, PredictionBins, ReceiptKey, Role, strata};
use serin_decide::route::Bucketer;

use crate::counters::{ArmCounters, ArmKey, ArmLabels, CounterRegistry, role_name};
use crate::upstream::replica::{Replica, ReplicaRegistry};
use assign::{Rule, Share};
use paths::Paths;

/// Most frozen bins of a route; the counters' index space ends above it.
const BINS_MAX: usize = 4096;
/// Arms that can be assigned: active and candidate. Further ones are kept warm only.
const ASSIGNABLE: usize = 2;

/// What all workers route by. Immutable; a change makes a new one.
#[derive(Default)]
pub struct Table {
    generations: Generations,
    endpoints: Vec<Arc<Endpoint>>,
    paths: Paths,
    signer: Option<Signer>,
}

/// How new a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// Generation of the newest message in it.
    pub newest: u64,
    /// Last generation at which all routes of control's were in it.
    pub complete: u64,
}

/// One endpoint's route.
#[derive(Debug)]
pub struct Endpoint {
    key: String,
    route: EndpointRoute,
    /// Its plain path prefix, if that can be routed.
    prefix: Option<Box<str>>,
    arms: Vec<Arm>,
    shares: Vec<Share>,
    rules: Vec<Rule>,
    unit_header: Option<HeaderName>,
    bucketer: Bucketer,
    limits: Limits,
    /// By stratum, then arm; empty for strata that no rule selects.
    lanes: Vec<Vec<Lane>>,
}

/// One version.
#[derive(Debug)]
pub struct Arm {
    role: Role,
    replicas: Vec<Arc<Replica>>,
    /// A copy per worker: clones of a header value count references, and workers must not share that count.
    headers: Box<[ArmHeaders]>,
}

/// Constant headers of an arm's answers.
#[derive(Clone, Debug)]
pub struct ArmHeaders {
    /// `serin-version`.
    pub version: HeaderValue,
    /// `serin-digest`; absent where the version has none.
    pub digest: Option<HeaderValue>,
}

/// What belongs to requests of one stratum in one arm.
#[derive(Debug)]
pub struct Lane {
    /// Counts of requests that were assigned to the arm.
    pub counters: Arc<ArmCounters>,
    /// Constant part of the receipts of requests that the arm served.
    pub receipt: ReceiptTemplate,
}

/// Limits of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whole request, attempts included.
    pub timeout: Duration,
    /// First attempt. With a candidate it is half of the whole, so that a retry on active has time left; it judges both arms
    /// alike, but only a candidate's attempt is ended by it, and only as long as nothing of its answer is with the caller.
    pub first_attempt: Duration,
    /// Connection to a replica.
    pub connect_timeout: Duration,
    /// Largest request body.
    pub body_bytes_max: u64,
    /// Whether a failed attempt may be repeated.
    pub idempotent: bool,
    /// Largest answer that is buffered.
    pub retry_buffer_bytes: u64,
    /// How long a leaving replica may finish.
    pub drain: Duration,
}

/// Why a route is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RouteError {
    /// The key and the names inside differ.
    #[error("route {key:?} is about {namespace}/{name}; both must be the same")]
    Key {
        /// Key in the table.
        key: String,
        /// Namespace in the route.
        namespace: String,
        /// Name in the route.
        name: String,
    },
    /// Nothing to send to.
    #[error("arms is empty, want the active version first")]
    NoArms,
    /// No default weights.
    #[error("strata is empty, want the share of arm 1 for stratum 0")]
    NoStrata,
    /// A header name that HTTP does not allow.
    #[error("{field} is {got:?}, want the name of an HTTP header")]
    HeaderName {
        /// Field of the route.
        field: &'static str,
        /// Its value.
        got: String,
    },
    /// A header value that HTTP does not allow.
    #[error("{field} is {got:?}, want printable text that an HTTP header can hold")]
    HeaderValue {
        /// Field of the route.
        field: &'static str,
        /// Its value.
        got: String,
    },
    /// Too many bins.
    #[error("prediction_bins has {0} edges or classes, want at most {BINS_MAX}")]
    Bins(usize),
    /// Edges out of order.
    #[error("prediction_bins has edges that do not rise, or are not numbers")]
    BinOrder,
}

/// Compiles routes.
#[derive(Clone, Debug)]
pub struct Compiler {
    workers: usize,
    counters: Arc<CounterRegistry>,
    replicas: Arc<ReplicaRegistry>,
}

impl Compiler {
    /// A compiler that takes handles from these registries.
    #[must_use]
    pub fn new(workers: usize, counters: Arc<CounterRegistry>, replicas: Arc<ReplicaRegistry>) -> Compiler {
        Compiler { workers, counters, replicas }
    }

    /// Compiles one route. What is wrong with it but changes nobody's assignment is left out with a warning: a path that cannot
    /// be routed, a replica whose address cannot be read. A rule that no request can match stays one that none matches.
    ///
    /// # Errors
    /// [`RouteError`]; nothing has changed then.
    pub fn endpoint(&self, key: &str, route: &EndpointRoute) -> Result<Endpoint, RouteError> {
        check(key, route)?;
        let rules: Vec<Rule> = route.rules.iter().map(|rule| Rule::compile(key, rule)).collect();
        let unit_header =
            route.bucketing.unit_header.as_deref().map(|name| header_name("unit_header", name)).transpose()?;
        let arms = route.arms.iter().map(|arm| self.arm(key, arm)).collect::<Result<Vec<_>, _>>()?;
        let shares = shares(&route.strata, arms.len());
        let used = |stratum: usize| stratum == 0 || rules.iter().any(|rule| usize::from(rule.stratum()) == stratum);
        let lanes = (0..shares.len())
            .map(
                |stratum| if used(stratum) { self.lanes(route, stratum as u16, unit_header.is_some()) } else { vec![] },
            )
            .collect();
        Ok(Endpoint {
            key: key.to_owned(),
            route: route.clone(),
            prefix: prefix(key, route),
            limits: Limits::new(&route.limits, arms.len() > 1),
            arms,
            shares,
            rules,
            unit_header,
            bucketer: Bucketer::new(&route.bucketing.seed),
            lanes,
        })
    }

    fn arm(&self, endpoint: &str, arm: &routes::Arm) -> Result<Arm, RouteError> {
        let headers = (0..self.workers).map(|_| ArmHeaders::new(arm)).collect::<Result<_, _>>()?;
        let replica = |wanted: &routes::Replica| {
            let got = self.replicas.get(wanted);
            if let Err(error) = &got {
                tracing::warn!(endpoint, revision = arm.revision, replica = wanted.id, %error, "replica is left out");
            }
            got.ok()
        };
        let replicas = arm.replicas.iter().filter_map(replica).collect();
        Ok(Arm { role: arm.role, replicas, headers })
    }

    fn lanes(&self, route: &EndpointRoute, stratum: u16, keyed: bool) -> Vec<Lane> {
        let endpoint = format!("{}/{}", route.namespace, route.name);
        let lane = |arm: &routes::Arm| {
            let key =
                ArmKey { endpoint: endpoint.clone(), epoch: route.epoch, stratum, revision: arm.revision.clone() };
            let labels = ArmLabels {
                namespace: route.namespace.clone(),
                name: route.name.clone(),
                revision: arm.revision.clone(),
                version: arm.version.clone(),
                role: role_name(arm.role),
            };
            let served_candidate = arm.role == Role::Candidate;
            Lane {
                counters: self.counters.get(key, labels, keyed),
                receipt: ReceiptTemplate::new(&endpoint, &arm.revision, route.epoch, stratum, served_candidate),
            }
        };
        route.arms.iter().take(ASSIGNABLE).map(lane).collect()
    }

    /// Retires replicas that `table` does not have. `cut_ns`: when requests to a replica are cut, given its time to drain.
    pub fn retire_missing(&self, before: &Table, table: &Table, cut_ns: impl Fn(Duration) -> u64) {
        let wanted: HashSet<*const Replica> = table.replicas().map(Arc::as_ptr).collect();
        let drain = |replica: &Replica| {
            let has = |endpoint: &&Arc<Endpoint>| endpoint.replicas().any(|r| std::ptr::eq(Arc::as_ptr(r), replica));
            before.endpoints.iter().find(has).map_or(Duration::ZERO, |endpoint| endpoint.limits.drain)
        };
        self.replicas.retain(|replica| wanted.contains(&Arc::as_ptr(replica)), |replica| cut_ns(drain(replica)));
    }
}

fn check(key: &str, route: &EndpointRoute) -> Result<(), RouteError> {
    if key != format!("{}/{}", route.namespace, route.name) {
        let (namespace, name) = (route.namespace.clone(), route.name.clone());
        return Err(RouteError::Key { key: key.to_owned(), namespace, name });
    }
    if route.arms.is_empty() {
        return Err(RouteError::NoArms);
    }
    if route.strata.is_empty() {
        return Err(RouteError::NoStrata);
    }
    match &route.prediction_bins {
        Some(PredictionBins::Scores(edges)) if edges.len() > BINS_MAX => Err(RouteError::Bins(edges.len())),
        Some(PredictionBins::Classes(names)) if names.len() > BINS_MAX => Err(RouteError::Bins(names.len())),
        Some(PredictionBins::Scores(edges))
            if edges.iter().any(|e| !e.is_finite()) || edges.windows(2).any(|pair| pair[0] >= pair[1]) =>
        {
            Err(RouteError::BinOrder)
        }
        _ => Ok(()),
    }
}

/// The route's plain path prefix without the slash at its end, if it can be routed.
fn prefix(endpoint: &str, route: &EndpointRoute) -> Option<Box<str>> {
    let path = route.path.as_deref()?;
    if !paths::is_routable_prefix(path) {
        tracing::warn!(
            endpoint,
            path,
            "path is left out; want an absolute path of printable ASCII, neither under /v2 nor under /serin"
        );
        return None;
    }
    Some(path.trim_end_matches('/').into())
}

/// Shares of arm 1 by stratum, with those of the rules' strata where the route names none.
fn shares(weights: &[Weight], arms: usize) -> Vec<Share> {
    let default = |stratum: u16| if stratum == strata::CANDIDATE { Weight::FULL } else { Weight::ZERO };
    let count = weights.len().max(usize::from(strata::CANDIDATE) + 1);
    (0..count)
        .map(|stratum| weights.get(stratum).copied().unwrap_or_else(|| default(stratum as u16)))
        .map(|weight| if arms < ASSIGNABLE { Share::Never } else { Share::of(weight) })
        .collect()
}

fn header_name(field: &'static str, name: &str) -> Result<HeaderName, RouteError> {
    name.parse().map_err(|_| RouteError::HeaderName { field, got: name.to_owned() })
}

fn header_value(field: &'static str, value: &str) -> Result<HeaderValue, RouteError> {
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| RouteError::HeaderValue { field, got: value.to_owned() })
}

impl ArmHeaders {
    fn new(arm: &routes::Arm) -> Result<ArmHeaders, RouteError> {
        let digest = (!arm.digest.is_empty()).then(|| header_value("digest", &arm.digest)).transpose()?;
        Ok(ArmHeaders { version: header_value("version", &arm.version)?, digest })
    }
}

impl Limits {
    fn new(limits: &routes::RouteLimits, has_candidate: bool) -> Limits {
        let ms = Duration::from_millis;
        // A day bounds arithmetic on deadlines, whatever the table says.
        let timeout = ms(limits.timeout_ms.clamp(1, 86_400_000));
        Limits {
            timeout,
            first_attempt: if has_candidate { timeout / 2 } else { timeout },
            connect_timeout: ms(limits.connect_timeout_ms.clamp(1, 86_400_000)),
            body_bytes_max: limits.max_body_bytes,
            idempotent: limits.idempotent,
            retry_buffer_bytes: limits.retry_buffer_bytes.min(16 << 20),
            drain: ms(limits.drain_ms.min(86_400_000)),
        }
    }
}

impl Arm {
    /// Role of the version.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its replicas.
    #[must_use]
    pub fn replicas(&self) -> &[Arc<Replica>] {
        &self.replicas
    }

    /// Constant headers, the given worker's copy.
    #[must_use]
    pub fn headers(&self, worker: usize) -> &ArmHeaders {
        &self.headers[worker]
    }
}

impl Endpoint {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The route as it came.
    #[must_use]
    pub fn route(&self) -> &EndpointRoute {
        &self.route
    }

    /// Plain path prefix that leads to it, without a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Versions; index 0 is active.
    #[must_use]
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// Limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Frozen bins for predictions.
    #[must_use]
    pub fn bins(&self) -> Option<&PredictionBins> {
        self.route.prediction_bins.as_ref()
    }

    /// Counters and receipt of an assignable arm in a stratum in use.
    #[must_use]
    pub fn lane(&self, stratum: u16, arm: usize) -> &Lane {
        &self.lanes[usize::from(stratum)][arm]
    }

    /// The lanes of a revision, over all strata in use.
    pub fn lanes_of<'e>(&'e self, revision: &'e str) -> impl Iterator<Item = &'e Lane> {
        self.lanes.iter().flatten().filter(move |lane| lane.counters.key().revision == revision)
    }

    fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.arms.iter().flat_map(|arm| &arm.replicas)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("generations", &self.generations)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Puts compiled endpoints together. Keys that cannot sign are skipped with a warning.
    #[must_use]
    pub fn new(generations: Generations, endpoints: &BTreeMap<String, Arc<Endpoint>>, keys: &[ReceiptKey]) -> Table {
        let endpoints: Vec<_> = endpoints.values().cloned().collect();
        let paths = Paths::new(&endpoints);
        let signer = keys.first().and_then(Signer::new);
        if let (Some(key), None) = (keys.first(), &signer) {
            tracing::warn!(key = key.id, "receipt key is malformed; answers carry no receipt");
        }
        Table { generations, endpoints, paths, signer }
    }

    /// Generation of the newest message in it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generations.newest
    }

    /// Last generation at which all routes of control's were in force.
    #[must_use]
    pub fn complete_generation(&self) -> u64 {
        self.generations.complete
    }

    /// Endpoint by the index that [`Table::find`] gave.
    #[must_use]
    pub fn endpoint(&self, index: usize) -> &Arc<Endpoint> {
        &self.endpoints[index]
    }

    /// All endpoints, by key.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// What a path leads to.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<paths::Found> {
        self.paths.find(path)
    }

    /// Signs receipts.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.endpoints.iter().flat_map(|endpoint| endpoint.replicas())
    }
}
