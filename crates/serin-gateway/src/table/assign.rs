//! Which arm a request is assigned to: rules first, then the unit's bucket, else chance.

use http::{HeaderName, HeaderValue};
use serin_api::units::Weight;
use serin_api::wire::routes::{RouteRule, strata};
use serin_decide::route::random_bucket;

use crate::h1::fields::Fields;

use super::{Endpoint, RouteError, header_name, header_value};

/// Where a request is sent, and how that came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the probability vector that was used.
    pub stratum: u16,
    /// Index of the arm.
    pub arm: usize,
    /// Bucket of the unit key; `None` where a rule or chance decided.
    pub bucket: Option<u32>,
}

/// Share of arm 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// No request.
    Never,
    /// All requests.
    Always,
    /// Buckets below this one.
    Below(u32),
}

impl Share {
    pub(super) fn of(weight: Weight) -> Share {
        match weight {
            Weight::ZERO => Share::Never,
            Weight::FULL => Share::Always,
            weight => Share::Below(weight.parts()),
        }
    }

    fn arm(self, bucket: impl FnOnce() -> u32) -> usize {
        match self {
            Share::Never => 0,
            Share::Always => 1,
            Share::Below(edge) => usize::from(bucket() < edge),
        }
    }
}

/// A header rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// `None` where HTTP allows no such header, so that no request can have it.
    headers: Option<Vec<(HeaderName, HeaderValue)>>,
    stratum: u16,
}

impl Rule {
    pub(super) fn compile(endpoint: &str, rule: &RouteRule) -> Rule {
        let field = |(name, value): &(String, String)| {
            Ok::<_, RouteError>((
                header_name("rules[].headers name", name)?,
                header_value("rules[].headers value", value)?,
            ))
        };
        let headers = rule.headers.iter().map(field).collect::<Result<_, _>>();
        if let Err(error) = &headers {
            tracing::warn!(endpoint, %error, "a rule can match no request");
        }
        Rule { headers: headers.ok(), stratum: rule.stratum() }
    }

    pub(super) fn stratum(&self) -> u16 {
        self.stratum
    }

    /// All of its headers are there with their values; a header that came several times has all of its values.
    fn matches(&self, fields: &Fields) -> bool {
        let has = |(name, value): &(HeaderName, HeaderValue)| fields.get_all(name).any(|got| got == value);
        self.headers.as_ref().is_some_and(|headers| headers.iter().all(has))
    }
}

impl Endpoint {
    /// Assigns a request by its headers. `random` is asked for a uniform number where chance decides.
    #[must_use]
    pub fn assign(&self, fields: &Fields, random: impl FnOnce() -> u64) -> Assignment {
        if let Some(rule) = self.rules.iter().find(|rule| rule.matches(fields)) {
            let share = self.shares[usize::from(rule.stratum)];
            return Assignment { stratum: rule.stratum, arm: share.arm(|| random_bucket(random())), bucket: None };
        }
        let share = self.shares[usize::from(strata::DEFAULT)];
        match self.unit(fields) {
            Some(unit) => {
                let bucket = self.bucketer.bucket(unit);
                Assignment { stratum: strata::DEFAULT, arm: share.arm(|| bucket), bucket: Some(bucket) }
            }
            None => Assignment { stratum: strata::DEFAULT, arm: share.arm(|| random_bucket(random())), bucket: None },
        }
    }

    /// Assigns a request that is no inference, such as a question for metadata: to active, unless a rule says otherwise.
    #[must_use]
    pub fn assign_by_rule(&self, fields: &Fields) -> Assignment {
        let stratum = self.rules.iter().find(|rule| rule.matches(fields)).map_or(strata::DEFAULT, |rule| rule.stratum);
        let arm = match self.shares[usize::from(stratum)] {
            Share::Always if stratum != strata::DEFAULT => 1,
            _ => 0,
        };
        Assignment { stratum, arm, bucket: None }
    }

    /// Hash under which the request's unit counts, or `None` where the endpoint has no unit key. Requests of an endpoint
    /// with a unit key that bring none count as a unit each, for which `random` is asked.
    #[must_use]
    pub fn failing_unit(&self, fields: &Fields, random: impl FnOnce() -> u64) -> Option<u64> {
        self.unit_header.as_ref()?;
        Some(self.unit(fields).map_or_else(random, |unit| self.bucketer.unit_hash(unit)))
    }

    fn unit<'h>(&self, fields: &'h Fields) -> Option<&'h [u8]> {
        let value = fields.get(self.unit_header.as_ref()?)?.as_bytes();
        (!value.is_empty()).then_some(value)
    }
}
