//! The route of one endpoint as a pure function of its spec, its versions and its rollout.

use serin_api::resources::endpoint::{ModelEndpointSpec, VersionRef};
use serin_api::resources::rollout::{Bucketing, Frozen};
use serin_api::units::Weight;
use serin_api::wire::routes::{Arm, EndpointRoute, PredictionBins, Replica, Role, RouteLimits, RouteRule, strata};

/// A version and its replicas that may receive requests now.
#[derive(Clone, Copy, Debug)]
pub struct RouteVersion<'a> {
    /// The version.
    pub version: &'a VersionRef,
    /// Its replicas that are ready; may be empty.
    pub replicas: &'a [Replica],
}

/// What a rollout that is not over says about the route.
#[derive(Clone, Copy, Debug)]
pub struct RolloutRoute<'a> {
    /// Name of the ModelRollout.
    pub name: &'a str,
    /// The candidate's share per stratum in the epoch in force: the last of `status.epochs`.
    pub weights: &'a [Weight],
    /// References in force, if they are frozen.
    pub frozen: Option<&'a Frozen>,
    /// `spec.bucketing` of the rollout.
    pub bucketing: &'a Bucketing,
}

/// Everything that one endpoint's route depends on.
#[derive(Clone, Copy, Debug)]
pub struct RouteInput<'a> {
    /// Namespace of the endpoint.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its spec.
    pub spec: &'a ModelEndpointSpec,
    /// Generation of the route; rises with every change.
    pub generation: u64,
    /// Epoch in force: `status.epoch` of the rollout, or of the endpoint when there is none.
    pub epoch: u64,
    /// The version that serves; `None` before the first one is ready. After a promotion that is the rollout's `to`.
    pub active: Option<RouteVersion<'a>>,
    /// The version on trial. `None` once the rollout is over.
    pub candidate: Option<RouteVersion<'a>>,
    /// The rollout under way. `None` once it is over: promoted, rolled back or superseded.
    pub rollout: Option<RolloutRoute<'a>>,
}

/// The candidate's share in the strata that every route has, for a default weight: by [`strata`]'s indices.
///
/// `exposed` says whether rules may send requests to the candidate: not before the first step begins, and not after a rollback.
#[must_use]
pub fn strata_weights(weight: Weight, exposed: bool) -> Vec<Weight> {
    let mut weights = vec![Weight::ZERO; 3];
    if exposed {
        weights[usize::from(strata::DEFAULT)] = weight;
        weights[usize::from(strata::CANDIDATE)] = Weight::FULL;
    }
    weights
}

/// Builds the route of an endpoint.
///
/// The route is what the rollout says, also when an arm has no replica: weights never follow readiness by themselves, or the
/// assignment would no longer be the one that the evidence is conditioned on. A gateway counts a request that was assigned to an
/// empty candidate arm as a failed first attempt of the candidate (`NoReplica`) and lets the active version serve it, and answers
/// 503 where the active arm is empty too. Whether a candidate without replicas gets traffic at all is the rollout's decision.
///
/// Without a candidate every weight is 0. The result has three strata ([`strata`]), arm 0 always, and arm 1 with a candidate.
#[must_use]
pub fn build_route(input: &RouteInput<'_>) -> EndpointRoute {
    let traffic = &input.spec.traffic;
    let arm = |role, version: &RouteVersion<'_>| Arm {
        role,
        revision: version.version.revision.clone(),
        version: version.version.version.clone(),
        digest: version.version.digest.clone(),
        replicas: version.replicas.to_vec(),
    };
    let nothing = VersionRef::default();
    let active = input.active.unwrap_or(RouteVersion { version: &nothing, replicas: &[] });
    let mut arms = vec![arm(Role::Active, &active)];
    let mut weights = strata_weights(Weight::ZERO, false);
    if let Some(candidate) = &input.candidate {
        arms.push(arm(Role::Candidate, candidate));
        if let Some(rollout) = &input.rollout {
            for (weight, wanted) in weights.iter_mut().zip(rollout.weights) {
                *weight = *wanted;
            }
        }
    }
    EndpointRoute {
        namespace: input.namespace.to_owned(),
        name: input.name.to_owned(),
        generation: input.generation,
        epoch: input.epoch,
        rollout: input.rollout.map(|r| r.name.to_owned()).unwrap_or_default(),
        path: traffic.path.clone(),
        arms,
        strata: weights,
        rules: traffic
            .rules
            .iter()
            .map(|rule| RouteRule {
                headers: rule.headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.clone())).collect(),
                to: rule.to,
            })
            .collect(),
        bucketing: input
            .rollout
            .map(|r| r.bucketing.clone())
            .unwrap_or_else(|| Bucketing { unit_header: traffic.unit_header(), ..Bucketing::default() }),
        prediction_bins: input.rollout.and_then(|r| r.frozen).and_then(prediction_bins),
        limits: RouteLimits {
            timeout_ms: traffic.timeout.ms(),
            connect_timeout_ms: traffic.connect_timeout.ms(),
            max_body_bytes: traffic.max_body_bytes,
            idempotent: traffic.idempotent,
            drain_ms: traffic.drain.ms(),
            ..RouteLimits::default()
        },
    }
}

fn prediction_bins(frozen: &Frozen) -> Option<PredictionBins> {
    if !frozen.score_edges.is_empty() {
        Some(PredictionBins::Scores(frozen.score_edges.clone()))
    } else if !frozen.classes.is_empty() {
        Some(PredictionBins::Classes(frozen.classes.clone()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serin_api::resources::endpoint::{HeaderMatch, RuleTarget, Stickiness, TrafficRule};
    use serin_api::resources::gates::RolloutPlan;
    use serin_api::wire::routes::Address;

    use super::*;

    fn spec() -> ModelEndpointSpec {
        let mut spec: ModelEndpointSpec =
            serde_json::from_str(r#"{"model": {"version": "v1", "storageUri": "/m.onnx"}}"#).unwrap();
        spec.rollout = RolloutPlan::default();
        spec.traffic.stickiness = Some(Stickiness { header: "X-User".into() });
        spec.traffic.path = Some("/predict".into());
        spec.traffic.rules = vec![TrafficRule {
            headers: vec![HeaderMatch { name: "X-Beta".into(), value: "Yes".into() }],
            to: RuleTarget::Candidate,
        }];
        spec
    }

    fn version(name: &str) -> VersionRef {
        VersionRef { revision: format!("adult-{name}"), version: name.into(), digest: format!("sha256:{name}") }
    }

    #[test]
    fn the_route_says_what_the_rollout_says_even_when_the_candidate_has_no_replica() {
        let (spec, v1, v2) = (spec(), version("v1"), version("v2"));
        let replicas = [Replica { id: "a".into(), address: Address::Tcp("127.0.0.1:1".into()) }];
        let bucketing = Bucketing { seed: "s".into(), unit_header: Some("x-account".into()), ..Bucketing::default() };
        let frozen = Frozen { score_edges: vec![0.5], ..Frozen::default() };
        let weights = strata_weights(Weight::from_parts(10_000), true);
        let input = RouteInput {
            namespace: "default",
            name: "adult",
            spec: &spec,
            generation: 7,
            epoch: 3,
            active: Some(RouteVersion { version: &v1, replicas: &replicas }),
            candidate: Some(RouteVersion { version: &v2, replicas: &[] }),
            rollout: Some(RolloutRoute {
                name: "adult-1",
                weights: &weights,
                frozen: Some(&frozen),
                bucketing: &bucketing,
            }),
        };
        let route = build_route(&input);
        assert_eq!(route.strata, [Weight::from_parts(10_000), Weight::ZERO, Weight::FULL]);
        assert_eq!((route.arms[0].role, route.arms[1].role), (Role::Active, Role::Candidate));
        assert_eq!((route.arms[0].replicas.len(), route.arms[1].replicas.len()), (1, 0));
        assert_eq!((route.epoch, route.generation, route.rollout.as_str()), (3, 7, "adult-1"));
        assert_eq!(route.bucketing, bucketing, "frozen, whatever the endpoint says by now");
        assert_eq!(route.rules[0].headers, [("x-beta".to_owned(), "Yes".to_owned())]);
        assert_eq!(route.rules[0].stratum(), strata::CANDIDATE);
        assert_eq!(route.prediction_bins, Some(PredictionBins::Scores(vec![0.5])));
        assert_eq!((route.limits.timeout_ms, route.limits.retry_buffer_bytes), (30_000, 65_536));
        assert_eq!(route.path.as_deref(), Some("/predict"));

        let over = build_route(&RouteInput { candidate: None, rollout: None, ..input });
        assert_eq!(over.strata, [Weight::ZERO; 3]);
        assert_eq!((over.arms.len(), over.rollout.as_str(), over.prediction_bins), (1, "", None));
    }

    #[test]
    fn an_endpoint_without_a_version_has_an_empty_active_arm() {
        let spec = spec();
        let input = RouteInput {
            namespace: "n",
            name: "e",
            spec: &spec,
            generation: 1,
            epoch: 0,
            active: None,
            candidate: None,
            rollout: None,
        };
        let route = build_route(&input);
        assert_eq!((route.arms.len(), route.arms[0].replicas.len()), (1, 0));
    }
}
