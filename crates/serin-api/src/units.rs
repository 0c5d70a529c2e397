//! Time, durations and weights: the small units that everything else is written in.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Wall-clock time in milliseconds since the Unix epoch. It is always an argument, never read here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// This time plus a span, saturating.
    #[must_use]
    pub fn plus(self, span: Span) -> Millis {
        Millis(self.0.saturating_add(span.ms() as i64))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Span {
        Span::from_ms(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A duration with a resolution of 1 ms, written as in Go and Kubernetes: `300ms`, `5s`, `1m30s`, `2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// What a span looks like in a manifest, as a regular expression.
    pub const PATTERN: &str = "^(0|([0-9]{1,10}(h|m|s|ms))+)$";
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// Longest span that is accepted in a manifest: 10,000 days, so that sums never overflow.
    pub const MAX: Span = Span(10_000 * 24 * 3_600_000);

    /// A span of `ms` milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms)
    }

    /// A span of `s` seconds.
    #[must_use]
    pub const fn from_secs(s: u64) -> Span {
        Span(s * 1000)
    }

    /// Length in milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Length in seconds.
    #[must_use]
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The same as a standard duration.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// Why a text is not a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// The text does not follow the form.
    #[error("{0:?} is not a duration; write numbers with units h, m, s or ms, such as 300ms, 5s or 1m30s")]
    Form(String),
    /// The text means more than [`Span::MAX`].
    #[error("{0:?} is longer than 10,000 days; write a shorter duration")]
    TooLong(String),
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Span, SpanError> {
        let form = || SpanError::Form(text.to_owned());
        let mut rest = text;
        let mut total: u64 = 0;
        if rest.is_empty() {
            return Err(form());
        }
        if rest == "0" {
            return Ok(Span::ZERO);
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?;
            let number: u64 = rest[..digits].parse().map_err(|_| form())?;
            rest = &rest[digits..];
            let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit_ms = match &rest[..unit_len] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(form()),
            };
            rest = &rest[unit_len..];
            total = number
                .checked_mul(unit_ms)
                .and_then(|ms| total.checked_add(ms))
                .filter(|ms| *ms <= Span::MAX.0)
                .ok_or_else(|| SpanError::TooLong(text.to_owned()))?;
        }
        Ok(Span(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0;
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if ms >= unit_ms {
                write!(f, "{}{unit}", ms / unit_ms)?;
                ms %= unit_ms;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": Span::PATTERN,
            "maxLength": 40,
        })
    }
}

/// Share of traffic, in parts of 100,000 (so 0.001 % is the resolution). Written in manifests as a percentage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// No traffic.
    pub const ZERO: Weight = Weight(0);
    /// All traffic.
    pub const FULL: Weight = Weight(100_000);

    /// A weight of `parts` of 100,000; larger values are cut to [`Weight::FULL`].
    #[must_use]
    pub const fn from_parts(parts: u32) -> Weight {
        Weight(if parts > 100_000 { 100_000 } else { parts })
    }

    /// A weight from a percentage in `[0, 100]`, rounded to 0.001 %. NaN and values outside give `None`.
    #[must_use]
    pub fn from_percent(percent: f64) -> Option<Weight> {
        (0.0..=100.0).contains(&percent).then(|| Weight((percent * 1000.0).round() as u32))
    }

    /// Parts of 100,000.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// Percentage in `[0, 100]`.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// Probability in `[0, 1]`.
    #[must_use]
    pub fn probability(self) -> f64 {
        f64::from(self.0) / 100_000.0
    }

    /// What is left to the other arm.
    #[must_use]
    pub const fn complement(self) -> Weight {
        Weight(100_000 - self.0)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent())
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole percentages are written as integers, so that what a user wrote comes back as written.
        if self.0.is_multiple_of(1000) {
            serializer.serialize_u32(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.percent())
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Weight, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        Weight::from_percent(percent)
            .ok_or_else(|| serde::de::Error::custom(format!("weight is {percent}, want a percentage from 0 to 100")))
    }
}

impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0.0, "maximum": 100.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print_as_go_durations() {
        let rows = [
            ("300ms", 300, "300ms"),
            ("5s", 5_000, "5s"),
            ("1m30s", 90_000, "1m30s"),
            ("90s", 90_000, "1m30s"),
            ("2h", 7_200_000, "2h"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
        ];
        for (text, ms, printed) in rows {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.ms(), span.to_string().as_str()), (ms, printed), "{text}");
            assert_eq!(printed.parse::<Span>().unwrap(), span);
        }
    }

    #[test]
    fn what_is_not_a_span_is_refused_with_the_remedy() {
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5d", "5s3", "99999999999999999999s"] {
            let error = text.parse::<Span>().unwrap_err();
            assert!(error.to_string().contains("1m30s"), "{text}: {error}");
        }
        assert!(matches!("240001h".parse::<Span>(), Err(SpanError::TooLong(_))));
    }

    #[test]
    fn weights_keep_a_thousandth_of_a_percent_and_come_back_as_written() {
        for (json, parts) in [("10", 10_000), ("0.001", 1), ("12.5", 12_500), ("100", 100_000), ("0", 0)] {
            let weight: Weight = serde_json::from_str(json).unwrap();
            assert_eq!(weight.parts(), parts);
            assert_eq!(serde_json::to_string(&weight).unwrap(), json);
        }
        for json in ["-1", "100.1", "\"10\"", "1e9"] {
            assert!(serde_json::from_str::<Weight>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_gives_a_zero_span() {
        assert_eq!(Millis(5).since(Millis(9)), Span::ZERO);
    }
}
