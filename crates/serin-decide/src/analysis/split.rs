//! How the false-rollback rate that the user set is spent: over the gates, and over the canary and the bake.

use std::fmt;

use serde::{Deserialize, Serialize};
use serin_api::resources::gates::{GateMode, Gates};

/// A gate of this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GateName {
    /// Failing units.
    Errors,
    /// Latency above the frozen quantiles.
    Latency,
    /// The distribution of predictions.
    Distribution,
    /// Wrong predictions, by labels.
    Labels,
}

impl GateName {
    /// All gates in the order in which they are shown.
    pub const ALL: [GateName; 4] = [GateName::Errors, GateName::Latency, GateName::Distribution, GateName::Labels];

    /// Name in specs, statuses and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GateName::Errors => "errors",
            GateName::Latency => "latency",
            GateName::Distribution => "distribution",
            GateName::Labels => "labels",
        }
    }
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Default relative shares of alpha, in the order of [`GateName::ALL`].
///
/// Most is on errors: a gate with a quarter of alpha exposes half as many users again to a version that fails 5 % instead of 1 %.
/// The others lose little by a small share, because what they guard against shows in many events: a tenth of alpha is worth
/// ln(10) = 2.3, a few wrong predictions.
pub const DEFAULT_SHARES: [f64; 4] = [0.7, 0.1, 0.1, 0.1];

/// Why shares of alpha make no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// An enforced gate without alpha could never fail.
    #[error(
        "gates.{gate}.share is {share}, want more than 0 and at most 1; to watch the gate without letting it decide, set gates.{gate}.mode to DryRun"
    )]
    Share {
        /// The gate.
        gate: GateName,
        /// Its share.
        share: f64,
    },
    /// Alpha is no usable rate.
    #[error("gates.alpha is {0}, want a rate from 1e-9 to 0.5; 0.05 rolls back one good version in twenty")]
    Alpha(f64),
    /// The bake's share is no usable share.
    #[error("gates.bakeShare is {0}, want a share from 0 to 0.9")]
    BakeShare(f64),
}

/// The gates of a plan with their modes, and alpha split over them.
#[derive(Clone, Debug, PartialEq)]
pub struct GateSet {
    /// The gates as the plan has them.
    pub spec: Gates,
    /// Alpha of the e-processes that run through all canary steps.
    pub canary_alpha: f64,
    /// Alpha of the bake's fresh ones.
    pub bake_alpha: f64,
    /// Whether the bake has no control, so that errors are held against the frozen baseline and nothing else is tested.
    pub one_sample_bake: bool,
    /// Whether the frozen baseline of errors is needed.
    pub needs_baseline: bool,
    modes: [GateMode; 4],
    shares: [f64; 4],
}

impl GateSet {
    /// Splits alpha.
    ///
    /// * `canary`: whether there is a canary step at all. Without one the bake gets all of alpha.
    /// * `bake`: whether there is a bake. Without one the canary steps get all of alpha.
    /// * `one_sample_bake`: whether the candidate has all traffic in the bake.
    ///
    /// Shares are relative: they are divided by their sum over the enforced gates. A gate in dry run gets none.
    ///
    /// # Errors
    /// [`SplitError`] for an alpha or a share outside its range.
    pub fn new(spec: &Gates, canary: bool, bake: bool, one_sample_bake: bool) -> Result<GateSet, SplitError> {
        if !(1e-9..=0.5).contains(&spec.alpha) {
            return Err(SplitError::Alpha(spec.alpha));
        }
        if !(0.0..=0.9).contains(&spec.bake_share) {
            return Err(SplitError::BakeShare(spec.bake_share));
        }
        let modes = [
            spec.errors.mode,
            spec.latency.mode,
            spec.distribution.mode.unwrap_or(GateMode::Enforce),
            spec.labels.mode,
        ];
        let asked = [spec.errors.share, spec.latency.share, spec.distribution.share, spec.labels.share];
        let mut shares = [0.0; 4];
        for gate in GateName::ALL {
            let i = gate as usize;
            if modes[i] == GateMode::Enforce {
                let share = asked[i].unwrap_or(DEFAULT_SHARES[i]);
                if !(share > 0.0 && share <= 1.0) {
                    return Err(SplitError::Share { gate, share });
                }
                shares[i] = share;
            }
        }
        let sum: f64 = shares.iter().sum();
        if sum > 0.0 {
            shares = shares.map(|share| share / sum);
        }
        let bake_share = match (canary, bake) {
            (true, true) => spec.bake_share,
            (false, true) => 1.0,
            (_, false) => 0.0,
        };
        Ok(GateSet {
            spec: spec.clone(),
            canary_alpha: spec.alpha * (1.0 - bake_share),
            bake_alpha: spec.alpha * bake_share,
            one_sample_bake: bake && one_sample_bake,
            needs_baseline: bake && one_sample_bake && modes[GateName::Errors as usize] == GateMode::Enforce,
            modes,
            shares,
        })
    }

    /// What a gate's verdict does.
    #[must_use]
    pub fn mode(&self, gate: GateName) -> GateMode {
        self.modes[gate as usize]
    }

    /// Share of a copy's alpha that a gate has, in [0, 1]; all enforced gates' sum to 1.
    ///
    /// In a one-sample bake only errors are tested, so they have all of it.
    #[must_use]
    pub fn share(&self, gate: GateName, bake: bool) -> f64 {
        if bake && self.one_sample_bake {
            let errors = gate == GateName::Errors && self.mode(gate) == GateMode::Enforce;
            return if errors { 1.0 } else { 0.0 };
        }
        self.shares[gate as usize]
    }

    /// Alpha of the canary's or of the bake's copy.
    #[must_use]
    pub fn alpha(&self, bake: bool) -> f64 {
        if bake { self.bake_alpha } else { self.canary_alpha }
    }

    /// Whether any gate decides something.
    #[must_use]
    pub fn any_enforced(&self) -> bool {
        self.modes.contains(&GateMode::Enforce)
    }
}
